//! Drives the pipeline: wakes it when something is due, carries messages out, keeps the log.
//!
//! All methods but [`Manager::run`] may block on the disk; async callers use a blocking thread.
//! Locks are taken in the order pipeline, log; the pipeline is released before the disk is waited
//! for, so reads go on meanwhile.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::{error, warn};

use crate::alerting::Options;
use crate::alerting::alerts::AlertError;
use crate::alerting::metrics::Metrics;
use crate::alerting::pipeline::{
    AlertFilter, AlertView, Attempt, Change, GroupView, Outcome, Pipeline,
};
use crate::alerting::receiver::Integration;
use crate::alerting::silence::{Silence, SilenceError};
use crate::alerting::state::{StateError, StateLog};
use crate::base::clock::Clock;
use crate::base::disk::Disk;
use crate::base::metrics::{Family, Kind, Registry, Sample};
use crate::base::rng::Rng;
use crate::http_client::OptionsError;
use crate::model::alert::Alert;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;

/// Messages on their way at the same time, over all receivers.
const ATTEMPTS_MAX: usize = 64;
/// Longest sleep: bounds how late a step of the wall clock is noticed.
const SLEEP_MAX_MS: i64 = 10_000;
/// How long messages under way may take at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Why alerting cannot start or take a configuration over.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state cannot be read or kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// A receiver's HTTP client cannot be made.
    #[error("receiver {receiver}: {source}")]
    Receiver {
        /// Name of the receiver.
        receiver: String,
        /// Why.
        source: OptionsError,
    },
}

