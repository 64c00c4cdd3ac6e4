//! The manifest: which files make up the store. The only truth.
//!
//! A synced log of edits. Each edit is one frame, written and synced before the next, so only the
//! last can be torn; a torn edit never happened. A file that no edit names is garbage; a named
//! file that is missing is corruption. When the log of edits is long, its sum is written to a new
//! file that replaces the old one. Drawn in `docs/formats/manifest.md`.

mod loss;
mod tombstone;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::failure::Failure;
use super::fingerprint::HashKey;
use super::log::format::{Cursor, SEQUENCES_MAX, push_varint, push_zigzag};
use super::options::OpenError;
use crate::base::disk::{Disk, DiskFile};
pub use loss::{LossEntry, LostRun};
pub use tombstone::TombstoneEntry;

/// `NTXM` and the format's version, which may still change while it is 0.
const MAGIC: [u8; 8] = *b"NTXM\0\0\0\0";
/// Magic, key, checksum.
const HEADER_BYTES: usize = 8 + 16 + 4;
/// Length, checksum, number of the edit.
const EDIT_HEADER_BYTES: usize = 4 + 4 + 8;
/// Space is reserved in steps of this, so that an edit rarely meets a full disk.
const STEP_BYTES: u64 = 64 << 10;
/// A manifest longer than this and than twice its sum is written anew.
const REWRITE_BYTES: u64 = 1 << 20;
/// Its name in the data directory.
pub const FILE_NAME: &str = "manifest";

/// What the manifest tells of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Number of the file.
    pub id: u64,
    /// First commit in it.
    pub first_sequence: u64,
    /// Last commit in it.
    pub last_sequence: u64,
    /// How often it was merged, roughly: see [`super::compact`]. Of two segments with the same
    /// timestamp, the one of the higher level was accepted earlier.
    pub level: u8,
    /// Deletions up to this number were known when it was written: nothing of theirs is in it.
    pub tombstone: u64,
}

/// What the manifest tells of the registry checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// Number of the file.
    pub id: u64,
    /// The last deletion before it.
    pub tombstone: u64,
}

/// A step from one state of the store to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// There is a new log file.
    AddLog(u64),
    /// A log file gets no more commits; so many bytes of it count, and all of them are synced.
    CloseLog(u64, u64),
    /// A log file is not needed any more.
    DropLog(u64),
    /// There is a new segment.
    AddSegment(SegmentEntry),
    /// A segment is not needed any more.
    DropSegment(u64),
    /// There is a new registry checkpoint, which replaces the one before.
    Checkpoint(CheckpointEntry),
    /// Newest sample ever taken in, in milliseconds.
    NewestTime(i64),
    /// Samples were deleted.
    AddTombstone(Arc<TombstoneEntry>),
    /// No file has anything of a deletion any more.
    DropTombstone(u64),
    /// What is lost of a damaged segment is now this; no runs: nothing that matters any more.
    Loss(Arc<LossEntry>),
}

/// The sum of all edits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Log files and, when closed, the bytes that count.
    pub logs: BTreeMap<u64, Option<u64>>,
    /// Segments.
    pub segments: BTreeMap<u64, SegmentEntry>,
    /// The registry checkpoint.
    pub checkpoint: Option<CheckpointEntry>,
    /// Deletions that still hide something, or may.
    pub tombstones: BTreeMap<u64, Arc<TombstoneEntry>>,
    /// What was lost, by damaged segment.
    pub losses: BTreeMap<u64, Arc<LossEntry>>,
    /// Newest sample told by an edit.
    pub newest_ms: Option<i64>,
    /// Larger than every number that was ever named.
    pub next_id: u64,
}

