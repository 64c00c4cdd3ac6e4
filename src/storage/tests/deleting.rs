//! Deletions and snapshots.

use std::collections::BTreeSet;

use super::*;
use crate::model::matcher::MatchOp;
use crate::storage::compact::plan::Urgency;

const MINUTE: i64 = 60_000;

fn scrape(machine: &Machine, storage: &Storage, count: usize, value: f64) {
    let now_ms = machine.clock.now_ms();
    let samples: Vec<_> = (0..count).map(|i| (labels("m", i), now_ms, value)).collect();
    assert_eq!(append(storage, &samples).sample_count, count as u64);
}

fn number(pattern: &str) -> Vec<Matcher> {
    vec![Matcher::new(MatchOp::Regex, "i", pattern).unwrap()]
}

fn range(min_minute: i64, max_minute: i64) -> TimeRange {
    TimeRange { min_ms: NOW_MS + min_minute * MINUTE, max_ms: NOW_MS + max_minute * MINUTE }
}

/// Minutes of the samples of a series, `=value` where it is not 1.
fn minutes(storage: &Storage, series: usize) -> String {
    let found =
        storage.select(&number(&series.to_string()), TimeRange::ALL, &SelectHints::default());
    let found = read(&found.unwrap());
    let Some((_, samples)) = found.first() else { return "none".to_owned() };
    let text = |(ms, bits): &(i64, u64)| {
        let minute = (ms - NOW_MS) / MINUTE;
        match f64::from_bits(*bits) {
            1.0 => minute.to_string(),
            value => format!("{minute}={value}"),
        }
    };
    samples.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn files(machine: &Machine, folder: &str) -> Vec<String> {
    machine.disk.list(&machine.options.path.join(folder)).unwrap()
}

fn hidden(storage: &Storage) -> (usize, usize) {
    let version = storage.store.version.load();
    (version.tombstones.len(), version.segments.iter().map(|own| own.hidden.len()).sum())
}

#[test]
fn what_is_deleted_is_gone_at_once_and_for_good_and_what_comes_later_stays() {
    let mut machine = Machine::new(1);
    let mut storage = machine.open();
    // The same in segments, in a closed log file and in the open one.
    for minute in 0..6 {
        scrape(&machine, &storage, 4, 1.0);
        machine.clock.advance_ms(MINUTE);
        match minute {
            1 => storage.seal_now().unwrap(),
            3 => storage.store.close_log().unwrap(),
            _ => {}
        }
    }
    let old = all(&storage);
    let before = dump(&old);
    storage.delete_series(&[number("1"), number("2")], range(1, 4)).unwrap();
    storage.delete_series(&[number("3")], TimeRange::ALL).unwrap();
    let check = |storage: &Storage| {
        let found: Vec<_> = (0..4).map(|series| minutes(storage, series)).collect();
        assert_eq!(found, ["0 1 2 3 4 5", "0 5", "0 5", "none"]);
        let known = storage.label_values("i", &[], TimeRange::ALL).unwrap();
        assert_eq!(known, ["0", "1", "2"]);
    };
    check(&storage);
    assert_eq!(dump(&old), before, "a query that began before");
    for _ in 0..2 {
        drop(storage);
        storage = machine.open();
        check(&storage);
        storage.seal_now().unwrap();
        check(&storage);
    }
    assert_eq!(hidden(&storage), (2, 2));
    storage.clean_tombstones().unwrap();
    assert_eq!(hidden(&storage), (0, 0));
    check(&storage);
    storage.compact_now().unwrap();
    check(&storage);
    // The newest samples too can be written again, each with any value.
    let late = |value| {
        [(labels("m", 1), NOW_MS + 2 * MINUTE, value), (labels("m", 3), NOW_MS + 5 * MINUTE, value)]
    };
    assert_eq!(append(&storage, &late(7.0)).rejected_examples, []);
    drop(storage);
    machine.options.wal_sync = WalSync::Batch;
    storage = machine.open();
    assert_eq!(minutes(&storage, 1), "0 2=7 5");
    assert_eq!(minutes(&storage, 3), "5=7");
    assert_eq!(append(&storage, &late(8.0)).duplicate_count, 1, "no longer hollow");
    assert_eq!(minutes(&storage, 3), "5=7");
}

#[test]
fn a_deleted_newest_sample_can_be_written_again_whatever_happens_between() {
    for between in 0..5 {
        let machine = Machine::new(between).window(0);
        let mut storage = machine.open();
        scrape(&machine, &storage, 2, 1.0);
        if between == 1 {
            storage.seal_now().unwrap();
        }
        storage.delete_series(&[number("0")], TimeRange::ALL).unwrap();
        match between {
            2 => storage.seal_now().unwrap(),
            3 => storage.clean_tombstones().unwrap(),
            _ => {}
        }
        if between > 0 {
            drop(storage);
            storage = machine.open();
        }
        // An aborted batch changes nothing.
        let bad = [(labels("m", 0), NOW_MS, 1.0), (labels("m", 1), NOW_MS, 5.0)];
        assert!(try_append(&storage, OnReject::Abort, &bad).is_err());
        assert_eq!(minutes(&storage, 0), "none");
        append(&storage, &[(labels("m", 0), NOW_MS, 1.0)]);
        assert_eq!(minutes(&storage, 0), "0", "case {between}");
        let again = append(&storage, &[(labels("m", 0), NOW_MS, 2.0)]);
        assert_eq!(again.duplicate_count, 1);
        storage.compact_now().unwrap();
        assert_eq!(minutes(&storage, 0), "0");
    }
}

#[test]
fn what_is_deleted_while_files_are_written_anew_stays_deleted() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for _ in 0..3 {
        scrape(&machine, &storage, 3, 1.0);
        machine.clock.advance_ms(MINUTE);
        storage.seal_now().unwrap();
    }
    // A merge that has read the tombstones before this deletion ends after it.
    let merge = storage.store.next_merge(Urgency::Now).unwrap();
    storage.delete_series(&[number("0")], range(0, 1)).unwrap();
    storage.store.merge_and_count(&merge, Urgency::Now).unwrap();
    assert_eq!(hidden(&storage), (1, 1));
    assert_eq!([minutes(&storage, 0), minutes(&storage, 1)], ["2", "0 1 2"]);
    storage.clean_tombstones().unwrap();
    assert_eq!(hidden(&storage), (1, 0), "the checkpoint does not know of it yet");
    assert_eq!([minutes(&storage, 0), minutes(&storage, 1)], ["2", "0 1 2"]);
}

