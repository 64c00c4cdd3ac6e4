//! Remote read: the messages `prometheus.ReadRequest`, `ReadResponse` and `ChunkedReadResponse`.

use super::chunk::{CHUNK_SAMPLES, ChunkEncoding, float_histogram, xor};
use super::protobuf::{
    Message, WireError, push_varint, put_bytes, put_double, put_double_always, put_doubles,
    put_int, put_message, put_uint, put_zigzag, read_varints,
};
use crate::model::histogram::{Histogram, ResetHint, Span};
use crate::model::labels::Labels;
use crate::model::matcher::{CompileAllowance, MatchOp, Matcher};
use crate::model::regexp::RegexError;
use crate::model::sample::TimeRange;

/// Queries of one request; senders put one or a few.
pub const QUERIES_MAX: usize = 1000;
/// Matchers of one query.
pub const MATCHERS_MAX: usize = 1000;

/// Why bytes are no read request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A matcher's expression is none.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// An operator that does not exist.
    #[error("invalid matcher type")]
    MatcherType,
    /// See [`QUERIES_MAX`] and [`MATCHERS_MAX`].
    #[error("request has more than {QUERIES_MAX} queries or {MATCHERS_MAX} matchers in one")]
    TooMany,
}

/// How samples may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// One message with all samples.
    Samples,
    /// A stream of messages with chunks.
    StreamedChunks,
}

/// One query.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    /// From when to when.
    pub range: TimeRange,
    /// Which series.
    pub matchers: Vec<Matcher>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// What is wanted, answered in this order.
    pub queries: Vec<ReadQuery>,
    /// What the sender understands, best first; numbers of types that may be unknown here.
    pub accepted: Vec<u64>,
}

impl ReadRequest {
    /// Reads an uncompressed body; compiles what it holds, so not on a thread that others wait for.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (mut queries, mut accepted) = (Vec::new(), Vec::new());
        let mut allowance = CompileAllowance::default();
        let mut message = Message::new(body);
        while let Some((field, value)) = message.field()? {
            match field {
                1 if queries.len() == QUERIES_MAX => return Err(DecodeError::TooMany),
                1 => queries.push(read_query(value.message(field)?, &mut allowance)?),
                2 => read_varints(value, field, &mut accepted)?,
                _ => {}
            }
        }
        Ok(Self { queries, accepted })
    }

    /// The first accepted type that is known here; samples when the sender says nothing.
    pub fn response_type(&self) -> Option<ResponseType> {
        if self.accepted.is_empty() {
            return Some(ResponseType::Samples);
        }
        self.accepted.iter().find_map(|number| match number {
            0 => Some(ResponseType::Samples),
            1 => Some(ResponseType::StreamedChunks),
            _ => None,
        })
    }
}

fn read_query(
    mut message: Message<'_>,
    allowance: &mut CompileAllowance,
) -> Result<ReadQuery, DecodeError> {
    let mut query = ReadQuery { range: TimeRange { min_ms: 0, max_ms: 0 }, matchers: Vec::new() };
    while let Some((field, value)) = message.field()? {
        match field {
            1 => query.range.min_ms = value.varint(field)? as i64,
            2 => query.range.max_ms = value.varint(field)? as i64,
            3 if query.matchers.len() == MATCHERS_MAX => return Err(DecodeError::TooMany),
            3 => query.matchers.push(read_matcher(value.message(field)?, allowance)?),
            _ => {}
        }
    }
    Ok(query)
}

fn read_matcher(
    mut message: Message<'_>,
    allowance: &mut CompileAllowance,
) -> Result<Matcher, DecodeError> {
    let (mut op, mut name, mut text) = (0, "", "");
    while let Some((field, value)) = message.field()? {
        match field {
            1 => op = value.varint(field)?,
            2 => name = value.text(field)?,
            3 => text = value.text(field)?,
            _ => {}
        }
    }
    let op = match op {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        _ => return Err(DecodeError::MatcherType),
    };
    Ok(Matcher::within(op, name, text, allowance)?)
}