impl State {
    fn apply(&mut self, edit: &Edit) -> Result<(), &'static str> {
        match *edit {
            Edit::AddLog(id) => {
                self.next_id = self.next_id.max(id + 1);
                self.logs.insert(id, None);
            }
            Edit::CloseLog(id, bytes) => {
                *self.logs.get_mut(&id).ok_or("unknown log file is closed")? = Some(bytes);
            }
            Edit::DropLog(id) => {
                self.logs.remove(&id).ok_or("unknown log file is dropped")?;
            }
            Edit::AddSegment(entry) => {
                self.next_id = self.next_id.max(entry.id + 1);
                self.segments.insert(entry.id, entry);
            }
            Edit::DropSegment(id) => {
                self.segments.remove(&id).ok_or("unknown segment is dropped")?;
            }
            Edit::Checkpoint(entry) => {
                self.next_id = self.next_id.max(entry.id + 1);
                self.checkpoint = Some(entry);
            }
            Edit::NewestTime(newest_ms) => self.newest_ms = Some(newest_ms),
            Edit::AddTombstone(ref entry) => {
                self.next_id = self.next_id.max(entry.id + 1);
                self.tombstones.insert(entry.id, Arc::clone(entry));
            }
            Edit::DropTombstone(id) => {
                self.tombstones.remove(&id).ok_or("unknown deletion is dropped")?;
            }
            Edit::Loss(ref entry) if entry.runs.is_empty() => {
                self.losses.remove(&entry.id).ok_or("unknown loss is dropped")?;
            }
            Edit::Loss(ref entry) => {
                self.losses.insert(entry.id, Arc::clone(entry));
            }
        }
        Ok(())
    }

    /// Edits that lead from nothing to this state.
    fn edits(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        for (id, closed) in &self.logs {
            edits.push(Edit::AddLog(*id));
            edits.extend(closed.map(|bytes| Edit::CloseLog(*id, bytes)));
        }
        edits.extend(self.segments.values().copied().map(Edit::AddSegment));
        edits.extend(self.checkpoint.map(Edit::Checkpoint));
        edits.extend(self.newest_ms.map(Edit::NewestTime));
        edits.extend(self.tombstones.values().cloned().map(Edit::AddTombstone));
        edits.extend(self.losses.values().cloned().map(Edit::Loss));
        edits
    }

    /// The state after these edits of nothing.
    pub fn of(edits: &[Edit]) -> Result<Self, &'static str> {
        let mut state = Self::default();
        edits.iter().try_for_each(|edit| state.apply(edit))?;
        Ok(state)
    }
}

/// Writes the manifest of another data directory, durably.
pub fn write_new(disk: &dyn Disk, folder: &Path, key: HashKey, state: &State) -> io::Result<()> {
    disk.replace(&folder.join(FILE_NAME), &sum(key, state).0)
}

/// A whole manifest, and how many edits are in it: an edit is never empty.
fn sum(key: HashKey, state: &State) -> (Vec<u8>, u64) {
    let (mut bytes, edits) = (header(key).to_vec(), state.edits());
    if edits.is_empty() {
        return (bytes, 0);
    }
    bytes.extend_from_slice(&encode(0, &edits));
    (bytes, 1)
}

/// What a manifest tells, without changing anything.
pub fn read(disk: &dyn Disk, folder: &Path) -> Result<State, OpenError> {
    let path = folder.join(FILE_NAME);
    let bytes = disk.read(&path).map_err(OpenError::io(&path))?;
    let corrupt =
        |offset_bytes: u64, reason| OpenError::Corrupt { path: path.clone(), offset_bytes, reason };
    read_header(&bytes).map_err(|reason| corrupt(0, reason))?;
    let edits = read_edits(&bytes).map_err(|(at, reason)| corrupt(at as u64, reason))?;
    Ok(edits.state)
}

/// The open manifest.
pub struct Manifest {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    key: HashKey,
    state: State,
    edit_count: u64,
    end_bytes: u64,
    allocated_bytes: u64,
    /// It is written anew when it is longer than this.
    rewrite_bytes: u64,
    failure: Failure,
}

impl Manifest {
    /// Reads the manifest of a data directory.
    pub fn open(disk: &Arc<dyn Disk>, folder: &Path, failure: &Failure) -> Result<Self, OpenError> {
        let path = folder.join(FILE_NAME);
        let bytes = disk.read(&path).map_err(OpenError::io(&path))?;
        let corrupt = |offset_bytes: u64, reason| OpenError::Corrupt {
            path: path.clone(),
            offset_bytes,
            reason,
        };
        let key = read_header(&bytes).map_err(|reason| corrupt(0, reason))?;
        let Edits { state, count: edit_count, last, end } =
            read_edits(&bytes).map_err(|(at, reason)| corrupt(at as u64, reason))?;
        let file = disk.open(&path).map_err(OpenError::io(&path))?;
        let manifest = Self {
            disk: Arc::clone(disk),
            path: path.clone(),
            file,
            key,
            state,
            edit_count,
            end_bytes: end as u64,
            allocated_bytes: bytes.len() as u64,
            rewrite_bytes: REWRITE_BYTES,
            failure: failure.clone(),
        };
        manifest.settle_tail(&bytes, last).map_err(OpenError::io(&path))?;
        Ok(manifest)
    }

