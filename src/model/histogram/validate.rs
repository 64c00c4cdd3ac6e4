//! Whether a histogram that somebody sent makes sense. The texts are Prometheus'.

use super::{CUSTOM_BUCKETS_SCHEMA, Histogram, Span};
use crate::model::float::format_plain;

/// The coarsest exponential schema.
pub const SCHEMA_MIN: i32 = -4;
/// The finest exponential schema.
pub const SCHEMA_MAX: i32 = 8;
/// Finer schemas up to this are known, and are reduced to [`SCHEMA_MAX`].
pub const RESERVED_SCHEMA_MAX: i32 = 52;
/// Up to this all whole numbers are floats.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// What is wrong with a histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HistogramError(String);

const COUNT_MISMATCH: &str = "histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)";
const COUNT_TOO_LOW: &str = "histogram's observation count should be at least the number of observations found in the buckets";
const NEGATIVE_BUCKET: &str = "histogram has a bucket whose observation count is negative";
const NEGATIVE_COUNT: &str = "histogram's observation count is negative";
const NEGATIVE_OFFSET: &str = "histogram has a span whose offset is negative";
const SPANS_MISMATCH: &str = "histogram spans specify different number of buckets than provided";
const TOO_FEW_BOUNDS: &str = "histogram custom bounds are too few";
const BOUNDS_ORDER: &str = "histogram custom bounds must be in strictly increasing order";
const INFINITE_BOUND: &str = "histogram custom bounds must be finite";

fn error(text: impl Into<String>) -> HistogramError {
    HistogramError(text.into())
}

impl HistogramError {
    /// It has more of something than is kept.
    pub fn too_large(items_max: usize) -> Self {
        error(format!("histogram has more than {items_max} spans, buckets or bounds"))
    }
}

impl Histogram {
    /// Checks layout and counts. Of whole counts (`is_whole`) the buckets must add up to the count.
    pub fn check(&self, is_whole: bool) -> Result<(), HistogramError> {
        let of_side =
            |side: &'static str| move |err: HistogramError| error(format!("{side} side: {err}"));
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            let bounds = check_bounds(self);
            bounds.map_err(|err| error(format!("custom buckets: {err}")))?;
        } else if (SCHEMA_MIN..=SCHEMA_MAX).contains(&self.schema) {
            let (positive, negative) = (self.positive_buckets.len(), self.negative_buckets.len());
            check_spans(&self.positive_spans, positive).map_err(of_side("positive"))?;
            check_spans(&self.negative_spans, negative).map_err(of_side("negative"))?;
            check_counts(&self.negative_buckets).map_err(of_side("negative"))?;
            if !self.custom_bounds.is_empty() {
                return Err(error("histogram with exponential schema must not have custom bounds"));
            }
        } else {
            return Err(error(format!(
                "histogram has an invalid schema, which must be between {SCHEMA_MIN} and \
                 {SCHEMA_MAX} for exponential buckets, or {CUSTOM_BUCKETS_SCHEMA} for custom \
                 buckets, got schema {}",
                self.schema
            )));
        }
        check_counts(&self.positive_buckets).map_err(of_side("positive"))?;
        if is_whole { self.check_sum() } else { self.check_signs() }
    }

    fn check_signs(&self) -> Result<(), HistogramError> {
        if self.zero_count < 0.0 {
            let count = format_plain(self.zero_count);
            return Err(error(format!(
                "zero bucket has observation count of {count}: {NEGATIVE_BUCKET}"
            )));
        }
        if self.count < 0.0 {
            let count = format_plain(self.count);
            return Err(error(format!("observation count is {count}: {NEGATIVE_COUNT}")));
        }
        Ok(())
    }

    fn check_sum(&self) -> Result<(), HistogramError> {
        let buckets = self.positive_buckets.iter().chain(&self.negative_buckets);
        let found = buckets.sum::<f64>() + self.zero_count;
        if found > EXACT_MAX || self.count > EXACT_MAX {
            return Ok(());
        }
        let text = match self.sum.is_nan() {
            true if found > self.count => COUNT_TOO_LOW,
            false if found != self.count => COUNT_MISMATCH,
            _ => return Ok(()),
        };
        let count = self.count;
        Err(error(format!(
            "{found} observations found in buckets, but the Count field is {count}: {text}"
        )))
    }
}

fn check_counts(counts: &[f64]) -> Result<(), HistogramError> {
    match (1..).zip(counts).find(|(_, count)| **count < 0.0) {
        None => Ok(()),
        Some((number, count)) => {
            let count = format_plain(*count);
            Err(error(format!(
                "bucket number {number} has observation count of {count}: {NEGATIVE_BUCKET}"
            )))
        }
    }
}

fn check_spans(spans: &[Span], bucket_count: usize) -> Result<(), HistogramError> {
    let (mut found, mut end) = (0_u64, 0_i64);
    for (number, span) in (1..).zip(spans) {
        if number > 1 && span.offset < 0 {
            let offset = span.offset;
            return Err(error(format!(
                "span number {number} with offset {offset}: {NEGATIVE_OFFSET}"
            )));
        }
        found += u64::from(span.length);
        end += i64::from(span.offset) + i64::from(span.length);
    }
    if found != bucket_count as u64 {
        return Err(error(format!(
            "spans need {found} buckets, have {bucket_count} buckets: {SPANS_MISMATCH}"
        )));
    }
    // No value has such an index; sums of indexes stay within bounds without it.
    if i64::from(i32::MAX) < end {
        return Err(error(format!("spans end at bucket {end}, which no value belongs to")));
    }
    Ok(())
}

