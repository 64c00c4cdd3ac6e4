//! Scripts of promqltest: series to load, and evaluations with what they must give.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use super::memory::Memory;
use super::notation::{Step, number, sequence, split_series};
use super::pinned::{other_moments, pinned};
use crate::model::duration;
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::model::sample::is_stale_nan;
use crate::promql::engine::{Engine, Query, QueryError, QueryOutput, Series, Value};
use crate::promql::parser::parse_metric;

/// How a script went.
#[derive(Debug, Default)]
pub struct Tally {
    /// Evaluations that gave what they must.
    pub passed: usize,
    /// The others: line, expression and what was wrong.
    pub failures: Vec<String>,
}

/// Runs a script.
///
/// # Errors
/// A line is not of the notation.
pub fn run(text: &str) -> Result<Tally, String> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .map(|line| if line.starts_with('#') { "" } else { line })
        .collect();
    let mut tally = Tally::default();
    let mut memory = Memory::default();
    let mut at = 0;
    while at < lines.len() {
        let first = at;
        at += 1;
        let word = lines[first].split_whitespace().next().unwrap_or("");
        if word.is_empty() {
            continue;
        }
        while !word.starts_with("clear") && at < lines.len() && !lines[at].is_empty() {
            at += 1;
        }
        let block = &lines[first..at];
        if word == "clear" {
            memory = Memory::default();
        } else if word.starts_with("load") {
            load(&mut memory, block).map_err(|err| format!("line {}: {err}", first + 1))?;
        } else {
            let mut eval =
                Eval::parse(block).map_err(|err| format!("line {}: {err}", first + 1))?;
            eval.line = first + 1;
            match eval.check(&memory.engine(true)) {
                Ok(()) => tally.passed += 1,
                Err(err) => tally.failures.push(format!("{}: {}: {err}", eval.line, eval.expr)),
            }
        }
    }
    Ok(tally)
}

fn load(memory: &mut Memory, block: &[&str]) -> Result<(), String> {
    let gap = block[0].split_whitespace().nth(1).ok_or("a gap")?;
    let gap_ms = milliseconds(gap)?;
    let has_starts = |line: &&str| line.split_whitespace().next().unwrap_or("").ends_with("@st");
    let (starts, lines): (Vec<&str>, Vec<&str>) = block[1..].iter().copied().partition(has_starts);
    for line in &starts {
        memory.load_starts(gap_ms, line)?;
    }
    for line in &lines {
        memory.load(gap_ms, line)?;
    }
    if block[0].contains("_with_nhcb") {
        memory.load_converted(gap_ms, &lines)?;
    }
    Ok(())
}

fn milliseconds(text: &str) -> Result<i64, String> {
    duration::parse(text).map(|own: Duration| own.as_millis() as i64).map_err(|err| err.to_string())
}

/// What a text must look like.
enum Text {
    Any,
    Exactly(String),
    Like(Regex),
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(own) => own == text,
            Self::Like(regex) => regex.is_match(text),
        }
    }
}

#[derive(Default)]
struct Eval {
    line: usize,
    expr: String,
    /// Start, end and step of what is expected.
    grid: (i64, i64, i64),
    at_ms: i64,
    is_range: bool,
    fail: Option<Text>,
    some_warning: bool,
    some_info: bool,
    warnings: Vec<Text>,
    infos: Vec<Text>,
    no_warning: bool,
    no_info: bool,
    ordered: bool,
    scalar: Option<f64>,
    string: Option<String>,
    not_as_range: bool,
    series: BTreeMap<Labels, (usize, Vec<Step>)>,
}

impl Eval {
    fn parse(block: &[&str]) -> Result<Self, String> {
        let mut eval = Self::default();
        let (command, rest) = block[0].split_once(char::is_whitespace).ok_or("a command")?;
        let rest = rest.trim();
        if let Some(rest) = rest.strip_prefix("instant") {
            let rest = rest.trim_start().strip_prefix("at").ok_or("a time")?.trim_start();
            let (at, expr) = rest.split_once(char::is_whitespace).ok_or("an expression")?;
            eval.at_ms = milliseconds(at)?;
            expr.trim().clone_into(&mut eval.expr);
            eval.grid = (eval.at_ms, eval.at_ms, 1);
        } else {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["range", "from", from, "to", to, "step", step, ..] = words[..] else {
                return Err(format!("not an eval: {rest}"));
            };
            eval.grid = (milliseconds(from)?, milliseconds(to)?, milliseconds(step)?);
            eval.is_range = true;
            let after = rest.split_once(" step ").ok_or("a step")?.1.trim_start();
            after[step.len()..].trim().clone_into(&mut eval.expr);
        }
        match command {
            "eval_fail" => eval.fail = Some(Text::Any),
            "eval_warn" => eval.some_warning = true,
            "eval_info" => eval.some_info = true,
            "eval_ordered" => eval.ordered = true,
            _ => {}
        }
        let mut position = 0;
        for line in &block[1..] {
            eval.expectation(line, &mut position)?;
        }
        Ok(eval)
    }

