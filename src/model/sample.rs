//! Samples and the stale marker.

/// The one NaN that means "this series ended here". All other NaNs are ordinary values, so this
/// one is told apart by bits (`value.StaleNaN` of Prometheus).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// What scraping turns every other NaN into (`value.NormalNaN`).
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The stale marker as a value.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the stale marker, bit for bit.
pub fn is_stale_nan(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// A value at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Any bit pattern.
    pub value: f64,
}

/// A span of time with inclusive bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First millisecond that belongs to it.
    pub min_ms: i64,
    /// Last millisecond that belongs to it.
    pub max_ms: i64,
}

impl TimeRange {
    /// Everything.
    pub const ALL: Self = Self { min_ms: i64::MIN, max_ms: i64::MAX };

    /// Whether the moment lies within.
    pub fn contains(self, timestamp_ms: i64) -> bool {
        self.min_ms <= timestamp_ms && timestamp_ms <= self.max_ms
    }

    /// Whether any moment lies within both.
    pub fn overlaps(self, other: Self) -> bool {
        self.min_ms <= other.max_ms && other.min_ms <= self.max_ms
    }
}
