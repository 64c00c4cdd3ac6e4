//! Samples that were damaged on disk: told for as long as they would have been kept.
//!
//! A reader that meets a damaged page of columns gives an error; the other chunks of the segment
//! can be read. When such a segment is merged, what cannot be read is named in the manifest by the
//! edit that drops the segment, and its file stays in `quarantine`. From then on a query for those
//! series and times gives the same error, instead of an answer that lacks something. It ends with
//! the retention, or when the series are deleted for that time.

use std::sync::Arc;

use tracing::error;

use super::manifest::{Edit, LossEntry, LostRun};
use super::options::SealError;
use super::recovery::keep_for_people;
use super::select::QueryError;
use super::store::{Store, segment_file_name};
use super::version::{OpenSegment, Version};
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;

/// More chunks are not told one by one: a segment with so much damage is left out as a whole.
const RUNS_MAX: usize = 16 << 10;
const REASON: &str = "samples were damaged and are lost";

impl Version {
    /// Adds what merging lost, without what deletions after the given one hide of it; what is new.
    pub fn add_losses(
        &mut self,
        losses: Vec<LossEntry>,
        tombstone: u64,
    ) -> impl Iterator<Item = Arc<LossEntry>> {
        let mut added = Vec::new();
        for mut own in losses {
            for later in self.tombstones.iter().filter(|own| tombstone < own.entry.id) {
                own = own.without(&later.entry.sets, later.entry.range);
            }
            if !own.runs.is_empty() {
                added.push(Arc::new(own));
            }
        }
        self.losses.extend(added.iter().cloned());
        added.into_iter()
    }

    /// Forgets what was lost of deleted samples; what has changed, with no runs if it is all over.
    pub fn forget_lost(
        &mut self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> impl Iterator<Item = Arc<LossEntry>> {
        let mut changed = Vec::new();
        for own in &mut self.losses {
            let left = own.without(sets, range);
            if left != **own {
                *own = Arc::new(left);
                changed.push(Arc::clone(own));
            }
        }
        self.losses.retain(|own| !own.runs.is_empty());
        changed.into_iter()
    }
}

impl Store {
    /// An error when samples that somebody asks for are lost.
    pub fn check_lost(
        &self,
        version: &Version,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<(), QueryError> {
        for own in &version.losses {
            let lost = |run: &&LostRun| run.range.overlaps(range) && run.fulfils(matchers);
            if let Some(LostRun { offset_bytes, .. }) = own.runs.iter().find(lost) {
                let path = self.folders.quarantine.join(segment_file_name(own.id));
                let offset_bytes = *offset_bytes;
                return Err(QueryError::Corrupt { path, offset_bytes, reason: REASON });
            }
        }
        Ok(())
    }

    /// What merging could not read, by segment. Their files have a second name after this.
    pub fn losses_of(
        &self,
        inputs: &[Arc<OpenSegment>],
        lost: Vec<Vec<LostRun>>,
    ) -> Result<Vec<LossEntry>, SealError> {
        let known: usize = self.version.load().losses.iter().map(|own| own.runs.len()).sum();
        let count: usize = lost.iter().map(Vec::len).sum();
        let mut losses = Vec::new();
        for (own, runs) in inputs.iter().zip(lost) {
            let Some(LostRun { offset_bytes, .. }) = runs.first() else { continue };
            if RUNS_MAX < known + count {
                return Err(own.segment.give_up(*offset_bytes).into());
            }
            let (path, name) = (own.segment.path(), segment_file_name(own.entry.id));
            keep_for_people(&*self.disk, &self.folders, path, &name)
                .map_err(|err| SealError::Io(std::io::Error::other(err)))?;
            if !own.segment.set_told() {
                self.metrics.segment_corruptions.inc();
            }
            error!(
                path = %self.folders.quarantine.join(name).display(),
                offset_bytes, chunks = runs.len(),
                "Damaged samples are lost; queries for them give an error."
            );
            losses.push(LossEntry { id: own.entry.id, runs });
        }
        Ok(losses)
    }

    /// Tells once that a segment has damaged chunks.
    pub fn tell_of_hole(&self, own: &OpenSegment) {
        let Some(damage) = own.segment.hole() else { return };
        if own.segment.set_told() {
            return;
        }
        self.metrics.segment_corruptions.inc();
        error!(
            path = %own.segment.path().display(),
            offset_bytes = damage.offset_bytes,
            reason = damage.reason,
            "A part of a segment is damaged; queries that need it give an error."
        );
    }

    /// Forgets what was lost of times that are older than any sample that is kept.
    pub fn forget_losses_before(&self, least_ms: i64) -> Result<(), SealError> {
        let is_over = |own: &Arc<LossEntry>| own.runs.iter().all(|run| run.range.max_ms < least_ms);
        if !self.version.load().losses.iter().any(is_over) {
            return Ok(());
        }
        let mut manifest = self.lock_manifest();
        let mut version = Version::clone(&self.version.load());
        let over = version.losses.extract_if(.., |own| is_over(own));
        let none =
            |own: Arc<LossEntry>| Edit::Loss(Arc::new(LossEntry { id: own.id, runs: vec![] }));
        let edits: Vec<_> = over.map(none).collect();
        manifest.edit(&edits).map_err(|err| self.classify("manifest could not be written", err))?;
        self.version.store(Arc::new(version));
        Ok(())
    }
}
