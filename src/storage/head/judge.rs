//! Which samples are taken: Prometheus' rules of order, duplicates and bounds.

use foldhash::HashMap;
use roaring::RoaringBitmap;

use crate::base::pages::reserve_large;
use crate::model::sample::TimeRange;
use crate::storage::append::RejectReason;
use crate::storage::registry::SeriesRef;

/// Without an out-of-order window, a sample may still be this much older than the head's newest:
/// half of Prometheus' chunk range.
const IN_ORDER_WINDOW_MS: i64 = 3_600_000;
/// The time of a series without samples.
pub const NO_SAMPLE: i64 = i64::MIN;

/// What samples of one batch are measured against.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the name")]
pub struct Bounds {
    /// Newest acceptable timestamp.
    pub max_ms: i64,
    /// Newest sample of the head before the batch; none: the head is empty.
    pub head_max_ms: Option<i64>,
    /// How far behind that out-of-order data is accepted; 0: not at all.
    pub window_ms: i64,
}

/// What becomes of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Newer than all of its series.
    InOrder,
    /// Older than its series' newest, taken nevertheless.
    Late,
    /// There already, bit for bit.
    Same,
    /// Not taken.
    Refused(RejectReason),
}

/// Newest sample of each series, by number.
#[derive(Debug, Default)]
pub struct Newest {
    ms: Vec<i64>,
    bits: Vec<u64>,
    /// Series whose newest sample was deleted: another one may have its time.
    hollow: RoaringBitmap,
    /// Times of the newest histograms; a float may have come since. Not known of those that were
    /// sealed before the last start.
    histograms: HashMap<SeriesRef, i64>,
}

/// What was known of the newest sample of a series.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    timestamp_ms: i64,
    bits: u64,
    is_hollow: bool,
    is_histogram: bool,
}

impl Newest {
    /// Makes room for all numbers below `len`.
    pub fn grow(&mut self, len: usize) {
        if self.ms.len() < len {
            self.ms.resize(len, NO_SAMPLE);
            self.bits.resize(len, 0);
        }
    }

    /// Gets memory for all numbers below `len`.
    pub fn reserve(&mut self, len: usize) {
        reserve_large(&mut self.ms, len);
        reserve_large(&mut self.bits, len);
    }

    /// Time (or [`NO_SAMPLE`]) and value of the newest sample.
    #[inline]
    pub fn get(&self, series: SeriesRef) -> (i64, u64) {
        (self.ms[series as usize], self.bits[series as usize])
    }

    /// Value of the newest sample; 0 when there is none.
    #[inline]
    pub fn bits(&self, series: SeriesRef) -> u64 {
        self.bits.get(series as usize).copied().unwrap_or(0)
    }

    /// Replaces it.
    #[inline]
    pub fn set(&mut self, series: SeriesRef, timestamp_ms: i64, bits: u64) {
        self.ms[series as usize] = timestamp_ms;
        self.bits[series as usize] = bits;
        if !self.hollow.is_empty() {
            self.hollow.remove(series);
        }
    }

    /// Replaces it by a histogram.
    pub fn set_histogram(&mut self, series: SeriesRef, timestamp_ms: i64, bits: u64) {
        self.set(series, timestamp_ms, bits);
        self.histograms.insert(series, timestamp_ms);
    }

    /// Whether it is a histogram, as far as is known.
    pub fn is_histogram(&self, series: SeriesRef) -> bool {
        self.histograms.get(&series).is_some_and(|own_ms| *own_ms == self.ms[series as usize])
    }

    /// The series has no sample any more.
    pub fn forget(&mut self, series: SeriesRef) {
        self.set(series, NO_SAMPLE, 0);
        self.histograms.remove(&series);
    }

    /// What is known of it, for [`Newest::restore`].
    pub fn before(&self, series: SeriesRef) -> Before {
        let (timestamp_ms, bits) = self.get(series);
        let is_histogram = self.is_histogram(series);
        Before { timestamp_ms, bits, is_hollow: self.hollow.contains(series), is_histogram }
    }

    /// Makes it what it was.
    pub fn restore(&mut self, series: SeriesRef, before: Before) {
        self.set(series, before.timestamp_ms, before.bits);
        self.set_hollow(series, before.is_hollow);
        if before.is_histogram {
            self.histograms.insert(series, before.timestamp_ms);
        }
    }

    /// What a sample of this time is judged against.
    #[inline]
    pub fn get_for(&self, series: SeriesRef, timestamp_ms: i64) -> (i64, u64) {
        let (newest_ms, bits) = self.get(series);
        let is_again = !self.hollow.is_empty() && newest_ms == timestamp_ms;
        if is_again && newest_ms != NO_SAMPLE && self.hollow.contains(series) {
            return (newest_ms - 1, bits);
        }
        (newest_ms, bits)
    }

    /// Samples in the range were deleted.
    pub fn hollow_out(&mut self, series: SeriesRef, range: TimeRange) {
        let newest_ms = self.ms.get(series as usize).copied().unwrap_or(NO_SAMPLE);
        if newest_ms != NO_SAMPLE && range.contains(newest_ms) {
            self.hollow.insert(series);
        }
    }

    /// Series whose newest sample was deleted.
    pub fn hollow(&self) -> &RoaringBitmap {
        &self.hollow
    }

    /// The newest sample of the series was deleted, or was not after all.
    pub fn set_hollow(&mut self, series: SeriesRef, is_hollow: bool) {
        if is_hollow {
            self.hollow.insert(series);
        } else {
            self.hollow.remove(series);
        }
    }

