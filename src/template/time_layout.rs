//! Times and durations as Go prints and reads them: layouts such as `2006-01-02 15:04 MST`.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A moment in a time zone.
#[derive(Clone, Debug)]
pub struct Time {
    /// The moment.
    pub at: Timestamp,
    /// Where it is told.
    pub zone: TimeZone,
}

/// Seconds from 1970 back to Go's zero time, 0001-01-01.
const ZERO_SECONDS: i64 = -62_135_596_800;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// English name of a month; 1 is January.
pub fn month_name(month: i8) -> &'static str {
    usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index)).unwrap_or(&"%!Month")
}

/// English name of a weekday; 0 is Sunday.
pub fn weekday_name(day: i8) -> &'static str {
    usize::try_from(day).ok().and_then(|index| WEEKDAYS.get(index)).unwrap_or(&"%!Weekday")
}

impl Time {
    /// In UTC, from milliseconds since 1970; the nearest moment that can be told.
    pub fn from_ms(ms: i64) -> Self {
        let edge = if ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self { at: Timestamp::from_millisecond(ms).unwrap_or(edge), zone: TimeZone::UTC }
    }

    /// Go's zero time, in UTC.
    pub fn zero() -> Self {
        let at = Timestamp::from_second(ZERO_SECONDS).unwrap_or(Timestamp::MIN);
        Self { at, zone: TimeZone::UTC }
    }

    /// Whether it is Go's zero time.
    pub fn is_zero(&self) -> bool {
        self.at.as_second() == ZERO_SECONDS && self.at.subsec_nanosecond() == 0
    }

    /// The date and the clock in its zone.
    pub fn civil(&self) -> DateTime {
        self.zone.to_offset(self.at).to_datetime(self.at)
    }

    /// The moment so many nanoseconds later.
    pub fn plus(&self, nanoseconds: i64) -> Self {
        let edge = if nanoseconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let at = self.at.checked_add(jiff::SignedDuration::from_nanos(nanoseconds));
        Self { at: at.unwrap_or(edge), zone: self.zone.clone() }
    }

    /// Nanoseconds from `earlier` to this, held within 64 bits as Go does.
    pub fn since(&self, earlier: &Self) -> i64 {
        let difference = self.at.as_nanosecond() - earlier.at.as_nanosecond();
        difference.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// By a layout: Go's reference time Mon Jan 2 15:04:05 MST 2006 spelled as the result shall be.
    pub fn format(&self, layout: &str) -> String {
        let info = self.zone.to_offset_info(self.at);
        let (civil, offset) = (self.civil(), info.offset().seconds());
        let mut out = String::with_capacity(layout.len() + 10);
        let mut rest = layout;
        while let Some((before, piece, length)) = next_piece(rest) {
            out.push_str(&rest[..before]);
            rest = &rest[before + length..];
            piece.print(&mut out, civil, offset, info.abbreviation());
        }
        out + rest
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("2006-01-02 15:04:05.999999999 -0700 MST"))
    }
}

/// The layout of `RFC3339Nano`, which JSON uses.
pub const RFC3339_NANO: &str = "2006-01-02T15:04:05.999999999Z07:00";

/// A piece of a layout.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece {
    LongMonth,
    Month,
    NumMonth,
    ZeroMonth,
    LongWeekday,
    Weekday,
    Day,
    UnderDay,
    ZeroDay,
    UnderYearDay,
    ZeroYearDay,
    Hour,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    UpperHalf,
    LowerHalf,
    ZoneName,
    Offset { z: bool, colon: bool, parts: u8 },
    Fraction { mark: char, digits: usize, trimmed: bool },
}

