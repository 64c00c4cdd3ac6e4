//! What a metric means: its type, help text and unit.

/// Bytes of a help text or a unit; longer ones are not kept.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// Type of a metric family, as in the exposition formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricType {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Classic or native histogram.
    Histogram,
    /// Histogram of current values.
    GaugeHistogram,
    /// Quantiles, sum and count.
    Summary,
    /// Key-value information.
    Info,
    /// One of several states.
    StateSet,
    /// Not told.
    #[default]
    Unknown,
}

impl MetricType {
    /// The lower-case word of the API and the exposition formats.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }
}

/// Metadata of one metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metadata {
    /// Type.
    pub metric_type: MetricType,
    /// Help text, unescaped.
    pub help: String,
    /// Unit, mostly empty.
    pub unit: String,
}
