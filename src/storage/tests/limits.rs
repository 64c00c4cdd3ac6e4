//! Too many series, and no space.

use super::*;
use crate::model::exemplar::Exemplar;
use crate::model::metadata::{Metadata, TEXT_BYTES_MAX};
use crate::storage::append::{AppendError, NEW_SERIES_BYTES_MAX, RejectReason, SERIES_BYTES_MAX};

const MINUTE: i64 = 60_000;

fn of_job(job: &str, i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &i.to_string()), ("job", job)])
}

/// One sample of each of these series now.
fn write(
    machine: &Machine,
    storage: &Storage,
    on_reject: OnReject,
    job: &str,
    count: usize,
) -> append::Appended {
    machine.clock.advance_ms(MINUTE);
    let now_ms = machine.clock.now_ms();
    let samples: Vec<_> = (0..count).map(|i| (of_job(job, i), now_ms, i as f64)).collect();
    try_append(storage, on_reject, &samples).unwrap().0
}

#[test]
fn beyond_the_limits_only_new_series_are_refused() {
    for on_reject in [OnReject::Skip, OnReject::Abort] {
        let machine = Machine::new(1);
        let storage = machine.open();
        let write = |job, count| write(&machine, &storage, on_reject, job, count);
        assert_eq!(write("a", 3).limited, None);
        storage.set_limits(Limits {
            active_series: Some(8),
            active_series_per_job: Some(4),
            jobs: [("b".to_owned(), Some(2)), ("c".to_owned(), None)].into(),
        });
        let appended = write("a", 6);
        assert_eq!((appended.sample_count, appended.new_series_count), (4, 1));
        assert_eq!(
            appended.limited.unwrap().to_string(),
            "limit of active series reached: 2 samples of 2 new series were not stored, for \
             example of {__name__=\"m\", i=\"4\", job=\"a\"}"
        );
        assert_eq!(write("b", 5).sample_count, 2);
        let appended = write("c", 5);
        assert_eq!((appended.sample_count, appended.limited.unwrap().series_count), (2, 3));
        assert_eq!(write("a", 4).limited, None, "known series go on");
        let appended = append(&storage, &[(labels("n", 1), machine.clock.now_ms(), 1.0)]);
        assert_eq!((appended.sample_count, appended.limited.is_some()), (0, true));
        storage.set_limits(Limits::default());
        assert_eq!(write("c", 5).new_series_count, 3);
        assert_eq!(storage.stats(1).num_series, 11);
    }
}

#[test]
fn a_batch_of_refused_series_alone_is_no_commit() {
    let machine = Machine::new(1);
    let storage = machine.open();
    storage.set_limits(Limits { active_series: Some(0), ..Limits::default() });
    let appended = write(&machine, &storage, OnReject::Abort, "a", 3);
    assert_eq!((appended.sample_count, appended.limited.unwrap().sample_count), (0, 3));
    assert!(all(&storage).is_empty());
    storage.set_limits(Limits::default());
    assert_eq!(write(&machine, &storage, OnReject::Abort, "a", 3).new_series_count, 3);
}

/// Commits until there is no space; how many samples were taken.
fn fill(machine: &Machine, storage: &Storage) -> usize {
    for taken in 0..100_000 {
        machine.clock.advance_ms(1);
        let samples: Vec<_> = (0..20)
            .map(|i| (labels("m", i), machine.clock.now_ms(), (taken * 31 + i) as f64 / 7.0))
            .collect();
        match try_append(storage, OnReject::Skip, &samples) {
            Ok(_) => {}
            Err(AppendError::DiskFull) => return taken * 20,
            Err(err) => panic!("{err}"),
        }
    }
    panic!("the disk is never full");
}

