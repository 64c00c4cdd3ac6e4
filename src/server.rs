//! Wiring: builds every module from flags and configuration, serves, reloads and shuts down.
//!
//! Order of life: configuration, listeners bound, store opened, managers, ready. The way back is
//! the reverse: no more requests, no more scrapes and rules, alerts drained, store closed.

pub mod logging;

mod assembly;
mod listen;
mod process_metrics;
mod reload;
mod sinks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::api::notices::{STARTING, STOPPING};
use crate::api::{self, ReadLimits, ReloadAnswer, Services};
use crate::base::clock::{Clock, OsClock};
use crate::base::disk::{Disk, OsDisk};
use crate::base::rng::{OsRng, Rng};
use crate::model::matcher::AnchoredRegex;
use crate::promql::parser::{ParserOptions, STACK_BYTES};
use crate::storage::options::{StartTimestamps, WalSync};
use assembly::Assembly;
use listen::Listener;
use logging::{LogFormat, LogLevel};
use reload::Configuration;

/// Longest wait for requests that are still running when the server stops.
const REQUESTS_GRACE: Duration = Duration::from_secs(10);

/// Everything that the command line says.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is a flag; `cli::flags` has the help texts")]
pub struct Options {
    pub config_file: PathBuf,
    pub alertmanager_config_file: Option<PathBuf>,
    pub alertmanager_listen_address: Option<String>,
    pub notification_queue_capacity: usize,
    pub notification_batch_size: usize,
    pub listen_addresses: Vec<String>,
    pub external_url: String,
    pub route_prefix: String,
    pub cors_origin: AnchoredRegex,
    pub connections_max: usize,
    pub read_timeout: Duration,
    pub enable_lifecycle: bool,
    pub enable_admin_api: bool,
    pub enable_remote_write_receiver: bool,
    pub enable_otlp_receiver: bool,
    pub read_limits: ReadLimits,
    pub storage_path: PathBuf,
    pub retention_time: Option<Duration>,
    pub retention_bytes: Option<u64>,
    pub wal_sync: WalSync,
    pub for_outage_tolerance: Duration,
    pub for_grace_period: Duration,
    pub resend_delay: Duration,
    pub lookback_delta: Duration,
    pub query_timeout: Duration,
    pub query_max_concurrency: usize,
    pub query_max_samples: u64,
    /// Bytes that one query may hold in memory.
    pub query_max_bytes: u64,
    pub features: Features,
    pub unknown_features: Vec<String>,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub flags: BTreeMap<String, String>,
}

/// What `--enable-feature` switches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Which parts of PromQL are understood.
    pub parser: ParserOptions,
    /// `promql-delayed-name-removal`
    pub delayed_name_removal: bool,
    /// `type-and-unit-labels`
    pub type_and_unit_labels: bool,
    /// `use-start-timestamps`
    pub use_start_timestamps: bool,
    /// `st-storage` and `created-timestamp-zero-ingestion`
    pub start_timestamps: StartTimestamps,
    /// `promql-per-step-stats`
    pub per_step_stats: bool,
    /// `extra-scrape-metrics`
    pub extra_scrape_metrics: bool,
}

/// Features of Prometheus that are always on here, or have nothing to switch.
const FEATURES_WITHOUT_EFFECT: &[&str] = &[
    "auto-reload-config",
    "concurrent-rule-eval",
    "delayed-compaction",
    "exemplar-storage",
    "fast-startup",
    "histograms-st-encoding",
    "memory-snapshot-on-shutdown",
    "metadata-wal-records",
    "native-histograms",
    "new-service-discovery-manager",
    "ooo-native-histograms",
    "promql-at-modifier",
    "promql-duration-expr",
    "promql-negative-offset",
    "use-uncached-io",
    "xor2-encoding",
];

impl Features {
    /// The features of these names, and the names that are unknown.
    pub fn parse(names: &[String]) -> (Self, Vec<String>) {
        let mut features = Self {
            parser: ParserOptions {
                experimental_functions: false,
                duration_expressions: true,
                extended_range_selectors: false,
                binop_fill_modifiers: false,
            },
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
            start_timestamps: StartTimestamps::default(),
            per_step_stats: false,
            extra_scrape_metrics: false,
        };
        let mut unknown = Vec::new();
        for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            match name {
                "promql-experimental-functions" => features.parser.experimental_functions = true,
                "promql-extended-range-selectors" => {
                    features.parser.extended_range_selectors = true;
                }
                "promql-binop-fill-modifiers" => features.parser.binop_fill_modifiers = true,
                "promql-delayed-name-removal" => features.delayed_name_removal = true,
                "type-and-unit-labels" => features.type_and_unit_labels = true,
                "st-storage" => features.start_timestamps.are_kept = true,
                "created-timestamp-zero-ingestion" => {
                    features.start_timestamps.begin_with_zero = true;
                }
                "use-start-timestamps" => features.use_start_timestamps = true,
                "promql-per-step-stats" => features.per_step_stats = true,
                "extra-scrape-metrics" => features.extra_scrape_metrics = true,
                _ if FEATURES_WITHOUT_EFFECT.contains(&name) => {}
                _ => unknown.push(name.to_owned()),
            }
        }
        (features, unknown)
    }
}

