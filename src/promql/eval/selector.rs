//! Selectors: the newest sample of each series at each step, within the lookback, or none.

use std::sync::Arc;

use crate::model::histogram::{Histogram, ResetHint};
use crate::model::sample::TimeRange;
use crate::promql::ast::{Boundary, Span};
use crate::promql::engine::QueryError;
use crate::storage::select::{
    BLOCK_SERIES_MAX, Column, Run, SelectHints, Selection, SeriesColumns, Slice,
};

use super::annotations::RangeNotice;
use super::counts::samples_of;
use super::functions::native;
use super::plan::{Selector, Shift};
use super::series::{BlockLabels, ItemLabels, Sample, histogram_at, marker, weight};
use super::tables::SharedTables;
use super::{Evaluator, Histograms, Item, Sink, Steps, absent, is_absent, kernels};

/// What is taken of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampled {
    Value,
    /// Its timestamp, for `timestamp()`.
    Seconds,
    /// Its timestamp, for the choice among info series.
    Milliseconds,
    /// When counting started, for `start_timestamp()`.
    StartSeconds,
}

/// Samples of one series.
#[derive(Clone, Debug)]
pub(super) struct Points {
    /// Ascending. Shared between series that were scraped together.
    pub(super) timestamps_ms: Arc<[i64]>,
    pub(super) values: Slice<f64>,
    /// Beside the markers among the values, when there is one.
    pub(super) histograms: Option<Arc<[Option<Arc<Histogram>>]>>,
    /// When counting started, 0 where that is not known; `None` where it is not asked for either.
    pub(super) starts_ms: Option<Arc<[i64]>>,
    /// Positions of stale markers, where they are known.
    pub(super) stale: Option<Box<[u32]>>,
}

impl Points {
    /// All runs as one. Stale markers are still in place.
    pub(super) fn of(columns: SeriesColumns) -> Self {
        let mut runs = columns.runs;
        if let [Run { values: Column::Floats(_), .. }] = runs.as_slice()
            && let Some(Run { timestamps_ms, values: Column::Floats(values), starts_ms, stale }) =
                runs.pop()
        {
            return Self { timestamps_ms, values, histograms: None, starts_ms, stale };
        }
        let (mut timestamps_ms, mut all) = (Vec::new(), Vec::new());
        let mut histograms = Histograms::new();
        for run in &runs {
            timestamps_ms.extend_from_slice(&run.timestamps_ms);
            match &run.values {
                Column::Floats(values) => all.extend_from_slice(values),
                Column::Histograms(values) => {
                    histograms.resize(all.len(), None);
                    for histogram in values.iter() {
                        let stale = histogram.is_stale();
                        all.push(if stale { absent() } else { marker() });
                        histograms.push((!stale).then(|| Arc::clone(histogram)));
                    }
                }
            }
        }
        let histograms = (!histograms.is_empty()).then(|| {
            histograms.resize(all.len(), None);
            histograms.into()
        });
        let timestamps_ms = match runs.as_slice() {
            // Kept, because series scraped together share it.
            [run] => Arc::clone(&run.timestamps_ms),
            _ => timestamps_ms.into(),
        };
        let starts_ms = runs.iter().any(|run| run.starts_ms.is_some()).then(|| {
            let mut starts_ms: Vec<i64> = Vec::with_capacity(all.len());
            for run in &runs {
                starts_ms.extend(run.starts_ms.iter().flat_map(|starts_ms| starts_ms.iter()));
                let end = starts_ms.len() + run.timestamps_ms.len();
                starts_ms.resize(end - run.starts_ms.as_ref().map_or(0, |own| own.len()), 0);
            }
            starts_ms.into()
        });
        Self { timestamps_ms, values: all.into(), histograms, starts_ms, stale: None }
    }

    /// The histogram at a position, if its value is one.
    pub(super) fn histogram(&self, at: usize) -> Option<&Arc<Histogram>> {
        histogram_at(&self.values, self.histograms.as_deref()?, at)
    }

    /// When counting of the sample at a position started; 0 where that is not known.
    pub(super) fn start_ms(&self, at: usize) -> i64 {
        let starts_ms = self.starts_ms.as_deref().unwrap_or_default();
        starts_ms.get(at).copied().unwrap_or_default()
    }
}

/// No sample at this step.
const NONE: u32 = u32::MAX;

/// For each step the position of the newest sample in (t - lookback, t].
fn newest(timestamps_ms: &[i64], steps: Steps, shift: Shift, lookback_ms: i64) -> Vec<u32> {
    let first = shift.apply(steps.start_ms);
    let mut next = timestamps_ms.partition_point(|timestamp| *timestamp <= first);
    let at = |step| {
        let now_ms = shift.apply(steps.time(step));
        while next < timestamps_ms.len() && timestamps_ms[next] <= now_ms {
            next += 1;
        }
        let found = next.checked_sub(1).filter(|at| now_ms - lookback_ms < timestamps_ms[*at]);
        found.map_or(NONE, |at| at as u32)
    };
    (0..steps.count).map(at).collect()
}

