//! What bounds the memory of a merge: how many series come out of it, and how many histograms of one
//! series are read at a time.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::sample::TimeRange;
use crate::storage::segment::Segment;
use crate::storage::select::QueryError;
use crate::storage::version::OpenSegment;

/// One of so many series is counted.
const COUNTED: u128 = 64;

/// How many series some segments have together, nearly: fingerprints are evenly spread.
pub fn series_count<'a>(segments: impl Iterator<Item = &'a Arc<Segment>>) -> u64 {
    let mut counted: HashSet<u128, foldhash::fast::RandomState> = HashSet::default();
    for segment in segments {
        // One that cannot be read is found out when it is merged.
        let all = (0..segment.info().series_count).map_while(|own| segment.fingerprint(own).ok());
        counted.extend(all.filter(|fingerprint| fingerprint.is_multiple_of(COUNTED)));
    }
    counted.len() as u64 * COUNTED as u64
}

/// Values and spans of histograms that are merged at a time, 128 MiB of them.
const CELLS_MAX: u64 = if cfg!(test) { 1 << 10 } else { 16 << 20 };

/// Parts of a window, so that not too many histograms of one series are held in memory. Other
/// series have but one.
pub fn slices(
    inputs: &[Arc<OpenSegment>],
    sources: &[(usize, u32)],
    window: TimeRange,
) -> Result<Vec<TimeRange>, QueryError> {
    let mut chunks = Vec::new();
    for (input, ordinal) in sources {
        let segment = &inputs[*input].segment;
        if segment.has_histograms() {
            let all = segment.chunks(*ordinal, window)?.into_iter();
            chunks.extend(all.filter_map(|own| Some((own.first_ms, own.histogram_cells_max()?))));
        }
    }
    Ok(cut(window, chunks))
}

/// Parts of a window in which chunks begin, each with its cells.
fn cut(window: TimeRange, mut chunks: Vec<(i64, u64)>) -> Vec<TimeRange> {
    chunks.sort_unstable();
    let (mut slices, mut min_ms, mut cells) = (Vec::new(), window.min_ms, 0);
    for (first_ms, own) in chunks {
        if CELLS_MAX < cells + own && min_ms < first_ms && 0 < cells {
            slices.push(TimeRange { min_ms, max_ms: first_ms - 1 });
            (min_ms, cells) = (first_ms, 0);
        }
        cells += own;
    }
    slices.push(TimeRange { min_ms, max_ms: window.max_ms });
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_follow_each_other_and_begin_with_chunks() {
        let window = TimeRange { min_ms: 0, max_ms: 99 };
        let shown = |chunks: &[(i64, u64)]| {
            let slices = cut(window, chunks.to_vec()).into_iter();
            slices.map(|own| format!("{}..{}", own.min_ms, own.max_ms)).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[]), ["0..99"]);
        let half = CELLS_MAX / 2;
        assert_eq!(shown(&[(50, half), (0, half)]), ["0..99"]);
        assert_eq!(shown(&[(50, half), (0, half), (60, 1)]), ["0..59", "60..99"]);
        let same = [(20, CELLS_MAX), (20, CELLS_MAX), (30, 3 * CELLS_MAX), (40, 1)];
        assert_eq!(shown(&same), ["0..19", "20..29", "30..39", "40..99"]);
        assert_eq!(shown(&[(-5, CELLS_MAX), (0, CELLS_MAX)]), ["0..99"], "begun before");
    }
}
