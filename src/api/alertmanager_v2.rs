//! Alertmanager's API, version 2, as amtool, Grafana, karma and Prometheus use it.
//!
//! Errors that Alertmanager's handlers find are a bare JSON string; those that its request
//! validation finds are `{"code", "message"}`.

mod json;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, RawQuery, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::alerting::Manager;
use crate::alerting::manager::{ChangeError, PutError};
use crate::alerting::matchers::parse_one;
use crate::alerting::pipeline::AlertFilter;
use crate::alerting::silence::{SilenceError, SilenceState};
use crate::model::labels::quote;
use crate::model::matcher::{AnchoredRegex, Matcher};

/// Bytes of a request; the largest batches of alerts are far smaller.
const BODY_BYTES_MAX: usize = 32 << 20;

/// `/alerts`, `/silences` and the rest; to be nested under `…/api/v2`.
pub fn router(manager: Arc<Manager>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/receivers", get(receivers))
        .route("/alerts", get(alerts).post(post_alerts))
        .route("/alerts/groups", get(groups))
        .route("/silences", get(silences).post(post_silence))
        .route("/silence/{id}", get(silence).delete(delete_silence))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(manager)
}

/// The path as seen from here, so without a prefix of the server.
async fn not_found(uri: Uri) -> Refusal {
    Refusal::Validation(404, format!("path /api/v2{} was not found", uri.path()))
}

async fn method_not_allowed(method: Method, path: MatchedPath) -> Response {
    let allowed = match path.as_str() {
        path if path.ends_with("/alerts") || path.ends_with("/silences") => "GET,POST",
        path if path.ends_with("/silence/{id}") => "DELETE,GET",
        _ => "GET",
    };
    let message = format!("method {method} is not allowed, but [{allowed}] are");
    let mut response = Refusal::Validation(405, message).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Bodies must say that they are JSON.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = match kind.split(';').next().unwrap_or("").trim() {
        "" => "application/octet-stream",
        media => media,
    };
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let media = quote(media);
    let message = format!("unsupported media type {media}, only [application/json] are allowed");
    Err(Refusal::Validation(415, message))
}

/// An answer that is no success.
enum Refusal {
    /// A bare string.
    Text(StatusCode, String),
    /// What the request validation says; 6xx codes are sent as 422.
    Validation(u16, String),
    /// Status alone.
    Empty(StatusCode),
}

impl Refusal {
    fn bad_request(text: impl Into<String>) -> Self {
        Self::Text(StatusCode::BAD_REQUEST, text.into())
    }
}

#[derive(Serialize)]
struct ValidationError {
    code: u16,
    message: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Text(status, text) => reply(status, &text),
            Self::Validation(code, message) => {
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
                let status = if code >= 600 { StatusCode::UNPROCESSABLE_ENTITY } else { status };
                reply(status, &ValidationError { code, message })
            }
            Self::Empty(status) => (status, headers()).into_response(),
        }
    }
}

fn headers() -> [(HeaderName, HeaderValue); 2] {
    [
        (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}

fn reply(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("texts and numbers are always JSON");
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, headers(), json, body).into_response()
}

type Answer = Result<Response, Refusal>;

/// Runs what may wait for a lock or the disk.
async fn blocking<T: Send + 'static>(
    manager: Arc<Manager>,
    work: impl FnOnce(&Manager) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(move || work(&manager)).await;
    let failed = |_| Refusal::Text(StatusCode::INTERNAL_SERVER_ERROR, "internal error".to_owned());
    done.map_err(failed)
}

/// The query of a request; parameters may repeat.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(raw: Option<String>) -> Self {
        let raw = raw.unwrap_or_default();
        Self(url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A flag that is true unless told otherwise.
    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.all(name).last() {
            None | Some("" | "true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(Refusal::Validation(
                601,
                format!("{name} in query must be of type boolean: {}", quote(other)),
            )),
        }
    }

    fn matchers(&self, name: &str) -> Result<Vec<Matcher>, Refusal> {
        let parsed = self.all(name).map(parse_one);
        parsed.collect::<Result<_, _>>().map_err(|err| Refusal::bad_request(err.to_string()))
    }

    fn alert_filter(&self) -> Result<AlertFilter, Refusal> {
        self.flag("unprocessed")?;
        let receiver = self.all("receiver").last().map(AnchoredRegex::new).transpose();
        Ok(AlertFilter {
            matchers: self.matchers("filter")?,
            receiver: receiver.map_err(|err| {
                Refusal::bad_request(format!("failed to parse receiver param: {err}"))
            })?,
            receiver_matchers: self.matchers("receiver_matchers")?,
            active: self.flag("active")?,
            silenced: self.flag("silenced")?,
            inhibited: self.flag("inhibited")?,
            muted: self.flag("muted")?,
        })
    }
}

async fn status(State(manager): State<Arc<Manager>>) -> Answer {
    let status = blocking(manager, Manager::status).await?;
    Ok(reply(StatusCode::OK, &json::status(&status)))
}

