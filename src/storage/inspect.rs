//! Looking at a data directory from outside: nothing is locked, changed or repaired.
//!
//! What is seen of a directory that a server works on may be a moment old; a file that is gone
//! meanwhile is told as missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Failure;
use super::log::file::{self, LogFile};
use super::log::scan::{Tail, scan};
use super::manifest::{self, State};
use super::options::OpenError;
use super::query::merge::{Parts, Sharing};
use super::query::segment_reader::TimestampColumns;
use super::registry::{checkpoint, restore};
use super::segment::{Segment, SegmentInfo};
use super::select::QueryError;
use super::store::{Folders, segment_file_name};
use crate::base::disk::Disk;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;

/// A segment as the manifest and its own tables tell of it.
#[derive(Clone, Debug)]
pub struct SegmentSummary {
    /// Its number.
    pub id: u64,
    /// How often it was merged, roughly.
    pub level: u8,
    /// What it holds.
    pub info: SegmentInfo,
}

/// What a check of all files found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Files that were read from end to end.
    pub file_count: u64,
    /// Their length.
    pub bytes: u64,
    /// Samples that were decoded from segments.
    pub sample_count: u64,
    /// What is wrong. Empty: nothing.
    pub problems: Vec<String>,
    /// What is odd but does no harm: files without a name in the manifest, commits that a power
    /// cut left unfinished.
    pub notes: Vec<String>,
}

/// The segments of a data directory, oldest first.
pub fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<SegmentSummary>, OpenError> {
    let (folders, state) = read_state(disk, folder)?;
    let mut all = Vec::new();
    for entry in state.segments.values() {
        let segment = open_segment(disk, &folders, entry.id)?;
        all.push(SegmentSummary { id: entry.id, level: entry.level, info: *segment.info() });
    }
    all.sort_by_key(|own| (own.info.min_ms, own.info.max_ms, own.id));
    Ok(all)
}

/// The labels of all series of a segment that fulfil the matchers.
pub fn series(
    disk: &dyn Disk,
    folder: &Path,
    id: u64,
    matchers: &[Matcher],
) -> Result<Vec<Labels>, OpenError> {
    let segment = open_segment(disk, &Folders::new(folder), id)?;
    let labels = |ordinal| segment.labels(ordinal).map_err(OpenError::from);
    segment.select(matchers)?.into_iter().map(labels).collect()
}

/// Reads every file that the manifest names, and checks all of it.
pub fn verify(disk: &Arc<dyn Disk>, folder: &Path) -> Result<Verification, OpenError> {
    let (folders, state) = read_state(&**disk, folder)?;
    let mut found = Verification::default();
    found.add_file(&**disk, &folder.join(manifest::FILE_NAME));
    for id in state.segments.keys() {
        let path = folders.segments.join(segment_file_name(*id));
        let checked = Segment::open(&**disk, &path).and_then(|segment| check_segment(&segment));
        match checked {
            Ok(sample_count) => found.sample_count += sample_count,
            Err(err) => found.problems.push(told(&path, &err)),
        }
        found.add_file(&**disk, &path);
    }
    for (id, closed_bytes) in &state.logs {
        let path = folders.logs.join(file::file_name(*id));
        if let Err(err) = check_log(disk, &folders.logs, *id, *closed_bytes, &mut found) {
            found.problems.push(told(&path, &err));
        }
        found.add_file(&**disk, &path);
    }
    if let Some(entry) = state.checkpoint {
        let path = folders.registry.join(checkpoint::file_name(entry.id));
        let bytes = disk.read(&path).map_err(QueryError::Io);
        let read = bytes.and_then(|bytes| restore::check(&path, &bytes));
        if let Err(err) = read {
            found.problems.push(told(&path, &err));
        }
        found.add_file(&**disk, &path);
    }
    for own in state.losses.values() {
        let path = folders.quarantine.join(segment_file_name(own.id));
        let (path, runs) = (path.display(), own.runs.len());
        found.problems.push(format!("{path}: samples of {runs} chunks were damaged and are lost"));
    }
    found.note_strangers(&**disk, &folders, &state);
    Ok(found)
}

