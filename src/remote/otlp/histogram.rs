//! Histograms of OpenTelemetry as native histograms.

use crate::encoding::column::histogram::check_size;
use crate::encoding::wire::otlp::{Buckets, ExponentialPoint, HistogramPoint, PointHead};
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Histogram, Span};
use crate::model::sample::stale_nan;

/// Coarsest buckets there are.
const SCHEMA_MIN: i32 = -4;
/// Finest buckets there are; finer ones are merged.
const SCHEMA_MAX: i32 = 8;
/// OpenTelemetry does not tell how wide the zero bucket is; Prometheus takes this.
const ZERO_THRESHOLD: f64 = 1e-128;

/// Fills in what both kinds have: totals, unless the series ended.
fn finished(
    mut out: Histogram,
    head: &PointHead,
    count: u64,
    sum: Option<f64>,
) -> Result<Histogram, String> {
    if head.has_no_value() {
        return Ok(Histogram { sum: stale_nan(), ..Histogram::default() });
    }
    (out.count, out.sum) = (count as f64, sum.unwrap_or(0.0));
    if !check_size(&out) {
        return Err("histogram has too many buckets".to_owned());
    }
    let inside: f64 = out.positive_buckets.iter().chain(&out.negative_buckets).sum();
    if inside + out.zero_count != out.count && !out.sum.is_nan() {
        return Err(format!(
            "{} observations found in buckets, but the Count field is {count}: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)",
            inside + out.zero_count
        ));
    }
    Ok(out.compacted())
}

/// With exponential buckets.
pub(super) fn exponential(point: &ExponentialPoint) -> Result<Histogram, String> {
    if point.scale < SCHEMA_MIN {
        return Err(format!(
            "cannot convert exponential to native histogram. Scale must be >= {SCHEMA_MIN}, was {}",
            point.scale
        ));
    }
    let schema = point.scale.min(SCHEMA_MAX);
    let merged = (point.scale - schema) as u32;
    let (positive_spans, positive_buckets) = layout(&point.positive, merged)?;
    let (negative_spans, negative_buckets) = layout(&point.negative, merged)?;
    let out = Histogram {
        schema,
        zero_threshold: ZERO_THRESHOLD,
        zero_count: point.zero_count as f64,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..Histogram::default()
    };
    finished(out, &point.head, point.count, point.sum)
}

/// One span of buckets, of which two to the power of `merged` become one. Their bucket 0 is what
/// we count as 1.
fn layout(buckets: &Buckets, merged: u32) -> Result<(Vec<Span>, Vec<f64>), String> {
    let index_of = |at: usize| ((i64::from(buckets.offset) + at as i64) >> merged.min(63)) + 1;
    let first = index_of(0);
    let mut counts: Vec<f64> = Vec::new();
    for (at, count) in buckets.bucket_counts.iter().enumerate() {
        let position = (index_of(at) - first) as usize;
        if counts.len() <= position {
            counts.resize(position + 1, 0.0);
        }
        counts[position] += *count as f64;
    }
    if counts.is_empty() {
        return Ok((Vec::new(), counts));
    }
    let last = first + counts.len() as i64;
    let (Ok(offset), Ok(_)) = (i32::try_from(first), i32::try_from(last)) else {
        return Err("histogram has bucket indexes out of range".to_owned());
    };
    Ok((vec![Span { offset, length: counts.len() as u32 }], counts))
}

/// With listed bounds.
pub(super) fn custom(point: &HistogramPoint) -> Result<Histogram, String> {
    let is_ascending = point.explicit_bounds.is_sorted_by(|a, b| a < b);
    if !is_ascending || point.explicit_bounds.iter().any(|bound| bound.is_infinite()) {
        return Err("histogram bounds must be ascending and finite".to_owned());
    }
    if point.explicit_bounds.len() + 1 < point.bucket_counts.len() {
        return Err("histogram has more buckets than bounds".to_owned());
    }
    let counts: Vec<f64> = point.bucket_counts.iter().map(|count| *count as f64).collect();
    let length = counts.len() as u32;
    let spans = if length == 0 { Vec::new() } else { vec![Span { offset: 0, length }] };
    let out = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        positive_spans: spans,
        positive_buckets: counts,
        custom_bounds: point.explicit_bounds.as_slice().into(),
        ..Histogram::default()
    };
    finished(out, &point.head, point.count, point.sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(offset: i32, counts: &[u64]) -> Buckets {
        Buckets { offset, bucket_counts: counts.to_vec() }
    }

    #[test]
    fn fine_buckets_are_merged() {
        let point = ExponentialPoint {
            count: 10,
            sum: Some(3.0),
            scale: 9,
            positive: buckets(-3, &[1, 2, 3, 4]),
            ..ExponentialPoint::default()
        };
        let out = exponential(&point).unwrap();
        assert_eq!(out.schema, 8);
        // -3 | -2 -1 | 0 in pairs: -2, -1, 0; each one up.
        assert_eq!(out.positive_spans, [Span { offset: -1, length: 3 }]);
        assert_eq!(out.positive_buckets, [1.0, 5.0, 4.0]);
        assert_eq!((out.count, out.sum, out.zero_threshold), (10.0, 3.0, ZERO_THRESHOLD));
        let same = ExponentialPoint { scale: 8, ..point.clone() };
        assert_eq!(exponential(&same).unwrap().positive_spans[0].offset, -2);
        let wrong = ExponentialPoint { count: 11, ..point.clone() };
        assert!(exponential(&wrong).unwrap_err().starts_with("10 observations"));
        let coarse = ExponentialPoint { scale: -5, ..point.clone() };
        assert!(exponential(&coarse).unwrap_err().contains("must be >= -4, was -5"));
        let far = ExponentialPoint { positive: buckets(i32::MAX, &[5, 5]), scale: 0, ..point };
        assert!(exponential(&far).is_err());
    }

    #[test]
    fn listed_bounds_stay() {
        let mut point = HistogramPoint {
            count: 6,
            bucket_counts: vec![0, 4, 2],
            explicit_bounds: vec![1.0, 2.0],
            ..HistogramPoint::default()
        };
        let out = custom(&point).unwrap();
        assert_eq!(out.positive_spans, [Span { offset: 1, length: 2 }]);
        assert_eq!(out.positive_buckets, [4.0, 2.0]);
        assert_eq!(*out.custom_bounds, [1.0, 2.0]);
        point.head.flags = 1;
        assert!(custom(&point).unwrap().is_stale());
        point.explicit_bounds = vec![2.0, 1.0];
        assert!(custom(&point).is_err());
        point.explicit_bounds = vec![1.0];
        assert!(custom(&point).is_err());
    }
}
