//! `time_intervals`: names and numbers as people write them, to ranges.

use jiff::tz::TimeZone;

use super::schema;
use crate::alerting::time_interval::{ClockRange, NumberRange, TimeInterval};

const WEEKDAYS: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

pub(super) fn interval(written: &schema::Interval) -> Result<TimeInterval, String> {
    fn all<S, T>(items: &[S], read: impl Fn(&S) -> Result<T, String>) -> Result<Vec<T>, String> {
        items.iter().map(read).collect()
    }
    Ok(TimeInterval {
        times: all(&written.times, clock_range)?,
        weekdays: all(&written.weekdays, |text| weekdays(text))?,
        days_of_month: all(&written.days_of_month, |text| days_of_month(text))?,
        months: all(&written.months, |text| months(text))?,
        years: all(&written.years, |text| years(text))?,
        location: location(written.location.as_deref())?,
    })
}

fn location(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        None | Some("" | "UTC") => Ok(TimeZone::UTC),
        Some("Local") => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(name)
            .map_err(|_| format!("error loading timezone location: unknown time zone {name}")),
    }
}

fn clock_range(times: &schema::Times) -> Result<ClockRange, String> {
    if times.start_time.is_empty() || times.end_time.is_empty() {
        return Err("both start and end times must be provided".to_owned());
    }
    let (start_minute, end_minute) = (minute(&times.start_time)?, minute(&times.end_time)?);
    if start_minute >= end_minute {
        return Err("start time cannot be equal or greater than end time".to_owned());
    }
    Ok(ClockRange { start_minute, end_minute })
}

/// `HH:MM`, up to 24:00.
fn minute(text: &str) -> Result<i32, String> {
    let invalid = || format!("couldn't parse timestamp {text}, invalid format");
    let (hours, minutes) = text.split_once(':').ok_or_else(invalid)?;
    let two_digits = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<i32>().ok()).flatten().ok_or_else(invalid)
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    let total = hours * 60 + minutes;
    if minutes > 59 || total > 24 * 60 {
        return Err(invalid());
    }
    Ok(total)
}

/// `a` or `a:b`.
fn range(text: &str, read: impl Fn(&str) -> Result<i32, String>) -> Result<NumberRange, String> {
    let text = text.trim().to_ascii_lowercase();
    let (min, max) = text.split_once(':').unwrap_or((&text, &text));
    Ok(NumberRange { min: read(min.trim())?, max: read(max.trim())? })
}

fn named(text: &str, names: &[&str], first: i32) -> Option<i32> {
    let at = names.iter().position(|name| *name == text)?;
    Some(at as i32 + first)
}

fn weekdays(text: &str) -> Result<NumberRange, String> {
    let read = |name: &str| {
        named(name, &WEEKDAYS, 0).ok_or_else(|| format!("{name} is not a valid weekday"))
    };
    let range = range(text, read)?;
    if range.min > range.max {
        return Err("start day cannot be before end day".to_owned());
    }
    Ok(range)
}

fn days_of_month(text: &str) -> Result<NumberRange, String> {
    let read = |number: &str| match number.parse::<i32>() {
        Ok(day) if day != 0 && (-31..=31).contains(&day) => Ok(day),
        _ => Err(format!("{number} is not a valid day of the month: out of range")),
    };
    let range = range(text, read)?;
    if range.min < 0 && range.max > 0 {
        return Err("end day must be negative if start day is negative".to_owned());
    }
    // From the first of the month a positive begin must not lie behind a negative end.
    let from_start = |day: i32| if day < 0 { 31 + day + 1 } else { day };
    if from_start(range.min) > from_start(range.max) {
        return Err(format!("end day {} is always before start day {}", range.max, range.min));
    }
    Ok(range)
}

fn months(text: &str) -> Result<NumberRange, String> {
    let read = |name: &str| match name.parse::<i32>() {
        Ok(month) if (1..=12).contains(&month) => Ok(month),
        _ => named(name, &MONTHS, 1).ok_or_else(|| format!("{name} is not a valid month")),
    };
    let range = range(text, read)?;
    if range.min > range.max {
        return Err(format!("end month {} is before start month {}", range.max, range.min));
    }
    Ok(range)
}

fn years(text: &str) -> Result<NumberRange, String> {
    let read = |year: &str| year.parse().map_err(|_| format!("{year} is not a valid year"));
    let range = range(text, read)?;
    if range.min > range.max {
        return Err(format!("end year {} is before start year {}", range.max, range.min));
    }
    Ok(range)
}
