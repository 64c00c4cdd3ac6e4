//! The methods of `time.Time`, `time.Duration`, `time.Month` and `time.Weekday`.

use jiff::tz::TimeZone;

use super::time_layout::{Time, duration_text};
use super::value::{Function, Type, Value};

const NANOSECONDS: f64 = 1e9;

fn time(args: &[Value], index: usize) -> Result<&Time, String> {
    match args.get(index) {
        Some(Value::Time(time)) => Ok(time),
        _ => Err("no time".to_owned()),
    }
}

fn int(args: &[Value], index: usize) -> i64 {
    args.get(index).and_then(Value::as_int).unwrap_or(0)
}

/// A method that computes something from the date and clock.
macro_rules! civil {
    ($civil:ident => $result:expr) => {
        Function::fixed(&[], |_, args| {
            let $civil = time(args, 0)?.civil();
            Ok($result)
        })
    };
}

/// A method of a time.
macro_rules! of_time {
    ($time:ident => $result:expr) => {
        Function::fixed(&[], |_, args| {
            let $time = time(args, 0)?;
            Ok($result)
        })
    };
}

/// A method of two times.
macro_rules! of_times {
    (|$own:ident, $other:ident| $result:expr) => {
        Function::fixed(&[Type::Time], |_, args| {
            let ($own, $other) = (time(args, 0)?, time(args, 1)?);
            Ok($result)
        })
    };
}

/// A method of a duration, given in nanoseconds.
macro_rules! of_duration {
    ($nanoseconds:ident => $result:expr) => {
        Function::fixed(&[], |_, args| {
            let $nanoseconds = int(args, 0);
            Ok($result)
        })
    };
}

/// Methods of `time.Time`.
pub static TIME: &[(&str, Function)] = &[
    (
        "Add",
        Function::fixed(&[Type::Duration], |_, args| {
            Ok(Value::Time(time(args, 0)?.plus(int(args, 1))))
        }),
    ),
    ("AddDate", Function::fixed(&[Type::Int, Type::Int, Type::Int], add_date)),
    ("After", of_times!(|own, other| Value::Bool(own.at > other.at))),
    ("Before", of_times!(|own, other| Value::Bool(own.at < other.at))),
    ("Compare", of_times!(|own, other| Value::Int(own.at.cmp(&other.at) as i64))),
    ("Day", civil!(civil => Value::Int(civil.day().into()))),
    ("Equal", of_times!(|own, other| Value::Bool(own.at == other.at))),
    (
        "Format",
        Function::fixed(&[Type::Str], |_, args| {
            let layout = args.get(1).and_then(Value::as_str).unwrap_or("");
            Ok(Value::text(time(args, 0)?.format(layout)))
        }),
    ),
    ("Hour", civil!(civil => Value::Int(civil.hour().into()))),
    ("IsZero", of_time!(own => Value::Bool(own.is_zero()))),
    ("Local", of_time!(own => Value::Time(Time { at: own.at, zone: TimeZone::system() }))),
    ("Minute", civil!(civil => Value::Int(civil.minute().into()))),
    ("Month", civil!(civil => Value::Month(civil.month()))),
    ("Nanosecond", civil!(civil => Value::Int(civil.subsec_nanosecond().into()))),
    ("Round", Function::fixed(&[Type::Duration], |_, args| to_multiple(args, round_to))),
    ("Second", civil!(civil => Value::Int(civil.second().into()))),
    ("String", of_time!(own => Value::text(own.to_string()))),
    ("Sub", of_times!(|own, other| Value::Duration(own.since(other)))),
    ("Truncate", Function::fixed(&[Type::Duration], |_, args| to_multiple(args, truncate_to))),
    ("UTC", of_time!(own => Value::Time(Time { at: own.at, zone: TimeZone::UTC }))),
    (
        "Unix",
        of_time!(own => Value::Int64(own.at.as_nanosecond().div_euclid(1_000_000_000) as i64)),
    ),
    ("UnixMicro", of_time!(own => Value::Int64(own.at.as_nanosecond().div_euclid(1_000) as i64))),
    (
        "UnixMilli",
        of_time!(own => {
            Value::Int64(own.at.as_nanosecond().div_euclid(1_000_000) as i64)
        }),
    ),
    ("UnixNano", of_time!(own => Value::Int64(own.at.as_nanosecond() as i64))),
    ("Weekday", civil!(civil => Value::Weekday(civil.weekday().to_sunday_zero_offset()))),
    ("Year", civil!(civil => Value::Int(civil.year().into()))),
    ("YearDay", civil!(civil => Value::Int(civil.date().day_of_year().into()))),
];

