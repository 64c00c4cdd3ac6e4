//! The series of the checkpoint at a start.

use std::io;
use std::path::{Path, PathBuf};

use tracing::error;

use super::{Recovered, keep_for_people};
use crate::base::disk::{Disk, Map};
use crate::storage::manifest::State;
use crate::storage::metrics::Metrics;
use crate::storage::options::OpenError;
use crate::storage::registry::checkpoint::{self, File};
use crate::storage::select::QueryError;
use crate::storage::store::Folders;

/// A checkpoint in memory.
pub struct Mapped {
    name: String,
    path: PathBuf,
    bytes: Map,
}

impl Mapped {
    /// The one that the manifest names, if it does.
    pub fn open(
        disk: &dyn Disk,
        folders: &Folders,
        state: &State,
    ) -> Result<Option<Self>, OpenError> {
        let Some(entry) = state.checkpoint else { return Ok(None) };
        let name = checkpoint::file_name(entry.id);
        let path = folders.registry.join(&name);
        let bytes = disk.len(&path).map_err(|err| missing(&path, err))?;
        let bytes = disk.map(&path, bytes).map_err(OpenError::io(&path))?;
        Ok(Some(Self { name, path, bytes }))
    }

    /// What is in it.
    pub fn file(&self) -> Result<File<'_>, QueryError> {
        File::open(&self.path, &self.bytes)
    }

    /// Keeps a damaged one for people to look at.
    pub fn set_aside(
        &self,
        disk: &dyn Disk,
        folders: &Folders,
        err: QueryError,
        metrics: &Metrics,
    ) -> Result<(), OpenError> {
        let QueryError::Corrupt { offset_bytes, reason, .. } = err else { return Err(err.into()) };
        // What the device does not give is not damage.
        let bytes = disk.read(&self.path).map_err(OpenError::io(&self.path))?;
        if checkpoint::is_of_other_version(&bytes) {
            return Err(err.into());
        }
        let path = self.path.display();
        error!(%path, offset_bytes, reason, "The checkpoint of the registry is damaged.");
        metrics.wal_corruptions.inc();
        keep_for_people(disk, folders, &self.path, &self.name)
    }
}

impl Recovered {
    /// Takes what a checkpoint tells, but for the index of its series and their table.
    pub(super) fn read_checkpoint(&mut self, file: &File<'_>) -> Result<(), QueryError> {
        let head = file.read_head(&mut |canonical, own| self.keep_exemplar(canonical, own))?;
        self.checkpoint_sequence = head.sequence;
        self.sequence = self.sequence.max(head.sequence);
        for (metric, metadata) in &head.metadata {
            self.metadata.insert(metric, metadata);
        }
        self.read_series(file).map_err(|reason| file.damaged(reason))
    }

    fn read_series(&mut self, file: &File<'_>) -> Result<(), &'static str> {
        let bound = file.bound();
        self.registry.reserve(bound);
        self.newest.reserve(bound);
        self.registry.add_labels(&file.labels)?;
        for block in file.blocks() {
            let block = block?;
            let series = block.series()?;
            self.registry.add_block(&block, &series)?;
            let newest = block.newest_ms()?.into_iter().zip(block.newest_bits);
            self.newest.grow(series.last().map_or(0, |(last, _)| *last as usize + 1));
            for ((series, is_hollow), (newest_ms, newest_bits)) in series.into_iter().zip(newest) {
                self.newest.set(series, newest_ms, u64::from_le_bytes(*newest_bits));
                self.newest.set_hollow(series, is_hollow);
            }
        }
        Ok(())
    }
}

fn missing(path: &Path, err: io::Error) -> OpenError {
    match err.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
        _ => OpenError::io(path)(err),
    }
}