    /// Overwrites a torn edit, so that it can never be taken for damage later, and writes the last
    /// whole one again: if the sync after it failed, it is here only because the machine was not
    /// restarted, and another sync would not save it.
    fn settle_tail(&self, bytes: &[u8], last: usize) -> io::Result<()> {
        let mut tail = bytes.get(last..).unwrap_or(&[]).to_vec();
        if tail.is_empty() {
            return Ok(());
        }
        tail.iter_mut().skip(self.end_bytes as usize - last).for_each(|byte| *byte = 0);
        self.file.write_at(&tail, last as u64)?;
        self.file.sync()
    }

    /// Key of the fingerprints.
    pub fn key(&self) -> HashKey {
        self.key
    }

    /// The sum of the edits.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the store's parts share.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Makes edits durable, all or none. After an error other than a full disk it is not known
    /// which: the store has failed then, and nothing is written any more, here or elsewhere.
    pub fn edit(&mut self, edits: &[Edit]) -> io::Result<()> {
        self.failure.check()?;
        let edited = self.try_edit(edits);
        if let Err(err) = &edited
            && !is_full(err)
        {
            self.failure.set("manifest could not be written", err);
        }
        edited
    }

    fn try_edit(&mut self, edits: &[Edit]) -> io::Result<()> {
        let mut next = self.state.clone();
        for edit in edits {
            next.apply(edit).map_err(io::Error::other)?;
        }
        let frame = encode(self.edit_count, edits);
        let end_bytes = self.end_bytes + frame.len() as u64;
        if end_bytes > self.allocated_bytes {
            let wanted_bytes = end_bytes + STEP_BYTES;
            self.allocated_bytes = match self.file.allocate(wanted_bytes) {
                Err(err) if is_full(&err) => {
                    self.file.allocate(end_bytes)?;
                    end_bytes
                }
                allocated => allocated.map(|()| wanted_bytes)?,
            };
        }
        self.file.write_at(&frame, self.end_bytes).map_err(not_full)?;
        self.file.sync().map_err(not_full)?;
        self.state = next;
        self.edit_count += 1;
        self.end_bytes = end_bytes;
        if end_bytes > self.rewrite_bytes {
            // The edit is durable already; a failure here may stop the store, not undo the edit.
            self.rewrite().map_err(not_full)?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let (bytes, edit_count) = sum(self.key, &self.state);
        if 2 * bytes.len() as u64 > self.end_bytes {
            return Ok(());
        }
        // Until it is renamed nothing has changed, and the long one will do for a while.
        let new = match self.disk.write_beside(&self.path, &bytes) {
            Ok(new) => new,
            Err(err) => {
                warn!(error = %err, "The manifest is not shortened; it will be tried again.");
                self.rewrite_bytes = self.end_bytes + STEP_BYTES;
                return Ok(());
            }
        };
        self.disk.rename(&new, &self.path)?;
        self.disk.sync_dir(self.path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        self.rewrite_bytes = REWRITE_BYTES;
        self.file = self.disk.open(&self.path)?;
        self.end_bytes = bytes.len() as u64;
        self.allocated_bytes = self.end_bytes;
        self.edit_count = edit_count;
        Ok(())
    }
}

/// Whether nothing was written for want of space. Only reserving space fails so.
pub fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A write that was meant to have room must not look like one that can be tried again.
fn not_full(err: io::Error) -> io::Error {
    if is_full(&err) { io::Error::other(err) } else { err }
}

fn header(key: HashKey) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..16].copy_from_slice(&key.0.to_le_bytes());
    out[16..24].copy_from_slice(&key.1.to_le_bytes());
    let crc = crc32c::crc32c(&out[..24]);
    out[24..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn read_header(bytes: &[u8]) -> Result<HashKey, &'static str> {
    let damaged = "header is damaged";
    let content = bytes.get(..24).ok_or(damaged)?;
    let mut cursor = Cursor::new(bytes, 0, HEADER_BYTES).ok_or(damaged)?;
    let magic = cursor.take(8).ok_or(damaged)?;
    let key = HashKey(cursor.u64().ok_or(damaged)?, cursor.u64().ok_or(damaged)?);
    if cursor.u32() != Some(crc32c::crc32c(content)) {
        return Err(damaged);
    }
    if magic != MAGIC {
        return Err("not a manifest, or of an unknown version");
    }
    Ok(key)
}

fn encode(number: u64, edits: &[Edit]) -> Vec<u8> {
    let mut out = vec![0; EDIT_HEADER_BYTES];
    for edit in edits {
        push_edit(&mut out, edit);
    }
    let body = (out.len() - EDIT_HEADER_BYTES) as u32;
    out[0..4].copy_from_slice(&body.to_le_bytes());
    out[8..16].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[8..]), &body.to_le_bytes());
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn push_edit(out: &mut Vec<u8>, edit: &Edit) {
    let (tag, fields) = match *edit {
        Edit::AddLog(id) => (1, [id, 0, 0, 0, 0]),
        Edit::CloseLog(id, bytes) => (2, [id, bytes, 0, 0, 0]),
        Edit::DropLog(id) => (3, [id, 0, 0, 0, 0]),
        Edit::AddSegment(entry) => {
            let SegmentEntry { id, first_sequence, last_sequence, level, tombstone } = entry;
            (4, [id, first_sequence, last_sequence, u64::from(level), tombstone])
        }
        Edit::DropSegment(id) => (5, [id, 0, 0, 0, 0]),
        Edit::Checkpoint(CheckpointEntry { id, tombstone }) => (6, [id, tombstone, 0, 0, 0]),
        Edit::NewestTime(newest_ms) => {
            out.push(7);
            return push_zigzag(out, newest_ms);
        }
        Edit::AddTombstone(ref entry) => {
            out.push(8);
            return entry.push(out);
        }
        Edit::DropTombstone(id) => (9, [id, 0, 0, 0, 0]),
        Edit::Loss(ref entry) => {
            out.push(10);
            return entry.push(out);
        }
    };
    out.push(tag);
    fields[..field_count(tag)].iter().for_each(|field| push_varint(out, *field));
}

