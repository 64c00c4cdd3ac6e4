//! The only HTTP server: Prometheus v1, Alertmanager v2, health, federation and self-metrics.
//!
//! Handlers hold an `Arc<Services>`; whatever blocks runs on tokio's blocking pool. Only this
//! module picks status codes.

pub mod alertmanager_v2;
pub mod params;
pub mod respond;
pub mod v1;

mod federate;
mod health;
mod home;
mod layers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::get;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::alerting;
use crate::base::clock::Clock;
use crate::base::metrics::Registry;
use crate::model::labels::Labels;
use crate::model::matcher::AnchoredRegex;
use crate::promql::engine::Engine;
use crate::promql::parser::ParserOptions;
use crate::remote::receive::Receiver;
use crate::rules;
use crate::scrape;
use crate::storage::Storage;

/// The Prometheus whose behaviour we promise; what clients see as our version.
pub const COMPATIBLE_VERSION: &str = "3.14.0";

/// What the server is told by flags.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--web.enable-lifecycle`
    pub enable_lifecycle: bool,
    /// `--web.enable-admin-api`
    pub enable_admin_api: bool,
    /// `--web.enable-remote-write-receiver`
    pub enable_remote_write_receiver: bool,
    /// Path before every route: empty, or with a leading and without a trailing slash.
    pub route_prefix: String,
    /// `--web.cors.origin`
    pub cors_origin: AnchoredRegex,
    /// Every flag with its value, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// Which parts of PromQL are switched on.
    pub parser: ParserOptions,
    /// Where this server is reached from outside, without a slash at the end.
    pub external_url: String,
    /// How far back `/federate` looks for the newest sample.
    pub lookback_delta_ms: i64,
}

/// What changes with each load of the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration as YAML, secrets hidden.
    pub config_yaml: String,
    /// Labels of this server, added to what leaves it.
    pub external_labels: Labels,
    /// Whether the newest reload went well.
    pub last_reload_succeeded: bool,
    /// When the configuration in force was loaded.
    pub config_time_ms: i64,
    /// Retention as text, like `15d`.
    pub retention: String,
}

/// Answer to a request for a reload: the error's text when it failed.
pub type ReloadAnswer = oneshot::Sender<Result<(), String>>;

/// How handlers speak to the server's main loop.
#[derive(Debug)]
pub struct Control {
    /// Whether requests are served; health is answered before.
    pub ready: AtomicBool,
    /// Asks for a reload.
    pub reload: mpsc::Sender<ReloadAnswer>,
    /// Asks for an orderly end.
    pub quit: Notify,
}

/// Everything that handlers need.
pub struct Services {
    /// Evaluates queries.
    pub engine: Arc<Engine>,
    /// The store.
    pub store: Arc<Storage>,
    /// Takes remote write.
    pub receiver: Receiver,
    /// Scrape pools.
    pub scrape: Arc<scrape::Manager>,
    /// Rule groups.
    pub rules: Arc<rules::Manager>,
    /// Sends to external Alertmanagers.
    pub notifier: Arc<rules::notifier::Notifier>,
    /// The built-in Alertmanager, when it is configured.
    pub alerting: Option<Arc<alerting::Manager>>,
    /// Self-metrics.
    pub metrics: Registry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The main loop.
    pub control: Control,
    /// Flags.
    pub options: Options,
    /// The configuration in force.
    pub loaded: ArcSwap<Loaded>,
    /// When this process began to serve.
    pub started_ms: i64,
}

/// Every route of the main listener.
pub fn router(services: &Arc<Services>) -> Router {
    let mut routes = Router::new()
        .nest("/api/v1", v1::router())
        .route("/federate", get(federate::federate))
        .route("/metrics", get(home::metrics))
        .route("/version", get(home::version))
        .route("/graph", get(home::graph))
        .route("/query", get(home::graph))
        .route("/", get(home::page))
        .with_state(Arc::clone(services));
    if let Some(alerting) = &services.alerting {
        let alertmanager = alertmanager_v2::router(Arc::clone(alerting));
        routes = routes.nest("/alertmanager/api/v2", alertmanager);
    }
    let gate = middleware::from_fn_with_state(Arc::clone(services), layers::gate);
    let routes = layers::wrap(routes.layer(gate).merge(health::router(services)), services);
    match services.options.route_prefix.as_str() {
        "" => routes.fallback(home::not_found),
        prefix => {
            let front = format!("{prefix}/");
            let to_front = Redirect::to(&front);
            let page = Router::new().route(&front, get(home::page)).with_state(services.clone());
            Router::new()
                .nest(prefix, routes)
                .merge(page)
                .route("/", get(async move || to_front))
                .fallback(home::not_found)
        }
    }
}

/// The routes of the second listener, where Alertmanager's own clients look.
pub fn alertmanager_router(services: &Arc<Services>, alerting: &Arc<alerting::Manager>) -> Router {
    let routes = Router::new()
        .route("/metrics", get(home::metrics))
        .with_state(Arc::clone(services))
        .nest("/api/v2", alertmanager_v2::router(Arc::clone(alerting)))
        .merge(health::router(services))
        .fallback(home::not_found);
    layers::wrap(routes, services)
}

/// Labels as a JSON object.
fn labels_json(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

/// A moment as the APIs print it; the extremes of `i64` are cut to what a date can be.
pub fn rfc3339(timestamp_ms: i64) -> String {
    let clamped = timestamp_ms
        .clamp(jiff::Timestamp::MIN.as_millisecond(), jiff::Timestamp::MAX.as_millisecond());
    jiff::Timestamp::from_millisecond(clamped).map_or_else(|_| String::new(), |t| t.to_string())
}

/// Like [`rfc3339`]; what Go prints for the zero moment when there was none.
fn rfc3339_or_never(timestamp_ms: Option<i64>) -> String {
    timestamp_ms.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_with_as_many_decimals_as_needed() {
        assert_eq!(rfc3339(1_500), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert!(rfc3339(i64::MIN).starts_with('-'));
    }
}
