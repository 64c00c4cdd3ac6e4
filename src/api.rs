//! The only HTTP server: Prometheus v1, Alertmanager v2, health, federation and self-metrics.
//!
//! Handlers hold an `Arc<Services>`; whatever blocks runs on tokio's blocking pool. Only this
//! module picks status codes.

pub mod alertmanager_v2;
pub mod params;
pub mod respond;
pub mod v1;
pub mod workers;

mod blocking;
mod compress;
mod federate;
mod health;
mod home;
mod layers;
pub mod notices;
pub mod quick;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::alerting;
use crate::base::clock::Clock;
use crate::base::metrics::Registry;
use crate::model::labels::Labels;
use crate::model::matcher::AnchoredRegex;
use crate::promql::engine::Engine;
use crate::promql::parser::ParserOptions;
use crate::remote::otlp;
use crate::remote::receive::Receiver;
use crate::rules;
use crate::scrape;
use crate::storage::Storage;
use crate::storage::options::StartTimestamps;
use notices::Notices;
use quick::Quick;
use workers::Workers;

/// The Prometheus whose behaviour we promise; what clients see as our version.
pub const COMPATIBLE_VERSION: &str = "3.14.0";

/// Limits of remote read, which flags set.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Samples of one answer that is not streamed; 0: any number.
    pub samples: usize,
    /// Requests at the same time; 0: any number.
    pub requests: usize,
    /// Bytes of a frame in a streamed answer.
    pub frame_bytes: usize,
}

impl ReadLimits {
    /// What lets so many requests in at the same time.
    pub fn gate(&self) -> Arc<Semaphore> {
        let places = match self.requests {
            0 => Semaphore::MAX_PERMITS,
            some => some.min(Semaphore::MAX_PERMITS),
        };
        Arc::new(Semaphore::new(places))
    }
}

/// What the server is told by flags.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--web.enable-lifecycle`
    pub enable_lifecycle: bool,
    /// `--web.enable-admin-api`
    pub enable_admin_api: bool,
    /// `--web.enable-remote-write-receiver`
    pub enable_remote_write_receiver: bool,
    /// `--web.enable-otlp-receiver`
    pub enable_otlp_receiver: bool,
    /// Path before every route: empty, or with a leading and without a trailing slash.
    pub route_prefix: String,
    /// `--web.cors.origin`
    pub cors_origin: AnchoredRegex,
    /// Every flag with its value, for `/api/v1/status/flags`.
    pub flags: BTreeMap<String, String>,
    /// Which parts of PromQL are switched on.
    pub parser: ParserOptions,
    /// `--enable-feature=promql-delayed-name-removal`
    pub delayed_name_removal: bool,
    /// `--enable-feature=type-and-unit-labels`
    pub type_and_unit_labels: bool,
    /// `--enable-feature=promql-per-step-stats`
    pub per_step_stats: bool,
    /// `--enable-feature=st-storage` and `created-timestamp-zero-ingestion`
    pub start_timestamps: StartTimestamps,
    /// Where this server is reached from outside, without a slash at the end.
    pub external_url: String,
    /// Limits of remote read.
    pub read_limits: ReadLimits,
    /// How far back `/federate` looks for the newest sample.
    pub lookback_delta_ms: i64,
}

/// What changes with each load of the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration as YAML, secrets hidden.
    pub config_yaml: String,
    /// The same for each scrape job, by name.
    pub scrape_yaml: BTreeMap<String, String>,
    /// Labels of this server, added to what leaves it.
    pub external_labels: Labels,
    /// Whether the newest reload went well.
    pub last_reload_succeeded: bool,
    /// How metrics of OpenTelemetry are named.
    pub otlp: Arc<otlp::Options>,
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

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Everything that handlers need.
pub struct Services {
    /// Evaluates queries.
    pub engine: Arc<Engine>,
    /// The store.
    pub store: Arc<Storage>,
    /// Takes remote write.
    pub receiver: Receiver,
    /// Takes metrics of OpenTelemetry.
    pub otlp: otlp::Receiver,
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
    /// Threads for what clients ask.
    pub workers: Workers,
    /// What need not wait for one of them.
    pub quick: Arc<Quick>,
    /// Places for remote reads.
    pub reads: Arc<Semaphore>,
    /// What people should know about this server.
    pub notices: Notices,
    /// The main loop.
    pub control: Control,
    /// Flags.
    pub options: Options,
    /// The configuration in force.
    pub loaded: ArcSwap<Loaded>,
    /// When this process began to serve.
    pub started_ms: i64,
}

#[cfg(test)]
impl Options {
    /// Everything that needs switching on is off.
    fn for_tests() -> Self {
        Self {
            enable_lifecycle: false,
            enable_admin_api: false,
            enable_remote_write_receiver: false,
            enable_otlp_receiver: false,
            route_prefix: String::new(),
            cors_origin: AnchoredRegex::new(".*").expect("a valid expression"),
            flags: BTreeMap::new(),
            parser: ParserOptions::ALL,
            delayed_name_removal: false,
            type_and_unit_labels: false,
            per_step_stats: false,
            start_timestamps: StartTimestamps::default(),
            external_url: "http://localhost:9090".to_owned(),
            read_limits: ReadLimits { samples: 0, requests: 1, frame_bytes: 1 << 20 },
            lookback_delta_ms: 300_000,
        }
    }
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
    let routes = layers::wrap(routes, open_router(services), services);
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

/// What is answered also while the server starts.
fn open_router(services: &Arc<Services>) -> Router {
    Router::new()
        .route("/api/v1/notifications", get(notices::list))
        .route("/api/v1/notifications/live", get(notices::live))
        .route("/api/v1/status/walreplay", get(v1::walreplay))
        .with_state(Arc::clone(services))
        .merge(health::router(services))
}

/// The routes of the second listener, where Alertmanager's own clients look.
pub fn alertmanager_router(services: &Arc<Services>, alerting: &Arc<alerting::Manager>) -> Router {
    let routes = Router::new()
        .route("/metrics", get(home::metrics))
        .with_state(Arc::clone(services))
        .nest("/api/v2", alertmanager_v2::router(Arc::clone(alerting)))
        .merge(health::router(services))
        .fallback(home::not_found);
    layers::wrap(Router::new(), routes, services)
}

/// Labels as a JSON object.
fn labels_json(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

/// External labels where the series has none of that name.
fn with_external_labels(labels: &Labels, external: &Labels) -> Labels {
    if external.is_empty() {
        return labels.clone();
    }
    let mut builder = labels.to_builder();
    for (name, value) in external.iter() {
        if builder.get(name).is_empty() {
            builder.set(name, value);
        }
    }
    builder.build()
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
