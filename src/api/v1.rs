//! Prometheus' HTTP API, version 1.

pub mod json;

mod admin;
mod features;
mod metadata;
mod otlp;
mod query;
mod read;
mod rules;
mod self_metrics;
mod status;
mod targets;
mod tree;
mod write;

pub(super) use status::walreplay;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, delete, get, post};

use super::Services;
use super::blocking::{answering, answering_soon, blocking};
use super::respond::{ApiError, ErrorType, text};

/// Routes under `/api/v1`.
pub fn router() -> Router<Arc<Services>> {
    let write_body = DefaultBodyLimit::max(crate::remote::receive::DECODED_BYTES_MAX);
    Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(query::exemplars).post(query::exemplars))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(query::parse).post(query::parse))
        .route("/series", get(metadata::series).post(metadata::series))
        .route("/labels", get(metadata::label_names).post(metadata::label_names))
        .route("/label/{name}/values", get(metadata::label_values))
        .route("/metadata", get(metadata::metadata))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(targets::metadata))
        .route("/targets/relabel_steps", get(targets::relabel_steps))
        .route("/scrape_pools", get(targets::pools))
        .route("/scrape_pools/config", get(targets::pool_config))
        .route("/alertmanagers", get(rules::alertmanagers))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/status/buildinfo", get(status::build))
        .route("/status/runtimeinfo", get(status::runtime))
        .route("/status/config", get(status::config))
        .route("/status/flags", get(status::flags))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/tsdb/blocks", get(status::blocks))
        .route("/status/self_metrics", get(self_metrics::self_metrics))
        .route("/features", get(features::features))
        .route("/read", post(read::read).layer(write_body))
        .route("/status/active_queries", get(status::active_queries))
        .route("/status/active_queries/{id}", delete(status::cancel_query))
        .route("/write", post(write::write).layer(write_body))
        .route("/otlp/v1/metrics", post(otlp::metrics).layer(write_body))
        .route("/admin/tsdb/compact", post(admin::compact).put(admin::compact))
        .route("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route(
            "/admin/tsdb/clean_tombstones",
            post(admin::clean_tombstones).put(admin::clean_tombstones),
        )
        .route("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .fallback(any(not_found))
        .method_not_allowed_fallback(method_not_allowed)
}

async fn not_found() -> ApiError {
    ApiError::new(ErrorType::NotFound, "path not found")
}

async fn method_not_allowed() -> Response {
    text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
}
