//! Opening a data directory: manifest, registry checkpoint, frames of log files, nothing else.
//!
//! What a crash can leave, and what becomes of it: files without a name in the manifest (removed),
//! a torn tail of the newest log file (cut: it is closed before it), a torn manifest edit (it did
//! not happen). Damage elsewhere is reported; a damaged log file is kept in `quarantine` and
//! used up to the damage.

mod logs;
mod rows;
mod series;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::thread::{self, ScopedJoinHandle};

use arc_swap::ArcSwap;
use logs::{FoundLog, OpenedLog};
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;
use series::Mapped;
use tracing::{error, info, warn};

use super::delete::Tombstone;
use super::exemplars::{EXEMPLARS_MAX, Exemplars};
use super::failure::Failure;
use super::fingerprint::{HashKey, parse_canonical};
use super::head::commit::Writer;
use super::head::judge::Newest;
use super::log::file::{self, LogFile};
use super::log::format::{FILE_HEADER_BYTES, FileHeader};
use super::manifest::{self, CheckpointEntry, Edit, Manifest, State, TombstoneEntry};
use super::metadata::MetadataMap;
use super::metrics::Metrics;
use super::options::{OpenError, Options};
use super::query::Kept;
use super::registry::names::NameHash;
use super::registry::restore::{self, Restoring};
use super::registry::{Registry, checkpoint};
use super::reserve;
use super::segment::{Segment, UNKNOWN_VERSION};
use super::select::QueryError;
use super::store::{Folders, Store, segment_file_name};
use super::sync::Syncer;
use super::version::{OpenSegment, Version, in_order_of_acceptance};
use crate::base::clock::Clock;
use crate::base::disk::Disk;
use crate::base::rng::Rng;
use crate::model::exemplar::Exemplar;

/// Name of the lock file.
const LOCK_FILE: &str = "lock";

/// What is put together from the files.
struct Recovered {
    registry: Restoring,
    newest: Newest,
    metadata: MetadataMap,
    exemplars: Exemplars,
    key: HashKey,
    /// The last commit found.
    sequence: u64,
    /// Commits up to this are in the checkpoint.
    checkpoint_sequence: u64,
    /// Numbers with samples but without a definition, which was in a log file that is damaged.
    undefined: RoaringBitmap,
    /// Deletions that the checkpoint does not know and that are younger than what was read so far.
    deletions: VecDeque<Arc<TombstoneEntry>>,
}

/// What is known of the log files.
struct Logs {
    /// Those with commits, oldest first.
    files: Vec<Arc<LogFile>>,
    /// How the manifest must change.
    edits: Vec<Edit>,
    /// Those without damage, and where they end.
    whole: Vec<(Arc<LogFile>, u64)>,
}

