//! Which segments are merged next: a pure function of levels, ranges and sizes.
//!
//! Level 0 holds sealed log files, which may overlap, but are cut at multiples of 2 h. Segments of
//! a higher level never overlap within their level and lie in windows of it: absolute multiples of
//! 2 h, 1 d, 31 d of UTC, less when the retention is short. At every timestamp a higher level was
//! accepted before a lower one, because a merge takes all of a level in a window, and with it
//! whatever of the levels up to the target it overlaps. So it mostly writes one segment, and the
//! space of what it has merged is free before the next one begins.

use crate::model::sample::TimeRange;

/// Widths of windows by level, from 1 on.
pub type Widths = [i64; 3];

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Merged segments are at most a tenth of the retention, so that it frees space in steps of that.
const RETENTION_PARTS: i64 = 10;
/// So many segments of level 0 are merged at once: two hours of ordinary log files.
const ZERO_COUNT_MIN: usize = 4;
/// More are merged even when that writes a large neighbour anew; queries look into each of them.
const ZERO_COUNT_MAX: usize = 32;
/// Data that lies in more windows goes to a higher level at once; in the highest one, what is older
/// than so many is one window.
const WINDOWS_MAX: i64 = 64;
/// Chunks of what is written, whose tables are held in memory: a window in which there would be more
/// is written in parts.
const CHUNKS_MAX: u64 = 4 << 20;
/// A window is finished when samples are newer than its end by this much.
const SETTLE_MS: i64 = HOUR_MS;
/// Late data is merged into a finished window when it has this part of its size.
const LATE_PART: u64 = 8;

/// What the planner knows of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// See [`super::super::manifest::SegmentEntry::level`].
    pub level: u8,
    /// From its oldest to its newest sample.
    pub range: TimeRange,
    /// Length of the file.
    pub bytes: u64,
    /// Its chunks.
    pub chunk_count: u64,
}

/// When a merge is worth while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// When it pays.
    Background,
    /// Whenever it leaves fewer segments.
    Now,
}

/// A merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Level of what is written.
    pub level: u8,
    /// Positions of what is merged, in order of acceptance.
    pub inputs: Vec<usize>,
    /// One segment is written for each of these that has samples; they do not overlap.
    pub windows: Vec<TimeRange>,
}

/// How long files may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// What is written beside the inputs before they are removed.
    pub free_bytes: u64,
    /// A segment of several windows of the level below: retention by size drops it as a whole.
    pub segment_bytes_max: u64,
}

impl Room {
    /// Any length.
    #[cfg(test)]
    pub const ANY: Self = Self { free_bytes: u64::MAX, segment_bytes_max: u64::MAX };

    /// With so much free space, under a retention by size.
    pub fn new(free_bytes: u64, retention_bytes: Option<u64>) -> Self {
        let segment_bytes_max = retention_bytes.map(|bytes| bytes / RETENTION_PARTS as u64);
        Self { free_bytes, segment_bytes_max: segment_bytes_max.unwrap_or(u64::MAX) }
    }

    fn fits(self, pieces: &[Piece], plan: &Plan) -> bool {
        let bytes = plan.inputs.iter().map(|at| pieces[*at].bytes);
        bytes.fold(0, u64::saturating_add) <= self.free_bytes
    }
}

/// Says how many series some of the pieces have together, nearly.
pub type SeriesCount<'a> = &'a dyn Fn(&[usize]) -> u64;

/// Widths of windows under a retention; `i64::MAX`: for ever.
pub fn widths(retention_ms: i64) -> Widths {
    let part_ms = retention_ms / RETENTION_PARTS;
    let most_of = |width_ms: i64, limit_ms: i64| (limit_ms / width_ms * width_ms).max(width_ms);
    let two_hours = 2 * HOUR_MS;
    let day = most_of(two_hours, part_ms.min(DAY_MS));
    [two_hours, day, most_of(day, part_ms.min(31 * DAY_MS))]
}

