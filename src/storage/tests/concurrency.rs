//! Readers beside writers, sealing, merging, retention and deletion on real files;
//! acknowledgements beside a power cut.

use std::sync::atomic::{AtomicBool, AtomicU64};

use super::*;
use crate::base::clock::OsClock;
use crate::base::disk::OsDisk;
use crate::base::rng::Rng as _;

pub const WRITERS: usize = 3;
/// The number of one more, whose rows are deleted.
pub const DELETER: usize = WRITERS;
const SERIES_PER_WRITER: usize = 30;
const ROWS: u64 = 250;
/// Far more than are written before the power is cut.
const ROWS_UNTIL_CUT: u64 = 3_000;
const STEP_MS: i64 = 1_000;

/// Row `row` of a writer: one value for all its series at the row's time, and at the same commit
/// another for a time long past.
pub fn row(writer: usize, row: u64, start_ms: i64) -> Vec<(Labels, i64, f64)> {
    let name = format!("w{writer}");
    let mut samples = Vec::new();
    for series in 0..SERIES_PER_WRITER {
        let labels = labels(&name, series);
        let timestamp_ms = start_ms + row as i64 * STEP_MS;
        samples.push((labels.clone(), timestamp_ms - 600_500, -(row as f64)));
        samples.push((labels, timestamp_ms, row as f64));
    }
    samples
}

/// What a reader must find when the writer has committed `rows` rows.
pub fn expected(rows: u64, start_ms: i64) -> Vec<(i64, u64)> {
    let at = |row: u64| start_ms + row as i64 * STEP_MS;
    let late = (0..rows).map(|row| (at(row) - 600_500, (-(row as f64)).to_bits()));
    let usual = (0..rows).map(|row| (at(row), (row as f64).to_bits()));
    late.chain(usual).collect()
}

/// The series of a writer and their samples.
pub fn read_writer(storage: &Storage, writer: usize) -> Vec<(Labels, Vec<(i64, u64)>)> {
    let matchers = [Matcher::equal("__name__", &format!("w{writer}"))];
    read(&storage.select(&matchers, TimeRange::ALL, &SelectHints::default()).unwrap())
}

/// Every series has the same rows, each once: all that were committed before the look began, and
/// none that was not begun when it ended.
fn look(storage: &Storage, writer: usize, begun: &AtomicU64, done: &AtomicU64, start_ms: i64) {
    let least = done.load(Ordering::SeqCst);
    let found = read_writer(storage, writer);
    let most = begun.load(Ordering::SeqCst);
    let rows = found.first().map_or(0, |own| own.1.len() as u64 / 2);
    assert!((least..=most).contains(&rows), "{rows} rows, {least} to {most} were committed");
    if rows > 0 {
        assert_eq!(found.len(), SERIES_PER_WRITER);
    }
    let expected = expected(rows, start_ms);
    for (labels, samples) in &found {
        assert_eq!(*samples, expected, "{labels}");
    }
}

/// Rows that are there and deleted again, by one thread; whoever looks sees one or none.
fn append_and_delete(storage: &Storage, start_ms: i64, is_over: &AtomicBool) {
    let name = [vec![Matcher::equal("__name__", &format!("w{DELETER}"))]];
    for number in 0..ROWS {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        append(storage, &row(DELETER, number, start_ms));
        assert_eq!(read_writer(storage, DELETER).len(), SERIES_PER_WRITER);
        look_at_deleted(storage);
        storage.delete_series(&name, TimeRange::ALL).unwrap();
        let left = read_writer(storage, DELETER);
        assert!(left.iter().all(|(_, samples)| samples.is_empty()), "deleted, row {number}");
    }
}

fn look_at_deleted(storage: &Storage) {
    let mut found = read_writer(storage, DELETER);
    // A series may be listed although what it has was committed a moment too late.
    found.retain(|(_, samples)| !samples.is_empty());
    let Some((_, first)) = found.first() else { return };
    assert_eq!(found.len(), SERIES_PER_WRITER);
    assert_eq!(first.len(), 2, "one row");
    assert!(found.iter().all(|(_, samples)| samples == first), "{found:?}");
}