/// Where an instant selector looks for samples.
pub(super) fn reach(selector: &Selector, steps: Steps, lookback_ms: i64) -> TimeRange {
    let smoothed = selector.boundary == Boundary::Smoothed;
    TimeRange {
        min_ms: selector.shift.apply(steps.start_ms) - lookback_ms + 1,
        max_ms: selector.shift.apply(steps.last_ms()) + if smoothed { lookback_ms } else { 0 },
    }
}

impl<'e> Evaluator<'e> {
    /// Pulls the samples of the series that match, block by block; in a fork those of its block.
    pub(super) fn each_series(
        &mut self,
        selector: &Selector,
        range: TimeRange,
        mut visit: impl FnMut(&mut Self, (u32, ItemLabels<'_>), Points) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let mut visit_block = |own: &mut Self, selection: &Selection, block: usize| {
            own.check()?;
            let first = block * BLOCK_SERIES_MAX;
            let count = selection.len().saturating_sub(first).min(BLOCK_SERIES_MAX);
            let columns = selection.block(first as u32, count)?;
            let labels = BlockLabels::new(selection, first as u32, count, selector.fixed_name());
            for (position, columns) in (0..).zip(columns.series) {
                let mut points = Points::of(columns);
                own.spend(points.values.len())?;
                if !own.env.use_start_timestamps {
                    points.starts_ms = None;
                }
                visit(own, (position, ItemLabels::InBlock(&labels, position)), points)?;
            }
            Ok(())
        };
        if let Some((selection, block)) = self.known_selection(selector) {
            return visit_block(self, selection, block);
        }
        let hints = SelectHints::default();
        let selection = self.env.select.select(&selector.matchers, range, &hints)?;
        let blocks = selection.len().div_ceil(BLOCK_SERIES_MAX);
        (0..blocks).try_for_each(|block| visit_block(self, &selection, block))
    }

    /// Passes on the series that a selector finds.
    pub(super) fn stream_selector(
        &mut self,
        selector: &Selector,
        steps: Steps,
        sampled: Sampled,
        span: Span,
        sink: Sink<'_, 'e>,
    ) -> Result<(), QueryError> {
        if steps.count == 0 {
            return Ok(());
        }
        let (shift, lookback_ms) = (selector.shift, self.env.lookback_ms);
        let smoothed = selector.boundary == Boundary::Smoothed && sampled == Sampled::Value;
        let range = reach(selector, steps, lookback_ms);
        let mut tables = SharedTables::new(steps, self.chain_tables().map(|all| &all.newest));
        self.take_column::<f64>(steps)?;
        let mut values = vec![absent(); steps.count];
        let mut histograms = Histograms::new();
        self.each_series(selector, range, |own, (position, labels), points| {
            if points.timestamps_ms.is_empty() {
                return Ok(());
            }
            own.spend(steps.count)?;
            histograms.clear();
            if smoothed {
                let frame = Smoothing { steps, shift, lookback_ms };
                if points.histograms.is_some() {
                    let name = labels.name()?;
                    own.smooth_histograms(
                        &points,
                        frame,
                        (name, span),
                        &mut values,
                        &mut histograms,
                    );
                } else {
                    frame.interpolated(&points, &mut values);
                }
            } else {
                let table = tables.get(&points.timestamps_ms, || {
                    newest(&points.timestamps_ms, steps, shift, lookback_ms)
                });
                gather(&points, &table, sampled, &mut values);
                if sampled == Sampled::Value && points.histograms.is_some() {
                    let found = table.iter().map(|at| points.histogram(*at as usize).cloned());
                    histograms.extend(found);
                }
            }
            let mut count = kernels::count_present(&values);
            if count == 0 {
                return Ok(());
            }
            if !histograms.is_empty() {
                count += weight(&histograms);
            }
            own.count_found(count, |step| match histogram_at(&values, &histograms, step) {
                Some(histogram) => samples_of(histogram),
                None => u64::from(!is_absent(values[step])),
            });
            own.touch(count)?;
            let (values, histograms) = (&mut values[..], &mut histograms);
            sink(own, Item { labels, position, drop_name: false, values, histograms })
        })
    }
}

fn gather(points: &Points, table: &[u32], sampled: Sampled, values: &mut [f64]) {
    if sampled == Sampled::Value {
        for (value, at) in values.iter_mut().zip(table) {
            // Stale markers stand for absence here, too.
            *value = points.values.get(*at as usize).copied().unwrap_or_else(absent);
        }
        return;
    }
    for (value, at) in values.iter_mut().zip(table) {
        let found = points.values.get(*at as usize).copied().filter(|found| !is_absent(*found));
        let timestamp_ms = points.timestamps_ms.get(*at as usize).copied().unwrap_or_default();
        *value = match (found, sampled) {
            (None, _) => absent(),
            (Some(value), Sampled::Value) => value,
            (Some(_), Sampled::Seconds) => timestamp_ms as f64 / 1000.0,
            (Some(_), Sampled::Milliseconds) => timestamp_ms as f64,
            (Some(_), Sampled::StartSeconds) => points.start_ms(*at as usize) as f64 / 1000.0,
        };
    }
}

/// Where `smoothed` selectors look for samples.
#[derive(Clone, Copy)]
pub(super) struct Smoothing {
    steps: Steps,
    shift: Shift,
    lookback_ms: i64,
}

/// A sample in reach of a moment.
type Near = Option<usize>;

impl Smoothing {
    fn now_ms(self, step: usize) -> i64 {
        self.shift.apply(self.steps.time(step))
    }

