//! Snapshots: a data directory of its own under `snapshots/`, made of hard links.
//!
//! Segments never change, so a second name for each of them, a checkpoint with metadata and
//! exemplars, and a manifest that names these are all of it. What the head has is sealed first. The
//! folder appears file by file, the manifest last: an unfinished one does not open. To restore, the
//! store is opened with the folder as its path.

use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::manifest::{self, CheckpointEntry, Edit, State};
use super::options::SealError;
use super::registry::checkpoint;
use super::registry::sets::Sets;
use super::seal::not_poisoning;
use super::store::{Folders, Store, segment_file_name};
use crate::model::metadata::Metadata;

/// Where snapshots are, within the data directory.
pub const FOLDER: &str = "snapshots";
/// Merging removes files under other names while they are linked; then it is tried again.
const ATTEMPTS_MAX: usize = 10;

impl Store {
    /// Makes a snapshot of everything committed so far, or only of what is in segments already.
    /// Its name; the folder is durable then. Blocks.
    pub fn make_snapshot(&self, with_head: bool) -> Result<String, SealError> {
        if with_head {
            self.close_log()?;
            self.seal_closed()?;
        }
        let name = self.new_snapshot_name()?;
        let folder = self.options.path.join(FOLDER).join(&name);
        for _ in 1..ATTEMPTS_MAX {
            match self.write_snapshot(&folder) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                written => return self.finish_snapshot(&folder, written).map(|()| name),
            }
            let _ = self.disk.remove_dir_all(&folder);
        }
        self.finish_snapshot(&folder, self.write_snapshot(&folder)).map(|()| name)
    }

    /// A name that no snapshot has. After a crash numbers are given again, and within the same
    /// second they would make the same name.
    fn new_snapshot_name(&self) -> Result<String, SealError> {
        let now = Timestamp::from_millisecond(self.clock.now_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
        let moment = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        loop {
            // Two within a second have different names.
            let own = format!("{moment} {}", self.new_id());
            let unique = self.key.fingerprint(own.as_bytes()) as u64;
            let name = format!("{moment}-{unique:016x}");
            let folder = self.options.path.join(FOLDER).join(&name);
            if !self.disk.try_exists(&folder).map_err(not_poisoning)? {
                return Ok(name);
            }
        }
    }

    fn finish_snapshot(&self, folder: &Path, written: io::Result<()>) -> Result<(), SealError> {
        written.map_err(|err| {
            let _ = self.disk.remove_dir_all(folder);
            not_poisoning(err)
        })
    }

    fn write_snapshot(&self, folder: &Path) -> io::Result<()> {
        let folders = Folders::new(folder);
        for own in folders.all() {
            self.disk.create_dir_all(own)?;
        }
        // Together: what the one names, the other has open.
        let (version, state) = {
            let manifest = self.lock_manifest();
            (self.version.load_full(), manifest.state().clone())
        };
        let mut edits = Vec::new();
        for own in &version.segments {
            let name = segment_file_name(own.entry.id);
            self.disk.link(own.segment.path(), &folders.segments.join(name))?;
            edits.push(Edit::AddSegment(own.entry));
        }
        self.disk.sync_dir(&folders.segments)?;
        let entry = CheckpointEntry { id: self.new_id(), tombstone: version.tombstone() };
        let path = folders.registry.join(checkpoint::file_name(entry.id));
        // What is committed to the copy is younger than what was deleted here.
        let deletions = state.tombstones.values().map(|own| own.sequence);
        let segments = version.segments.iter().map(|own| own.entry.last_sequence);
        let sequence = segments.chain(deletions).max();
        let metadata: Vec<(String, Metadata)> = {
            let known = self.metadata.read();
            known.iter().map(|(metric, own)| (metric.clone(), own.clone())).collect()
        };
        let (sequence, exemplars) = (sequence.unwrap_or(0), self.exemplars.read().all());
        checkpoint::Writer::create(&*self.disk, &path, sequence, &metadata, &exemplars)?
            .finish(&Sets::default())?;
        edits.push(Edit::Checkpoint(entry));
        edits.extend(state.tombstones.into_values().map(Edit::AddTombstone));
        edits.extend(state.losses.into_values().map(Edit::Loss));
        let newest = version.segments.iter().map(|own| own.segment.time_range().max_ms).max();
        edits.extend(newest.map(Edit::NewestTime));
        let state = State::of(&edits).map_err(io::Error::other)?;
        manifest::write_new(&*self.disk, folder, self.key, &state)?;
        for parent in [Some(folder), folder.parent(), Some(self.options.path.as_path())] {
            self.disk.sync_dir(parent.ok_or(io::ErrorKind::InvalidInput)?)?;
        }
        Ok(())
    }
}
