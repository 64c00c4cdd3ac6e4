//! Functions of a range vector that has native histograms in it.
//!
//! Floats of such a series are evaluated as if they were alone; then each window is looked at
//! again as a whole.

use std::sync::Arc;

use crate::model::histogram::{Histogram, HistogramMean, HistogramSum, Incompatible, ResetHint};
use crate::promql::ast::{Boundary, Span};
use crate::promql::engine::QueryError;

use super::super::Evaluator;
use super::super::annotations::{Operation, RangeNotice};
use super::super::range::{Frame, RangeItem, Windows};
use super::super::selector::Points;
use super::super::series::{Histograms, Sample};
use super::native_rate as rate;
use super::over_range::{RangeFunction, Windowed};
use super::rate::Stamp;

pub(in super::super) use super::native_rate::on_line;

/// What looking at a histogram costs, in floats.
const HISTOGRAM_WORK: usize = 16;

/// A sample that is a histogram.
pub(super) type Point = (i64, Arc<Histogram>);

/// A call of a function of a range vector.
pub(in super::super) struct RangeCall<'a> {
    pub(in super::super) function: RangeFunction,
    pub(in super::super) frame: &'a Frame,
    /// Scalar arguments at each step.
    pub(in super::super) params: &'a [Vec<f64>],
    /// What annotations point to.
    pub(in super::super) span: Span,
}

/// One series, floats and histograms apart.
#[derive(Default)]
struct Parts {
    float_times_ms: Vec<i64>,
    float_starts_ms: Vec<i64>,
    floats: Vec<f64>,
    histogram_times_ms: Vec<i64>,
    histogram_starts_ms: Vec<i64>,
    histograms: Vec<Point>,
}

impl Parts {
    fn of(points: &Points) -> Self {
        let mut parts = Self::default();
        for (at, timestamp_ms) in points.timestamps_ms.iter().enumerate() {
            let starts_ms = if let Some(histogram) = points.histogram(at) {
                parts.histogram_times_ms.push(*timestamp_ms);
                parts.histograms.push((*timestamp_ms, Arc::clone(histogram)));
                &mut parts.histogram_starts_ms
            } else {
                parts.float_times_ms.push(*timestamp_ms);
                parts.floats.push(points.values[at]);
                &mut parts.float_starts_ms
            };
            if points.starts_ms.is_some() {
                starts_ms.push(points.start_ms(at));
            }
        }
        parts
    }
}

/// What a window holds.
pub(super) struct MixedWindow<'a> {
    pub(super) float_times_ms: &'a [i64],
    pub(super) floats: &'a [f64],
    pub(super) histograms: &'a [Point],
    /// When counting of the floats and histograms started: as many, or none.
    pub(super) float_starts_ms: &'a [i64],
    pub(super) histogram_starts_ms: &'a [i64],
    /// The borders of the range, the left one exclusive.
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) boundary: Boundary,
}

/// Steps between two looks whether the query is to end.
const POLL_STEPS: usize = 64;

impl Evaluator<'_> {
    /// The metric name of a series that annotations may show.
    pub(in super::super) fn name_of<'i>(
        &self,
        item: &RangeItem<'i>,
    ) -> Result<&'i str, QueryError> {
        let stripped = item.drop_name && !self.env.delayed_name_removal;
        if stripped { Ok("") } else { item.labels.name() }
    }

    /// Calls a function on the windows of a series with histograms.
    pub(in super::super) fn call_on_histograms(
        &mut self,
        call: &RangeCall<'_>,
        item: &RangeItem<'_>,
        values: &mut [f64],
        histograms: &mut Histograms,
    ) -> Result<(), QueryError> {
        histograms.clear();
        let env = self.env;
        let parts = Parts::of(item.points);
        let windows = call.frame.windows(&parts.float_times_ms);
        let windowed = Windowed {
            timestamps_ms: &parts.float_times_ms,
            starts_ms: &parts.float_starts_ms,
            values: &parts.floats,
            windows: &windows,
            frame: call.frame,
            params: call.params,
            is_over: &|| env.is_over(),
        };
        windowed.evaluate(call.function, values)?;
        let histogram_windows = call.frame.windows(&parts.histogram_times_ms);
        let slice = |windows: &Windows, step: usize| {
            windows.first[step] as usize..windows.end[step] as usize
        };
        let mut notices = Vec::new();
        let has_floats_only = |step| slice(&histogram_windows, step).is_empty();
        let overlapping = windowed.overlapping(call.function, has_floats_only);
        for step in 0..values.len() {
            if step % POLL_STEPS == 0 {
                self.check()?;
            }
            let inside = slice(&histogram_windows, step);
            if inside.is_empty() {
                continue;
            }
            self.spend(inside.len().saturating_mul(HISTOGRAM_WORK))?;
            let floats = slice(&windows, step);
            let end_ms = call.frame.end_ms(step);
            let window = MixedWindow {
                float_times_ms: &parts.float_times_ms[floats.clone()],
                float_starts_ms: parts.float_starts_ms.get(floats.clone()).unwrap_or_default(),
                floats: &parts.floats[floats],
                histogram_starts_ms: parts
                    .histogram_starts_ms
                    .get(inside.clone())
                    .unwrap_or_default(),
                histograms: &parts.histograms[inside],
                start_ms: end_ms - call.frame.range_ms,
                end_ms,
                boundary: call.frame.boundary,
            };
            let sample = match window.evaluate(call.function, &mut notices) {
                Outcome::Float => continue,
                Outcome::Is(sample) => sample,
            };
            sample.put(values, histograms, step);
        }
        let name = self.name_of(item)?;
        self.notes.overlapping_starts(name, overlapping, call.span);
        for notice in notices {
            self.notes.range_notice(notice, name, call.span);
        }
        Ok(())
    }
}