fn field_count(tag: u8) -> usize {
    match tag {
        2 | 6 => 2,
        4 => 5,
        _ => 1,
    }
}

/// The edits of one frame and where it ends.
fn decode(bytes: &[u8], at: usize, number: u64) -> Result<(Vec<Edit>, usize), &'static str> {
    let damaged = "edit is damaged";
    let body_start = at.checked_add(EDIT_HEADER_BYTES).ok_or(damaged)?;
    let mut cursor = Cursor::new(bytes, at, body_start).ok_or(damaged)?;
    let body = cursor.u32().ok_or(damaged)?;
    let crc = cursor.u32().ok_or(damaged)?;
    let own_number = cursor.u64().ok_or(damaged)?;
    let end = body_start.checked_add(body as usize).ok_or(damaged)?;
    let covered = bytes.get(at + 8..end).ok_or(damaged)?;
    let found = crc32c::crc32c_append(crc32c::crc32c(covered), &body.to_le_bytes());
    if body == 0 || found != crc {
        return Err(damaged);
    }
    if own_number != number {
        return Err("edit is out of order");
    }
    let mut cursor = Cursor::new(bytes, body_start, end).ok_or(damaged)?;
    let mut edits = Vec::new();
    while !cursor.is_empty() {
        edits.push(read_edit(&mut cursor).ok_or("unknown edit")?);
    }
    Ok((edits, end))
}

fn read_edit(cursor: &mut Cursor<'_>) -> Option<Edit> {
    let tag = cursor.u8()?;
    match tag {
        7 => return Some(Edit::NewestTime(cursor.zigzag()?)),
        8 => {
            let entry = TombstoneEntry::read(cursor)?;
            if SEQUENCES_MAX <= entry.id.max(entry.sequence) {
                return None;
            }
            return Some(Edit::AddTombstone(Arc::new(entry)));
        }
        10 => {
            let entry = LossEntry::read(cursor).filter(|own| own.id < SEQUENCES_MAX)?;
            return Some(Edit::Loss(Arc::new(entry)));
        }
        _ => {}
    }
    let mut fields = [0; 5];
    for field in &mut fields[..field_count(tag)] {
        *field = cursor.varint()?;
    }
    let [id, second, last_sequence, level, tombstone] = fields;
    if SEQUENCES_MAX <= id.max(last_sequence) {
        return None;
    }
    Some(match tag {
        1 => Edit::AddLog(id),
        2 => Edit::CloseLog(id, second),
        3 => Edit::DropLog(id),
        4 => {
            let (first_sequence, level) = (second, u8::try_from(level).ok()?);
            let entry = SegmentEntry { id, first_sequence, last_sequence, level, tombstone };
            Edit::AddSegment(entry)
        }
        5 => Edit::DropSegment(id),
        6 => Edit::Checkpoint(CheckpointEntry { id, tombstone: second }),
        9 => Edit::DropTombstone(id),
        _ => return None,
    })
}

