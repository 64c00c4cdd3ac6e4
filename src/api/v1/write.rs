//! `POST /write`: remote write 1.0.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::{error, warn};

use super::super::Services;
use super::super::respond::text;
use crate::remote::receive::WriteError;
use crate::storage::append::{AppendError, SyncError};

pub(super) async fn write(
    State(services): State<Arc<Services>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !services.options.enable_remote_write_receiver {
        let hint =
            "remote write receiver needs to be enabled with --web.enable-remote-write-receiver";
        return text(StatusCode::NOT_FOUND, hint);
    }
    if let Err(reason) = check_headers(&headers) {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    }
    let receiver = services.receiver.clone();
    let Ok(result) = tokio::task::spawn_blocking(move || receiver.write(&body)).await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "unexpected error: panic");
    };
    let written = match result {
        Ok(written) => written,
        Err(err) => return refused(&err),
    };
    let (sender, synced) = tokio::sync::oneshot::channel();
    // Nobody listens when the client has gone away; the batch is kept all the same.
    written.ticket.on_settled(move |result| drop(sender.send(result)));
    if let Err(err) = synced.await.unwrap_or(Err(SyncError)) {
        error!(error = %err, "Remote write was not acknowledged.");
        return text(StatusCode::INTERNAL_SERVER_ERROR, err.to_string());
    }
    // The headers of remote write 2.0 tell what was stored: a sender of native histograms or
    // exemplars can see that these were not.
    let counts = [
        ("x-prometheus-remote-write-samples-written", written.sample_count.to_string()),
        ("x-prometheus-remote-write-histograms-written", "0".to_owned()),
        ("x-prometheus-remote-write-exemplars-written", "0".to_owned()),
    ];
    match written.limited {
        None => (StatusCode::NO_CONTENT, counts).into_response(),
        Some(limited) => {
            (counts, text(StatusCode::BAD_REQUEST, limited.to_string())).into_response()
        }
    }
}

fn refused(err: &WriteError) -> Response {
    let status = match err {
        WriteError::Compression(_)
        | WriteError::Decode(_)
        | WriteError::Append(AppendError::Rejected(_)) => StatusCode::BAD_REQUEST,
        WriteError::Append(AppendError::DiskFull) => StatusCode::SERVICE_UNAVAILABLE,
        WriteError::Append(AppendError::Poisoned | AppendError::Io(_)) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    if status.is_server_error() {
        error!(error = %err, "Remote write was refused.");
    } else {
        warn!(error = %err, "Remote write was refused.");
    }
    text(status, err.to_string())
}

/// Version 1 of the message in a snappy block; both headers may be left out.
fn check_headers(headers: &HeaderMap) -> Result<(), String> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (content_type, encoding) = (value(header::CONTENT_TYPE), value(header::CONTENT_ENCODING));
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or("");
    if !media.is_empty() && media != "application/x-protobuf" {
        return Err(format!(
            "expected application/x-protobuf as the first (media) part, got {content_type} content-type"
        ));
    }
    let message = parts.find_map(|part| part.strip_prefix("proto="));
    if let Some(message) = message.filter(|message| *message != "prometheus.WriteRequest") {
        return Err(format!(
            "{message} protobuf message is not accepted by this server; only accepts prometheus.WriteRequest"
        ));
    }
    if !encoding.is_empty() && encoding != "snappy" {
        return Err(format!(
            "{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_one_in_snappy_is_taken() {
        let check = |content_type: &'static str, encoding: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            check_headers(&headers).is_ok()
        };
        assert!(check_headers(&HeaderMap::new()).is_ok());
        assert!(check("application/x-protobuf", "snappy"));
        assert!(check("application/x-protobuf;proto=prometheus.WriteRequest", "snappy"));
        assert!(!check("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy"));
        assert!(!check("text/plain", "snappy"));
        assert!(!check("application/x-protobuf", "zstd"));
    }
}
