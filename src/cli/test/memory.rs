//! A store in memory that is loaded with series in promqltest's notation, and an engine on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use crate::base::clock::{Clock, SimClock};
use crate::base::metrics::Registry;
use crate::model::histogram::{Histogram, ResetHint};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::metadata::Metadata;
use crate::model::sample::TimeRange;
use crate::promql::engine::{Engine, EngineOptions};
use crate::promql::parser::{ParserOptions, parse_metric};
use crate::storage::select::{
    BlockSource, Column, ColumnBlock, Pairs, QueryError, QueryOrdinal, Run, Select, SelectHints,
    Selection, SeriesColumns,
};

use super::notation::{Step, number, sequence, split_series, starts};

/// A sample.
#[derive(Clone, Debug)]
enum Loaded {
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// Samples by series and timestamp.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    series: BTreeMap<Labels, BTreeMap<i64, Loaded>>,
    /// When counting of a sample started, by the time of the sample.
    starts_ms: BTreeMap<Labels, BTreeMap<i64, i64>>,
}

impl Memory {
    /// Adds what a `load` block says: one series a line, samples `gap_ms` apart from 0 on.
    ///
    /// # Errors
    /// The line is not of this notation.
    pub fn load(&mut self, gap_ms: i64, line: &str) -> Result<(), String> {
        let (metric, values) = split_series(line)?;
        let labels = parse_metric(metric).map_err(|err| err.to_string())?;
        let series = self.series.entry(labels).or_default();
        let mut before: Option<Arc<Histogram>> = None;
        for (index, value) in sequence(values)?.into_iter().enumerate() {
            let sample = match value {
                Step::Omitted => continue,
                Step::Float(value) => Loaded::Float(value),
                Step::Histogram(histogram, _) => {
                    Loaded::Histogram(hinted(histogram, before.as_deref()))
                }
            };
            before = match &sample {
                Loaded::Histogram(histogram) => Some(Arc::clone(histogram)),
                Loaded::Float(_) => None,
            };
            series.insert(index as i64 * gap_ms, sample);
        }
        Ok(())
    }

    /// Adds a sample as it is.
    pub fn insert(&mut self, labels: &Labels, at_ms: i64, value: Step) {
        let sample = match value {
            Step::Omitted => return,
            Step::Float(value) => Loaded::Float(value),
            Step::Histogram(histogram, _) => Loaded::Histogram(histogram),
        };
        self.series.entry(labels.clone()).or_default().insert(at_ms, sample);
    }

    /// Adds when counting started, from a line `metric@st offset …`.
    pub fn load_starts(&mut self, gap_ms: i64, line: &str) -> Result<(), String> {
        let (metric, offsets) = line.split_once("@st").ok_or("starts")?;
        let labels = parse_metric(metric).map_err(|err| err.to_string())?;
        let own = self.starts_ms.entry(labels).or_default();
        for (index, offset_ms) in starts(offsets)?.into_iter().enumerate() {
            let at_ms = index as i64 * gap_ms;
            own.extend(offset_ms.map(|offset_ms| (at_ms, at_ms + offset_ms)));
        }
        Ok(())
    }

    /// Adds a series with custom buckets for each classic histogram among these lines, as
    /// `load_with_nhcb` does.
    ///
    /// # Errors
    /// A line is not of this notation.
    pub fn load_converted(&mut self, gap_ms: i64, lines: &[&str]) -> Result<(), String> {
        let mut classic: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
        for line in lines {
            let (metric, values) = split_series(line)?;
            let labels = parse_metric(metric).map_err(|err| err.to_string())?;
            let ends = ["_bucket", "_count", "_sum"];
            let Some((base, end)) =
                ends.iter().find_map(|end| Some((labels.name().strip_suffix(end)?, *end)))
            else {
                continue;
            };
            let mut builder = labels.to_builder();
            builder.set("__name__", base);
            builder.remove("le");
            let bound = labels.get("le").and_then(|bound| number(bound).ok());
            if end == "_bucket" && bound.is_none_or(f64::is_nan) {
                continue;
            }
            let by_time = classic.entry(builder.build()).or_default();
            for (index, value) in sequence(values)?.into_iter().enumerate() {
                let Step::Float(value) = value else { continue };
                let one = by_time.entry(index as i64 * gap_ms).or_default();
                match end {
                    "_bucket" => one.buckets.push((bound.unwrap_or_default(), value)),
                    "_count" => one.count = Some(value),
                    _ => one.sum = value,
                }
            }
        }
        for (labels, by_time) in classic {
            let series = self.series.entry(labels).or_default();
            for (at_ms, one) in by_time {
                series.insert(at_ms, Loaded::Histogram(Arc::new(one.converted())));
            }
        }
        Ok(())
    }

    /// An engine with everything switched on.
    pub fn engine(&self, delayed_name_removal: bool) -> Engine {
        self.engine_with(|options| options.delayed_name_removal = delayed_name_removal)
    }

    /// The same with other options.
    pub fn engine_with(&self, change: impl FnOnce(&mut EngineOptions)) -> Engine {
        self.engine_on(Arc::new(SimClock::new(0)), change)
    }

