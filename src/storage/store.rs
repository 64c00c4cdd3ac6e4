//! What the store's threads, batches and queries share.
//!
//! Lock order: compaction, maintenance, writer, registry, manifest; the others are leaves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, RwLock};

use super::exemplars::Exemplars;
use super::failure::{Failure, Watched};
use super::fingerprint::HashKey;
use super::head::commit::Writer;
use super::log::file::LogFile;
use super::log::format::{FILE_HEADER_BYTES, FileHeader};
use super::manifest::{Edit, Manifest, is_full};
use super::metadata::MetadataMap;
use super::metrics::Metrics;
use super::moment::Moment;
use super::options::{Limits, Options, Retention};
use super::registry::Registry;
use super::registry::names::NameHash;
use super::sync::Syncer;
use super::version::Version;
use crate::base::clock::Clock;
use crate::base::disk::Disk;

/// Folders of a data directory.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Log files.
    pub logs: PathBuf,
    /// Segments.
    pub segments: PathBuf,
    /// Registry checkpoints.
    pub registry: PathBuf,
    /// Damaged log files, kept for people to look at.
    pub quarantine: PathBuf,
}

impl Folders {
    /// Those of the data directory `path`.
    pub fn new(path: &Path) -> Self {
        Self {
            logs: path.join("wal"),
            segments: path.join("segments"),
            registry: path.join("registry"),
            quarantine: path.join("quarantine"),
        }
    }

    /// All of them.
    pub fn all(&self) -> [&Path; 4] {
        [&self.logs, &self.segments, &self.registry, &self.quarantine]
    }
}

/// The shared state.
pub struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    pub(super) folders: Folders,
    pub(super) metrics: Metrics,
    pub(super) key: HashKey,
    pub(super) name_hash: NameHash,
    pub(super) registry: RwLock<Registry>,
    /// What queries found and read, kept for the next ones.
    pub(super) kept: super::query::Kept,
    pub(super) metadata: RwLock<MetadataMap>,
    /// Held by whoever merges segments.
    pub(super) compaction: Mutex<()>,
    pub(super) exemplars: RwLock<Exemplars>,
    /// How many of them are kept.
    pub(super) exemplars_max: AtomicI64,
    /// Held by whoever seals, collects or removes.
    pub(super) maintenance: Mutex<()>,
    pub(super) writer: Mutex<Writer>,
    pub(super) manifest: Mutex<Manifest>,
    /// The open log file, as readers see it.
    pub(super) active: ArcSwap<LogFile>,
    /// Changed only with the manifest locked.
    pub(super) version: ArcSwap<Version>,
    pub(super) syncer: Syncer,
    pub(super) retention: ArcSwap<Retention>,
    /// From when ages are counted.
    pub(super) moment: Mutex<Moment>,
    pub(super) next_id: AtomicU64,
    /// Whether a write or sync failed; log files, manifest and syncer have the same cell.
    pub(super) failure: Failure,
    pub(super) limits: ArcSwap<Limits>,
    /// When it was last told that a limit was met.
    pub(super) limit_told: Mutex<Option<Duration>>,
    /// Length of the reserve; 0: it is not there.
    pub(super) reserve_bytes: AtomicU64,
    /// Whether it was used and is not there again.
    pub(super) gave_way: AtomicBool,
    /// Whether samples were refused for want of space.
    pub(super) is_full: AtomicBool,
    /// Whether merges wait for space.
    pub(super) merges_wait: AtomicBool,
    /// Whether the background threads should look for work, or end.
    pub(super) background: (Mutex<Background>, Condvar),
    /// The data directory's lock, until the store is closed.
    pub(super) directory_lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// What the background threads are told.
#[derive(Debug, Default)]
pub struct Background {
    /// A log file was closed.
    pub has_work: bool,
    /// A segment was added.
    pub has_sealed: bool,
    /// Callers who wait for merges now: merging takes no breaks for them.
    pub waiting: usize,
    /// The store is closing.
    pub is_stopped: bool,
}

impl Store {
    /// Whether a write or sync failed.
    pub fn is_poisoned(&self) -> bool {
        self.failure.is_set()
    }

