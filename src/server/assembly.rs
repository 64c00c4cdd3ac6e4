//! All modules of one server, put together; starting, reloading and stopping them.

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::reload::Configuration;
use super::sinks::{Preparation, Sinks};
use super::{Ground, Options, process_metrics};
use crate::alerting;
use crate::api::notices::{Notices, RELOAD_FAILED};
use crate::api::quick::Quick;
use crate::api::workers::Workers;
use crate::api::{self, COMPATIBLE_VERSION, Control, Loaded, ReloadAnswer, Services};
use crate::base::log_file::LogFile;
use crate::base::metrics::{Number, Registry};
use crate::discovery;
use crate::promql::engine::{Engine, EngineOptions, QueryLog};
use crate::remote::otlp;
use crate::remote::receive::Receiver;
use crate::rules;
use crate::rules::notifier::Notifier;
use crate::scrape;
use crate::storage;
use crate::storage::Storage;
use crate::storage::select::Select;

/// A log file is closed and sealed when it is this long …
const LOG_FILE_BYTES_MAX: u64 = 128 << 20;
/// … or this old.
const LOG_FILE_AGE_MAX_MS: i64 = 30 * 60_000;
/// How far ahead of the clock samples may be, as in Prometheus.
const FUTURE_MS_MAX: i64 = 10 * 60_000;
/// Gives way when the disk is full.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// How this server calls itself as a client. Exporters see who scrapes.
const USER_AGENT: &str = concat!("Narthex/", env!("CARGO_PKG_VERSION"));

/// Everything that lives as long as the server.
pub(super) struct Assembly {
    pub services: Arc<Services>,
    ground: Ground,
    scrape_discovery: Arc<discovery::Manager>,
    alertmanager_discovery: Arc<discovery::Manager>,
    out_of_order_window_ms: Arc<AtomicI64>,
    evaluation_interval_ms: Arc<AtomicI64>,
    preparation: Arc<ArcSwap<Preparation>>,
    reload_metrics: ReloadMetrics,
    query_log: Arc<QueryLog>,
    initial: Configuration,
}

struct ReloadMetrics {
    successful: Number,
    success_timestamp: Number,
}

/// Tasks that run until the server stops.
pub(super) struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    alerting: Option<JoinHandle<()>>,
    stop_alerting: watch::Sender<bool>,
}

fn engine_options(options: &Options, default_subquery_step_ms: &Arc<AtomicI64>) -> EngineOptions {
    EngineOptions {
        lookback_delta_ms: options.lookback_delta.as_millis() as i64,
        max_samples: options.query_max_samples,
        max_bytes: options.query_max_bytes,
        timeout: options.query_timeout,
        max_concurrency: options.query_max_concurrency,
        helper_threads: std::thread::available_parallelism().map_or(1, NonZero::get) - 1,
        default_subquery_step_ms: Arc::clone(default_subquery_step_ms),
        parser: options.features.parser,
        delayed_name_removal: options.features.delayed_name_removal,
        type_and_unit_labels: options.features.type_and_unit_labels,
        use_start_timestamps: options.features.use_start_timestamps,
    }
}

fn api_options(options: &Options) -> api::Options {
    api::Options {
        enable_lifecycle: options.enable_lifecycle,
        enable_admin_api: options.enable_admin_api,
        enable_remote_write_receiver: options.enable_remote_write_receiver,
        enable_otlp_receiver: options.enable_otlp_receiver,
        route_prefix: options.route_prefix.clone(),
        cors_origin: options.cors_origin.clone(),
        flags: options.flags.clone(),
        parser: options.features.parser,
        delayed_name_removal: options.features.delayed_name_removal,
        type_and_unit_labels: options.features.type_and_unit_labels,
        per_step_stats: options.features.per_step_stats,
        start_timestamps: options.features.start_timestamps,
        external_url: options.external_url.clone(),
        read_limits: options.read_limits,
        lookback_delta_ms: options.lookback_delta.as_millis() as i64,
    }
}

fn rules_options(options: &Options, configuration: &Configuration) -> rules::Options {
    rules::Options {
        external_labels: configuration.config.external_labels(),
        external_url: options.external_url.clone(),
        for_outage_tolerance_ms: options.for_outage_tolerance.as_millis() as i64,
        for_grace_period_ms: options.for_grace_period.as_millis() as i64,
        resend_delay_ms: options.resend_delay.as_millis() as i64,
    }
}

