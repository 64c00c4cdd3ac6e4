//! Durations in Prometheus' notation: `1y2w3d4h5m6s7ms`.

use std::fmt;
use std::time::Duration;

/// Units, largest first, with their length in milliseconds (`1y` = 365 d).
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing given.
    #[error("empty duration string")]
    Empty,
    /// Does not follow the notation.
    #[error("not a valid duration string: {}", super::labels::quote(.0))]
    Invalid(String),
    /// Has a unit that does not exist.
    #[error("unknown unit {} in duration {}", super::labels::quote(.0), super::labels::quote(.1))]
    UnknownUnit(String, String),
    /// Longer than 2^63 nanoseconds.
    #[error("duration out of range")]
    OutOfRange,
}

/// Parses a duration: each unit at most once, in descending order, or a plain `0`
/// (`model.ParseDuration` of Prometheus).
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let invalid = || DurationError::Invalid(text.to_owned());
    let (mut rest, mut total_ms, mut units) = (text, 0_u64, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let unit_bytes = tail.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let (unit, tail) = tail.split_at(unit_bytes);
        let count: u64 = number.parse().map_err(|_| invalid())?;
        if unit.is_empty() {
            return Err(invalid());
        }
        if UNITS.iter().all(|(name, _)| *name != unit) {
            return Err(DurationError::UnknownUnit(unit.to_owned(), text.to_owned()));
        }
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let part_ms = count.checked_mul(units[at].1).ok_or(DurationError::OutOfRange)?;
        total_ms = total_ms.checked_add(part_ms).ok_or(DurationError::OutOfRange)?;
        (rest, units) = (tail, &units[at + 1..]);
    }
    if total_ms > i64::MAX as u64 / 1_000_000 {
        return Err(DurationError::OutOfRange);
    }
    Ok(Duration::from_millis(total_ms))
}

/// Prints like Prometheus: `1h30m`, `0s`, years and weeks only when they divide exactly.
pub fn format(duration: Duration) -> String {
    Format(duration).to_string()
}

struct Format(Duration);

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left_ms = self.0.as_millis() as u64;
        if left_ms == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ms) in UNITS {
            let exact_only = matches!(unit, "y" | "w");
            if exact_only && !left_ms.is_multiple_of(unit_ms) {
                continue;
            }
            if left_ms >= unit_ms {
                write!(f, "{}{unit}", left_ms / unit_ms)?;
                left_ms %= unit_ms;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_print_as_in_prometheus() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("324ms", 324, "324ms"),
            ("3s", 3_000, "3s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("4d1h", 349_200_000, "4d1h"),
            ("14d", 1_209_600_000, "2w"),
            ("15d", 1_296_000_000, "15d"),
            ("10y", 315_360_000_000, "10y"),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(format(Duration::from_millis(ms)), printed);
        }
        for text in
            ["", "1", "5", "1y1m1d", "-1w", "1.5d", "d", "294y", "200y10400w", "1s1s", "1 s"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
