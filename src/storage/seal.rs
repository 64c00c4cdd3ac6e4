//! Turning a closed log file into segments, one for each two hours, as a whole, in one manifest edit.
//!
//! The same edit names a registry checkpoint that covers what the log file defined. A crash before
//! the edit leaves files that nobody names; after it, a log file that nobody names.

mod passes;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::MutexGuard;
use roaring::RoaringBitmap;
use tracing::error;

use super::compact::plan;
use super::delete::Hidden;
use super::exemplars::Stored;
use super::log::file::{self, LogFile};
use super::log::scan::{Tail, scan};
use super::manifest::{CheckpointEntry, Edit, SegmentEntry};
use super::options::SealError;
use super::query::log_reader;
use super::query::merge::{Parts, Sharing};
use super::recovery::keep_for_people;
use super::registry::{SeriesRef, checkpoint};
use super::segment::{Segment, SegmentWriter, SequenceRange, SeriesIdentity};
use super::select::{BLOCK_SERIES_MAX, Run};
use super::store::{Store, segment_file_name};
use super::version::Version;
use crate::encoding::column::Density;
use crate::model::metadata::Metadata;
use passes::{Pass, Passes};

/// A series without samples in any log file is forgotten when its newest one is this much older
/// than the head's: as long as Prometheus keeps a series in its head.
const FORGET_AFTER_MS: i64 = 2 * 3_600_000;

/// The registry as of one commit, all of which is on disk.
struct RegistryState {
    sequence: u64,
    head_max_ms: Option<i64>,
    newest_ms: Vec<i64>,
    newest_bits: Vec<u64>,
    hollow: RoaringBitmap,
    /// The last deletion before it.
    tombstone: u64,
    metadata: Vec<(String, Metadata)>,
    exemplars: Vec<Arc<Stored>>,
}

impl Store {
    /// Closes the open log file when it has something.
    pub fn close_log(&self) -> Result<(), SealError> {
        let mut writer = self.lock_writer();
        if self.is_poisoned() || writer.is_closed {
            return Err(SealError::Poisoned);
        }
        if writer.active.is_empty() {
            return Ok(());
        }
        self.rotate(&mut writer, 0)
            .map_err(|err| self.classify("log file could not be closed", err))
    }

