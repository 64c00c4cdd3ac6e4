//! `/status/self_metrics`: our own metrics as JSON, in the mapping of protobuf's `MetricFamily`.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};

use super::super::Services;
use super::super::params::Params;
use super::super::respond::{ApiError, ApiResult, Success};
use crate::base::metrics::{Family, Kind, Sample};
use crate::model::matcher::AnchoredRegex;

pub(super) async fn self_metrics(
    State(services): State<Arc<Services>>,
    params: Params,
) -> ApiResult {
    let pattern = match params.get("metric_name_pattern") {
        "" => None,
        text => Some(
            AnchoredRegex::new(text)
                .map_err(|err| ApiError::bad_data(format!("invalid metric_name_pattern: {err}")))?,
        ),
    };
    let mut families = services.metrics.gather();
    families.retain(|family| pattern.as_ref().is_none_or(|own| own.is_match(&family.name)));
    Ok(Success::of(&families.iter().map(family_json).collect::<Vec<_>>()))
}

fn family_json(family: &Family) -> Value {
    let kind = family.kind.as_str().to_ascii_uppercase();
    let mut metrics: Vec<(Vec<(String, String)>, Map<String, Value>)> = Vec::new();
    for sample in &family.samples {
        let labels = sample.labels.iter().filter(|(name, _)| !is_part(family.kind, name));
        let labels: Vec<_> = labels.cloned().collect();
        // Samples of one metric follow each other.
        if metrics.last().is_none_or(|(last, _)| *last != labels) {
            metrics.push((labels, Map::new()));
        }
        if let Some((_, value)) = metrics.last_mut() {
            add_sample(value, family.kind, sample);
        }
    }
    let shown = metrics.into_iter().map(|(labels, value)| {
        let pair = |(name, value)| json!({ "name": name, "value": value });
        let labels: Vec<Value> = labels.into_iter().map(pair).collect();
        let mut metric = json!({ family.kind.as_str(): value });
        if !labels.is_empty() {
            metric["label"] = json!(labels);
        }
        metric
    });
    json!({
        "name": family.name,
        "help": family.help,
        "type": kind,
        "metric": shown.collect::<Vec<_>>(),
    })
}

/// Whether the label names a part of a distribution, not a metric.
fn is_part(kind: Kind, label: &str) -> bool {
    matches!((kind, label), (Kind::Histogram, "le") | (Kind::Summary, "quantile"))
}

fn add_sample(value: &mut Map<String, Value>, kind: Kind, sample: &Sample) {
    let part = |name: &str| {
        let label = sample.labels.iter().find(|(own, _)| own == name);
        label.and_then(|(_, text)| text.parse::<f64>().ok())
    };
    let list = match (kind, sample.suffix) {
        (_, "_count") => return drop(value.insert("sampleCount".to_owned(), count(sample.value))),
        (_, "_sum") => return drop(value.insert("sampleSum".to_owned(), number(sample.value))),
        // The last bucket is the count, which stands beside.
        (Kind::Histogram, _) if part("le") == Some(f64::INFINITY) => return,
        (Kind::Histogram, _) => {
            let bound = number(part("le").unwrap_or(f64::NAN));
            let bucket = json!({ "cumulativeCount": count(sample.value), "upperBound": bound });
            ("bucket", bucket)
        }
        (Kind::Summary, _) => {
            let quantile = number(part("quantile").unwrap_or(f64::NAN));
            ("quantile", json!({ "quantile": quantile, "value": number(sample.value) }))
        }
        _ => return drop(value.insert("value".to_owned(), number(sample.value))),
    };
    let entries = value.entry(list.0).or_insert_with(|| json!([]));
    if let Some(entries) = entries.as_array_mut() {
        entries.push(list.1);
    }
}

/// 64-bit integers are texts in protobuf's JSON.
fn count(value: f64) -> Value {
    json!((value as u64).to_string())
}

/// As are the floats that JSON has no numbers for.
fn number(value: f64) -> Value {
    if value.is_finite() {
        return json!(value);
    }
    json!(if value.is_nan() {
        "NaN"
    } else if value < 0.0 {
        "-Infinity"
    } else {
        "Infinity"
    })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::base::metrics::Registry;

    #[test]
    fn families_are_mapped_as_protobuf_does() {
        let registry = Registry::new();
        registry.counters("hits_total", "Hits.", &["path"]).with(&["/"]).set(3.0);
        registry.gauge("odd", "Odd.").set(f64::NAN);
        registry.histogram("size_bytes", "Sizes.", &[1.0]).observe(2.0);
        registry.summary("wait_seconds", "Waits.", &[0.5]).observe(0.25);
        let shown: Vec<_> =
            registry.gather().iter().map(|family| family_json(family).to_string()).collect();
        assert_snapshot!(shown.join("\n"), @r#"
        {"help":"Hits.","metric":[{"counter":{"value":3.0},"label":[{"name":"path","value":"/"}]}],"name":"hits_total","type":"COUNTER"}
        {"help":"Odd.","metric":[{"gauge":{"value":"NaN"}}],"name":"odd","type":"GAUGE"}
        {"help":"Sizes.","metric":[{"histogram":{"bucket":[{"cumulativeCount":"0","upperBound":1.0}],"sampleCount":"1","sampleSum":2.0}}],"name":"size_bytes","type":"HISTOGRAM"}
        {"help":"Waits.","metric":[{"summary":{"quantile":[{"quantile":0.5,"value":0.25}],"sampleCount":"1","sampleSum":0.25}}],"name":"wait_seconds","type":"SUMMARY"}
        "#);
    }
}
