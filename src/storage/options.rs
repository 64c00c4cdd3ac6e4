//! What the store is told when it is opened, and why it may refuse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use crate::model::matcher::Matcher;
use crate::storage::select::QueryError;

/// When a commit counts as durable, that is, when its ticket is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// After a sync that covers it. Commits that nobody waits for are synced within a second.
    Batch,
    /// At once; everything is synced once a second.
    Interval,
    /// At once; the operating system writes when it likes.
    Never,
}

/// How long samples are kept. Ages are seen from the newest sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retention {
    /// Samples older than this go. `None`: age does not matter.
    pub time_ms: Option<i64>,
    /// The oldest segments go when all files together are longer than this.
    pub bytes: Option<u64>,
    /// The same, as a percentage of the file system; if it is there, `bytes` does not count.
    pub percentage: Option<f64>,
    /// Ages for some series instead of `time_ms`; the first rule that fits counts.
    pub rules: Vec<RetentionRule>,
}

/// How long the samples of some series are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionRule {
    /// Series that fulfil all of these.
    pub matchers: Vec<Matcher>,
    /// As in [`Retention::time_ms`].
    pub time_ms: Option<i64>,
}

impl Retention {
    /// By age alone.
    pub fn of_time_ms(time_ms: Option<i64>) -> Self {
        Self { time_ms, ..Self::default() }
    }

    /// The longest age of any series; `i64::MAX`: for ever.
    pub fn longest_ms(&self) -> i64 {
        let rules = self.rules.iter().map(|rule| rule.time_ms);
        rules.chain([self.time_ms]).map(|own| own.unwrap_or(i64::MAX)).max().unwrap_or(i64::MAX)
    }

    /// The shortest.
    pub fn shortest_ms(&self) -> i64 {
        let rules = self.rules.iter().map(|rule| rule.time_ms);
        rules.chain([self.time_ms]).map(|own| own.unwrap_or(i64::MAX)).min().unwrap_or(i64::MAX)
    }
}

/// How many active series there may be. Beyond a limit new series are refused, known ones not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In total. `None`: any number.
    pub active_series: Option<u64>,
    /// With one value of the label `job`.
    pub active_series_per_job: Option<u64>,
    /// The same for some jobs.
    pub jobs: BTreeMap<String, Option<u64>>,
}

impl Limits {
    /// The limit of a job.
    pub fn of_job(&self, job: &str) -> Option<u64> {
        self.jobs.get(job).copied().unwrap_or(self.active_series_per_job)
    }

    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// What becomes of start timestamps: when the counting began that a sample tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartTimestamps {
    /// They are stored with their samples.
    pub are_kept: bool,
    /// A sample of zero is stored at the start, if the series has no sample since.
    pub begin_with_zero: bool,
}

/// How the store works. All of it is fixed while it is open, except where noted.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; created when missing.
    pub path: PathBuf,
    /// What goes, and when. May be changed while the store is open.
    pub retention: Retention,
    /// How many series there may be. May be changed while the store is open.
    pub limits: Limits,
    /// Greatest length of a file that gives way when the disk is full, so that deleting can go on;
    /// 0: there is none.
    pub reserve_bytes_max: u64,
    /// How far behind the head's newest sample out-of-order data is accepted; 0: not at all.
    /// May be changed while the store is open.
    pub out_of_order_window_ms: Arc<AtomicI64>,
    /// When commits count as durable.
    pub wal_sync: WalSync,
    /// A log file is closed when the next commit would make it longer than this.
    pub log_file_bytes_max: u64,
    /// A log file is closed when it was begun this long ago (30 minutes is usual).
    pub log_file_age_max_ms: i64,
    /// Samples further ahead of the clock than this are refused (10 minutes is usual).
    pub future_ms_max: i64,
    /// What becomes of start timestamps.
    pub start_timestamps: StartTimestamps,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{}: data directory is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("{}: corrupt data at byte {offset_bytes}: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset_bytes: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The manifest names a file that is not there.
    #[error("{}: the manifest names this file, but it is missing", .0.display())]
    Missing(PathBuf),
}

impl OpenError {
    /// Adds the path to an I/O error.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }
}

impl From<QueryError> for OpenError {
    fn from(err: QueryError) -> Self {
        match err {
            QueryError::Io(source) => Self::Io { path: PathBuf::new(), source },
            QueryError::Corrupt { path, offset_bytes, reason } => {
                Self::Corrupt { path, offset_bytes, reason }
            }
        }
    }
}

/// Why sealing failed. What was to be sealed is still in its log file and can be queried.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// An earlier write or sync failed.
    #[error("writer stopped by an earlier write or sync failure")]
    Poisoned,
    /// The store is closing, and a merge was given up.
    #[error("the store is closing")]
    Closing,
    /// The disk is full.
    #[error("no space left for a segment")]
    DiskFull,
    /// Reading or writing a log file, a segment or the manifest failed.
    #[error("change files of the store: {0}")]
    Io(#[from] std::io::Error),
    /// A log file or a segment could not be read.
    #[error("read files of the store: {0}")]
    Read(#[from] QueryError),
}
