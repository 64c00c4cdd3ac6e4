//! Range vectors: windows over the samples of each series, from selectors and from subqueries.

use std::sync::{Arc, OnceLock};

use crate::model::histogram::{Histogram, ResetHint};
use crate::model::labels::Labels;
use crate::model::sample::TimeRange;
use crate::promql::ast::{Boundary, Span};
use crate::promql::engine::{self, QueryError, Value};

use super::counts::samples_of;
use super::functions::extrapolate::Reaches;
use super::functions::native;
use super::functions::over_range::{RangeFunction, Windowed};
use super::kernels::regular::Regular;
use super::plan::{Kind, Node, Range, Shift, Subquery};
use super::selector::Points;
use super::series::{ItemLabels, histogram_at, weight};
use super::tables::{SharedTables, Trimmed, span_without, without};
use super::{Evaluator, Histograms, Item, Series, Sink, Steps, absent, is_absent, kernels, labels};

/// Where windows hold more samples, evaluation may have been broken off.
const POLL_WINDOWS: u64 = 1 << 14;

/// For each step, which samples lie in its window.
#[derive(Debug)]
pub(super) struct Windows {
    /// Position of the first sample.
    pub(super) first: Vec<u32>,
    /// Position after the last sample.
    pub(super) end: Vec<u32>,
    /// Most samples in one window.
    widest: u64,
    /// Samples in all windows, counted again in each.
    pub(super) total: u64,
    /// Samples in any window, counted once.
    pub(super) read: u64,
    /// For rates, when one has asked.
    pub(super) reaches: OnceLock<Reaches>,
    /// For sums and their like, when one has asked.
    regular: OnceLock<Option<Regular>>,
}

impl Windows {
    /// Whether all windows are alike.
    pub(super) fn regular(&self) -> Option<Regular> {
        *self.regular.get_or_init(|| Regular::of(&self.first, &self.end))
    }
}

/// Where the windows lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) steps: Steps,
    pub(super) shift: Shift,
    pub(super) range_ms: i64,
    pub(super) boundary: Boundary,
    lookback_ms: i64,
}

impl Frame {
    /// The right border of a step's range, inclusive.
    pub(super) fn end_ms(&self, step: usize) -> i64 {
        self.shift.apply(self.steps.time(step))
    }

    /// How far before the left border and after the right one samples are wanted.
    fn extension(&self) -> (i64, i64) {
        match self.boundary {
            Boundary::Plain => (0, 0),
            Boundary::Anchored => (self.lookback_ms, 0),
            Boundary::Smoothed => (self.lookback_ms, self.lookback_ms),
        }
    }

    pub(super) fn time_range(&self) -> TimeRange {
        let (before, after) = self.extension();
        TimeRange {
            min_ms: self.shift.apply(self.steps.start_ms) - self.range_ms - before + 1,
            max_ms: self.shift.apply(self.steps.last_ms()) + after,
        }
    }

    pub(super) fn windows(&self, timestamps_ms: &[i64]) -> Windows {
        let (before, after) = self.extension();
        let from = |step| self.end_ms(step) - self.range_ms - before;
        let upto = |step| self.end_ms(step) + after;
        let mut first = timestamps_ms.partition_point(|timestamp| *timestamp <= from(0));
        let mut end = timestamps_ms.partition_point(|timestamp| *timestamp <= upto(0));
        let count = self.steps.count;
        let mut windows = Windows {
            first: Vec::with_capacity(count),
            end: Vec::with_capacity(count),
            widest: 0,
            total: 0,
            read: 0,
            reaches: OnceLock::new(),
            regular: OnceLock::new(),
        };
        let mut newest = 0;
        for step in 0..count {
            let (from, upto) = (from(step), upto(step));
            while first < timestamps_ms.len() && timestamps_ms[first] <= from {
                first += 1;
            }
            while end < timestamps_ms.len() && timestamps_ms[end] <= upto {
                end += 1;
            }
            let width = (end - first) as u64;
            windows.widest = windows.widest.max(width);
            windows.total += width;
            windows.read += (end - first.max(newest).min(end)) as u64;
            newest = newest.max(end);
            windows.first.push(first as u32);
            windows.end.push(end as u32);
        }
        windows
    }
}

