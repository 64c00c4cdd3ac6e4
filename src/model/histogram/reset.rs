//! Whether counting started again between two samples.

use super::bounds::{coarser, upper};
use super::sum::{HistogramSum, common_bounds};
use super::{Histogram, ResetHint};

impl Histogram {
    /// Whether counting started again between `previous` and this sample: as the sample itself
    /// says, else when any count fell or the buckets became finer.
    pub fn is_reset_since(&self, previous: &Self) -> bool {
        match self.reset_hint {
            ResetHint::CounterReset => return true,
            ResetHint::NotCounterReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.has_custom_buckets() {
            if !previous.has_custom_buckets() {
                return true;
            }
            if self.custom_bounds != previous.custom_bounds {
                return self.fell_within_common_bounds(previous);
            }
        }
        if previous.schema < self.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        if self.zero_threshold == previous.zero_threshold {
            return self.any_count_fell(previous);
        }
        let mut widened = HistogramSum::of(previous);
        widened.widen_zero_bucket(self.zero_threshold);
        let widened = widened.rounded();
        widened.zero_threshold != self.zero_threshold || self.any_count_fell(&widened)
    }

    /// Whether a bucket or the zero bucket holds less; `previous` has no finer schema.
    fn any_count_fell(&self, previous: &Self) -> bool {
        let steps = previous.schema.abs_diff(self.schema);
        let fell = |own: &mut dyn Iterator<Item = (i32, f64)>,
                    before: &mut dyn Iterator<Item = (i32, f64)>| {
            let (mut own, mut before) = (own.peekable(), before.peekable());
            while let Some((index, count)) = before.next() {
                let (index, mut count) = (coarser_by(index, steps), count);
                while let Some((_, more)) =
                    before.next_if(|(next, _)| coarser_by(*next, steps) == index)
                {
                    count += more;
                }
                // What lies in the zero bucket has been counted there.
                if !self.has_custom_buckets()
                    && upper(index, self.schema, None) <= self.zero_threshold
                {
                    continue;
                }
                while own.next_if(|(own_index, _)| *own_index < index).is_some() {}
                let found = own.peek().filter(|(own_index, _)| *own_index == index);
                if found.map_or(count != 0.0, |(_, own_count)| *own_count < count) {
                    return true;
                }
            }
            false
        };
        self.zero_count < previous.zero_count
            || fell(&mut self.positive_counts(), &mut previous.positive_counts())
            || fell(&mut self.negative_counts(), &mut previous.negative_counts())
    }

    /// The same for custom buckets with other bounds: between the bounds that both have.
    fn fell_within_common_bounds(&self, previous: &Self) -> bool {
        let common = common_bounds(&self.custom_bounds, &previous.custom_bounds);
        let counts = |histogram: &Self| {
            let mut counts = vec![0.0; common.len() + 1];
            for (index, count) in histogram.positive_counts() {
                let bound = upper(index, 0, Some(&histogram.custom_bounds));
                counts[common.partition_point(|candidate| *candidate < bound)] += count;
            }
            counts
        };
        counts(self).iter().zip(counts(previous)).any(|(own, before)| *own < before)
    }
}

fn coarser_by(index: i32, steps: u32) -> i32 {
    if steps == 0 { index } else { coarser(index, steps) }
}