#[test]
fn on_a_full_disk_queries_and_deleting_go_on_and_samples_are_taken_when_there_is_space() {
    let machine = Machine::new(1);
    let storage = machine.open();
    machine.disk.set_free_bytes(200_000);
    let taken = fill(&machine, &storage);
    let count = |storage: &Storage| -> usize {
        read(&all(storage)).iter().map(|(_, samples)| samples.len()).sum()
    };
    assert!(!storage.is_poisoned() && storage.store.is_full.load(Ordering::Relaxed));
    assert_eq!(count(&storage), taken);
    machine.disk.set_free_bytes(0);
    assert!(matches!(
        storage.store.delete_series(&[vec![]], TimeRange::ALL),
        Err(SealError::DiskFull)
    ));
    // With the help of the reserve it works, but samples get nothing of that.
    let half = vec![Matcher::new(crate::model::matcher::MatchOp::Regex, "i", "1?[02468]").unwrap()];
    storage.delete_series(&[half], TimeRange::ALL).unwrap();
    assert_eq!(count(&storage), taken / 2);
    let now_ms = machine.clock.now_ms();
    let one = [(labels("m", 1), now_ms + 1, 0.5)];
    let many: Vec<_> = (0..4_000).map(|i| (labels("new", i), now_ms, 1.0)).collect();
    assert!(matches!(try_append(&storage, OnReject::Skip, &many), Err(AppendError::DiskFull)));
    // A restart on a full disk works too.
    drop(storage);
    let storage = machine.open();
    assert_eq!(count(&storage), taken / 2);
    machine.disk.set_free_bytes(1 << 30);
    assert!(try_append(&storage, OnReject::Skip, &many).is_ok());
    assert_eq!(append(&storage, &one).sample_count, 1);
    storage.store.keep_reserve();
    assert!(machine.disk.exists(&machine.options.path.join("reserve")));
    assert!(!storage.is_poisoned());
}

#[test]
fn a_reserve_stays_where_a_longer_one_has_no_room() {
    let mut machine = Machine::new(1);
    let path = machine.options.path.join("reserve");
    let open = |machine: &mut Machine, bytes_max: u64, free_bytes: u64| {
        machine.options.reserve_bytes_max = bytes_max;
        let storage = machine.open();
        machine.disk.set_free_bytes(free_bytes);
        let kept = storage.store.keep_reserve();
        (storage, kept, machine.disk.len(&path).unwrap_or(0))
    };
    let (_, kept, bytes) = open(&mut machine, 16 << 10, 1 << 20);
    assert_eq!((kept, bytes), (true, 16 << 10));
    // Two of the longer ones, less what there is, would have to be free.
    machine.disk.set_free_bytes(100_000);
    let (storage, kept, bytes) = open(&mut machine, 64 << 10, 100_000);
    assert_eq!((kept, bytes), (true, 16 << 10));
    machine.disk.set_free_bytes(0);
    append(&storage, &[(labels("m", 1), NOW_MS, 1.0)]);
    storage.delete_series(&[vec![]], TimeRange::ALL).unwrap();
    assert_eq!(machine.disk.len(&path).ok(), None, "it gave way");
    assert!(!storage.store.keep_reserve());
    drop(storage);
    machine.disk.set_free_bytes(1 << 20);
    let (_, kept, bytes) = open(&mut machine, 64 << 10, 1 << 20);
    assert_eq!((kept, bytes), (true, 64 << 10));
    let (_, kept, bytes) = open(&mut machine, 16 << 10, 0);
    assert_eq!((kept, bytes), (true, 16 << 10));
}

/// A series whose labels have so many bytes in canonical form.
fn of_bytes(i: usize, bytes: usize) -> Labels {
    let i = format!("{i:03}");
    let rest = bytes - "__name__+m+i+000+x++".len();
    Labels::from_pairs([("__name__", "m"), ("i", &i), ("x", &"x".repeat(rest))])
}

#[test]
fn series_that_are_too_long_are_refused_before_anything_is_written() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let now_ms = machine.clock.now_ms();
    let samples = [
        (labels("m", 1), now_ms, 1.0),
        (of_bytes(2, SERIES_BYTES_MAX), now_ms, 2.0),
        (of_bytes(3, SERIES_BYTES_MAX + 1), now_ms, 3.0),
        (of_bytes(4, 3 * SERIES_BYTES_MAX), now_ms, histogram(1)),
        (labels("m", 5), now_ms, 5.0),
    ];
    let appended = append(&storage, &samples);
    assert_eq!((appended.sample_count, appended.new_series_count), (3, 3));
    assert_eq!((appended.too_long_count, appended.rejected_count()), (2, 2));
    let error = try_append(&storage, OnReject::Abort, &samples).unwrap_err();
    let AppendError::Rejected(rejected) = &error else { panic!("{error}") };
    assert_eq!(rejected.reason, RejectReason::SeriesTooLong);
    let text = error.to_string();
    let expected = "labels of the series have more than 65536 bytes: timestamp 1767225600000 for \
                    series {__name__=\"m\", i=\"003\", x=\"xxx";
    assert!(text.starts_with(expected) && text.len() < 3000, "{text}");
    let written = dump(&all(&storage));
    assert_eq!(written.lines().count(), 3);
    storage.seal_now().unwrap();
    drop(storage);
    assert_eq!(dump(&all(&machine.open())), written);
}

