//! Files that are damaged or cut while the store is open, on a real file system.

use std::path::Path;

use super::*;
use crate::base::disk::OsDisk;

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

#[test]
fn a_segment_that_is_cut_or_damaged_is_an_error_and_then_left_out() {
    for cut in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path());
        fill(&storage, 0);
        storage.seal_now().unwrap();
        fill(&storage, 60);
        storage.seal_now().unwrap();
        let path = only(folder.path(), "segments");
        let bytes = OsDisk.len(&path).unwrap();
        let file = OsDisk.open(&path).unwrap();
        let whole = all(&storage);
        if cut {
            assert_eq!(read_all(&storage).unwrap(), 36_000);
            file.set_len(bytes / 4).unwrap();
        } else {
            file.write_at(&[0x55; 64], bytes / 4).unwrap();
        }
        for _ in 0..2 {
            let err = read_all(&storage).unwrap_err().to_string();
            assert!(err.contains(&path.display().to_string()), "{err}");
            assert!(try_read(&whole).is_err(), "a query that began before");
        }
        // Merging must not take it either.
        assert!(storage.compact_now().is_err());
        storage.store.quarantine().unwrap();
        assert_eq!(read_all(&storage).unwrap(), 18_000);
        let name = path.file_name().unwrap();
        assert!(OsDisk.exists(&folder.path().join("quarantine").join(name)));
        assert!(!storage.is_poisoned());
        drop(storage);
        assert_eq!(read_all(&open(folder.path())).unwrap(), 18_000);
    }
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