#[test]
fn readers_see_each_commit_once_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Machine::new(1).options;
    options.path = folder.path().to_owned();
    options.log_file_bytes_max = 96 << 10;
    let clock = Arc::new(OsClock::new());
    let start_ms = clock.now_ms() - 1_800_000;
    let rng = Arc::new(SimRng::new(1));
    let storage =
        Storage::open(Arc::new(OsDisk), clock, rng, &Registry::new(), options.clone()).unwrap();
    storage.set_retention(Retention::of_time_ms(Some(7_200_000)));
    let begun: [AtomicU64; WRITERS] = Default::default();
    let done: [AtomicU64; WRITERS] = Default::default();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (storage, begun, done, is_over) = (&*storage, &begun, &done, &is_over);
        let others = (0..2).map(|reader: usize| {
            scope.spawn(move || {
                let mut writer = reader;
                while !is_over.load(Ordering::Relaxed) {
                    look(storage, writer, &begun[writer], &done[writer], start_ms);
                    look_at_deleted(storage);
                    writer = (writer + 1) % WRITERS;
                }
            })
        });
        let mut others: Vec<_> = others.collect();
        others.push(scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                storage.seal_now().unwrap();
                storage.compact_now().unwrap();
                storage.store.apply_retention().unwrap();
            }
        }));
        others.push(scope.spawn(|| append_and_delete(storage, start_ms, is_over)));
        let writers = (0..WRITERS).map(|writer| {
            scope.spawn(move || {
                for number in 0..ROWS {
                    begun[writer].store(number + 1, Ordering::SeqCst);
                    let samples = row(writer, number, start_ms);
                    let (own, _) = try_append(storage, OnReject::Abort, &samples).unwrap();
                    assert_eq!(own.sample_count, samples.len() as u64);
                    done[writer].store(number + 1, Ordering::SeqCst);
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let ended: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        for other in others {
            other.join().unwrap();
        }
        for writer in ended {
            writer.unwrap();
        }
    });
    for (writer, done) in done.iter().enumerate() {
        look(&storage, writer, done, done, start_ms);
    }
    drop(storage);
    let (clock, rng) = (Arc::new(OsClock::new()), Arc::new(SimRng::new(1)));
    let storage = Storage::open(Arc::new(OsDisk), clock, rng, &Registry::new(), options).unwrap();
    for (writer, done) in done.iter().enumerate() {
        look(&storage, writer, done, done, start_ms);
    }
}

/// Writers wait for their tickets while the power is cut at any moment: whoever was told that a
/// row is safe finds it, whatever was under way.
#[test]
fn no_ticket_is_settled_before_its_frame_is_on_disk() {
    let start_ms = NOW_MS - 3_600_000;
    for seed in 0..20 {
        let mut machine = Machine::new(seed);
        machine.options.log_file_bytes_max = 16 << 10;
        let disk = Arc::new(machine.disk.clone());
        let rng = Arc::new(SimRng::new(seed));
        let options = machine.options.clone();
        let storage =
            Storage::open(disk, machine.clock.clone(), rng, &Registry::new(), options).unwrap();
        let acknowledged: [AtomicU64; WRITERS] = Default::default();
        let wanted = SimRng::new(seed).next_u64() % 40;
        std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for (writer, acknowledged) in acknowledged.iter().enumerate() {
                let storage = &storage;
                writers.push(scope.spawn(move || {
                    for number in 0..ROWS_UNTIL_CUT {
                        let samples = row(writer, number, start_ms);
                        let Ok((_, ticket)) = try_append(storage, OnReject::Skip, &samples[..8])
                        else {
                            return;
                        };
                        if ticket.wait().is_err() {
                            return;
                        }
                        acknowledged.store(number + 1, Ordering::SeqCst);
                    }
                }));
            }
            let first = &writers[0];
            while acknowledged[0].load(Ordering::SeqCst) <= wanted && !first.is_finished() {
                std::thread::yield_now();
            }
            machine.disk.crash();
        });
        drop(storage);
        let storage = machine.open();
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let rows = acknowledged.load(Ordering::SeqCst);
            let expected = expected(rows, start_ms);
            for (labels, samples) in read_writer(&storage, writer) {
                let has = |own: &(i64, u64)| samples.binary_search(own).is_ok();
                let lost = expected.iter().find(|own| !has(own));
                assert_eq!(lost, None, "{labels} of {rows} rows, seed {seed}");
            }
            assert!(rows == 0 || read_writer(&storage, writer).len() == 4, "seed {seed}");
        }
    }
}