    fn expectation(&mut self, line: &str, position: &mut usize) -> Result<(), String> {
        if let Some(text) = line.strip_prefix("expected_fail_message") {
            self.fail = Some(Text::Exactly(text.trim().to_owned()));
        } else if let Some(text) = line.strip_prefix("expected_fail_regexp") {
            self.fail = Some(Text::Like(regex(text.trim())?));
        } else if let Some(rest) = line.strip_prefix("expect range vector") {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["from", from, "to", to, "step", step] = words[..] else {
                return Err(format!("a range: {rest}"));
            };
            self.grid = (milliseconds(from)?, milliseconds(to)?, milliseconds(step)?);
            self.at_ms = self.grid.1;
            self.not_as_range = true;
        } else if let Some(text) = line.strip_prefix("expect string") {
            let text = text.trim();
            let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or("");
            self.string = Some(if text.starts_with('`') {
                inner.to_owned()
            } else {
                inner.replace("\\\"", "\"")
            });
            self.not_as_range = true;
        } else if line.split(' ').next() == Some("expect") {
            self.annotation(line)?;
        } else if let Ok(value) = number(line) {
            self.scalar = Some(value);
        } else {
            let (metric, values) = split_series(line)?;
            let labels = parse_metric(metric).map_err(|err| format!("{err} in {line}"))?;
            let steps = sequence(values)?;
            *position += 1;
            self.series.insert(labels, (*position, steps));
        }
        Ok(())
    }

    fn annotation(&mut self, line: &str) -> Result<(), String> {
        let rest = line["expect".len()..].trim();
        let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let rest = rest.trim();
        let text = match (rest.strip_prefix("msg:"), rest.strip_prefix("regex:")) {
            (Some(text), _) => Text::Exactly(text.trim().to_owned()),
            (_, Some(text)) => Text::Like(regex(text.trim())?),
            _ => Text::Any,
        };
        match kind {
            "fail" => self.fail = Some(text),
            "warn" => self.warnings.push(text),
            "info" => self.infos.push(text),
            "no_warn" => self.no_warning = true,
            "no_info" => self.no_info = true,
            "ordered" => self.ordered = true,
            _ => return Err(format!("expectation {line}")),
        }
        Ok(())
    }

    /// Evaluates, and where that makes sense at other moments and in the middle of a range.
    fn check(&self, engine: &Engine) -> Result<(), String> {
        let query = Query::new(&self.expr);
        let (start_ms, end_ms, step_ms) = self.grid;
        let result = if self.is_range {
            engine.range(&query, start_ms, end_ms, step_ms)
        } else {
            engine.instant(&query, self.at_ms)
        };
        self.judge(result)?;
        if !self.is_range && !self.not_as_range && self.fail.is_none() {
            self.check_pinned(engine)?;
        }
        let of_query = ["start()", "end()", "range()", "step()"];
        let differs = of_query.iter().any(|function| self.expr.contains(function));
        if self.is_range || self.not_as_range || self.fail.is_some() || self.ordered || differs {
            return Ok(());
        }
        let (before, after) = (self.at_ms - 60_000, self.at_ms + 60_000);
        let output = engine
            .range(&query, before, after, 60_000)
            .map_err(|err| format!("as range: {err}"))?;
        let Value::Matrix(matrix) = &output.value else { return Err("not a matrix".to_owned()) };
        let mut found = BTreeMap::new();
        for series in matrix {
            let mut points = all_points(series);
            points.retain(|(at_ms, _)| *at_ms == self.at_ms);
            if !points.is_empty() {
                found.insert(series.labels.clone(), (0, points));
            }
        }
        let scalar = self.scalar.map(|value| (Labels::empty(), (0, vec![Step::Float(value)])));
        let expected = match scalar {
            Some(scalar) => [scalar].into(),
            None => self.series.clone(),
        };
        self.compare(&expected, &found).map_err(|err| format!("as range: {err}"))
    }