/// The next merge. `pieces` are in order of acceptance; `newest_ms` is the newest sample of all.
/// What finds no room is passed over; `series_count` is asked only where there are very many chunks.
pub fn next(
    pieces: &[Piece],
    widths: Widths,
    newest_ms: i64,
    urgency: Urgency,
    room: Room,
    series_count: SeriesCount<'_>,
) -> Option<Plan> {
    level_zero(pieces, widths, urgency)
        .filter(|plan| room.fits(pieces, plan))
        .or_else(|| finished(pieces, 1, widths, newest_ms, urgency, room, series_count))
        .or_else(|| finished(pieces, 2, widths, newest_ms, urgency, room, series_count))
}

/// The windows of the lowest level that a range touches, at which sealed log files are cut; samples
/// of long ago, if there are any, in one.
pub fn cuts(range: TimeRange) -> Vec<TimeRange> {
    let mut windows = Vec::new();
    add_windows(&mut windows, range, 2 * HOUR_MS);
    windows
}

/// Windows that a range touches.
fn count(range: TimeRange, width_ms: i64) -> i64 {
    let first = range.min_ms.div_euclid(width_ms);
    range.max_ms.div_euclid(width_ms).saturating_sub(first).saturating_add(1)
}

fn window(timestamp_ms: i64, width_ms: i64) -> TimeRange {
    let min_ms = timestamp_ms.div_euclid(width_ms).saturating_mul(width_ms);
    TimeRange { min_ms, max_ms: min_ms.saturating_add(width_ms - 1) }
}

fn union(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange { min_ms: a.min_ms.min(b.min_ms), max_ms: a.max_ms.max(b.max_ms) }
}

/// What of level 0 lies in one window, or in some that hang together, into the lowest level that
/// has not too many windows for any of it.
fn level_zero(pieces: &[Piece], widths: Widths, urgency: Urgency) -> Option<Plan> {
    let zeros: Vec<usize> = (0..pieces.len()).filter(|at| pieces[*at].level == 0).collect();
    // Asked to merge everything, there is no use in writing two-hour pieces first.
    let lowest = if urgency == Urgency::Now { 2 } else { 1 };
    let zero_count = |plan: &Plan| plan.inputs.iter().filter(|at| pieces[**at].level == 0).count();
    let mut largest: Option<Plan> = None;
    let mut rest = zeros.clone();
    while let Some(first) = rest.first() {
        let plan = of_first(pieces, *first, widths, lowest);
        if urgency == Urgency::Now || pays(pieces, &plan) {
            return Some(plan);
        }
        rest.retain(|at| !plan.inputs.contains(at));
        if largest.as_ref().is_none_or(|largest| zero_count(largest) < zero_count(&plan)) {
            largest = Some(plan);
        }
    }
    largest.filter(|_| ZERO_COUNT_MAX <= zeros.len())
}

/// A piece of level 0 and whatever hangs together with it.
fn of_first(pieces: &[Piece], first: usize, widths: Widths, lowest: u8) -> Plan {
    let mut level = lowest;
    loop {
        let width_ms = widths[usize::from(level) - 1];
        let mut windows = Vec::new();
        add_windows(&mut windows, pieces[first].range, width_ms);
        let plan = complete(pieces, vec![first], level, windows, width_ms);
        let is_wide = |own: Piece| own.level == 0 && WINDOWS_MAX < count(own.range, width_ms);
        if level == 3 || !plan.inputs.iter().any(|at| is_wide(pieces[*at])) {
            return plan;
        }
        level += 1;
    }
}

/// Whether there is enough of level 0 to write the levels above anew.
fn pays(pieces: &[Piece], plan: &Plan) -> bool {
    let is_zero = |at: &usize| pieces[*at].level == 0;
    let (zeros, above): (Vec<usize>, Vec<usize>) = plan.inputs.iter().copied().partition(is_zero);
    let bytes = |some: &[usize]| some.iter().map(|at| pieces[*at].bytes).sum::<u64>();
    ZERO_COUNT_MIN <= zeros.len() && bytes(&above) / 2 <= bytes(&zeros)
}

