//! Request parameters: query string and form body merged, times, durations, selectors.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};
use percent_encoding::percent_decode_str;

use super::blocking::Blocking;
use super::respond::ApiError;
use crate::model::duration;
use crate::model::labels::quote;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::promql::parser::{self, ParserOptions};

/// Bytes of a form body: room for very long queries.
const FORM_BYTES_MAX: usize = 10 << 20;

/// All parameters of a request in the order they came, the form's before the query string's.
#[derive(Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let query = request.uri().query().unwrap_or("").to_owned();
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        let mut params = Self::default();
        if is_form && request.method() != Method::GET {
            let body: Body = request.into_body();
            let read = to_bytes(body, FORM_BYTES_MAX).await;
            let bytes =
                read.map_err(|_| ApiError::bad_data("error parsing form values: body too large"))?;
            params.add(&bytes);
        }
        params.add(query.as_bytes());
        Ok(params)
    }
}

impl Params {
    fn add(&mut self, encoded: &[u8]) {
        self.0.extend(url::form_urlencoded::parse(encoded).into_owned());
    }

    /// Parameters of an encoded query string.
    pub fn from_query(query: &str) -> Self {
        let mut params = Self::default();
        params.add(query.as_bytes());
        params
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The first value of a parameter; empty when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// Every value of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A moment, or `default_ms` when the parameter is absent.
    pub fn time_ms(&self, name: &str, default_ms: i64) -> Result<i64, ApiError> {
        match self.get(name) {
            "" => Ok(default_ms),
            text => parse_time_ms(text).map_err(|reason| {
                ApiError::parameter(name, format!("invalid time value for '{name}': {reason}"))
            }),
        }
    }

    /// A moment that must be given.
    pub fn required_time_ms(&self, name: &str) -> Result<i64, ApiError> {
        parse_time_ms(self.get(name)).map_err(|reason| ApiError::parameter(name, reason))
    }

    /// A duration, `None` when the parameter is absent.
    pub fn duration(&self, name: &str) -> Result<Option<f64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => {
                let seconds = parse_duration_seconds(text);
                Ok(Some(seconds.map_err(|reason| ApiError::parameter(name, reason))?))
            }
        }
    }

    /// `start` and `end`, open where they are absent.
    pub fn range(&self) -> Result<TimeRange, ApiError> {
        let min_ms = self.time_ms("start", i64::MIN)?;
        let max_ms = self.time_ms("end", i64::MAX)?;
        Ok(TimeRange { min_ms, max_ms })
    }

    /// `limit`: 0 when it is absent or off.
    pub fn limit(&self) -> Result<usize, ApiError> {
        self.count("limit", 0)
    }

    /// A count that must not be negative.
    pub fn count(&self, name: &str, default: usize) -> Result<usize, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => match text.parse::<i64>() {
                Ok(number) if number >= 0 => Ok(number as usize),
                Ok(_) => Err(ApiError::parameter(name, format!("{name} must be non-negative"))),
                Err(_) => {
                    let reason = format!("strconv.Atoi: parsing {}: invalid syntax", quote(text));
                    Err(ApiError::parameter(name, reason))
                }
            },
        }
    }

    /// A count for which nothing and negative numbers mean any number.
    pub fn open_count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => match text.parse::<i64>() {
                Ok(number) => Ok(usize::try_from(number).ok()),
                Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
            },
        }
    }

    /// The matcher sets of all `match[]`.
    pub fn matchers(
        &self,
        thread: &Blocking,
        options: &ParserOptions,
    ) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let parse = |text: &str| parser::parse_metric_selector(text, options);
        let refused = |err: &dyn std::fmt::Display| ApiError::parameter("match[]", err);
        thread.selectors(self.all("match[]"), parse, refused)
    }
}

/// Unix seconds with fraction, or RFC 3339.
pub fn parse_time_ms(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        // What Grafana's exemplar probe sends in milliseconds is far in the future, not an error.
        if ms.is_finite() && ms.abs() < i64::MAX as f64 {
            return Ok(ms as i64);
        }
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    Err(format!("cannot parse {} to a valid timestamp", quote(text)))
}

/// Float seconds, or Prometheus' notation. In seconds.
pub fn parse_duration_seconds(text: &str) -> Result<f64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        if seconds.is_nan() || seconds.abs() > i64::MAX as f64 / 1e9 {
            return Err(format!(
                "cannot parse {} to a valid duration. It overflows int64",
                quote(text)
            ));
        }
        return Ok(seconds);
    }
    let parsed = duration::parse(text).map(|duration: Duration| duration.as_secs_f64());
    parsed.map_err(|_| format!("cannot parse {} to a valid duration", quote(text)))
}

/// A label name as Grafana sends it in a path: percent-encoded, or `U__` escaped when it is not a
/// classic identifier (`model.UnescapeName` of Prometheus).
pub fn unescape_label_name(raw: &str) -> String {
    let decoded = percent_decode_str(raw).decode_utf8_lossy().into_owned();
    let Some(escaped) = decoded.strip_prefix("U__") else { return decoded };
    let (mut out, mut rest) = (String::new(), escaped);
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let code = rest.find('_').and_then(|end| {
            let letter = char::from_u32(u32::from_str_radix(&rest[..end], 16).ok()?)?;
            Some((letter, &rest[end + 1..]))
        });
        let Some((letter, after)) = code else { return decoded };
        out.push(letter);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_take_both_notations() {
        assert_eq!(parse_time_ms("1.5"), Ok(1500));
        assert_eq!(parse_time_ms("1970-01-01T00:00:02.5Z"), Ok(2500));
        assert_eq!(parse_time_ms("x").unwrap_err(), "cannot parse \"x\" to a valid timestamp");
        assert_eq!(parse_duration_seconds("1m"), Ok(60.0));
        assert_eq!(parse_duration_seconds("0.5"), Ok(0.5));
        assert!(parse_duration_seconds("1e300").is_err());
        assert!(parse_duration_seconds("abc").is_err());
    }

    #[test]
    fn parameters_merge_and_repeat() {
        let params =
            Params::from_query("a=1&match%5B%5D=up&match%5B%5D=x%7By%3D%22z%22%7D&limit=-1");
        assert_eq!(params.get("a"), "1");
        assert_eq!(params.all("match[]").count(), 2);
        assert_eq!(
            params.limit().unwrap_err().text,
            "invalid parameter \"limit\": limit must be non-negative"
        );
    }

    #[test]
    fn escaped_label_names_are_read() {
        assert_eq!(unescape_label_name("job"), "job");
        assert_eq!(unescape_label_name("U__http_2e_status"), "http.status");
        assert_eq!(unescape_label_name("U__a__b"), "a_b");
        assert_eq!(unescape_label_name("U__bad_zz_"), "U__bad_zz_");
    }
}
