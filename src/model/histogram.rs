//! Native histograms: exponential buckets of a schema, or custom bounds (schema −53).
//!
//! Counts are floats whatever the source counted in: PromQL evaluates nothing else, and an integer
//! count is exact up to 2^53. (Larger ones are rounded to 53 bits, also where Prometheus keeps
//! integers: in a dump or a remote read.) Spans say which bucket indexes are present, as on the wire.
//!
//! Operations of two histograms bring both to the coarser schema, the wider zero bucket and the
//! bounds that both have. Their results are compact: no empty bucket is kept.

mod bounds;
mod reset;
mod sum;
mod trim;
mod validate;

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use crate::model::float::format_general;
use crate::model::sample::is_stale_nan;

pub use bounds::Bucket;
pub use sum::{HistogramMean, HistogramSum, Incompatible, Merged};
pub use validate::{HistogramError, RESERVED_SCHEMA_MAX, SCHEMA_MAX, SCHEMA_MIN};

/// The schema of histograms whose bounds are listed (`nhcb`).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A run of neighbouring buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the end of the span before; the first one's is its first bucket index.
    pub offset: i32,
    /// Buckets in it.
    pub length: u32,
}

/// What the source says about a reset since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResetHint {
    /// Nothing; buckets tell.
    #[default]
    Unknown,
    /// Counting started again with this sample.
    CounterReset,
    /// It did not.
    NotCounterReset,
    /// Counts go up and down.
    Gauge,
}

/// One histogram sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// See [`ResetHint`].
    pub reset_hint: ResetHint,
    /// −4 to 8: bounds are powers of 2^(2^−schema); [`CUSTOM_BUCKETS_SCHEMA`]: listed bounds.
    pub schema: i32,
    /// Half width of the zero bucket, its bound included.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Their sum. The stale marker here makes the whole sample one.
    pub sum: f64,
    /// Which of the buckets above zero are present, in order of index.
    pub positive_spans: Vec<Span>,
    /// The same below zero, by distance from zero.
    pub negative_spans: Vec<Span>,
    /// Absolute (not cumulative, not delta) counts, one for each bucket of the positive spans.
    pub positive_buckets: Vec<f64>,
    /// The same for the negative spans.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, ascending, without +Inf. Empty for other schemas.
    pub custom_bounds: Arc<[f64]>,
}

impl Histogram {
    /// What the series of a classic histogram tell: upper bounds, ascending and ending with +Inf,
    /// with cumulative counts. Nothing is checked, and empty buckets are kept.
    pub fn from_cumulative(buckets: &[(f64, f64)], count: f64, sum: f64) -> Self {
        let mut below = 0.0;
        let own = |bucket: &(f64, f64)| bucket.1 - std::mem::replace(&mut below, bucket.1);
        let positive_buckets: Vec<f64> = buckets.iter().map(own).collect();
        let bounds = buckets.iter().map(|bucket| bucket.0).filter(|bound| bound.is_finite());
        Self {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum,
            positive_spans: vec![Span { offset: 0, length: positive_buckets.len() as u32 }],
            positive_buckets,
            custom_bounds: bounds.collect(),
            ..Self::default()
        }
    }

    /// Whether the sample says that the series ended.
    pub fn is_stale(&self) -> bool {
        is_stale_nan(self.sum)
    }

    /// Whether its bounds are listed.
    pub fn has_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Whether schema, bounds, counts and sum are the same, bit for bit. Spans may be cut
    /// differently; an empty bucket is not the same as none.
    pub fn has_same_values(&self, other: &Self) -> bool {
        let scalars = |own: &Self| {
            (own.count.to_bits(), own.sum.to_bits(), own.zero_count.to_bits(), own.schema)
        };
        let equal = |a: &mut dyn Iterator<Item = (i32, f64)>,
                     b: &mut dyn Iterator<Item = (i32, f64)>| {
            let bits = |(index, count): (i32, f64)| (index, count.to_bits());
            a.map(bits).eq(b.map(bits))
        };
        scalars(self) == scalars(other)
            && self.zero_threshold == other.zero_threshold
            && (!self.has_custom_buckets() || self.custom_bounds == other.custom_bounds)
            && equal(&mut self.positive_counts(), &mut other.positive_counts())
            && equal(&mut self.negative_counts(), &mut other.negative_counts())
    }

