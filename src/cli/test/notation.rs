//! The notation of series in promqltest scripts: `up{job="a"} 1 2x3 4+5x6 _ stale {{count:1}}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::duration;
use crate::model::histogram::{Histogram, ResetHint, Span};
use crate::model::sample::stale_nan;

/// Steps of one series; more is a mistake.
const STEPS_MAX: usize = 10_000_000;

/// One step of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// No sample.
    Omitted,
    /// A float, or the stale marker.
    Float(f64),
    /// With whether its reset hint was given.
    Histogram(Arc<Histogram>, bool),
}

/// How often something is repeated.
fn times_of(text: &str) -> Result<usize, String> {
    let times = text.parse().ok().filter(|times| *times <= STEPS_MAX);
    times.ok_or_else(|| format!("times {text}"))
}

/// Splits a line after the metric.
///
/// # Errors
/// The braces are not closed.
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
///
/// # Errors
/// What is not of this notation.
pub fn sequence(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            rest = histograms(rest, &mut steps)?.trim_start();
            continue;
        }
        let end = rest.find([' ', '\t']).unwrap_or(rest.len());
        item(&rest[..end], &mut steps)?;
        rest = rest[end..].trim_start();
    }
    Ok(steps)
}

/// Reads `_ -1m 0-30sx3`: by how much counting started earlier than each sample was taken.
pub fn starts(text: &str) -> Result<Vec<Option<i64>>, String> {
    let offset = |text: &str| {
        let digits = text.trim_start_matches(['+', '-']);
        let length = duration::parse(digits).map_err(|err| format!("{err} in {text}"))?;
        let length_ms = length.as_millis() as i64;
        Ok::<i64, String>(if text.starts_with('-') { -length_ms } else { length_ms })
    };
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let (value, times) = word.rsplit_once('x').unwrap_or((word, "0"));
        let times: usize = times.parse().map_err(|_| format!("times in {word}"))?;
        if value == "_" {
            out.resize(out.len() + times.max(1), None);
            continue;
        }
        let sign = value.rfind(['+', '-']).filter(|at| 0 < *at);
        let (first, step) = sign.map_or((value, "0"), |at| value.split_at(at));
        let (first_ms, step_ms) = (offset(first)?, offset(step)?);
        out.extend((0..=times).map(|at| Some(first_ms + at as i64 * step_ms)));
    }
    Ok(out)
}

/// Reads `{{…}}`, `{{…}}x3` (four in all), `{{…}}+{{…}}x3`; what comes after it.
fn histograms<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let (base, mut hinted, rest) = histogram(text)?;
    let (mut step, mut rest) = (None, rest);
    let minus = rest.starts_with('-');
    if minus || rest.starts_with('+') {
        let (increment, increment_hinted, after) = histogram(&rest[1..])?;
        (step, hinted, rest) = (Some(increment), increment_hinted, after);
    }
    let end = rest.find([' ', '\t']).unwrap_or(rest.len());
    let (times, after) = rest.split_at(end);
    let times: usize = match times.strip_prefix('x') {
        Some(text) => times_of(text)?,
        None if times.is_empty() => 0,
        None => return Err(format!("times {times}")),
    };
    let mut current = base;
    for at in 0..=times {
        if let (Some(step), true) = (&step, 0 < at) {
            let next = if minus { current.subtract(step) } else { current.add(step) };
            current = next.map_err(|err| err.to_string())?.0;
        }
        steps.push(Step::Histogram(Arc::new(current.clone()), hinted));
    }
    Ok(after)
}

/// Reads `{{key:value key:[1 2]}}`: the histogram, whether its reset hint is given, and the rest.
fn histogram(text: &str) -> Result<(Histogram, bool, &str), String> {
    let inner = text.strip_prefix("{{").ok_or_else(|| format!("a histogram: {text}"))?;
    let (mut inner, rest) = inner.split_once("}}").ok_or("unterminated histogram")?;
    let mut fields = BTreeMap::new();
    inner = inner.trim();
    while !inner.is_empty() {
        let (key, tail) = inner.split_once(':').ok_or_else(|| format!("a key: {inner}"))?;
        let (value, tail) = match tail.strip_prefix('[') {
            Some(tail) => tail.split_once(']').ok_or("unterminated list")?,
            None => tail.split_once([' ', '\t']).unwrap_or((tail, "")),
        };
        fields.insert(key.trim().to_lowercase(), value);
        inner = tail.trim();
    }
    let mut take = |key: &str| fields.remove(key);
    let float = |value: Option<&str>| value.map_or(Ok(0.0), number);
    let list = |value: Option<&str>| {
        value.unwrap_or("").split_whitespace().map(number).collect::<Result<Vec<f64>, _>>()
    };
    let (hint, hinted) = match take("counter_reset_hint") {
        None => (ResetHint::Unknown, false),
        Some("unknown") => (ResetHint::Unknown, true),
        Some("reset") => (ResetHint::CounterReset, true),
        Some("not_reset") => (ResetHint::NotCounterReset, true),
        Some("gauge") => (ResetHint::Gauge, true),
        Some(hint) => return Err(format!("reset hint {hint}")),
    };
    let positive_buckets = list(take("buckets"))?;
    let negative_buckets = list(take("n_buckets"))?;
    let spans = |offset: f64, counts: &[f64]| match counts.len() {
        0 => Vec::new(),
        length => vec![Span { offset: offset as i32, length: length as u32 }],
    };
    let histogram = Histogram {
        reset_hint: hint,
        schema: float(take("schema"))? as i32,
        zero_threshold: float(take("z_bucket_w"))?,
        zero_count: float(take("z_bucket"))?,
        count: float(take("count"))?,
        sum: float(take("sum"))?,
        positive_spans: spans(float(take("offset"))?, &positive_buckets),
        negative_spans: spans(float(take("n_offset"))?, &negative_buckets),
        positive_buckets,
        negative_buckets,
        custom_bounds: list(take("custom_values"))?.into(),
    };
    match fields.keys().next() {
        Some(key) => Err(format!("unknown key {key} of a histogram")),
        None => Ok((histogram, hinted, rest)),
    }
}

fn item(text: &str, steps: &mut Vec<Step>) -> Result<(), String> {
    let (value, times) = match text.rsplit_once('x') {
        Some((value, times)) => (value, Some(times_of(times)?)),
        None => (text, None),
    };
    let count = times.map_or(1, |times| times + 1);
    if value == "_" {
        steps.extend(vec![Step::Omitted; times.unwrap_or(1)]);
        return Ok(());
    }
    if value == "stale" {
        steps.extend(vec![Step::Float(stale_nan()); count]);
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
///
/// # Errors
/// The text, when it is none.
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