#[test]
fn space_is_freed_in_the_background_where_it_pays() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for step in 0..200_u32 {
        let now_ms = machine.clock.now_ms();
        let value = |i: usize| f64::from(step.wrapping_mul(2_654_435_761) ^ i as u32).sqrt();
        let samples: Vec<_> = (0..100).map(|i| (labels("m", i), now_ms, value(i))).collect();
        append(&storage, &samples);
        machine.clock.advance_ms(MINUTE);
    }
    storage.seal_now().unwrap();
    storage.compact_now().unwrap();
    let bytes = |storage: &Storage| -> u64 {
        storage.store.version.load().segments.iter().map(|own| own.segment.bytes()).sum()
    };
    let before = bytes(&storage);
    storage.delete_series(&[number("0")], TimeRange::ALL).unwrap();
    storage.store.clean_tombstones(Urgency::Background).unwrap();
    assert_eq!((bytes(&storage), hidden(&storage).0), (before, 1), "a hundredth can wait");
    storage.delete_series(&[number("[1-4].")], TimeRange::ALL).unwrap();
    storage.store.clean_tombstones(Urgency::Background).unwrap();
    assert!(bytes(&storage) < before * 7 / 10);
    storage.delete_series(&[number(".*")], TimeRange::ALL).unwrap();
    storage.clean_tombstones().unwrap();
    assert_eq!((bytes(&storage), files(&machine, "segments").len()), (0, 0));
}

