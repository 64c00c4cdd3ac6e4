//! Functions on texts, numbers and times that rule templates and notification templates share.

use std::sync::Arc;

use super::Context;
use super::fmt::{float_4g, quote};
use super::time_layout::Time;
use super::value::{Function, Safety, Type, Value};
use crate::model::regexp::{Compiled, Dot, Regexp};

/// A text argument; the executor has checked its type.
pub(super) fn text(args: &[Value], index: usize) -> &str {
    args.get(index).and_then(Value::as_str).unwrap_or("")
}

/// An argument of any type.
pub(super) fn any(args: &[Value], index: usize) -> &Value {
    args.get(index).unwrap_or(&Value::Nil)
}

/// A function of one text.
macro_rules! of_text {
    (|$text:ident| $result:expr) => {
        Function::fixed(&[Type::Str], |_, args| {
            let $text = text(args, 0);
            Ok(Value::text($result))
        })
    };
}

/// A function of one number, given in any form that [`number`] takes.
macro_rules! of_number {
    ($format:path) => {
        Function::fixed(&[Type::Any], |_, args| Ok(Value::text($format(number(any(args, 0))?))))
    };
}

/// The functions of both.
pub(super) static SHARED: &[(&str, Function)] = &[
    ("humanize", of_number!(humanize)),
    ("humanize1024", of_number!(humanize_1024)),
    ("humanizeDuration", of_number!(humanize_duration)),
    ("humanizePercentage", of_number!(humanize_percentage)),
    ("humanizeTimestamp", Function::fixed(&[Type::Any], humanize_timestamp)),
    (
        "match",
        Function::fixed(&[Type::Str, Type::Str], |_, args| {
            Ok(Value::Bool(compile(text(args, 0))?.is_match(text(args, 1))))
        }),
    ),
    ("parseDuration", Function::fixed(&[Type::Str], parse_duration)),
    ("reReplaceAll", Function::fixed(&[Type::Str, Type::Str, Type::Str], replace_all)),
    (
        "safeHtml",
        Function::fixed(&[Type::Str], |_, args| {
            Ok(Value::Safe(Safety::Html, text(args, 0).into()))
        }),
    ),
    ("toLower", of_text!(|text| text.to_lowercase())),
    ("toUpper", of_text!(|text| text.to_uppercase())),
];

/// A number out of whatever templates have: numbers, numerals, durations in seconds.
pub(super) fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(value) => Ok(*value),
        Value::Int(value) | Value::Int64(value) => Ok(*value as f64),
        Value::Uint(value) => Ok(*value as f64),
        Value::Duration(nanoseconds) => Ok(*nanoseconds as f64 / 1e9),
        Value::Str(text) => crate::model::float::parse(text)
            .ok_or_else(|| format!("strconv.ParseFloat: parsing {}: invalid syntax", quote(text))),
        value => Err(format!("can't convert {} to float", value.type_name())),
    }
}

/// Divides until the number is below `step`; the prefix that makes up for it.
fn scaled_down(value: f64, step: f64, prefixes: [&'static str; 8]) -> (f64, &'static str) {
    let (mut value, mut found) = (value, "");
    for prefix in prefixes {
        if value.abs() < step {
            break;
        }
        (value, found) = (value / step, prefix);
    }
    (value, found)
}

const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// Multiplies by thousands: division by 0.001 would round differently.
fn scaled_up(value: f64) -> (f64, &'static str) {
    let (mut value, mut found) = (value, "");
    for prefix in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        (value, found) = (value * 1000.0, prefix);
    }
    (value, found)
}

fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return float_4g(value);
    }
    let (value, prefix) = if value.abs() >= 1.0 {
        scaled_down(value, 1000.0, ["k", "M", "G", "T", "P", "E", "Z", "Y"])
    } else {
        scaled_up(value)
    };
    float_4g(value) + prefix
}

fn humanize_1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return float_4g(value);
    }
    let (value, prefix) =
        scaled_down(value, 1024.0, ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"]);
    float_4g(value) + prefix
}

/// Seconds as `1d 2h 3m 4s`, `12.5s` or `3ms`.
pub(super) fn humanize_duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return float_4g(seconds);
    }
    if seconds == 0.0 {
        return "0s".to_owned();
    }
    if seconds.abs() < 1.0 {
        let (value, prefix) = scaled_up(seconds);
        return format!("{}{prefix}s", float_4g(value));
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let magnitude = seconds.abs();
    let whole = magnitude as u64;
    let (days, hours) = (whole / 86_400, whole / 3_600 % 24);
    let (minutes, rest) = (whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", float_4g(magnitude)),
        (0, 0, _) => format!("{sign}{minutes}m {rest}s"),
        (0, ..) => format!("{sign}{hours}h {minutes}m {rest}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {rest}s"),
    }
}

fn humanize_percentage(value: f64) -> String {
    float_4g(value * 100.0) + "%"
}

fn humanize_timestamp(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let value = number(any(args, 0))?;
    if !value.is_finite() {
        return Ok(Value::text(float_4g(value)));
    }
    Ok(Value::text(seconds_to_time(value)?.to_string()))
}

/// A moment from seconds since 1970, whole milliseconds of it.
pub(super) fn seconds_to_time(seconds: f64) -> Result<Time, String> {
    if !seconds.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let nanoseconds = seconds * 1e9;
    if nanoseconds.abs() > i64::MAX as f64 {
        let value = super::fmt::format_float(seconds, 'g', None);
        return Err(format!(
            "{value} cannot be represented as a nanoseconds timestamp since it overflows int64"
        ));
    }
    Ok(Time::from_ms((nanoseconds as i64).div_euclid(1_000_000)))
}

fn parse_duration(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let duration = crate::model::duration::parse(text(args, 0)).map_err(|err| err.to_string())?;
    Ok(Value::Float(duration.as_secs_f64()))
}

/// Compiles an expression that may match anywhere.
pub(super) fn compile(pattern: &str) -> Result<Compiled, String> {
    let parsed = Regexp::parse(pattern, Dot::Line);
    parsed.and_then(|regexp| regexp.compile()).map_err(|err| err.to_string())
}

fn replace_all(_: &Context<'_>, args: &[Value]) -> Result<Value, String> {
    let (pattern, replacement, subject) = (text(args, 0), text(args, 1), text(args, 2));
    // Go's templates panic here; the message is that of `regexp.MustCompile`.
    let regex =
        compile(pattern).map_err(|err| format!("regexp: Compile({}): {err}", quote(pattern)))?;
    Ok(Value::text(regex.replace_all(subject, replacement)))
}

/// The texts of a list.
pub(super) fn strings_of(value: &Value) -> Vec<Arc<str>> {
    match value {
        Value::List(list) => {
            list.items.iter().filter_map(|item| item.as_str().map(Arc::from)).collect()
        }
        _ => Vec::new(),
    }
}