/// The segments of a level that lie in one finished window of the next.
fn finished(
    pieces: &[Piece],
    level: u8,
    widths: Widths,
    newest_ms: i64,
    urgency: Urgency,
    room: Room,
    series_count: SeriesCount<'_>,
) -> Option<Plan> {
    let width_ms = widths[usize::from(level)];
    if width_ms == widths[usize::from(level) - 1] {
        return None;
    }
    let own = |at: &usize| pieces[*at].level == level;
    for first in (0..pieces.len()).filter(own) {
        let window = window(pieces[first].range.min_ms, width_ms);
        let group: Vec<usize> =
            (0..pieces.len()).filter(own).filter(|at| pieces[*at].range.overlaps(window)).collect();
        let target = level + 1;
        let beside = |piece: &&Piece| piece.level == target && piece.range.overlaps(window);
        let beside_bytes: u64 = pieces.iter().filter(beside).map(|piece| piece.bytes).sum();
        let bytes: u64 = group.iter().map(|at| pieces[*at].bytes).sum();
        let is_over = window.max_ms.saturating_add(SETTLE_MS) < newest_ms;
        let pays = beside_bytes == 0
            || group.len() >= ZERO_COUNT_MIN
            || bytes.saturating_mul(LATE_PART) >= beside_bytes;
        let due = match urgency {
            Urgency::Background => is_over && pays,
            Urgency::Now => level == 1 || is_over,
        };
        let is_short = bytes.saturating_add(beside_bytes) <= room.segment_bytes_max;
        if due && is_short {
            let is_beside = |own: &Piece| own.level == target && own.range.overlaps(window);
            let all: Vec<usize> = (0..pieces.len())
                .filter(|at| group.contains(at) || is_beside(&pieces[*at]))
                .collect();
            let mut windows = parts_of(window, part_count(pieces, &all, series_count));
            windows.retain(|own| group.iter().any(|at| pieces[*at].range.overlaps(*own)));
            for at in &group {
                // What of it lies in other windows.
                let own = pieces[*at].range;
                if own.min_ms < window.min_ms {
                    let max_ms = window.min_ms - 1;
                    add_windows(&mut windows, TimeRange { max_ms, ..own }, width_ms);
                }
                if window.max_ms < own.max_ms {
                    let min_ms = window.max_ms + 1;
                    add_windows(&mut windows, TimeRange { min_ms, ..own }, width_ms);
                }
            }
            let plan = complete(pieces, group, target, windows, width_ms);
            if room.fits(pieces, &plan) {
                return Some(plan);
            }
        }
    }
    None
}

/// Into how many parts a window is divided so that each has not too many chunks: a power of two, so
/// that parts of later times fit.
fn part_count(pieces: &[Piece], inputs: &[usize], series_count: SeriesCount<'_>) -> i64 {
    let chunk_count: u64 = inputs.iter().map(|at| pieces[*at].chunk_count).sum();
    let most = if chunk_count <= CHUNKS_MAX { chunk_count } else { series_count(inputs) };
    let parts = most.div_ceil(CHUNKS_MAX).clamp(1, WINDOWS_MAX as u64);
    parts.next_power_of_two() as i64
}

fn parts_of(window: TimeRange, count: i64) -> Vec<TimeRange> {
    let width_ms = window.max_ms.saturating_sub(window.min_ms) / count + 1;
    let part = |index: i64| {
        let min_ms = window.min_ms.saturating_add(width_ms * index);
        TimeRange { min_ms, max_ms: min_ms.saturating_add(width_ms - 1).min(window.max_ms) }
    };
    (0..count).map(part).filter(|part| part.min_ms <= part.max_ms).collect()
}

