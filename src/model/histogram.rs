//! Native histograms: exponential buckets of a schema, or custom bounds (schema −53).
//!
//! Counts are floats whatever the source counted in: PromQL evaluates nothing else, and an integer
//! count is exact up to 2^53. Spans say which bucket indexes are present, as on the wire.

use std::sync::Arc;

use crate::model::sample::is_stale_nan;

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
    /// Whether the sample says that the series ended.
    pub fn is_stale(&self) -> bool {
        is_stale_nan(self.sum)
    }

    /// All counts and the sum multiplied; counts that turn negative make it a gauge.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let mut out = self.clone();
        out.zero_count *= factor;
        out.count *= factor;
        out.sum *= factor;
        let buckets = out.positive_buckets.iter_mut().chain(&mut out.negative_buckets);
        buckets.for_each(|count| *count *= factor);
        if factor < 0.0 {
            out.reset_hint = ResetHint::Gauge;
        }
        out
    }

    /// Whether its bounds are listed.
    pub fn has_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }
}
