//! Query results as Prometheus' JSON, written straight from the result.

use std::io::Write as _;

use crate::base::turns;
use crate::model::exemplar::Exemplar;
use crate::model::float;
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::promql::engine::Value;

/// The `data` of an answer: result type and result, and `stats` (JSON) when it was asked for.
pub fn push_query_data(out: &mut Vec<u8>, value: &Value, stats: Option<&str>) {
    push(out, "{\"resultType\":\"");
    let kind = match value {
        Value::Scalar { .. } => "scalar",
        Value::String { .. } => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    };
    push(out, kind);
    push(out, "\",\"result\":");
    match value {
        Value::Scalar { timestamp_ms, value } => {
            push_point(out, &mut PointBegin::default(), *timestamp_ms, *value);
        }
        Value::String { timestamp_ms, value } => {
            out.push(b'[');
            push_seconds(out, *timestamp_ms);
            out.push(b',');
            push_text(out, value);
            out.push(b']');
        }
        Value::Vector(samples) => {
            let mut begin = PointBegin::default();
            push_list(out, samples, |out, sample| {
                push(out, "{\"metric\":");
                push_labels(out, &sample.labels);
                match &sample.histogram {
                    None => {
                        push(out, ",\"value\":");
                        push_point(out, &mut begin, sample.timestamp_ms, sample.value);
                    }
                    Some(histogram) => {
                        push(out, ",\"histogram\":");
                        push_histogram_point(out, sample.timestamp_ms, histogram);
                    }
                }
                out.push(b'}');
            });
        }
        Value::Matrix(series) => push_list(out, series, |out, series| {
            turns::pass();
            push(out, "{\"metric\":");
            push_labels(out, &series.labels);
            if !series.points.is_empty() {
                push(out, ",\"values\":");
                push_points(out, &series.points);
            }
            if !series.histograms.is_empty() {
                push(out, ",\"histograms\":");
                push_list(out, &series.histograms, |out, (timestamp_ms, histogram)| {
                    push_histogram_point(out, *timestamp_ms, histogram);
                });
            }
            out.push(b'}');
        }),
    }
    if let Some(stats) = stats {
        push(out, ",\"stats\":");
        push(out, stats);
    }
    out.push(b'}');
}

/// About how many bytes [`push_query_data`] appends.
pub fn query_data_bytes(value: &Value) -> usize {
    const POINT_BYTES: usize = 36;
    let (count, points, labels) = match value {
        Value::Scalar { .. } => (1, 1, 0),
        Value::String { value, .. } => (1, value.len() / POINT_BYTES, 0),
        Value::Vector(all) => {
            (all.len(), all.len(), labels_bytes(all.first().map(|own| &own.labels)))
        }
        Value::Matrix(all) => {
            let points = all.iter().map(|own| own.points.len()).sum();
            (all.len(), points, labels_bytes(all.first().map(|own| &own.labels)))
        }
    };
    64 + count * (32 + labels) + points * POINT_BYTES + POINTS_TOGETHER * POINT_BYTES_MAX
}

/// Series with their exemplars.
pub fn push_exemplars(out: &mut Vec<u8>, found: &[(Labels, Vec<Exemplar>)]) {
    push_list(out, found, |out, (labels, exemplars)| {
        push(out, "{\"seriesLabels\":");
        push_labels(out, labels);
        push(out, ",\"exemplars\":");
        push_list(out, exemplars, |out, own| {
            push(out, "{\"labels\":");
            push_labels(out, &own.labels);
            let value = float::format_json(own.value);
            let _ = write!(out, ",\"value\":\"{value}\",\"timestamp\":");
            push_seconds(out, own.timestamp_ms);
            out.push(b'}');
        });
        out.push(b'}');
    });
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A list of what `each` appends for one item.
pub fn push_list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}

/// About how many bytes [`push_labels`] appends for such a label set.
pub fn labels_bytes(labels: Option<&Labels>) -> usize {
    labels.map_or(0, |labels| labels.heap_bytes() * 3 / 2)
}

/// A label set as an object.
pub fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_text(out, name);
        out.push(b':');
        push_text(out, value);
    }
    out.push(b'}');
}

fn push_histogram_point(out: &mut Vec<u8>, timestamp_ms: i64, histogram: &Histogram) {
    out.push(b'[');
    push_seconds(out, timestamp_ms);
    out.push(b',');
    push_histogram(out, histogram);
    out.push(b']');
}