/// Opens the store.
pub fn open(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    rng: &dyn Rng,
    metrics: Metrics,
    options: Options,
) -> Result<Store, OpenError> {
    let started = clock.monotonic();
    let path = options.path.clone();
    let folders = Folders::new(&path);
    let key = HashKey(rng.next_u64(), rng.next_u64());
    let lock = prepare_folders(&*disk, &path, &folders, key)?;
    let failure = Failure::default();
    let mut manifest = Manifest::open(&disk, &path, &failure)?;
    remove_garbage(&*disk, &folders, manifest.state());
    let (mut recovered, logs) = read_files(&disk, &folders, &manifest, &metrics)?;
    let (segments, mut edits) = open_segments(&*disk, &folders, manifest.state())?;
    let read = recovered.read_logs(&*disk, &folders, logs, &metrics)?;
    let mut logs = read.files;
    let registry = recovered.end(&*disk, &folders, &logs)?;
    let tombstones = tombstones_of(manifest.state(), &registry);
    let losses = manifest.state().losses.values().cloned().collect();
    let header = FileHeader {
        file_id: manifest.state().next_id,
        base_ms: clock.now_ms(),
        first_sequence: recovered.sequence + 1,
    };
    let active = Arc::new(begin_log(&disk, &options, header, &failure)?);
    edits.extend(read.edits);
    edits.push(Edit::AddLog(active.id()));
    reserve::or_give_way(&*disk, &path, || manifest.edit(&edits))
        .map_err(OpenError::io(path.join(manifest::FILE_NAME)))?;
    // Not before it is durable where they end.
    cut(&read.whole);
    logs.push(Arc::clone(&active));
    remove_garbage(&*disk, &folders, manifest.state());
    let (series, sequence) = (registry.len(), recovered.sequence);
    let head_max_ms = recovered.newest.max_ms().max(manifest.state().newest_ms);
    let store = Store {
        active: ArcSwap::new(Arc::clone(&active)),
        version: ArcSwap::from_pointee(Version { segments, logs, tombstones, losses }),
        syncer: Syncer::new(options.wal_sync, sequence, &failure),
        retention: ArcSwap::from_pointee(options.retention.clone()),
        writer: Mutex::new(Writer::new(active, sequence, recovered.newest, head_max_ms)),
        registry: RwLock::new(registry),
        kept: Kept::default(),
        metadata: RwLock::new(recovered.metadata),
        exemplars: RwLock::new(recovered.exemplars),
        exemplars_max: AtomicI64::new(EXEMPLARS_MAX),
        key: manifest.key(),
        name_hash: NameHash::new(manifest.key()),
        moment: Mutex::default(),
        next_id: AtomicU64::new(manifest.state().next_id),
        manifest: Mutex::new(manifest),
        compaction: Mutex::default(),
        maintenance: Mutex::default(),
        failure,
        limits: ArcSwap::from_pointee(options.limits.clone()),
        limit_told: Mutex::default(),
        reserve_bytes: AtomicU64::new(0),
        gave_way: AtomicBool::new(false),
        is_full: AtomicBool::new(false),
        merges_wait: AtomicBool::new(false),
        background: Default::default(),
        directory_lock: Mutex::new(Some(lock)),
        disk,
        clock,
        options,
        folders,
        metrics,
    };
    store.begin_moment();
    store.keep_reserve();
    let seconds = store.seconds_since(started);
    info!(series, seconds, "The store is open.");
    Ok(store)
}

/// Reads the checkpoint, each part of it on a thread of its own, while the log files are scanned. A
/// damaged checkpoint is kept for people to look at, and the store goes on without it: what is in
/// segments needs none.
fn read_files(
    disk: &Arc<dyn Disk>,
    folders: &Folders,
    manifest: &Manifest,
    metrics: &Metrics,
) -> Result<(Recovered, Vec<FoundLog>), OpenError> {
    let logs = logs::open_all(disk, folders, manifest)?;
    let state = manifest.state();
    let mapped = Mapped::open(&**disk, folders, state)?;
    let mut recovered = Recovered::new(manifest.key(), state, state.checkpoint);
    let file = mapped.as_ref().map(Mapped::file).transpose();
    let own = file.as_ref().ok().and_then(Option::as_ref);
    let (mut read, scans) = thread::scope(|scope| {
        let index = scope.spawn(|| own.map(restore::index_of));
        let scans = scope.spawn(|| {
            let scans: Vec<_> = logs.iter().map(OpenedLog::scan).collect();
            (scans, own.map(restore::table_of))
        });
        let mut read = own.map_or(Ok(()), |file| recovered.read_checkpoint(file));
        let (scans, table) = join(scans);
        if let (Some(file), Some(table), Some(index)) = (own, table, join(index)) {
            let damaged = |reason| file.damaged(reason);
            let both = table.and_then(|table| Ok((table, index?))).map_err(damaged);
            read = read.and(both).map(|(table, index)| {
                recovered.registry.end_checkpoint(table, index);
            });
        }
        (read, scans)
    });
    read = file.map(drop).and(read);
    if let (Err(err), Some(mapped)) = (read, &mapped) {
        mapped.set_aside(&**disk, folders, err, metrics)?;
        recovered = Recovered::new(manifest.key(), state, None);
    }
    recovered.pass_deletions(state);
    Ok((recovered, logs.into_iter().zip(scans).collect()))
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Ends log files where their last whole frame ends.
fn cut(logs: &[(Arc<LogFile>, u64)]) {
    for (log, end_bytes) in logs {
        log.cut(*end_bytes);
    }
}

/// Deletions, with the series of the head that they are about.
fn tombstones_of(state: &State, registry: &Registry) -> Vec<Arc<Tombstone>> {
    let tombstone =
        |own: &Arc<TombstoneEntry>| Arc::new(Tombstone::new(Arc::clone(own), registry.index()));
    state.tombstones.values().map(tombstone).collect()
}

/// The log file for what comes now.
fn begin_log(
    disk: &Arc<dyn Disk>,
    options: &Options,
    header: FileHeader,
    failure: &Failure,
) -> Result<LogFile, OpenError> {
    let folder = Folders::new(&options.path).logs;
    let least_bytes = FILE_HEADER_BYTES as u64;
    let capacity_bytes = options.log_file_bytes_max.clamp(least_bytes, u64::from(u32::MAX));
    let create = || LogFile::create(disk, &folder, header, capacity_bytes, least_bytes, failure);
    reserve::or_give_way(&**disk, &options.path, create).map_err(OpenError::io(&folder))
}

/// Takes the lock, makes the folders, refuses data without a manifest, and begins one where there
/// is nothing yet: not where nobody can tell.
fn prepare_folders(
    disk: &dyn Disk,
    path: &Path,
    folders: &Folders,
    key: HashKey,
) -> Result<Box<dyn Send + Sync>, OpenError> {
    create_folder(disk, path).map_err(OpenError::io(path))?;
    let lock = disk.lock(&path.join(LOCK_FILE)).map_err(|err| match err.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked(path.to_owned()),
        _ => OpenError::io(path.join(LOCK_FILE))(err),
    })?;
    for folder in folders.all() {
        disk.create_dir_all(folder).map_err(OpenError::io(folder))?;
    }
    disk.sync_dir(path).map_err(OpenError::io(path))?;
    let manifest = path.join(manifest::FILE_NAME);
    if !disk.try_exists(&manifest).map_err(OpenError::io(&manifest))? {
        for folder in [&folders.logs, &folders.segments] {
            let names = disk.list(folder).map_err(OpenError::io(folder))?;
            if !names.is_empty() {
                return Err(OpenError::Missing(manifest));
            }
        }
        manifest::write_new(disk, path, key, &State::default())
            .map_err(OpenError::io(&manifest))?;
    }
    Ok(lock)
}