    /// Evaluates at other moments what is fixed to the right one.
    fn check_pinned(&self, engine: &Engine) -> Result<(), String> {
        let Some(text) = pinned(&self.expr, self.at_ms)? else { return Ok(()) };
        for at_ms in other_moments(self.at_ms) {
            let place = |err: String| format!("as {text} at {at_ms} ms: {err}");
            let output = engine.instant(&Query::new(&text), at_ms);
            let mut output = output.map_err(|err| place(err.to_string()))?;
            if let Value::Vector(samples) = &mut output.value {
                if samples.iter().any(|sample| sample.timestamp_ms != at_ms) {
                    return Err(place("samples do not bear the moment".to_owned()));
                }
                for sample in samples {
                    sample.timestamp_ms = self.at_ms;
                }
            }
            let warns = self.some_warning || !self.warnings.is_empty();
            if self.no_warning && !output.warnings.is_empty() || warns && output.warnings.is_empty()
            {
                return Err(place(format!("warnings differ: {:?}", output.warnings)));
            }
            self.judge_value(output.value).map_err(place)?;
        }
        Ok(())
    }

    fn judge(&self, result: Result<QueryOutput, QueryError>) -> Result<(), String> {
        let output = match (result, &self.fail) {
            (Err(err), Some(text)) if text.matches(&err.to_string()) => return Ok(()),
            (Err(err), _) => return Err(format!("failed: {err}")),
            (Ok(_), Some(_)) => return Err("did not fail".to_owned()),
            (Ok(output), None) => output,
        };
        Self::judge_annotations(
            "warning",
            &self.warnings,
            self.no_warning,
            self.some_warning,
            &output.warnings,
        )?;
        Self::judge_annotations("info", &self.infos, self.no_info, self.some_info, &output.infos)?;
        self.judge_value(output.value)
    }

    fn judge_value(&self, value: Value) -> Result<(), String> {
        let point = |at_ms, value| vec![(at_ms, value)];
        let found: Found = match value {
            Value::String { value, .. } => {
                let fits = self.string.as_ref() == Some(&value);
                return if fits { Ok(()) } else { Err(format!("got string {value:?}")) };
            }
            Value::Scalar { value, .. } => {
                let Some(expected) = self.scalar else { return Err(format!("got scalar {value}")) };
                let fits = almost_equal(expected, value);
                return if fits {
                    Ok(())
                } else {
                    Err(format!("expected {expected}, got {value}"))
                };
            }
            Value::Vector(vector) => {
                let all = vector.into_iter().enumerate();
                let value = |value: f64, histogram: Option<Arc<Histogram>>| match histogram {
                    Some(histogram) => Step::Histogram(histogram, true),
                    None => Step::Float(value),
                };
                all.map(|(at, one)| {
                    let value = value(one.value, one.histogram);
                    (one.labels, (at + 1, point(one.timestamp_ms, value)))
                })
                .collect()
            }
            Value::Matrix(matrix) => {
                if !matrix.is_sorted_by(|a, b| a.labels < b.labels) {
                    return Err("series are not sorted, or not unique".to_owned());
                }
                let points = |one: Series| (one.labels.clone(), (0, all_points(&one)));
                matrix.into_iter().map(points).collect()
            }
        };
        if self.scalar.is_some() {
            return Err("expected a scalar".to_owned());
        }
        self.compare(&self.series, &found)
    }

    fn judge_annotations(
        kind: &str,
        expected: &[Text],
        none: bool,
        some: bool,
        found: &[String],
    ) -> Result<(), String> {
        if none && !found.is_empty() {
            return Err(format!("unexpected {kind}: {found:?}"));
        }
        if (some || !expected.is_empty()) && found.is_empty() {
            return Err(format!("expected {kind}, got none"));
        }
        let all_found = expected.iter().all(|text| found.iter().any(|own| text.matches(own)));
        let all_expected = expected.is_empty()
            || found.iter().all(|own| expected.iter().any(|text| text.matches(own)));
        if all_found && all_expected { Ok(()) } else { Err(format!("{kind} differs: {found:?}")) }
    }

