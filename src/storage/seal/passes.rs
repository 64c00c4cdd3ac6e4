//! How much of a log file is sealed at a time: as many series as fit in memory, and of one with very
//! large histograms some time after another.

use std::ops::Range;

use crate::model::sample::TimeRange;
use crate::storage::log::directory::Directory;
use crate::storage::log::format::{Cursor, read_sized_sample};
use crate::storage::registry::SeriesRef;
use crate::storage::select::BLOCK_SERIES_MAX;

/// What the samples of one pass take in memory, nearly.
const BYTES_MAX: u64 = if cfg!(test) { 32 << 10 } else { 256 << 20 };
/// A float: time, value, position in the file, and copies of the first two.
const SAMPLE_BYTES: u64 = 40;
/// A histogram besides its counts and spans.
const HISTOGRAM_BYTES: u64 = 400;
/// A count or half a span takes at least a byte in the log.
const BYTES_PER_BYTE: u64 = 16;

/// Series that follow each other, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Positions in the order of sealing.
    pub series: Range<usize>,
    /// All of time, but for a series of several passes.
    pub range: TimeRange,
}

/// All passes, by series and then by time.
#[derive(Debug)]
pub struct Passes(pub Vec<Pass>);

impl Passes {
    /// Divides the samples of a file whose bytes are these.
    pub fn new(directory: &Directory, bytes: &[u8], base_ms: i64, order: &[SeriesRef]) -> Self {
        let mut passes = Self(Vec::new());
        let (mut start, mut sum) = (0, 0);
        for (at, series) in order.iter().enumerate() {
            let histograms = histograms(directory, bytes, base_ms, *series);
            let floats = float_count(directory, *series) * SAMPLE_BYTES;
            let own = floats + histograms.iter().map(|own| own.1).sum::<u64>();
            if start < at && (BYTES_MAX < sum + own || at - start == BLOCK_SERIES_MAX) {
                passes.0.push(Pass { series: start..at, range: TimeRange::ALL });
                (start, sum) = (at, 0);
            }
            sum += own;
            if start == at && BYTES_MAX < own {
                passes.add_slices(at, histograms);
                (start, sum) = (at + 1, 0);
            }
        }
        if start < order.len() {
            passes.0.push(Pass { series: start..order.len(), range: TimeRange::ALL });
        }
        passes
    }

    /// One series alone, in several passes if its histograms are what is large.
    fn add_slices(&mut self, at: usize, mut histograms: Vec<(i64, u64)>) {
        histograms.sort_unstable();
        let (mut min_ms, mut sum) = (i64::MIN, 0);
        for (timestamp_ms, bytes) in histograms {
            if BYTES_MAX < sum + bytes && min_ms < timestamp_ms {
                let range = TimeRange { min_ms, max_ms: timestamp_ms - 1 };
                self.0.push(Pass { series: at..at + 1, range });
                (min_ms, sum) = (timestamp_ms, 0);
            }
            sum += bytes;
        }
        let range = TimeRange { min_ms, max_ms: i64::MAX };
        self.0.push(Pass { series: at..at + 1, range });
    }
}

/// Rows of the groups that the series is in, and what it has besides.
fn float_count(directory: &Directory, series: SeriesRef) -> u64 {
    let rows = |group| directory.group(group).map_or(0, |group| group.rows.len());
    let rows: usize = directory.places(series).map(|place| rows(place.group)).sum();
    (rows + directory.loose(series).count()) as u64
}

/// When, and what each takes. Damage is found when they are read.
fn histograms(
    directory: &Directory,
    bytes: &[u8],
    base_ms: i64,
    series: SeriesRef,
) -> Vec<(i64, u64)> {
    let sample = |offset: u32| {
        let mut cursor = Cursor::new(bytes, offset as usize, bytes.len())?;
        let (timestamp_ms, own) = read_sized_sample(&mut cursor, base_ms)?;
        Some((timestamp_ms, HISTOGRAM_BYTES + own.len() as u64 * BYTES_PER_BYTE))
    };
    directory.histograms(series).filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::format::{push_sized, push_zigzag};

    #[test]
    fn passes_hold_so_much_and_no_more() {
        let mut directory = Directory::default();
        let small: Vec<u32> = (0..600).collect();
        directory.add_members(0, &small).unwrap();
        // Few rows: as many series as a block has.
        for row in 0..2 {
            directory.add_row(0, 0, row).unwrap();
        }
        let all = TimeRange::ALL;
        let pass = |series, range| Pass { series, range };
        let passes = Passes::new(&directory, &[], 0, &small);
        assert_eq!(passes.0, [pass(0..256, all), pass(256..512, all), pass(512..600, all)]);
        // More rows: fewer series.
        for row in 2..100 {
            directory.add_row(0, 0, row).unwrap();
        }
        let passes = Passes::new(&directory, &[], 0, &small[..20]);
        assert_eq!(passes.0, [pass(0..8, all), pass(8..16, all), pass(16..20, all)]);
    }

    #[test]
    fn large_histograms_are_sealed_some_time_after_another() {
        let (mut directory, mut bytes) = (Directory::default(), vec![0]);
        for timestamp_ms in [30, 10, 20, 40] {
            directory.add_histogram(7, bytes.len() as u32, timestamp_ms);
            push_zigzag(&mut bytes, timestamp_ms - 5);
            push_sized(&mut bytes, &[1; 800]);
        }
        directory.add_loose(8, 0, 1);
        let passes = Passes::new(&directory, &bytes, 5, &[6, 7, 8]);
        let range = |min_ms, max_ms| TimeRange { min_ms, max_ms };
        let expected = [
            Pass { series: 0..1, range: TimeRange::ALL },
            Pass { series: 1..2, range: range(i64::MIN, 29) },
            Pass { series: 1..2, range: range(30, i64::MAX) },
            Pass { series: 2..3, range: TimeRange::ALL },
        ];
        assert_eq!(passes.0, expected);
    }
}