fn read_state(disk: &dyn Disk, folder: &Path) -> Result<(Folders, State), OpenError> {
    Ok((Folders::new(folder), manifest::read(disk, folder)?))
}

fn open_segment(disk: &dyn Disk, folders: &Folders, id: u64) -> Result<Segment, OpenError> {
    let path = folders.segments.join(segment_file_name(id));
    if !disk.exists(&path) {
        return Err(OpenError::Missing(path));
    }
    Ok(Segment::open(disk, &path)?)
}

/// An error, with the file when it does not say that itself.
fn told(path: &Path, err: &QueryError) -> String {
    match err {
        QueryError::Io(err) => format!("{}: {err}", path.display()),
        QueryError::Corrupt { .. } => err.to_string(),
    }
}

/// Every page, and every column decoded; how many samples.
fn check_segment(segment: &Segment) -> Result<u64, QueryError> {
    segment.check_pages()?;
    let columns = TimestampColumns::default();
    let (mut sharing, mut count) = (Sharing::default(), 0);
    for ordinal in 0..segment.series_count() {
        segment.labels(ordinal)?;
        segment.fingerprint(ordinal)?;
        let mut parts = Parts::default();
        columns.read(0, segment, ordinal, TimeRange::ALL, &mut parts)?;
        let runs = parts.finish(&mut sharing).runs;
        count += runs.iter().map(|run| run.timestamps_ms.len() as u64).sum::<u64>();
    }
    segment.check_whole()?;
    Ok(count)
}

fn check_log(
    disk: &Arc<dyn Disk>,
    folder: &Path,
    id: u64,
    closed_bytes: Option<u64>,
    found: &mut Verification,
) -> Result<(), QueryError> {
    let log = LogFile::open(disk, folder, id, &Failure::default())?;
    let bytes = log.map(log.capacity_bytes())?;
    let (_, tail) = scan(&bytes, id, closed_bytes);
    let path = log.path();
    log.check_whole(&bytes)?;
    match tail {
        Tail::Clean => Ok(()),
        Tail::Torn { offset_bytes } => {
            let path = path.display();
            found.notes.push(format!("{path}: an unfinished commit at byte {offset_bytes}"));
            Ok(())
        }
        Tail::Corrupt { offset_bytes, reason } => {
            Err(QueryError::Corrupt { path: path.to_owned(), offset_bytes, reason })
        }
    }
}

impl Verification {
    fn add_file(&mut self, disk: &dyn Disk, path: &Path) {
        if let Ok(bytes) = disk.len(path) {
            self.file_count += 1;
            self.bytes += bytes;
        }
    }

    fn note_strangers(&mut self, disk: &dyn Disk, folders: &Folders, state: &State) {
        let logs = state.logs.keys().map(|id| folders.logs.join(file::file_name(*id)));
        let segments =
            state.segments.keys().map(|id| folders.segments.join(segment_file_name(*id)));
        let checkpoints = state.checkpoint.iter();
        let checkpoints =
            checkpoints.map(|own| folders.registry.join(checkpoint::file_name(own.id)));
        let named: BTreeSet<PathBuf> = logs.chain(segments).chain(checkpoints).collect();
        for folder in [&folders.logs, &folders.segments, &folders.registry] {
            for name in disk.list(folder).unwrap_or_default() {
                let path = folder.join(name);
                if !named.contains(&path) {
                    let path = path.display();
                    self.notes.push(format!("{path}: the manifest does not name this file"));
                }
            }
        }
        for name in disk.list(&folders.quarantine).unwrap_or_default() {
            let path = folders.quarantine.join(name);
            self.notes.push(format!("{}: damaged and left out", path.display()));
        }
    }
}
