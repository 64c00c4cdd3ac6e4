//! Answers of the Prometheus API: the JSON envelope and the mapping of errors to status codes.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::workers::JobError;
use crate::promql::engine::QueryError;

/// Warnings (and infos) that one answer carries; the rest is summed up in one more entry.
const ANNOTATIONS_MAX: usize = 10;

/// What went wrong, by Prometheus' `errorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// The request is at fault: 400.
    BadData,
    /// The query cannot be evaluated: 422.
    Execution,
    /// The client or an operator ended the query: 499.
    Canceled,
    /// The query took too long: 503.
    Timeout,
    /// We are at fault: 500.
    Internal,
    /// No such thing: 404.
    NotFound,
    /// Switched off: 500, as in Prometheus.
    Unavailable,
}

impl ErrorType {
    fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
        }
    }

    /// The code of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Canceled => StatusCode::from_u16(499).expect("499 is a status code"),
            Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

/// An error answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct ApiError {
    /// Kind.
    pub kind: ErrorType,
    /// Text for the client.
    pub text: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(kind: ErrorType, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// The request is at fault.
    pub fn bad_data(text: impl Into<String>) -> Self {
        Self::new(ErrorType::BadData, text)
    }

    /// `invalid parameter "name": reason`
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {reason}"))
    }
}

impl From<QueryError> for ApiError {
    fn from(err: QueryError) -> Self {
        let kind = match &err {
            QueryError::Parse(_) => return Self::parameter("query", err),
            QueryError::Execution(_) => ErrorType::Execution,
            // Both are 503: try again later.
            QueryError::Timeout(_) | QueryError::Busy(_) | QueryError::Hurried => {
                ErrorType::Timeout
            }
            QueryError::Canceled(_) => ErrorType::Canceled,
            QueryError::Storage(_) => ErrorType::Internal,
        };
        Self::new(kind, err.to_string())
    }
}

impl From<JobError> for ApiError {
    fn from(err: JobError) -> Self {
        let kind = match err {
            JobError::Full => ErrorType::Timeout,
            JobError::Panic => ErrorType::Internal,
        };
        Self::new(kind, err.to_string())
    }
}

impl From<crate::storage::select::QueryError> for ApiError {
    fn from(err: crate::storage::select::QueryError) -> Self {
        Self::new(ErrorType::Internal, err.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = self.kind.as_str();
        let body = json!({ "status": "error", "errorType": kind, "error": self.text }).to_string();
        (self.kind.status(), json_headers(), body).into_response()
    }
}

/// How a successful answer begins.
const BEGIN: &[u8] = b"{\"status\":\"success\",\"data\":";

/// A successful answer. Answers may be large: the text is put together by whoever makes one, not
/// by the thread that sends it.
#[derive(Debug)]
pub struct Success {
    /// The whole text but for the last brace.
    body: Vec<u8>,
}

impl Success {
    /// With `data` as JSON.
    pub fn of(data: &impl Serialize) -> Self {
        Self::written(1024, |body| {
            serde_json::to_writer(body, data).expect("answers have string keys only");
        })
    }

    /// With data that `write` appends as JSON, about so many bytes.
    pub fn written(bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut body = Vec::with_capacity(BEGIN.len() + bytes + 64);
        body.extend_from_slice(BEGIN);
        write(&mut body);
        Self { body }
    }

    /// Adds notes on the answer; surplus ones are counted only.
    pub fn with_annotations(mut self, warnings: Vec<String>, infos: Vec<String>) -> Self {
        for (name, texts) in [("warnings", cap(warnings, "warning")), ("infos", cap(infos, "info"))]
        {
            if !texts.is_empty() {
                let notes = format!(",\"{name}\":{}", json!(texts));
                self.body.extend_from_slice(notes.as_bytes());
            }
        }
        self
    }
}

fn cap(mut texts: Vec<String>, kind: &str) -> Vec<String> {
    if texts.len() > ANNOTATIONS_MAX {
        let surplus = texts.len() - ANNOTATIONS_MAX;
        texts.truncate(ANNOTATIONS_MAX);
        texts.push(format!("{surplus} more {kind} annotations omitted"));
    }
    texts
}

impl IntoResponse for Success {
    fn into_response(mut self) -> Response {
        self.body.push(b'}');
        (json_headers(), self.body).into_response()
    }
}

/// What most handlers give.
pub type ApiResult = Result<Success, ApiError>;

fn json_headers() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]
}

/// A plain text answer.
pub fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(header::CONTENT_TYPE, plain)], body.into()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_stand_in_their_envelope() {
        let text = async |response: Response| {
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        let plain = Success::of(&[1, 2]).into_response();
        assert_eq!(text(plain).await, r#"{"status":"success","data":[1,2]}"#);
        let noted = Success::written(2, |body| body.extend_from_slice(b"{}"))
            .with_annotations(vec!["a \"b\"".to_owned()], vec!["c".to_owned()]);
        assert_eq!(
            text(noted.into_response()).await,
            r#"{"status":"success","data":{},"warnings":["a \"b\""],"infos":["c"]}"#
        );
        let refused = ApiError::parameter("x", "\"y\"").into_response();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        let told: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
        assert_eq!(told["errorType"], "bad_data");
        assert_eq!(told["error"], "invalid parameter \"x\": \"y\"");
    }

    #[test]
    fn surplus_annotations_are_counted() {
        let texts = (0..12).map(|n| n.to_string()).collect();
        let capped = cap(texts, "warning");
        assert_eq!(capped.len(), 11);
        assert_eq!(capped[10], "2 more warning annotations omitted");
    }
}