/// A series of a range vector.
pub(super) struct RangeItem<'a> {
    pub(super) labels: ItemLabels<'a>,
    /// See [`Item`].
    pub(super) position: u32,
    pub(super) drop_name: bool,
    /// Without stale markers.
    pub(super) points: &'a Points,
}

/// Samples without stale markers; the same slices when there is none.
pub(super) fn without_stale(mut points: Points, trimmed: Option<&Trimmed>) -> Points {
    let stale = match points.stale.take() {
        Some(known) => known,
        None if kernels::has_absent(&points.values) => stale_among(&points.values),
        None => Box::default(),
    };
    debug_assert_eq!(stale, stale_among(&points.values));
    if stale.is_empty() {
        return points;
    }
    let timestamps_ms = match trimmed {
        Some(trimmed) => trimmed.of(&points.timestamps_ms, &stale),
        None => Trimmed::default().of(&points.timestamps_ms, &stale),
    };
    let values = match span_without(&stale, points.values.len()) {
        Some(span) => points.values.part(span),
        None => without(&points.values, &stale).collect(),
    };
    let histograms = points.histograms.as_ref().map(|all| without(all, &stale).collect());
    let starts_ms = points.starts_ms.as_ref().map(|all| without(all, &stale).collect());
    Points { timestamps_ms, values, histograms, starts_ms, stale: None }
}

/// The positions of stale markers.
fn stale_among(values: &[f64]) -> Box<[u32]> {
    let stale = (0..).zip(values).filter(|(_, value)| is_absent(**value));
    stale.map(|(at, _)| at).collect()
}

/// The value at `now_ms` on the line through two points; a counter that fell started from zero.
pub(super) fn on_line(before: (i64, f64), after: (i64, f64), now_ms: i64, counter: bool) -> f64 {
    let (y1, y2) = (if counter && after.1 < before.1 { 0.0 } else { before.1 }, after.1);
    y1 + (y2 - y1) * (now_ms - before.0) as f64 / (after.0 - before.0) as f64
}

type Visit<'v, 'e> = &'v mut dyn FnMut(&mut Evaluator<'e>, RangeItem<'_>) -> Result<(), QueryError>;

impl<'e> Evaluator<'e> {
    /// Where the windows of a range node lie.
    pub(super) fn frame(&self, node: &Node, steps: Steps) -> Frame {
        let lookback_ms = self.env.lookback_ms;
        let (shift, range_ms, boundary) = match &node.kind {
            Kind::Range(range) => (range.selector.shift, range.range_ms, range.selector.boundary),
            Kind::Subquery(subquery) => (subquery.shift, subquery.range_ms, Boundary::Plain),
            Kind::Invariant(inner) => return self.frame(inner, steps),
            _ => unreachable!("not a range vector"),
        };
        Frame { steps, shift, range_ms, boundary, lookback_ms }
    }

    /// Visits the series of a range vector with their samples in reach of the frame.
    pub(super) fn each_range(
        &mut self,
        node: &Node,
        frame: &Frame,
        visit: Visit<'_, 'e>,
    ) -> Result<(), QueryError> {
        match &node.kind {
            Kind::Range(range) => self.each_selected(range, frame, visit),
            Kind::Subquery(subquery) => self.each_evaluated(subquery, frame, visit),
            Kind::Invariant(inner) => self.each_range(inner, frame, visit),
            _ => unreachable!("not a range vector"),
        }
    }

    fn each_selected(
        &mut self,
        range: &Range,
        frame: &Frame,
        visit: Visit<'_, 'e>,
    ) -> Result<(), QueryError> {
        let trimmed = self.chain_tables().map(|tables| &tables.trimmed);
        self.each_series(&range.selector, frame.time_range(), |own, (position, labels), points| {
            let points = without_stale(points, trimmed);
            if points.values.is_empty() {
                return Ok(());
            }
            visit(own, RangeItem { labels, position, drop_name: false, points: &points })
        })
    }

