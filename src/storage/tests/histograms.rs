//! Native histograms from the batch to the segment, beside floats.

use super::*;
use crate::model::sample::STALE_NAN_BITS;
use crate::storage::append::RejectReason;

const MINUTE: i64 = 60_000;

#[test]
fn histograms_are_read_back_from_log_and_segment_and_after_restarts() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for step in 0..40 {
        let now_ms = machine.clock.now_ms();
        let mut samples: Vec<_> =
            (0..6).map(|i| (labels("h", i), now_ms, histogram(step * 6 + i as u64))).collect();
        samples.extend((0..6).map(|i| (labels("f", i), now_ms, step as f64)));
        // One series changes its kind now and then.
        let mixed = if step / 10 % 2 == 0 { step as f64 } else { histogram(step) };
        samples.push((labels("mixed", 0), now_ms, mixed));
        let appended = append(&storage, &samples);
        assert_eq!(appended.sample_count, 13);
        assert_eq!(appended.histogram_count, 6 + step / 10 % 2);
        machine.clock.advance_ms(MINUTE);
    }
    let before = dump(&all(&storage));
    assert!(before.contains("=h239"), "{before}");
    storage.seal_now().unwrap();
    assert_eq!(dump(&all(&storage)), before, "sealed");
    let selection = all(&storage);
    let is_mixed = |at: &u32| selection.labels(*at).unwrap().name() == "mixed";
    let mixed = (0..selection.len() as u32).find(is_mixed);
    let block = selection.block(mixed.unwrap(), 1).unwrap();
    let lengths: Vec<_> = block.series[0].runs.iter().map(|run| run.timestamps_ms.len()).collect();
    assert_eq!(lengths, [10, 10, 10, 10]);
    let range = TimeRange { min_ms: NOW_MS + 3 * MINUTE, max_ms: NOW_MS + 5 * MINUTE };
    let some = storage.select(&[], range, &SelectHints::default()).unwrap();
    assert!(read(&some).iter().all(|(_, samples)| samples.len() == 3));
    drop((some, selection, storage));
    assert_eq!(dump(&all(&machine.open())), before, "sealed and opened");
}

#[test]
fn the_first_accepted_value_wins_whatever_its_kind() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let (one, at) = (labels("m", 0), |offset: i64| NOW_MS + offset);
    append(&storage, &[(one.clone(), at(10), 1.0)]);
    append(&storage, &[(one.clone(), at(20), histogram(3))]);
    append(&storage, &[(one.clone(), at(30), 1.0)]);
    // Late ones, and the same times again.
    append(&storage, &[(one.clone(), at(5), histogram(4))]);
    append(&storage, &[(one.clone(), at(5), 7.0), (one.clone(), at(15), 8.0)]);
    append(&storage, &[(one.clone(), at(15), histogram(9)), (one.clone(), at(10), histogram(9))]);
    let check = |storage: &Storage| {
        let found = dump(&all(storage)).replace(&NOW_MS.to_string()[..10], "");
        assert_eq!(found, "{__name__=\"m\", i=\"0\"}: 005=h4 010=1 015=8 020=h3 030=1\n");
    };
    check(&storage);
    drop(storage);
    let storage = machine.open();
    check(&storage);
    storage.seal_now().unwrap();
    // From two files.
    append(&storage, &[(one.clone(), at(20), 5.0), (one, at(5), histogram(5))]);
    check(&storage);
}

#[test]
fn equal_histograms_are_taken_again_and_others_are_refused() {
    let machine = Machine::new(1).window(0);
    let storage = machine.open();
    let one = labels("m", 0);
    let at = |ms, value| [(one.clone(), ms, value)];
    append(&storage, &at(NOW_MS, histogram(7)));
    let restarted = |storage: Arc<Storage>| {
        drop(storage);
        machine.open()
    };
    let sealed = |storage: Arc<Storage>| {
        storage.seal_now().unwrap();
        restarted(storage)
    };
    let check = |storage: &Storage| {
        assert_eq!(append(storage, &at(NOW_MS, histogram(7))).histogram_count, 1);
        assert_eq!(append(storage, &at(NOW_MS, histogram(8))).duplicate_count, 1);
        assert_eq!(append(storage, &at(NOW_MS, 7.0)).duplicate_count, 1);
        assert_eq!(append(storage, &at(NOW_MS - 1, histogram(8))).out_of_order_count, 1);
    };
    check(&storage);
    let storage = restarted(storage);
    check(&storage);
    let storage = sealed(storage);
    check(&storage);
    let refused = try_append(&storage, OnReject::Abort, &at(NOW_MS, histogram(9))).unwrap_err();
    let append::AppendError::Rejected(rejected) = refused else { panic!("{refused}") };
    assert_eq!(rejected.reason, RejectReason::DuplicateTimestamp);
    let found = read(&all(&storage));
    assert_eq!(found[0].1, [(NOW_MS, histogram(7).to_bits())]);
}

