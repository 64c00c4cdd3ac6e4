//! Quantiles, fractions and moments of one native histogram.

use crate::model::histogram::{Bucket, Histogram};
use crate::model::kahan::Kahan;

use super::super::super::annotations::NanEffect;

/// A number and what has to be said about it.
type Remarked = (f64, Option<NanEffect>);

/// The zero bucket of a histogram that has observations on one side only ends at zero.
fn one_sided(bucket: &mut Bucket, histogram: &Histogram) {
    match (histogram.negative_buckets.is_empty(), histogram.positive_buckets.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
}

/// The quantile: on a straight line within the zero bucket and custom buckets, else on one of
/// logarithms. Ranks are counted from the nearer end, unless there may be observations that are no
/// numbers: those lie in no bucket and count as the highest.
pub(super) fn quantile(quantile: f64, histogram: &Histogram) -> Remarked {
    if quantile < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if 1.0 < quantile {
        return (f64::INFINITY, None);
    }
    if histogram.count == 0.0 || quantile.is_nan() {
        return (f64::NAN, None);
    }
    let forward = histogram.sum.is_nan() || quantile < 0.5;
    let mut buckets = histogram.buckets(true);
    if !forward {
        buckets.reverse();
    }
    let mut rank = histogram.count * if forward { quantile } else { 1.0 - quantile };
    let mut bucket = histogram.zero_bucket();
    (bucket.lower, bucket.upper, bucket.count) = (0.0, 0.0, 0.0);
    let (mut count, mut seen) = (0.0, 0);
    for next in &buckets {
        seen += 1;
        // The last bucket looked at stays, be it empty.
        bucket = *next;
        if next.count == 0.0 {
            continue;
        }
        count += next.count;
        if rank <= count {
            break;
        }
    }
    let custom = histogram.has_custom_buckets();
    if custom {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, None);
        }
    } else if bucket.lower < 0.0 && 0.0 < bucket.upper {
        one_sided(&mut bucket, histogram);
    }
    // Sums of buckets may be rounded up.
    count = count.min(histogram.count);
    if count < rank {
        return if histogram.sum.is_nan() {
            (f64::NAN, Some(NanEffect::Result))
        } else {
            (bucket.upper, None)
        };
    }
    rank = if forward { rank - (count - bucket.count) } else { count - rank };
    let rest: f64 = buckets[seen..].iter().map(|bucket| bucket.count).sum();
    let skewed = histogram.sum.is_nan() && count + rest < histogram.count;
    let value = within(&bucket, rank / bucket.count, custom);
    (value, skewed.then_some(NanEffect::Skew))
}

/// The value below which a share of a bucket lies.
fn within(bucket: &Bucket, share: f64, linear: bool) -> f64 {
    if linear || bucket.lower <= 0.0 && 0.0 <= bucket.upper {
        return bucket.lower + (bucket.upper - bucket.lower) * share;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if 0.0 < bucket.lower {
        return (lower + (upper - lower) * share).exp2();
    }
    -(upper + (lower - upper) * (1.0 - share)).exp2()
}

/// The share of all observations between two values.
pub(super) fn fraction(lower: f64, upper: f64, histogram: &Histogram) -> Remarked {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if upper <= lower {
        return (0.0, None);
    }
    let buckets = histogram.buckets(true);
    let (mut count, mut remark) = (histogram.count, None);
    if histogram.sum.is_nan() {
        // Observations that are no numbers lie in no bucket.
        count = buckets.iter().map(|bucket| bucket.count).sum();
        remark = (count < histogram.count).then_some(NanEffect::Excluded);
    }
    let rank = |value: f64| {
        let rank = rank_of(value, &buckets, histogram);
        rank.filter(|rank| *rank <= count).unwrap_or(count)
    };
    ((rank(upper) - rank(lower)) / histogram.count, remark)
}

/// How many observations lie below a value; `None`: beyond all buckets.
fn rank_of(value: f64, buckets: &[Bucket], histogram: &Histogram) -> Option<f64> {
    let custom = histogram.has_custom_buckets();
    let mut rank = 0.0;
    for bucket in buckets {
        let mut bucket = *bucket;
        let is_zero = bucket.lower <= 0.0 && 0.0 <= bucket.upper;
        if is_zero {
            one_sided(&mut bucket, histogram);
        }
        if value <= bucket.lower {
            return Some(rank);
        }
        if value < bucket.upper {
            // Nothing is known about where observations lie in a bucket without a lower end.
            if bucket.lower == f64::NEG_INFINITY {
                return Some(bucket.count);
            }
            return Some(rank + bucket.count * bucket.fraction_below(value, custom || is_zero));
        }
        rank += bucket.count;
    }
    None
}

/// The variance, as if all observations of a bucket lay in its middle.
pub(super) fn variance(histogram: &Histogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut variance = Kahan::default();
    for bucket in histogram.buckets(true).iter().filter(|bucket| bucket.count != 0.0) {
        let middle = if histogram.has_custom_buckets() {
            f64::midpoint(bucket.upper, bucket.lower)
        } else if bucket.lower <= 0.0 && 0.0 <= bucket.upper {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = middle - mean;
        variance.add(bucket.count * delta * delta);
    }
    (variance.sum + variance.compensation) / histogram.count
}