/// The value of a window.
enum Outcome {
    /// What its floats alone yield.
    Float,
    Is(Sample),
}

impl From<Option<Histogram>> for Outcome {
    fn from(histogram: Option<Histogram>) -> Self {
        Self::Is(histogram.map_or(Sample::Absent, |one| Sample::Histogram(Arc::new(one))))
    }
}

impl From<f64> for Outcome {
    fn from(value: f64) -> Self {
        Self::Is(Sample::Float(value))
    }
}

impl MixedWindow<'_> {
    /// The value of a window that has a histogram.
    fn evaluate(&self, function: RangeFunction, notices: &mut Vec<RangeNotice>) -> Outcome {
        use RangeFunction as F;
        let is_mixed = !self.floats.is_empty();
        match function {
            F::Rate | F::Increase | F::Delta | F::Sum | F::Avg if is_mixed => {
                notice(notices, RangeNotice::MixedTypes);
                Outcome::Is(Sample::Absent)
            }
            F::Rate | F::Increase | F::Delta if self.boundary == Boundary::Plain => {
                rate::extrapolated(self, function, notices).into()
            }
            F::Rate | F::Increase | F::Delta => rate::extended(self, function, notices).into(),
            F::Irate | F::Idelta => Outcome::Is(rate::last_two(self, function, notices)),
            F::Sum => sum(self.histograms, notices).into(),
            F::Avg => mean(self.histograms, notices).into(),
            F::Count => ((self.floats.len() + self.histograms.len()) as f64).into(),
            F::Present => 1.0.into(),
            F::First => self.end_sample(false),
            F::Last => self.end_sample(true),
            F::TsOfFirst | F::TsOfLast => {
                let (float, histogram) = self.ends(function == F::TsOfLast);
                let latest = function == F::TsOfLast;
                let at_ms = float.map_or(histogram, |float| {
                    if latest { float.max(histogram) } else { float.min(histogram) }
                });
                (at_ms as f64 / 1000.0).into()
            }
            F::Changes | F::Resets => self.transitions(function == F::Resets).into(),
            _ => {
                if is_mixed {
                    notice(notices, RangeNotice::Ignored);
                }
                Outcome::Float
            }
        }
    }

    /// Times of the first or last float and histogram.
    fn ends(&self, last: bool) -> (Option<i64>, i64) {
        let (float, histogram) = if last {
            (self.float_times_ms.last(), self.histograms.last())
        } else {
            (self.float_times_ms.first(), self.histograms.first())
        };
        (float.copied(), histogram.map_or(0, |point| point.0))
    }

    fn end_sample(&self, last: bool) -> Outcome {
        let (float_ms, histogram_ms) = self.ends(last);
        let is_float =
            float_ms.is_some_and(|at| if last { histogram_ms < at } else { at < histogram_ms });
        if is_float {
            return Outcome::Float;
        }
        let point = if last { self.histograms.last() } else { self.histograms.first() };
        Outcome::Is(point.map_or(Sample::Absent, |point| Sample::Histogram(Arc::clone(&point.1))))
    }

    /// All samples in order of time.
    pub(super) fn samples(&self) -> Vec<(Stamp, Sample)> {
        let start_ms =
            |starts_ms: &[i64], at: usize| starts_ms.get(at).copied().unwrap_or_default();
        let floats = self.float_times_ms.iter().zip(self.floats).enumerate();
        let floats = floats.map(|(at, (at_ms, value))| {
            let start_ms = start_ms(self.float_starts_ms, at);
            (Stamp { start_ms, at_ms: *at_ms }, Sample::Float(*value))
        });
        let histograms =
            self.histograms.iter().enumerate().map(|(at, (_, one))| {
                (self.histogram_stamp(at), Sample::Histogram(Arc::clone(one)))
            });
        let mut all: Vec<_> = floats.chain(histograms).collect();
        all.sort_by_key(|(stamp, _)| stamp.at_ms);
        all
    }

    /// When a histogram was taken and its counting started.
    pub(super) fn histogram_stamp(&self, at: usize) -> Stamp {
        let start_ms = self.histogram_starts_ms.get(at).copied().unwrap_or_default();
        Stamp { start_ms, at_ms: self.histograms[at].0 }
    }

    /// How often a counter was reset, or a value changed. An anchored range starts with the newest
    /// sample at its left border or before, and needs one after it.
    fn transitions(&self, resets: bool) -> Sample {
        let samples = self.samples();
        let mut inside = &samples[..];
        if self.boundary == Boundary::Anchored {
            let before = inside.partition_point(|(stamp, _)| stamp.at_ms <= self.start_ms);
            if before == inside.len() {
                return Sample::Absent;
            }
            inside = &inside[before.saturating_sub(1)..];
        }
        let restarts = |pair: &[(Stamp, Sample)]| pair[1].0.restarts_after(pair[0].0);
        let counts = |pair: &&[(Stamp, Sample)]| match (&pair[0].1, &pair[1].1) {
            (Sample::Float(before), Sample::Float(after)) if resets => {
                after < before || restarts(pair)
            }
            (Sample::Float(before), Sample::Float(after)) => {
                before != after && !(before.is_nan() && after.is_nan())
            }
            (Sample::Histogram(before), Sample::Histogram(after)) if resets => {
                restarts(pair) || after.is_reset_since(before)
            }
            (Sample::Histogram(before), Sample::Histogram(after)) => !after.has_same_values(before),
            _ => true,
        };
        Sample::Float(inside.windows(2).filter(counts).count() as f64)
    }
}