    fn compare(
        &self,
        expected: &BTreeMap<Labels, (usize, Vec<Step>)>,
        found: &Found,
    ) -> Result<(), String> {
        if let Some((labels, (_, points))) =
            found.iter().find(|(labels, _)| !expected.contains_key(labels))
        {
            return Err(format!("unexpected {labels} {points:?}"));
        }
        for (labels, (position, steps)) in expected {
            let Some((own_position, points)) = found.get(labels) else {
                return Err(format!("{labels} not found"));
            };
            if self.ordered && position != own_position {
                return Err(format!("{labels} at {own_position}, expected at {position}"));
            }
            let time = |at: usize| self.grid.0 + at as i64 * self.grid.2;
            let wanted: Vec<(i64, Step)> = steps
                .iter()
                .enumerate()
                .filter(|(_, step)| **step != Step::Omitted)
                .map(|(at, step)| (time(at), step.clone()))
                .collect();
            let equal =
                |(a, b): (&(i64, Step), &(i64, Step))| a.0 == b.0 && is_as_expected(&a.1, &b.1);
            if wanted.len() != points.len() || !wanted.iter().zip(points).all(equal) {
                return Err(format!("{labels}: expected {wanted:?}, got {points:?}"));
            }
        }
        Ok(())
    }
}

/// Results by labels: position and points.
type Found = BTreeMap<Labels, (usize, Vec<(i64, Step)>)>;

fn all_points(series: &Series) -> Vec<(i64, Step)> {
    let floats = series.points.iter().map(|(at_ms, value)| (*at_ms, Step::Float(*value)));
    let histograms = series.histograms.iter();
    let histograms =
        histograms.map(|(at_ms, one)| (*at_ms, Step::Histogram(Arc::clone(one), true)));
    let mut all: Vec<_> = floats.chain(histograms).collect();
    all.sort_by_key(|point| point.0);
    all
}

fn is_as_expected(expected: &Step, found: &Step) -> bool {
    match (expected, found) {
        (Step::Float(expected), Step::Float(found)) => almost_equal(*expected, *found),
        (Step::Histogram(expected, hinted), Step::Histogram(found, _)) => {
            is_same_histogram(expected, found)
                && (!hinted || expected.reset_hint == found.reset_hint)
        }
        _ => false,
    }
}

/// Within a millionth, empty buckets left out.
pub fn is_same_histogram(expected: &Histogram, found: &Histogram) -> bool {
    let (expected, found) = (expected.clone().compacted(), found.clone().compacted());
    let scalars = |own: &Histogram| [own.count, own.sum, own.zero_threshold, own.zero_count];
    let all_equal = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| almost_equal(*a, *b))
    };
    expected.schema == found.schema
        && all_equal(&scalars(&expected), &scalars(&found))
        && expected.custom_bounds == found.custom_bounds
        && expected.positive_spans == found.positive_spans
        && expected.negative_spans == found.negative_spans
        && all_equal(&expected.positive_buckets, &found.positive_buckets)
        && all_equal(&expected.negative_buckets, &found.negative_buckets)
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|err| err.to_string())
}

/// Within a millionth.
fn almost_equal(a: f64, b: f64) -> bool {
    if is_stale_nan(a) || is_stale_nan(b) {
        return is_stale_nan(a) && is_stale_nan(b);
    }
    if a == b || a.is_nan() && b.is_nan() {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < 1e-6 * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < 1e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_pass_or_tell_why_not() {
        let script = "
            # A comment.
            load 1m
              up{job=\"a\"} 1 0x2
              seen {{schema:1 count:2 sum:3 buckets:[2]}}x2

            eval instant at 1m up
              up{job=\"a\"} 0

            eval range from 0 to 2m step 1m up + 1
              {job=\"a\"} 2 1 1

            eval instant at 1m histogram_count(seen)
              {} 2

            eval_fail instant at 1m sum(

            eval instant at 1m up
              up{job=\"a\"} 5
        ";
        let tally = run(script).unwrap();
        assert_eq!(tally.passed, 4, "{tally:?}");
        assert_eq!(tally.failures.len(), 1);
        assert!(tally.failures[0].starts_with("18: up: {__name__=\"up\""), "{tally:?}");
        assert!(run("load 1m\n  up{ 1").unwrap_err().starts_with("line 1: "));
        assert!(run("load 1m\n  up 1x99999999999").is_err());
        assert!(run("evil instant at 1m").is_err());
    }
}
