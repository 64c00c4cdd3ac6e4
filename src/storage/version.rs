//! Which files make up the store at one moment. A query holds one version to its end.

use std::sync::Arc;

use super::delete::{Hidden, Ranges, Tombstone, hidden_in, visible};
use super::log::file::LogFile;
use super::manifest::{LossEntry, SegmentEntry, TombstoneEntry};
use super::segment::Segment;
use super::select::QueryError;
use crate::model::sample::TimeRange;

/// A segment and what the manifest tells of it.
pub struct OpenSegment {
    /// Number and commits.
    pub entry: SegmentEntry,
    /// The file.
    pub segment: Arc<Segment>,
    /// What deletions hide in it, by tombstone.
    pub hidden: Vec<Hidden>,
}

impl OpenSegment {
    /// A segment, of which nobody sees what was deleted after it had been begun.
    pub fn new<'a>(
        entry: SegmentEntry,
        segment: Arc<Segment>,
        tombstones: impl IntoIterator<Item = &'a Arc<TombstoneEntry>>,
    ) -> Result<Self, QueryError> {
        let mut hidden = Vec::new();
        for own in tombstones.into_iter().filter(|own| entry.tombstone < own.id) {
            hidden.extend(hidden_in(&segment, own.id, own.range, &own.sets)?);
        }
        Ok(Self { entry, segment, hidden })
    }

    /// The same, opened anew.
    pub fn anew(&self, segment: Segment) -> Self {
        let hidden = self.hidden.clone();
        Self { entry: self.entry, segment: Arc::new(segment), hidden }
    }

    /// The same with more hidden.
    pub fn without(&self, hidden: Hidden) -> Self {
        let mut all = self.hidden.clone();
        all.push(hidden);
        Self { entry: self.entry, segment: Arc::clone(&self.segment), hidden: all }
    }

    /// What may be seen of a range of a series.
    pub fn visible(&self, range: TimeRange, ordinal: u32) -> Ranges {
        visible(range, ordinal, &self.hidden)
    }

    /// Whether something of a series may be seen in a range.
    pub fn shows(&self, range: TimeRange, ordinal: u32) -> bool {
        let own = self.segment.time_range();
        self.hidden.is_empty()
            || self.visible(range, ordinal).into_iter().any(|part| part.overlaps(own))
    }
}

/// Files, oldest first. Each sample is in exactly one of them.
#[derive(Clone, Default)]
pub struct Version {
    /// Segments: of two with the same timestamp, the earlier here was accepted earlier. That is
    /// by level, highest first, then by commits.
    pub segments: Vec<Arc<OpenSegment>>,
    /// Log files that are not sealed; the last may be open for writing.
    pub logs: Vec<Arc<LogFile>>,
    /// Deletions that hide something in these files, or may; oldest first.
    pub tombstones: Vec<Arc<Tombstone>>,
    /// What damaged segments had that are no longer among these files.
    pub losses: Vec<Arc<LossEntry>>,
}

impl Version {
    /// Exchanges segments.
    pub fn exchange(&mut self, dropped: &[u64], added: impl IntoIterator<Item = Arc<OpenSegment>>) {
        self.segments.retain(|own| !dropped.contains(&own.entry.id));
        self.segments.extend(added);
        in_order_of_acceptance(&mut self.segments);
    }

    /// Opens a segment to be added.
    pub fn open_segment(
        &self,
        entry: SegmentEntry,
        segment: Segment,
    ) -> Result<Arc<OpenSegment>, QueryError> {
        let tombstones = self.tombstones.iter().map(|own| &own.entry);
        OpenSegment::new(entry, Arc::new(segment), tombstones).map(Arc::new)
    }

    /// The number of the last deletion; 0: nothing is known of any.
    pub fn tombstone(&self) -> u64 {
        self.tombstones.last().map_or(0, |own| own.entry.id)
    }

    /// What deletions hide in a log file.
    pub fn hidden_in_log(&self, log: &LogFile) -> Vec<&Hidden> {
        let is_older = |own: &&Arc<Tombstone>| log.header().first_sequence <= own.entry.sequence;
        self.tombstones.iter().filter(is_older).map(|own| &own.head).collect()
    }
}

/// Puts segments in the order that [`Version::segments`] has.
pub fn in_order_of_acceptance(segments: &mut [Arc<OpenSegment>]) {
    segments.sort_by_key(|own| {
        let entry = own.entry;
        // Above level 0 nothing overlaps, and in order of time parts are put together fastest.
        let min_ms = if entry.level == 0 { i64::MIN } else { own.segment.time_range().min_ms };
        (std::cmp::Reverse(entry.level), min_ms, entry.first_sequence, entry.id)
    });
}
