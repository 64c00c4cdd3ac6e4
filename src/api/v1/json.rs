//! Query results as Prometheus' JSON, written straight from the result.

use std::fmt::Write as _;

use crate::base::turns;
use crate::model::exemplar::Exemplar;
use crate::model::float;
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::promql::engine::Value;

/// The `data` of an answer: result type and result, and `stats` (JSON) when it was asked for.
pub fn push_query_data(out: &mut String, value: &Value, stats: Option<&str>) {
    out.push_str("{\"resultType\":\"");
    out.push_str(match value {
        Value::Scalar { .. } => "scalar",
        Value::String { .. } => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    });
    out.push_str("\",\"result\":");
    match value {
        Value::Scalar { timestamp_ms, value } => push_point(out, *timestamp_ms, *value),
        Value::String { timestamp_ms, value } => {
            out.push('[');
            push_seconds(out, *timestamp_ms);
            out.push(',');
            push_text(out, value);
            out.push(']');
        }
        Value::Vector(samples) => push_list(out, samples, |out, sample| {
            out.push_str("{\"metric\":");
            push_labels(out, &sample.labels);
            match &sample.histogram {
                None => {
                    out.push_str(",\"value\":");
                    push_point(out, sample.timestamp_ms, sample.value);
                }
                Some(histogram) => {
                    out.push_str(",\"histogram\":");
                    push_histogram_point(out, sample.timestamp_ms, histogram);
                }
            }
            out.push('}');
        }),
        Value::Matrix(series) => push_list(out, series, |out, series| {
            turns::pass();
            out.push_str("{\"metric\":");
            push_labels(out, &series.labels);
            if !series.points.is_empty() {
                out.push_str(",\"values\":");
                push_list(out, &series.points, |out, point| push_point(out, point.0, point.1));
            }
            if !series.histograms.is_empty() {
                out.push_str(",\"histograms\":");
                push_list(out, &series.histograms, |out, (timestamp_ms, histogram)| {
                    push_histogram_point(out, *timestamp_ms, histogram);
                });
            }
            out.push('}');
        }),
    }
    if let Some(stats) = stats {
        out.push_str(",\"stats\":");
        out.push_str(stats);
    }
    out.push('}');
}

/// Series with their exemplars.
pub fn push_exemplars(out: &mut String, found: &[(Labels, Vec<Exemplar>)]) {
    push_list(out, found, |out, (labels, exemplars)| {
        out.push_str("{\"seriesLabels\":");
        push_labels(out, labels);
        out.push_str(",\"exemplars\":");
        push_list(out, exemplars, |out, own| {
            out.push_str("{\"labels\":");
            push_labels(out, &own.labels);
            let value = float::format_json(own.value);
            let _ = write!(out, ",\"value\":\"{value}\",\"timestamp\":");
            push_seconds(out, own.timestamp_ms);
            out.push('}');
        });
        out.push('}');
    });
}

/// A list, item by item.
pub fn push_list<T>(out: &mut String, items: &[T], mut push: impl FnMut(&mut String, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

/// A label set as an object.
pub fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_text(out, name);
        out.push(':');
        push_text(out, value);
    }
    out.push('}');
}

fn push_histogram_point(out: &mut String, timestamp_ms: i64, histogram: &Histogram) {
    out.push('[');
    push_seconds(out, timestamp_ms);
    out.push(',');
    push_histogram(out, histogram);
    out.push(']');
}

/// Count, sum and the buckets that are not empty: how their borders belong to them (0: only the
/// upper one, 1: only the lower one, 2: none, 3: both), the borders, and the count.
fn push_histogram(out: &mut String, histogram: &Histogram) {
    let number = |value: f64| format!("\"{}\"", float::format_json(value));
    let (count, sum) = (number(histogram.count), number(histogram.sum));
    let _ = write!(out, "{{\"count\":{count},\"sum\":{sum}");
    let mut buckets = histogram.buckets(true);
    buckets.retain(|bucket| bucket.count != 0.0);
    if !buckets.is_empty() {
        out.push_str(",\"buckets\":");
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
    out.push('}');
}

fn push_point(out: &mut String, timestamp_ms: i64, value: f64) {
    out.push('[');
    push_seconds(out, timestamp_ms);
    out.push_str(",\"");
    float::push_json(value, out);
    out.push_str("\"]");
}

/// Decimal seconds with as many of three decimals as needed.
fn push_seconds(out: &mut String, timestamp_ms: i64) {
    if timestamp_ms < 0 {
        out.push('-');
    }
    let magnitude = timestamp_ms.unsigned_abs();
    out.push_str(itoa::Buffer::new().format(magnitude / 1000));
    let fraction = magnitude % 1000;
    if fraction != 0 {
        let digits = format!(".{fraction:03}");
        out.push_str(digits.trim_end_matches('0'));
    }
}

fn push_text(out: &mut String, text: &str) {
    out.push('"');
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        out.push_str(text);
    } else {
        let quoted = serde_json::to_string(text).expect("a text serializes");
        out.push_str(&quoted[1..quoted.len() - 1]);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::histogram::Span;
    use crate::promql::engine::{Series, VectorSample};

    fn query_data(value: &Value, stats: Option<&str>) -> String {
        let mut out = String::new();
        push_query_data(&mut out, value, stats);
        out
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
