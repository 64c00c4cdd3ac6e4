//! What the text formats consist of, and the errors of reading them.

use std::borrow::Cow;

use crate::model::metadata::MetricType;

/// One line of an exposition.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// `# TYPE`
    Type {
        /// Name of the family.
        metric: Cow<'a, str>,
        /// Its type.
        metric_type: MetricType,
        /// The whole line with its newline.
        line: &'a [u8],
    },
    /// `# HELP`
    Help {
        /// Name of the family.
        metric: Cow<'a, str>,
        /// Unescaped text.
        help: Cow<'a, str>,
        /// The whole line with its newline.
        line: &'a [u8],
    },
    /// `# UNIT` (OpenMetrics)
    Unit {
        /// Name of the family.
        metric: Cow<'a, str>,
        /// The unit.
        unit: Cow<'a, str>,
        /// The whole line with its newline.
        line: &'a [u8],
    },
    /// Any other comment.
    Comment,
    /// A sample.
    Sample(Sample<'a>),
}

/// One sample line. The series is still text: [`super::series::parse`] reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Metric name and labels as written, without surrounding blanks; lexically valid.
    pub series: &'a [u8],
    /// Explicit timestamp.
    pub timestamp_ms: Option<i64>,
    /// Value; every NaN is [`crate::model::sample::NORMAL_NAN_BITS`].
    pub value: f64,
    /// Exemplar (OpenMetrics).
    pub exemplar: Option<Exemplar<'a>>,
}

/// An exemplar, checked lexically.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// Its labels with their braces.
    pub labels: &'a [u8],
    /// Its value.
    pub value: f64,
    /// Its timestamp.
    pub timestamp_ms: Option<i64>,
}

/// An exposition is malformed. The text is that of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// What is wrong.
    pub message: String,
    /// Where the line begins that is wrong.
    pub offset_bytes: usize,
}