fn check_bounds(own: &Histogram) -> Result<(), HistogramError> {
    let mut previous = f64::NEG_INFINITY;
    for bound in own.custom_bounds.iter().copied() {
        if bound.is_nan() {
            return Err(error("histogram custom bounds must not be NaN"));
        }
        if bound <= previous {
            return Err(error(format!(
                "previous bound is {previous:.6} and current is {bound:.6}: {BOUNDS_ORDER}"
            )));
        }
        previous = bound;
    }
    if previous == f64::INFINITY {
        return Err(error(format!(
            "last +Inf bound must not be explicitly defined: {INFINITE_BOUND}"
        )));
    }
    if let Some(span) = own.positive_spans.first().filter(|span| span.offset < 0) {
        let offset = span.offset;
        return Err(error(format!("span number 1 with offset {offset}: {NEGATIVE_OFFSET}")));
    }
    check_spans(&own.positive_spans, own.positive_buckets.len())?;
    let lengths = own.positive_spans.iter().map(|span| i64::from(span.length));
    let length: i64 = lengths.sum::<i64>()
        + own.positive_spans.iter().map(|span| i64::from(span.offset)).sum::<i64>();
    let bound_count = own.custom_bounds.len();
    if (bound_count as i64) + 1 < length {
        return Err(error(format!(
            "only {bound_count} custom bounds defined which is insufficient to cover total span \
             length of {length}: {TOO_FEW_BOUNDS}"
        )));
    }
    for (is_wrong, text) in [
        (own.zero_count != 0.0, "custom buckets: must have zero count of 0"),
        (own.zero_threshold != 0.0, "custom buckets: must have zero threshold of 0"),
        (!own.negative_spans.is_empty(), "custom buckets: must not have negative spans"),
        (!own.negative_buckets.is_empty(), "custom buckets: must not have negative buckets"),
    ] {
        if is_wrong {
            return Err(error(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> Histogram {
        Histogram {
            count: 6.0,
            sum: 1.5,
            zero_count: 1.0,
            zero_threshold: 0.001,
            positive_spans: vec![Span { offset: -2, length: 1 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![2.0, 3.0],
            ..Histogram::default()
        }
    }

    fn custom() -> Histogram {
        Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            zero_count: 0.0,
            zero_threshold: 0.0,
            count: 5.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            custom_bounds: [1.0, 2.0].into(),
            ..valid()
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_as_prometheus_does() {
        let check = |own: Histogram, is_whole: bool, expected: &str| {
            let found = own.check(is_whole).map_err(|err| err.to_string());
            assert_eq!(found.err().unwrap_or_default(), expected, "{own:?}");
        };
        check(valid(), true, "");
        check(custom(), true, "");
        check(Histogram { sum: f64::NAN, count: 7.0, ..valid() }, true, "");
        let text =
            format!("6 observations found in buckets, but the Count field is 7: {COUNT_MISMATCH}");
        check(Histogram { count: 7.0, ..valid() }, true, &text);
        check(Histogram { count: 7.0, ..valid() }, false, "");
        let text =
            format!("6 observations found in buckets, but the Count field is 5: {COUNT_TOO_LOW}");
        check(Histogram { sum: f64::NAN, count: 5.0, ..valid() }, true, &text);
        let text = format!(
            "positive side: bucket number 2 has observation count of -3: {NEGATIVE_BUCKET}"
        );
        check(Histogram { positive_buckets: vec![2.0, -3.0], ..valid() }, true, &text);
        let text = format!("positive side: spans need 2 buckets, have 1 buckets: {SPANS_MISMATCH}");
        check(Histogram { positive_buckets: vec![2.0], ..valid() }, true, &text);
        let text = format!("zero bucket has observation count of -1: {NEGATIVE_BUCKET}");
        check(Histogram { zero_count: -1.0, ..valid() }, false, &text);
        check(
            Histogram { schema: 9, ..valid() },
            true,
            "histogram has an invalid schema, which must be between -4 and 8 for exponential \
             buckets, or -53 for custom buckets, got schema 9",
        );
        let text = format!(
            "custom buckets: previous bound is 2.000000 and current is 1.000000: {BOUNDS_ORDER}"
        );
        check(Histogram { custom_bounds: [2.0, 1.0].into(), ..custom() }, true, &text);
        let text = format!(
            "custom buckets: only 0 custom bounds defined which is insufficient to cover total \
             span length of 2: {TOO_FEW_BOUNDS}"
        );
        check(Histogram { custom_bounds: [].into(), ..custom() }, true, &text);
        let spans = vec![Span { offset: i32::MAX, length: 2 }];
        let text = "positive side: spans end at bucket 2147483649, which no value belongs to";
        check(Histogram { positive_spans: spans, ..valid() }, true, text);
    }
}