async fn receivers(State(manager): State<Arc<Manager>>, RawQuery(query): RawQuery) -> Answer {
    let wanted = move |manager: &Manager| {
        let matchers = Query::new(query).matchers("receiver_matchers")?;
        Ok::<_, Refusal>((matchers, manager.receivers()))
    };
    let (matchers, all) = blocking(manager, wanted).await??;
    let passes = |labels| crate::alerting::matchers::all_match(&matchers, labels);
    let shown: Vec<_> =
        all.iter().filter(|(_, labels)| passes(labels)).map(json::receiver).collect();
    Ok(reply(StatusCode::OK, &shown))
}

async fn alerts(State(manager): State<Arc<Manager>>, RawQuery(query): RawQuery) -> Answer {
    let found = |manager: &Manager| Ok(manager.alerts(&Query::new(query).alert_filter()?));
    let views = blocking(manager, found).await??;
    let shown: Vec<_> = views.iter().map(json::alert).collect();
    Ok(reply(StatusCode::OK, &shown))
}

async fn groups(State(manager): State<Arc<Manager>>, RawQuery(query): RawQuery) -> Answer {
    let found = |manager: &Manager| Ok(manager.groups(&Query::new(query).alert_filter()?));
    let views = blocking(manager, found).await??;
    let shown: Vec<_> = views.iter().map(json::group).collect();
    Ok(reply(StatusCode::OK, &shown))
}

async fn post_alerts(
    State(manager): State<Arc<Manager>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    check_content_type(&headers)?;
    let alerts = json::parse_alerts(&body)?;
    match blocking(manager, move |manager| manager.put_alerts(alerts)).await? {
        Ok(()) => Err(Refusal::Empty(StatusCode::OK)),
        Err(err @ PutError::Invalid(_)) => Err(Refusal::bad_request(err.to_string())),
        Err(err @ PutError::State(_)) => {
            Err(Refusal::Text(StatusCode::INTERNAL_SERVER_ERROR, err.to_string()))
        }
    }
}

async fn silences(State(manager): State<Arc<Manager>>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query);
    let states = [
        (SilenceState::Active, query.flag("active")?),
        (SilenceState::Pending, query.flag("pending")?),
        (SilenceState::Expired, query.flag("expired")?),
    ];
    let now_ms = manager.now_ms();
    let found = move |manager: &Manager| Ok(manager.silences(&query.matchers("filter")?));
    let found = blocking(manager, found).await??;
    let shown = found.iter().filter(|silence| states.contains(&(silence.state_at(now_ms), true)));
    let shown: Vec<_> = shown.map(|silence| json::silence(silence, now_ms)).collect();
    Ok(reply(StatusCode::OK, &shown))
}

async fn post_silence(
    State(manager): State<Arc<Manager>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    check_content_type(&headers)?;
    let parse = move |_: &Manager| json::parse_silence(&body);
    let wanted = blocking(Arc::clone(&manager), parse).await??;
    if wanted.starts_at_ms >= wanted.ends_at_ms {
        let text = "Failed to create silence: start time must be before end time";
        return Err(Refusal::bad_request(text));
    }
    if wanted.ends_at_ms < manager.now_ms() {
        let text = "Failed to create silence: end time can't be in the past";
        return Err(Refusal::bad_request(text));
    }
    match blocking(manager, move |manager| manager.set_silence(wanted)).await? {
        Ok(id) => Ok(reply(StatusCode::OK, &json::SilenceId { id })),
        Err(ChangeError::Silence(err @ SilenceError::NotFound)) => {
            Err(Refusal::Text(StatusCode::NOT_FOUND, err.to_string()))
        }
        Err(err @ ChangeError::Silence(_)) => Err(Refusal::bad_request(err.to_string())),
        Err(err @ ChangeError::State(_)) => {
            Err(Refusal::Text(StatusCode::INTERNAL_SERVER_ERROR, err.to_string()))
        }
    }
}

fn check_uuid(id: &str) -> Result<(), Refusal> {
    let groups: Vec<_> = id.split('-').map(str::len).collect();
    let hexadecimal = id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    if groups == [8, 4, 4, 4, 12] && hexadecimal {
        return Ok(());
    }
    let message = format!("silenceID in path must be of type uuid: {}", quote(id));
    Err(Refusal::Validation(601, message))
}

async fn silence(State(manager): State<Arc<Manager>>, Path(id): Path<String>) -> Answer {
    check_uuid(&id)?;
    let now_ms = manager.now_ms();
    match blocking(manager, move |manager| manager.silence(&id)).await? {
        Some(silence) => Ok(reply(StatusCode::OK, &json::silence(&silence, now_ms))),
        None => Err(Refusal::Empty(StatusCode::NOT_FOUND)),
    }
}

async fn delete_silence(State(manager): State<Arc<Manager>>, Path(id): Path<String>) -> Answer {
    check_uuid(&id)?;
    match blocking(manager, move |manager| manager.expire_silence(&id)).await? {
        Ok(()) => Err(Refusal::Empty(StatusCode::OK)),
        Err(ChangeError::Silence(_)) => Err(Refusal::Empty(StatusCode::NOT_FOUND)),
        Err(err @ ChangeError::State(_)) => {
            Err(Refusal::Text(StatusCode::INTERNAL_SERVER_ERROR, err.to_string()))
        }
    }
}

#[cfg(test)]
mod tests;
