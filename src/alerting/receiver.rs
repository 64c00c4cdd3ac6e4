//! Integrations: how a notification becomes a request to Slack, PagerDuty or a webhook.
//!
//! What an integration sends is rendered from templates. A template that fails never costs the
//! message: texts for people show the error in its place. Secrets are read when they are used and
//! appear in no error.

pub mod pagerduty;
pub mod slack;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value};
use url::Url;

use crate::alerting::pipeline::{Notification, Outcome};
use crate::http_client::{
    self, Authorization, Client, OptionsError, Request, Response, Secret, SendError,
};
use crate::model::labels::Labels;
use crate::template::notification::{Data, Templates};

/// Answers are short; what is longer is no answer.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Of a refusing answer this much is shown.
const SHOWN_BYTES_MAX: usize = 512;
/// Longest wait that a receiver may ask for: it must not silence us for a day.
const RETRY_AFTER_MAX_MS: i64 = 3_600_000;

/// Someone to notify.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// Unique name.
    pub name: String,
    /// Labels by which the API finds it.
    pub labels: Labels,
    /// The ways to reach it; all are used.
    pub integrations: Vec<IntegrationOptions>,
}

/// One way to reach a receiver.
#[derive(Clone, Debug)]
pub struct IntegrationOptions {
    /// Whether it is told of resolved alerts.
    pub send_resolved: bool,
    /// Whether it is told of the end of what it was told of, even if that is muted by then.
    pub resolve_when_muted: bool,
    /// How to connect.
    pub http: http_client::Options,
    /// Longest time for one attempt; `None`: what the flush has left.
    pub timeout: Option<Duration>,
    /// What to send where.
    pub settings: Settings,
}

/// What to send where.
#[derive(Clone, Debug)]
pub enum Settings {
    /// A Slack channel.
    Slack(Box<slack::Options>),
    /// A PagerDuty service.
    PagerDuty(Box<pagerduty::Options>),
    /// Any HTTP endpoint.
    Webhook(Box<webhook::Options>),
}

impl Settings {
    /// Name of the kind, as in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Slack(_) => "slack",
            Self::PagerDuty(_) => "pagerduty",
            Self::Webhook(_) => "webhook",
        }
    }

    /// The templates for people, to be checked when a configuration is loaded.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Slack(slack) => {
                let fields = slack.fields.iter().flat_map(|field| [&field.title, &field.value]);
                let own = [&slack.title, &slack.text, &slack.pretext, &slack.message_text];
                let rest = [&slack.fallback, &slack.footer, &slack.color, &slack.channel];
                own.into_iter().chain(rest).chain(fields).map(String::as_str).collect()
            }
            Self::PagerDuty(pagerduty) => {
                let details = pagerduty.details.values().filter_map(Value::as_str);
                let own = [&pagerduty.description, &pagerduty.severity, &pagerduty.source];
                own.into_iter().map(String::as_str).chain(details).collect()
            }
            Self::Webhook(_) => Vec::new(),
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// For the log; without secrets.
    pub message: String,
    reason: &'static str,
    retry: bool,
    after_ms: Option<i64>,
}

impl Failure {
    fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), reason: "other", retry: false, after_ms: None }
    }

    /// For the pipeline.
    pub fn outcome(&self) -> Outcome {
        if self.retry {
            Outcome::Retry { after_ms: self.after_ms, reason: self.reason }
        } else {
            Outcome::Failed { reason: self.reason }
        }
    }
}

impl From<SendError> for Failure {
    fn from(err: SendError) -> Self {
        let timeout = matches!(err, SendError::Timeout);
        Self {
            message: err.to_string(),
            reason: if timeout { "contextDeadlineExceeded" } else { "other" },
            retry: err.is_temporary(),
            after_ms: None,
        }
    }
}

/// What an integration remembers of its message; or why there is none.
type Sent = Result<BTreeMap<String, String>, Failure>;

/// An integration, ready to send.
#[derive(Debug)]
pub struct Integration {
    options: IntegrationOptions,
    client: Client,
    templates: Arc<Templates>,
}

impl Integration {
    /// Prepares the HTTP client.
    pub fn new(
        options: IntegrationOptions,
        templates: Arc<Templates>,
    ) -> Result<Self, OptionsError> {
        let mut http = options.http.clone();
        if let Settings::Slack(slack) = &options.settings
            && let Some(token) = &slack.app_token
        {
            // In this client's own copy, so that the token goes nowhere else.
            let credentials = Some(token.clone());
            http.authorization = Some(Authorization { scheme: "Bearer".to_owned(), credentials });
            http.basic_auth = None;
            http.oauth2 = None;
        }
        let user_agent = concat!("Alertmanager/0.34.0 Narthex/", env!("CARGO_PKG_VERSION"));
        let client = Client::new(&http, user_agent)?;
        Ok(Self { options, client, templates })
    }

