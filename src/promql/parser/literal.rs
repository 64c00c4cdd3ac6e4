//! Numbers, durations and strings: from their spelling to their value, by the rules of Go.

use super::{Parsed, Parser};
use crate::model;
use crate::model::labels::quote;
use crate::promql::ast::Span;
use crate::promql::lexer::token::{Token, TokenKind};

/// A number or duration as it stands in the text.
pub(super) struct Literal {
    pub(super) span: Span,
    /// A duration counts in seconds.
    pub(super) value: f64,
    pub(super) is_duration: bool,
}

impl Parser<'_> {
    /// The value of a token that is a number or a duration.
    pub(super) fn literal(&mut self, token: Token) -> Parsed<Literal> {
        let (span, text) = (token.span, self.text(token));
        if token.kind == TokenKind::Duration {
            let duration = model::duration::parse(text).unwrap_or_else(|err| {
                self.error(span, err.to_string());
                std::time::Duration::ZERO
            });
            return Ok(Literal { span, value: duration.as_secs_f64(), is_duration: true });
        }
        let value = parse_number(text).unwrap_or_else(|reason| {
            let text = quote(text);
            let message =
                format!("error parsing number: strconv.ParseFloat: parsing {text}: {reason}");
            self.error(span, message);
            0.0
        });
        Ok(Literal { span, value, is_duration: false })
    }

    /// The bytes that a string token stands for.
    pub(super) fn unquote(&self, token: Token) -> Vec<u8> {
        unquote(self.text(token))
    }

    /// The text that a string token stands for. Labels are UTF-8: other bytes match nothing, and
    /// become replacement characters, which do not occur in labels either.
    pub(super) fn unquote_text(&self, token: Token) -> String {
        String::from_utf8_lossy(&self.unquote(token)).into_owned()
    }
}

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

/// As Go's `ParseInt` with any base, else as its `ParseFloat`.
fn parse_number(text: &str) -> Result<f64, &'static str> {
    if let Some(integer) = parse_integer(text) {
        return Ok(integer as f64);
    }
    if text.contains('_') && !underscores_separate_digits(text) {
        return Err(SYNTAX);
    }
    let digits: String = text.chars().filter(|letter| *letter != '_').collect();
    // Hexadecimal floats need a `p`, which the lexer refuses: integers beyond 64 bits fail here.
    let value = model::float::parse(&digits).ok_or(SYNTAX)?;
    let spelt_infinite = digits.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    if value.is_infinite() && !spelt_infinite { Err(RANGE) } else { Ok(value) }
}

fn strip_prefix_of_hex(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// Hexadecimal after `0x`, octal after `0`, else decimal; `None` beyond 64 bits, too.
fn parse_integer(text: &str) -> Option<i64> {
    if text.contains('_') && !underscores_separate_digits(text) {
        return None;
    }
    let digits: String = text.chars().filter(|letter| *letter != '_').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    if let Some(hex) = strip_prefix_of_hex(&digits) {
        return i64::from_str_radix(hex, 16).ok();
    }
    match digits.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => i64::from_str_radix(octal, 8).ok(),
        _ => digits.parse().ok(),
    }
}

/// Each underscore stands between digits, or between the prefix and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let hex = strip_prefix_of_hex(text);
    let is_digit =
        |byte: u8| if hex.is_some() { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    let mut before = if hex.is_some() { b'0' } else { b'!' };
    for byte in hex.unwrap_or(text).bytes() {
        if (byte == b'_' && !is_digit(before)) || (before == b'_' && !is_digit(byte)) {
            return false;
        }
        before = byte;
    }
    before != b'_'
}

/// Takes the quotes off and resolves escapes. The lexer has checked them; what it let through
/// wrongly stays as it is.
fn unquote(quoted: &str) -> Vec<u8> {
    let mut letters = quoted.chars();
    let quote = letters.next();
    letters.next_back();
    let inner = letters.as_str();
    if quote == Some('`') || !inner.contains('\\') {
        return inner.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        rest = unescape(escape, &mut out);
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Appends what an escape sequence means, given without its backslash, and returns what follows.
fn unescape<'a>(escape: &'a str, out: &mut Vec<u8>) -> &'a str {
    let mut letters = escape.chars();
    let Some(letter) = letters.next() else { return "" };
    let (digits, radix) = match letter {
        'x' => (letters.as_str().get(..2), 16),
        'u' => (letters.as_str().get(..4), 16),
        'U' => (letters.as_str().get(..8), 16),
        '0'..='7' => (escape.get(..3), 8),
        _ => {
            let byte = match letter {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                other => other,
            };
            out.extend_from_slice(byte.encode_utf8(&mut [0; 4]).as_bytes());
            return letters.as_str();
        }
    };
    let digits = digits.unwrap_or_default();
    let value = u32::from_str_radix(digits, radix).unwrap_or_default();
    match (letter, u8::try_from(value)) {
        ('x' | '0'..='7', Ok(byte)) => out.push(byte),
        _ => {
            let letter = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    let after = if radix == 8 { escape } else { letters.as_str() };
    after.get(digits.len()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_go() {
        for (text, value) in [
            ("0755", 493.0),
            ("08", 8.0),
            ("089", 89.0),
            ("0e5", 0.0),
            ("01e3", 1000.0),
            ("0x_1F", 31.0),
            ("0X1_F", 31.0),
            ("1_000.5", 1000.5),
            (".123_456", 0.123_456),
            ("5.", 5.0),
            ("Inf", f64::INFINITY),
            ("9223372036854775807", 9_223_372_036_854_775_807.0),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
        ] {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
        assert!(parse_number("nAn").is_ok_and(f64::is_nan));
        assert_eq!(parse_number("1e999"), Err(RANGE));
        assert_eq!(parse_number("0x"), Err(SYNTAX));
        assert_eq!(parse_number("0x10000000000000000"), Err(SYNTAX));
    }

    #[test]
    fn strings_unquote_like_go() {
        for (quoted, bytes) in [
            (r#""a\tb\"'""#, b"a\tb\"'".as_slice()),
            (r"'\''", b"'"),
            (r"`\d+`", br"\d+"),
            (r#""\xff\377""#, b"\xff\xff"),
            (r#""\u00e9\U0001F600é""#, "é😀é".as_bytes()),
            (r#""\\n""#, br"\n"),
            ("''", b""),
        ] {
            assert_eq!(unquote(quoted), bytes, "{quoted}");
        }
    }
}
