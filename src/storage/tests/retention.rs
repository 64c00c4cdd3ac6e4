//! Retention by size, and by rules for some series.

use super::*;
use crate::storage::compact::plan::Urgency;
use crate::storage::options::RetentionRule;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A segment for each of so many hours, with two series of each job.
fn hours(machine: &Machine, storage: &Storage, count: i64) {
    for hour in 0..count {
        for minute in 0..60 {
            let now_ms = machine.clock.now_ms();
            let value = f64::from(((hour * 60 + minute) as u32).wrapping_mul(2_654_435_761)).sqrt();
            let of = |job: &str, i: usize| {
                Labels::from_pairs([("__name__", "m"), ("i", &i.to_string()), ("job", job)])
            };
            let jobs = ["debug", "node", "audit"].into_iter();
            let samples: Vec<_> =
                jobs.flat_map(|job| (0..2).map(move |i| (of(job, i), now_ms, value))).collect();
            append(storage, &samples);
            machine.clock.advance_ms(MINUTE);
        }
        storage.seal_now().unwrap();
    }
}

/// The oldest sample of each job, in hours before the newest.
fn ages(storage: &Storage) -> Vec<String> {
    let newest_ms = storage.max_time_ms().unwrap();
    let mut ages: Vec<String> = read(&all(storage))
        .iter()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(labels, samples)| {
            let age_ms = newest_ms - samples[0].0;
            format!("{} {}", labels.get("job").unwrap(), (age_ms + MINUTE) / HOUR)
        })
        .collect();
    ages.dedup();
    ages.sort();
    ages.dedup();
    ages
}

fn rule(job: &str, hours: Option<i64>) -> RetentionRule {
    let time_ms = hours.map(|hours| hours * HOUR - 1);
    RetentionRule { matchers: vec![Matcher::equal("job", job)], time_ms }
}

#[test]
fn rules_keep_some_series_longer_and_others_shorter() {
    let machine = Machine::new(1);
    let storage = machine.open();
    hours(&machine, &storage, 6);
    storage.set_retention(Retention {
        time_ms: Some(3 * HOUR - 1),
        // The second rule for the same job does not count.
        rules: vec![rule("debug", Some(1)), rule("audit", None), rule("debug", Some(9))],
        ..Retention::default()
    });
    storage.store.apply_retention().unwrap();
    storage.store.clean_expired(Urgency::Background).unwrap();
    let expected = ["audit 6", "debug 1", "node 3"];
    assert_eq!(ages(&storage), expected);
    let files = machine.disk.list(&machine.options.path.join("segments")).unwrap();
    storage.store.clean_expired(Urgency::Background).unwrap();
    let again = machine.disk.list(&machine.options.path.join("segments")).unwrap();
    assert_eq!(again, files, "nothing is written twice");
    storage.compact_now().unwrap();
    assert_eq!(ages(&storage), expected);
    drop(storage);
    let storage = machine.open();
    assert_eq!(ages(&storage), expected);
    storage.set_retention(Retention {
        time_ms: Some(HOUR - 1),
        rules: vec![rule("audit", Some(2))],
        ..Retention::default()
    });
    storage.store.clean_expired(Urgency::Background).unwrap();
    hours(&machine, &storage, 8);
    storage.store.apply_retention().unwrap();
    storage.store.clean_expired(Urgency::Background).unwrap();
    assert_eq!(ages(&storage), ["audit 2", "debug 1", "node 1"]);
}

#[test]
fn the_oldest_segments_go_when_all_are_too_long() {
    for by_percentage in [false, true] {
        let machine = Machine::new(1);
        let storage = machine.open();
        hours(&machine, &storage, 5);
        let version = storage.store.version.load_full();
        let mut bytes: u64 = version.logs.iter().map(|log| log.allocated_bytes()).sum();
        let mut segments = version.segments.clone();
        segments.sort_by_key(|own| own.segment.time_range().min_ms);
        bytes += segments[2..].iter().map(|own| own.segment.bytes()).sum::<u64>();
        let retention = if by_percentage {
            machine.disk.set_space_bytes(4 * (bytes + 100));
            Retention { bytes: Some(1), percentage: Some(25.0), ..Retention::default() }
        } else {
            Retention { bytes: Some(bytes), ..Retention::default() }
        };
        storage.set_retention(retention);
        storage.store.apply_retention().unwrap();
        assert_eq!(ages(&storage), ["audit 3", "debug 3", "node 3"]);
        storage.store.apply_retention().unwrap();
        assert_eq!(ages(&storage), ["audit 3", "debug 3", "node 3"]);
    }
}

/// One moment of a clock that is ahead by far more than the retention: nothing is dropped, and
/// when the clock is right again samples are taken, with and without a window for late ones, before
/// and after a restart.
#[test]
fn a_moment_of_a_wrong_clock_does_no_harm() {
    for (window_ms, opens_anew) in [(0, false), (0, true), (2 * HOUR, false), (2 * HOUR, true)] {
        let mut machine = Machine::new(1).window(window_ms);
        machine.options.retention = Retention::of_time_ms(Some(24 * HOUR));
        let mut storage = machine.open();
        hours(&machine, &storage, 3);
        if opens_anew {
            drop(storage);
            machine.clock.set_error_ms(10_000 * HOUR);
            storage = machine.open();
        }
        let count = |storage: &Storage| -> usize {
            read(&all(storage)).iter().map(|(_, samples)| samples.len()).sum()
        };
        let before = count(&storage);
        machine.clock.set_error_ms(10_000 * HOUR);
        hours(&machine, &storage, 1);
        storage.store.apply_retention().unwrap();
        storage.store.clean_expired(Urgency::Background).unwrap();
        let with_error = count(&storage);
        assert_eq!(with_error, before + 6 * 60, "nothing is dropped");
        machine.clock.set_error_ms(0);
        if opens_anew {
            drop(storage);
            storage = machine.open();
        }
        hours(&machine, &storage, 2);
        storage.store.apply_retention().unwrap();
        assert_eq!(count(&storage), with_error + 2 * 6 * 60, "{window_ms} {opens_anew}");
        // What lasts is believed.
        machine.clock.set_error_ms(1_000 * HOUR);
        hours(&machine, &storage, 1);
        storage.store.apply_retention().unwrap();
        hours(&machine, &storage, 2);
        storage.store.apply_retention().unwrap();
        let is_late = |own: &(i64, u64)| NOW_MS + 500 * HOUR < own.0;
        assert!(read(&all(&storage)).iter().all(|(_, samples)| samples.iter().all(is_late)));
    }
}
