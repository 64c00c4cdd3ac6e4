//! The store as a whole: what is appended is found, before and after restarts and crashes.

mod basics;
mod compacting;
mod crash;
mod sealing;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::*;
use crate::base::clock::SimClock;
use crate::base::disk::SimDisk;
use crate::base::rng::SimRng;
use crate::model::labels::Labels;
use crate::storage::append::SeriesKey;
use crate::storage::select::Column;

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
            retention_ms: None,
            out_of_order_window_ms: Arc::new(AtomicI64::new(2 * 3_600_000)),
            wal_sync: WalSync::Batch,
            log_file_bytes_max: 64 << 10,
            log_file_age_max_ms: 30 * 60_000,
            future_ms_max: 10 * 60_000,
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
        batch.float(SeriesKey::Labels(labels), *timestamp_ms, *value);
    }
    batch.commit()
}

/// All samples of the selection, as `labels: time=value …`, one line for each series.
fn dump(selection: &Selection) -> String {
    let mut out = String::new();
    for (labels, samples) in read(selection) {
        let samples: Vec<_> =
            samples.iter().map(|(ms, bits)| format!("{ms}={}", f64::from_bits(*bits))).collect();
        out += &format!("{labels}: {}\n", samples.join(" "));
    }
    out
}

fn read(selection: &Selection) -> Vec<(Labels, Vec<(i64, u64)>)> {
    try_read(selection).unwrap()
}

fn try_read(selection: &Selection) -> Result<Vec<(Labels, Vec<(i64, u64)>)>, QueryError> {
    let mut out = Vec::new();
    for first in (0..selection.series().len()).step_by(7) {
        let count = (selection.series().len() - first).min(7);
        let block = selection.block(first as u32, count)?;
        for (position, columns) in block.series.iter().enumerate() {
            let mut samples = Vec::new();
            for run in &columns.runs {
                let Column::Floats(values) = &run.values else { panic!("floats") };
                assert_eq!(values.len(), run.timestamps_ms.len());
                let bits = values.iter().map(|value| value.to_bits());
                samples.extend(run.timestamps_ms.iter().copied().zip(bits));
            }
            assert!(samples.is_sorted_by(|a, b| a.0 < b.0));
            out.push((selection.series()[first + position].labels().clone(), samples));
        }
    }
    Ok(out)
}

fn all(storage: &Storage) -> Selection {
    storage.select(&[], TimeRange::ALL, &SelectHints::default()).unwrap()
}
