//! The Prometheus text format, versions 0.0.4 and 1.0.0 (quoted names).
//!
//! Borrows from the body. A scrape that knows which line should come next asks
//! [`TextParser::known_sample`] and [`TextParser::known_line`] first, which only compare bytes.

use std::borrow::Cow;

use memchr::memchr;

use super::entry::{Entry, ParseError, Sample};
use super::scan::{Scanner, name_text, quote_bytes, unescape};
use crate::model::metadata::MetricType;

/// Reads a body line by line. Ends after the first error.
#[derive(Clone, Debug)]
pub struct TextParser<'a> {
    scan: Scanner<'a>,
}

impl<'a> TextParser<'a> {
    /// Reads from the beginning of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { scan: Scanner::new(body, true) }
    }

    /// Takes a sample whose series text is `series` (found valid before), if it is next.
    pub fn known_sample(&mut self, series: &[u8]) -> Option<Sample<'a>> {
        let rest = self.scan.rest();
        let after = rest.get(series.len())?;
        if !rest.starts_with(series) || !matches!(after, b' ' | b'\t') {
            return None;
        }
        let mut ahead = self.scan.clone();
        ahead.line = ahead.pos;
        ahead.pos += series.len();
        let (timestamp_ms, value) = number_and_timestamp(&mut ahead).ok()?;
        self.scan = ahead;
        Some(Sample { series: &rest[..series.len()], timestamp_ms, value, exemplar: None })
    }

    /// Skips `line` (which includes its newline), if it is next.
    pub fn known_line(&mut self, line: &[u8]) -> bool {
        let found = line.ends_with(b"\n") && self.scan.rest().starts_with(line);
        if found {
            self.scan.pos += line.len();
        }
        found
    }

    fn entry(&mut self) -> Option<Result<Entry<'a>, ParseError>> {
        loop {
            self.scan.line = self.scan.pos;
            self.scan.skip_blanks();
            match self.scan.peek()? {
                b'\n' => self.scan.pos += 1,
                b'#' => return Some(self.comment()),
                _ => return Some(self.sample().map(Entry::Sample)),
            }
        }
    }

    fn sample(&mut self) -> Result<Sample<'a>, ParseError> {
        let scan = &mut self.scan;
        let start = scan.pos;
        let named = !scan.metric_name().is_empty();
        let mut end = scan.pos;
        scan.skip_blanks();
        if scan.peek() == Some(b'{') {
            scan.label_list(named, true)?;
            end = scan.pos;
        } else if !named {
            return Err(scan.unexpected("expected a valid start token", scan.pos, "INVALID"));
        }
        scan.pos = end;
        let series = scan.slice(start, end);
        let (timestamp_ms, value) = number_and_timestamp(scan)?;
        Ok(Sample { series, timestamp_ms, value, exemplar: None })
    }

    fn comment(&mut self) -> Result<Entry<'a>, ParseError> {
        let scan = &mut self.scan;
        let line = scan.rest();
        let length = memchr(b'\n', line).map_or(line.len(), |at| at + 1);
        let (line, end) = (&line[..length], scan.pos + length);
        scan.pos += 1;
        let blanks = scan.take_while(|byte| matches!(byte, b' ' | b'\t'));
        let word = scan.take_while(|byte| byte.is_ascii_uppercase());
        let blank_after = matches!(scan.peek(), Some(b' ' | b'\t'));
        let is_type = word == b"TYPE";
        if blanks.is_empty() || !blank_after || !(is_type || word == b"HELP") {
            scan.pos = end;
            return Ok(Entry::Comment);
        }
        let word = if is_type { "TYPE" } else { "HELP" };
        let metric = metadata_name(scan, word)?;
        scan.skip_blanks();
        let text = scan.slice(scan.pos, end);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        scan.pos = end;
        if is_type {
            let metric_type = metric_type(text)
                .ok_or_else(|| scan.error(format!("invalid metric type {}", quote_bytes(text))))?;
            return Ok(Entry::Type { metric, metric_type, line });
        }
        let help = help_text(scan, text)?;
        Ok(Entry::Help { metric, help, line })
    }
}

impl<'a> Iterator for TextParser<'a> {
    type Item = Result<Entry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry();
        if matches!(entry, Some(Err(_))) {
            self.scan.pos = self.scan.body.len();
        }
        entry
    }
}

fn metric_type(text: &[u8]) -> Option<MetricType> {
    Some(match text {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"summary" => MetricType::Summary,
        b"untyped" => MetricType::Unknown,
        _ => return None,
    })
}

/// The name in a `# HELP`, `# TYPE` or `# UNIT` line.
pub(super) fn metadata_name<'a>(
    scan: &mut Scanner<'a>,
    word: &str,
) -> Result<Cow<'a, str>, ParseError> {
    if scan.lenient {
        scan.skip_blanks();
    } else {
        scan.pos += 1;
    }
    let expected = || format!("expected metric name after {word}");
    let start = scan.pos;
    let token = match scan.peek() {
        Some(b'"') => scan.quoted().unwrap_or_default(),
        _ => scan.metric_name(),
    };
    if token.is_empty() {
        return Err(scan.unexpected(&expected(), start, "INVALID"));
    }
    name_text(token).ok_or_else(|| scan.unexpected(&expected(), start, "INVALID"))
}

/// The text of a `# HELP` line.
pub(super) fn help_text<'a>(
    scan: &Scanner<'a>,
    text: &'a [u8],
) -> Result<Cow<'a, str>, ParseError> {
    match std::str::from_utf8(text) {
        Ok(text) => Ok(unescape(text, false)),
        Err(_) => {
            let quoted = quote_bytes(text);
            Err(scan.error(format!("help text {quoted} is not a valid utf8 string")))
        }
    }
}

/// What follows a series: blanks, value, perhaps a timestamp, end of line.
fn number_and_timestamp(scan: &mut Scanner<'_>) -> Result<(Option<i64>, f64), ParseError> {
    scan.skip_blanks();
    let token = scan.take_while(|byte| !matches!(byte, b'{' | b' ' | b'\t' | b'\n'));
    if token.is_empty() {
        return Err(scan.unexpected("expected value after metric", scan.pos, "INVALID"));
    }
    let value = scan.float(token)?;
    if scan.peek() == Some(b'\n') {
        scan.pos += 1;
        return Ok((None, value));
    }
    scan.skip_blanks();
    let mut timestamp_ms = None;
    let start = scan.pos;
    if scan.peek() == Some(b'-') {
        scan.pos += 1;
    }
    if scan.take_while(|byte| byte.is_ascii_digit()).is_empty() {
        scan.pos = start;
    } else {
        let text = scan.slice(start, scan.pos);
        let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let out_of_range = || {
            let quoted = quote_bytes(text);
            scan.wrong(&format!("strconv.ParseInt: parsing {quoted}: value out of range"))
        };
        timestamp_ms = Some(parsed.ok_or_else(out_of_range)?);
        scan.skip_blanks();
    }
    match scan.peek() {
        None => {}
        Some(b'\n') => scan.pos += 1,
        Some(_) if timestamp_ms.is_some() => {
            return Err(scan.unexpected(
                "expected next entry after timestamp",
                scan.pos,
                "INVALID",
            ));
        }
        Some(_) => {
            return Err(scan.unexpected("expected timestamp or new record", scan.pos, "INVALID"));
        }
    }
    Ok((timestamp_ms, value))
}

#[cfg(test)]
mod tests;
