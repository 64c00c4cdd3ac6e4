//! Classic histograms that become native ones with listed bounds
//! (`convert_classic_histograms_to_nhcb`).

use crate::encoding::column::histogram::ITEMS_MAX;
use crate::model::exemplar::Exemplar;
use crate::model::histogram::Histogram;
use crate::scrape::cache::LineId;

/// What a series of a classic histogram tells of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::scrape) enum PartOf {
    /// Observations up to the bound.
    Bucket(f64),
    /// All observations.
    Count,
    /// Their sum.
    Sum,
}

/// A classic histogram while its series are read.
#[derive(Debug, Default)]
pub(super) struct Classic {
    /// Upper bounds and cumulative counts, in order of arrival.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// A histogram whose series are being read line by line.
#[derive(Debug)]
pub(super) struct Open {
    /// The line that stands for the native histogram.
    pub line: LineId,
    /// Whether that line is new.
    pub is_new: bool,
    /// Whether the body had no such histogram before.
    pub is_first: bool,
    /// What was read of it.
    pub classic: Classic,
    /// Explicit timestamp.
    pub timestamp_ms: Option<i64>,
    /// When counting began; 0: not known.
    pub start_ms: i64,
    /// Those with a time.
    pub exemplars: Vec<Exemplar>,
}

impl Classic {
    /// Takes in the value of one series.
    pub fn add(&mut self, part: PartOf, value: f64) {
        match part {
            PartOf::Bucket(bound) if self.buckets.len() <= ITEMS_MAX => {
                self.buckets.push((bound, value));
            }
            PartOf::Bucket(_) => {}
            PartOf::Count => self.count = Some(value),
            PartOf::Sum => self.sum = value,
        }
    }

    /// The native histogram; `None` when the series contradict each other.
    pub fn convert(mut self) -> Option<Histogram> {
        if self.buckets.is_empty() && self.count.is_none() || ITEMS_MAX < self.buckets.len() {
            return None;
        }
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|later, first| later.0 == first.0);
        let last = self.buckets.last().copied();
        let count = self.count.or(last.map(|own| own.1)).unwrap_or(0.0);
        if last.is_none_or(|own| own.0 != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let is_count = |value: f64| value.is_finite() && value >= 0.0;
        let ascends = self.buckets.is_sorted_by(|a, b| a.1 <= b.1);
        if !ascends || !self.buckets.iter().all(|own| is_count(own.1) && !own.0.is_nan()) {
            return None;
        }
        let is_whole = self.buckets.iter().all(|own| own.1.fract() == 0.0) && count.fract() == 0.0;
        let own = Histogram::from_cumulative(&self.buckets, count, self.sum);
        own.check(is_whole).ok()?;
        Some(own.compacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(parts: &[(PartOf, f64)]) -> String {
        let mut classic = Classic::default();
        for (part, value) in parts {
            classic.add(*part, *value);
        }
        classic.convert().map_or("none".to_owned(), |own| {
            format!(
                "{} {} {:?} {:?} {:?}",
                own.count,
                own.sum,
                own.custom_bounds,
                own.positive_spans
                    .iter()
                    .map(|span| (span.offset, span.length))
                    .collect::<Vec<_>>(),
                own.positive_buckets
            )
        })
    }

    #[test]
    fn buckets_become_differences() {
        use PartOf::{Bucket, Count, Sum};
        let inf = Bucket(f64::INFINITY);
        for (parts, expected) in [
            (
                vec![(Bucket(1.0), 2.0), (Bucket(2.0), 2.0), (inf, 5.0), (Count, 5.0), (Sum, 1.5)],
                "5 1.5 [1.0, 2.0] [(0, 1), (1, 1)] [2.0, 3.0]",
            ),
            (vec![(Count, 3.0), (Bucket(2.0), 2.5)], "3 0 [2.0] [(0, 2)] [2.5, 0.5]"),
            (vec![(Bucket(2.0), 3.0), (Bucket(1.0), 1.0)], "3 0 [1.0, 2.0] [(0, 2)] [1.0, 2.0]"),
            (vec![(Count, 0.0), (Sum, 0.0)], "0 0 [] [] []"),
            (vec![(Bucket(1.0), 2.0), (Bucket(2.0), 1.0)], "none"),
            (vec![(inf, 5.0), (Count, 6.0)], "none"),
            (vec![(Bucket(1.0), -1.0)], "none"),
            (vec![(Bucket(1.0), f64::NAN)], "none"),
            (vec![(Sum, 1.0)], "none"),
        ] {
            assert_eq!(converted(&parts), expected, "{parts:?}");
        }
    }
}
