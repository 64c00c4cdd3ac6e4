//! `/status/*`: what runs, since when, with which configuration.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::super::params::Params;
use super::super::respond::{ApiError, ApiResult, ErrorType, Success};
use super::super::{COMPATIBLE_VERSION, Services, rfc3339};
use super::answering;
use crate::promql::engine::ActiveQuery;
use crate::storage::stats::{NamedCount, SegmentSummary};

/// Most entries of one list in `/status/tsdb`.
const LIST_MAX: usize = 10_000;

pub(super) async fn build() -> ApiResult {
    // `version` tells clients which Prometheus they may take us for.
    Ok(Success::of(&json!({
        "version": COMPATIBLE_VERSION,
        "revision": env!("NARTHEX_REVISION"),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "application": "narthex",
        "applicationVersion": env!("CARGO_PKG_VERSION"),
    })))
}

pub(super) async fn runtime(State(services): State<Arc<Services>>) -> ApiResult {
    let loaded = services.loaded.load();
    let folder = std::env::current_dir().map(|path| path.display().to_string());
    let uname = rustix::system::uname();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Success::of(&json!({
        "startTime": rfc3339(services.started_ms),
        "CWD": folder.unwrap_or_default(),
        "hostname": uname.nodename().to_string_lossy(),
        "serverTime": rfc3339(services.clock.now_ms()),
        "reloadConfigSuccess": loaded.last_reload_succeeded,
        "lastConfigTime": rfc3339(loaded.config_time_ms),
        "corruptionCount": 0,
        "goroutineCount": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        "GOMAXPROCS": threads,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": loaded.retention,
    })))
}

pub(super) async fn config(State(services): State<Arc<Services>>) -> ApiResult {
    Ok(Success::of(&json!({ "yaml": services.loaded.load().config_yaml })))
}

pub(super) async fn flags(State(services): State<Arc<Services>>) -> ApiResult {
    Ok(Success::of(&services.options.flags))
}

/// Nothing is ever replayed: a start opens files.
pub(crate) async fn walreplay() -> ApiResult {
    Ok(Success::of(&json!({ "min": 0, "max": 0, "current": 0 })))
}

pub(super) async fn blocks(State(services): State<Arc<Services>>) -> ApiResult {
    let blocks: Vec<Value> = services.store.segments().iter().map(block_json).collect();
    Ok(Success::of(&json!({ "blocks": blocks })))
}

/// A segment as Prometheus shows a block; here the end is exclusive.
fn block_json(segment: &SegmentSummary) -> Value {
    let ulid = ulid(segment.max_ms, segment.id);
    json!({
        "ulid": ulid,
        "minTime": segment.min_ms,
        "maxTime": segment.max_ms.saturating_add(1),
        "stats": {
            "numSamples": segment.sample_count,
            "numSeries": segment.series_count,
            "numChunks": segment.chunk_count,
        },
        "compaction": { "level": u32::from(segment.level) + 1, "sources": [ulid] },
        "version": 1,
    })
}

/// 48 bits of time and the segment's number, in Crockford's base 32.
fn ulid(timestamp_ms: i64, id: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let time = u128::from(timestamp_ms.max(0) as u64 & ((1 << 48) - 1));
    let bits = (time << 80) | u128::from(id);
    let digit = |index: u32| DIGITS[(bits >> (5 * index)) as usize & 31] as char;
    (0..26).rev().map(digit).collect()
}

/// An extension: queries that run or wait for a place, oldest first.
pub(super) async fn active_queries(State(services): State<Arc<Services>>) -> ApiResult {
    let query = |own: ActiveQuery| {
        json!({
            "id": own.id,
            "query": own.query,
            "startTime": rfc3339(own.started_ms),
            "elapsedSeconds": own.elapsed.as_secs_f64(),
            "state": if own.waiting { "waiting" } else { "running" },
        })
    };
    let all: Vec<Value> = services.engine.active_queries().into_iter().map(query).collect();
    Ok(Success::of(&all))
}

/// An extension: ends one of them.
pub(super) async fn cancel_query(
    State(services): State<Arc<Services>>,
    Path(id): Path<String>,
) -> ApiResult {
    let number = id.parse().map_err(|_| ApiError::parameter("id", "not the number of a query"))?;
    if !services.engine.cancel_query(number) {
        let text = format!("no query {number} runs or waits");
        return Err(ApiError::new(ErrorType::NotFound, text));
    }
    Ok(Success::of(&json!({ "id": number })))
}

pub(super) async fn tsdb(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    let limit = params.count("limit", 10)?;
    if !(1..=LIST_MAX).contains(&limit) {
        let reason = format!("limit must be between 1 and {LIST_MAX}");
        return Err(ApiError::parameter("limit", reason));
    }
    answering(&Arc::clone(&services), move |_| {
        let stats = services.store.stats(limit);
        let list = |entries: &[NamedCount]| -> Vec<Value> {
            let entry = |e: &NamedCount| json!({ "name": e.name, "value": e.value });
            entries.iter().map(entry).collect()
        };
        Ok(Success::of(&json!({
            "headStats": {
                "numSeries": stats.num_series,
                "numLabelPairs": stats.num_label_pairs,
                "chunkCount": stats.chunk_count,
                "minTime": stats.min_time_ms,
                "maxTime": stats.max_time_ms,
            },
            "seriesCountByMetricName": list(&stats.series_count_by_metric_name),
            "labelValueCountByLabelName": list(&stats.label_value_count_by_label_name),
            "memoryInBytesByLabelName": list(&stats.memory_in_bytes_by_label_name),
            "seriesCountByLabelValuePair": list(&stats.series_count_by_label_value_pair),
        })))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_shown_as_blocks() {
        assert_eq!(ulid(0, 1), "00000000000000000000000001");
        assert_eq!(ulid(i64::MAX, u64::MAX), "7ZZZZZZZZZ000FZZZZZZZZZZZZ");
        let summary = SegmentSummary {
            id: 33,
            level: 1,
            min_ms: 5,
            max_ms: 9,
            series_count: 2,
            chunk_count: 3,
            sample_count: 4,
            bytes: 100,
        };
        let block = block_json(&summary);
        assert_eq!((&block["minTime"], &block["maxTime"]), (&json!(5), &json!(10)));
        assert_eq!(block["compaction"]["level"], 2);
        assert_eq!(block["ulid"], "00000000090000000000000011");
    }
}