/// What was read.
struct Edits {
    /// The sum.
    state: State,
    count: u64,
    /// Where the last one begins.
    last: usize,
    /// Where it ends.
    end: usize,
}

fn read_edits(bytes: &[u8]) -> Result<Edits, (usize, &'static str)> {
    let mut read =
        Edits { state: State::default(), count: 0, last: HEADER_BYTES, end: HEADER_BYTES };
    while read.end < bytes.len() {
        let at = read.end;
        match decode(bytes, at, read.count) {
            Ok((edits, end)) => {
                for edit in edits {
                    read.state.apply(&edit).map_err(|reason| (at, reason))?;
                }
                (read.count, read.last, read.end) = (read.count + 1, at, end);
            }
            // Only the newest edit can be torn: a later one shows that this one was whole.
            Err(reason) if has_later_edit(bytes, at, read.count) => return Err((at, reason)),
            Err(_) => break,
        }
    }
    Ok(read)
}

fn has_later_edit(bytes: &[u8], at: usize, number: u64) -> bool {
    // The number stands 8 bytes after the beginning of an edit.
    (at + 1..bytes.len()).any(|start| {
        let own = bytes.get(start + 8..).and_then(|rest| rest.first_chunk::<8>());
        own.is_some_and(|own| {
            let own = u64::from_le_bytes(*own);
            own > number && decode(bytes, start, own).is_ok()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::SimDisk;
    use crate::model::matcher::Matcher;
    use crate::model::sample::TimeRange;

    fn disk(seed: u64) -> (SimDisk, Arc<dyn Disk>) {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/d")).unwrap();
        write_new(&disk, Path::new("/d"), HashKey(3, 4), &State::default()).unwrap();
        (disk.clone(), Arc::new(disk))
    }

    fn open(disk: &Arc<dyn Disk>) -> Result<Manifest, OpenError> {
        Manifest::open(disk, Path::new("/d"), &Failure::default())
    }

    fn segment(id: u64) -> Edit {
        Edit::AddSegment(SegmentEntry {
            id,
            first_sequence: id * 10,
            last_sequence: id * 10 + 9,
            level: (id % 4) as u8,
            tombstone: id % 3,
        })
    }

    fn tombstone(id: u64) -> Edit {
        let range = TimeRange { min_ms: 1, max_ms: 2 };
        let sets = vec![vec![Matcher::equal("a", "b")]];
        Edit::AddTombstone(Arc::new(TombstoneEntry { id, sequence: 3, range, sets }))
    }

    fn loss(id: u64, count: i64) -> Edit {
        let labels = crate::model::labels::Labels::from_pairs([("a", "b")]);
        let range = |at| TimeRange { min_ms: at, max_ms: at };
        let run = |at| LostRun { labels: labels.clone(), range: range(at), offset_bytes: 9 };
        Edit::Loss(Arc::new(LossEntry { id, runs: (0..count).map(run).collect() }))
    }

    #[test]
    fn edits_are_there_after_every_crash_and_the_key_stays() {
        for seed in 0..50 {
            let (sim, disk) = disk(seed);
            let mut manifest = open(&disk).unwrap();
            manifest.edit(&[Edit::AddLog(1)]).unwrap();
            manifest.edit(&[Edit::CloseLog(1, 99), Edit::AddLog(2)]).unwrap();
            let checkpoint = Edit::Checkpoint(CheckpointEntry { id: 4, tombstone: 2 });
            let edits = [segment(3), Edit::DropLog(1), checkpoint, Edit::NewestTime(-5)];
            manifest.edit(&edits).unwrap();
            manifest.edit(&[tombstone(5), tombstone(6), loss(1, 2), loss(2, 1)]).unwrap();
            manifest.edit(&[Edit::DropTombstone(5), loss(1, 1), loss(2, 0)]).unwrap();
            let state = manifest.state().clone();
            sim.fail_after(Some(seed % 3));
            let failed = manifest.edit(&[segment(9)]).is_err();
            drop(manifest);
            sim.crash();
            let found = open(&disk).unwrap();
            assert_eq!(found.key(), HashKey(3, 4));
            if !failed {
                assert!(found.state().segments.contains_key(&9), "seed {seed}");
            }
            let mut without = found.state().clone();
            without.segments.remove(&9);
            without.next_id = state.next_id;
            assert_eq!(without, state, "seed {seed}");
        }
    }

    /// Of a second edit after one that failed nobody could tell whether it replaced the first, or
    /// was written to a file that has no name any more.
    #[test]
    fn nothing_is_edited_after_an_edit_that_failed() {
        for operation in 0..2 {
            let (sim, disk) = disk(operation);
            let mut manifest = open(&disk).unwrap();
            manifest.edit(&[Edit::AddLog(1)]).unwrap();
            sim.fail_once_after(operation);
            assert!(manifest.edit(&[Edit::AddLog(2)]).is_err());
            let again = manifest.edit(&[Edit::AddLog(3)]);
            assert!(again.is_err_and(|err| !is_full(&err)), "operation {operation}");
            assert!(manifest.failure().is_set());
            drop(manifest);
            sim.crash();
            assert!(!open(&disk).unwrap().state().logs.contains_key(&3));
        }
    }

    #[test]
    fn damage_before_the_last_edit_is_reported() {
        let (sim, disk) = disk(1);
        let mut manifest = open(&disk).unwrap();
        for id in 1..5 {
            manifest.edit(&[Edit::AddLog(id)]).unwrap();
        }
        let end = manifest.end_bytes as usize;
        drop(manifest);
        let path = Path::new("/d").join(FILE_NAME);
        let bytes = disk.read(&path).unwrap();
        for at in 0..end {
            sim.flip_bit(&path, at, 3);
            let opened = open(&disk);
            let last_edit = at >= end - EDIT_HEADER_BYTES - 2;
            assert_eq!(opened.is_ok(), last_edit, "byte {at}");
            disk.open(&path).unwrap().write_at(&bytes, 0).unwrap();
        }
    }

    #[test]
    fn an_edit_is_durable_although_the_manifest_cannot_be_written_anew() {
        // The edit itself is a write and a sync; what comes after is the new file: it is made,
        // written, synced and renamed, and its folder is synced.
        for operation in 2..7 {
            let (sim, disk) = disk(operation);
            let mut manifest = open(&disk).unwrap();
            let mut id = 1;
            while manifest.end_bytes + 4_000 < REWRITE_BYTES {
                let edits = (id..id + 1_000).flat_map(|id| [segment(id), Edit::DropSegment(id)]);
                manifest.edit(&edits.take(200).collect::<Vec<_>>()).unwrap();
                id += 1_000;
            }
            manifest.allocated_bytes = manifest.end_bytes + 10_000;
            sim.fail_once_after(operation);
            let edits: Vec<_> = (1..400).map(|own| segment(1_000_000 + own)).collect();
            let edited = manifest.edit(&edits);
            if operation < 5 {
                // Nothing has changed: it goes on, and nothing is left of the new file.
                edited.unwrap();
                assert_eq!(disk.list(Path::new("/d")).unwrap(), [FILE_NAME]);
                manifest.edit(&[segment(7)]).unwrap();
                assert!(REWRITE_BYTES < manifest.end_bytes, "not at once again");
            } else {
                assert!(!is_full(&edited.unwrap_err()), "nobody tries again");
                assert!(manifest.edit(&[segment(7)]).is_err());
            }
            drop(manifest);
            sim.crash();
            let found = open(&disk).unwrap();
            let expected = if operation < 5 { 400 } else { 399 };
            assert_eq!(found.state().segments.len(), expected, "operation {operation}");
        }
    }

    #[test]
    fn a_long_manifest_is_written_anew() {
        let (_, disk) = disk(1);
        let mut manifest = open(&disk).unwrap();
        for id in 1..60_000 {
            manifest.edit(&[segment(id)]).unwrap();
            manifest.edit(&[Edit::DropSegment(id)]).unwrap();
        }
        assert!(manifest.edit_count < 119_998 && manifest.end_bytes < REWRITE_BYTES);
        let state = manifest.state().clone();
        drop(manifest);
        let found = open(&disk).unwrap();
        assert_eq!(found.state().segments, state.segments);
    }
}