/// Why alerts were not (all) taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Some were refused; the others are in force.
    #[error("{}", join(.0))]
    Invalid(Vec<AlertError>),
    /// They are in force but would not survive a crash.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why a silence was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is not acceptable.
    #[error(transparent)]
    Silence(#[from] SilenceError),
    /// It is in force but would not survive a crash.
    #[error(transparent)]
    State(#[from] StateError),
}

fn join(errors: &[AlertError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What the status page shows.
#[derive(Clone, Debug)]
pub struct Status {
    /// When this manager was made.
    pub started_at_ms: i64,
    /// The configuration, secrets hidden.
    pub config: String,
}

type Integrations = HashMap<String, Vec<Arc<Integration>>>;

/// The Alertmanager as others see it.
pub struct Manager {
    pipeline: Mutex<Pipeline>,
    log: Mutex<StateLog>,
    integrations: ArcSwap<Integrations>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// Rung when something happened that may be due at once.
    wake: Notify,
    started_at_ms: i64,
}

/// What the operating system gives to a manager.
pub struct Ground {
    /// Holds the state.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids of silences, jitter of retries.
    pub rng: Arc<dyn Rng>,
    /// Takes the metrics.
    pub registry: Registry,
}

impl Manager {
    /// Opens the state in `folder` and takes up where it was left.
    pub fn open(ground: Ground, folder: &Path, options: Options) -> Result<Arc<Self>, OpenError> {
        let metrics = Metrics::new(&ground.registry);
        let integrations = build(&options, &metrics)?;
        let (log, recovered) = StateLog::open(ground.disk, folder)?;
        if let Some(damage) = &recovered.damage {
            error!(
                path = %damage.path.display(),
                offset_bytes = damage.offset_bytes,
                lost_bytes = damage.lost_bytes,
                "Alert state log is corrupt; the damaged file was put aside and the rest is used."
            );
        }
        let now_ms = ground.clock.now_ms();
        metrics.loaded(&options, now_ms);
        let mut pipeline = Pipeline::new(Arc::new(options), ground.rng, metrics.clone());
        pipeline.restore(recovered.changes, now_ms);
        let manager = Arc::new(Self {
            pipeline: Mutex::new(pipeline),
            log: Mutex::new(log),
            integrations: ArcSwap::from_pointee(integrations),
            clock: ground.clock,
            metrics,
            wake: Notify::new(),
            started_at_ms: now_ms,
        });
        let weak = Arc::downgrade(&manager);
        ground.registry.collect_from(move |out| collect(&weak, out));
        Ok(manager)
    }

    /// Writes what was decided under the lock, in that order, without holding up readers.
    fn commit(
        &self,
        pipeline: MutexGuard<'_, Pipeline>,
        changes: &[Change],
    ) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut log = self.log.lock();
        drop(pipeline);
        log.append(changes).inspect_err(|_| self.metrics.log_errors.inc())
    }

    /// Takes alerts from rules or from the API. They are on disk when this returns.
    pub fn put_alerts(&self, alerts: Vec<Alert>) -> Result<(), PutError> {
        let now_ms = self.clock.now_ms();
        let mut pipeline = self.pipeline.lock();
        let (changes, errors) = pipeline.put(alerts, now_ms);
        let committed = self.commit(pipeline, &changes);
        self.wake.notify_one();
        committed?;
        if errors.is_empty() { Ok(()) } else { Err(PutError::Invalid(errors)) }
    }

    /// Firing alerts that pass the filter, by fingerprint.
    pub fn alerts(&self, filter: &AlertFilter) -> Vec<AlertView> {
        self.pipeline.lock().alert_views(filter, self.clock.now_ms())
    }

    /// Groups with alerts that pass the filter.
    pub fn groups(&self, filter: &AlertFilter) -> Vec<GroupView> {
        self.pipeline.lock().group_views(filter, self.clock.now_ms())
    }

    /// Silences that hold all these matchers, the next to end first.
    pub fn silences(&self, filter: &[Matcher]) -> Vec<Silence> {
        self.pipeline.lock().silence_views(filter, self.clock.now_ms())
    }

    /// The silence of this id.
    pub fn silence(&self, id: &str) -> Option<Silence> {
        self.pipeline.lock().silences().get(id).cloned()
    }

    /// Creates a silence, or updates the one whose id is given. Returns the id, which may be new.
    pub fn set_silence(&self, wanted: Silence) -> Result<String, ChangeError> {
        let now_ms = self.clock.now_ms();
        let mut pipeline = self.pipeline.lock();
        let (id, changes) = pipeline.set_silence(wanted, now_ms)?;
        self.commit(pipeline, &changes)?;
        Ok(id)
    }

    /// Ends a silence now.
    pub fn expire_silence(&self, id: &str) -> Result<(), ChangeError> {
        let now_ms = self.clock.now_ms();
        let mut pipeline = self.pipeline.lock();
        let changes = pipeline.expire_silence(id, now_ms)?;
        Ok(self.commit(pipeline, &changes)?)
    }

    /// Names and labels (the name among them) of all receivers, in configured order.
    pub fn receivers(&self) -> Vec<(String, Labels)> {
        let pipeline = self.pipeline.lock();
        let receivers = pipeline.options().receivers.iter();
        let both = receivers.map(|it| (it.name.clone(), pipeline.receiver_labels(&it.name)));
        both.collect()
    }

    /// For the status page.
    pub fn status(&self) -> Status {
        let config = self.pipeline.lock().options().original.clone();
        Status { started_at_ms: self.started_at_ms, config }
    }

    /// The time that states are relative to.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Swaps the configuration at once and as a whole; alerts, silences and what was sent stay.
    pub fn reload(&self, options: Options) -> Result<(), OpenError> {
        let integrations = match build(&options, &self.metrics) {
            Ok(integrations) => integrations,
            Err(err) => {
                self.reload_failed();
                return Err(err);
            }
        };
        let now_ms = self.clock.now_ms();
        self.metrics.loaded(&options, now_ms);
        let mut pipeline = self.pipeline.lock();
        pipeline.reload(Arc::new(options), now_ms);
        self.integrations.store(Arc::new(integrations));
        drop(pipeline);
        self.wake.notify_one();
        Ok(())
    }

    /// Notes that a new configuration could not be loaded, for those who watch the metric.
    pub fn reload_failed(&self) {
        self.metrics.reload_successful.set(0.0);
    }

    /// Sends what is due until `shutdown` is ready.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tasks = JoinSet::new();
        let mut attempts: HashMap<Id, u64> = HashMap::new();
        loop {
            let free = ATTEMPTS_MAX - tasks.len();
            let ticked = self.blocking(move |manager| manager.tick(free)).await;
            let (due, sleep) = ticked.unwrap_or((Vec::new(), Duration::from_secs(1)));
            for attempt in due {
                let id = attempt.id;
                let task = tasks.spawn(Arc::clone(&self).deliver(attempt));
                attempts.insert(task.id(), id);
            }
            tokio::select! {
                () = &mut shutdown => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                Some(done) = tasks.join_next_with_id() => self.joined(done, &mut attempts).await,
            }
        }
        let drain = async {
            while let Some(done) = tasks.join_next_with_id().await {
                self.joined(done, &mut attempts).await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_GRACE, drain).await.is_err() {
            warn!(
                "Notifications under way were given up at shutdown; they are sent at the next start."
            );
        }
    }

    /// Runs something that may wait for the disk; `None` if it panicked.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let manager = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&manager)).await.ok()
    }

    /// One attempt ended. If its task panicked, the delivery must not wait for it for ever.
    async fn joined(
        self: &Arc<Self>,
        done: Result<(Id, ()), JoinError>,
        attempts: &mut HashMap<Id, u64>,
    ) {
        let (task, panicked) = match done {
            Ok((task, ())) => (task, false),
            Err(err) => (err.id(), true),
        };
        if let Some(id) = attempts.remove(&task)
            && panicked
        {
            error!("Sending a notification panicked.");
            self.blocking(move |manager| manager.finish(id, Outcome::Failed { reason: "other" }))
                .await;
        }
    }

    /// Lets the pipeline do what is due; returns messages to send and how long to sleep.
    fn tick(&self, attempts_max: usize) -> (Vec<Attempt>, Duration) {
        let now_ms = self.clock.now_ms();
        let mut pipeline = self.pipeline.lock();
        let (attempts, changes) = pipeline.tick(now_ms, attempts_max);
        // With all slots taken, only the end of an attempt can make a difference.
        let full = attempts.len() >= attempts_max;
        let next_ms = pipeline.next_wakeup_ms().filter(|_| !full);
        let sleep_ms = next_ms.map_or(SLEEP_MAX_MS, |next_ms| next_ms - now_ms);
        if let Err(err) = self.commit(pipeline, &changes) {
            error!(error = %err, "Alert state was not written.");
        }
        self.compact();
        (attempts, Duration::from_millis(sleep_ms.clamp(0, SLEEP_MAX_MS) as u64))
    }

    fn compact(&self) {
        if !self.log.lock().wants_compaction() {
            return;
        }
        let pipeline = self.pipeline.lock();
        let snapshot = pipeline.snapshot();
        let mut log = self.log.lock();
        drop(pipeline);
        match log.compact(&snapshot) {
            Ok(()) => self.metrics.log_compactions.inc(),
            Err(err) => {
                self.metrics.log_errors.inc();
                error!(error = %err, "Alert state log was not rewritten.");
            }
        }
    }

    async fn deliver(self: Arc<Self>, attempt: Attempt) {
        let integrations = self.integrations.load_full();
        let found = integrations.get(&attempt.receiver);
        let outcome = match found.and_then(|all| all.get(attempt.integration)) {
            // Only after a reload that removed it.
            None => Outcome::Failed { reason: "other" },
            Some(integration) => self.send(integration, &attempt).await,
        };
        self.blocking(move |manager| manager.finish(attempt.id, outcome)).await;
        self.wake.notify_one();
    }

    async fn send(&self, integration: &Integration, attempt: &Attempt) -> Outcome {
        let kind = integration.kind();
        let left_ms = (attempt.deadline_ms - self.clock.now_ms()).max(0) as u64;
        let timeout = integration.timeout(Duration::from_millis(left_ms));
        let started = self.clock.monotonic();
        let result = integration.send(&attempt.notification, timeout).await;
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.requests.with(&[kind]).inc();
        self.metrics.latency.distribution(&[kind]).observe(took.as_secs_f64());
        match result {
            Ok(store) => Outcome::Sent(store),
            Err(failure) => {
                self.metrics.requests_failed.with(&[kind]).inc();
                warn!(
                    receiver = attempt.receiver,
                    integration = kind,
                    group = attempt.notification.group_key,
                    error = failure.message,
                    "Notify attempt failed."
                );
                failure.outcome()
            }
        }
    }

    fn finish(&self, id: u64, outcome: Outcome) {
        let now_ms = self.clock.now_ms();
        let mut pipeline = self.pipeline.lock();
        let changes = pipeline.finish(id, outcome, now_ms);
        if let Err(err) = self.commit(pipeline, &changes) {
            error!(error = %err, "Alert state was not written; notifications may be repeated.");
        }
    }
}

fn build(options: &Options, metrics: &Metrics) -> Result<Integrations, OpenError> {
    let mut all = Integrations::new();
    let templates = Arc::new(options.templates.clone());
    for receiver in &options.receivers {
        let mut integrations = Vec::new();
        for one in &receiver.integrations {
            let made = Integration::new(one.clone(), Arc::clone(&templates));
            let made = made.map_err(|source| OpenError::Receiver {
                receiver: receiver.name.clone(),
                source,
            })?;
            metrics.prepare(made.kind());
            integrations.push(Arc::new(made));
        }
        all.insert(receiver.name.clone(), integrations);
    }
    Ok(all)
}

/// Gauges that are counted when somebody asks.
fn collect(manager: &Weak<Manager>, out: &mut Vec<Family>) {
    let Some(manager) = manager.upgrade() else { return };
    let now_ms = manager.clock.now_ms();
    let log_bytes = manager.log.lock().len_bytes();
    let mut pipeline = manager.pipeline.lock();
    let (active, suppressed) = pipeline.alert_counts(now_ms);
    let states = [("active", active), ("suppressed", suppressed), ("unprocessed", 0)];
    let silences = pipeline.silence_counts(now_ms);
    let (groups, entries) = (pipeline.group_count(), pipeline.log_len());
    drop(pipeline);
    let by_state = |states: &mut dyn Iterator<Item = (&'static str, usize)>| {
        let sample = |(state, count): (&str, usize)| Sample {
            suffix: "",
            labels: vec![("state".to_owned(), state.to_owned())],
            value: count as f64,
        };
        states.map(sample).collect::<Vec<_>>()
    };
    let alone = |value: f64| vec![Sample { suffix: "", labels: Vec::new(), value }];
    let mut push = |name: &str, help: &str, samples| {
        let name = format!("alertmanager_{name}");
        out.push(Family { name, help: help.to_owned(), kind: Kind::Gauge, samples });
    };
    push("alerts", "How many alerts by state.", by_state(&mut states.into_iter()));
    push("silences", "How many silences by state.", by_state(&mut silences.into_iter()));
    push(
        "dispatcher_aggregation_groups",
        "Number of active aggregation groups",
        alone(groups as f64),
    );
    push("nflog_entries", "Number of entries in the notification log.", alone(entries as f64));
    push(
        "state_log_size_bytes",
        "Size of the log of alerts, silences and notifications.",
        alone(log_bytes as f64),
    );
}

#[cfg(test)]
mod tests;