    fn each_evaluated(
        &mut self,
        subquery: &Subquery,
        frame: &Frame,
        visit: Visit<'_, 'e>,
    ) -> Result<(), QueryError> {
        let inner_steps = subquery_steps(subquery, frame.steps);
        let (held, bytes) = (self.samples.current, self.samples.bytes);
        let (series, aside) = self
            .aside(inner_steps.count, |own| own.vector_or_scalar(&subquery.inner, inner_steps))?;
        self.count_within(&aside, inner_steps, frame.steps);
        let all: Arc<[i64]> = (0..inner_steps.count).map(|step| inner_steps.time(step)).collect();
        for one in series {
            let (labels, drop_name) = (ItemLabels::Known(&one.labels), one.drop_name);
            let timestamps_ms = Arc::clone(&all);
            let histograms = one.histograms.into_iter().map(|one| one.map(without_hint));
            let histograms = (0 < histograms.len()).then(|| histograms.collect());
            let values = one.values.into();
            let points = Points { timestamps_ms, values, histograms, starts_ms: None, stale: None };
            let points = without_stale(points, None);
            self.spend(points.values.len())?;
            visit(self, RangeItem { labels, position: 0, drop_name, points: &points })?;
        }
        (self.samples.current, self.samples.bytes) = (held, bytes);
        Ok(())
    }

    /// Scalars as one series without labels.
    fn vector_or_scalar(&mut self, node: &Node, steps: Steps) -> Result<Vec<Series>, QueryError> {
        if !node.is_scalar() {
            return self.vector(node, steps);
        }
        let values = self.scalar(node, steps)?;
        let labels = Labels::empty();
        Ok(if values.is_empty() { vec![] } else { vec![Series::floats(labels, false, values)] })
    }

    /// Calls a function on the windows of each series.
    pub(super) fn stream_range_function(
        &mut self,
        function: RangeFunction,
        args: &[Node],
        steps: Steps,
        sink: Sink<'_, 'e>,
    ) -> Result<(), QueryError> {
        let Some((node, span)) = range_argument(args) else {
            unreachable!("checked by the parser")
        };
        let params = self.scalar_arguments(args, steps)?;
        let frame = self.frame(node, steps);
        function.assert_allows(frame.boundary)?;
        let mut tables = SharedTables::new(steps, self.chain_tables().map(|all| &all.windows));
        self.take_column::<f64>(steps)?;
        self.take_column::<bool>(steps)?;
        let mut values = vec![absent(); steps.count];
        let mut histograms = Histograms::new();
        let mut evaluated = vec![false; steps.count];
        let env = self.env;
        self.each_range(node, &frame, &mut |own, item| {
            let points = item.points;
            let make = || frame.windows(&points.timestamps_ms);
            let windows = tables.get(&points.timestamps_ms, make);
            own.count_windows(&windows, points.histograms.as_deref());
            own.spend(steps.count)?;
            own.touch(windows.widest + weight(points.histograms.as_deref().unwrap_or_default()))?;
            if points.histograms.is_some() {
                let call = native::RangeCall { function, frame: &frame, params: &params, span };
                own.call_on_histograms(&call, &item, &mut values, &mut histograms)?;
                if values.iter().all(|value| is_absent(*value)) {
                    return Ok(());
                }
            } else {
                histograms.clear();
                let windowed = Windowed {
                    timestamps_ms: &points.timestamps_ms,
                    starts_ms: points.starts_ms.as_deref().unwrap_or_default(),
                    values: &points.values,
                    windows: &windows,
                    frame: &frame,
                    params: &params,
                    is_over: &|| env.is_over(),
                };
                windowed.evaluate(function, &mut values)?;
                if POLL_WINDOWS < windows.total {
                    own.check()?;
                }
                let times = windowed.overlapping(function, |_| true);
                if 0 < times {
                    let name = own.name_of(&item)?;
                    own.notes.overlapping_starts(name, times, span);
                }
            }
            if values.iter().all(|value| is_absent(*value)) {
                return Ok(());
            }
            if function == RangeFunction::Quantile {
                let present = values.iter().map(|value| !is_absent(*value));
                evaluated.iter_mut().zip(present).for_each(|(seen, present)| *seen |= present);
            }
            let any_float = || {
                (0..values.len()).any(|step| {
                    !is_absent(values[step]) && histogram_at(&values, &histograms, step).is_none()
                })
            };
            if function.wants_counter() && (histograms.is_empty() || any_float()) {
                own.note_non_counter(item.labels, span)?;
            }
            let drop_name = item.drop_name || !function.keeps_name();
            let (labels, position) = (item.labels, item.position);
            let (values, histograms) = (&mut values[..], &mut histograms);
            sink(own, Item { labels, position, drop_name, values, histograms })
        })?;
        self.note_quantiles(args, &params, &evaluated);
        Ok(())
    }

