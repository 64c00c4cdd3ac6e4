//! The store as a whole: what is appended is found, before and after restarts and crashes.

mod basics;
mod compacting;
mod concurrency;
mod crash;
mod deleting;
mod exemplars;
mod failures;
mod faults;
mod fuzz;
mod histograms;
mod images;
mod limits;
mod reading;
mod retention;
mod sealing;
mod sharding;
mod starts;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::base::clock::SimClock;
use crate::base::disk::SimDisk;
use crate::base::rng::SimRng;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Histogram, ResetHint, Span};
use crate::model::labels::Labels;
use crate::model::sample::is_stale_nan;
use crate::storage::append::SeriesKey;
use crate::storage::options::{Limits, StartTimestamps};
use crate::storage::select::{Column, Run};

/// A simulated machine that a store runs on.
struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    options: Options,
}

/// 2026-01-01.
const NOW_MS: i64 = 1_767_225_600_000;

impl Machine {
    fn new(seed: u64) -> Self {
        let options = Options {
            path: PathBuf::from("/data"),
            retention: Retention::default(),
            limits: Limits::default(),
            reserve_bytes_max: 16 << 10,
            out_of_order_window_ms: Arc::new(AtomicI64::new(2 * 3_600_000)),
            wal_sync: WalSync::Batch,
            log_file_bytes_max: 64 << 10,
            log_file_age_max_ms: 30 * 60_000,
            future_ms_max: 10 * 60_000,
            start_timestamps: StartTimestamps { are_kept: true, begin_with_zero: false },
        };
        Self { disk: SimDisk::new(seed), clock: Arc::new(SimClock::new(NOW_MS)), options }
    }

    fn window(mut self, window_ms: i64) -> Self {
        self.options.out_of_order_window_ms = Arc::new(AtomicI64::new(window_ms));
        self
    }

    /// A store without threads.
    fn open(&self) -> Arc<Storage> {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Arc<Storage>, OpenError> {
        let disk = Arc::new(self.disk.clone());
        let clock = self.clock.clone();
        Storage::open_quiet(disk, clock, &SimRng::new(7), &Registry::new(), self.options.clone())
    }
}

/// `name{i="number"}`
fn labels(name: &str, number: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("i", &number.to_string())])
}

/// In these tests a value of these bits plus `n` stands for the `n`-th of some histograms.
const HISTOGRAM_BITS: u64 = 0x7ff4_0000_0000_0000;
const HISTOGRAMS: u64 = 1_000;

/// The value that stands for a histogram.
fn histogram(number: u64) -> f64 {
    assert!(number < HISTOGRAMS);
    f64::from_bits(HISTOGRAM_BITS + number)
}

/// Histograms of several layouts; whole and broken counts.
fn histogram_of(bits: u64) -> Option<Histogram> {
    let number = bits.checked_sub(HISTOGRAM_BITS).filter(|number| *number < HISTOGRAMS)?;
    let layout = number % 7;
    let own = Histogram {
        schema: layout as i32,
        zero_threshold: 0.001,
        count: number as f64,
        sum: number as f64 * 1.5,
        positive_spans: vec![Span { offset: layout as i32 - 3, length: 2 }],
        positive_buckets: vec![number as f64, 1.0],
        ..Histogram::default()
    };
    Some(match layout {
        5 => Histogram {
            negative_spans: own.positive_spans.clone(),
            negative_buckets: vec![0.5, 0.25],
            reset_hint: ResetHint::Gauge,
            ..own
        },
        6 => Histogram { schema: CUSTOM_BUCKETS_SCHEMA, custom_bounds: [0.5, 2.0].into(), ..own },
        _ => own,
    })
}

fn bits_of(own: &Histogram) -> u64 {
    if own.is_stale() {
        return own.sum.to_bits();
    }
    let bits = HISTOGRAM_BITS + own.count as u64;
    assert_eq!(histogram_of(bits).as_ref(), Some(own));
    bits
}

fn append(storage: &Storage, samples: &[(Labels, i64, f64)]) -> append::Appended {
    try_append(storage, OnReject::Skip, samples).unwrap().0
}

