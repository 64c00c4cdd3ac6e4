//! `/targets`, `/targets/metadata`, `/targets/relabel_steps`, `/scrape_pools`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};

use super::super::blocking::{Blocking, answering};
use super::super::params::Params;
use super::super::respond::{ApiError, ApiResult, ErrorType, Success};
use super::super::{Services, labels_json, rfc3339_or_never};
use crate::model::duration;
use crate::model::labels::{Labels, LabelsBuilder, quote};
use crate::model::relabel::Rule;
use crate::promql::parser;
use crate::scrape::TargetStatus;

fn target_json(target: &TargetStatus, global_url: String) -> Value {
    json!({
        "discoveredLabels": labels_json(&target.discovered_labels),
        "labels": labels_json(&target.labels),
        "scrapePool": target.pool,
        "scrapeUrl": target.url,
        "globalUrl": global_url,
        "lastError": target.last_error,
        "lastScrape": rfc3339_or_never(target.last_scrape_ms),
        "lastScrapeDuration": target.last_scrape_duration.as_secs_f64(),
        "health": target.health.as_str(),
        "scrapeInterval": duration::format(target.interval),
        "scrapeTimeout": duration::format(target.timeout),
    })
}

/// A target's URL as others reach it: our own host name instead of a loopback address.
fn global_url(scrape_url: &str, external_url: &str) -> String {
    let (Ok(mut url), Ok(external)) = (url::Url::parse(scrape_url), url::Url::parse(external_url))
    else {
        return scrape_url.to_owned();
    };
    if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        let _ = url.set_host(external.host_str());
    }
    url.to_string()
}

pub(super) async fn targets(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    let (state, wanted_pool) = (params.get("state"), params.get("scrapePool"));
    let show_active = matches!(state, "" | "any" | "active");
    let show_dropped = matches!(state, "" | "any" | "dropped");
    let (mut active, mut dropped) = (Vec::new(), Vec::new());
    let mut dropped_counts = BTreeMap::new();
    for pool in services.scrape.status() {
        if !wanted_pool.is_empty() && pool.name != wanted_pool {
            continue;
        }
        if show_active {
            active.extend(pool.active.iter().map(|target| {
                target_json(target, global_url(&target.url, &services.options.external_url))
            }));
        }
        if show_dropped {
            dropped.extend(pool.dropped.iter().map(|target| {
                let labels = labels_json(&target.discovered_labels);
                json!({ "discoveredLabels": labels, "scrapePool": pool.name })
            }));
        }
        dropped_counts.insert(pool.name, pool.dropped_count);
    }
    Ok(Success::of(&json!({
        "activeTargets": active,
        "droppedTargets": dropped,
        "droppedTargetCounts": dropped_counts,
    })))
}

pub(super) async fn metadata(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    answering(&Arc::clone(&services), move |thread| target_metadata(thread, &services, &params))
        .await
}

fn target_metadata(thread: &Blocking, services: &Services, params: &Params) -> ApiResult {
    let (metric, limit) = (params.get("metric"), params.limit()?);
    let selector = Some(params.get("match_target")).filter(|text| !text.is_empty());
    let parse = |text: &str| parser::parse_metric_selector(text, &services.options.parser);
    let refused = |err: &dyn std::fmt::Display| ApiError::parameter("match_target", err);
    let sets = thread.selectors(selector.into_iter(), parse, refused)?;
    let mut found = Vec::new();
    for entry in services.scrape.metadata() {
        let labels = &entry.target_labels;
        let target_matches =
            sets.iter().flatten().all(|m| m.matches(labels.get(m.name()).unwrap_or("")));
        if !target_matches || (!metric.is_empty() && entry.metric != metric) {
            continue;
        }
        if limit > 0 && found.len() == limit {
            break;
        }
        found.push(json!({
            "target": labels_json(labels),
            "metric": entry.metric,
            "type": entry.metadata.metric_type.as_str(),
            "help": entry.metadata.help,
            "unit": entry.metadata.unit,
        }));
    }
    if found.is_empty() {
        return Err(ApiError::new(ErrorType::NotFound, "specified metadata not found"));
    }
    Ok(Success::of(&found))
}

pub(super) async fn pools(State(services): State<Arc<Services>>) -> ApiResult {
    let mut names: Vec<String> = services.scrape.status().into_iter().map(|p| p.name).collect();
    names.sort();
    Ok(Success::of(&json!({ "scrapePools": names })))
}

fn unknown_pool(name: &str) -> String {
    format!("scrape pool {} not found", quote(name))
}

/// A parameter that must be given.
fn required<'p>(params: &'p Params, name: &str) -> Result<&'p str, ApiError> {
    match params.get(name) {
        "" => Err(ApiError::bad_data(format!("no {name} parameter provided"))),
        value => Ok(value),
    }
}

pub(super) async fn pool_config(
    State(services): State<Arc<Services>>,
    params: Params,
) -> ApiResult {
    let name = required(&params, "scrapePool")?;
    let loaded = services.loaded.load();
    match loaded.scrape_yaml.get(name) {
        Some(yaml) => Ok(Success::of(&json!({ "yaml": yaml }))),
        None => Err(ApiError::new(ErrorType::NotFound, unknown_pool(name))),
    }
}

/// What the rules of a job make of a target's labels, rule by rule.
pub(super) async fn relabel_steps(
    State(services): State<Arc<Services>>,
    params: Params,
) -> ApiResult {
    let name = required(&params, "scrapePool")?;
    let text = required(&params, "labels")?;
    let labels: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|err| ApiError::bad_data(format!("error parsing labels: {err}")))?;
    let Some(job) = services.scrape.pool_options(name) else {
        let reason = format!("error retrieving scrape config: {}", unknown_pool(name));
        return Err(ApiError::bad_data(reason));
    };
    let steps = steps_of(&job.relabel_rules, Labels::from_pairs(labels).to_builder());
    Ok(Success::of(&json!({ "steps": steps })))
}

/// After a rule that drops a target nothing is left for those behind it.
fn steps_of(rules: &[Rule], mut labels: LabelsBuilder) -> Vec<Value> {
    let mut is_kept = true;
    let step = |rule: &Rule| {
        is_kept = is_kept && rule.apply(&mut labels);
        let output = if is_kept { labels.build() } else { Labels::empty() };
        json!({ "rule": rule_json(rule), "output": labels_json(&output), "keep": is_kept })
    };
    rules.iter().map(step).collect()
}

fn rule_json(rule: &Rule) -> Value {
    let fields = [
        ("sourceLabels", json!(rule.source_labels)),
        ("separator", json!(rule.separator)),
        ("regex", json!(rule.regex.source())),
        ("modulus", json!(rule.modulus)),
        ("targetLabel", json!(rule.target_label)),
        ("replacement", json!(rule.replacement)),
        ("action", json!(rule.action.as_str())),
    ];
    let is_empty = |value: &Value| *value == json!([]) || *value == "" || *value == 0;
    let fields = fields.into_iter().filter(|(_, value)| !is_empty(value));
    fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_targets_are_shown_under_our_own_name() {
        let global = |url| global_url(url, "http://prom.example:9090");
        assert_eq!(global("http://127.0.0.1:9100/metrics"), "http://prom.example:9100/metrics");
        assert_eq!(global("http://db:9100/metrics"), "http://db:9100/metrics");
    }
}