    /// A full disk passes; any other failure to write ends the store.
    pub fn classify(&self, what: &'static str, err: io::Error) -> SealError {
        match err.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SealError::DiskFull,
            _ => {
                self.poison(what, &err);
                SealError::Io(err)
            }
        }
    }

    /// Seals all closed log files, oldest first.
    pub fn seal_closed(&self) -> Result<(), SealError> {
        let _maintenance = self.begin_maintenance()?;
        while let Some((log, last_sequence)) = self.oldest_closed() {
            self.check_open()?;
            if self.is_poisoned() {
                return Err(SealError::Poisoned);
            }
            let started = self.clock.monotonic();
            let sealed = self.cut_damaged(&log).and_then(|()| self.seal(&log, last_sequence));
            let seconds = self.seconds_since(started);
            self.metrics.seal_seconds.observe(seconds);
            match &sealed {
                Ok(()) => self.metrics.seals.inc(),
                Err(_) => self.metrics.seals_failed.inc(),
            }
            sealed?;
            self.forget_dead_series();
            self.background.0.lock().has_sealed = true;
            self.background.1.notify_all();
        }
        Ok(())
    }

    /// Waits for the turn to seal or remove files; an error when the store is closing: soon another
    /// process may have the directory.
    pub fn begin_maintenance(&self) -> Result<MutexGuard<'_, ()>, SealError> {
        let turn = self.maintenance.lock();
        self.check_open().map(|()| turn)
    }

    /// An error when the store is closing.
    pub fn check_open(&self) -> Result<(), SealError> {
        if self.background.0.lock().is_stopped { Err(SealError::Closing) } else { Ok(()) }
    }

    /// Ends a closed log file before the first damage in it, as a start would: what the device does
    /// not give back as it was written must not become samples, nor keep later files from being
    /// sealed. The file is kept for people to look at.
    fn cut_damaged(&self, log: &LogFile) -> Result<(), SealError> {
        let published_bytes = log.published_bytes();
        let bytes = log.map(published_bytes)?;
        let (_, tail) = scan(&bytes, log.id(), Some(published_bytes));
        log.check_whole(&bytes)?;
        let Tail::Corrupt { offset_bytes, reason } = tail else { return Ok(()) };
        let (path, name) = (log.path(), file::file_name(log.id()));
        error!(path = %path.display(), offset_bytes, reason, "A log file is damaged.");
        self.metrics.wal_corruptions.inc();
        keep_for_people(&*self.disk, &self.folders, path, &name)
            .map_err(|err| SealError::Io(io::Error::other(err)))?;
        let edit = Edit::CloseLog(log.id(), offset_bytes);
        let edited = self.lock_manifest().edit(&[edit]);
        edited.map_err(|err| self.classify("manifest could not be written", err))?;
        log.publish(offset_bytes);
        Ok(())
    }

    /// The oldest log file that gets no more commits, and the last commit in it.
    fn oldest_closed(&self) -> Option<(Arc<LogFile>, u64)> {
        let version = self.version.load();
        let next = version.logs.get(1)?;
        Some((Arc::clone(&version.logs[0]), next.header().first_sequence - 1))
    }

    fn seal(&self, log: &Arc<LogFile>, last_sequence: u64) -> Result<(), SealError> {
        let first_sequence = log.header().first_sequence;
        let version = self.version.load_full();
        // Each segment gets a number of its own.
        let (id, tombstone) = (0, version.tombstone());
        let entry = SegmentEntry { id, first_sequence, last_sequence, level: 0, tombstone };
        let mut made = Vec::new();
        let checkpoint_id = self.new_id();
        let checkpoint_path = self.folders.registry.join(checkpoint::file_name(checkpoint_id));
        let hidden = version.hidden_in_log(log);
        let written = self.write_segments(log, entry, &hidden, &mut made).and_then(|segments| {
            let state = self.registry_state()?;
            self.write_checkpoint(&state, &checkpoint_path).map_err(not_poisoning)?;
            Ok((segments, state))
        });
        let edited = written.and_then(|(segments, state)| {
            let checkpoint = CheckpointEntry { id: checkpoint_id, tombstone: state.tombstone };
            let mut edits = vec![Edit::DropLog(log.id()), Edit::Checkpoint(checkpoint)];
            edits.extend(segments.iter().map(|(entry, _)| Edit::AddSegment(*entry)));
            edits.extend(state.head_max_ms.map(Edit::NewestTime));
            let mut manifest = self.lock_manifest();
            let mut version = Version::clone(&self.version.load());
            // Something may have been deleted meanwhile.
            let segments =
                segments.into_iter().map(|(entry, own)| version.open_segment(entry, own));
            let segments = segments.collect::<Result<Vec<_>, _>>()?;
            let old_checkpoint = manifest.state().checkpoint;
            manifest
                .edit(&edits)
                .map_err(|err| self.classify("manifest could not be written", err))?;
            version.logs.retain(|own| own.id() != log.id());
            version.exchange(&[], segments);
            self.version.store(Arc::new(version));
            Ok(old_checkpoint)
        });
        match edited {
            Ok(old_checkpoint) => {
                let old = old_checkpoint.map(|own| checkpoint::file_name(own.id));
                let old = old.map(|name| self.folders.registry.join(name));
                // What cannot be removed now is removed at the next start.
                for path in [Some(log.path()), old.as_deref()].into_iter().flatten() {
                    let _ = self.disk.remove_file(path);
                }
                Ok(())
            }
            Err(err) => {
                if !self.is_poisoned() {
                    for path in made.iter().chain([&checkpoint_path]) {
                        let _ = self.disk.remove_file(path);
                    }
                }
                Err(err)
            }
        }
    }

    /// Writes the samples of a log file, cut where merges cut.
    fn write_segments(
        &self,
        log: &LogFile,
        entry: SegmentEntry,
        hidden: &[&Hidden],
        made: &mut Vec<PathBuf>,
    ) -> Result<Vec<(SegmentEntry, Segment)>, SealError> {
        let order = self.by_metric(log);
        // The map is taken while the file has its name; queries may need it after that.
        let bytes = log.map(log.published_bytes())?;
        if order.is_empty() {
            return Ok(Vec::new());
        }
        let cuts = plan::cuts(log.directory().read().range());
        let mut writers: Vec<Option<SegmentWriter>> = cuts.iter().map(|_| None).collect();
        let first = made.len();
        let ids: Vec<u64> = cuts.iter().map(|_| self.new_id()).collect();
        let path = |id: &u64| self.folders.segments.join(segment_file_name(*id));
        made.extend(ids.iter().map(path));
        let paths = &made[first..];
        let base_ms = log.header().base_ms;
        let passes = Passes::new(&log.directory().read(), &bytes, base_ms, &order);
        for Pass { series, range } in passes.0 {
            let series = &order[series];
            let wanted: Vec<_> = series.iter().copied().enumerate().collect();
            let mut parts: Vec<Parts> = series.iter().map(|_| Parts::default()).collect();
            let limit_bytes = log.published_bytes();
            log_reader::read_visible(log, limit_bytes, &wanted, range, hidden, &mut parts)?;
            let mut sharing = Sharing::default();
            for (series, parts) in series.iter().zip(parts) {
                for run in parts.finish(&mut sharing).runs {
                    for (at, cut) in cuts.iter().enumerate() {
                        let Some(run) = run.within(*cut) else { continue };
                        let writer = match &mut writers[at] {
                            Some(writer) => writer,
                            none => {
                                let path = &paths[at];
                                let new = SegmentWriter::create(&*self.disk, path, Density::Fast);
                                none.insert(new.map_err(not_poisoning)?)
                            }
                        };
                        self.write_run(writer, *series, &run).map_err(not_poisoning)?;
                    }
                }
            }
        }
        let sequences = SequenceRange { first: entry.first_sequence, last: entry.last_sequence };
        let mut written = Vec::new();
        for ((writer, path), id) in writers.into_iter().zip(paths).zip(ids) {
            let Some(writer) = writer else { continue };
            writer.finish(sequences).map_err(not_poisoning)?;
            let segment = Segment::open(&*self.disk, path)?;
            written.push((SegmentEntry { id, ..entry }, segment));
        }
        Ok(written)
    }

    fn write_run(
        &self,
        writer: &mut SegmentWriter,
        series: SeriesRef,
        run: &Run,
    ) -> io::Result<()> {
        let (fingerprint, labels) = {
            let registry = self.registry.read();
            (registry.fingerprint(series), registry.labels(series))
        };
        writer.run(SeriesIdentity { fingerprint, labels: &labels }, run)
    }

    /// Series of a log file, those of one metric side by side. What has no name after damage to
    /// an earlier log file is left out.
    fn by_metric(&self, log: &LogFile) -> Vec<SeriesRef> {
        let series = log.directory().read().series();
        let registry = self.registry.read();
        let mut ranks: HashMap<_, u32, foldhash::fast::RandomState> = HashMap::default();
        let named = series.iter().filter(|series| registry.fingerprint(*series) != 0);
        let ranked = named.map(|series| {
            let next = ranks.len() as u32;
            (*ranks.entry(registry.metric(series)).or_insert(next), series)
        });
        let mut order: Vec<(u32, SeriesRef)> = ranked.collect();
        order.sort_unstable();
        order.into_iter().map(|(_, series)| series).collect()
    }

    /// What the next checkpoint says. All commits that it covers are on disk.
    fn registry_state(&self) -> Result<RegistryState, SealError> {
        let (active, state) = {
            let writer = self.lock_writer();
            let (newest_ms, newest_bits) = writer.newest.parts();
            let state = RegistryState {
                sequence: writer.sequence,
                head_max_ms: writer.head_max_ms,
                newest_ms: newest_ms.to_vec(),
                newest_bits: newest_bits.to_vec(),
                hollow: writer.newest.hollow().clone(),
                tombstone: self.version.load().tombstone(),
                metadata: self
                    .metadata
                    .read()
                    .iter()
                    .map(|(metric, own)| (metric.clone(), own.clone()))
                    .collect(),
                exemplars: self.exemplars.read().all(),
            };
            (Arc::clone(&writer.active), state)
        };
        active.sync().map_err(SealError::Io)?;
        Ok(state)
    }

    fn write_checkpoint(&self, state: &RegistryState, path: &Path) -> io::Result<()> {
        let RegistryState { sequence, metadata, exemplars, .. } = state;
        let mut writer =
            checkpoint::Writer::create(&*self.disk, path, *sequence, metadata, exemplars)?;
        let pieces = state.newest_ms.chunks(BLOCK_SERIES_MAX);
        let pieces = pieces.zip(state.newest_bits.chunks(BLOCK_SERIES_MAX));
        // The registry is let go between pieces, for commits with new series. It is packed anew by
        // nobody meanwhile: that is done in the turn of who seals, too.
        for ((newest_ms, newest_bits), start) in pieces.zip((0..).step_by(BLOCK_SERIES_MAX)) {
            let registry = self.registry.read();
            let newest = newest_ms.iter().zip(newest_bits);
            for (series, (newest_ms, newest_bits)) in (start..).zip(newest) {
                if registry.fingerprint(series) != 0 {
                    writer.push(&checkpoint::Entry {
                        series,
                        fingerprint: registry.fingerprint(series),
                        newest_ms: *newest_ms,
                        newest_bits: *newest_bits,
                        is_hollow: state.hollow.contains(series),
                        labels: registry.sets().list(registry.set(series)),
                    })?;
                }
            }
        }
        let sets = Arc::clone(self.registry.read().sets());
        writer.finish(&sets)
    }

    /// Forgets series that had no samples for long.
    fn forget_dead_series(&self) {
        let mut writer = self.lock_writer();
        let Some(head_max_ms) = writer.head_max_ms else { return };
        // Not by a time that the clock showed by mistake.
        let now_ms = self.clock.now_ms().saturating_add(self.options.future_ms_max);
        let least_ms = head_max_ms.min(now_ms).saturating_sub(FORGET_AFTER_MS);
        let version = self.version.load();
        let dead: Vec<SeriesRef> = {
            let directories: Vec<_> =
                version.logs.iter().map(|log| log.directory().read()).collect();
            let registry = self.registry.read();
            let (newest_ms, _) = writer.newest.parts();
            let old = (0..).zip(newest_ms).filter(|(_, newest_ms)| **newest_ms < least_ms);
            old.map(|(series, _)| series)
                .filter(|series| registry.fingerprint(*series) != 0)
                .filter(|series| !registry.retired().contains(*series))
                .filter(|series| !directories.iter().any(|own| own.has(*series)))
                .collect()
        };
        let (retired, freed) = self.registry.write().collect(&dead);
        for series in dead.iter().take(retired) {
            writer.newest.forget(*series);
        }
        for series in &freed {
            writer.groups.disown(*series);
        }
        self.metrics.series_removed.add(retired as f64);
        drop(writer);
        self.forget_unused_metadata();
    }
}

/// Files of a segment or checkpoint that could not be written are given up; the log file stays.
pub fn not_poisoning(err: io::Error) -> SealError {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SealError::DiskFull,
        _ => SealError::Io(err),
    }
}
