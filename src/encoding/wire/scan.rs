//! The scanner under the text formats: bytes, a position, and error texts like those of
//! Prometheus' generated lexers.
//!
//! Tokens are reported with the byte that follows them, as Prometheus does.

use std::borrow::Cow;

use memchr::memchr2;

use super::entry::ParseError;
use crate::model::float;
use crate::model::labels::quote;
use crate::model::sample::NORMAL_NAN_BITS;

/// Bytes of an exposition that an error quotes at most.
const ERROR_EXCERPT_BYTES_MAX: usize = 512;

/// Powers of ten that are exact as floats.
const POWERS_OF_TEN: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// A position in a body.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    pub body: &'a [u8],
    pub pos: usize,
    /// Where the current line begins.
    pub line: usize,
    /// Whether blanks may stand between tokens, and the end counts as a newline (text format).
    pub lenient: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(body: &'a [u8], lenient: bool) -> Self {
        Self { body, pos: 0, line: 0, lenient }
    }

    pub fn peek(&self) -> Option<u8> {
        self.body.get(self.pos).copied()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.body.get(self.pos..).unwrap_or_default()
    }

    pub fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.body.get(start..end).unwrap_or_default()
    }

    pub fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.pos += 1;
        }
    }

    /// Skips blanks where the format allows them.
    pub fn skip_allowed_blanks(&mut self) {
        if self.lenient {
            self.skip_blanks();
        }
    }

    /// Takes bytes while `wanted` holds.
    pub fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let count = rest.iter().position(|byte| !wanted(*byte)).unwrap_or(rest.len());
        self.pos += count;
        rest.get(..count).unwrap_or_default()
    }

    /// Takes `[a-zA-Z_:][a-zA-Z0-9_:]*`; empty when there is none.
    pub fn metric_name(&mut self) -> &'a [u8] {
        self.name(true)
    }

    fn name(&mut self, colon: bool) -> &'a [u8] {
        let letter =
            move |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || (colon && byte == b':');
        match self.peek() {
            Some(first) if letter(first) => {
                self.take_while(|byte| letter(byte) || byte.is_ascii_digit())
            }
            _ => &[],
        }
    }

    /// Takes a quoted text with its quotes; `None`, without moving, when it is not closed.
    pub fn quoted(&mut self) -> Option<&'a [u8]> {
        let start = self.pos;
        let mut at = start + 1;
        loop {
            at += memchr2(b'"', b'\\', self.body.get(at..)?)?;
            if self.body.get(at) == Some(&b'"') {
                self.pos = at + 1;
                return self.body.get(start..self.pos);
            }
            at += 2;
        }
    }

    /// `expected …, got … while parsing: …` for a token that starts at `start` and ends at
    /// the current position.
    pub fn unexpected(&self, expected: &str, start: usize, token: &str) -> ParseError {
        let text = format!(
            "{expected}, got {} ({}) while parsing: {}",
            self.excerpt(start, self.pos + 1),
            quote(token),
            self.excerpt(self.line, self.pos + 1)
        );
        self.error(text)
    }

    /// `… while parsing: …`, quoting up to the current position.
    pub fn wrong(&self, what: &str) -> ParseError {
        let excerpt = self.excerpt(self.line, self.pos);
        self.error(format!("{what} while parsing: {excerpt}"))
    }

    pub fn error(&self, message: String) -> ParseError {
        ParseError { message, offset_bytes: self.line }
    }

    fn excerpt(&self, start: usize, end: usize) -> String {
        let cut = end.min(start + ERROR_EXCERPT_BYTES_MAX);
        let mut bytes = self.slice(start, cut.min(self.body.len())).to_vec();
        // Prometheus completes the last line before it reads the text format.
        if self.lenient && cut == self.body.len() + 1 && self.body.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        quote_bytes(&bytes)
    }

    /// Takes `{…}` from the opening brace on. `named`: a metric name stood before it; else one
    /// must stand within, in quotes.
    pub fn label_list(&mut self, mut named: bool, needs_name: bool) -> Result<(), ParseError> {
        self.pos += 1;
        self.skip_allowed_blanks();
        loop {
            let start = self.pos;
            match self.peek() {
                Some(b'}') => {
                    self.pos += 1;
                    break;
                }
                Some(b'"') => {
                    let invalid = self.unexpected("expected label name", start, "INVALID");
                    let name = self.quoted().ok_or(invalid)?;
                    if std::str::from_utf8(name).is_err() {
                        let text = format!("invalid UTF-8 label name: {}", quote_bytes(name));
                        return Err(self.error(text));
                    }
                    self.skip_allowed_blanks();
                    if needs_name && matches!(self.peek(), Some(b',' | b'}')) {
                        self.quoted_metric_name(&mut named)?;
                        continue;
                    }
                }
                _ if self.name(false).is_empty() => {
                    return Err(self.unexpected_token("expected label name"));
                }
                _ => self.skip_allowed_blanks(),
            }
            self.label_value()?;
        }
        if needs_name && !named {
            self.skip_blanks();
            self.take_while(|byte| !matches!(byte, b' ' | b'\t' | b'\n'));
            return Err(self.wrong("metric name not set"));
        }
        Ok(())
    }

    /// After a quoted metric name within braces.
    fn quoted_metric_name(&mut self, named: &mut bool) -> Result<(), ParseError> {
        if *named {
            self.pos += 1;
            return Err(self.wrong("metric name already set"));
        }
        *named = true;
        if self.peek() == Some(b',') {
            self.pos += 1;
            self.skip_allowed_blanks();
        }
        Ok(())
    }

    /// `="value"` and the comma after it, if any.
    fn label_value(&mut self) -> Result<(), ParseError> {
        if self.peek() != Some(b'=') {
            return Err(self.unexpected_token("expected equal"));
        }
        self.pos += 1;
        self.skip_allowed_blanks();
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("expected label value", self.pos, "INVALID"));
        }
        let start = self.pos;
        let Some(value) = self.quoted() else {
            self.pos = self.body.len();
            return Err(self.unexpected("expected label value", start, "INVALID"));
        };
        if std::str::from_utf8(value).is_err() {
            let text = format!("invalid UTF-8 label value: {}", quote_bytes(value));
            return Err(self.error(text));
        }
        self.skip_allowed_blanks();
        match self.peek() {
            Some(b',') => {
                self.pos += 1;
                self.skip_allowed_blanks();
                Ok(())
            }
            Some(b'}') => Ok(()),
            _ => Err(self.unexpected_token("expected comma or brace close")),
        }
    }

    /// An error about whatever token stands here within braces.
    fn unexpected_token(&mut self, expected: &str) -> ParseError {
        let start = self.pos;
        let token = match self.peek() {
            None if !self.lenient => "EOF",
            Some(b'=') => "EQUAL",
            Some(b',') => "COMMA",
            Some(b'}') => "BCLOSE",
            Some(b'"') => "QSTRING",
            _ => {
                if self.name(false).is_empty() {
                    return self.unexpected(expected, start, "INVALID");
                }
                return self.unexpected(expected, start, "LNAME");
            }
        };
        if token == "QSTRING" {
            let _ = self.quoted();
        } else if token != "EOF" {
            self.pos += 1;
        }
        self.unexpected(expected, start, token)
    }

    /// Reads a value token; the scanner stands behind it.
    pub fn float(&self, token: &[u8]) -> Result<f64, ParseError> {
        match parse_float(token) {
            Ok(value) => Ok(value),
            Err(problem) => Err(self.wrong(&problem)),
        }
    }
}

