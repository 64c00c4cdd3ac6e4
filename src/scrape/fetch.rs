//! Fetching a target's exposition over HTTP.

use std::pin::Pin;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING};

use super::append::{ScrapeError, body_bytes_max};
use super::options::{JobOptions, ScrapeProtocol};
use super::target::Target;
use crate::http_client::{Client, OptionsError, Request, SendError};

/// By how much gzip may make a short body longer.
const GZIP_OVERHEAD_BYTES: usize = 1024;

/// What a target answered with status 200.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub content_type: String,
    pub body: Bytes,
    pub is_gzip: bool,
}

/// A fetch under way.
pub(super) type Fetching<'a> =
    Pin<Box<dyn Future<Output = Result<Fetched, ScrapeError>> + Send + 'a>>;

/// A way to reach targets; tests have their own.
pub(super) trait Fetch: Send + Sync {
    fn fetch<'a>(&'a self, target: &'a Target) -> Fetching<'a>;
}

/// Over HTTP, with the job's options.
pub(super) struct HttpFetch {
    client: Client,
    accept: HeaderValue,
    accept_encoding: HeaderValue,
    body_size_limit: u64,
}

impl HttpFetch {
    pub fn new(job: &JobOptions, user_agent: &str) -> Result<Self, OptionsError> {
        let accept = accept_header(&job.scrape_protocols, &job.name_escaping);
        let encoding = if job.enable_compression { "gzip" } else { "identity" };
        Ok(Self {
            client: Client::new(&job.http, user_agent)?,
            accept: HeaderValue::from_str(&accept)
                .map_err(|_| OptionsError::Header("Accept".to_owned()))?,
            accept_encoding: HeaderValue::from_static(encoding),
            body_size_limit: job.body_size_limit,
        })
    }

    async fn get(&self, target: &Target) -> Result<Fetched, ScrapeError> {
        let bytes_max = body_bytes_max(self.body_size_limit) + GZIP_OVERHEAD_BYTES;
        let mut request = Request::get(target.url.clone(), target.timeout, bytes_max);
        request.headers.insert(ACCEPT, self.accept.clone());
        request.headers.insert(ACCEPT_ENCODING, self.accept_encoding.clone());
        let seconds = target.timeout.as_secs_f64().to_string();
        if let Ok(value) = HeaderValue::from_str(&seconds) {
            request.headers.insert("x-prometheus-scrape-timeout-seconds", value);
        }
        let response = self.client.send(request).await.map_err(|err| match err {
            SendError::BodyTooLong(_) => ScrapeError::BodySize,
            _ => ScrapeError::Fetch(format!("Get \"{}\": {err}", target.shown_url)),
        })?;
        if response.status != http::StatusCode::OK {
            let text = format!("server returned HTTP status {}", response.status_text());
            return Err(ScrapeError::Fetch(text));
        }
        let is_gzip = response.header("content-encoding").eq_ignore_ascii_case("gzip");
        if !is_gzip && response.body.len() > body_bytes_max(self.body_size_limit) {
            return Err(ScrapeError::BodySize);
        }
        let content_type = response.header("content-type").to_owned();
        Ok(Fetched { content_type, body: response.body, is_gzip })
    }
}

impl Fetch for HttpFetch {
    fn fetch<'a>(&'a self, target: &'a Target) -> Fetching<'a> {
        Box::pin(self.get(target))
    }
}

/// The `Accept` header: the formats in order of preference, weights counted down from the number
/// of all protocols.
fn accept_header(protocols: &[ScrapeProtocol], escaping: &str) -> String {
    let mut weight = ScrapeProtocol::ALL.len() + 1;
    let mut ranges = Vec::new();
    for protocol in protocols {
        let escapes = matches!(
            protocol,
            ScrapeProtocol::PrometheusText1_0_0 | ScrapeProtocol::OpenMetricsText1_0_0
        );
        let suffix = if escapes { format!(";escaping={escaping}") } else { String::new() };
        ranges.push(format!("{}{suffix};q=0.{weight}", protocol.media_type()));
        weight = weight.saturating_sub(1).max(1);
    }
    ranges.push(format!("*/*;q=0.{weight}"));
    ranges.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_is_that_of_prometheus() {
        use ScrapeProtocol::{
            OpenMetricsText0_0_1, OpenMetricsText1_0_0, PrometheusProto, PrometheusText0_0_4,
            PrometheusText1_0_0,
        };
        let default =
            [OpenMetricsText1_0_0, OpenMetricsText0_0_1, PrometheusText1_0_0, PrometheusText0_0_4];
        assert_eq!(
            accept_header(&default, "allow-utf-8"),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(
            accept_header(&[PrometheusProto, PrometheusText0_0_4], "underscores"),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.4"
        );
    }
}
