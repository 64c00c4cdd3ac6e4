//! Parts of dates in UTC, by the proleptic Gregorian calendar.

const DAY_SECONDS: i64 = 86_400;
const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// A day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Date {
    pub(in super::super) year: i64,
    /// From 1.
    pub(in super::super) month: i64,
    /// From 1.
    pub(in super::super) day: i64,
    /// From Sunday, 0.
    pub(in super::super) weekday: i64,
}

impl Date {
    /// The day of a moment in seconds since 1970.
    pub(in super::super) fn of(seconds: i64) -> Self {
        Self::of_days(seconds.div_euclid(DAY_SECONDS))
    }

    fn of_days(days: i64) -> Self {
        // Counted from 0000-03-01, so that the leap day ends a year; 400 years have 146,097 days.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Self { year, month, day, weekday: (days + 4).rem_euclid(7) }
    }

    fn is_leap_year(self) -> bool {
        self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0)
    }

    fn days_in_month(self) -> i64 {
        match self.month {
            2 => 28 + i64::from(self.is_leap_year()),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn day_of_year(self) -> i64 {
        let leap = i64::from(2 < self.month && self.is_leap_year());
        DAYS_BEFORE_MONTH[self.month as usize - 1] + leap + self.day
    }
}

/// Whole seconds as Go gets them from a float: whatever is none becomes the least number, and that
/// wraps around to the greatest moment.
fn seconds(value: f64) -> i128 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if -END < value && value < END { value as i128 } else { 1 << 63 }
}

fn days(value: f64) -> i64 {
    seconds(value).div_euclid(i128::from(DAY_SECONDS)) as i64
}

/// The function of seconds since 1970 with this name.
pub(super) fn part(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => |value| (seconds(value).rem_euclid(3_600) / 60) as f64,
        "hour" => |value| (seconds(value).rem_euclid(i128::from(DAY_SECONDS)) / 3_600) as f64,
        "day_of_week" => |value| Date::of_days(days(value)).weekday as f64,
        "day_of_month" => |value| Date::of_days(days(value)).day as f64,
        "day_of_year" => |value| Date::of_days(days(value)).day_of_year() as f64,
        "days_in_month" => |value| Date::of_days(days(value)).days_in_month() as f64,
        "month" => |value| Date::of_days(days(value)).month as f64,
        "year" => |value| Date::of_days(days(value)).year as f64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_moment_is_the_last_one() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -1e30] {
            let parts = ["year", "hour"].map(|name| part(name).unwrap()(value));
            assert_eq!(parts, [292_277_026_596.0, 15.0]);
        }
    }

    #[test]
    fn dates_agree_with_a_calendar() {
        for days in (-1_000_000..1_000_000).step_by(997) {
            let seconds = days * DAY_SECONDS;
            let date = Date::of(seconds);
            let known =
                jiff::Timestamp::from_second(seconds).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            assert_eq!(
                (date.year, date.month),
                (i64::from(known.year()), i64::from(known.month()))
            );
            assert_eq!(date.day, i64::from(known.day()));
            assert_eq!(date.day_of_year(), i64::from(known.day_of_year()));
            assert_eq!(date.days_in_month(), i64::from(known.days_in_month()));
            assert_eq!(date.weekday, i64::from(known.weekday().to_sunday_zero_offset()));
        }
    }
}
