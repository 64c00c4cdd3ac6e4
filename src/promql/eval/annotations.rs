//! Warnings and infos that accompany a result, with Prometheus' texts.
//!
//! Equal texts are one annotation; the position of the last one is shown. A position is added only
//! at the end, when the query's text is at hand.

use std::collections::BTreeMap;

use crate::model::labels::quote;
use crate::promql::ast::Span;

use super::format::{general, general_rounded, rfc3339};

const WARNING: &str = "PromQL warning: ";
const INFO: &str = "PromQL info: ";
const MONOTONICITY: &str = "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";

/// The annotations of one query.
#[derive(Debug, Default)]
pub(in crate::promql) struct Annotations {
    notes: BTreeMap<String, Note>,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    span: Span,
    details: Details,
}

/// What is summed up over equal annotations.
#[derive(Clone, Copy, Debug)]
enum Details {
    None,
    Fixed(Fixed),
    /// How often it was found.
    Occurrences(usize),
}

/// What is done with two histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Addition,
    Subtraction,
    Aggregation,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

/// What can be found in the samples of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeNotice {
    /// Floats and histograms, where one of them would do.
    MixedTypes,
    /// Exponential and custom buckets.
    MixedSchemas,
    NotCounter,
    NotGauge,
    /// Histograms that a function of floats left out.
    Ignored,
    /// Counting started before the sample before.
    StartsOverlap,
    HintsCollide(Operation),
    BoundsDiffer(Operation),
}

/// What observations that are no numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NanEffect {
    /// The quantile lies beyond all numbers.
    Result,
    /// They count as the highest.
    Skew,
    /// They lie in no bucket.
    Excluded,
}

/// Where and how much buckets had to be corrected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    /// Evaluation times, first and last.
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    /// Bounds of corrected buckets, lowest and highest.
    pub(super) bucket_min: f64,
    pub(super) bucket_max: f64,
    /// Largest correction.
    pub(super) diff_max: f64,
    /// How often.
    pub(super) count: u64,
}

impl Fixed {
    fn merge(self, other: Self) -> Self {
        Self {
            min_ms: self.min_ms.min(other.min_ms),
            max_ms: self.max_ms.max(other.max_ms),
            bucket_min: self.bucket_min.min(other.bucket_min),
            bucket_max: self.bucket_max.max(other.bucket_max),
            diff_max: self.diff_max.max(other.diff_max),
            count: self.count + other.count,
        }
    }
}

impl Annotations {
    /// Adds `PromQL warning: text`.
    pub(super) fn warn(&mut self, text: &str, span: Span) {
        self.add(format!("{WARNING}{text}"), Note { span, details: Details::None });
    }

    /// Adds `PromQL info: text`.
    pub(super) fn info(&mut self, text: &str, span: Span) {
        self.add(format!("{INFO}{text}"), Note { span, details: Details::None });
    }

    fn add(&mut self, text: String, mut note: Note) {
        note.details = match (note.details, self.notes.get(&text).map(|old| old.details)) {
            (Details::Fixed(new), Some(Details::Fixed(old))) => Details::Fixed(new.merge(old)),
            (Details::Occurrences(new), Some(Details::Occurrences(old))) => {
                Details::Occurrences(new + old)
            }
            (details, _) => details,
        };
        self.notes.insert(text, note);
    }

    /// Adds those of another part of the query.
    pub(super) fn merge(&mut self, other: Self) {
        for (text, note) in other.notes {
            self.add(text, note);
        }
    }

    /// A quantile outside of 0..=1.
    pub(super) fn invalid_quantile(&mut self, quantile: f64, span: Span) {
        let got = general(quantile);
        self.warn(&format!("quantile value should be between 0 and 1, got {got}"), span);
    }

    /// A ratio outside of -1..=1.
    pub(super) fn invalid_ratio(&mut self, ratio: f64, capped: f64, span: Span) {
        let (got, to) = (general(ratio), general(capped));
        let text = format!("ratio value should be between -1 and 1, got {got}, capping to {to}");
        self.warn(&text, span);
    }

    /// A classic bucket without a usable `le`.
    pub(super) fn bad_bucket_label(&mut self, metric: &str, value: &str, span: Span) {
        let text = format!(
            "bucket label \"le\" is missing or has a malformed value of {}{}",
            quote(value),
            for_metric(metric)
        );
        self.warn(&text, span);
    }

    /// Counts of classic buckets that fell with rising bounds.
    pub(super) fn forced_monotonicity(&mut self, metric: &str, span: Span, fixed: Fixed) {
        let text = format!("{INFO}{MONOTONICITY}{}", for_metric(metric));
        self.add(text, Note { span, details: Details::Fixed(fixed) });
    }