fn loaded(options: &Options, configuration: &Configuration, now_ms: i64) -> Loaded {
    Loaded {
        config_yaml: configuration.config.to_yaml_redacted(),
        scrape_yaml: configuration.config.scrape_yaml_redacted(),
        external_labels: configuration.config.external_labels(),
        last_reload_succeeded: true,
        otlp: Arc::new(configuration.config.otlp(
            options.lookback_delta.as_millis() as i64,
            options.features.type_and_unit_labels,
        )),
        config_time_ms: now_ms,
        retention: configuration.retention_text(options),
    }
}

fn preparation(configuration: &Configuration) -> Preparation {
    Preparation {
        external_labels: configuration.config.external_labels(),
        relabel_rules: configuration.config.alert_relabel_rules(),
    }
}

fn reload_metrics(registry: &Registry) -> ReloadMetrics {
    let build = registry.gauges(
        "prometheus_build_info",
        "A metric with a constant '1' value labeled by version and revision.",
        &["version", "revision", "branch", "goversion"],
    );
    build.with(&[COMPATIBLE_VERSION, env!("NARTHEX_REVISION"), "", ""]).set(1.0);
    let own = registry.gauges(
        "narthex_build_info",
        "A metric with a constant '1' value labeled by version and revision.",
        &["version", "revision"],
    );
    own.with(&[env!("CARGO_PKG_VERSION"), env!("NARTHEX_REVISION")]).set(1.0);
    ReloadMetrics {
        successful: registry.gauge(
            "prometheus_config_last_reload_successful",
            "Whether the last configuration reload attempt was successful.",
        ),
        success_timestamp: registry.gauge(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "Timestamp of the last successful configuration reload.",
        ),
    }
}

fn open_store(
    options: &Options,
    ground: &Ground,
    registry: &Registry,
    configuration: &Configuration,
    out_of_order_window_ms: &Arc<AtomicI64>,
) -> anyhow::Result<Arc<Storage>> {
    let storage_options = storage::options::Options {
        path: options.storage_path.clone(),
        retention: configuration.retention(options),
        limits: configuration.config.storage().limits,
        reserve_bytes_max: RESERVE_BYTES_MAX,
        out_of_order_window_ms: Arc::clone(out_of_order_window_ms),
        wal_sync: options.wal_sync,
        log_file_bytes_max: LOG_FILE_BYTES_MAX,
        log_file_age_max_ms: LOG_FILE_AGE_MAX_MS,
        future_ms_max: FUTURE_MS_MAX,
        start_timestamps: options.features.start_timestamps,
    };
    let (disk, clock, rng) = (ground.disk.clone(), ground.clock.clone(), ground.rng.clone());
    Storage::open(disk, clock, rng, registry, storage_options).context("open the data directory")
}

fn open_alerting(
    folder: &Path,
    ground: &Ground,
    registry: &Registry,
    configuration: &Configuration,
) -> anyhow::Result<Option<Arc<alerting::Manager>>> {
    let Some(options) = configuration.alerting.clone() else { return Ok(None) };
    let alerting_ground = alerting::manager::Ground {
        disk: ground.disk.clone(),
        clock: ground.clock.clone(),
        rng: ground.rng.clone(),
        registry: registry.clone(),
    };
    let opened = alerting::Manager::open(alerting_ground, &folder.join("alerting"), options);
    Ok(Some(opened.context("open the state of the Alertmanager")?))
}

/// Opened anew with each configuration, so that a file that was moved away is let go.
fn open_query_log(
    configuration: &Configuration,
) -> anyhow::Result<Option<Box<dyn std::io::Write + Send>>> {
    let Some(path) = configuration.config.query_log_file() else { return Ok(None) };
    let file =
        LogFile::open(&path).with_context(|| format!("open the query log {}", path.display()))?;
    Ok(Some(Box::new(file)))
}

/// Must be called within the runtime.
fn new_notifier(
    options: &Options,
    ground: &Ground,
    registry: &Registry,
    configuration: &Configuration,
) -> anyhow::Result<Arc<Notifier>> {
    let (clock, runtime) = (ground.clock.clone(), tokio::runtime::Handle::current());
    let own = configuration.notifier(options);
    Notifier::new(registry, clock, runtime, USER_AGENT, own)
        .context("set up clients of Alertmanagers")
}

