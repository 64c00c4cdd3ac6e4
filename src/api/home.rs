//! The front page, the version, and our own metrics.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde_json::json;

use super::params::Params;
use super::respond::text;
use super::{COMPATIBLE_VERSION, Services};
use crate::encoding::wire::{exposition, negotiate};

/// What the front page lists: path and what is there.
const PLACES: &[(&str, &str)] = &[
    ("/api/v1/query?query=up", "Prometheus API: instant query"),
    ("/api/v1/targets", "scrape targets"),
    ("/api/v1/rules", "rules and their state"),
    ("/api/v1/alerts", "active alerts of the rules"),
    ("/api/v1/status/config", "configuration in force"),
    ("/api/v1/status/flags", "flags"),
    ("/api/v1/status/tsdb", "the head's largest metrics and labels"),
    ("/alertmanager/api/v2/alerts", "Alertmanager API: alerts"),
    ("/alertmanager/api/v2/silences", "silences"),
    ("/federate?match[]=up", "federation"),
    ("/metrics", "metrics of this server"),
    ("/-/healthy", "health"),
    ("/-/ready", "readiness"),
];

pub(super) async fn page(State(services): State<Arc<Services>>) -> Html<String> {
    let prefix = &services.options.route_prefix;
    let mut items = String::new();
    for (path, what) in PLACES {
        let _ = writeln!(items, "<li><a href=\"{prefix}{path}\">{path}</a>: {what}</li>");
    }
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Narthex</title></head>\n\
         <body><h1>Narthex {}</h1>\n<p>What is here:</p>\n<ul>\n{items}</ul></body></html>\n",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Where links in alerts lead (`/graph?g0.expr=…`): the value of the expression now.
pub(super) async fn graph(State(services): State<Arc<Services>>, params: Params) -> Redirect {
    let prefix = &services.options.route_prefix;
    let expression = [params.get("g0.expr"), params.get("query")].concat();
    if expression.is_empty() {
        return Redirect::to(&format!("{prefix}/"));
    }
    let encoded: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
    Redirect::to(&format!("{prefix}/api/v1/query?query={encoded}"))
}

pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

pub(super) async fn version() -> Response {
    axum::Json(json!({ "version": COMPATIBLE_VERSION, "revision": env!("NARTHEX_REVISION") }))
        .into_response()
}

pub(super) async fn metrics(State(services): State<Arc<Services>>, headers: HeaderMap) -> Response {
    let families = services.metrics.gather();
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let format = negotiate::negotiate(accept);
    let body = exposition::write_families(&families, format);
    ([(header::CONTENT_TYPE, format.content_type())], body).into_response()
}