    /// How many numbers there is room for.
    pub fn len(&self) -> usize {
        self.ms.len()
    }

    /// The newest of all.
    pub fn max_ms(&self) -> Option<i64> {
        self.ms.iter().copied().max().filter(|newest| *newest != NO_SAMPLE)
    }

    /// All times and values, by number.
    pub fn parts(&self) -> (&[i64], &[u64]) {
        (&self.ms, &self.bits)
    }
}

impl Bounds {
    /// Judges a sample against the newest one of its series. `strict`: out-of-order data is
    /// refused whatever the window.
    #[inline]
    pub fn judge(&self, newest: (i64, u64), timestamp_ms: i64, bits: u64, strict: bool) -> Verdict {
        if timestamp_ms > self.max_ms || timestamp_ms == NO_SAMPLE {
            return Verdict::Refused(RejectReason::OutOfBounds);
        }
        // Samples from a time that the clock showed by mistake do not keep out those of now.
        let head_max_ms = self.head_max_ms.unwrap_or(timestamp_ms).min(self.max_ms);
        let is_astray = self.max_ms < newest.0;
        let in_order_min_ms = head_max_ms.saturating_sub(IN_ORDER_WINDOW_MS.max(self.window_ms));
        if timestamp_ms >= in_order_min_ms {
            if timestamp_ms > newest.0 {
                return Verdict::InOrder;
            }
            if timestamp_ms == newest.0 {
                if bits == newest.1 {
                    return Verdict::Same;
                }
                return Verdict::Refused(RejectReason::DuplicateTimestamp);
            }
        }
        if self.window_ms > 0 {
            if timestamp_ms < head_max_ms.saturating_sub(self.window_ms) {
                return Verdict::Refused(RejectReason::TooOld);
            }
            if strict {
                return Verdict::Refused(RejectReason::OutOfOrder);
            }
            return Verdict::Late;
        }
        if timestamp_ms < in_order_min_ms {
            return Verdict::Refused(RejectReason::OutOfBounds);
        }
        if is_astray && !strict {
            return Verdict::Late;
        }
        Verdict::Refused(RejectReason::OutOfOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn samples_are_judged_as_prometheus_does() {
        use RejectReason::{DuplicateTimestamp, OutOfBounds, OutOfOrder, TooOld};
        use Verdict::{InOrder, Late, Refused, Same};
        let none = (NO_SAMPLE, 0);
        let some = (100 * HOUR, 7);
        let cases = [
            // window, newest of the series, timestamp, bits, strict -> verdict
            (0, none, 99 * HOUR, 1, false, InOrder),
            (0, none, 99 * HOUR - 1, 1, false, Refused(OutOfBounds)),
            (0, some, 100 * HOUR + 1, 1, false, InOrder),
            (0, some, 100 * HOUR, 7, false, Same),
            (0, some, 100 * HOUR, 8, false, Refused(DuplicateTimestamp)),
            (0, some, 100 * HOUR - 1, 7, false, Refused(OutOfOrder)),
            (0, some, 98 * HOUR, 7, false, Refused(OutOfBounds)),
            (2 * HOUR, some, 98 * HOUR, 7, false, Late),
            (2 * HOUR, some, 98 * HOUR, 7, true, Refused(OutOfOrder)),
            (2 * HOUR, some, 98 * HOUR - 1, 7, false, Refused(TooOld)),
            (2 * HOUR, none, 98 * HOUR, 7, true, InOrder),
            (2 * HOUR, none, 98 * HOUR - 1, 7, false, Refused(TooOld)),
            (HOUR / 2, none, 99 * HOUR, 7, false, InOrder),
            (HOUR / 2, some, 99 * HOUR, 7, false, Refused(TooOld)),
            (i64::MAX, some, 0, 7, false, Late),
            (0, none, 101 * HOUR, 7, false, Refused(OutOfBounds)),
        ];
        for (window_ms, newest, timestamp_ms, bits, strict, expected) in cases {
            let head_max_ms = Some(100 * HOUR);
            let bounds = Bounds { max_ms: 101 * HOUR - 1, head_max_ms, window_ms };
            let verdict = bounds.judge(newest, timestamp_ms, bits, strict);
            assert_eq!(verdict, expected, "{window_ms} {newest:?} {timestamp_ms} {strict}");
        }
        // The clock was 100 hours ahead for a moment.
        let astray = (200 * HOUR, 7);
        for (window_ms, newest, timestamp_ms, strict, expected) in [
            (0, some, 100 * HOUR + 1, false, InOrder),
            (0, none, 100 * HOUR, false, InOrder),
            (0, astray, 100 * HOUR, false, Late),
            (0, astray, 100 * HOUR, true, Refused(OutOfOrder)),
            (0, astray, 99 * HOUR, false, Refused(OutOfBounds)),
            (HOUR, astray, 100 * HOUR, false, Late),
            (HOUR, astray, 99 * HOUR, false, Refused(TooOld)),
        ] {
            let bounds =
                Bounds { max_ms: 101 * HOUR - 1, head_max_ms: Some(200 * HOUR), window_ms };
            let verdict = bounds.judge(newest, timestamp_ms, 1, strict);
            assert_eq!(verdict, expected, "{window_ms} {newest:?} {timestamp_ms} {strict}");
        }
        let empty = Bounds { max_ms: HOUR, head_max_ms: None, window_ms: 0 };
        assert_eq!(empty.judge(none, -5, 1, false), InOrder);
    }
}