impl Assembly {
    /// Opens the store and makes every module; nothing runs yet. Blocks on the disk; must be
    /// called within the runtime.
    pub(super) fn build(
        options: &Options,
        ground: Ground,
        configuration: Configuration,
        reload: mpsc::Sender<ReloadAnswer>,
    ) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let (clock, now_ms) = (ground.clock.clone(), ground.clock.now_ms());
        process_metrics::register(&registry, ground.disk.clone(), now_ms);
        let reload_metrics = reload_metrics(&registry);
        let out_of_order_window_ms = Arc::new(AtomicI64::new(0));
        let evaluation_interval_ms = Arc::new(AtomicI64::new(0));
        set_intervals(&configuration, &out_of_order_window_ms, &evaluation_interval_ms);
        let store =
            open_store(options, &ground, &registry, &configuration, &out_of_order_window_ms)?;
        store.set_exemplars_max(configuration.config.storage().exemplars_max);
        let alerting = open_alerting(&options.storage_path, &ground, &registry, &configuration)?;

        let query_log = Arc::new(QueryLog::new(&registry));
        let engine = || {
            let select: Arc<dyn Select> = store.clone();
            let options = engine_options(options, &evaluation_interval_ms);
            let engine = Engine::new(select, clock.clone(), &registry, options);
            Arc::new(engine.with_log(query_log.clone()))
        };
        let notifier = new_notifier(options, &ground, &registry, &configuration)?;
        let preparation = Arc::new(ArcSwap::from_pointee(preparation(&configuration)));
        let sinks = Sinks::new(notifier.clone(), alerting.as_ref(), preparation.clone(), &registry)
            .context("start the thread that hands alerts over")?;
        let stores = rules::Stores {
            engine: engine(),
            select: store.clone(),
            appender: store.clone(),
            sink: Arc::new(sinks),
        };
        let rules_options = rules_options(options, &configuration);
        let rules = rules::Manager::new(stores, clock.clone(), &registry, rules_options);
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let scrape_options = scrape::ManagerOptions { user_agent: USER_AGENT.to_owned(), hostname };
        let scrape = scrape::Manager::new(store.clone(), clock.clone(), &registry, scrape_options);
        let discovery = |name| Arc::new(discovery::Manager::new(name, clock.clone(), &registry));
        let (scrape_discovery, alertmanager_discovery) = (discovery("scrape"), discovery("notify"));
        let quick = Arc::new(Quick::of_runtime(clock.clone()));
        let services = Arc::new(Services {
            engine: engine(),
            store: store.clone(),
            otlp: otlp::Receiver::new(store.clone(), &registry),
            receiver: Receiver::new(store, &registry),
            scrape: Arc::new(scrape),
            rules,
            notifier,
            alerting,
            metrics: registry,
            clock,
            workers: Workers::default(),
            quick,
            reads: options.read_limits.gate(),
            notices: Notices::default(),
            control: Control { ready: AtomicBool::new(false), reload, quit: Notify::new() },
            options: api_options(options),
            loaded: ArcSwap::from_pointee(loaded(options, &configuration, now_ms)),
            started_ms: now_ms,
        });
        Ok(Self {
            services,
            ground,
            scrape_discovery,
            alertmanager_discovery,
            out_of_order_window_ms,
            evaluation_interval_ms,
            preparation,
            reload_metrics,
            query_log,
            initial: configuration,
        })
    }

    /// Applies the first configuration and starts all loops.
    pub(super) fn start(&self, options: &Options) -> anyhow::Result<Running> {
        let services = &self.services;
        let (stop, stopping) = watch::channel(false);
        let (stop_alerting, alerting_stopping) = watch::channel(false);
        let mut tasks = Vec::new();
        // Subscribed before anything is applied, so that the first targets are seen as a change.
        let scrape = services.scrape.clone();
        let targets = self.scrape_discovery.targets();
        tasks.push(tokio::spawn(async move { scrape.run(targets).await }));
        self.apply(options, &self.initial).context("apply the configuration")?;
        let notifier = services.notifier.clone();
        let mut targets = self.alertmanager_discovery.targets();
        let mut stopped = stopping.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                let sets = targets.borrow_and_update().clone();
                notifier.update_targets(&sets);
                tokio::select! {
                    changed = targets.changed() => if changed.is_err() { return },
                    _ = stopped.wait_for(|stop| *stop) => return,
                }
            }
        }));
        services.rules.run().context("start the thread of the rules")?;
        let alerting = services.alerting.clone().map(|alerting| {
            let mut stopped = alerting_stopping;
            tokio::spawn(async move {
                let told = async move {
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                alerting.run(told).await;
            })
        });
        Ok(Running { stop, tasks, alerting, stop_alerting })
    }

    /// Reads all files again and applies them; a bad file changes nothing.
    pub(super) async fn reload(&self, options: &Options) -> anyhow::Result<()> {
        info!(file = %options.config_file.display(), "Loading configuration file.");
        let (disk, for_loading) = (self.ground.disk.clone(), options.clone());
        let load = move || Configuration::load(&*disk, &for_loading);
        let read = tokio::task::spawn_blocking(load).await.context("load the configuration")?;
        let result = read.and_then(|configuration| self.apply(options, &configuration));
        if let Err(err) = &result {
            error!(error = %format!("{err:#}"), "Error reloading config.");
            self.reload_metrics.successful.set(0.0);
            if let Some(alerting) = &self.services.alerting {
                alerting.reload_failed();
            }
            let mut failed = Loaded::clone(&self.services.loaded.load());
            failed.last_reload_succeeded = false;
            self.services.loaded.store(Arc::new(failed));
            self.services.notices.add(RELOAD_FAILED, self.ground.clock.now_ms());
        } else {
            self.services.notices.remove(RELOAD_FAILED);
        }
        result
    }

    fn apply(&self, options: &Options, configuration: &Configuration) -> anyhow::Result<()> {
        let services = &self.services;
        // What can fail comes first, so that a failure leaves as much as possible as it was.
        services.notifier.apply(configuration.notifier(options)).context("set up Alertmanagers")?;
        if let (Some(alerting), Some(new)) = (&services.alerting, &configuration.alerting) {
            alerting.reload(new.clone()).context("set up the built-in Alertmanager")?;
        }
        let query_log = open_query_log(configuration)?;
        let external_labels = configuration.config.external_labels();
        let jobs = configuration.scrape_jobs(options);
        if let Err(errors) = services.scrape.apply(jobs, &external_labels) {
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            anyhow::bail!("{}", texts.join("; "));
        }
        self.query_log.set(query_log);
        set_intervals(configuration, &self.out_of_order_window_ms, &self.evaluation_interval_ms);
        services.store.set_retention(configuration.retention(options));
        services.store.set_limits(configuration.config.storage().limits);
        services.store.set_exemplars_max(configuration.config.storage().exemplars_max);
        self.preparation.store(Arc::new(preparation(configuration)));
        self.scrape_discovery.apply(configuration.config.scrape_discovery().clone());
        self.alertmanager_discovery.apply(configuration.config.alertmanager_discovery());
        services.rules.apply(external_labels, configuration.groups.clone());
        let now_ms = services.clock.now_ms();
        services.loaded.store(Arc::new(loaded(options, configuration, now_ms)));
        self.reload_metrics.successful.set(1.0);
        self.reload_metrics.success_timestamp.set(now_ms as f64 / 1000.0);
        info!("Completed loading of configuration file.");
        Ok(())
    }
}

fn set_intervals(configuration: &Configuration, window_ms: &AtomicI64, evaluation_ms: &AtomicI64) {
    let window = configuration.config.storage().out_of_order_window;
    window_ms.store(window.as_millis() as i64, Ordering::Relaxed);
    evaluation_ms.store(configuration.config.evaluation_interval_ms(), Ordering::Relaxed);
}

impl Running {
    /// Ends scraping and rules, so that nothing new arises.
    pub(super) async fn stop_producing(&self, assembly: &Assembly) {
        let services = &assembly.services;
        services.engine.cancel_queries();
        services.rules.cancel();
        self.stop.send_replace(true);
        services.scrape.shutdown().await;
        let rules = services.rules.clone();
        if tokio::task::spawn_blocking(move || rules.shutdown()).await.is_err() {
            error!("Stopping the rules panicked.");
        }
        services.notifier.shutdown().await;
    }

    /// Ends the built-in Alertmanager after what it is sending has left.
    pub(super) async fn stop_alerting(self) {
        self.stop_alerting.send_replace(true);
        for task in self.tasks.into_iter().chain(self.alerting) {
            if task.await.is_err() {
                error!("A task panicked.");
            }
        }
    }
}
