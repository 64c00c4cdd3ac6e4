//! Buckets with their indexes and borders.

use std::sync::LazyLock;

use super::{Histogram, Span};

/// The finest exponential schema.
const SCHEMA_MAX: usize = 8;

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower border.
    pub lower: f64,
    /// Upper border.
    pub upper: f64,
    /// Whether the lower border belongs to it.
    pub lower_inclusive: bool,
    /// Whether the upper border belongs to it.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

impl Bucket {
    /// The share of its observations below a value strictly within finite borders: on a straight
    /// line, or on one of logarithms.
    pub fn fraction_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let at = value.abs().log2();
        if 0.0 < value {
            (at - lower) / (upper - lower)
        } else {
            1.0 - (at - upper) / (lower - upper)
        }
    }
}

/// Indexes and counts of the buckets in spans.
pub(super) fn indexed<'a>(
    spans: &'a [Span],
    counts: &'a [f64],
) -> impl Iterator<Item = (i32, f64)> + Clone + 'a {
    let mut end = 0_i32;
    let starts = spans.iter().map(move |span| {
        let start = end.wrapping_add(span.offset);
        end = start.wrapping_add(span.length as i32);
        (start, span.length)
    });
    // Zipped last, so that spans longer than the counts end with the counts.
    let indexes =
        starts.flat_map(|(start, length)| (0..length).map(move |at| start.wrapping_add(at as i32)));
    counts.iter().zip(indexes).map(|(count, index)| (index, *count))
}

/// Spans and counts of ascending indexes.
pub(super) fn in_spans(cells: impl IntoIterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut counts): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut end = 0_i32;
    for (index, count) in cells {
        match spans.last_mut() {
            Some(span) if index == end => span.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(end), length: 1 }),
        }
        end = index.wrapping_add(1);
        counts.push(count);
    }
    (spans, counts)
}

/// The index in a schema that is coarser by `steps`.
pub(super) fn coarser(index: i32, steps: u32) -> i32 {
    (index.wrapping_sub(1) >> steps.min(31)).wrapping_add(1)
}

/// The roots of two, halved: of schema n the powers of 2^(2^−n) in [0.5, 1).
static FRACTIONS: LazyLock<[Vec<f64>; SCHEMA_MAX + 1]> = LazyLock::new(|| {
    std::array::from_fn(|schema| {
        let count = 1_u32 << schema;
        (0..count).map(|at| 0.5 * (f64::from(at) / f64::from(count)).exp2()).collect()
    })
});

/// `fraction` times 2^`exponent`, also where the power alone is no float.
fn scaled(fraction: f64, exponent: i64) -> f64 {
    let half = (exponent / 2).clamp(-1022, 1023) as i32;
    let rest = (exponent - i64::from(half)).clamp(-1022, 1023) as i32;
    fraction * 2_f64.powi(half) * 2_f64.powi(rest)
}

/// Upper border of an exponential bucket above zero. The last one that holds numbers ends at the
/// greatest of them, and the one after it is for infinity.
fn exponential(index: i32, schema: i32) -> f64 {
    let index = i64::from(index);
    let (fraction, exponent) = if schema <= 0 {
        (0.5, (index << schema.unsigned_abs().min(16)) + 1)
    } else {
        let schema = schema.min(SCHEMA_MAX as i32);
        let in_octave = index & ((1 << schema) - 1);
        (FRACTIONS[schema as usize][in_octave as usize], (index >> schema) + 1)
    };
    if fraction == 0.5 && exponent == 1025 {
        return f64::MAX;
    }
    scaled(fraction, exponent)
}

/// Upper border of a bucket by distance from zero.
pub(super) fn upper(index: i32, schema: i32, custom: Option<&[f64]>) -> f64 {
    match (custom, usize::try_from(index)) {
        (None, _) => exponential(index, schema),
        (Some(bounds), Ok(at)) => bounds.get(at).copied().unwrap_or(f64::INFINITY),
        (Some(_), Err(_)) => f64::NEG_INFINITY,
    }
}

impl Histogram {
    fn custom(&self) -> Option<&[f64]> {
        self.has_custom_buckets().then_some(&*self.custom_bounds)
    }

    /// Indexes and counts above zero, ascending.
    pub(super) fn positive_counts(&self) -> impl Iterator<Item = (i32, f64)> + Clone + '_ {
        indexed(&self.positive_spans, &self.positive_buckets)
    }

    /// Indexes and counts below zero, by distance from zero.
    pub(super) fn negative_counts(&self) -> impl Iterator<Item = (i32, f64)> + Clone + '_ {
        indexed(&self.negative_spans, &self.negative_buckets)
    }

    /// A bucket above zero.
    pub(super) fn positive_bucket(&self, index: i32, count: f64) -> Bucket {
        let custom = self.custom();
        let upper_bound = upper(index, self.schema, custom);
        let lower = upper(index.wrapping_sub(1), self.schema, custom);
        let (lower_inclusive, upper_inclusive) = match custom {
            Some(_) => (index == 0, true),
            None => (lower < 0.0, 0.0 < upper_bound),
        };
        Bucket { lower, upper: upper_bound, lower_inclusive, upper_inclusive, count }
    }

    /// A bucket below zero.
    pub(super) fn negative_bucket(&self, index: i32, count: f64) -> Bucket {
        let lower = -upper(index, self.schema, None);
        let upper = -upper(index.wrapping_sub(1), self.schema, None);
        let (lower_inclusive, upper_inclusive) = (lower < 0.0, 0.0 < upper);
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count }
    }

    /// The zero bucket of an exponential schema.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// All buckets from the lowest to the highest, empty ones too; the zero bucket if there is
    /// something in it. Where `clipped`, none reaches into the zero bucket.
    pub fn buckets(&self, clipped: bool) -> Vec<Bucket> {
        let mut out: Vec<Bucket> = self
            .negative_counts()
            .map(|(index, count)| self.negative_bucket(index, count))
            .collect();
        out.reverse();
        let threshold = self.zero_threshold;
        if clipped {
            for bucket in &mut out {
                if bucket.upper < 0.0 && -threshold < bucket.upper {
                    bucket.upper = -threshold;
                }
            }
        }
        if 0.0 < self.zero_count && !self.has_custom_buckets() {
            out.push(self.zero_bucket());
        }
        out.extend(self.positive_counts().map(|(index, count)| {
            let mut bucket = self.positive_bucket(index, count);
            if clipped && 0.0 < bucket.lower && bucket.lower < threshold {
                bucket.lower = threshold;
            }
            bucket
        }));
        out
    }
}