    /// Both added. When exactly one says that counting started again, nothing is known.
    pub fn add(&self, other: &Self) -> Result<(Self, Merged), Incompatible> {
        let mut sum = HistogramSum::of(self);
        let merged = sum.add(other)?;
        Ok((sum.rounded(), merged))
    }

    /// The other one subtracted; reset hints are merged as by [`Self::add`].
    pub fn subtract(&self, other: &Self) -> Result<(Self, Merged), Incompatible> {
        let mut sum = HistogramSum::of(self);
        let merged = sum.subtract(other)?;
        Ok((sum.rounded(), merged))
    }

    /// All counts and the sum multiplied; counts that turn negative make it a gauge.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let mut out = self.clone();
        out.each_count(|count| *count *= factor);
        if factor < 0.0 {
            out.reset_hint = ResetHint::Gauge;
        }
        out
    }

    /// All counts and the sum divided. By zero that leaves no bucket.
    #[must_use]
    pub fn divided(&self, by: f64) -> Self {
        let mut out = self.clone();
        if by == 0.0 {
            out.positive_spans.clear();
            out.positive_buckets.clear();
            out.negative_spans.clear();
            out.negative_buckets.clear();
        }
        out.each_count(|count| *count /= by);
        if by < 0.0 {
            out.reset_hint = ResetHint::Gauge;
        }
        out
    }

    fn each_count(&mut self, change: impl FnMut(&mut f64)) {
        let buckets = self.positive_buckets.iter_mut().chain(&mut self.negative_buckets);
        buckets.chain([&mut self.zero_count, &mut self.count, &mut self.sum]).for_each(change);
    }

    /// The same without empty buckets.
    #[must_use]
    pub fn compacted(mut self) -> Self {
        let compact = |spans: &mut Vec<Span>, counts: &mut Vec<f64>| {
            let tight = counts.iter().all(|count| *count != 0.0)
                && spans
                    .iter()
                    .enumerate()
                    .all(|(at, span)| span.length != 0 && (at == 0 || span.offset != 0));
            if !tight {
                let kept: Vec<_> =
                    bounds::indexed(spans, counts).filter(|(_, count)| *count != 0.0).collect();
                (*spans, *counts) = bounds::in_spans(kept);
            }
        };
        compact(&mut self.positive_spans, &mut self.positive_buckets);
        compact(&mut self.negative_spans, &mut self.negative_buckets);
        self
    }

    /// With the buckets of a coarser schema; itself when that is not coarser or bounds are listed.
    #[must_use]
    pub fn reduced(&self, schema: i32) -> Self {
        if self.has_custom_buckets() || self.schema <= schema {
            return self.clone();
        }
        let mut sum = HistogramSum::of(self);
        sum.reduce(schema);
        sum.rounded()
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        let spans = self.positive_spans.len() + self.negative_spans.len();
        let counts = self.positive_buckets.len() + self.negative_buckets.len();
        size_of::<Self>() + 8 * (spans + counts + self.custom_bounds.len())
    }
}

/// `{count:1, sum:2, (0.5,1]:1}`, without empty buckets.
impl Display for Histogram {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (count, sum) = (format_general(self.count), format_general(self.sum));
        write!(f, "{{count:{count}, sum:{sum}")?;
        for bucket in self.buckets(false).iter().filter(|bucket| bucket.count != 0.0) {
            let open = if bucket.lower_inclusive { '[' } else { '(' };
            let close = if bucket.upper_inclusive { ']' } else { ')' };
            let [lower, upper, count] =
                [bucket.lower, bucket.upper, bucket.count].map(format_general);
            write!(f, ", {open}{lower},{upper}{close}:{count}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