    /// The same on this clock.
    pub fn engine_on(
        &self,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut EngineOptions),
    ) -> Engine {
        let mut options = EngineOptions {
            lookback_delta_ms: 300_000,
            max_samples: 50_000_000,
            max_bytes: 1 << 30,
            timeout: Duration::from_secs(100),
            max_concurrency: 20,
            helper_threads: 0,
            default_subquery_step_ms: Arc::new(AtomicI64::new(60_000)),
            parser: ParserOptions::ALL,
            delayed_name_removal: true,
            type_and_unit_labels: false,
            use_start_timestamps: true,
        };
        change(&mut options);
        Engine::new(Arc::new(self.clone()), clock, &Registry::new(), options)
    }
}

/// A classic histogram at one moment.
#[derive(Default)]
struct Classic {
    /// Bounds and cumulative counts.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

impl Classic {
    fn converted(mut self) -> Histogram {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let highest = self.buckets.last().copied();
        let count = self.count.or(highest.map(|bucket| bucket.1)).unwrap_or_default();
        if highest.is_none_or(|bucket| bucket.0 != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        Histogram::from_cumulative(&self.buckets, count, self.sum).compacted()
    }
}

/// Series in label order.
struct Columns(Vec<(Labels, Vec<Run>)>);

impl BlockSource for Columns {
    fn pairs(&self, ordinal: QueryOrdinal) -> Result<Pairs<'_>, QueryError> {
        Ok(self.0[ordinal as usize].0.iter().collect())
    }

    fn block(&self, first: QueryOrdinal, count: usize) -> Result<ColumnBlock, QueryError> {
        let columns = self.0[first as usize..][..count].iter();
        Ok(ColumnBlock {
            series: columns.map(|(_, runs)| SeriesColumns { runs: runs.clone().into() }).collect(),
        })
    }
}

impl Select for Memory {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _: &SelectHints,
    ) -> Result<Selection, QueryError> {
        let mut columns = Vec::new();
        let mut shared: Vec<Arc<[i64]>> = Vec::new();
        for (labels, samples) in &self.series {
            let fits =
                |matcher: &Matcher| matcher.matches(labels.get(matcher.name()).unwrap_or(""));
            if !matchers.iter().all(fits) || range.max_ms < range.min_ms {
                continue;
            }
            let inside = samples.range(range.min_ms..=range.max_ms);
            let mut runs = runs(inside, &mut shared);
            if let Some(starts_ms) = self.starts_ms.get(labels) {
                for run in &mut runs {
                    let start = |at_ms: &i64| starts_ms.get(at_ms).copied().unwrap_or_default();
                    run.starts_ms = Some(run.timestamps_ms.iter().map(start).collect());
                }
            }
            columns.push((labels.clone(), runs));
        }
        Ok(Selection::new(columns.len(), Box::new(Columns(columns))))
    }

    fn label_names(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<String>, QueryError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Vec<Matcher>],
        _: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        Ok(Vec::new())
    }

    fn metadata(&self, _: Option<&str>) -> Vec<(String, Metadata)> {
        Vec::new()
    }
}

/// A sample that says that counting went on, when the one before it tells so, as stores do.
fn hinted(histogram: Arc<Histogram>, before: Option<&Histogram>) -> Arc<Histogram> {
    let unknown = histogram.reset_hint == ResetHint::Unknown;
    let goes_on = |before: &Histogram| {
        before.reset_hint != ResetHint::Gauge && !histogram.is_reset_since(before)
    };
    if !unknown || !before.is_some_and(goes_on) {
        return histogram;
    }
    let reset_hint = ResetHint::NotCounterReset;
    Arc::new(Histogram { reset_hint, ..Histogram::clone(&histogram) })
}

/// Samples in runs of one kind.
fn runs<'a>(
    samples: impl Iterator<Item = (&'a i64, &'a Loaded)>,
    shared: &mut Vec<Arc<[i64]>>,
) -> Vec<Run> {
    let samples: Vec<_> = samples.collect();
    let is_float = |sample: &Loaded| matches!(sample, Loaded::Float(_));
    let mut runs = Vec::new();
    for chunk in samples.chunk_by(|a, b| is_float(a.1) == is_float(b.1)) {
        let timestamps: Vec<i64> = chunk.iter().map(|(at_ms, _)| **at_ms).collect();
        // Equal timestamps are shared, as they are when series were scraped together.
        let timestamps_ms: Arc<[i64]> = match shared.iter().find(|own| own[..] == timestamps[..]) {
            Some(slice) => Arc::clone(slice),
            None => timestamps.into(),
        };
        shared.push(Arc::clone(&timestamps_ms));
        let float = |sample: &(&i64, &Loaded)| match sample.1 {
            Loaded::Float(value) => Some(*value),
            Loaded::Histogram(_) => None,
        };
        let histogram = |sample: &(&i64, &Loaded)| match sample.1 {
            Loaded::Float(_) => None,
            Loaded::Histogram(histogram) => Some(Arc::clone(histogram)),
        };
        let values = if is_float(chunk[0].1) {
            Column::Floats(chunk.iter().filter_map(float).collect())
        } else {
            Column::Histograms(chunk.iter().filter_map(histogram).collect())
        };
        runs.push(Run { timestamps_ms, values, starts_ms: None, stale: None });
    }
    runs
}