/// Spellings, longer ones before their beginnings.
const PIECES: &[(&str, Piece)] = &[
    ("January", Piece::LongMonth),
    ("Monday", Piece::LongWeekday),
    ("MST", Piece::ZoneName),
    ("002", Piece::ZeroYearDay),
    ("01", Piece::ZeroMonth),
    ("02", Piece::ZeroDay),
    ("03", Piece::ZeroHour12),
    ("04", Piece::ZeroMinute),
    ("05", Piece::ZeroSecond),
    ("06", Piece::Year),
    ("15", Piece::Hour),
    ("1", Piece::NumMonth),
    ("2006", Piece::LongYear),
    ("2", Piece::Day),
    ("3", Piece::Hour12),
    ("4", Piece::Minute),
    ("5", Piece::Second),
    ("__2", Piece::UnderYearDay),
    ("_2", Piece::UnderDay),
    ("PM", Piece::UpperHalf),
    ("pm", Piece::LowerHalf),
    ("-07:00:00", Piece::Offset { z: false, colon: true, parts: 3 }),
    ("-070000", Piece::Offset { z: false, colon: false, parts: 3 }),
    ("-07:00", Piece::Offset { z: false, colon: true, parts: 2 }),
    ("-0700", Piece::Offset { z: false, colon: false, parts: 2 }),
    ("-07", Piece::Offset { z: false, colon: false, parts: 1 }),
    ("Z07:00:00", Piece::Offset { z: true, colon: true, parts: 3 }),
    ("Z070000", Piece::Offset { z: true, colon: false, parts: 3 }),
    ("Z07:00", Piece::Offset { z: true, colon: true, parts: 2 }),
    ("Z0700", Piece::Offset { z: true, colon: false, parts: 2 }),
    ("Z07", Piece::Offset { z: true, colon: false, parts: 1 }),
];

/// The first piece of a layout: bytes before it, itself, its bytes.
fn next_piece(layout: &str) -> Option<(usize, Piece, usize)> {
    layout.char_indices().find_map(|(at, _)| {
        let (piece, length) = piece_at(&layout[at..])?;
        // "_2006" is an underscore and a year, not a padded day.
        let is_year = piece == Piece::UnderDay && layout[at..].starts_with("_2006");
        if is_year { Some((at + 1, Piece::LongYear, 4)) } else { Some((at, piece, length)) }
    })
}

fn piece_at(text: &str) -> Option<(Piece, usize)> {
    let small_after = |length: usize| text[length..].starts_with(|c: char| c.is_ascii_lowercase());
    if let Some(found) = PIECES.iter().find(|(spelling, _)| text.starts_with(spelling)) {
        return Some((found.1, found.0.len()));
    }
    // "Jan" and "Mon" are no names within longer words such as "Month".
    if text.starts_with("Jan") && !small_after(3) {
        return Some((Piece::Month, 3));
    }
    if text.starts_with("Mon") && !small_after(3) {
        return Some((Piece::Weekday, 3));
    }
    let mark = text.chars().next().filter(|mark| matches!(mark, '.' | ','))?;
    let digit = text[1..].chars().next().filter(|digit| matches!(digit, '0' | '9'))?;
    let digits = text[1..].chars().take_while(|other| *other == digit).count();
    if text[1 + digits..].starts_with(|next: char| next.is_ascii_digit()) {
        return None;
    }
    Some((Piece::Fraction { mark, digits, trimmed: digit == '9' }, 1 + digits))
}

impl Piece {
    fn print(self, out: &mut String, civil: DateTime, offset: i32, zone_name: &str) {
        let hour12 = match civil.hour() % 12 {
            0 => 12,
            hour => hour,
        };
        let month = month_name(civil.month());
        let weekday = weekday_name(civil.weekday().to_sunday_zero_offset());
        let half = if civil.hour() < 12 { "AM" } else { "PM" };
        out.push_str(&match self {
            Self::LongMonth => month.to_owned(),
            Self::Month => month[..3].to_owned(),
            Self::NumMonth => civil.month().to_string(),
            Self::ZeroMonth => format!("{:02}", civil.month()),
            Self::LongWeekday => weekday.to_owned(),
            Self::Weekday => weekday[..3].to_owned(),
            Self::Day => civil.day().to_string(),
            Self::UnderDay => format!("{:2}", civil.day()),
            Self::ZeroDay => format!("{:02}", civil.day()),
            Self::UnderYearDay => format!("{:3}", civil.date().day_of_year()),
            Self::ZeroYearDay => format!("{:03}", civil.date().day_of_year()),
            Self::Hour => format!("{:02}", civil.hour()),
            Self::Hour12 => hour12.to_string(),
            Self::ZeroHour12 => format!("{hour12:02}"),
            Self::Minute => civil.minute().to_string(),
            Self::ZeroMinute => format!("{:02}", civil.minute()),
            Self::Second => civil.second().to_string(),
            Self::ZeroSecond => format!("{:02}", civil.second()),
            Self::LongYear => format!("{:04}", civil.year()),
            Self::Year => format!("{:02}", civil.year().rem_euclid(100)),
            Self::UpperHalf => half.to_owned(),
            Self::LowerHalf => half.to_ascii_lowercase(),
            Self::ZoneName => zone_name.to_owned(),
            Self::Offset { z: true, .. } if offset == 0 => "Z".to_owned(),
            Self::Offset { colon, parts, .. } => offset_text(offset, colon, parts),
            Self::Fraction { mark, digits, trimmed } => {
                let all = format!("{:09}", civil.subsec_nanosecond());
                let kept = all.get(..digits.min(9)).unwrap_or(&all);
                match trimmed {
                    false => format!("{mark}{kept:0<digits$}"),
                    true if kept.bytes().all(|digit| digit == b'0') => String::new(),
                    true => format!("{mark}{}", kept.trim_end_matches('0')),
                }
            }
        });
    }
}