impl From<Sample> for Outcome {
    fn from(sample: Sample) -> Self {
        Self::Is(sample)
    }
}

/// Adds a notice once, or once for each window where occurrences are counted.
pub(super) fn notice(notices: &mut Vec<RangeNotice>, one: RangeNotice) {
    if one == RangeNotice::StartsOverlap || !notices.contains(&one) {
        notices.push(one);
    }
}

/// What samples say about resets, to see whether it is all the same.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Hints {
    reset: bool,
    no_reset: bool,
}

impl Hints {
    pub(in super::super) fn see(&mut self, histogram: &Histogram) {
        self.reset |= histogram.reset_hint == ResetHint::CounterReset;
        self.no_reset |= histogram.reset_hint == ResetHint::NotCounterReset;
    }

    pub(in super::super) fn collide(self) -> bool {
        self.reset && self.no_reset
    }
}

/// `sum_over_time`
fn sum(points: &[Point], notices: &mut Vec<RangeNotice>) -> Option<Histogram> {
    let (first, rest) = points.split_first()?;
    let mut sum = HistogramSum::of(&first.1);
    let add = |one: &Histogram| sum.add(one).map(|merged| merged.bounds_differ);
    fold(points, rest, add, notices)?;
    Some(sum.total())
}

/// `avg_over_time`
fn mean(points: &[Point], notices: &mut Vec<RangeNotice>) -> Option<Histogram> {
    let (first, rest) = points.split_first()?;
    let mut mean = HistogramMean::of(&first.1);
    let add = |one: &Histogram| mean.add(one).map(|merged| merged.bounds_differ);
    fold(points, rest, add, notices)?;
    Some(mean.finish())
}

/// Adds all the rest; `None` when that is impossible.
fn fold(
    points: &[Point],
    rest: &[Point],
    mut add: impl FnMut(&Histogram) -> Result<bool, Incompatible>,
    notices: &mut Vec<RangeNotice>,
) -> Option<()> {
    let mut hints = Hints::default();
    for point in points {
        hints.see(&point.1);
    }
    let mut bounds_differ = false;
    for point in rest {
        match add(&point.1) {
            Ok(differ) => bounds_differ |= differ,
            Err(Incompatible) => {
                notice(notices, RangeNotice::MixedSchemas);
                return None;
            }
        }
    }
    if hints.collide() {
        notice(notices, RangeNotice::HintsCollide(Operation::Aggregation));
    }
    if bounds_differ {
        notice(notices, RangeNotice::BoundsDiffer(Operation::Aggregation));
    }
    Some(())
}
