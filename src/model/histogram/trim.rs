//! Histograms of the observations on one side of a value (`</` and `>/`).
//!
//! Where the value cuts a bucket, its observations are divided as quantiles divide them; the sum is
//! estimated from the middles of buckets.

use super::{Bucket, Histogram};

/// What is kept of a bucket: how many observations, and where they lie on average.
type Kept = (f64, f64);

impl Histogram {
    /// Only the observations up to `bound`.
    #[must_use]
    pub fn trimmed_above(&self, bound: f64) -> Self {
        self.trimmed(bound, true)
    }

    /// Only the observations from `bound` on.
    #[must_use]
    pub fn trimmed_below(&self, bound: f64) -> Self {
        self.trimmed(bound, false)
    }

    fn trimmed(&self, bound: f64, keep_lower: bool) -> Self {
        let mut out = self.clone();
        let (mut count, mut sum) = (0.0, 0.0);
        let mut changed = false;
        let linear = self.has_custom_buckets();
        let mut side = |counts: &mut [f64], buckets: Vec<Bucket>, positive: bool| {
            let mut any = false;
            for (kept, bucket) in counts.iter_mut().zip(buckets) {
                if bucket.count == 0.0 {
                    continue;
                }
                any = true;
                let (left, middle) = kept_of(&bucket, bound, keep_lower, positive, linear);
                changed |= left != bucket.count;
                *kept = left;
                count += left;
                sum += middle * left;
            }
            any
        };
        let positive = self.positive_counts().map(|(at, count)| self.positive_bucket(at, count));
        let has_positive = side(&mut out.positive_buckets, positive.collect(), true);
        let negative = self.negative_counts().map(|(at, count)| self.negative_bucket(at, count));
        let has_negative = side(&mut out.negative_buckets, negative.collect(), false);
        if 0.0 < self.zero_count {
            let mut zero = self.zero_bucket();
            if has_negative && !has_positive {
                zero.upper = 0.0;
            }
            if has_positive && !has_negative {
                zero.lower = 0.0;
            }
            let (left, middle) = kept_of_zero(&zero, bound, keep_lower);
            changed |= left != self.zero_count;
            out.zero_count = left;
            count += left;
            sum += middle * left;
        }
        if !changed {
            return out;
        }
        (out.count, out.sum) = (count, sum);
        out.compacted()
    }
}

fn kept_of(bucket: &Bucket, bound: f64, keep_lower: bool, positive: bool, linear: bool) -> Kept {
    let whole = (bucket.count, middle(bucket.lower, bucket.upper, positive, linear));
    let (is_inside, is_outside) = if keep_lower {
        (bucket.upper <= bound, bound <= bucket.lower || bound.is_nan())
    } else {
        (bound <= bucket.lower, bucket.upper <= bound || bound.is_nan())
    };
    if is_inside {
        return whole;
    }
    if is_outside {
        return (0.0, 0.0);
    }
    if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
        return kept_of_endless(bucket, bound, keep_lower);
    }
    let below = bucket.count * bucket.fraction_below(bound, linear);
    if keep_lower {
        (below, middle(bucket.lower, bound, positive, linear))
    } else {
        (bucket.count - below, middle(bound, bucket.upper, positive, linear))
    }
}

/// Of a bucket without an end it is not known where its observations lie, except that the lowest of
/// custom buckets starts at zero when it ends above.
fn kept_of_endless(bucket: &Bucket, bound: f64, keep_lower: bool) -> Kept {
    if bucket.lower != f64::NEG_INFINITY {
        return if keep_lower { (0.0, 0.0) } else { (bucket.count, bound) };
    }
    let from_zero = bucket.upper != f64::INFINITY;
    if keep_lower {
        if 0.0 < bound && 0.0 < bucket.upper && from_zero {
            (bucket.count * bound / bucket.upper, bound / 2.0)
        } else if bucket.upper <= 0.0 {
            (bucket.count, bound)
        } else {
            (0.0, 0.0)
        }
    } else if 0.0 <= bound && from_zero {
        (bucket.count * (1.0 - bound / bucket.upper), f64::midpoint(bound, bucket.upper))
    } else {
        (0.0, 0.0)
    }
}

fn kept_of_zero(zero: &Bucket, bound: f64, keep_lower: bool) -> Kept {
    let (lower, upper) = (zero.lower, zero.upper);
    let whole = (zero.count, f64::midpoint(lower, upper));
    let nothing = (0.0, 0.0);
    if bound <= lower {
        return if keep_lower { nothing } else { whole };
    }
    if upper <= bound {
        return if keep_lower { whole } else { nothing };
    }
    let (share, middle) = if keep_lower {
        ((bound - lower) / (upper - lower), f64::midpoint(lower, bound))
    } else {
        ((upper - bound) / (upper - lower), f64::midpoint(bound, upper))
    };
    (zero.count * share, middle)
}

/// Where observations between two borders lie on average.
fn middle(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if 0.0 < upper => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => f64::midpoint(lower, upper),
        (false, false) => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