    /// What was found in the samples of a range.
    pub(super) fn range_notice(&mut self, notice: RangeNotice, metric: &str, span: Span) {
        let name = metric;
        let metric = quote(metric);
        let mixed =
            "vector contains a mix of histograms with exponential and custom buckets schemas";
        match notice {
            RangeNotice::MixedTypes => {
                let what = "encountered a mix of histograms and floats for metric name";
                self.warn(&format!("{what} {metric}"), span);
            }
            RangeNotice::MixedSchemas => {
                self.warn(&format!("{mixed} for metric name {metric}"), span);
            }
            RangeNotice::NotCounter => {
                let what = "this native histogram metric is not a counter:";
                self.warn(&format!("{what} {metric}"), span);
            }
            RangeNotice::NotGauge => {
                let what = "this native histogram metric is not a gauge:";
                self.warn(&format!("{what} {metric}"), span);
            }
            RangeNotice::Ignored => {
                let what = "ignored histograms in a range containing both floats and histograms for metric name";
                self.info(&format!("{what} {metric}"), span);
            }
            RangeNotice::StartsOverlap => self.overlapping_starts(name, 1, span),
            RangeNotice::HintsCollide(operation) => self.hints_collide(operation, span),
            RangeNotice::BoundsDiffer(operation) => self.bounds_differ(operation, span),
        }
    }

    /// Samples whose counting is said to have started before the sample before.
    pub(super) fn overlapping_starts(&mut self, metric: &str, times: usize, span: Span) {
        if 0 < times {
            let what = "sample has start time that overlaps with previous sample timestamp";
            let text = format!("{WARNING}{what} for metric {}", quote(metric));
            self.add(text, Note { span, details: Details::Occurrences(times) });
        }
    }

    /// Histograms that contradict each other about a reset.
    pub(super) fn hints_collide(&mut self, operation: Operation, span: Span) {
        let what = "conflicting counter resets during histogram";
        self.warn(&format!("{what} {}", operation.word()), span);
    }

    /// Custom buckets that had to be brought together.
    pub(super) fn bounds_differ(&mut self, operation: Operation, span: Span) {
        let what = "mismatched custom buckets were reconciled during";
        self.info(&format!("{what} {}", operation.word()), span);
    }

    /// Floats and histograms in one group.
    pub(super) fn mixed_group(&mut self, span: Span) {
        self.warn("encountered a mix of histograms and floats for aggregation", span);
    }

    /// An aggregation that takes floats only.
    pub(super) fn ignored_in_aggregation(&mut self, aggregation: &str, span: Span) {
        self.info(&format!("ignored histogram in {aggregation} aggregation"), span);
    }

    /// Classic buckets and a native histogram of the same labels.
    pub(super) fn mixed_classic_native(&mut self, metric: &str, span: Span) {
        let what = "vector contains a mix of classic and native histograms";
        self.warn(&format!("{what}{}", for_metric(metric)), span);
    }

    /// What NaN observations do to a quantile or a fraction.
    pub(super) fn nan_observations(&mut self, effect: NanEffect, metric: &str, span: Span) {
        let (function, effect) = match effect {
            NanEffect::Result => ("quantile", "result is NaN"),
            NanEffect::Skew => ("quantile", "result is skewed higher"),
            NanEffect::Excluded => ("fraction", "which are excluded from all fractions"),
        };
        let what = format!("input to histogram_{function} has NaN observations, {effect}");
        self.info(&format!("{what}{}", for_metric(metric)), span);
    }

    /// Warnings and infos with their positions in the query.
    pub(in crate::promql) fn finish(self, query: &str) -> (Vec<String>, Vec<String>) {
        let mut out = (Vec::new(), Vec::new());
        for (text, note) in self.notes {
            let position = position(query, note.span.start);
            let details = match note.details {
                Details::Fixed(fixed) => details(fixed),
                Details::Occurrences(times) if 1 < times => format!(" ({times} occurrences)"),
                Details::None | Details::Occurrences(_) => String::new(),
            };
            let list = if text.starts_with(INFO) { &mut out.1 } else { &mut out.0 };
            list.push(format!("{text}{details} ({position})"));
        }
        out
    }
}

fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", quote(name)) }
}

fn details(fixed: Fixed) -> String {
    format!(
        ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
        general(fixed.bucket_min),
        general(fixed.bucket_max),
        general_rounded(fixed.diff_max, 2),
        fixed.count,
        rfc3339(fixed.min_ms / 1000),
        rfc3339(fixed.max_ms / 1000),
    )
}

/// Line and column of a byte, both from 1, the column in bytes.
fn position(query: &str, at: usize) -> String {
    let Some(before) = query.as_bytes().get(..at) else { return "invalid position".to_owned() };
    let line = before.split(|byte| *byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    format!("{line}:{}", at - start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_merged_and_bear_the_last_position() {
        let mut notes = Annotations::default();
        let query = "a\n  + b";
        notes.invalid_quantile(2.0, Span { start: 0, end: 1 });
        notes.invalid_quantile(2.0, Span { start: 6, end: 7 });
        let fixed = Fixed {
            min_ms: 0,
            max_ms: 0,
            bucket_min: 0.1,
            bucket_max: 0.5,
            diff_max: 1.0,
            count: 1,
        };
        notes.forced_monotonicity("m", Span::default(), fixed);
        notes.forced_monotonicity("m", Span::default(), Fixed { max_ms: 5_000, ..fixed });
        let (warnings, infos) = notes.finish(query);
        assert_eq!(
            warnings,
            ["PromQL warning: quantile value should be between 0 and 1, got 2 (2:5)"]
        );
        assert_eq!(
            infos,
            [format!(
                "PromQL info: {MONOTONICITY} for metric name \"m\", from buckets 0.1 to 0.5, with a max diff of 1, over 2 samples from 1970-01-01T00:00:00Z to 1970-01-01T00:00:05Z (1:1)"
            )]
        );
    }
}