/// Makes a folder and its parents, durably.
fn create_folder(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut changed = Vec::new();
    for folder in path.ancestors().filter(|own| !own.as_os_str().is_empty()) {
        if disk.try_exists(folder)? {
            break;
        }
        changed.extend(folder.parent());
    }
    disk.create_dir_all(path)?;
    let here = Path::new(".");
    let changed = changed.iter().map(|own| if own.as_os_str().is_empty() { here } else { *own });
    changed.rev().try_for_each(|folder| disk.sync_dir(folder))
}

/// Removes files that the manifest does not name: leftovers of what never came to be or is over.
fn remove_garbage(disk: &dyn Disk, folders: &Folders, state: &State) {
    let logs = state.logs.keys().map(|id| file::file_name(*id)).collect();
    let segments = state.segments.keys().map(|id| segment_file_name(*id)).collect();
    let checkpoints = state.checkpoint.iter().map(|own| checkpoint::file_name(own.id)).collect();
    let named: [(&Path, BTreeSet<String>); 3] =
        [(&folders.logs, logs), (&folders.segments, segments), (&folders.registry, checkpoints)];
    for (folder, named) in named {
        for name in disk.list(folder).unwrap_or_default() {
            if named.contains(&name) {
                continue;
            }
            let path = folder.join(&name);
            if let Err(err) = disk.remove_file(&path) {
                warn!(error = %err, path = %path.display(), "A leftover file stays.");
            }
        }
    }
}

/// Opens the segments that the manifest names. A damaged one is kept for people to look at, and
/// the store goes on without it.
fn open_segments(
    disk: &dyn Disk,
    folders: &Folders,
    state: &State,
) -> Result<(Vec<Arc<OpenSegment>>, Vec<Edit>), OpenError> {
    let (mut segments, mut edits) = (Vec::new(), Vec::new());
    for entry in state.segments.values() {
        let name = segment_file_name(entry.id);
        let path = folders.segments.join(&name);
        if !disk.try_exists(&path).map_err(OpenError::io(&path))? {
            return Err(OpenError::Missing(path));
        }
        let opened = Segment::open(disk, &path).and_then(|segment| {
            let segment = Arc::new(segment);
            let opened = OpenSegment::new(*entry, Arc::clone(&segment), state.tombstones.values());
            segment.check_read()?;
            opened
        });
        match opened {
            Ok(segment) => segments.push(Arc::new(segment)),
            // Written by a newer program: not damaged, and not ours to drop.
            Err(err @ QueryError::Corrupt { reason: UNKNOWN_VERSION, .. }) => {
                return Err(err.into());
            }
            Err(err @ QueryError::Corrupt { .. }) => {
                error!(error = %err, "A segment is damaged and left out.");
                keep_for_people(disk, folders, &path, &name)?;
                edits.push(Edit::DropSegment(entry.id));
            }
            // Perhaps it can be read at the next start.
            Err(QueryError::Io(source)) => return Err(OpenError::Io { path, source }),
        }
    }
    in_order_of_acceptance(&mut segments);
    Ok((segments, edits))
}

