//! Files that are damaged or cut while the store is open, on a real file system.

use std::path::Path;

use super::*;
use crate::base::disk::OsDisk;
use crate::model::matcher::MatchOp;

/// A store on a real folder, without threads.
fn open(folder: &Path) -> Arc<Storage> {
    let options = Options {
        path: folder.to_owned(),
        log_file_bytes_max: 64 << 20,
        ..Machine::new(1).options
    };
    let clock = Arc::new(SimClock::new(NOW_MS));
    let registry = Registry::new();
    Storage::open_quiet(Arc::new(OsDisk), clock, &SimRng::new(7), &registry, options).unwrap()
}

/// Samples that do not compress, from this second on.
fn fill(storage: &Storage, first_second: i64) {
    for second in first_second..first_second + 60 {
        let value = |i: usize| {
            f64::from((second as u32 * 97 + i as u32).wrapping_mul(2_654_435_761)).sqrt()
        };
        let samples: Vec<_> =
            (0..300).map(|i| (labels("m", i), NOW_MS + second * 1_000, value(i))).collect();
        append(storage, &samples);
    }
}

fn only(folder: &Path, kind: &str) -> PathBuf {
    let names = OsDisk.list(&folder.join(kind)).unwrap();
    folder.join(kind).join(names.last().unwrap())
}

fn read_all(storage: &Storage) -> Result<usize, QueryError> {
    let selection = storage.select(&[], TimeRange::ALL, &SelectHints::default())?;
    Ok(try_read(&selection)?.iter().map(|(_, samples)| samples.len()).sum())
}

/// Two segments; the path of the second, which has so many more series of one sample each.
fn two_segments(folder: &Path, more: usize) -> (Arc<Storage>, PathBuf) {
    let storage = open(folder);
    fill(&storage, 0);
    storage.seal_now().unwrap();
    fill(&storage, 60);
    let more: Vec<_> = (0..more).map(|i| (labels("more", i), NOW_MS, 0.5)).collect();
    append(&storage, &more);
    storage.seal_now().unwrap();
    let path = only(folder, "segments");
    (storage, path)
}

fn damage(path: &Path, at: u64) {
    OsDisk.open(path).unwrap().write_at(&[0x55; 64], at).unwrap();
}

/// So many that the last page of the segment has postings only.
const MORE: usize = 4_000;

#[test]
fn a_segment_that_is_cut_or_whose_tables_are_damaged_is_an_error_and_then_left_out() {
    for cut in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (mut storage, path) = two_segments(folder.path(), MORE);
        let bytes = OsDisk.len(&path).unwrap();
        let whole = all(&storage);
        assert_eq!(read_all(&storage).unwrap(), 36_000 + MORE);
        if cut {
            OsDisk.open(&path).unwrap().set_len(bytes / 4).unwrap();
            for _ in 0..2 {
                let err = read_all(&storage).unwrap_err().to_string();
                assert!(err.contains(&path.display().to_string()), "{err}");
                assert!(try_read(&whole).is_err(), "a query that began before");
            }
            // Merging must not take it either.
            assert!(storage.compact_now().is_err());
        } else {
            drop(whole);
            drop(storage);
            storage = open(folder.path());
            // Columns come first, postings last.
            damage(&path, bytes - 1_150);
            damage(&path, bytes - 2_600);
            let one = [Matcher::equal("i", "7")];
            let found = storage.select(&one, TimeRange::ALL, &SelectHints::default());
            assert!(found.is_err());
        }
        storage.store.quarantine().unwrap();
        assert_eq!(read_all(&storage).unwrap(), 18_000);
        let name = path.file_name().unwrap();
        assert!(OsDisk.exists(&folder.path().join("quarantine").join(name)));
        assert!(!storage.is_poisoned());
        drop(storage);
        assert_eq!(read_all(&open(folder.path())).unwrap(), 18_000);
    }
}

/// A device that fails for a while: the file is as long as it was, and later it gives its bytes.
#[test]
fn a_segment_that_can_be_read_again_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, path) = two_segments(folder.path(), 0);
    let bytes = OsDisk.read(&path).unwrap();
    let file = OsDisk.open(&path).unwrap();
    file.set_len(bytes.len() as u64 / 4).unwrap();
    assert!(read_all(&storage).is_err());
    file.write_at(&bytes, 0).unwrap();
    assert!(read_all(&storage).is_err(), "until it is opened anew");
    storage.store.quarantine().unwrap();
    assert_eq!(read_all(&storage).unwrap(), 36_000);
    storage.store.quarantine().unwrap();
    assert_eq!(storage.segments().len(), 2);
}

