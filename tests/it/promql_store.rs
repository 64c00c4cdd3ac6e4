//! A store in memory that is loaded with series in promqltest's notation, and an engine on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use narthex::base::clock::SimClock;
use narthex::base::metrics::Registry;
use narthex::model::labels::Labels;
use narthex::model::matcher::Matcher;
use narthex::model::metadata::Metadata;
use narthex::model::sample::{TimeRange, stale_nan};
use narthex::promql::engine::{Engine, EngineOptions};
use narthex::promql::parser::{ParserOptions, parse_metric};
use narthex::storage::select::{
    BlockSource, Column, ColumnBlock, QueryError, QueryOrdinal, Run, Select, SelectHints,
    Selection, SeriesColumns, SeriesMeta,
};

/// Samples by series and timestamp.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    series: BTreeMap<Labels, BTreeMap<i64, f64>>,
}

impl Memory {
    /// Adds what a `load` block says: one series a line, samples `gap_ms` apart from 0 on.
    /// Histogram samples are left out.
    pub fn load(&mut self, gap_ms: i64, line: &str) -> Result<(), String> {
        let (metric, values) = split_series(line)?;
        let labels = parse_metric(metric).map_err(|err| err.to_string())?;
        let series = self.series.entry(labels).or_default();
        for (index, value) in sequence(values)?.into_iter().enumerate() {
            if let Step::Float(value) = value {
                series.insert(index as i64 * gap_ms, value);
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
        let mut options = EngineOptions {
            lookback_delta_ms: 300_000,
            max_samples: 50_000_000,
            timeout: Duration::from_secs(100),
            max_concurrency: 20,
            default_subquery_step_ms: Arc::new(AtomicI64::new(60_000)),
            parser: ParserOptions::ALL,
            delayed_name_removal: true,
            type_and_unit_labels: false,
        };
        change(&mut options);
        let clock = Arc::new(SimClock::new(0));
        Engine::new(Arc::new(self.clone()), clock, &Registry::new(), options)
    }
}

struct Columns(Vec<(Arc<[i64]>, Arc<[f64]>)>);

impl BlockSource for Columns {
    fn block(&self, first: QueryOrdinal, count: usize) -> Result<ColumnBlock, QueryError> {
        let columns = self.0[first as usize..][..count].iter();
        let run = |(timestamps_ms, values): &(Arc<[i64]>, Arc<[f64]>)| Run {
            timestamps_ms: Arc::clone(timestamps_ms),
            values: Column::Floats(Arc::clone(values)),
        };
        Ok(ColumnBlock {
            series: columns.map(|column| SeriesColumns { runs: vec![run(column)] }).collect(),
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
        let (mut metas, mut columns) = (Vec::new(), Vec::new());
        let mut shared: Vec<Arc<[i64]>> = Vec::new();
        for (labels, samples) in &self.series {
            let fits =
                |matcher: &Matcher| matcher.matches(labels.get(matcher.name()).unwrap_or(""));
            if !matchers.iter().all(fits) || range.max_ms < range.min_ms {
                continue;
            }
            let inside = samples.range(range.min_ms..=range.max_ms);
            let (timestamps, values): (Vec<i64>, Vec<f64>) = inside.unzip();
            // Equal timestamps are shared, as they are when series were scraped together.
            let own: Arc<[i64]> = match shared.iter().find(|slice| slice[..] == timestamps[..]) {
                Some(slice) => Arc::clone(slice),
                None => timestamps.into(),
            };
            shared.push(Arc::clone(&own));
            metas.push(SeriesMeta::new(labels.clone()));
            columns.push((own, values.into()));
        }
        Ok(Selection::new(metas, Box::new(Columns(columns))))
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

/// One step of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Omitted,
    Float(f64),
    /// Not evaluated yet.
    Histogram,
}

/// Splits a line after the metric.
pub fn split_series(line: &str) -> Result<(&str, &str), String> {
    let (mut quote, mut braces) = (None, false);
    let mut letters = line.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some('"' | '\''), '\\') => {
                letters.next();
            }
            (Some(open), _) => quote = quote.filter(|_| open != letter),
            (None, '"' | '\'' | '`') => quote = Some(letter),
            (None, '{') if line[at..].starts_with("{{") => return Ok(line.split_at(at)),
            (None, '{') => braces = true,
            (None, '}') => return Ok(line.split_at(at + 1)),
            (None, ' ' | '\t') if !braces && !line[at..].trim_start().starts_with('{') => {
                return Ok(line.split_at(at));
            }
            (None, ' ' | '\t') if line[at..].trim_start().starts_with("{{") => {
                return Ok(line.split_at(at));
            }
            (None, _) => {}
        }
    }
    if braces { Err(format!("unterminated label set in {line}")) } else { Ok((line, "")) }
}

/// Reads `1 2x3 4+5x6 _ _x7 stale {{…}}`.
pub fn sequence(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            let end = rest.find("}}").ok_or("unterminated histogram")? + 2;
            let tail = rest[end..].split_whitespace().next();
            let tail = tail.filter(|_| !rest[end..].starts_with([' ', '\t'])).unwrap_or("");
            if tail.starts_with(['+', '-']) {
                let second = rest[end..].find("}}").ok_or("unterminated histogram")? + end + 2;
                let times = rest[second..].split_whitespace().next().unwrap_or("x0");
                push_many(&mut steps, Step::Histogram, times)?;
                rest = rest[second + times.len()..].trim_start();
            } else {
                let times = if tail.is_empty() { "x0" } else { tail };
                push_many(&mut steps, Step::Histogram, times)?;
                rest = rest[end + tail.len()..].trim_start();
            }
            continue;
        }
        let end = rest.find([' ', '\t']).unwrap_or(rest.len());
        item(&rest[..end], &mut steps)?;
        rest = rest[end..].trim_start();
    }
    Ok(steps)
}

/// `x3`: four times in all.
fn push_many(steps: &mut Vec<Step>, step: Step, times: &str) -> Result<(), String> {
    let times: usize =
        times.trim_start_matches('x').parse().map_err(|_| format!("times {times}"))?;
    steps.resize(steps.len() + times + 1, step);
    Ok(())
}

fn item(text: &str, steps: &mut Vec<Step>) -> Result<(), String> {
    let (value, times) = match text.rsplit_once('x') {
        Some((value, times)) => {
            (value, Some(times.parse::<usize>().map_err(|_| format!("times in {text}"))?))
        }
        None => (text, None),
    };
    let count = times.map_or(1, |times| times + 1);
    if value == "_" {
        steps.resize(steps.len() + times.unwrap_or(1), Step::Omitted);
        return Ok(());
    }
    if value == "stale" {
        steps.resize(steps.len() + count, Step::Float(stale_nan()));
        return Ok(());
    }
    let bytes = value.as_bytes();
    let sign = (1..bytes.len())
        .find(|at| matches!(bytes[*at], b'+' | b'-') && !matches!(bytes[at - 1], b'e' | b'E'));
    let (start, delta) = sign.map_or((value, "0"), |at| value.split_at(at));
    let mut current = number(start)?;
    let delta = number(delta)?;
    for _ in 0..count {
        steps.push(Step::Float(current));
        current += delta;
    }
    Ok(())
}

/// A number as Go reads it.
pub fn number(text: &str) -> Result<f64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(hex) = digits.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16)
            .map(|value| sign * value as f64)
            .map_err(|_| text.into());
    }
    if digits.starts_with(['+', '-']) {
        return Err(text.into());
    }
    digits.parse::<f64>().map(|value| sign * value).map_err(|_| text.into())
}
