//! Start timestamps where they are turned off, become zeros, or are many.

use super::*;
use crate::model::histogram::ResetHint;
use crate::storage::append::RejectReason;

fn machine(are_kept: bool, begin_with_zero: bool) -> Machine {
    let mut machine = Machine::new(1);
    machine.options.start_timestamps = StartTimestamps { are_kept, begin_with_zero };
    machine
}

/// Samples and starts of the only series, relative to [`NOW_MS`].
fn samples(storage: &Storage) -> Vec<(i64, f64, i64)> {
    let selection = all(storage);
    assert_eq!(selection.len(), 1);
    let block = selection.block(0, 1).unwrap();
    let mut found = Vec::new();
    for run in &block.series[0].runs {
        let values: Vec<f64> = match &run.values {
            Column::Floats(values) => values.to_vec(),
            Column::Histograms(values) => values.iter().map(|own| own.count).collect(),
        };
        for (at, (ms, value)) in run.timestamps_ms.iter().zip(values).enumerate() {
            let start_ms = run.starts_ms.as_ref().map_or(0, |starts| starts[at]);
            found.push((ms - NOW_MS, value, if start_ms == 0 { 0 } else { start_ms - NOW_MS }));
        }
    }
    found
}

fn float(storage: &Storage, at_ms: i64, value: f64, start_ms: i64) -> append::Appended {
    let mut batch = storage.appender(OnReject::Abort);
    batch.start(NOW_MS + start_ms);
    batch.float(SeriesKey::Labels(&labels("m", 0)), NOW_MS + at_ms, value);
    batch.commit().unwrap().0
}

#[test]
fn starts_are_kept_only_when_they_are_wanted() {
    for (are_kept, expected) in [(false, 0), (true, -50)] {
        let machine = machine(are_kept, false);
        let storage = machine.open();
        float(&storage, -10, 1.0, -50);
        assert_eq!(samples(&storage), [(-10, 1.0, expected)]);
        storage.seal_now().unwrap();
        assert_eq!(samples(&storage), [(-10, 1.0, expected)]);
    }
}

#[test]
fn counters_begin_with_a_zero_when_that_is_wanted() {
    let machine = machine(false, true);
    let storage = machine.open();
    assert_eq!(float(&storage, -10, 5.0, -50).sample_count, 1);
    // The zero is older than the newest sample by now, and that is no harm.
    let appended = float(&storage, -5, 6.0, -50);
    assert_eq!((appended.sample_count, appended.rejected_count()), (1, 0));
    float(&storage, -4, 7.0, -4);
    float(&storage, -1, 1.0, -2);
    let expected = [(-50, 0.0, 0), (-10, 5.0, 0), (-5, 6.0, 0), (-4, 7.0, 0), (-2, 0.0, 0)];
    assert_eq!(samples(&storage)[..5], expected);
    drop(storage);
    assert_eq!(samples(&machine.open())[4..], [(-2, 0.0, 0), (-1, 1.0, 0)]);
    // Other samples are refused as ever.
    let storage = machine.open();
    let refused = try_append(&storage, OnReject::Abort, &[(labels("m", 0), NOW_MS - 1, 2.0)]);
    let Err(append::AppendError::Rejected(own)) = refused else { panic!("{refused:?}") };
    assert_eq!(own.reason, RejectReason::DuplicateTimestamp);
}

#[test]
fn a_histogram_begins_with_an_empty_one() {
    let machine = machine(true, true);
    let storage = machine.open();
    let own = histogram_of(histogram(13).to_bits()).unwrap();
    let mut batch = storage.appender(OnReject::Skip);
    batch.start(NOW_MS - 30);
    batch.histogram(SeriesKey::Labels(&labels("h", 0)), NOW_MS - 10, &own);
    assert_eq!(batch.commit().unwrap().0.histogram_count, 1);
    assert_eq!(samples(&storage), [(-30, 0.0, 0), (-10, 13.0, -30)]);
    let block = all(&storage).block(0, 1).unwrap();
    let Column::Histograms(found) = &block.series[0].runs[0].values else { panic!("histograms") };
    assert_eq!(found[0].reset_hint, ResetHint::CounterReset);
    assert_eq!((found[0].schema, &found[0].custom_bounds), (own.schema, &own.custom_bounds));
}

#[test]
fn one_batch_may_bring_several_starts_of_a_series() {
    let machine = machine(true, false);
    let storage = machine.open();
    let key = labels("m", 0);
    let own = histogram_of(histogram(5).to_bits()).unwrap();
    let mut batch = storage.appender(OnReject::Skip);
    for (at, start) in [(-90, -95), (-80, -95), (-70, -75), (-50, 0)] {
        batch.start(if start == 0 { 0 } else { NOW_MS + start });
        batch.float(SeriesKey::Labels(&key), NOW_MS + at, at as f64);
    }
    batch.start(NOW_MS - 45);
    batch.histogram(SeriesKey::Labels(&key), NOW_MS - 40, &own);
    // Late ones.
    for (at, start) in [(-85, -86), (-86, -87)] {
        batch.start(NOW_MS + start);
        batch.float(SeriesKey::Labels(&key), NOW_MS + at, at as f64);
    }
    batch.commit().unwrap();
    float(&storage, -30, -30.0, -45);
    let expected = [
        (-90, -90.0, -95),
        (-86, -86.0, -87),
        (-85, -85.0, -86),
        (-80, -80.0, -95),
        (-70, -70.0, -75),
        (-50, -50.0, 0),
        (-40, 5.0, -45),
        (-30, -30.0, -45),
    ];
    assert_eq!(samples(&storage), expected);
    drop(storage);
    let storage = machine.open();
    assert_eq!(samples(&storage), expected, "after a restart");
    storage.compact_now().unwrap();
    assert_eq!(samples(&storage), expected, "sealed");
}

#[test]
fn starts_that_stay_cost_nothing_to_speak_of() {
    let bytes = |start_ms: i64| {
        let mut machine = machine(true, false);
        machine.options.log_file_bytes_max = 64 << 20;
        let storage = machine.open();
        let keys: Vec<_> = (0..100).map(|number| labels("m", number)).collect();
        for step in 0..200 {
            let mut batch = storage.appender(OnReject::Skip);
            for key in &keys {
                batch.start(start_ms);
                let at_ms = NOW_MS - 200_000 + step * 1_000;
                batch.float(SeriesKey::Labels(key), at_ms, step as f64);
            }
            batch.commit().unwrap();
        }
        let log_bytes = storage.store.active.load().published_bytes();
        storage.seal_now().unwrap();
        (log_bytes, storage.segments().iter().map(|own| own.bytes).sum::<u64>())
    };
    let (plain, started) = (bytes(0), bytes(NOW_MS - 3_600_000));
    assert!(started.0 - plain.0 < 150, "the log: {plain:?} {started:?}");
    assert!(started.1 - plain.1 < 500, "the segment: {plain:?} {started:?}");
}
