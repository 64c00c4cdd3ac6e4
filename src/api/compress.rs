//! Answers packed with gzip for clients that take it.
//!
//! Large ones are packed by the threads for what clients ask: those of the runtime must be free for
//! scrapes. Answers that come in parts are sent as they are.

use std::io::Write as _;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::respond::text;
use super::workers::Workers;
use crate::base::turns;

/// Smaller answers are not worth it.
const BYTES_MIN: u64 = 64;
/// This much is packed in less time than it takes to hand it over.
const BYTES_AT_ONCE_MAX: usize = 8 << 10;
/// How much is packed between two offers to let others go on: a few milliseconds.
const PART_BYTES: usize = 256 << 10;
/// The fast ones are nearly as good for numbers as text.
const LEVEL: Compression = Compression::new(3);

/// The answer, packed when it is worth it and the client takes that.
pub(super) async fn pack(mut response: Response, is_accepted: bool, workers: &Workers) -> Response {
    let vary = HeaderValue::from_static("Accept-Encoding");
    response.headers_mut().append(header::VARY, vary);
    let is_whole = response.body().size_hint().exact().is_some_and(|bytes| BYTES_MIN <= bytes);
    if !is_accepted || !is_whole || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be read");
    };
    let packed = if bytes.len() <= BYTES_AT_ONCE_MAX {
        Some(gzip(&bytes))
    } else {
        let own = bytes.clone();
        workers.run(move || gzip(&own)).await.ok()
    };
    let Some(packed) = packed else { return Response::from_parts(parts, Body::from(bytes)) };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::from(packed))
}

fn gzip(bytes: &Bytes) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), LEVEL);
    for part in bytes.chunks(PART_BYTES) {
        encoder.write_all(part).expect("memory takes every byte");
        turns::pass();
    }
    encoder.finish().expect("memory takes every byte")
}

/// Whether one of the encodings is gzip, and not with a weight of zero.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut names = lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
    names.any(|entry| {
        let (name, weight) = entry.split_once(';').unwrap_or((entry, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight != Some(0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    async fn ask(answer: &str, accepted: &'static str) -> (bool, Vec<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted));
        let response = text(StatusCode::OK, answer.to_owned());
        let response = pack(response, accepts_gzip(&headers), &Workers::default()).await;
        assert_eq!(response.headers()[header::VARY], "Accept-Encoding");
        let is_packed = response.headers().contains_key(header::CONTENT_ENCODING);
        (is_packed, to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn answers_are_packed_for_those_who_take_it() {
        for unpacked in ["abc".repeat(10_000), "x".repeat(100)] {
            for accepted in ["gzip", "deflate, GZIP;q=0.5", "br,gzip"] {
                let (is_packed, body) = ask(&unpacked, accepted).await;
                assert!(is_packed && body.len() < unpacked.len(), "{accepted}");
                let mut text = String::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
                assert!(text == unpacked, "{} bytes", unpacked.len());
            }
            for accepted in ["", "identity", "gzip;q=0", "deflate"] {
                assert_eq!(ask(&unpacked, accepted).await, (false, unpacked.clone().into_bytes()));
            }
        }
        assert_eq!(ask("x", "gzip").await, (false, b"x".to_vec()));
    }
}
