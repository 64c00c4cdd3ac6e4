//! The log files at a start. They are scanned while the checkpoint is read; what their frames tell
//! is applied afterwards, in order.

use std::sync::Arc;

use tracing::{error, info};

use super::rows::NewestRows;
use super::{Logs, Recovered, keep_for_people};
use crate::base::disk::{Disk, Map};
use crate::storage::head::batch::histogram_bits;
use crate::storage::head::judge::NO_SAMPLE;
use crate::storage::log::directory::Directory;
use crate::storage::log::file::{self, LogFile};
use crate::storage::log::format::{
    FILE_HEADER_BYTES, Frame, Record, UNKNOWN_VERSION, visit_records,
};
use crate::storage::log::scan::{Tail, add_to_directory, scan};
use crate::storage::manifest::{Edit, Manifest};
use crate::storage::metrics::Metrics;
use crate::storage::options::OpenError;
use crate::storage::registry::SeriesRef;
use crate::storage::select::QueryError;
use crate::storage::store::Folders;

/// A log file that the manifest names.
pub struct OpenedLog {
    id: u64,
    /// Where it was closed, if it was.
    closed_bytes: Option<u64>,
    /// With its bytes; or why it is left out.
    log: Result<(LogFile, Map), &'static str>,
}

/// What was found in it.
pub struct Scanned {
    frames: Vec<Frame>,
    tail: Tail,
    /// The first frame with records that do not fit together, and why.
    bad: Option<(usize, &'static str)>,
}

/// A log file, and what was found in it; or why it is left out.
pub type FoundLog = (OpenedLog, Result<Scanned, &'static str>);

/// Opens the log files that the manifest names.
pub fn open_all(
    disk: &Arc<dyn Disk>,
    folders: &Folders,
    manifest: &Manifest,
) -> Result<Vec<OpenedLog>, OpenError> {
    let mut all = Vec::new();
    for (&id, &closed_bytes) in &manifest.state().logs {
        let path = folders.logs.join(file::file_name(id));
        if !disk.try_exists(&path).map_err(OpenError::io(&path))? {
            return Err(OpenError::Missing(path));
        }
        let log = match LogFile::open(disk, &folders.logs, id, manifest.failure()) {
            Err(QueryError::Corrupt { reason, .. }) if reason != UNKNOWN_VERSION => Err(reason),
            opened => {
                let log = opened?;
                let bytes = log.map(log.capacity_bytes()).map_err(OpenError::io(&path))?;
                Ok((log, bytes))
            }
        };
        all.push(OpenedLog { id, closed_bytes, log });
    }
    Ok(all)
}

impl OpenedLog {
    /// Finds its frames, and notes where their samples are.
    pub fn scan(&self) -> Result<Scanned, &'static str> {
        let (log, bytes) = self.log.as_ref().map_err(|reason| *reason)?;
        let (frames, tail) = scan(bytes, self.id, self.closed_bytes);
        let (directory, bad) = directory_of(&frames, bytes, log.header().base_ms);
        *log.directory().write() = directory;
        Ok(Scanned { frames, tail, bad })
    }
}

/// Where the samples of the frames are, and which frame is bad.
fn directory_of(
    frames: &[Frame],
    bytes: &[u8],
    base_ms: i64,
) -> (Directory, Option<(usize, &'static str)>) {
    let mut directory = Directory::default();
    for (at, frame) in frames.iter().enumerate() {
        if let Err(reason) = add_to_directory(&mut directory, bytes, frame, base_ms, 0) {
            return (directory, Some((at, reason)));
        }
    }
    (directory, None)
}

impl Recovered {
    /// Applies what was found in the log files, and tells how the manifest must change.
    pub(super) fn read_logs(
        &mut self,
        disk: &dyn Disk,
        folders: &Folders,
        logs: Vec<FoundLog>,
        metrics: &Metrics,
    ) -> Result<Logs, OpenError> {
        let mut read = Logs { files: Vec::new(), edits: Vec::new(), whole: Vec::new() };
        for (OpenedLog { id, closed_bytes, log }, scanned) in logs {
            let path = folders.logs.join(file::file_name(id));
            let (log, bytes, scanned) = match (log, scanned) {
                (Ok((log, bytes)), Ok(scanned)) => (log, bytes, scanned),
                (Err(reason), _) | (_, Err(reason)) => {
                    error!(path = %path.display(), reason, "A log file is damaged and left out.");
                    metrics.wal_corruptions.inc();
                    keep_for_people(disk, folders, &path, &file::file_name(id))?;
                    read.edits.push(Edit::DropLog(id));
                    continue;
                }
            };
            let first_sequence = log.header().first_sequence;
            // What a damaged file before it had is not given again.
            self.sequence = self.sequence.max(first_sequence.saturating_sub(1));
            self.delete_before(first_sequence);
            let (end_bytes, tail) = self.apply_log(&log, &bytes, scanned)?;
            drop(bytes);
            if let Tail::Corrupt { offset_bytes, reason } = tail {
                error!(path = %path.display(), offset_bytes, reason, "A log file is damaged.");
                metrics.wal_corruptions.inc();
                keep_for_people(disk, folders, &path, &file::file_name(id))?;
            }
            if let Tail::Torn { offset_bytes } = tail {
                let path = path.display();
                info!(%path, offset_bytes, "A commit that was not finished is cut off.");
            }
            read.take(log, end_bytes, tail, closed_bytes)?;
        }
        Ok(read)
    }

    /// Applies the whole frames of a file; where they end and what comes after.
    fn apply_log(
        &mut self,
        log: &LogFile,
        bytes: &Map,
        scanned: Scanned,
    ) -> Result<(u64, Tail), OpenError> {
        let Scanned { frames, mut tail, bad } = scanned;
        let base_ms = log.header().base_ms;
        let (mut end_bytes, mut rows) = (FILE_HEADER_BYTES, NewestRows::default());
        for (at, frame) in frames.iter().enumerate() {
            let own = bad.filter(|bad| bad.0 == at).map_or(Ok(()), |bad| Err(bad.1));
            let applied = own.and_then(|()| self.apply_frame(bytes, frame, base_ms, &mut rows));
            if let Err(reason) = applied {
                // The checksum matches, so this is a mistake of ours or of a deliberate hand.
                tail = Tail::Corrupt { offset_bytes: end_bytes as u64, reason };
                *log.directory().write() = directory_of(&frames[..at], bytes, base_ms).0;
                break;
            }
            end_bytes = frame.end;
            log.note_durable(frame.durable_bytes);
            self.sequence = self.sequence.max(frame.sequence);
        }
        for (series, timestamp_ms, bits) in rows.samples() {
            if self.is_newest(series, timestamp_ms) {
                self.newest.set(series, timestamp_ms, bits);
            }
        }
        // Zeros in place of what the device did not give are neither damage nor the end of the file.
        bytes.check_read().map_err(OpenError::io(log.path()))?;
        Ok((end_bytes as u64, tail))
    }

    /// Definitions, metadata and newest samples of a frame that the checkpoint does not cover.
    fn apply_frame(
        &mut self,
        bytes: &[u8],
        frame: &Frame,
        base_ms: i64,
        rows: &mut NewestRows,
    ) -> Result<(), &'static str> {
        let is_new = frame.sequence > self.checkpoint_sequence;
        visit_records(bytes, frame, base_ms, &mut |record| {
            match record {
                Record::Members { group, series } => {
                    rows.add_members(group, &series, |series| self.newest.bits(series))?;
                }
                // A file begins without start timestamps, so none are carried on from the last one.
                Record::Starts { .. } => {}
                _ if !is_new => {}
                Record::Series { series, canonical } => {
                    let fingerprint = self.key.fingerprint(canonical);
                    if self.registry.fingerprint(series) != fingerprint {
                        self.registry.bind(series, fingerprint, canonical)?;
                        self.newest.grow(series as usize + 1);
                        self.newest.set(series, NO_SAMPLE, 0);
                    }
                }
                Record::Metadata { metric, metadata } => {
                    self.metadata.insert(metric, &metadata);
                }
                Record::Exemplar { canonical, exemplar } => {
                    self.keep_exemplar(canonical, exemplar)?;
                }
                Record::Row { group, row, .. } => rows.apply(group, &row)?,
                Record::Loose { series, timestamp_ms, bits, .. } => {
                    if self.is_newest(series, timestamp_ms) {
                        self.newest.set(series, timestamp_ms, bits);
                    }
                }
                Record::Histogram { series, timestamp_ms, bytes, .. } => {
                    if self.is_newest(series, timestamp_ms) {
                        let bits = histogram_bits(self.key, bytes);
                        self.newest.set_histogram(series, timestamp_ms, bits);
                    }
                }
            }
            Ok(())
        })
    }

    /// Whether a sample is the newest of its series; not when the definition of that is lost, which
    /// is noted.
    fn is_newest(&mut self, series: SeriesRef, timestamp_ms: i64) -> bool {
        if self.registry.fingerprint(series) == 0 {
            self.undefined.insert(series);
            return false;
        }
        self.newest.get_for(series, timestamp_ms).0 < timestamp_ms
    }
}

impl Logs {
    /// A file is part of the store, unless nothing is in it.
    fn take(
        &mut self,
        log: LogFile,
        end_bytes: u64,
        tail: Tail,
        closed_bytes: Option<u64>,
    ) -> Result<(), OpenError> {
        log.publish(end_bytes);
        if log.is_empty() {
            self.edits.push(Edit::DropLog(log.id()));
            return Ok(());
        }
        if closed_bytes != Some(end_bytes) {
            // What was read may have been in the page cache only, even after a failed sync.
            log.write_again(end_bytes).map_err(OpenError::io(log.path()))?;
            self.edits.push(Edit::CloseLog(log.id(), end_bytes));
        }
        let log = Arc::new(log);
        // What is behind damage stays for people to look at.
        if !matches!(tail, Tail::Corrupt { .. }) {
            self.whole.push((Arc::clone(&log), end_bytes));
        }
        self.files.push(log);
        Ok(())
    }
}
