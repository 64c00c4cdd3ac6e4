//! The time-series store: rows of groups in log files, sealed into segments, named by a manifest.
//!
//! Writers use [`append::Append`], readers [`select::Select`]; everything else is behind them.

pub mod append;
pub mod index;
pub mod options;
pub mod segment;
pub mod select;
pub mod stats;

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::disk::Disk;
use crate::base::metrics::Registry;
use crate::base::rng::Rng;
use crate::model::matcher::Matcher;
use crate::model::metadata::Metadata;
use crate::model::sample::TimeRange;
use crate::storage::append::{Append, Appender, OnReject};
use crate::storage::options::{OpenError, Options, SealError};
use crate::storage::select::{QueryError, Select, SelectHints, Selection};
use crate::storage::stats::TsdbStats;

/// The store. Shared by `Arc`; its threads end in [`Storage::close`] or when it is dropped.
pub struct Storage {
    options: Options,
}

impl Storage {
    /// Opens the data directory, recovering what an earlier run left. Reads the manifest, the
    /// registry checkpoint and the log files that are not sealed yet.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _clock: Arc<dyn Clock>,
        _rng: Arc<dyn Rng>,
        _metrics: &Registry,
        options: Options,
    ) -> Result<Arc<Self>, OpenError> {
        Ok(Arc::new(Self { options }))
    }

    /// Closes the open log file and seals all closed ones. Blocks until that is durable.
    pub fn seal_now(&self) -> Result<(), SealError> {
        Ok(())
    }

    /// Figures about the head; lists are cut to the `limit` largest entries.
    pub fn stats(&self, _limit: usize) -> TsdbStats {
        TsdbStats::default()
    }

    /// Timestamp of the oldest sample, inclusive; `None` when there is none.
    pub fn min_time_ms(&self) -> Option<i64> {
        None
    }

    /// Timestamp of the newest sample, inclusive; `None` when there is none.
    pub fn max_time_ms(&self) -> Option<i64> {
        None
    }

    /// Changes the retention; `None`: samples stay for ever.
    pub fn set_retention_ms(&self, _retention_ms: Option<i64>) {}

    /// Syncs what was written, ends the threads and releases the lock of the data directory.
    /// Commits are refused from then on; queries still work.
    pub fn close(&self) {
        let _ = &self.options;
    }

    /// Whether a write or sync failed, after which nothing is taken in any more.
    pub fn is_poisoned(&self) -> bool {
        false
    }
}

impl Appender for Storage {
    fn appender(&self, _on_reject: OnReject) -> Box<dyn Append> {
        unimplemented!("lands within the hour")
    }
}

impl Select for Storage {
    fn select(
        &self,
        _matchers: &[Matcher],
        _range: TimeRange,
        _hints: &SelectHints,
    ) -> Result<Selection, QueryError> {
        Ok(Selection::empty())
    }

    fn label_names(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<String>, QueryError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Vec<Matcher>],
        _: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        Ok(Vec::new())
    }

    fn metadata(&self, _metric: Option<&str>) -> Vec<(String, Metadata)> {
        Vec::new()
    }
}