/// Gives a damaged file a second name, under which nobody removes it.
pub fn keep_for_people(
    disk: &dyn Disk,
    folders: &Folders,
    path: &Path,
    name: &str,
) -> Result<(), OpenError> {
    let kept = folders.quarantine.join(name);
    if !disk.try_exists(&kept).map_err(OpenError::io(&kept))? {
        disk.link(path, &kept).map_err(OpenError::io(&kept))?;
        disk.sync_dir(&folders.quarantine).map_err(OpenError::io(&kept))?;
    }
    Ok(())
}

impl Recovered {
    /// Nothing but what the manifest says.
    fn new(key: HashKey, state: &State, checkpoint: Option<CheckpointEntry>) -> Self {
        let known = checkpoint.map_or(0, |own| own.tombstone);
        let deletions = state.tombstones.values().filter(|own| known < own.id);
        let segments = state.segments.values().map(|segment| segment.last_sequence);
        Self {
            registry: Restoring::default(),
            newest: Newest::default(),
            metadata: MetadataMap::default(),
            exemplars: Exemplars::default(),
            key,
            sequence: segments.max().unwrap_or(0),
            checkpoint_sequence: 0,
            undefined: RoaringBitmap::new(),
            deletions: deletions.cloned().collect(),
        }
    }

    /// What is committed from now on is younger than every deletion, also when the commits before a
    /// deletion are lost or, in a snapshot, were left out.
    fn pass_deletions(&mut self, state: &State) {
        let last = state.tombstones.values().map(|own| own.sequence).max();
        self.sequence = self.sequence.max(last.unwrap_or(0));
    }

    fn keep_exemplar(&mut self, canonical: &[u8], own: Exemplar) -> Result<(), &'static str> {
        let labels = parse_canonical(canonical).ok_or("labels of an exemplar are damaged")?;
        self.exemplars.push(self.key.fingerprint(canonical), labels, own);
        Ok(())
    }

    /// Notes whose newest sample was deleted before a commit.
    fn delete_before(&mut self, sequence: u64) {
        while let Some(own) = self.deletions.pop_front_if(|own| own.sequence < sequence) {
            for set in &own.sets {
                for series in self.registry.index().select(set) {
                    self.newest.hollow_out(series, own.range);
                }
            }
        }
    }

    /// When all files are read.
    fn end(
        &mut self,
        disk: &dyn Disk,
        folders: &Folders,
        logs: &[Arc<LogFile>],
    ) -> Result<Registry, OpenError> {
        self.delete_before(u64::MAX);
        let mut named = RoaringBitmap::new();
        for log in logs {
            named |= log.directory().read().series();
        }
        let registry = std::mem::take(&mut self.registry).finish(&named);
        self.newest.grow(registry.bound_max());
        if !self.undefined.is_empty() {
            let series = self.undefined.len();
            error!(series, "Samples are left out, because the names of their series are lost.");
            self.keep_unnamed(disk, folders, logs)?;
        }
        Ok(registry)
    }

    /// Log files with samples whose series have no name are kept for people to look at.
    fn keep_unnamed(
        &self,
        disk: &dyn Disk,
        folders: &Folders,
        logs: &[Arc<LogFile>],
    ) -> Result<(), OpenError> {
        let has_unnamed = |log: &&Arc<LogFile>| {
            let directory = log.directory().read();
            self.undefined.iter().any(|series| directory.has(series))
        };
        for log in logs.iter().filter(has_unnamed) {
            keep_for_people(disk, folders, log.path(), &file::file_name(log.id()))?;
        }
        Ok(())
    }
}
