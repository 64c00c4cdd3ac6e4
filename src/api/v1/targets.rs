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
/// The port at which we listen ourselves takes the external one's place, too.
fn global_url(scrape_url: &str, external_url: &str, own_port: &str) -> String {
    let (Ok(mut url), Ok(external)) = (url::Url::parse(scrape_url), url::Url::parse(external_url))
    else {
        return scrape_url.to_owned();
    };
    if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        let is_own = url.port_or_known_default().is_some_and(|port| port.to_string() == own_port);
        let _ = url.set_host(external.host_str());
        if is_own {
            let _ = url.set_scheme(external.scheme());
            let _ = url.set_port(external.port());
        }
    }
    url.to_string()
}

pub(super) async fn targets(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    let (state, wanted_pool) = (params.get("state").to_lowercase(), params.get("scrapePool"));
    let show_active = matches!(&*state, "" | "any" | "active");
    let show_dropped = matches!(&*state, "" | "any" | "dropped");
    let listen = services.options.flags.get("web.listen-address").map_or("", String::as_str);
    let first = listen.split(',').next().unwrap_or_default();
    let own_port = first.rsplit_once(':').map_or("", |(_, port)| port);
    let (mut active, mut dropped) = (Vec::new(), Vec::new());
    let mut dropped_counts = BTreeMap::new();
    for pool in services.scrape.status() {
        dropped_counts.insert(pool.name.clone(), pool.dropped_count);
        if !wanted_pool.is_empty() && pool.name != wanted_pool {
            continue;
        }
        if show_active {
            active.extend(pool.active.iter().map(|target| {
                target_json(
                    target,
                    global_url(&target.url, &services.options.external_url, own_port),
                )
            }));
        }
        if show_dropped {
            dropped.extend(pool.dropped.iter().map(|target| {
                let labels = labels_json(&target.discovered_labels);
                json!({ "discoveredLabels": labels, "scrapePool": pool.name })
            }));
        }
    }
    Ok(Success::of(&json!({
        "activeTargets": active,
        "droppedTargets": dropped,
        "droppedTargetCounts": show_dropped.then_some(dropped_counts),
    })))
}

pub(super) async fn metadata(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    answering(&Arc::clone(&services), move |thread| target_metadata(thread, &services, &params))
        .await
}

fn target_metadata(thread: &Blocking, services: &Services, params: &Params) -> ApiResult {
    let (metric, limit) = (params.get("metric"), params.open_count("limit")?);
    let selector = Some(params.get("match_target")).filter(|text| !text.is_empty());
    let parse = |text: &str| parser::parse_any_selector(text, &services.options.parser);
    let refused = |err: &dyn std::fmt::Display| ApiError::parameter("match_target", err);
    let sets = thread.selectors(selector.into_iter(), parse, refused)?;
    let (mut found, mut last) = (Vec::new(), None);
    let entries = services.scrape.metadata();
    for entry in &entries {
        let labels = &entry.target_labels;
        // The limit is looked at before each target, whose entries are all listed.
        if last != Some(labels) && limit.is_some_and(|limit| limit <= found.len()) {
            break;
        }
        last = Some(labels);
        let target_matches =
            sets.iter().flatten().all(|m| m.matches(labels.get(m.name()).unwrap_or("")));
        if !target_matches || (!metric.is_empty() && entry.metric != metric) {
            continue;
        }
        let mut shown = json!({
            "target": labels_json(labels),
            "type": entry.metadata.metric_type.as_str(),
            "help": entry.metadata.help,
            "unit": entry.metadata.unit,
        });
        if metric.is_empty() {
            shown["metric"] = json!(entry.metric);
        }
        found.push(shown);
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
        let global = |url| global_url(url, "https://prom.example", "9090");
        assert_eq!(global("http://localhost:9090/metrics"), "https://prom.example/metrics");
        assert_eq!(global("http://127.0.0.1:9100/metrics"), "http://prom.example:9100/metrics");
        assert_eq!(global("http://db:9100/metrics"), "http://db:9100/metrics");
    }
}
