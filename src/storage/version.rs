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
    /// Segments, in order of their commits: what is earlier here was accepted earlier.
    pub segments: Vec<Arc<OpenSegment>>,
    /// Log files that are not sealed; the last may be open for writing.
    pub logs: Vec<Arc<LogFile>>,
}