/// Why the server ended before it was asked to.
#[derive(Debug)]
pub enum RunError {
    /// Flags or files are wrong; nothing was started.
    Configuration(anyhow::Error),
    /// Anything else.
    Failed(anyhow::Error),
}

/// What every part stands on.
#[derive(Clone)]
struct Ground {
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    rng: Arc<dyn Rng>,
}

/// Serves until a signal or a request ends it. Blocks.
///
/// # Errors
/// See [`RunError`].
pub fn run(options: Options) -> Result<(), RunError> {
    let ground =
        Ground { clock: Arc::new(OsClock::new()), disk: Arc::new(OsDisk), rng: Arc::new(OsRng) };
    logging::init(Arc::clone(&ground.clock), options.log_level, options.log_format);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("NARTHEX_REVISION"),
        "Starting Narthex."
    );
    for name in &options.unknown_features {
        warn!(feature = %name, "Unknown feature is ignored.");
    }
    let configuration =
        Configuration::load(&*ground.disk, &options).map_err(RunError::Configuration)?;
    // With two of them one is there for everybody else while the other answers what is quick.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder
        .enable_all()
        .worker_threads(threads)
        .thread_stack_size(STACK_BYTES)
        .build()
        .context("start the async runtime");
    let runtime = runtime.map_err(RunError::Failed)?;
    let result = runtime.block_on(serve(options, ground, configuration));
    // Whatever still blocks (a query that was not told to stop) must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map_err(RunError::Failed)
}

async fn serve(
    options: Options,
    ground: Ground,
    configuration: Configuration,
) -> anyhow::Result<()> {
    let bind = |address| Listener::bind(address, options.connections_max, options.read_timeout);
    let mut listeners = Vec::new();
    for address in &options.listen_addresses {
        listeners.push(bind(address).await?);
    }
    let alertmanager_listener = match &options.alertmanager_listen_address {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let (reload_sender, reloads) = mpsc::channel(1);
    let assembly = Assembly::build(&options, ground, configuration, reload_sender)?;
    let services = Arc::clone(&assembly.services);
    services.notices.add(STARTING, services.clock.now_ms());

    let (stop, stopping) = watch::channel(false);
    let mut servers = Vec::new();
    let router = api::router(&services);
    for listener in listeners {
        info!(address = %listener.address(), "Listening.");
        servers.push(tokio::spawn(listener.serve(router.clone(), stopping.clone())));
    }
    if let Some(listener) = alertmanager_listener {
        let alerting = services.alerting.as_ref().ok_or_else(|| {
            anyhow!("--alertmanager.listen-address needs --alertmanager.config.file")
        })?;
        info!(address = %listener.address(), "Listening for Alertmanager clients.");
        let router = api::alertmanager_router(&services, alerting);
        servers.push(tokio::spawn(listener.serve(router, stopping)));
    }
    let running = assembly.start(&options)?;
    services.control.ready.store(true, Ordering::Release);
    services.notices.remove(STARTING);
    info!("Server is ready to receive web requests.");

    let result = wait_until_told(&options, &assembly, reloads).await;

    info!("Stopping.");
    services.control.ready.store(false, Ordering::Release);
    services.notices.add(STOPPING, services.clock.now_ms());
    services.notices.close();
    stop.send_replace(true);
    running.stop_producing(&assembly).await;
    let drained = futures_util::future::join_all(servers);
    if tokio::time::timeout(REQUESTS_GRACE, drained).await.is_err() {
        warn!("Some requests did not end in time.");
    }
    running.stop_alerting().await;
    close(services).await;
    info!("See you next time!");
    result
}

/// Answers reloads until a signal or a request asks for the end.
async fn wait_until_told(
    options: &Options,
    assembly: &Assembly,
    mut reloads: mpsc::Receiver<ReloadAnswer>,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = assembly.services.control.quit.notified() => {}
        }
    };
    tokio::pin!(stop);
    loop {
        let answer = tokio::select! {
            () = &mut stop => return Ok(()),
            _ = hangup.recv() => None,
            Some(answer) = reloads.recv() => Some(answer),
        };
        let result = tokio::select! {
            () = &mut stop => return Ok(()),
            result = assembly.reload(options) => result,
        };
        // After a signal, the log and a metric tell how it went.
        if let Some(answer) = answer {
            let _ = answer.send(result.map_err(|err| format!("{err:#}")));
        }
    }
}

async fn close(services: Arc<Services>) {
    let closed = tokio::task::spawn_blocking(move || services.store.close()).await;
    if closed.is_err() {
        error!("Closing the store panicked.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_switched_and_unknown_ones_told() {
        let names = ["promql-experimental-functions", "native-histograms", " x-ray", ""];
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (features, unknown) = Features::parse(&names);
        assert!(features.parser.experimental_functions && !features.delayed_name_removal);
        assert_eq!(unknown, ["x-ray"]);
    }
}