/// Samples of one series and one kind, as the store hands them out.
#[derive(Clone, Copy, Debug)]
pub enum SampleRun<'a> {
    /// Floats.
    Floats(&'a [i64], &'a [f64]),
    /// Native histograms.
    Histograms(&'a [i64], &'a [std::sync::Arc<Histogram>]),
}

fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (name, value) in labels.iter() {
        put_message(out, 1, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_bytes(out, 2, value.as_bytes());
        });
    }
}

/// Appends the result of one query to a `ReadResponse`; `write` appends its series.
pub fn put_result(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, 1, write);
}

/// Appends a series to the result of a query.
pub fn put_series(out: &mut Vec<u8>, labels: &Labels, runs: &[SampleRun<'_>]) {
    put_message(out, 1, |out| {
        put_labels(out, labels);
        for run in runs {
            match run {
                SampleRun::Floats(timestamps_ms, values) => {
                    for (timestamp_ms, value) in timestamps_ms.iter().zip(*values) {
                        put_message(out, 2, |out| {
                            put_double(out, 1, *value);
                            put_int(out, 2, *timestamp_ms);
                        });
                    }
                }
                SampleRun::Histograms(timestamps_ms, values) => {
                    for (timestamp_ms, histogram) in timestamps_ms.iter().zip(*values) {
                        put_message(out, 4, |out| put_histogram(out, *timestamp_ms, histogram));
                    }
                }
            }
        }
    });
}

/// `prometheus.Histogram` with float counts.
fn put_histogram(out: &mut Vec<u8>, timestamp_ms: i64, histogram: &Histogram) {
    put_double_always(out, 2, histogram.count);
    put_double(out, 3, histogram.sum);
    put_zigzag(out, 4, i64::from(histogram.schema));
    put_double(out, 5, histogram.zero_threshold);
    put_double_always(out, 7, histogram.zero_count);
    put_spans(out, 8, &histogram.negative_spans);
    put_doubles(out, 10, &histogram.negative_buckets);
    put_spans(out, 11, &histogram.positive_spans);
    put_doubles(out, 13, &histogram.positive_buckets);
    let hint = match histogram.reset_hint {
        ResetHint::Unknown => 0,
        ResetHint::CounterReset => 1,
        ResetHint::NotCounterReset => 2,
        ResetHint::Gauge => 3,
    };
    put_uint(out, 14, hint);
    put_int(out, 15, timestamp_ms);
    put_doubles(out, 16, &histogram.custom_bounds);
}

fn put_spans(out: &mut Vec<u8>, field: u64, spans: &[Span]) {
    for Span { offset, length } in spans {
        put_message(out, field, |out| {
            put_zigzag(out, 1, i64::from(*offset));
            put_uint(out, 2, u64::from(*length));
        });
    }
}

/// The frames of one series in a streamed answer: each has at most one series and, but for its
/// last chunk, at most `frame_bytes_max`.
pub fn frames(
    query_index: usize,
    labels: &Labels,
    runs: &[SampleRun<'_>],
    frame_bytes_max: usize,
) -> Vec<Vec<u8>> {
    let mut head = Vec::new();
    put_labels(&mut head, labels);
    let room = frame_bytes_max.saturating_sub(head.len());
    let (mut frames, mut chunks) = (Vec::new(), Vec::new());
    for run in runs {
        for_each_chunk(*run, |timestamps_ms, encoding, data| {
            let (Some(first_ms), Some(last_ms)) = (timestamps_ms.first(), timestamps_ms.last())
            else {
                return;
            };
            put_message(&mut chunks, 2, |out| {
                put_int(out, 1, *first_ms);
                put_int(out, 2, *last_ms);
                put_uint(out, 3, encoding as u64);
                put_bytes(out, 4, &data);
            });
            if room <= chunks.len() {
                frames.push(frame(query_index, &head, &chunks));
                chunks.clear();
            }
        });
    }
    if !chunks.is_empty() {
        frames.push(frame(query_index, &head, &chunks));
    }
    frames
}

fn for_each_chunk(run: SampleRun<'_>, mut take: impl FnMut(&[i64], ChunkEncoding, Vec<u8>)) {
    match run {
        SampleRun::Floats(timestamps_ms, values) => {
            let parts = timestamps_ms.chunks(CHUNK_SAMPLES).zip(values.chunks(CHUNK_SAMPLES));
            for (timestamps_ms, values) in parts {
                let samples = timestamps_ms.iter().copied().zip(values.iter().copied());
                take(timestamps_ms, ChunkEncoding::Xor, xor(samples));
            }
        }
        SampleRun::Histograms(timestamps_ms, values) => {
            for (timestamp_ms, histogram) in timestamps_ms.iter().zip(values) {
                let data = float_histogram(*timestamp_ms, histogram);
                take(&[*timestamp_ms], ChunkEncoding::FloatHistogram, data);
            }
        }
    }
}

/// Length, checksum and message.
fn frame(query_index: usize, labels: &[u8], chunks: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(labels.len() + chunks.len() + 16);
    put_message(&mut message, 1, |out| {
        out.extend_from_slice(labels);
        out.extend_from_slice(chunks);
    });
    put_uint(&mut message, 2, query_index as u64);
    let mut frame = Vec::with_capacity(message.len() + 14);
    push_varint(&mut frame, message.len() as u64);
    frame.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
    frame.append(&mut message);
    frame
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstMatcher {
        #[prost(int32, tag = "1")]
        op: i32,
        #[prost(string, tag = "2")]
        name: String,
        #[prost(string, tag = "3")]
        value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstQuery {
        #[prost(int64, tag = "1")]
        start_ms: i64,
        #[prost(int64, tag = "2")]
        end_ms: i64,
        #[prost(message, repeated, tag = "3")]
        matchers: Vec<ProstMatcher>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstRequest {
        #[prost(message, repeated, tag = "1")]
        queries: Vec<ProstQuery>,
        #[prost(int32, repeated, tag = "2")]
        accepted: Vec<i32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstLabel {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstSample {
        #[prost(double, tag = "1")]
        value: f64,
        #[prost(int64, tag = "2")]
        timestamp_ms: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstHistogram {
        #[prost(double, optional, tag = "2")]
        count: Option<f64>,
        #[prost(sint32, tag = "4")]
        schema: i32,
        #[prost(double, repeated, tag = "13")]
        positive_counts: Vec<f64>,
        #[prost(int64, tag = "15")]
        timestamp_ms: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstChunk {
        #[prost(int64, tag = "1")]
        min_ms: i64,
        #[prost(int64, tag = "2")]
        max_ms: i64,
        #[prost(int32, tag = "3")]
        encoding: i32,
        #[prost(bytes = "vec", tag = "4")]
        data: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<ProstLabel>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<ProstSample>,
        #[prost(message, repeated, tag = "4")]
        histograms: Vec<ProstHistogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstResult {
        #[prost(message, repeated, tag = "1")]
        series: Vec<ProstSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstChunkedSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<ProstLabel>,
        #[prost(message, repeated, tag = "2")]
        chunks: Vec<ProstChunk>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstFrame {
        #[prost(message, repeated, tag = "1")]
        series: Vec<ProstChunkedSeries>,
        #[prost(int64, tag = "2")]
        query_index: i64,
    }

    fn matcher(op: i32, value: &str) -> ProstMatcher {
        ProstMatcher { op, name: "job".to_owned(), value: value.to_owned() }
    }

    #[test]
    fn requests_are_read() {
        let matchers = vec![matcher(0, "a"), matcher(3, "b.*")];
        let query = ProstQuery { start_ms: -5, end_ms: 10, matchers };
        let request = ProstRequest { queries: vec![query], accepted: vec![7, 1, 0] };
        let read = ReadRequest::decode(&request.encode_to_vec()).unwrap();
        assert_eq!(read.queries[0].range, TimeRange { min_ms: -5, max_ms: 10 });
        let shown: Vec<_> = read.queries[0].matchers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["job=\"a\"", "job!~\"b.*\""]);
        assert_eq!(read.response_type(), Some(ResponseType::StreamedChunks));
        let said = |accepted| ReadRequest { queries: Vec::new(), accepted }.response_type();
        assert_eq!(said(vec![]), Some(ResponseType::Samples));
        assert_eq!(said(vec![9]), None);
        for bad in [matcher(2, "("), matcher(4, "")] {
            let query = ProstQuery { matchers: vec![bad], ..ProstQuery::default() };
            let request = ProstRequest { queries: vec![query], accepted: vec![] };
            assert!(ReadRequest::decode(&request.encode_to_vec()).is_err());
        }
    }

    fn histogram() -> Arc<Histogram> {
        Arc::new(Histogram {
            schema: -2,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![3.0],
            ..Histogram::default()
        })
    }

    #[test]
    fn answers_hold_all_samples() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let histograms = [histogram()];
        let runs =
            [SampleRun::Floats(&[0, 5], &[1.0, 0.0]), SampleRun::Histograms(&[9], &histograms)];
        let mut out = Vec::new();
        put_result(&mut out, |out| put_series(out, &labels, &runs));
        // A response is a result in field 1, like a result is a series in field 1.
        let response = ProstOuter::decode(&*out).unwrap();
        let series = &response.results[0].series[0];
        assert_eq!(series.labels[1].value, "a");
        let samples: Vec<_> = series.samples.iter().map(|s| (s.timestamp_ms, s.value)).collect();
        assert_eq!(samples, [(0, 1.0), (5, 0.0)]);
        assert_eq!(series.histograms[0].count, Some(0.0));
        assert_eq!(series.histograms[0].schema, -2);
        assert_eq!(series.histograms[0].positive_counts, [3.0]);
        assert_eq!(series.histograms[0].timestamp_ms, 9);
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProstOuter {
        #[prost(message, repeated, tag = "1")]
        results: Vec<ProstResult>,
    }

    #[test]
    fn frames_are_cut_by_size_and_checked() {
        let labels = Labels::from_pairs([("__name__", "up")]);
        let timestamps_ms: Vec<i64> = (0..300).map(|n| n * 1000).collect();
        let values: Vec<f64> = (0..300).map(f64::from).collect();
        let histograms = [histogram()];
        let runs = [
            SampleRun::Floats(&timestamps_ms, &values),
            SampleRun::Histograms(&[400_000], &histograms),
        ];
        let mut kinds = Vec::new();
        for (frame_bytes_max, count) in [(1, 4), (1 << 20, 1)] {
            let frames = frames(7, &labels, &runs, frame_bytes_max);
            assert_eq!(frames.len(), count);
            kinds.clear();
            for frame in frames {
                let mut body = &frame[..];
                let len = prost::encoding::decode_varint(&mut body).unwrap() as usize;
                let (crc, message) = body.split_first_chunk::<4>().unwrap();
                assert_eq!(message.len(), len);
                assert_eq!(u32::from_be_bytes(*crc), crc32c::crc32c(message));
                let message = ProstFrame::decode(message).unwrap();
                assert_eq!(message.query_index, 7);
                let chunks = &message.series[0].chunks;
                kinds.extend(chunks.iter().map(|one| (one.encoding, one.min_ms, one.max_ms)));
            }
            let expected = [
                (1, 0, 119_000),
                (1, 120_000, 239_000),
                (1, 240_000, 299_000),
                (3, 400_000, 400_000),
            ];
            assert_eq!(kinds, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_source_file(file!()))]

        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let _ = ReadRequest::decode(&bytes);
            let matchers = vec![matcher(0, "a"), matcher(3, "b.*")];
            let query = ProstQuery { start_ms: -5, end_ms: 10, matchers };
            let request = ProstRequest { queries: vec![query], accepted: vec![1, 0] };
            let mut body = request.encode_to_vec();
            let place = at.index(body.len());
            body[place] = byte;
            let _ = ReadRequest::decode(&body);
            let _ = ReadRequest::decode(&body[..place]);
        }
    }
}