/// A number as the formats write it; NaNs become the canonical one.
pub(super) fn parse_float(token: &[u8]) -> Result<f64, String> {
    if let Some(value) = short_decimal(token) {
        return Ok(value);
    }
    if token.iter().any(|byte| matches!(byte, b'p' | b'P' | b'_')) {
        return Err("unsupported character in float".to_owned());
    }
    let syntax = || format!("strconv.ParseFloat: parsing {}: invalid syntax", quote_bytes(token));
    let text = std::str::from_utf8(token).map_err(|_| syntax())?;
    let value = float::parse(text).ok_or_else(syntax)?;
    if value.is_nan() {
        // Go takes no sign before NaN.
        let signed = text.starts_with(['+', '-']);
        return if signed { Err(syntax()) } else { Ok(f64::from_bits(NORMAL_NAN_BITS)) };
    }
    if value.is_infinite() && !text.contains(['i', 'I']) {
        let quoted = quote_bytes(token);
        return Err(format!("strconv.ParseFloat: parsing {quoted}: value out of range"));
    }
    Ok(value)
}

/// Numbers of at most 15 digits without exponent: integer and power of ten are exact floats, so
/// that one division rounds correctly.
fn short_decimal(token: &[u8]) -> Option<f64> {
    let (negative, digits) = match token.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, token),
    };
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let (mut mantissa, mut point) = (0_u64, None);
    for (index, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() && index > 0 => point = Some(index),
            _ => return None,
        }
    }
    let fraction = point.map_or(0, |at| digits.len() - at - 1);
    if digits.len() - usize::from(point.is_some()) > 15 {
        return None;
    }
    let value = mantissa as f64 / POWERS_OF_TEN.get(fraction)?;
    Some(if negative { -value } else { value })
}

/// As Go quotes bytes: what is not UTF-8 becomes `\xff`.
pub(super) fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = quote(chunk.valid());
        out.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// Undoes `\\`, `\n` and, in label values and quoted names, `\"`; other escapes stay.
pub(super) fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.peek() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            Some('"') if quotes => out.push('"'),
            _ => {
                out.push('\\');
                continue;
            }
        }
        letters.next();
    }
    Cow::Owned(out)
}

/// The text of a name token: a plain name, or a quoted one without quotes and escapes.
pub(super) fn name_text(token: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(token).ok()?;
    match text.strip_prefix('"') {
        Some(rest) => Some(unescape(rest.strip_suffix('"').unwrap_or(rest), true)),
        None => Some(Cow::Borrowed(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_like_go_reads_them() {
        for (text, expected) in [
            ("0", 0.0),
            ("-0", -0.0),
            ("12.5", 12.5),
            ("1e3", 1000.0),
            ("+Inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            (".5", 0.5),
            ("5.", 5.0),
            ("123456789012345678", 123_456_789_012_345_680.0),
        ] {
            let value = parse_float(text.as_bytes()).unwrap();
            assert_eq!(value.to_bits(), f64::to_bits(expected), "{text}");
        }
        assert_eq!(parse_float(b"nan").unwrap().to_bits(), NORMAL_NAN_BITS);
        for text in ["", "-", ".", "1_2", "0x1p3", "0x1", "1.2.3", "abc", "-nan", "1e400", "\u{ff}"]
        {
            assert!(parse_float(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn short_decimals_equal_the_standard_parser(whole in 0_u64..10_000_000, fraction in "[0-9]{0,8}", minus: bool) {
            let text = format!("{}{whole}.{fraction}", if minus { "-" } else { "" });
            let expected: f64 = text.parse().unwrap();
            prop_assert_eq!(parse_float(text.as_bytes()).unwrap().to_bits(), expected.to_bits());
        }
    }
}