    /// The scalar arguments of a call, in order.
    pub(super) fn scalar_arguments(
        &mut self,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<Vec<f64>>, QueryError> {
        args.iter().filter(|arg| arg.is_scalar()).map(|arg| self.scalar(arg, steps)).collect()
    }

    /// Quantiles out of range, of the steps at which any was computed.
    fn note_quantiles(&mut self, args: &[Node], params: &[Vec<f64>], evaluated: &[bool]) {
        let (Some(arg), Some(quantiles)) = (args.first(), params.first()) else { return };
        let computed = quantiles.iter().zip(evaluated).filter(|(_, evaluated)| **evaluated);
        for (quantile, _) in computed.filter(|(q, _)| !(0.0..=1.0).contains(*q)) {
            self.notes.invalid_quantile(*quantile, arg.span);
        }
    }

    fn note_non_counter(&mut self, labels: ItemLabels<'_>, span: Span) -> Result<(), QueryError> {
        let name = labels.name()?;
        if name.is_empty() {
            return Ok(());
        }
        let quoted = || crate::model::labels::quote(name);
        if self.env.type_and_unit_labels {
            let kind = labels.get()?.get("__type__").unwrap_or("");
            if !matches!(kind, "counter" | "histogram") {
                let text = format!(
                    "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                    crate::model::labels::quote(kind),
                    quoted()
                );
                self.notes.info(&text, span);
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end)) {
            let text = format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                quoted()
            );
            self.notes.info(&text, span);
        }
        Ok(())
    }

    /// `absent_over_time`: 1 where no series has a sample in its window.
    pub(super) fn absent_over_time(
        &mut self,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let Some((node, _)) = range_argument(args) else { unreachable!("checked by the parser") };
        self.take_column::<f64>(steps)?;
        let mut values = vec![1.0; steps.count];
        let function = RangeFunction::Present;
        self.stream_range_function(function, args, steps, &mut |_, item| {
            let present = item.values.iter().map(|value| !is_absent(*value));
            values
                .iter_mut()
                .zip(present)
                .filter(|(_, present)| *present)
                .for_each(|(value, _)| *value = absent());
            Ok(())
        })?;
        let labels = super::functions::absent_labels(node);
        Ok(vec![Series::floats(labels, false, values)])
    }

    /// A range vector as the result of an instant query.
    pub(super) fn matrix(&mut self, node: &Node, steps: Steps) -> Result<Value, QueryError> {
        let frame = self.frame(node, steps);
        let (min_ms, max_ms) = (frame.end_ms(0) - frame.range_ms, frame.end_ms(0));
        let mut out = Vec::new();
        let delayed = self.env.delayed_name_removal;
        let is_subquery = is_subquery(node);
        self.each_range(node, &frame, &mut |own, item| {
            let (before, after) = frame.extension();
            let inside = |at: i64| min_ms - before < at && at <= max_ms + after;
            let (mut points, mut histograms) = (Vec::new(), Vec::new());
            for (at, timestamp_ms) in item.points.timestamps_ms.iter().enumerate() {
                match item.points.histogram(at) {
                    _ if !inside(*timestamp_ms) => {}
                    Some(histogram) => histograms.push((*timestamp_ms, Arc::clone(histogram))),
                    None => points.push((*timestamp_ms, item.points.values[at])),
                }
            }
            let weight = points.len() as u64
                + histograms.iter().map(|(_, one)| samples_of(one)).sum::<u64>();
            if !histograms.is_empty()
                && let Some(word) = boundary_word(frame.boundary)
            {
                let text = format!("{word} modifier is not supported with histograms");
                return Err(QueryError::Execution(text));
            }
            let points = match frame.boundary {
                Boundary::Plain => points,
                boundary => with_borders(&points, min_ms, max_ms, boundary),
            };
            if points.is_empty() && histograms.is_empty() {
                return Ok(());
            }
            if !is_subquery {
                own.count_found(weight, |_| weight);
            }
            own.hold(weight)?;
            own.take_bytes(16 * weight as usize, "samples of the result")?;
            let strip = delayed && item.drop_name;
            let labels = item.labels.get()?;
            let labels = if strip { labels::without_metadata(labels) } else { labels.clone() };
            out.push(engine::Series { labels, points, histograms });
            Ok(())
        })?;
        if is_subquery {
            self.count_subquery();
        }
        Ok(Value::Matrix(out))
    }
}