fn offset_text(offset: i32, colon: bool, parts: u8) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    let seconds = offset.abs();
    let colon = if colon { ":" } else { "" };
    let mut text = format!("{sign}{:02}", seconds / 3600);
    if parts > 1 {
        text.push_str(&format!("{colon}{:02}", seconds / 60 % 60));
    }
    if parts > 2 {
        text.push_str(&format!("{colon}{:02}", seconds % 60));
    }
    text
}

/// `time.Duration.String`: `1h2m3.5s`, `1.5µs`, `0s`.
pub fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let magnitude = nanoseconds.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", value % unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}", value / unit)
    };
    match magnitude {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => return format!("{sign}{}µs", decimal(magnitude, 1_000)),
        1_000_000..1_000_000_000 => return format!("{sign}{}ms", decimal(magnitude, 1_000_000)),
        _ => {}
    }
    let seconds = magnitude / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(magnitude % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}s"),
        (0, _) => format!("{sign}{minutes}m{rest}s"),
        _ => format!("{sign}{hours}h{minutes}m{rest}s"),
    }
}

/// Reads a time by a layout; what the layout leaves out is the beginning of the year 0, in UTC.
/// `None` when the text does not follow it.
pub fn parse(layout: &str, text: &str) -> Option<Time> {
    let mut fields = Fields { month: 1, day: 1, ..Fields::default() };
    let (mut layout, mut text) = (layout, text);
    while let Some((before, piece, length)) = next_piece(layout) {
        text = text.strip_prefix(&layout[..before])?;
        layout = &layout[before + length..];
        text = fields.read(piece, text)?;
        // A fraction may follow the seconds unasked.
        if matches!(piece, Piece::Second | Piece::ZeroSecond)
            && !matches!(piece_at(layout), Some((Piece::Fraction { .. }, _)))
            && text.len() > 1
            && text.starts_with(['.', ','])
            && text[1..].starts_with(|digit: char| digit.is_ascii_digit())
        {
            text = fields.read_fraction(text)?;
        }
    }
    (layout == text).then_some(())?;
    fields.time()
}

/// What was read so far.
#[derive(Default)]
struct Fields {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    /// `PM`, `AM`
    afternoon: Option<bool>,
    offset: Option<i32>,
}

/// A number of one to `digits` digits.
fn number<T: std::str::FromStr>(text: &str, least: usize, most: usize) -> Option<(T, &str)> {
    let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    (length >= least).then(|| digits.parse().ok())?.map(|number| (number, rest))
}

/// The index of the name that the text begins with.
fn name<'a>(text: &'a str, names: &[&str], letters: Option<usize>) -> Option<(i8, &'a str)> {
    let index = names.iter().position(|name| {
        let wanted = &name[..letters.unwrap_or(name.len())];
        text.get(..wanted.len()).is_some_and(|own| own.eq_ignore_ascii_case(wanted))
    })?;
    let length = letters.unwrap_or(names[index].len());
    Some((index as i8, &text[length..]))
}

