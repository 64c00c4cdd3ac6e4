//! `/targets`, `/targets/metadata`, `/scrape_pools`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::super::params::Params;
use super::super::respond::{ApiError, ApiResult, Success};
use super::super::{Services, labels_json, rfc3339_or_never};
use crate::model::duration;
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
    let (metric, limit) = (params.get("metric"), params.limit()?);
    let matchers = match params.get("match_target") {
        "" => Vec::new(),
        text => parser::parse_metric_selector(text, &services.options.parser)
            .map_err(|err| ApiError::parameter("match_target", err))?,
    };
    let mut found = Vec::new();
    for entry in services.scrape.metadata() {
        let labels = &entry.target_labels;
        let target_matches = matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or("")));
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
        let kind = super::super::respond::ErrorType::NotFound;
        return Err(ApiError::new(kind, "specified metadata not found"));
    }
    Ok(Success::of(&found))
}

pub(super) async fn pools(State(services): State<Arc<Services>>) -> ApiResult {
    let mut names: Vec<String> = services.scrape.status().into_iter().map(|p| p.name).collect();
    names.sort();
    Ok(Success::of(&json!({ "scrapePools": names })))
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
