//! `POST /otlp/v1/metrics`: metrics of OpenTelemetry.

use std::io::Read;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::{error, warn};

use super::super::Services;
use super::super::respond::text;
use crate::remote::otlp::{Format, WriteError, Written};
use crate::remote::receive::DECODED_BYTES_MAX;
use crate::storage::append::{AppendError, SyncError};

pub(super) async fn metrics(
    State(services): State<Arc<Services>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !services.options.enable_otlp_receiver {
        let hint = "otlp write receiver needs to be enabled with --web.enable-otlp-receiver";
        return text(StatusCode::NOT_FOUND, hint);
    }
    let format = match format(&headers) {
        Ok(format) => format,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let is_zipped = match value(&headers, header::CONTENT_ENCODING) {
        "" => false,
        "gzip" => true,
        other => {
            let reason = format!(
                "unsupported compression: {other}. Only \"gzip\" or no compression supported"
            );
            return text(StatusCode::BAD_REQUEST, reason);
        }
    };
    let work = move || {
        let unzipped =
            if is_zipped { unzip(&body).map_err(Refusal::Unzip)? } else { body.to_vec() };
        let options = Arc::clone(&services.loaded.load().otlp);
        services.otlp.write(&unzipped, format, &options).map_err(Refusal::Write)
    };
    let Written { ticket, limited } = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(written)) => written,
        Ok(Err(refusal)) => return refusal.into_response(),
        Err(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, "unexpected error: panic"),
    };
    let (sender, synced) = tokio::sync::oneshot::channel();
    // Nobody listens when the client has gone away; the batch is kept all the same.
    ticket.on_settled(move |result| drop(sender.send(result)));
    if let Err(err) = synced.await.unwrap_or(Err(SyncError)) {
        error!(error = %err, "OTLP metrics were not acknowledged.");
        return text(StatusCode::INTERNAL_SERVER_ERROR, err.to_string());
    }
    let Some(limited) = limited else { return StatusCode::OK.into_response() };
    warn!(error = %limited, "A part of OTLP metrics was refused.");
    text(StatusCode::BAD_REQUEST, limited.to_string())
}

fn value(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

fn format(headers: &HeaderMap) -> Result<Format, String> {
    match value(headers, header::CONTENT_TYPE) {
        "application/x-protobuf" => Ok(Format::Protobuf),
        "application/json" => Ok(Format::Json),
        other => Err(format!(
            "unsupported content type: {other}, supported: [application/json, application/x-protobuf]"
        )),
    }
}

fn unzip(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(body).take(DECODED_BYTES_MAX as u64 + 1);
    reader.read_to_end(&mut out).map_err(|err| format!("gzip: {err}"))?;
    if DECODED_BYTES_MAX < out.len() {
        return Err(format!("gzip: body exceeds the limit of {DECODED_BYTES_MAX} bytes"));
    }
    Ok(out)
}

enum Refusal {
    Unzip(String),
    Write(WriteError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, reason) = match self {
            Self::Unzip(reason) => (StatusCode::BAD_REQUEST, reason),
            Self::Write(err) => {
                let status = match &err {
                    // Prometheus answers 500 to what cannot be translated, and is sent it for ever.
                    WriteError::Decode(_)
                    | WriteError::Untranslatable(_)
                    | WriteError::Append(AppendError::Rejected(_)) => StatusCode::BAD_REQUEST,
                    WriteError::Append(AppendError::DiskFull) => StatusCode::SERVICE_UNAVAILABLE,
                    WriteError::Append(AppendError::Poisoned | AppendError::Io(_)) => {
                        StatusCode::INTERNAL_SERVER_ERROR
                    }
                };
                (status, err.to_string())
            }
        };
        if status.is_server_error() {
            error!(error = %reason, "OTLP metrics were refused.");
        } else {
            warn!(error = %reason, "OTLP metrics were refused.");
        }
        text(status, reason)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bodies_are_unzipped_up_to_a_limit() {
        let zip = |bytes: &[u8]| {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        };
        assert_eq!(unzip(&zip(b"{}")).as_deref(), Ok(&b"{}"[..]));
        assert!(unzip(b"{}").is_err());
        assert!(unzip(&zip(&vec![0; DECODED_BYTES_MAX + 1])).unwrap_err().contains("limit"));
    }
}