impl Fields {
    fn read<'a>(&mut self, piece: Piece, text: &'a str) -> Option<&'a str> {
        let rest;
        match piece {
            Piece::LongMonth => (self.month, rest) = name(text, &MONTHS, None)?,
            Piece::Month => (self.month, rest) = name(text, &MONTHS, Some(3))?,
            Piece::NumMonth => (self.month, rest) = number(text, 1, 2)?,
            Piece::ZeroMonth => (self.month, rest) = number(text, 2, 2)?,
            Piece::LongWeekday => (_, rest) = name(text, &WEEKDAYS, None)?,
            Piece::Weekday => (_, rest) = name(text, &WEEKDAYS, Some(3))?,
            Piece::Day => (self.day, rest) = number(text, 1, 2)?,
            Piece::UnderDay => (self.day, rest) = number(text.trim_start_matches(' '), 1, 2)?,
            Piece::ZeroDay => (self.day, rest) = number(text, 2, 2)?,
            Piece::UnderYearDay | Piece::ZeroYearDay => return None,
            Piece::Hour | Piece::ZeroHour12 => (self.hour, rest) = number(text, 2, 2)?,
            Piece::Hour12 => (self.hour, rest) = number(text, 1, 2)?,
            Piece::Minute => (self.minute, rest) = number(text, 1, 2)?,
            Piece::ZeroMinute => (self.minute, rest) = number(text, 2, 2)?,
            Piece::Second => (self.second, rest) = number(text, 1, 2)?,
            Piece::ZeroSecond => (self.second, rest) = number(text, 2, 2)?,
            Piece::LongYear => (self.year, rest) = number(text, 4, 4)?,
            Piece::Year => {
                (self.year, rest) = number(text, 2, 2)?;
                self.year += if self.year >= 69 { 1900 } else { 2000 };
            }
            Piece::UpperHalf | Piece::LowerHalf => {
                let (half, after) = name(text, &["AM", "PM"], None)?;
                (self.afternoon, rest) = (Some(half == 1), after);
            }
            Piece::ZoneName => {
                let length = text.bytes().take_while(u8::is_ascii_uppercase).count();
                (length >= 3).then_some(())?;
                rest = &text[length..];
            }
            Piece::Offset { z, colon, parts } => return self.read_offset(text, z, colon, parts),
            Piece::Fraction { trimmed: true, .. } if !text.starts_with(['.', ',']) => rest = text,
            Piece::Fraction { .. } => return self.read_fraction(text),
        }
        // Names count from 0, months from 1.
        self.month += i8::from(matches!(piece, Piece::LongMonth | Piece::Month));
        Some(rest)
    }

    fn read_fraction<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let digits = text.strip_prefix(['.', ','])?;
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = digits.split_at(length);
        let nine = format!("{digits:0<9}");
        self.nanosecond = nine.get(..9)?.parse().ok()?;
        Some(rest)
    }

    fn read_offset<'a>(
        &mut self,
        text: &'a str,
        z: bool,
        colon: bool,
        parts: u8,
    ) -> Option<&'a str> {
        if let Some(rest) = text.strip_prefix('Z').filter(|_| z) {
            self.offset = Some(0);
            return Some(rest);
        }
        let negative = text.starts_with('-');
        let mut rest = text.strip_prefix(['+', '-'])?;
        let mut seconds = 0;
        for (part, unit) in [3600, 60, 1].into_iter().enumerate().take(usize::from(parts)) {
            if colon && part > 0 {
                rest = rest.strip_prefix(':')?;
            }
            let value: i32;
            (value, rest) = number(rest, 2, 2)?;
            seconds += value * unit;
        }
        self.offset = Some(if negative { -seconds } else { seconds });
        Some(rest)
    }

    fn time(&self) -> Option<Time> {
        let hour = match self.afternoon {
            None => self.hour,
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
        };
        let civil = DateTime::new(
            self.year,
            self.month,
            self.day,
            hour,
            self.minute,
            self.second,
            self.nanosecond,
        );
        let zone = match self.offset {
            None | Some(0) => TimeZone::UTC,
            Some(seconds) => TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?),
        };
        let at = zone.to_timestamp(civil.ok()?).ok()?;
        Some(Time { at, zone })
    }
}
