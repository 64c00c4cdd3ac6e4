//! Which files make up the store at one moment. A query holds one version to its end.

use std::sync::Arc;

use super::log::file::LogFile;
use super::manifest::SegmentEntry;
use super::segment::Segment;

/// A segment and what the manifest tells of it.
pub struct OpenSegment {
    /// Number and commits.
    pub entry: SegmentEntry,
    /// The file.
    pub segment: Segment,
}

/// Files, oldest first. Each sample is in exactly one of them.
#[derive(Clone, Default)]
pub struct Version {
    /// Segments: of two with the same timestamp, the earlier here was accepted earlier. That is
    /// by level, highest first, then by commits.
    pub segments: Vec<Arc<OpenSegment>>,
    /// Log files that are not sealed; the last may be open for writing.
    pub logs: Vec<Arc<LogFile>>,
}

impl Version {
    /// Exchanges segments.
    pub fn exchange(&mut self, dropped: &[u64], added: impl IntoIterator<Item = Arc<OpenSegment>>) {
        self.segments.retain(|own| !dropped.contains(&own.entry.id));
        self.segments.extend(added);
        in_order_of_acceptance(&mut self.segments);
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