    /// Name of the kind.
    pub fn kind(&self) -> &'static str {
        self.options.settings.kind()
    }

    /// Time for one attempt when the flush has `left`.
    pub fn timeout(&self, left: Duration) -> Duration {
        self.options.timeout.map_or(left, |own| own.min(left))
    }

    /// Sends one notification.
    pub async fn send(&self, notification: &Notification, timeout: Duration) -> Sent {
        let notification = &self.with_route_labels(notification);
        let texts = Texts { templates: &self.templates, notification };
        let post = Post { client: &self.client, timeout };
        match &self.options.settings {
            Settings::Slack(options) => slack::send(options, &texts, &post).await,
            Settings::PagerDuty(options) => pagerduty::send(options, &texts, &post).await,
            Settings::Webhook(options) => webhook::send(options, &texts, &post).await,
        }
    }
}

impl Integration {
    /// Labels of routes are templates too; they see the other data.
    fn with_route_labels(&self, notification: &Notification) -> Notification {
        let texts = Texts { templates: &self.templates, notification };
        let labels = notification.data.route_labels.iter();
        let labels = Labels::from_pairs(labels.map(|(name, value)| (name, texts.shown(value))));
        let mut rendered = notification.clone();
        rendered.data.route_labels = labels;
        rendered
    }
}

/// Renders templates for one notification.
struct Texts<'a> {
    templates: &'a Templates,
    notification: &'a Notification,
}

impl Texts<'_> {
    fn data(&self) -> &Data {
        &self.notification.data
    }

    /// Renders what a machine reads: an error is an error.
    fn exact(&self, template: &str) -> Result<String, Failure> {
        if !template.contains("{{") {
            return Ok(template.to_owned());
        }
        let rendered = self.templates.expand_text(template, self.data(), self.notification.now_ms);
        rendered.map_err(|err| Failure::permanent(err.to_string()))
    }

    /// Renders what people read: an error is shown in its place.
    fn shown(&self, template: &str) -> String {
        self.exact(template).unwrap_or_else(|err| format!("[template error: {}]", err.message))
    }

    /// Renders an ornament (a colour, an icon): on an error there is none.
    fn ornament(&self, template: &str) -> String {
        self.exact(template).unwrap_or_default()
    }

    /// Renders all keys and texts of a tree. A rendered text that is YAML of another kind (a
    /// number, a list …) becomes that.
    fn tree(&self, value: &Value) -> Value {
        match value {
            Value::String(template) => {
                let text = self.shown(template);
                match serde_saphyr::from_str::<Value>(&text) {
                    Ok(Value::String(_) | Value::Null) | Err(_) => Value::String(text),
                    Ok(structure) => structure,
                }
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.tree(item)).collect()),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (self.shown(key), self.tree(value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }
}

/// Posts JSON.
struct Post<'a> {
    client: &'a Client,
    timeout: Duration,
}

impl Post<'_> {
    /// Any status is an answer.
    async fn json(&self, url: &str, body: Vec<u8>) -> Result<Response, Failure> {
        // The address may be a secret: it is not in the message.
        let url = Url::parse(url.trim())
            .map_err(|err| Failure::permanent(format!("parse \"<redacted>\": {err}")))?;
        let mut request = Request::post(url, body.into(), self.timeout, RESPONSE_BYTES_MAX);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self.client.send(request).await?)
    }
}

/// Judges a status: success, worth a retry, or neither. `detail` tells more about a refusal.
fn check(response: &Response, detail: impl FnOnce(&[u8]) -> String) -> Result<(), Failure> {
    let status = response.status;
    if status.is_success() {
        return Ok(());
    }
    let after_ms = retry_after(response.header("retry-after"));
    let reason = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "authError",
        StatusCode::TOO_MANY_REQUESTS => "rateLimited",
        _ if status.is_client_error() => "clientError",
        _ if status.is_server_error() => "serverError",
        _ => "other",
    };
    let detail = detail(&response.body);
    let message = match detail.as_str() {
        "" => format!("unexpected status code {}", status.as_u16()),
        detail => format!("unexpected status code {}: {detail}", status.as_u16()),
    };
    let retry = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    Err(Failure { message, reason, retry, after_ms })
}

/// Seconds to wait; dates are not used by those we talk to.
fn retry_after(header: &str) -> Option<i64> {
    let seconds: i64 = header.trim().parse().ok()?;
    Some(seconds.checked_mul(1_000)?.clamp(0, RETRY_AFTER_MAX_MS))
}

/// The beginning of a body as text.
fn shown_body(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..SHOWN_BYTES_MAX).unwrap_or(body)).trim().to_owned()
}

/// Cuts to `letters_max` letters; the mark of the cut counts.
fn truncate(text: String, letters_max: usize) -> String {
    if text.chars().count() <= letters_max {
        return text;
    }
    let mut cut: String = text.chars().take(letters_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A secret that must be there.
async fn load(secret: &Secret) -> Result<String, Failure> {
    Ok(secret.load().await?)
}

#[cfg(test)]
mod tests;