/// Methods of `time.Duration`.
pub static DURATION: &[(&str, Function)] = &[
    ("Abs", of_duration!(own => Value::Duration(own.saturating_abs()))),
    ("Hours", of_duration!(own => Value::Float(own as f64 / NANOSECONDS / 3600.0))),
    ("Microseconds", of_duration!(own => Value::Int64(own / 1_000))),
    ("Milliseconds", of_duration!(own => Value::Int64(own / 1_000_000))),
    ("Minutes", of_duration!(own => Value::Float(own as f64 / NANOSECONDS / 60.0))),
    ("Nanoseconds", of_duration!(own => Value::Int64(own))),
    (
        "Round",
        Function::fixed(&[Type::Duration], |_, args| {
            Ok(Value::Duration(round_to(int(args, 0).into(), int(args, 1))))
        }),
    ),
    ("Seconds", of_duration!(own => Value::Float(own as f64 / NANOSECONDS))),
    ("String", of_duration!(own => Value::text(duration_text(own)))),
    (
        "Truncate",
        Function::fixed(&[Type::Duration], |_, args| {
            Ok(Value::Duration(truncate_to(int(args, 0).into(), int(args, 1))))
        }),
    ),
];

/// Methods of `time.Month` and `time.Weekday`.
pub static NAMES: &[(&str, Function)] = &[(
    "String",
    Function::fixed(&[], |_, args| {
        Ok(Value::text(args.first().and_then(Value::stringer).unwrap_or_default()))
    }),
)];

fn held(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Towards zero to a multiple of `unit`; not at all when that is none.
fn truncate_to(value: i128, unit: i64) -> i64 {
    if unit <= 0 { held(value) } else { held(value - value % i128::from(unit)) }
}

/// To the nearest multiple of `unit`, halves away from zero.
fn round_to(value: i128, unit: i64) -> i64 {
    if unit <= 0 {
        return held(value);
    }
    let unit = i128::from(unit);
    let half = if value < 0 { -(unit / 2) } else { unit / 2 };
    held((value + half) / unit * unit)
}

/// Rounds a time, counted from Go's zero time.
fn to_multiple(args: &[Value], to: fn(i128, i64) -> i64) -> Result<Value, String> {
    let (own, unit) = (time(args, 0)?, int(args, 1));
    if unit <= 0 {
        return Ok(Value::Time(own.clone()));
    }
    let since_zero = own.at.as_nanosecond() - Time::zero().at.as_nanosecond();
    let within = since_zero.rem_euclid(unit.into());
    Ok(Value::Time(own.plus(to(within, unit) - held(within))))
}

/// Years, months and days later; days beyond the month's end run into the next, as in Go.
fn add_date(_: &super::Context<'_>, args: &[Value]) -> Result<Value, String> {
    let own = time(args, 0)?;
    let civil = own.civil();
    let months = i64::from(civil.year())
        .saturating_add(int(args, 1))
        .saturating_mul(12)
        .saturating_add(i64::from(civil.month()) - 1)
        .saturating_add(int(args, 2));
    let out_of_range = || "time out of range".to_owned();
    let year = i16::try_from(months.div_euclid(12)).map_err(|_| out_of_range())?;
    let month = months.rem_euclid(12) as i8 + 1;
    let first = jiff::civil::Date::new(year, month, 1).map_err(|_| out_of_range())?;
    let days = int(args, 3).saturating_add(i64::from(civil.day()) - 1);
    let span = jiff::Span::new().try_days(days).map_err(|_| out_of_range())?;
    let date = first.checked_add(span).map_err(|_| out_of_range())?;
    let at = own.zone.to_timestamp(date.to_datetime(civil.time())).map_err(|_| out_of_range())?;
    Ok(Value::Time(Time { at, zone: own.zone.clone() }))
}
