//! `POST /write`: remote write 1.0 and 2.0.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::super::Services;
use super::super::respond::text;
use crate::remote::receive::{Receiver, Version, WriteError, Written};
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
    let version = match check_headers(&headers) {
        Ok(version) => version,
        Err(reason) => return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason),
    };
    let (written, synced) = match store(&services.receiver, body, version).await {
        Ok(Ok(result)) => result,
        Ok(Err(err)) => return with_counts(version, [0; 3], refused(&err)),
        Err(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, "unexpected error: panic"),
    };
    let Written { sample_count, histogram_count, exemplar_count, refused, .. } = written;
    if let Err(err) = synced {
        error!(error = %err, "Remote write was not acknowledged.");
        let answer = text(StatusCode::INTERNAL_SERVER_ERROR, err.to_string());
        return with_counts(version, [0; 3], answer);
    }
    let answer = match refused.text() {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(reasons) => {
            warn!(error = %reasons, "A part of a remote write was refused.");
            text(StatusCode::BAD_REQUEST, reasons)
        }
    };
    with_counts(version, [sample_count, histogram_count, exemplar_count], answer)
}

/// Commits a request and waits for the disk. The sync is asked for where the commit was made, so
/// that nobody need be woken in between. An error of the outer kind means a panic.
async fn store(
    receiver: &Receiver,
    body: Bytes,
    version: Version,
) -> Result<Result<(Written, Result<(), SyncError>), WriteError>, oneshot::error::RecvError> {
    let permit = receiver.permit().await;
    let (sender, stored) = oneshot::channel();
    let receiver = receiver.clone();
    tokio::task::spawn_blocking(move || {
        let result = receiver.write(&body, version);
        drop(permit);
        // Nobody listens when the client has gone away; the batch is kept all the same.
        match result {
            Ok(written) => {
                let ticket = written.ticket.clone();
                ticket.on_settled(move |synced| drop(sender.send(Ok((written, synced)))));
            }
            Err(err) => drop(sender.send(Err(err))),
        }
    });
    stored.await
}

/// Adds the headers of version 2.0 that tell what was stored: samples, histograms, exemplars.
fn with_counts(version: Version, counts: [u64; 3], answer: Response) -> Response {
    if version == Version::One {
        return answer;
    }
    let [samples, histograms, exemplars] = counts.map(|count| count.to_string());
    let headers = [
        ("x-prometheus-remote-write-samples-written", samples),
        ("x-prometheus-remote-write-histograms-written", histograms),
        ("x-prometheus-remote-write-exemplars-written", exemplars),
    ];
    (headers, answer).into_response()
}

fn refused(err: &WriteError) -> Response {
    let status = match err {
        WriteError::Compression(_)
        | WriteError::Decode(_)
        | WriteError::Histogram(_)
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

/// Either version of the message in a snappy block; both headers may be left out.
fn check_headers(headers: &HeaderMap) -> Result<Version, String> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (content_type, encoding) = (value(header::CONTENT_TYPE), value(header::CONTENT_ENCODING));
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or("");
    if !media.is_empty() && media != "application/x-protobuf" {
        return Err(format!(
            "expected application/x-protobuf as the first (media) part, got {content_type} content-type"
        ));
    }
    let version = match parts.find_map(|part| part.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Version::One,
        Some("io.prometheus.write.v2.Request") => Version::Two,
        Some(message) => {
            return Err(format!(
                "got {content_type} content type; unknown type for remote write protobuf message {message}, supported: prometheus.WriteRequest, io.prometheus.write.v2.Request"
            ));
        }
    };
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(format!(
            "{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_in_snappy_are_taken() {
        let check = |content_type: &'static str, encoding: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            check_headers(&headers).ok()
        };
        let media = "application/x-protobuf";
        assert_eq!(check_headers(&HeaderMap::new()), Ok(Version::One));
        assert_eq!(check(media, "snappy"), Some(Version::One));
        let one = "application/x-protobuf;proto=prometheus.WriteRequest";
        assert_eq!(check(one, "Snappy"), Some(Version::One));
        let two = "application/x-protobuf; proto=io.prometheus.write.v2.Request";
        assert_eq!(check(two, "snappy"), Some(Version::Two));
        assert_eq!(check("application/x-protobuf;proto=other", "snappy"), None);
        assert_eq!(check("text/plain", "snappy"), None);
        assert_eq!(check(media, "zstd"), None);
    }

    #[test]
    fn only_version_two_is_told_what_was_stored() {
        let counts = |version| {
            let answer = with_counts(version, [1, 2, 3], StatusCode::NO_CONTENT.into_response());
            let kinds = ["samples", "histograms", "exemplars"];
            kinds.map(|kind| {
                let own = answer.headers().get(format!("x-prometheus-remote-write-{kind}-written"));
                own.map(|own| own.to_str().unwrap().to_owned())
            })
        };
        assert_eq!(counts(Version::One), [None, None, None]);
        assert_eq!(counts(Version::Two), ["1", "2", "3"].map(|own| Some(own.to_owned())));
    }
}