/// Adds the windows that a range touches; the oldest of too many as one.
fn add_windows(windows: &mut Vec<TimeRange>, range: TimeRange, width_ms: i64) {
    let mut next = window(range.min_ms, width_ms);
    if WINDOWS_MAX < count(range, width_ms) {
        let reach_ms = width_ms.saturating_mul(WINDOWS_MAX - 2);
        let first = window(range.max_ms.saturating_sub(reach_ms), width_ms);
        add_window(windows, TimeRange { min_ms: next.min_ms, max_ms: first.min_ms - 1 });
        next = first;
    }
    loop {
        add_window(windows, next);
        if next.max_ms >= range.max_ms {
            return;
        }
        next = window(next.max_ms + 1, width_ms);
    }
}

/// Adds a window unless one that is there contains it; unites those that overlap.
fn add_window(windows: &mut Vec<TimeRange>, new: TimeRange) {
    let overlapping = windows.iter().copied().filter(|own| own.overlaps(new));
    let all = overlapping.fold(new, union);
    windows.retain(|own| !own.overlaps(new));
    windows.push(all);
    windows.sort_unstable_by_key(|own| own.min_ms);
}

/// Takes in what the windows overlap of the levels up to the target, until nothing is missing.
fn complete(
    pieces: &[Piece],
    mut inputs: Vec<usize>,
    level: u8,
    mut windows: Vec<TimeRange>,
    width_ms: i64,
) -> Plan {
    let lowest = inputs.iter().map(|at| pieces[*at].level).min().unwrap_or(0);
    let is_within = |piece: &Piece| (lowest < piece.level || lowest == 0) && piece.level <= level;
    loop {
        let missing = (0..pieces.len()).find(|at| {
            let overlaps = |window: &TimeRange| window.overlaps(pieces[*at].range);
            is_within(&pieces[*at]) && !inputs.contains(at) && windows.iter().any(overlaps)
        });
        let Some(at) = missing else { break };
        inputs.push(at);
        if pieces[at].level == level {
            // From a time when windows were others: it stays in one piece.
            add_window(&mut windows, pieces[at].range);
        } else {
            add_windows(&mut windows, pieces[at].range, width_ms);
        }
    }
    inputs.sort_unstable();
    Plan { level, inputs, windows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FOREVER: i64 = i64::MAX;

    fn piece(level: u8, min_h: f64, max_h: f64, bytes: u64) -> Piece {
        let ms = |hours: f64| (hours * HOUR_MS as f64) as i64;
        let range = TimeRange { min_ms: ms(min_h), max_ms: ms(max_h) };
        Piece { level, range, bytes, chunk_count: 10 }
    }

    /// `level: inputs -> windows in hours`
    fn show(plan: Option<Plan>) -> String {
        let Some(plan) = plan else { return "none".to_owned() };
        let hours = |window: &TimeRange| {
            format!("{}..{}", window.min_ms / HOUR_MS, (window.max_ms + 1) / HOUR_MS)
        };
        let windows: Vec<_> = plan.windows.iter().map(hours).collect();
        format!("{}: {:?} -> {}", plan.level, plan.inputs, windows.join(" "))
    }

    fn check(pieces: &[Piece], newest_h: f64, urgency: Urgency, expected: &str) {
        let newest_ms = (newest_h * HOUR_MS as f64) as i64;
        assert_eq!(
            show(next(pieces, widths(FOREVER), newest_ms, urgency, Room::ANY, &|_| 1)),
            expected
        );
    }

    #[test]
    fn what_finds_no_room_is_passed_over() {
        let at = |level, at: u32, bytes| {
            let start = f64::from(at) * 2.0;
            piece(level, start, start + 1.9, bytes)
        };
        // Twelve pieces of the first day, two of the second, four new ones.
        let mut pieces: Vec<_> = (0..12).map(|own| at(1, own, 100)).collect();
        pieces.extend([at(1, 12, 10), at(1, 15, 20)]);
        pieces.extend((0..4).map(|_| at(0, 30, 50)));
        let planned = |pieces: &[Piece], free_bytes, retention_bytes| {
            let room = Room::new(free_bytes, retention_bytes);
            let plan =
                next(pieces, widths(FOREVER), 70 * HOUR_MS, Urgency::Background, room, &|_| 1);
            plan.map_or(0, |plan| plan.inputs.iter().map(|at| pieces[*at].bytes).sum::<u64>())
        };
        for (count, free_bytes, retention_bytes, expected) in [
            (18, u64::MAX, None, 200),
            (18, 200, None, 200),
            (18, 199, None, 30),
            (18, 29, None, 0),
            (18, u64::MAX, Some(100), 200),
            (14, u64::MAX, None, 1_200),
            (14, u64::MAX, Some(12_000), 1_200),
            (14, u64::MAX, Some(11_999), 30),
            (14, u64::MAX, Some(299), 0),
        ] {
            let found = planned(&pieces[..count], free_bytes, retention_bytes);
            assert_eq!(found, expected, "{count} {free_bytes} {retention_bytes:?}");
        }
    }

    #[test]
    fn widths_follow_the_retention() {
        let hours = |retention_h: i64| widths(retention_h * HOUR_MS).map(|own| own / HOUR_MS);
        assert_eq!(widths(FOREVER).map(|own| own / HOUR_MS), [2, 24, 744]);
        assert_eq!(hours(15 * 24), [2, 24, 24]);
        assert_eq!(hours(90 * 24), [2, 24, 216]);
        assert_eq!(hours(50), [2, 4, 4]);
        assert_eq!(hours(1), [2, 2, 2]);
    }

    #[test]
    fn level_zero_waits_until_there_is_enough() {
        use Urgency::{Background, Now};
        let half = |at: u32| piece(0, f64::from(at) / 2.0, f64::from(at) / 2.0 + 0.49, 10);
        let mut pieces: Vec<_> = (0..3).map(half).collect();
        check(&pieces, 2.0, Background, "none");
        check(&pieces, 2.0, Now, "2: [0, 1, 2] -> 0..24");
        pieces.extend([half(3), half(4)]);
        check(&pieces, 2.5, Background, "1: [0, 1, 2, 3] -> 0..2");
        pieces.insert(0, piece(1, 0.5, 1.9, 79));
        check(&pieces, 2.5, Background, "1: [0, 1, 2, 3, 4] -> 0..2");
        pieces[0].bytes = 200;
        check(&pieces, 2.5, Background, "none");
        // Too many to wait, each in a window of its own but for one.
        pieces.extend((1..=27).map(|at| half(4 * at)));
        assert_eq!(pieces.len(), 33);
        check(&pieces, 2.5, Background, "1: [0, 1, 2, 3, 4] -> 0..2");
        pieces.remove(1);
        check(&pieces, 2.5, Background, "none");
        // What was not cut is merged at once.
        let uncut = [piece(0, 0.0, 1.9, 9), piece(0, 1.0, 3.0, 9), piece(0, 5.0, 5.1, 9)];
        check(&[&uncut[..], &uncut[..]].concat(), 6.0, Background, "1: [0, 1, 3, 4] -> 0..2 2..4");
    }

    #[test]
    fn log_files_are_cut_at_multiples_of_two_hours() {
        let ms = |hours: f64| (hours * HOUR_MS as f64) as i64;
        let cuts = |min_h: f64, max_h: f64| {
            let windows = cuts(TimeRange { min_ms: ms(min_h), max_ms: ms(max_h) });
            windows.iter().map(|own| own.min_ms / HOUR_MS).collect::<Vec<_>>()
        };
        assert_eq!(cuts(0.5, 1.9), [0]);
        assert_eq!(cuts(-0.5, 4.0), [-2, 0, 2, 4]);
        assert_eq!(cuts(0.0, 127.9).len(), 64);
        assert_eq!(cuts(0.0, 128.0)[..3], [0, 4, 6]);
        let years = cuts(0.0, 500_000.1);
        assert_eq!((years.len(), years[1], years[63]), (64, 500_000 - 124, 500_000));
        let all = super::cuts(TimeRange::ALL);
        assert_eq!((all.len(), all[0].min_ms, all[63].max_ms), (64, i64::MIN, i64::MAX));
        assert!(all.windows(2).all(|pair| pair[0].max_ms + 1 == pair[1].min_ms));
    }

    #[test]
    fn one_sample_of_long_ago_does_not_keep_everything_in_level_zero() {
        let now = 480_000.0;
        let half =
            |at: u32| piece(0, now + f64::from(at) / 2.0, now + f64::from(at) / 2.0 + 0.4, 10);
        let mut pieces: Vec<_> = (0..4).map(half).collect();
        pieces.insert(0, piece(0, 0.0, 0.1, 1));
        check(&pieces, now + 2.5, Urgency::Background, "1: [1, 2, 3, 4] -> 480000..480002");
        // Samples of all the years between, which one file has, keep nothing either.
        pieces[0] = piece(0, 0.0, now - 200.0, 1);
        check(&pieces, now + 2.5, Urgency::Background, "1: [1, 2, 3, 4] -> 480000..480002");
        // Only what overlaps them goes with them.
        pieces[1].range.min_ms = 0;
        let urgency = Urgency::Background;
        let next = |pieces: &[Piece]| {
            next(pieces, widths(FOREVER), 0, urgency, Room::ANY, &|_| 1).unwrap()
        };
        let plan = next(&pieces);
        assert_eq!((plan.level, plan.inputs.len(), plan.windows.len()), (3, 5, 64));
        let mut later: Vec<_> = (4..8).map(half).collect();
        later.insert(0, piece(3, now, now + 2.0, 40));
        later.insert(0, piece(3, 0.0, now - 100.0, 1));
        assert_eq!(show(Some(next(&later))), "1: [2, 3, 4, 5] -> 480002..480004");
    }

    #[test]
    fn levels_are_merged_when_their_window_is_over_or_late_data_is_much() {
        use Urgency::{Background, Now};
        let mut pieces =
            vec![piece(1, 0.0, 1.9, 10), piece(1, 2.0, 3.9, 10), piece(1, 24.0, 25.9, 10)];
        check(&pieces, 24.5, Background, "none");
        check(&pieces, 25.5, Background, "2: [0, 1] -> 0..24");
        check(&pieces, 24.5, Now, "2: [0, 1] -> 0..24");
        pieces.insert(0, piece(2, 0.0, 23.0, 1_000));
        check(&pieces, 25.5, Background, "none");
        check(&pieces, 25.5, Now, "2: [0, 1, 2] -> 0..24");
        pieces[0].bytes = 100;
        check(&pieces, 25.5, Background, "2: [0, 1, 2] -> 0..24");
        let days: Vec<_> = (0..32)
            .map(|day: i32| piece(2, f64::from(24 * day), f64::from(24 * day) + 23.9, 10))
            .collect();
        let all: Vec<_> = (0..31).collect();
        check(&days, 760.0, Background, &format!("3: {all:?} -> 0..744"));
        check(&days, 740.0, Now, "none");
    }

    #[test]
    fn windows_of_other_days_are_taken_as_they_are() {
        let pieces = [piece(2, 20.0, 50.0, 10), piece(1, 30.0, 31.0, 5), piece(0, 24.5, 25.0, 1)];
        check(&pieces, 51.0, Urgency::Now, "2: [0, 1, 2] -> 20..50");
        let wide = [piece(0, -900_000.0, 900_000.0, 1), piece(0, 0.0, 1.0, 1)];
        let next = |wide: &[Piece]| next(wide, widths(FOREVER), 0, Urgency::Now, Room::ANY, &|_| 1);
        let plan = next(&wide).unwrap();
        assert_eq!((plan.level, plan.inputs, plan.windows.len()), (3, vec![0, 1], 64));
        assert!(plan.windows[0].contains(wide[0].range.min_ms));
        assert!(plan.windows.windows(2).all(|pair| pair[0].max_ms + 1 == pair[1].min_ms));
    }

    #[test]
    fn windows_of_very_many_series_are_merged_in_parts() {
        let two_hours = |at: u32| {
            let own = piece(1, f64::from(2 * at), f64::from(2 * at) + 1.9, 100);
            Piece { chunk_count: 1_000_000, ..own }
        };
        let pieces: Vec<_> = (0..12).map(two_hours).collect();
        let shown = |pieces: &[Piece], series: u64| {
            let newest_ms = 26 * HOUR_MS;
            show(next(pieces, widths(FOREVER), newest_ms, Urgency::Background, Room::ANY, &|_| {
                series
            }))
        };
        let all = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]";
        assert_eq!(shown(&pieces, 1_000_000), format!("2: {all} -> 0..24"));
        let in_parts = format!("2: {all} -> 0..6 6..12 12..18 18..24");
        assert_eq!(shown(&pieces, 12_000_000), in_parts);
        // Late data finds the part that it belongs to.
        let part = |at: u32| {
            let own = piece(2, f64::from(6 * at), f64::from(6 * at) + 5.9, 400);
            Piece { chunk_count: 3_000_000, ..own }
        };
        let mut parts: Vec<_> = (0..4).map(part).collect();
        parts.push(piece(1, 7.0, 8.0, 300));
        assert_eq!(shown(&parts, 12_000_000), "2: [1, 4] -> 6..12");
        // Halves of before stay together.
        parts[..2].copy_from_slice(&[piece(2, 0.0, 11.9, 800), piece(2, 12.0, 12.1, 1)]);
        assert_eq!(shown(&parts, 12_000_000), "2: [0, 4] -> 0..12");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Merging by levels comes to an end, keeps every piece in some window, and never lets
        /// segments of one level overlap.
        #[test]
        fn levels_stay_in_order(
            zeros in prop::collection::vec((0_i64..400, 0_i64..40, 1_u64..100), 1..40),
            // Which of them begins long ago, if any.
            old in (0_usize..80, -900_000_i64..0), chunk_count in 1_u64..8 << 20,
        ) {
            let widths = widths(FOREVER);
            let mut pieces: Vec<Piece> = Vec::new();
            for (number, (start, length, bytes)) in zeros.into_iter().enumerate() {
                let first = if number == old.0 { old.1 } else { start };
                let new = piece(0, first as f64, (start + length) as f64, bytes);
                pieces.push(Piece { chunk_count, ..new });
                let mut rounds = 0;
                let urgency = Urgency::Background;
                let series = &|inputs: &[usize]| chunk_count * inputs.len() as u64;
                while let Some(plan) = next(&pieces, widths, 400 * HOUR_MS, urgency, Room::ANY, series) {
                    rounds += 1;
                    prop_assert!(rounds < 100);
                    let mut written = Vec::new();
                    for window in &plan.windows {
                        let cut = plan.inputs.iter().map(|at| pieces[*at]).filter_map(|own| {
                            let min_ms = own.range.min_ms.max(window.min_ms);
                            let max_ms = own.range.max_ms.min(window.max_ms);
                            (min_ms <= max_ms).then_some(TimeRange { min_ms, max_ms })
                        });
                        let Some(range) = cut.reduce(union) else { continue };
                        written.push(Piece { level: plan.level, range, bytes: 50, chunk_count });
                    }
                    for at in &plan.inputs {
                        let range = pieces[*at].range;
                        for edge in [range.min_ms, range.max_ms] {
                            prop_assert!(plan.windows.iter().any(|own| own.contains(edge)));
                        }
                    }
                    let mut position = 0;
                    pieces.retain(|_| { position += 1; !plan.inputs.contains(&(position - 1)) });
                    pieces.extend(written);
                    pieces.sort_by_key(|own| std::cmp::Reverse(own.level));
                    for (at, a) in pieces.iter().enumerate() {
                        let same = |b: &&Piece| b.level == a.level && b.range.overlaps(a.range);
                        prop_assert!(a.level == 0 || pieces[at + 1..].iter().find(same).is_none());
                    }
                }
            }
        }
    }
}
