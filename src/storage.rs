//! The time-series store: rows of groups in log files, sealed into segments, named by a manifest.
//!
//! Writers use [`append::Append`], readers [`select::Select`]; everything else is behind them.

pub mod append;
mod compact;
mod delete;
mod exemplars;
mod failure;
mod fingerprint;
mod head;
pub mod index;
pub mod inspect;
mod log;
mod loss;
mod manifest;
mod metadata;
mod metrics;
mod moment;
pub mod options;
mod query;
mod recovery;
mod registry;
mod reserve;
mod retention;
mod seal;
pub mod segment;
pub mod select;
mod snapshot;
pub mod stats;
mod store;
mod sync;
mod version;

#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::base::clock::Clock;
use crate::base::disk::Disk;
use crate::base::metrics::Registry;
use crate::base::rng::Rng;
use crate::model::exemplar::Exemplar;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::metadata::Metadata;
use crate::model::sample::TimeRange;
use crate::storage::append::{Append, Appender, OnReject};
use crate::storage::compact::plan::Urgency;
use crate::storage::head::batch::Batch;
use crate::storage::options::{Limits, OpenError, Options, Retention, SealError, WalSync};
use crate::storage::select::{QueryError, Select, SelectHints, Selection};
use crate::storage::stats::{SegmentSummary, TsdbStats};
use crate::storage::store::Store;

/// The store. Shared by `Arc`; its threads end in [`Storage::close`] or when it is dropped.
pub struct Storage {
    store: Arc<Store>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Storage {
    /// Opens the data directory, recovering what an earlier run left. Reads the manifest, the
    /// registry checkpoint and the log files that are not sealed yet.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        metrics: &Registry,
        options: Options,
    ) -> Result<Arc<Self>, OpenError> {
        let storage = Self::open_quiet(disk, clock, &*rng, metrics, options)?;
        storage.start_threads();
        Ok(storage)
    }

    /// Opens without threads: nothing happens unless it is called.
    fn open_quiet(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        rng: &dyn Rng,
        metrics: &Registry,
        options: Options,
    ) -> Result<Arc<Self>, OpenError> {
        let store = recovery::open(disk, clock, rng, metrics::Metrics::new(metrics), options)?;
        let store = Arc::new(store);
        metrics::collect(metrics, &store);
        Ok(Arc::new(Self { store, threads: Mutex::default() }))
    }

    fn start_threads(&self) {
        let spawn = |name: &str, run: fn(&Store)| {
            let store = Arc::clone(&self.store);
            let builder = std::thread::Builder::new().name(name.to_owned());
            let run = move || run_or_stop(&store, run, || std::process::abort());
            builder.spawn(run).expect("the system has room for three threads")
        };
        let mut threads = self.threads.lock();
        if self.store.syncer.policy() != WalSync::Never {
            threads.push(spawn("storage-sync", |store| {
                while store.syncer.wait() {
                    store.sync_once();
                }
            }));
        }
        threads.push(spawn("storage-background", Store::run_background));
        threads.push(spawn("storage-compact", Store::run_compaction));
    }

    /// Closes the open log file and seals all closed ones. Blocks until that is durable.
    pub fn seal_now(&self) -> Result<(), SealError> {
        self.store.close_log()?;
        self.store.seal_closed()
    }

    /// Seals everything and merges it into as few segments as the time windows permit. Blocks
    /// until that is durable.
    pub fn compact_now(&self) -> Result<(), SealError> {
        self.seal_now()?;
        self.store.compact(Urgency::Now)
    }

    /// Hides the samples in the range of series that fulfil all matchers of any set, as far as they
    /// were committed before. Blocks until that is durable; the space is freed soon after.
    pub fn delete_series(&self, sets: &[Vec<Matcher>], range: TimeRange) -> Result<(), SealError> {
        self.store.with_reserve(|| self.store.delete_series(sets, range))
    }