    /// The newest sample before a step and the oldest one at it or after it.
    fn neighbours(self, timestamps_ms: &[i64], step: usize) -> (Near, Near) {
        let now_ms = self.now_ms(step);
        let next = timestamps_ms.partition_point(|timestamp| *timestamp < now_ms);
        let before = next.checked_sub(1);
        let before = before.filter(|at| now_ms - self.lookback_ms < timestamps_ms[*at]);
        let in_reach = |timestamp: &i64| *timestamp <= now_ms + self.lookback_ms;
        (before, timestamps_ms.get(next).is_some_and(in_reach).then_some(next))
    }

    /// Between two samples the value on the line that joins them.
    fn interpolated(self, points: &Points, out: &mut [f64]) {
        let points = super::range::without_stale(points.clone(), None);
        let point = |at: usize| (points.timestamps_ms[at], points.values[at]);
        for (step, out) in out.iter_mut().enumerate() {
            let now_ms = self.now_ms(step);
            *out = match self.neighbours(&points.timestamps_ms, step) {
                (_, Some(at)) if points.timestamps_ms[at] == now_ms => points.values[at],
                (Some(before), Some(after)) => {
                    super::range::on_line(point(before), point(after), now_ms, false)
                }
                (Some(before), None) => points.values[before],
                (None, _) => absent(),
            };
        }
    }
}

impl Evaluator<'_> {
    /// The same where samples are histograms.
    fn smooth_histograms(
        &mut self,
        points: &Points,
        frame: Smoothing,
        (name, span): (&str, Span),
        values: &mut [f64],
        histograms: &mut Histograms,
    ) {
        let points = super::range::without_stale(points.clone(), None);
        let times = &points.timestamps_ms;
        for step in 0..values.len() {
            let now_ms = frame.now_ms(step);
            let first = times.partition_point(|time| *time <= now_ms - frame.lookback_ms);
            let end = times.partition_point(|time| *time <= now_ms + frame.lookback_ms);
            let count = (first..end).filter(|at| points.histogram(*at).is_some()).count();
            let mut sample = Sample::Absent;
            if 0 < count && count < end - first {
                self.notes.range_notice(RangeNotice::MixedTypes, name, span);
            } else if count == 0 {
                let mut one = [absent()];
                let steps = Steps { start_ms: frame.steps.time(step), count: 1, ..frame.steps };
                Smoothing { steps, ..frame }.interpolated(&points, &mut one);
                sample = if is_absent(one[0]) { sample } else { Sample::Float(one[0]) };
            } else {
                let mut notices = Vec::new();
                let histogram = smoothed_histogram(&points, frame, step, &mut notices);
                for notice in notices {
                    self.notes.range_notice(notice, name, span);
                }
                sample = histogram.map_or(sample, Sample::Histogram);
            }
            sample.put(values, histograms, step);
        }
    }
}

fn smoothed_histogram(
    points: &Points,
    frame: Smoothing,
    step: usize,
    notices: &mut Vec<RangeNotice>,
) -> Option<Arc<Histogram>> {
    let now_ms = frame.now_ms(step);
    let point = |at: usize| Some((points.timestamps_ms[at], &**points.histogram(at)?));
    match frame.neighbours(&points.timestamps_ms, step) {
        (_, Some(at)) if points.timestamps_ms[at] == now_ms => points.histogram(at).cloned(),
        (Some(before), Some(after)) => {
            let (before, after) = (point(before)?, point(after)?);
            let gauge = |point: (i64, &Histogram)| point.1.reset_hint == ResetHint::Gauge;
            let counter = !(gauge(before) && gauge(after));
            if before.1.has_custom_buckets() != after.1.has_custom_buckets() {
                notices.push(RangeNotice::MixedSchemas);
                return None;
            }
            native::on_line(before, after, now_ms, counter, notices).map(Arc::new)
        }
        (Some(before), None) => {
            let mut carried = point(before)?.1.clone();
            carried.reset_hint = ResetHint::Unknown;
            Some(Arc::new(carried))
        }
        (None, _) => None,
    }
}
