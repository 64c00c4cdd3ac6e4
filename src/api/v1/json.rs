//! Query results as Prometheus' JSON, written straight from the result.

use crate::model::float;
use crate::model::labels::Labels;
use crate::promql::engine::Value;

/// The `data` of an answer: result type and result, and `stats` (JSON) when it was asked for.
pub fn query_data(value: &Value, stats: Option<&str>) -> String {
    let mut out = String::with_capacity(1024);
    out.push_str("{\"resultType\":\"");
    out.push_str(match value {
        Value::Scalar { .. } => "scalar",
        Value::String { .. } => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    });
    out.push_str("\",\"result\":");
    match value {
        Value::Scalar { timestamp_ms, value } => push_point(&mut out, *timestamp_ms, *value),
        Value::String { timestamp_ms, value } => {
            out.push('[');
            push_seconds(&mut out, *timestamp_ms);
            out.push(',');
            push_text(&mut out, value);
            out.push(']');
        }
        Value::Vector(samples) => push_list(&mut out, samples, |out, sample| {
            out.push_str("{\"metric\":");
            push_labels(out, &sample.labels);
            out.push_str(",\"value\":");
            push_point(out, sample.timestamp_ms, sample.value);
            out.push('}');
        }),
        Value::Matrix(series) => push_list(&mut out, series, |out, series| {
            out.push_str("{\"metric\":");
            push_labels(out, &series.labels);
            out.push_str(",\"values\":");
            push_list(out, &series.points, |out, point| push_point(out, point.0, point.1));
            out.push('}');
        }),
    }
    if let Some(stats) = stats {
        out.push_str(",\"stats\":");
        out.push_str(stats);
    }
    out.push('}');
    out
}

fn push_list<T>(out: &mut String, items: &[T], mut push: impl FnMut(&mut String, &T)) {
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

fn push_point(out: &mut String, timestamp_ms: i64, value: f64) {
    out.push('[');
    push_seconds(out, timestamp_ms);
    out.push_str(",\"");
    out.push_str(&float::format_json(value));
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
    use super::*;
    use crate::promql::engine::{Series, VectorSample};

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
        let scalar = Value::Scalar { timestamp_ms: 10, value: 0.1 };
        assert_eq!(query_data(&scalar, None), r#"{"resultType":"scalar","result":[0.01,"0.1"]}"#);
    }
}
