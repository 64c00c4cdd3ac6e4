//! Selectors: the newest sample of each series at each step, within the lookback, or none.

use std::sync::Arc;

use foldhash::HashMap;

use crate::model::sample::TimeRange;
use crate::promql::ast::Boundary;
use crate::promql::engine::QueryError;
use crate::storage::select::{
    BLOCK_SERIES_MAX, Column, Run, SelectHints, Selection, SeriesColumns, SeriesMeta,
};

use super::plan::{Selector, Shift};
use super::{Evaluator, Histograms, Item, Sink, Steps, absent, is_absent};

/// What is taken of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampled {
    Value,
    /// Its timestamp, for `timestamp()`.
    Seconds,
    /// Its timestamp, for the choice among info series.
    Milliseconds,
}

/// Samples of one series.
#[derive(Clone, Debug)]
pub(super) struct Points {
    /// Ascending. Shared between series that were scraped together.
    pub(super) timestamps_ms: Arc<[i64]>,
    pub(super) values: Arc<[f64]>,
}

impl Points {
    /// All runs as one. Stale markers are still in place.
    pub(super) fn of(columns: SeriesColumns) -> Self {
        let runs = columns.runs;
        if let [Run { timestamps_ms, values: Column::Floats(values) }] = runs.as_slice() {
            return Self { timestamps_ms: Arc::clone(timestamps_ms), values: Arc::clone(values) };
        }
        let (mut timestamps_ms, mut all) = (Vec::new(), Vec::new());
        for run in &runs {
            let Column::Floats(values) = &run.values else { continue };
            timestamps_ms.extend_from_slice(&run.timestamps_ms);
            all.extend_from_slice(values);
        }
        Self { timestamps_ms: timestamps_ms.into(), values: all.into() }
    }
}

/// Steps of all tables that are kept: 64 MiB of the larger kind.
const TABLE_STEPS_MAX: usize = 8 << 20;

/// Something computed from a timestamp slice alone, once for all series that share it.
pub(super) struct SharedTables<T> {
    by_slice: HashMap<*const i64, (Arc<[i64]>, Arc<T>)>,
    tables_max: usize,
}

impl<T> SharedTables<T> {
    pub(super) fn new(steps: Steps) -> Self {
        let tables_max = (TABLE_STEPS_MAX / steps.count.max(1)).clamp(1, 4096);
        Self { by_slice: HashMap::default(), tables_max }
    }

    /// The table of `slice`; the slice is kept, so its address stays its own.
    pub(super) fn get(&mut self, slice: &Arc<[i64]>, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some((_, table)) =
            self.by_slice.get(&slice.as_ptr()).filter(|(own, _)| Arc::ptr_eq(own, slice))
        {
            return Arc::clone(table);
        }
        if self.tables_max <= self.by_slice.len() {
            self.by_slice.clear();
        }
        let table = Arc::new(make());
        self.by_slice.insert(slice.as_ptr(), (Arc::clone(slice), Arc::clone(&table)));
        table
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

impl<'e> Evaluator<'e> {
    /// Series that match and may have samples in the range.
    pub(super) fn select(
        &self,
        selector: &Selector,
        range: TimeRange,
    ) -> Result<Selection, QueryError> {
        let hints = SelectHints::default();
        Ok(self.env.select.select(&selector.matchers, range, &hints)?)
    }

    /// Pulls the samples of a selection, block by block.
    pub(super) fn each_series(
        &mut self,
        selection: &Selection,
        mut visit: impl FnMut(&mut Self, &SeriesMeta, Points) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        for (block, series) in selection.series().chunks(BLOCK_SERIES_MAX).enumerate() {
            self.check()?;
            let columns = selection.block((block * BLOCK_SERIES_MAX) as u32, series.len())?;
            for (meta, columns) in series.iter().zip(columns.series) {
                visit(self, meta, Points::of(columns))?;
            }
        }
        Ok(())
    }

    /// Passes on the series that a selector finds.
    pub(super) fn stream_selector(
        &mut self,
        selector: &Selector,
        steps: Steps,
        sampled: Sampled,
        sink: Sink<'_, 'e>,
    ) -> Result<(), QueryError> {
        if steps.count == 0 {
            return Ok(());
        }
        let (shift, lookback_ms) = (selector.shift, self.env.lookback_ms);
        let smoothed = selector.boundary == Boundary::Smoothed;
        let range = TimeRange {
            min_ms: shift.apply(steps.start_ms) - lookback_ms + 1,
            max_ms: shift.apply(steps.last_ms()) + if smoothed { lookback_ms } else { 0 },
        };
        let selection = self.select(selector, range)?;
        let mut tables = SharedTables::new(steps);
        let mut values = vec![absent(); steps.count];
        let mut histograms = Histograms::new();
        self.each_series(&selection, |own, meta, points| {
            if points.timestamps_ms.is_empty() {
                return Ok(());
            }
            if smoothed {
                interpolated(&points, steps, shift, lookback_ms, &mut values);
            } else {
                let table = tables.get(&points.timestamps_ms, || {
                    newest(&points.timestamps_ms, steps, shift, lookback_ms)
                });
                gather(&points, &table, sampled, &mut values);
            }
            let count = values.iter().filter(|value| !is_absent(**value)).count() as u64;
            if count == 0 {
                return Ok(());
            }
            own.samples.total += count;
            own.touch(count)?;
            let (labels, drop_name) = (meta.labels(), false);
            sink(own, Item { labels, drop_name, values: &mut values, histograms: &mut histograms })
        })
    }
}

fn gather(points: &Points, table: &[u32], sampled: Sampled, values: &mut [f64]) {
    for (value, at) in values.iter_mut().zip(table) {
        let found = points.values.get(*at as usize).copied().filter(|found| !is_absent(*found));
        let timestamp_ms = points.timestamps_ms.get(*at as usize).copied().unwrap_or_default();
        *value = match (found, sampled) {
            (None, _) => absent(),
            (Some(found), Sampled::Value) => found,
            (Some(_), Sampled::Seconds) => timestamp_ms as f64 / 1000.0,
            (Some(_), Sampled::Milliseconds) => timestamp_ms as f64,
        };
    }
}

/// `smoothed`: between two samples the value on the line that joins them.
fn interpolated(points: &Points, steps: Steps, shift: Shift, lookback_ms: i64, out: &mut [f64]) {
    let points = super::range::without_stale(points);
    let (timestamps_ms, values) = (&points.timestamps_ms[..], &points.values[..]);
    for (step, out) in out.iter_mut().enumerate() {
        let now_ms = shift.apply(steps.time(step));
        let next = timestamps_ms.partition_point(|timestamp| *timestamp < now_ms);
        let after = (timestamps_ms.get(next))
            .filter(|timestamp| **timestamp <= now_ms + lookback_ms)
            .map(|timestamp| (*timestamp, values[next]));
        let before = next
            .checked_sub(1)
            .map(|at| (timestamps_ms[at], values[at]))
            .filter(|(timestamp, _)| now_ms - lookback_ms < *timestamp);
        *out = match (before, after) {
            (_, Some((timestamp, value))) if timestamp == now_ms => value,
            (Some(before), Some(after)) => super::range::on_line(before, after, now_ms, false),
            (Some((_, value)), None) => value,
            (None, _) => absent(),
        };
    }
}
