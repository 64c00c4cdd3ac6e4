//! Numbers and times in messages, the way Go prints them.

use crate::model::float::{format_exponent, format_general, format_plain};

use super::functions::time::Date;

/// `%g`, which is also `%v`.
pub fn general(value: f64) -> String {
    format_general(value)
}

/// `%.<digits>g`: rounded to so many significant digits, trailing zeros removed.
pub(super) fn general_rounded(value: f64, digits: usize) -> String {
    assert!(0 < digits, "no digit asked for");
    if !value.is_finite() || value == 0.0 {
        return format_plain(value);
    }
    let rounded: f64 = format!("{value:.*e}", digits - 1).parse().unwrap_or(value);
    let text = format_exponent(rounded);
    let exponent = exponent_of(&text);
    if exponent < -4 || digits as i32 <= exponent { text } else { format_plain(rounded) }
}

fn exponent_of(text: &str) -> i32 {
    let (_, exponent) = text.split_once('e').expect("exponent form");
    exponent.parse().expect("decimal exponent")
}

/// A moment as `2006-01-02T15:04:05Z`.
pub(super) fn rfc3339(seconds: i64) -> String {
    let Date { year, month, day, .. } = Date::of(seconds);
    let in_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (in_day / 3_600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_like_go() {
        assert_eq!(general(0.9), "0.9");
        assert_eq!(general(100_000.0), "100000");
        assert_eq!(general(123_456_789.0), "1.23456789e+08");
        assert_eq!(general(1e-5), "1e-05");
        assert_eq!(general(f64::INFINITY), "+Inf");
        assert_eq!(general_rounded(0.123, 2), "0.12");
        assert_eq!(general_rounded(10.0, 2), "10");
        assert_eq!(general_rounded(100.0, 2), "1e+02");
        assert_eq!(rfc3339(86_400 * 59 + 3_661), "1970-03-01T01:01:01Z");
    }
}
