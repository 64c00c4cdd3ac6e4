//! `POST /read`: remote read, as samples in one message or as a stream of chunks.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::error;

use super::super::respond::text;
use super::super::{Services, with_external_labels};
use crate::base::turns;
use crate::encoding::wire::remote_read::{
    ReadQuery, ReadRequest, ResponseType, SampleRun, frames, put_result, put_series,
};
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::remote::receive::decompress;
use crate::storage::select::{
    BLOCK_SERIES_MAX, Column, Select, SelectHints, Selection, SeriesColumns,
};

/// Frames that wait for a slow reader.
const FRAMES_AHEAD: usize = 4;

/// Why there is no answer.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad_request(reason: impl ToString) -> Self {
        Self(StatusCode::BAD_REQUEST, reason.to_string())
    }

    fn internal(reason: impl ToString) -> Self {
        let reason = reason.to_string();
        error!(error = %reason, "Remote read failed.");
        Self(StatusCode::INTERNAL_SERVER_ERROR, reason)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        text(self.0, self.1)
    }
}

pub(super) async fn read(State(services): State<Arc<Services>>, body: Bytes) -> Response {
    let Ok(place) = Arc::clone(&services.reads).acquire_owned().await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "remote read is closed");
    };
    let external = Arc::clone(&services.loaded.load());
    let decode = move || {
        let body = decompress(&body).map_err(Refusal::bad_request)?;
        let mut request = ReadRequest::decode(&body).map_err(Refusal::bad_request)?;
        let external = &external.external_labels;
        request.queries.iter_mut().for_each(|query| without_external(query, external));
        Ok(request)
    };
    let request: ReadRequest = match services.workers.run(decode).await {
        Ok(Ok(request)) => request,
        Ok(Err(refusal)) => return Refusal::into_response(refusal),
        Err(_) => return Refusal::internal("unexpected error: panic").into_response(),
    };
    match request.response_type() {
        None => {
            let accepted = request.accepted;
            let reason = format!(
                "server does not support any of the requested response types: {accepted:?}; \
                 supported: [SAMPLES STREAMED_XOR_CHUNKS]"
            );
            Refusal::bad_request(reason).into_response()
        }
        Some(ResponseType::Samples) => {
            let workers = services.workers.clone();
            let work = move || {
                let _place = place;
                whole(&services, &request)
            };
            match workers.run(work).await {
                Ok(Ok(body)) => {
                    let kind = (header::CONTENT_TYPE, "application/x-protobuf");
                    ([kind, (header::CONTENT_ENCODING, "snappy")], body).into_response()
                }
                Ok(Err(refusal)) => refusal.into_response(),
                Err(err) => Refusal::internal(err).into_response(),
            }
        }
        Some(ResponseType::StreamedChunks) => {
            let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
            // When the reader goes away, the next frame finds nobody and the work ends.
            let workers = services.workers.clone();
            let started = workers.start(move || {
                let _place = place;
                stream_all(&services, &request, &sender);
            });
            match started {
                Ok(()) => streamed(frames).await,
                Err(err) => Refusal::internal(err).into_response(),
            }
        }
    }
}

/// A matcher for an external label of this server wants what no stored series bears.
fn without_external(query: &mut ReadQuery, external: &Labels) {
    for matcher in &mut query.matchers {
        let value = external.get(matcher.name()).unwrap_or("");
        if matcher.op() == MatchOp::Equal && matcher.value() == value {
            *matcher = Matcher::equal(matcher.name(), "");
        }
    }
}

fn select(services: &Services, query: &ReadQuery) -> Result<Selection, Refusal> {
    let hints = SelectHints::default();
    services.store.select(&query.matchers, query.range, &hints).map_err(Refusal::internal)
}

/// Calls `take` for each series that has samples, until it says that nobody wants more.
fn for_each_series(
    services: &Services,
    query: &ReadQuery,
    mut take: impl FnMut(&Labels, &SeriesColumns) -> Result<bool, Refusal>,
) -> Result<(), Refusal> {
    let external = services.loaded.load().external_labels.clone();
    let selection = select(services, query)?;
    for first in (0..selection.len()).step_by(BLOCK_SERIES_MAX) {
        let count = BLOCK_SERIES_MAX.min(selection.len() - first);
        let block = selection.block(first as u32, count).map_err(Refusal::internal)?;
        let all = selection.block_labels(first as u32, count).map_err(Refusal::internal)?;
        for (labels, columns) in all.iter().zip(&block.series) {
            if columns.runs.iter().all(|run| run.timestamps_ms.is_empty()) {
                continue;
            }
            if !take(&with_external_labels(labels, &external), columns)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn sample_runs(columns: &SeriesColumns) -> Vec<SampleRun<'_>> {
    columns
        .runs
        .iter()
        .map(|run| match &run.values {
            Column::Floats(values) => SampleRun::Floats(&run.timestamps_ms, values),
            Column::Histograms(values) => SampleRun::Histograms(&run.timestamps_ms, values),
        })
        .collect()
}

/// All samples as one compressed message.
fn whole(services: &Services, request: &ReadRequest) -> Result<Vec<u8>, Refusal> {
    let samples_max = services.options.read_limits.samples;
    let mut message = Vec::new();
    for query in &request.queries {
        let mut sample_count = 0;
        let mut result = Ok(());
        put_result(&mut message, |out| {
            result = for_each_series(services, query, |labels, columns| {
                sample_count +=
                    columns.runs.iter().map(|run| run.timestamps_ms.len()).sum::<usize>();
                if samples_max != 0 && samples_max < sample_count {
                    let reason = format!("exceeded sample limit ({samples_max})");
                    return Err(Refusal::bad_request(reason));
                }
                put_series(out, labels, &sample_runs(columns));
                Ok(true)
            });
        });
        result?;
    }
    snap::raw::Encoder::new().compress_vec(&message).map_err(Refusal::internal)
}

type Frame = Result<Vec<u8>, Refusal>;

/// Waits until there is room; false when nobody reads any longer. A slow reader keeps no turn.
fn send(sender: &mpsc::Sender<Frame>, frame: Frame) -> bool {
    match sender.try_send(frame) {
        Ok(()) => true,
        Err(TrySendError::Full(frame)) => turns::aside(|| sender.blocking_send(frame)).is_ok(),
        Err(TrySendError::Closed(_)) => false,
    }
}

fn stream_all(services: &Services, request: &ReadRequest, sender: &mpsc::Sender<Frame>) {
    let frame_bytes_max = services.options.read_limits.frame_bytes;
    for (index, query) in request.queries.iter().enumerate() {
        let done = for_each_series(services, query, |labels, columns| {
            let frames = frames(index, labels, &sample_runs(columns), frame_bytes_max);
            turns::pass();
            Ok(frames.into_iter().all(|frame| send(sender, Ok(frame))))
        });
        if let Err(refusal) = done {
            send(sender, Err(refusal));
            return;
        }
    }
}

/// What goes wrong before the first frame still has a status; later the stream just breaks off.
async fn streamed(mut frames: mpsc::Receiver<Frame>) -> Response {
    let first = match frames.recv().await {
        Some(Err(refusal)) => return refusal.into_response(),
        Some(Ok(frame)) => Some(frame),
        None => None,
    };
    let rest = stream::unfold((first, frames), |(first, mut frames)| async {
        let next = match first {
            Some(frame) => Some(Ok(frame)),
            None => frames.recv().await,
        };
        let item = next?.map_err(|refusal| std::io::Error::other(refusal.1));
        Some((item, (None, frames)))
    });
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(rest)).into_response()
}