#[test]
fn a_float_after_a_histogram_is_written_anew() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let series: Vec<Labels> = (0..8).map(|i| labels("m", i)).collect();
    for (step, value) in [1.0, 1.0, histogram(1), 1.0, 1.0, histogram(1), 2.0].iter().enumerate() {
        let at = NOW_MS + step as i64;
        let samples: Vec<_> = series.iter().map(|own| (own.clone(), at, *value)).collect();
        append(&storage, &samples);
    }
    let values = |storage: &Storage| dump(&all(storage)).replace(&NOW_MS.to_string()[..12], "");
    let line = "0=1 1=1 2=h1 3=1 4=1 5=h1 6=2";
    assert!(values(&storage).lines().all(|own| own.ends_with(line)), "{}", values(&storage));
    drop(storage);
    let storage = machine.open();
    assert!(values(&storage).lines().all(|own| own.ends_with(line)));
    assert_eq!(append(&storage, &[(labels("m", 3), NOW_MS + 6, 2.0)]).sample_count, 1);
}

/// `f` or `h` for each sample of each series.
fn kinds(storage: &Storage) -> String {
    let selection = all(storage);
    let block = selection.block(0, selection.len()).unwrap();
    let kind = |run: &Run| {
        let kind = if matches!(run.values, Column::Histograms(_)) { "h" } else { "f" };
        kind.repeat(run.timestamps_ms.len())
    };
    let series = block.series.iter().map(|own| own.runs.iter().map(kind).collect::<String>());
    series.collect::<Vec<_>>().join(" ")
}

/// As in Prometheus: what ends a series of histograms is a histogram, whoever wrote it.
#[test]
fn a_stale_marker_is_of_the_kind_of_the_sample_before() {
    let machine = Machine::new(1);
    let mut storage = machine.open();
    let stale = f64::from_bits(STALE_NAN_BITS);
    let one = labels("m", 0);
    let at = |step: i64, value: f64| [(one.clone(), NOW_MS + step * 1_000, value)];
    let mut step = 0;
    let mut next = |storage: &Storage, value: f64| {
        step += 1;
        append(storage, &at(step, value)).histogram_count
    };
    let histograms = [stale, 1.0, stale, stale, histogram(1), stale, stale, 2.0, histogram(2)];
    let counts = histograms.map(|value| next(&storage, value));
    assert_eq!(counts, [0, 0, 0, 0, 1, 1, 1, 0, 1]);
    assert_eq!(kinds(&storage), "ffffhhhfh");
    storage.seal_now().unwrap();
    assert_eq!(next(&storage, histogram(3)), 1);
    storage = {
        drop(storage);
        machine.open()
    };
    assert_eq!(next(&storage, stale), 1, "a log file tells the kind");
    assert_eq!(append(&storage, &at(11, stale)).histogram_count, 1, "the same again");
    assert_eq!(append(&storage, &at(11, 1.0)).duplicate_count, 1);
    // What is taken back has changed nothing.
    let both = [&at(12, 1.0)[..], &at(11, 5.0)[..]].concat();
    machine.options.out_of_order_window_ms.store(0, Ordering::Relaxed);
    assert!(try_append(&storage, OnReject::Abort, &both).is_err());
    assert_eq!(append(&storage, &at(12, stale)).histogram_count, 1);
    assert_eq!(kinds(&storage), "ffffhhhfhhhh");
    storage.seal_now().unwrap();
    assert_eq!(kinds(&storage), "ffffhhhfhhhh");
}

/// A histogram with the marker may come with other parts: they say nothing.
#[test]
fn of_a_histogram_that_ends_a_series_only_the_marker_is_kept() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let sum = f64::from_bits(STALE_NAN_BITS);
    let own = Histogram { sum, ..histogram_of(histogram(3).to_bits()).unwrap() };
    let mut batch = storage.appender(OnReject::Skip);
    batch.histogram(SeriesKey::Labels(&labels("m", 0)), NOW_MS, &own);
    batch.commit().unwrap();
    let selection = all(&storage);
    let Column::Histograms(found) = &selection.block(0, 1).unwrap().series[0].runs[0].values else {
        panic!("a histogram")
    };
    assert!(found[0].has_same_values(&Histogram { sum, ..Histogram::default() }));
}
