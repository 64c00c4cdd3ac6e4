//! OpenMetrics text, versions 0.0.1 and 1.0.0: strict about blanks, ends with `# EOF`.

use memchr::memchr;

use super::entry::{Entry, Exemplar, ParseError, Sample};
use super::scan::{Scanner, quote_bytes, unescape};
use super::text::{help_text, metadata_name};
use crate::model::metadata::MetricType;

/// Reads a body line by line. Ends after `# EOF` or the first error.
#[derive(Clone, Debug)]
pub struct OpenMetricsParser<'a> {
    scan: Scanner<'a>,
    is_done: bool,
}

const NO_EOF: &str = "data does not end with # EOF";

impl<'a> OpenMetricsParser<'a> {
    /// Reads from the beginning of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { scan: Scanner::new(body, false), is_done: false }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.scan.rest()
    }

    /// Takes a sample whose series text is `series` (found valid before), if it is next.
    pub fn known_sample(&mut self, series: &[u8]) -> Option<Sample<'a>> {
        let rest = self.scan.rest();
        if rest.get(series.len()) != Some(&b' ') || !rest.starts_with(series) {
            return None;
        }
        let mut ahead = self.scan.clone();
        ahead.line = ahead.pos;
        ahead.pos += series.len();
        let sample = end_of_sample(&mut ahead, &rest[..series.len()]).ok()?;
        self.scan = ahead;
        Some(sample)
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
        let scan = &mut self.scan;
        scan.line = scan.pos;
        match scan.peek() {
            None => Some(Err(scan.error(NO_EOF.to_owned()))),
            Some(b'#') => self.comment(),
            Some(_) => Some(self.sample().map(Entry::Sample)),
        }
    }

    fn sample(&mut self) -> Result<Sample<'a>, ParseError> {
        let scan = &mut self.scan;
        let start = scan.pos;
        let named = !scan.metric_name().is_empty();
        if scan.peek() == Some(b'{') {
            scan.label_list(named, true)?;
        } else if !named {
            return Err(scan.unexpected("expected a valid start token", scan.pos, "INVALID"));
        }
        let series = scan.slice(start, scan.pos);
        end_of_sample(scan, series)
    }

    fn comment(&mut self) -> Option<Result<Entry<'a>, ParseError>> {
        let scan = &mut self.scan;
        let rest = scan.rest();
        if let Some(after) = rest.strip_prefix(b"# EOF") {
            if matches!(after, b"" | b"\n") {
                self.is_done = true;
                return None;
            }
            return Some(Err(scan.error("unexpected data after # EOF".to_owned())));
        }
        let word = ["HELP", "TYPE", "UNIT"].into_iter().find(|word| {
            let start = rest.get(2..).unwrap_or_default();
            rest.starts_with(b"# ")
                && start.starts_with(word.as_bytes())
                && start.get(word.len()) == Some(&b' ')
        });
        let Some(word) = word else {
            scan.pos += usize::from(rest.starts_with(b"# "));
            return Some(Err(scan.unexpected(
                "expected a valid start token",
                scan.line,
                "INVALID",
            )));
        };
        let Some(length) = memchr(b'\n', rest) else {
            return Some(Err(scan.error(NO_EOF.to_owned())));
        };
        scan.pos += 2 + word.len();
        Some(self.metadata(word, &rest[..=length]))
    }

    fn metadata(&mut self, word: &str, line: &'a [u8]) -> Result<Entry<'a>, ParseError> {
        let scan = &mut self.scan;
        let end = scan.line + line.len();
        let metric = metadata_name(scan, word)?;
        let text = scan.slice(scan.pos, end - 1);
        let text = match text.split_first() {
            None => text,
            Some((b' ', rest)) => rest,
            Some(_) => return Err(scan.error(format!("expected text in {word}"))),
        };
        scan.pos = end;
        match word {
            "TYPE" => {
                let metric_type = metric_type(text).ok_or_else(|| {
                    scan.error(format!("invalid metric type {}", quote_bytes(text)))
                })?;
                Ok(Entry::Type { metric, metric_type, line })
            }
            "HELP" => Ok(Entry::Help { metric, help: help_text(scan, text)?, line }),
            _ => {
                let unit = std::str::from_utf8(text).map_err(|_| {
                    scan.error(format!("unit {} is not a valid utf8 string", quote_bytes(text)))
                })?;
                let is_suffix = metric.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_'));
                if !unit.is_empty() && !is_suffix {
                    let text = format!("unit {unit:?} not a suffix of metric {metric:?}");
                    return Err(scan.error(text));
                }
                Ok(Entry::Unit { metric, unit: unescape(unit, false), line })
            }
        }
    }
}

impl<'a> Iterator for OpenMetricsParser<'a> {
    type Item = Result<Entry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let entry = self.entry();
        self.is_done |= matches!(entry, Some(Err(_)));
        entry
    }
}

fn metric_type(text: &[u8]) -> Option<MetricType> {
    Some(match text {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"gaugehistogram" => MetricType::GaugeHistogram,
        b"summary" => MetricType::Summary,
        b"info" => MetricType::Info,
        b"stateset" => MetricType::StateSet,
        b"unknown" => MetricType::Unknown,
        _ => return None,
    })
}

/// Takes a blank and the token behind it; `None`, without moving, when there is none.
fn spaced_token<'a>(scan: &mut Scanner<'a>) -> Option<&'a [u8]> {
    let start = scan.pos;
    if scan.peek() == Some(b' ') {
        scan.pos += 1;
        let token = scan.take_while(|byte| !matches!(byte, b' ' | b'\n'));
        if !token.is_empty() {
            return Some(token);
        }
    }
    scan.pos = start;
    None
}

fn end_of_sample<'a>(scan: &mut Scanner<'a>, series: &'a [u8]) -> Result<Sample<'a>, ParseError> {
    let value = number(scan, "expected value after metric")?;
    let mut sample = Sample { series, timestamp_ms: None, value, exemplar: None };
    if scan.peek() == Some(b'\n') {
        scan.pos += 1;
        return Ok(sample);
    }
    if !scan.rest().starts_with(b" # {")
        && let Some(token) = spaced_token(scan)
    {
        sample.timestamp_ms = Some(timestamp(scan, token)?);
    }
    if scan.rest().starts_with(b" # {") {
        scan.pos += 3;
        let start = scan.pos;
        scan.label_list(false, false)?;
        let labels = scan.slice(start, scan.pos);
        let value = number(scan, "expected value after exemplar labels")?;
        let timestamp_ms = match spaced_token(scan) {
            Some(token) => Some(timestamp(scan, token)?),
            None => None,
        };
        sample.exemplar = Some(Exemplar { labels, value, timestamp_ms });
    }
    match scan.peek() {
        Some(b'\n') => scan.pos += 1,
        None => return Err(scan.error(NO_EOF.to_owned())),
        Some(_) => {
            let start = scan.pos;
            scan.pos += 1;
            return Err(scan.unexpected("expected next entry after timestamp", start, "INVALID"));
        }
    }
    Ok(sample)
}

fn number(scan: &mut Scanner<'_>, expected: &str) -> Result<f64, ParseError> {
    match spaced_token(scan) {
        Some(token) => scan.float(token),
        None => Err(scan.unexpected(expected, scan.pos, "INVALID")),
    }
}

/// Seconds, with fraction, to milliseconds.
fn timestamp(scan: &Scanner<'_>, token: &[u8]) -> Result<i64, ParseError> {
    let seconds = scan.float(token)?;
    if !seconds.is_finite() {
        return Err(scan.error(format!("invalid timestamp {seconds}")));
    }
    Ok((seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests;