#[test]
fn new_series_of_one_batch_are_bounded_in_bytes() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let count = 2 * NEW_SERIES_BYTES_MAX / SERIES_BYTES_MAX;
    let samples: Vec<_> = (0..count)
        .map(|i| (of_bytes(i, SERIES_BYTES_MAX), machine.clock.now_ms(), i as f64))
        .collect();
    let error = try_append(&storage, OnReject::Abort, &samples).unwrap_err();
    assert!(error.to_string().starts_with("new series of one batch have labels of more than"));
    assert_eq!(dump(&all(&storage)), "");
    // Known ones do not count, so that a target comes in with a few scrapes.
    let first = append(&storage, &samples);
    assert_eq!(first.too_long_count, count as u64 - first.sample_count);
    assert_eq!(first.sample_count, count as u64 / 2 - 1);
    let second = append(&storage, &samples);
    assert_eq!((second.sample_count, second.too_long_count), (2 * first.sample_count, 2));
    assert_eq!(append(&storage, &samples).too_long_count, 0);
}

#[test]
fn exemplars_and_metadata_of_one_batch_are_bounded_in_bytes() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let now_ms = machine.clock.now_ms();
    let (long, refused) = (of_bytes(1, SERIES_BYTES_MAX), of_bytes(2, SERIES_BYTES_MAX + 1));
    let unknown = labels("m", 3);
    let mut batch = storage.appender(OnReject::Skip);
    batch.float(SeriesKey::Labels(&long), now_ms, 1.0);
    batch.float(SeriesKey::Labels(&refused), now_ms, 1.0);
    for series in [&unknown, &refused, &long] {
        for value in 0..1_000 {
            let (labels, value) = (Labels::empty(), f64::from(value));
            let own = Exemplar { labels, value, timestamp_ms: now_ms };
            batch.exemplar(SeriesKey::Labels(series), &own);
        }
    }
    let help = "h".repeat(TEXT_BYTES_MAX);
    for number in 0..1_000 {
        let own = Metadata { help: help.clone(), ..Metadata::default() };
        batch.metadata(&format!("m{number}"), &own);
    }
    let longer = Metadata { help: help + "h", ..Metadata::default() };
    batch.metadata("longer", &longer);
    let appended = batch.commit().unwrap().0;
    assert_eq!(appended.sample_count, 1);
    // As many as fit, of the series that is there.
    assert!((1..16).contains(&appended.exemplar_count), "{}", appended.exemplar_count);
    assert_eq!(storage.exemplars(&[Vec::new()], TimeRange::ALL).len(), 1);
    let known = storage.metadata(None);
    assert!((1..64).contains(&known.len()), "{}", known.len());
    assert!(known.iter().all(|(name, _)| name != "longer"));
    // What no series has is forgotten when the log is sealed.
    append(&storage, &[(labels("m0_total", 1), now_ms, 1.0)]);
    storage.seal_now().unwrap();
    let known: Vec<_> = storage.metadata(None).into_iter().map(|own| own.0).collect();
    assert_eq!(known, ["m0"]);
}

#[test]
fn series_that_come_back_count_as_new_ones() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let write = |series: &[usize]| {
        machine.clock.advance_ms(3 * 60 * MINUTE);
        let now_ms = machine.clock.now_ms();
        let samples: Vec<_> = series.iter().map(|i| (labels("m", *i), now_ms, 1.0)).collect();
        let appended = append(&storage, &samples);
        storage.seal_now().unwrap();
        appended
    };
    write(&[1, 2, 3]);
    write(&[3]);
    assert_eq!(storage.stats(1).num_series, 1, "the others are not forgotten, but retired");
    storage.set_limits(Limits { active_series: Some(2), ..Limits::default() });
    let appended = write(&[1, 2, 3]);
    assert_eq!((appended.sample_count, appended.limited.unwrap().series_count), (2, 1));
    assert_eq!(storage.stats(1).num_series, 2);
}
