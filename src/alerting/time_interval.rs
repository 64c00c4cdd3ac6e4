//! Recurring spans of time in which routes are muted or active.
//!
//! All fields of an interval must hold (an empty field always does); of the ranges in one field
//! any may. Ranges of days and names include both ends; a range of clock times excludes its end.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// An inclusive range of small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberRange {
    /// First that belongs to it.
    pub min: i32,
    /// Last that belongs to it.
    pub max: i32,
}

impl NumberRange {
    fn contains(self, number: i32) -> bool {
        (self.min..=self.max).contains(&number)
    }
}

/// Minutes of a day: the start belongs to it, the end does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRange {
    /// 0..1440
    pub start_minute: i32,
    /// 1..=1440, beyond the start
    pub end_minute: i32,
}

/// One recurring span.
#[derive(Clone, Debug)]
pub struct TimeInterval {
    /// Times of day.
    pub times: Vec<ClockRange>,
    /// Days of the week; Sunday is 0.
    pub weekdays: Vec<NumberRange>,
    /// Days of the month from 1; negative ones count from its end (-1: last).
    pub days_of_month: Vec<NumberRange>,
    /// Months, January is 1.
    pub months: Vec<NumberRange>,
    /// Years.
    pub years: Vec<NumberRange>,
    /// Where the clock hangs.
    pub location: TimeZone,
}

impl TimeInterval {
    /// Whether the moment lies within.
    pub fn contains(&self, now_ms: i64) -> bool {
        let Ok(timestamp) = Timestamp::from_millisecond(now_ms) else { return false };
        let local = timestamp.to_zoned(self.location.clone());
        let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
        let in_times =
            |range: &ClockRange| range.start_minute <= minute && minute < range.end_minute;
        let any = |ranges: &[NumberRange], number: i32| {
            ranges.is_empty() || ranges.iter().any(|range| range.contains(number))
        };
        let weekday = i32::from(local.weekday().to_sunday_zero_offset());
        let (day, days) = (i32::from(local.day()), i32::from(local.days_in_month()));
        (self.times.is_empty() || self.times.iter().any(in_times))
            && (self.days_of_month.is_empty()
                || self.days_of_month.iter().any(|range| day_matches(*range, day, days)))
            && any(&self.months, i32::from(local.month()))
            && any(&self.weekdays, weekday)
            && any(&self.years, i32::from(local.year()))
    }
}

/// Days of the month with negative ones resolved; a range that begins after the month's end does
/// not occur in it, one that ends after it is cut.
fn day_matches(range: NumberRange, day: i32, days_in_month: i32) -> bool {
    let from_start = |number: i32| if number < 0 { days_in_month + number + 1 } else { number };
    if range.min > days_in_month {
        return false;
    }
    let (min, max) = (from_start(range.min).max(1), from_start(range.max).min(days_in_month));
    NumberRange { min, max }.contains(day)
}

/// Intervals under one name; any of them counts.
#[derive(Clone, Debug)]
pub struct NamedIntervals {
    /// As routes refer to them.
    pub name: String,
    /// The intervals.
    pub intervals: Vec<TimeInterval>,
}

impl NamedIntervals {
    /// Whether the moment lies within any of them.
    pub fn contains(&self, now_ms: i64) -> bool {
        self.intervals.iter().any(|interval| interval.contains(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval() -> TimeInterval {
        TimeInterval {
            times: Vec::new(),
            weekdays: Vec::new(),
            days_of_month: Vec::new(),
            months: Vec::new(),
            years: Vec::new(),
            location: TimeZone::UTC,
        }
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn fields_are_anded_and_clock_ends_excluded() {
        let mut office = interval();
        office.times = vec![ClockRange { start_minute: 9 * 60, end_minute: 17 * 60 }];
        office.weekdays = vec![NumberRange { min: 1, max: 5 }];
        for (time, inside) in [
            ("2026-11-20T09:00:00Z", true), // Friday
            ("2026-11-20T16:59:59Z", true),
            ("2026-11-20T17:00:00Z", false),
            ("2026-11-21T10:00:00Z", false), // Saturday
        ] {
            assert_eq!(office.contains(at(time)), inside, "{time}");
        }
        office.location = TimeZone::get("America/New_York").unwrap();
        assert!(office.contains(at("2026-11-20T21:30:00Z")));
    }

    #[test]
    fn days_count_from_either_end_and_are_cut_to_the_month() {
        let mut last_days = interval();
        last_days.days_of_month = vec![NumberRange { min: -2, max: -1 }];
        assert!(last_days.contains(at("2026-02-27T00:00:00Z")));
        assert!(!last_days.contains(at("2026-02-26T00:00:00Z")));
        last_days.days_of_month = vec![NumberRange { min: 30, max: 31 }];
        assert!(!last_days.contains(at("2026-02-28T00:00:00Z")));
        assert!(last_days.contains(at("2026-04-30T00:00:00Z")));
        last_days.days_of_month = vec![NumberRange { min: -31, max: 1 }];
        assert!(last_days.contains(at("2026-02-01T00:00:00Z")));
    }
}