/// Count, sum and the buckets that are not empty: how their borders belong to them (0: only the
/// upper one, 1: only the lower one, 2: none, 3: both), the borders, and the count.
fn push_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    let number = |value: f64| format!("\"{}\"", float::format_json(value));
    let (count, sum) = (number(histogram.count), number(histogram.sum));
    let _ = write!(out, "{{\"count\":{count},\"sum\":{sum}");
    let mut buckets = histogram.buckets(true);
    buckets.retain(|bucket| bucket.count != 0.0);
    if !buckets.is_empty() {
        push(out, ",\"buckets\":");
        push_list(out, &buckets, |out, bucket| {
            let rule = match (bucket.lower_inclusive, bucket.upper_inclusive) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            let [lower, upper, count] = [bucket.lower, bucket.upper, bucket.count].map(number);
            let _ = write!(out, "[{rule},{lower},{upper},{count}]");
        });
    }
    out.push(b'}');
}

/// A list of points, at least one.
fn push_points(out: &mut Vec<u8>, points: &[(i64, f64)]) {
    let mut begin = PointBegin::default();
    let (start, mut end) = (out.len(), out.len());
    for points in points.chunks(POINTS_TOGETHER) {
        out.resize(end + points.len() * POINT_BYTES_MAX, 0);
        for (timestamp_ms, value) in points {
            end += begin.put(&mut out[end..], *timestamp_ms, *value);
        }
    }
    out.truncate(end);
    // In place of the first comma.
    out[start] = b'[';
    out.push(b']');
}

fn push_point(out: &mut Vec<u8>, begin: &mut PointBegin, timestamp_ms: i64, value: f64) {
    let mut point = [0; POINT_BYTES_MAX];
    let end = begin.put(&mut point, timestamp_ms, value);
    out.extend_from_slice(&point[1..end]);
}

/// More bytes than a point takes: a comma, a moment and a value.
const POINT_BYTES_MAX: usize = 64;
/// Points that there is room made for at a time.
const POINTS_TOGETHER: usize = 64;
/// More bytes than a point takes up to its value.
const BEGIN_BYTES_MAX: usize = 32;

/// How a point begins, up to its value: `,[1435781430,"`. Mostly only the last four digits differ
/// from the point before.
#[derive(Default)]
struct PointBegin {
    text: [u8; BEGIN_BYTES_MAX],
    len: usize,
    /// Seconds without their last four digits, while the text has whole seconds; 0: it has not.
    high: u64,
}

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut at = 0;
    while at < 100 {
        pairs[at] = [b'0' + (at / 10) as u8, b'0' + (at % 10) as u8];
        at += 1;
    }
    pairs
};

impl PointBegin {
    /// Writes a point with a comma before it; says how long it is.
    fn put(&mut self, out: &mut [u8], timestamp_ms: i64, value: f64) -> usize {
        self.set(timestamp_ms);
        let out = &mut out[..POINT_BYTES_MAX];
        out[..BEGIN_BYTES_MAX].copy_from_slice(&self.text);
        let end = self.len + float::with_json(value, |text| put(&mut out[self.len..], text));
        out[end..end + 2].copy_from_slice(b"\"]");
        end + 2
    }

    fn set(&mut self, timestamp_ms: i64) {
        let magnitude = timestamp_ms.unsigned_abs();
        let (seconds, is_whole) = (magnitude / 1000, magnitude.is_multiple_of(1000));
        let (high, low) = (seconds / 10_000, (seconds % 10_000) as usize);
        let is_plain = 0 <= timestamp_ms && is_whole;
        if is_plain && 0 < high && high == self.high {
            let end = self.len - 2;
            self.text[end - 4..end - 2].copy_from_slice(&PAIRS[low / 100]);
            self.text[end - 2..end].copy_from_slice(&PAIRS[low % 100]);
            return;
        }
        let mut text = b",[".to_vec();
        push_seconds(&mut text, timestamp_ms);
        push(&mut text, ",\"");
        self.text[..text.len()].copy_from_slice(&text);
        self.len = text.len();
        self.high = if is_plain { high } else { 0 };
    }
}

/// Copies a short text without a call; says how long it is.
fn put(out: &mut [u8], text: &str) -> usize {
    let (text, len) = (text.as_bytes(), text.len());
    let out = &mut out[..len];
    match len {
        0..4 => out.iter_mut().zip(text).for_each(|(out, byte)| *out = *byte),
        4..8 => put_ends::<4>(out, text),
        8..16 => put_ends::<8>(out, text),
        _ => put_ends::<16>(out, text),
    }
    len
}

/// Copies a text of one or two times `N` bytes.
fn put_ends<const N: usize>(out: &mut [u8], text: &[u8]) {
    debug_assert!((N..=2 * N).contains(&text.len()), "numbers are short");
    let last = text.len() - N;
    out[..N].copy_from_slice(&text[..N]);
    out[last..].copy_from_slice(&text[last..]);
}