#[test]
fn a_deletion_that_fails_changes_nothing() {
    for operations in 0..20 {
        let machine = Machine::new(operations);
        let storage = machine.open();
        scrape(&machine, &storage, 2, 1.0);
        storage.store.sync_once();
        machine.disk.fail_once_after(operations);
        let deleted = storage.delete_series(&[number("0")], TimeRange::ALL);
        let expected = if deleted.is_ok() { "none" } else { "0" };
        assert_eq!(minutes(&storage, 0), expected);
        assert_eq!(storage.is_poisoned(), deleted.is_err());
        if deleted.is_ok() {
            machine.disk.fail_after(None);
            return;
        }
    }
    panic!("a deletion needs fewer operations");
}

#[test]
fn a_snapshot_is_a_data_directory() {
    let mut machine = Machine::new(1);
    let storage = machine.open();
    scrape(&machine, &storage, 3, 1.0);
    storage.seal_now().unwrap();
    machine.clock.advance_ms(MINUTE);
    scrape(&machine, &storage, 3, 1.0);
    storage.delete_series(&[number("2")], TimeRange::ALL).unwrap();
    let partial = storage.snapshot(false).unwrap();
    let whole = storage.snapshot(true).unwrap();
    assert!(partial.starts_with("20260101T000100Z-") && partial.len() == 33, "{partial}");
    assert_ne!(partial, whole);
    // Nothing that happens to the original later is seen in them.
    storage.delete_series(&[number(".*")], TimeRange::ALL).unwrap();
    storage.clean_tombstones().unwrap();
    drop(storage);
    machine.disk.crash();
    let path = machine.options.path.clone();
    for (name, expected) in [(partial, "0"), (whole, "0 1")] {
        machine.options.path = path.join("snapshots").join(name);
        let storage = machine.open();
        let found: Vec<_> = (0..3).map(|series| minutes(&storage, series)).collect();
        assert_eq!(found, [expected, expected, "none"]);
        machine.clock.advance_ms(MINUTE);
        scrape(&machine, &storage, 3, 1.0);
        storage.clean_tombstones().unwrap();
        assert_eq!(minutes(&storage, 2).split(' ').count(), 1);
    }
}

/// After a power cut the numbers that snapshots took from the store are given again.
#[test]
fn a_snapshot_never_replaces_one_of_the_same_second() {
    let mut machine = Machine::new(1);
    let mut storage = machine.open();
    scrape(&machine, &storage, 3, 1.0);
    let mut names = BTreeSet::new();
    for _ in 0..4 {
        let name = storage.snapshot(true).unwrap();
        assert!(names.insert(name), "{names:?}");
        machine.disk.crash();
        drop(storage);
        storage = machine.open();
    }
    drop(storage);
    let path = machine.options.path.clone();
    for name in names {
        machine.options.path = path.join("snapshots").join(name);
        assert_eq!(minutes(&machine.open(), 2), "0");
    }
}

/// What does not fit would fill the disk and be tried again every half a minute.
#[test]
fn segments_are_not_cleaned_where_there_is_no_room() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for _ in 0..20 {
        scrape(&machine, &storage, 300, 1.0);
        machine.clock.advance_ms(MINUTE);
    }
    storage.seal_now().unwrap();
    storage.delete_series(&[number("1.*")], TimeRange::ALL).unwrap();
    let before = hidden(&storage);
    assert_eq!(before, (1, 1));
    let segment_bytes = storage.segments().iter().map(|own| own.bytes).sum::<u64>();
    let clean = || storage.store.clean_tombstones(Urgency::Background);
    machine.disk.set_free_bytes(0);
    storage.store.reserve_bytes.store(0, Ordering::Release);
    let files_before = files(&machine, "segments");
    clean().expect("nothing is written");
    assert_eq!((hidden(&storage), files(&machine, "segments")), (before, files_before));
    machine.disk.set_free_bytes(10 * segment_bytes + (1 << 20));
    clean().unwrap();
    assert_eq!(hidden(&storage).1, 0);
}
