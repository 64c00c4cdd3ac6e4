//! Appending and reading, without faults.

use insta::assert_snapshot;

use super::*;
use crate::model::matcher::MatchOp;
use crate::model::metadata::MetricType;
use crate::storage::append::RejectReason;

fn scrape(storage: &Storage, count: usize, timestamp_ms: i64, value: f64) {
    let samples: Vec<_> =
        (0..count).map(|i| (labels("m", i), timestamp_ms, value + (i % 3) as f64)).collect();
    assert_eq!(append(storage, &samples).sample_count, count as u64);
}

#[test]
fn rows_loose_and_late_samples_are_read_back_in_order() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let at = |offset| NOW_MS + offset;
    scrape(&storage, 5, at(0), 1.0);
    scrape(&storage, 5, at(10), 1.0);
    append(&storage, &[(labels("m", 1), at(20), 9.0)]);
    scrape(&storage, 5, at(30), 2.0);
    append(&storage, &[(labels("m", 1), at(5), 8.0), (labels("m", 1), at(10), 7.0)]);
    append(&storage, &[(labels("lone", 0), at(0), f64::NEG_INFINITY)]);
    let expected = dump(&all(&storage)).replace(&NOW_MS.to_string()[..10], "");
    assert_snapshot!(expected, @r#"
    {__name__="lone", i="0"}: 000=-inf
    {__name__="m", i="0"}: 000=1 010=1 030=2
    {__name__="m", i="1"}: 000=2 005=8 010=2 020=9 030=3
    {__name__="m", i="2"}: 000=3 010=3 030=4
    {__name__="m", i="3"}: 000=1 010=1 030=2
    {__name__="m", i="4"}: 000=2 010=2 030=3
    "#);
    let range = TimeRange { min_ms: at(5), max_ms: at(10) };
    let matchers = [Matcher::new(MatchOp::Regex, "i", "[12]").unwrap()];
    let some = storage.select(&matchers, range, &SelectHints::default()).unwrap();
    assert_snapshot!(dump(&some).replace(&NOW_MS.to_string()[..10], ""), @r#"
    {__name__="m", i="1"}: 005=8 010=2
    {__name__="m", i="2"}: 010=3
    "#);
    let block = some.block(0, 2).unwrap();
    assert_eq!(block.series.len(), 2);
    let before = dump(&all(&storage));
    drop(storage);
    assert_eq!(dump(&all(&machine.open())), before, "after a restart");
}

#[test]
fn series_of_a_row_share_their_timestamps() {
    let storage = Machine::new(1).open();
    for step in 0..50 {
        scrape(&storage, 100, NOW_MS + (step - 50) * 15_000, step as f64);
    }
    let selection = all(&storage);
    let block = selection.block(0, 100).unwrap();
    let first = &block.series[0].runs[0].timestamps_ms;
    assert_eq!(first.len(), 50);
    for columns in &block.series {
        assert!(Arc::ptr_eq(&columns.runs[0].timestamps_ms, first));
    }
    assert_eq!(storage.stats(3).num_series, 100);
    assert_eq!(storage.min_time_ms(), Some(NOW_MS - 50 * 15_000));
    assert_eq!(storage.max_time_ms(), Some(NOW_MS - 15_000));
}

#[test]
fn refused_samples_are_named_and_a_batch_can_be_refused_as_a_whole() {
    let machine = Machine::new(1).window(0);
    let storage = machine.open();
    let at = |offset| NOW_MS + offset;
    append(&storage, &[(labels("m", 0), at(0), 1.0)]);
    let far = at(11 * 60_000);
    let samples = [
        (labels("m", 0), at(0), 1.0),
        (labels("m", 0), at(0), 2.0),
        (labels("m", 0), at(-1), 2.0),
        (labels("new", 0), at(-4_000_000), 2.0),
        (labels("new", 1), far, 2.0),
        (labels("new", 2), at(5), 2.0),
    ];
    let appended = append(&storage, &samples);
    assert_eq!((appended.sample_count, appended.new_series_count), (2, 1));
    let examples =
        appended.rejected_examples.iter().map(|own| format!("{}: {}", own.reason, own.labels));
    assert_snapshot!(examples.collect::<Vec<_>>().join("\n"), @r#"
    duplicate sample for timestamp: {__name__="m", i="0"}
    out of order sample: {__name__="m", i="0"}
    out of bounds: {__name__="new", i="0"}
    out of bounds: {__name__="new", i="1"}
    "#);
    assert_eq!(storage.stats(1).num_series, 2);
    let batch = [(labels("other", 0), at(50), 1.0), (labels("m", 0), at(0), 5.0)];
    let before = dump(&all(&storage));
    let refused = try_append(&storage, OnReject::Abort, &batch).unwrap_err();
    let append::AppendError::Rejected(rejected) = refused else { panic!("{refused}") };
    assert_eq!(rejected.reason, RejectReason::DuplicateTimestamp);
    assert_eq!(dump(&all(&storage)), before);
    assert_eq!(storage.stats(1).num_series, 2);
    append(&storage, &batch[..1]);
    assert_eq!(storage.stats(1).num_series, 3);
}

#[test]
fn out_of_order_data_can_be_refused_for_a_part_of_a_batch() {
    let storage = Machine::new(1).open();
    append(&storage, &[(labels("m", 0), NOW_MS, 1.0)]);
    let mut batch = storage.appender(OnReject::Skip);
    stage(&mut *batch, SeriesKey::Labels(&labels("m", 0)), NOW_MS - 10, 1.0_f64.to_bits());
    batch.reject_out_of_order(true);
    let pairs = SeriesKey::Pairs(&[("__name__", "m"), ("i", "0")]);
    stage(&mut *batch, pairs, NOW_MS - 5, 1.0_f64.to_bits());
    let (appended, _) = batch.commit().unwrap();
    assert_eq!((appended.sample_count, appended.out_of_order_count), (1, 1));
}

#[test]
fn data_of_1970_is_taken_when_the_window_is_large_or_the_head_is_empty() {
    let century = 100 * 365 * 86_400_000;
    let storage = Machine::new(1).window(century).open();
    append(&storage, &[(labels("m", 0), NOW_MS, 1.0)]);
    assert_eq!(append(&storage, &[(labels("m", 0), 0, 2.0)]).sample_count, 1);
    assert_eq!(append(&storage, &[(labels("n", 0), -5, 2.0)]).sample_count, 1);
    let storage = Machine::new(1).window(0).open();
    for timestamp_ms in [0, 300_000, 600_000] {
        assert_eq!(append(&storage, &[(labels("m", 0), timestamp_ms, 2.0)]).sample_count, 1);
    }
}

#[test]
fn labels_and_metadata_are_known_before_and_after_a_restart() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let mut batch = storage.appender(OnReject::Skip);
    let help = "Help.".to_owned();
    let own = Metadata { metric_type: MetricType::Counter, help, unit: String::new() };
    batch.metadata("m", &own);
    stage(&mut *batch, SeriesKey::Labels(&labels("m", 0)), NOW_MS, 1.0_f64.to_bits());
    stage(&mut *batch, SeriesKey::Labels(&labels("n", 1)), NOW_MS, 1.0_f64.to_bits());
    batch.commit().unwrap();
    drop(storage);
    let storage = machine.open();
    assert_eq!(storage.metadata(Some("m")), [("m".to_owned(), own.clone())]);
    assert_eq!(storage.metadata(None), [("m".to_owned(), own)]);
    assert_eq!(storage.label_names(&[], TimeRange::ALL).unwrap(), ["__name__", "i"]);
    let sets = [vec![Matcher::equal("__name__", "n")]];
    assert_eq!(storage.label_values("i", &sets, TimeRange::ALL).unwrap(), ["1"]);
    let later = TimeRange { min_ms: NOW_MS + 1, max_ms: i64::MAX };
    assert!(storage.label_values("i", &[], later).unwrap().is_empty());
}

#[test]
fn tickets_wait_for_a_sync_and_the_directory_is_locked() {
    let machine = Machine::new(1);
    let storage = Storage::open(
        Arc::new(machine.disk.clone()),
        machine.clock.clone(),
        Arc::new(SimRng::new(1)),
        &Registry::new(),
        machine.options.clone(),
    )
    .unwrap();
    let samples = [(labels("m", 0), NOW_MS, 1.0)];
    let (_, ticket) = try_append(&storage, OnReject::Skip, &samples).unwrap();
    ticket.wait().unwrap();
    let (_, ticket) = try_append(&storage, OnReject::Skip, &samples).unwrap();
    ticket.wait().unwrap();
    assert!(matches!(machine.try_open(), Err(OpenError::Locked(_))));
    storage.close();
    assert!(try_append(&storage, OnReject::Skip, &samples).is_err());
    drop(machine.open());
}

#[test]
fn many_log_files_are_read_as_one() {
    let machine = Machine::new(1).window(0);
    let storage = machine.open();
    let mut expected = 0;
    for step in 0..200 {
        scrape(&storage, 60, NOW_MS + step * 1_000, step as f64);
        expected += 60;
    }
    assert!(storage.store.version.load().logs.len() > 1);
    let count = |storage: &Storage| {
        read(&all(storage)).iter().map(|(_, samples)| samples.len()).sum::<usize>()
    };
    assert_eq!(count(&storage), expected);
    drop(storage);
    let storage = machine.open();
    assert_eq!(count(&storage), expected);
    let again = [(labels("m", 0), NOW_MS + 199_000, 5.0)];
    assert_eq!(append(&storage, &again).duplicate_count, 1);
}
