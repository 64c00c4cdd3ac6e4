//! Too many series, and no space.

use super::*;
use crate::storage::append::AppendError;

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
    assert!(all(&storage).series().is_empty());
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
