//! `/federate`: the newest sample of each matching series, in an exposition format.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::blocking::answering;
use super::params::Params;
use super::respond::{ApiError, text};
use super::{Services, with_external_labels};
use crate::encoding::wire::exposition::{self, FederatedSample};
use crate::encoding::wire::negotiate;
use crate::model::matcher::Matcher;
use crate::model::sample::{TimeRange, is_stale_nan};
use crate::promql::parser::parse_any_selector;
use crate::storage::select::{BLOCK_SERIES_MAX, Column, Select, SelectHints, SeriesColumns};

pub(super) async fn federate(
    State(services): State<Arc<Services>>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let format = negotiate::negotiate(accept);
    let answered = Arc::clone(&services);
    let collected = answering(&answered, move |thread| {
        // Selectors may match everything here, and what is wrong with them is told bare.
        let parse = |text: &str| parse_any_selector(text, &services.options.parser);
        let refused = |err: &dyn std::fmt::Display| ApiError::bad_data(err.to_string());
        let sets = thread.selectors(params.all("match[]"), parse, refused)?;
        let samples = newest_samples(&services, &sets)?;
        Ok(exposition::write_federation(&samples, format))
    });
    match collected.await {
        Ok(body) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(err) => text(err.kind.status(), err.text),
    }
}

fn newest_samples(
    services: &Services,
    sets: &[Vec<Matcher>],
) -> Result<Vec<FederatedSample>, ApiError> {
    let now_ms = services.clock.now_ms();
    let range =
        TimeRange { min_ms: now_ms - services.options.lookback_delta_ms + 1, max_ms: now_ms };
    let external = services.loaded.load().external_labels.clone();
    let mut samples = Vec::new();
    for matchers in sets {
        let selection = services.store.select(matchers, range, &SelectHints::default())?;
        for first in (0..selection.len()).step_by(BLOCK_SERIES_MAX) {
            let count = BLOCK_SERIES_MAX.min(selection.len() - first);
            let block = selection.block(first as u32, count)?;
            let all = selection.block_labels(first as u32, count)?;
            for (labels, columns) in all.iter().zip(&block.series) {
                let Some((timestamp_ms, value)) = newest(columns) else { continue };
                if !labels.name().is_empty() {
                    let labels = with_external_labels(labels, &external);
                    samples.push(FederatedSample { labels, value, timestamp_ms });
                }
            }
        }
    }
    samples.sort_by(|a, b| (a.labels.name(), &a.labels).cmp(&(b.labels.name(), &b.labels)));
    samples.dedup_by(|a, b| a.labels == b.labels);
    Ok(samples)
}

/// The last sample, unless it says that the series ended.
fn newest(columns: &SeriesColumns) -> Option<(i64, f64)> {
    let run = columns.runs.last()?;
    let Column::Floats(values) = &run.values else { return None };
    let sample = (*run.timestamps_ms.last()?, *values.last()?);
    (!is_stale_nan(sample.1)).then_some(sample)
}
