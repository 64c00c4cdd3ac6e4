//! `/series`, `/labels`, `/label/<name>/values`, `/metadata`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::super::Services;
use super::super::params::{Params, unescape_label_name};
use super::super::respond::{ApiError, ApiResult, Success};
use super::{answering_soon, json};
use crate::model::labels::{Labels, quote};
use crate::storage::select::{BLOCK_SERIES_MAX, Select, SelectHints};

/// Cuts a list to `limit` entries (0: all) and says so.
fn limited<T>(list: &mut Vec<T>, limit: usize) -> Vec<String> {
    if limit == 0 || list.len() <= limit {
        return Vec::new();
    }
    list.truncate(limit);
    vec!["results truncated due to limit".to_owned()]
}

pub(super) async fn series(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    let (range, limit) = (params.range()?, params.limit()?);
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let key = services.quick.key("series", &params, range);
    answering_soon(&Arc::clone(&services), key, move |thread, _| {
        let sets = params.matchers(thread, &services.options.parser)?;
        // One more than asked for tells whether anything was cut.
        let series_count_max = if limit == 0 { 0 } else { limit + 1 };
        let hints = SelectHints { series_count_max, labels_only: true };
        let mut found: Vec<Labels> = Vec::new();
        for matchers in &sets {
            let selection = services.store.select(matchers, range, &hints)?;
            for first in (0..selection.len()).step_by(BLOCK_SERIES_MAX) {
                let count = BLOCK_SERIES_MAX.min(selection.len() - first);
                found.extend_from_slice(&selection.block_labels(first as u32, count)?);
            }
        }
        if sets.len() > 1 {
            found.sort();
            found.dedup();
        }
        let warnings = limited(&mut found, limit);
        let answer = Success::written(json::labels_bytes(found.first()) * found.len(), |body| {
            json::push_list(body, &found, json::push_labels);
        });
        Ok(Some(answer.with_annotations(warnings, Vec::new())))
    })
    .await
}

pub(super) async fn label_names(
    State(services): State<Arc<Services>>,
    params: Params,
) -> ApiResult {
    let (range, limit) = (params.range()?, params.limit()?);
    let key = services.quick.key("labels", &params, range);
    answering_soon(&Arc::clone(&services), key, move |thread, _| {
        let sets = params.matchers(thread, &services.options.parser)?;
        let mut names = services.store.label_names(&sets, range)?;
        let warnings = limited(&mut names, limit);
        Ok(Some(Success::of(&names).with_annotations(warnings, Vec::new())))
    })
    .await
}

pub(super) async fn label_values(
    State(services): State<Arc<Services>>,
    Path(raw_name): Path<String>,
    params: Params,
) -> ApiResult {
    let name = unescape_label_name(&raw_name);
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {}", quote(&name))));
    }
    let (range, limit) = (params.range()?, params.limit()?);
    let path = format!("label/{name}");
    let key = services.quick.key(&path, &params, range);
    answering_soon(&Arc::clone(&services), key, move |thread, _| {
        let sets = params.matchers(thread, &services.options.parser)?;
        let mut values = services.store.label_values(&name, &sets, range)?;
        let warnings = limited(&mut values, limit);
        Ok(Some(Success::of(&values).with_annotations(warnings, Vec::new())))
    })
    .await
}

pub(super) async fn metadata(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    let limit = params.open_count("limit")?;
    let limit_per_metric = params.open_count("limit_per_metric")?.filter(|limit| 0 < *limit);
    let metric = params.get("metric");
    let known = services.store.metadata((!metric.is_empty()).then_some(metric));
    let mut by_metric: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (name, metadata) in known {
        if limit.is_some_and(|limit| limit <= by_metric.len()) && !by_metric.contains_key(&name) {
            break;
        }
        let entries = by_metric.entry(name).or_default();
        if limit_per_metric.is_none_or(|limit| entries.len() < limit) {
            entries.push(json!({
                "type": metadata.metric_type.as_str(),
                "help": metadata.help,
                "unit": metadata.unit,
            }));
        }
    }
    Ok(Success::of(&by_metric))
}
