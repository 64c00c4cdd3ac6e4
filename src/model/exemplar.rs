//! Exemplars: one observation behind a sample, mostly with the trace that it belongs to.

use crate::model::labels::Labels;

/// Letters that names and values of an exemplar's labels may have together, as in OpenMetrics.
pub const LABEL_LETTERS_MAX: usize = 128;

/// One exemplar of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its own labels, `trace_id` among them.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// When.
    pub timestamp_ms: i64,
}

impl Exemplar {
    /// Whether its labels are short enough to be kept.
    pub fn is_short(&self) -> bool {
        let letters = |(name, value): (&str, &str)| name.chars().count() + value.chars().count();
        self.labels.iter().map(letters).sum::<usize>() <= LABEL_LETTERS_MAX
    }
}