/// How many samples each series has; `None`: there is an error, which names file and offset.
fn counts(storage: &Storage, path: &Path, at: u64, range: TimeRange) -> Vec<Option<usize>> {
    let place = format!("{}: corrupt data at byte {at}: ", path.display());
    let count = |i: usize| {
        let one = [Matcher::equal("i", &i.to_string())];
        let selection = storage.select(&one, range, &SelectHints::default());
        match selection.and_then(|selection| try_read(&selection)) {
            Ok(found) => Some(found.iter().map(|(_, samples)| samples.len()).sum()),
            Err(err) => {
                let err = err.to_string();
                assert!(err.starts_with(&place), "{err} instead of {place}");
                None
            }
        }
    };
    (0..300).map(count).collect()
}

#[test]
fn only_series_with_damaged_chunks_give_errors_and_merging_does_not_hide_that() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, path) = two_segments(folder.path(), 0);
    let page = 32 << 10;
    damage(&path, page + 100);
    let found = counts(&storage, &path, page, TimeRange::ALL);
    let broken: Vec<usize> = (0..300).filter(|i| found[*i].is_none()).collect();
    // A page has about 70 chunks of 60 values.
    assert!((50..100).contains(&broken.len()), "{broken:?}");
    assert!(found.iter().flatten().all(|count| *count == 120), "the others are whole");
    let before = TimeRange { max_ms: NOW_MS + 59_000, ..TimeRange::ALL };
    assert!(counts(&storage, &path, page, before).iter().all(|own| *own == Some(60)));
    storage.store.quarantine().unwrap();
    assert_eq!(counts(&storage, &path, page, TimeRange::ALL), found, "it stays in use");
    // Merged, what is damaged is told all the same.
    storage.compact_now().unwrap();
    assert!(!OsDisk.exists(&path));
    let kept = folder.path().join("quarantine").join(path.file_name().unwrap());
    let mut storage = storage;
    for _ in 0..3 {
        assert_eq!(counts(&storage, &kept, page, TimeRange::ALL), found);
        assert!(counts(&storage, &kept, page, before).iter().all(|own| *own == Some(60)));
        assert!(read_all(&storage).is_err());
        let labels_only = SelectHints { labels_only: true, ..SelectHints::default() };
        let series = storage.select(&[], TimeRange::ALL, &labels_only).unwrap();
        assert_eq!(series.len(), 300);
        drop(storage);
        storage = open(folder.path());
        storage.compact_now().unwrap();
    }
    let name = storage.snapshot(true).unwrap();
    let copy = open(&folder.path().join("snapshots").join(name));
    let kept_there = copy.store.folders.quarantine.join(path.file_name().unwrap());
    assert_eq!(counts(&copy, &kept_there, page, TimeRange::ALL), found);
    // Who deletes what is lost does not miss it any more.
    let numbers: Vec<_> = broken.iter().map(ToString::to_string).collect();
    let lost = vec![Matcher::new(MatchOp::Regex, "i", &numbers.join("|")).unwrap()];
    let after = TimeRange { min_ms: NOW_MS + 60_000, ..TimeRange::ALL };
    storage.delete_series(&[lost], after).unwrap();
    let expected = 36_000 - 60 * broken.len();
    assert_eq!(read_all(&storage).unwrap(), expected);
    drop(storage);
    assert_eq!(read_all(&open(folder.path())).unwrap(), expected);
    // Or when it is too old.
    append(&copy, &[(labels("m", 0), NOW_MS + 600_000, 1.0)]);
    copy.set_retention(Retention::of_time_ms(Some(481_000)));
    copy.store.apply_retention().unwrap();
    assert!(read_all(&copy).is_err(), "the newest of it is in time");
    copy.set_retention(Retention::of_time_ms(Some(480_999)));
    copy.store.apply_retention().unwrap();
    assert!(read_all(&copy).is_ok());
}

#[test]
fn a_log_file_that_is_cut_is_an_error_and_stops_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path());
    fill(&storage, 0);
    storage.seal_now().unwrap();
    fill(&storage, 60);
    // The file is mapped for one series; what was read of it is kept, the rest is not read yet.
    let one = [Matcher::equal("i", "0")];
    let one = storage.select(&one, TimeRange::ALL, &SelectHints::default()).unwrap();
    assert_eq!(read(&one)[0].1.len(), 120);
    let path = only(folder.path(), "wal");
    OsDisk.open(&path).unwrap().set_len(8_192).unwrap();
    let err = read_all(&storage).unwrap_err().to_string();
    assert!(err.contains("the file was cut while it was open"), "{err}");
    assert!(storage.seal_now().is_err(), "zeros are not sealed");
    let _ = storage.store.quarantine();
    assert!(storage.is_poisoned());
    assert_eq!(storage.store.version.load().segments.len(), 1);
    let range = TimeRange { min_ms: NOW_MS, max_ms: NOW_MS + 59_000 };
    let sealed = storage.select(&[], range, &SelectHints::default()).unwrap();
    assert_eq!(read(&sealed).len(), 300, "the rest can be read");
}