    /// From now on nothing is written.
    pub fn poison(&self, what: &'static str, err: &io::Error) {
        self.failure.set(what, err);
    }

    /// Locks what commits change. A panic meanwhile is a failure.
    pub fn lock_writer(&self) -> Watched<'_, Writer> {
        self.failure.lock(&self.writer)
    }

    /// Locks the manifest, and with it the version. A panic meanwhile is a failure.
    pub fn lock_manifest(&self) -> Watched<'_, Manifest> {
        self.failure.lock(&self.manifest)
    }

    /// How far behind out-of-order data is taken.
    pub fn out_of_order_window_ms(&self) -> i64 {
        self.options.out_of_order_window_ms.load(Ordering::Relaxed).max(0)
    }

    /// Seconds since a reading of the monotonic clock.
    pub fn seconds_since(&self, start: Duration) -> f64 {
        self.clock.monotonic().saturating_sub(start).as_secs_f64()
    }

    /// A number for a new file.
    pub fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Closes the open log file and begins another with room for `frame_bytes`.
    pub fn rotate(&self, writer: &mut Writer, frame_bytes: u64) -> io::Result<()> {
        let old = Arc::clone(&writer.active);
        // Whatever the kind: a sync that failed must not be tried again.
        self.sync_file(&old).map_err(io::Error::other)?;
        let capacity_bytes = self.capacity_bytes(frame_bytes)?;
        let header = FileHeader {
            file_id: self.new_id(),
            base_ms: self.clock.now_ms(),
            first_sequence: writer.sequence + 1,
        };
        let least_bytes = frame_bytes + FILE_HEADER_BYTES as u64;
        let logs = &self.folders.logs;
        let new =
            LogFile::create(&self.disk, logs, header, capacity_bytes, least_bytes, &self.failure)?;
        let new = Arc::new(new);
        let end = if old.is_empty() {
            Edit::DropLog(old.id())
        } else {
            Edit::CloseLog(old.id(), writer.end_bytes)
        };
        let mut manifest = self.lock_manifest();
        if let Err(err) = manifest.edit(&[end, Edit::AddLog(new.id())]) {
            // After a full disk the edit did not happen; otherwise nobody knows, and all stops.
            if is_full(&err) {
                let _ = self.disk.remove_file(new.path());
            }
            return Err(err);
        }
        let mut version = Version::clone(&self.version.load());
        version.logs.retain(|log| !log.is_empty());
        version.logs.push(Arc::clone(&new));
        self.version.store(Arc::new(version));
        drop(manifest);
        if old.is_empty() {
            let _ = self.disk.remove_file(old.path());
        } else {
            old.cut(writer.end_bytes);
        }
        self.active.store(Arc::clone(&new));
        writer.end_bytes = new.published_bytes();
        writer.active = new;
        writer.groups.begin_file();
        writer.starts.begin_file();
        self.wake_background();
        Ok(())
    }

    fn capacity_bytes(&self, frame_bytes: u64) -> io::Result<u64> {
        let least_bytes = frame_bytes + FILE_HEADER_BYTES as u64;
        if least_bytes > u64::from(u32::MAX) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(self.options.log_file_bytes_max.clamp(least_bytes, u64::from(u32::MAX)))
    }

    /// Syncs what was written and settles the tickets that it covers.
    pub fn sync_once(&self) {
        let Some(sequence) = self.syncer.begin() else { return };
        let active = self.active.load_full();
        if self.sync_file(&active).is_ok() {
            self.syncer.end(sequence);
        }
    }

    fn sync_file(&self, file: &LogFile) -> io::Result<()> {
        let start = self.clock.monotonic();
        let result = file.sync();
        self.metrics.fsync_seconds.observe(self.seconds_since(start));
        result
    }

    /// Lets the background thread look for work.
    pub fn wake_background(&self) {
        self.background.0.lock().has_work = true;
        self.background.1.notify_all();
    }
}

/// The name of a segment within its folder.
pub fn segment_file_name(id: u64) -> String {
    format!("{id:010}.seg")
}
