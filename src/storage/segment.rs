//! Segments: immutable files of columns that replace closed log files.
//!
//! [`writer::SegmentWriter`] streams columns into a new file and ends with the tables that find
//! them; [`reader::Segment`] maps a finished file and checks each page the first time it is
//! touched. A crash while writing leaves a file without footer, which nobody names. Drawn in
//! `docs/formats/segment.md`.

mod format;
#[cfg(test)]
pub mod fuzz;
pub mod reader;
pub mod writer;

#[cfg(test)]
mod tests;

pub use reader::{ChunkKind, ChunkRef, Chunks, Damage, Segment};
pub use writer::{Rows, SegmentWriter, SeriesIdentity};

/// The reason that a segment of another format version is refused with: it was written by another
/// version of this program, and is not damaged.
pub const UNKNOWN_VERSION: &str = "unknown version of segments";

/// A timestamp column of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimestampsId(u32);

impl TimestampsId {
    /// Position in the segment.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// First and last timestamp of a column, and its rows.
pub type TimestampsSummary = (i64, i64, u32);

/// The commits a segment's samples come from; inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRange {
    /// First.
    pub first: u64,
    /// Last.
    pub last: u64,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Oldest sample, inclusive; `i64::MAX` when there is none.
    pub min_ms: i64,
    /// Newest sample, inclusive; `i64::MIN` when there is none.
    pub max_ms: i64,
    /// Series.
    pub series_count: u32,
    /// Chunks of all series.
    pub chunk_count: u64,
    /// Samples in all chunks; the same timestamp in two chunks of a series counts twice.
    pub sample_count: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Where the samples come from.
    pub sequences: SequenceRange,
}