fn try_append(
    storage: &Storage,
    on_reject: OnReject,
    samples: &[(Labels, i64, f64)],
) -> Result<(append::Appended, append::Ticket), append::AppendError> {
    let mut batch = storage.appender(on_reject);
    for (labels, timestamp_ms, value) in samples {
        stage(&mut *batch, SeriesKey::Labels(labels), *timestamp_ms, value.to_bits());
    }
    batch.commit()
}

/// Stages a sample, with the start that all samples have that are alike.
fn stage(batch: &mut dyn Append, series: SeriesKey<'_>, timestamp_ms: i64, bits: u64) {
    batch.start(start_of(&series.to_labels(), timestamp_ms, bits));
    match histogram_of(bits) {
        Some(own) => batch.histogram(series, timestamp_ms, &own),
        None => batch.float(series, timestamp_ms, f64::from_bits(bits)),
    }
}

/// In these tests the start of a sample follows from the rest of it, so that every reader can be
/// held to it: some series have none, or always the same, or a new one at times, or now and then.
fn start_of(labels: &Labels, timestamp_ms: i64, bits: u64) -> i64 {
    let kind = labels.to_string().bytes().map(u64::from).sum::<u64>() % 4;
    match (kind, bits % 3) {
        _ if is_stale_nan(f64::from_bits(bits)) => 0,
        (0, _) | (1, 0) => 0,
        (1, 1) => timestamp_ms - 1_000,
        (1 | 2, _) => NOW_MS - 7_200_000,
        _ => timestamp_ms / 600_000 * 600_000,
    }
}

/// All samples of the selection, as `labels: time=value …`, one line for each series.
fn dump(selection: &Selection) -> String {
    let mut out = String::new();
    for (labels, samples) in read(selection) {
        let text = |(ms, bits): &(i64, u64)| match histogram_of(*bits) {
            Some(own) => format!("{ms}=h{}", own.count),
            None => format!("{ms}={}", f64::from_bits(*bits)),
        };
        let samples: Vec<_> = samples.iter().map(text).collect();
        out += &format!("{labels}: {}\n", samples.join(" "));
    }
    out
}

fn read(selection: &Selection) -> Vec<(Labels, Vec<(i64, u64)>)> {
    try_read(selection).unwrap()
}

fn try_read(selection: &Selection) -> Result<Vec<(Labels, Vec<(i64, u64)>)>, QueryError> {
    let mut out = Vec::new();
    for first in (0..selection.len()).step_by(7) {
        let count = (selection.len() - first).min(7);
        let block = selection.block(first as u32, count)?;
        for (position, columns) in block.series.iter().enumerate() {
            let labels = selection.labels((first + position) as u32)?;
            let mut samples = Vec::new();
            for run in &columns.runs {
                let bits: Vec<u64> = match &run.values {
                    Column::Floats(values) => values.iter().map(|own| own.to_bits()).collect(),
                    Column::Histograms(values) => values.iter().map(|own| bits_of(own)).collect(),
                };
                assert_eq!(bits.len(), run.timestamps_ms.len());
                let starts = run.timestamps_ms.iter().zip(&bits);
                let starts = starts.map(|(ms, bits)| start_of(&labels, *ms, *bits));
                let starts: Vec<i64> = starts.collect();
                match &run.starts_ms {
                    Some(own) => assert_eq!(**own, *starts, "{labels}"),
                    None => assert!(starts.iter().all(|own| *own == 0), "{labels} {starts:?}"),
                }
                samples.extend(run.timestamps_ms.iter().copied().zip(bits));
            }
            let kind = |run: &Run| matches!(run.values, Column::Histograms(_));
            assert!(columns.runs.is_sorted_by(|a, b| kind(a) != kind(b)), "runs alternate");
            assert!(samples.is_sorted_by(|a, b| a.0 < b.0));
            out.push((labels, samples));
        }
    }
    Ok(out)
}

fn all(storage: &Storage) -> Selection {
    storage.select(&[], TimeRange::ALL, &SelectHints::default()).unwrap()
}