fn is_subquery(node: &Node) -> bool {
    match &node.kind {
        Kind::Invariant(inner) => is_subquery(inner),
        kind => matches!(kind, Kind::Subquery(_)),
    }
}

/// What a sample says about the one before it means nothing where samples are skipped or repeated.
fn without_hint(histogram: Arc<Histogram>) -> Arc<Histogram> {
    match histogram.reset_hint {
        ResetHint::Unknown | ResetHint::Gauge => histogram,
        ResetHint::CounterReset | ResetHint::NotCounterReset => {
            Arc::new(Histogram { reset_hint: ResetHint::Unknown, ..Histogram::clone(&histogram) })
        }
    }
}

fn boundary_word(boundary: Boundary) -> Option<&'static str> {
    match boundary {
        Boundary::Plain => None,
        Boundary::Anchored => Some("anchored"),
        Boundary::Smoothed => Some("smoothed"),
    }
}

/// The range among a call's arguments, and the place that annotations name.
pub(super) fn range_argument(args: &[Node]) -> Option<(&Node, Span)> {
    let is_range = |arg: &&Node| arg.value_type() == crate::promql::ast::ValueType::Matrix;
    Some((args.iter().find(is_range)?, args.first()?.span))
}

/// The moments at which a subquery's expression is evaluated: multiples of its step.
fn subquery_steps(subquery: &Subquery, outer: Steps) -> Steps {
    let step_ms = subquery.step_ms.max(1);
    let after_ms = subquery.shift.apply(outer.start_ms) - subquery.range_ms;
    let end_ms = subquery.shift.apply(outer.last_ms());
    let mut start_ms = step_ms * (after_ms / step_ms);
    if start_ms <= after_ms {
        start_ms += step_ms;
    }
    Steps::between(start_ms, end_ms, step_ms)
}

/// The samples of an anchored or smoothed range with values at its very borders.
fn with_borders(
    points: &[(i64, f64)],
    min_ms: i64,
    max_ms: i64,
    boundary: Boundary,
) -> Vec<(i64, f64)> {
    let Some(mut last) = points.len().checked_sub(1) else { return Vec::new() };
    let smoothed = boundary == Boundary::Smoothed;
    let mut first = points[..last].partition_point(|point| point.0 <= min_ms).saturating_sub(1);
    if smoothed {
        last = points[..last].partition_point(|point| point.0 < max_ms);
    }
    if points[last].0 <= min_ms {
        return Vec::new();
    }
    let left = match points.get(first + 1) {
        Some(next) if smoothed && points[first].0 < min_ms => {
            on_line(points[first], *next, min_ms, false)
        }
        _ => points[first].1,
    };
    let right = if smoothed && 0 < last && max_ms < points[last].0 {
        on_line(points[last - 1], points[last], max_ms, false)
    } else {
        points[last].1
    };
    let mut end = last + 1;
    if points[first].0 <= min_ms {
        first += 1;
    }
    if max_ms <= points[last].0 {
        end -= 1;
    }
    let mut out = vec![(min_ms, left)];
    out.extend(points.get(first..end).unwrap_or_default());
    out.push((max_ms, right));
    out
}