/// Decimal seconds with as many of three decimals as needed.
fn push_seconds(out: &mut Vec<u8>, timestamp_ms: i64) {
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    let magnitude = timestamp_ms.unsigned_abs();
    push(out, itoa::Buffer::new().format(magnitude / 1000));
    let fraction = magnitude % 1000;
    if fraction != 0 {
        let digits = format!(".{fraction:03}");
        push(out, digits.trim_end_matches('0'));
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Without a branch, so that many bytes are looked at together.
    let special =
        |byte: u8| u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    if text.bytes().fold(0, |found, byte| found | special(byte)) == 0 {
        push(out, text);
    } else {
        let quoted = serde_json::to_string(text).expect("a text serializes");
        push(out, &quoted[1..quoted.len() - 1]);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::histogram::Span;
    use crate::promql::engine::{Series, VectorSample};

    fn query_data(value: &Value, stats: Option<&str>) -> String {
        let mut out = Vec::new();
        push_query_data(&mut out, value, stats);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn neighbouring_moments_are_written_like_single_ones() {
        let moments_ms = [
            -10_000_000,
            0,
            9_999_000,
            10_000_000,
            10_001_000,
            10_002_500,
            10_003_000,
            19_999_000,
            20_000_000,
            20_000_120,
            20_000_003,
            -20_001_000,
            20_002_000,
            20_010_000,
            1_795_297_014_000,
            1_795_300_007_000,
            i64::MAX,
        ];
        let point = |begin: &mut PointBegin, ms| {
            let mut out = Vec::new();
            push_point(&mut out, begin, ms, 0.5);
            String::from_utf8(out).unwrap()
        };
        let mut begin = PointBegin::default();
        for ms in moments_ms {
            let number = ms as f64 / 1000.0;
            let text = point(&mut begin, ms);
            let seconds = text.strip_prefix('[').and_then(|text| text.strip_suffix(",\"0.5\"]"));
            assert_eq!(seconds.unwrap().parse(), Ok(number), "{text}");
            assert_eq!(point(&mut PointBegin::default(), ms), text, "alone");
        }
    }

    #[test]
    fn numbers_of_any_length_have_room() {
        let values = [-0.0, 1.0, -12.5, 0.1 + 0.2, -1e-5 / 3.0, -1e-6 / 3.0, f64::MIN, -1e21 / 3.0]
            .into_iter()
            .chain((0..400).map(|at| -1.0_f64.exp2() * 1.7_f64.powi(at - 200)));
        let points: Vec<_> = values.map(|value| (i64::MIN, value)).collect();
        let mut out = Vec::new();
        push_points(&mut out, &points);
        let mut expected = String::new();
        for (_, value) in &points {
            let seconds = "-9223372036854775.808";
            expected += &format!(",[{seconds},\"{}\"]", float::format_json(*value));
        }
        assert_eq!(String::from_utf8(out).unwrap(), format!("[{}]", &expected[1..]));
    }

    #[test]
    fn results_look_like_prometheus() {
        let labels = Labels::from_pairs([("__name__", "up"), ("path", "a\"\\\n")]);
        let vector = Value::Vector(vec![VectorSample {
            labels: labels.clone(),
            timestamp_ms: 1500,
            value: 1e21,
            histogram: None,
        }]);
        assert_eq!(
            query_data(&vector, None),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","path":"a\"\\\n"},"value":[1.5,"1e+21"]}]}"#
        );
        let points = vec![(-1001, f64::NAN), (0, f64::INFINITY)];
        let matrix =
            Value::Matrix(vec![Series { labels: Labels::empty(), points, histograms: Vec::new() }]);
        assert_eq!(
            query_data(&matrix, Some("{}")),
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[-1.001,"NaN"],[0,"+Inf"]]}],"stats":{}}"#
        );
        let histogram = Arc::new(Histogram {
            count: 6.5,
            sum: -1.0,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![2.0, 0.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![3.5],
            ..Histogram::default()
        });
        let matrix = Value::Matrix(vec![Series {
            labels: Labels::empty(),
            points: vec![(1000, 1.0)],
            histograms: vec![(2000, histogram)],
        }]);
        assert_eq!(
            query_data(&matrix, None),
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]],"histograms":[[2,{"count":"6.5","sum":"-1","buckets":[[1,"-2","-1","3.5"],[3,"-0.001","0.001","1"],[0,"0.5","1","2"]]}]]}]}"#
        );
        let empty = Value::Vector(vec![VectorSample {
            labels: Labels::empty(),
            timestamp_ms: 0,
            value: 0.0,
            histogram: Some(Arc::default()),
        }]);
        assert_eq!(
            query_data(&empty, None),
            r#"{"resultType":"vector","result":[{"metric":{},"histogram":[0,{"count":"0","sum":"0"}]}]}"#
        );
        let scalar = Value::Scalar { timestamp_ms: 10, value: 0.1 };
        assert_eq!(query_data(&scalar, None), r#"{"resultType":"scalar","result":[0.01,"0.1"]}"#);
    }
}
