//! Start timestamps: what the open log file says of them, and what must be said before a sample.
//!
//! A file tells a series' start only where it differs from that of the series' sample before, so
//! a counter costs a few bytes in each file, and what has no start costs nothing.

use super::groups::Accepted;
use crate::storage::log::format::{FrameWriter, GROUP_SLOTS_MAX, Section};
use crate::storage::log::starts::push_starts;
use crate::storage::registry::SeriesRef;

/// At most so many bytes of a frame are due to the start of one sample: its share of a section,
/// and the headers of sections that begin anew behind it.
pub const START_BYTES_MAX: usize = 48;

/// A sample with a start.
pub trait Started {
    /// Its series.
    fn series(&self) -> SeriesRef;
    /// When counting began; 0: not known.
    fn start_ms(&self) -> i64;
}

impl Started for Accepted {
    fn series(&self) -> SeriesRef {
        self.series
    }

    fn start_ms(&self) -> i64 {
        self.start_ms
    }
}

/// The newest start of each series in the open log file.
#[derive(Debug, Default)]
pub struct WrittenStarts {
    /// By number; empty while the file has none.
    by_series: Vec<i64>,
    changes: Vec<(i64, SeriesRef)>,
}

impl WrittenStarts {
    /// Whether the file has none.
    pub fn is_empty(&self) -> bool {
        self.by_series.is_empty()
    }

    /// A new log file begins.
    pub fn begin_file(&mut self) {
        self.by_series.clear();
    }

    fn differs(&self, own: &impl Started) -> bool {
        self.by_series.get(own.series() as usize).copied().unwrap_or(0) != own.start_ms()
    }

    /// Writes the starts of the first `count` samples, which are of different series, as far as
    /// the file does not say them yet. Returns how many samples may follow: at least those, and
    /// until one has yet another start.
    pub fn tell(
        &mut self,
        samples: &[impl Started],
        count: usize,
        base_ms: i64,
        frame: &mut FrameWriter,
    ) -> usize {
        let (now, later) = samples.split_at(count);
        let mut changes = std::mem::take(&mut self.changes);
        changes.clear();
        let new = now.iter().filter(|own| self.differs(*own));
        changes.extend(new.map(|own| (own.start_ms(), own.series())));
        if !changes.is_empty() {
            changes.sort_unstable();
            self.write(&changes, base_ms, frame);
        }
        self.changes = changes;
        let end = later.iter().position(|own| self.differs(own));
        count + end.unwrap_or(later.len())
    }

    fn write(&mut self, changes: &[(i64, SeriesRef)], base_ms: i64, frame: &mut FrameWriter) {
        let out = frame.begin(Section::Starts);
        for same in changes.chunk_by(|a, b| a.0 == b.0) {
            for part in same.chunks(GROUP_SLOTS_MAX) {
                let series: Vec<SeriesRef> = part.iter().map(|own| own.1).collect();
                push_starts(out, base_ms, part[0].0, &series);
            }
        }
        frame.end();
        let most = changes.iter().map(|own| own.1 as usize + 1).max().unwrap_or(0);
        if self.by_series.len() < most {
            self.by_series.resize(most, 0);
        }
        for (start_ms, series) in changes {
            self.by_series[*series as usize] = *start_ms;
        }
    }
}