    /// Frees the space of everything that was deleted. Blocks.
    pub fn clean_tombstones(&self) -> Result<(), SealError> {
        self.store.with_reserve(|| {
            self.seal_now()?;
            self.store.clean_tombstones(Urgency::Now)
        })
    }

    /// Makes a copy of all samples, or of those that are not in log files any more, in a folder
    /// of its own under `snapshots` in the data directory; its name. Blocks until it is durable.
    pub fn snapshot(&self, with_head: bool) -> Result<String, SealError> {
        self.store.make_snapshot(with_head)
    }

    /// Figures about the head; lists are cut to the `limit` largest entries.
    pub fn stats(&self, limit: usize) -> TsdbStats {
        self.store.stats(limit)
    }

    /// All segments, in the order in which queries read them.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        self.store.segments()
    }

    /// Timestamp of the oldest sample, inclusive; `None` when there is none.
    pub fn min_time_ms(&self) -> Option<i64> {
        self.store.range().map(|range| range.min_ms)
    }

    /// Timestamp of the newest sample, inclusive; `None` when there is none.
    pub fn max_time_ms(&self) -> Option<i64> {
        self.store.range().map(|range| range.max_ms)
    }

    /// Changes the limits of active series.
    pub fn set_limits(&self, limits: Limits) {
        self.store.limits.store(Arc::new(limits));
    }

    /// Changes the retention.
    pub fn set_retention(&self, retention: Retention) {
        let last = self.store.retention.swap(Arc::new(retention.clone()));
        if *last != retention {
            self.store.wake_background();
        }
    }

    /// Changes how many exemplars are kept; 0: none.
    pub fn set_exemplars_max(&self, count: i64) {
        self.store.exemplars_max.store(count, Ordering::Relaxed);
        self.store.exemplars.write().trim(self.store.exemplars_max());
    }

    /// The exemplars in the range of series that fulfil any of the matcher sets: series in label
    /// order, exemplars by time.
    pub fn exemplars(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        self.store.exemplars.read().select(sets, range)
    }

    /// Syncs what was written, ends the threads and releases the lock of the data directory.
    /// Commits are refused from then on; queries still work.
    pub fn close(&self) {
        self.store.lock_writer().is_closed = true;
        self.store.syncer.stop();
        self.store.background.0.lock().is_stopped = true;
        self.store.background.1.notify_all();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("A thread of the store has panicked.");
            }
        }
        self.store.sync_once();
        // Whoever seals, merges or deletes for somebody else has ended when these are free.
        drop(self.store.compaction.lock());
        drop(self.store.maintenance.lock());
        drop(self.store.lock_writer());
        self.store.directory_lock.lock().take();
    }

    /// Whether a write or sync failed, after which nothing is taken in any more.
    pub fn is_poisoned(&self) -> bool {
        self.store.is_poisoned()
    }
}

/// Runs one of the store's threads. Without any of them writers wait for ever or files are never
/// removed, and a restart mends what a panic left half done: so a panic ends the process.
fn run_or_stop(store: &Store, run: fn(&Store), stop: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(|| run(store))).is_err() {
        let err = io::Error::other("its message was printed before this");
        store.poison("a thread of the store has panicked", &err);
        stop();
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.close();
    }
}

impl Appender for Storage {
    fn appender(&self, on_reject: OnReject) -> Box<dyn Append> {
        Box::new(Batch::new(Arc::clone(&self.store), on_reject))
    }
}

impl Select for Storage {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: &SelectHints,
    ) -> Result<Selection, QueryError> {
        self.store.select(matchers, range, hints)
    }

    fn label_names(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        self.store.label_names(sets, range)
    }

    fn label_values(
        &self,
        name: &str,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        self.store.label_values(name, sets, range)
    }

    fn metadata(&self, metric: Option<&str>) -> Vec<(String, Metadata)> {
        let known = self.store.metadata.read();
        let own = |(metric, metadata): (&String, &Metadata)| (metric.clone(), metadata.clone());
        match metric {
            Some(metric) => known.get_key_value(metric).map(own).into_iter().collect(),
            None => known.iter().map(own).collect(),
        }
    }
}
