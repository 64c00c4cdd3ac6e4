//! Sends alerts to external Alertmanagers, as Prometheus does.
//!
//! Each Alertmanager has a bounded queue, whose oldest alerts give way when it is full, and a task
//! that posts batches. A failed batch is not tried again: rules send every alert again anyway.
//! External labels and `alert_relabel_configs` are applied when an alert is queued.

mod endpoint;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::error;

use crate::base::clock::Clock;
use crate::base::metrics::{Number, Registry, Vector};
use crate::http_client::{self, Client, OptionsError};
use crate::model::alert::Alert;
use crate::model::labels::{Labels, LabelsBuilder};
use crate::model::relabel::{self, Rule};
use crate::model::target::{TargetGroup, TargetSets};

use super::AlertSink;
use endpoint::Endpoint;

/// How alerts are sent, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Added to alerts that do not have them.
    pub external_labels: Labels,
    /// `alert_relabel_configs`, applied after the external labels are added.
    pub alert_relabel_rules: Vec<Rule>,
    /// Alerts that wait for one Alertmanager.
    pub queue_capacity: usize,
    /// Alerts of one request.
    pub batch_size: usize,
    /// Whether what waits is sent before the end.
    pub drain_on_shutdown: bool,
    /// `alertmanagers`
    pub sets: Vec<AlertmanagerSet>,
}

/// One entry of `alerting.alertmanagers`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertmanagerSet {
    /// Key of its targets in the discovery's [`TargetSets`].
    pub name: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Stands before `/api/v2/alerts`.
    pub path_prefix: String,
    /// Longest duration of a request.
    pub timeout: Duration,
    /// How they are reached.
    pub http: http_client::Options,
    /// Applied to discovered Alertmanagers.
    pub relabel_rules: Vec<Rule>,
    /// Applied to alerts for this set, after the global ones.
    pub alert_relabel_rules: Vec<Rule>,
}

/// URLs that alerts are posted to, and of Alertmanagers that relabelling dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alertmanagers {
    /// In use.
    pub active: Vec<String>,
    /// Dropped.
    pub dropped: Vec<String>,
}

/// Alerts as they leave the server: with external labels where they lack them, relabelled, without
/// those that relabelling drops.
pub fn prepare(alerts: &[Alert], external_labels: &Labels, rules: &[Rule]) -> Vec<Alert> {
    let prepared = alerts.iter().filter_map(|alert| {
        let mut labels = alert.labels.to_builder();
        for (name, value) in external_labels.iter() {
            if labels.get(name).is_empty() {
                labels.set(name, value);
            }
        }
        let keep = relabel::process(rules, &mut labels);
        keep.then(|| Alert { labels: labels.build(), ..alert.clone() })
    });
    prepared.collect()
}

/// Metrics of the notifier, under Prometheus' names.
struct Metrics {
    latency: Vector,
    latency_histogram: Vector,
    sent: Vector,
    errors: Vector,
    dropped: Vector,
    queue_length: Vector,
    queue_capacity: Number,
    discovered: Number,
}

const ALERTMANAGER: &[&str] = &["alertmanager"];

impl Metrics {
    fn new(registry: &Registry) -> Self {
        Self {
            latency: registry.summaries(
                "prometheus_notifications_latency_seconds",
                "Latency quantiles for sending alert notifications.",
                &[0.5, 0.9, 0.99],
                ALERTMANAGER,
            ),
            latency_histogram: registry.histograms(
                "prometheus_notifications_latency_histogram_seconds",
                "Latency histogram for sending alert notifications.",
                &[0.01, 0.1, 1.0, 10.0],
                ALERTMANAGER,
            ),
            sent: registry.counters(
                "prometheus_notifications_sent_total",
                "Total number of alerts sent.",
                ALERTMANAGER,
            ),
            errors: registry.counters(
                "prometheus_notifications_errors_total",
                "Total number of sent alerts affected by errors.",
                ALERTMANAGER,
            ),
            dropped: registry.counters(
                "prometheus_notifications_dropped_total",
                "Total number of alerts dropped due to errors when sending to Alertmanager.",
                ALERTMANAGER,
            ),
            queue_length: registry.gauges(
                "prometheus_notifications_queue_length",
                "The number of alert notifications in the queue.",
                ALERTMANAGER,
            ),
            queue_capacity: registry.gauge(
                "prometheus_notifications_queue_capacity",
                "The capacity of the alert notifications queue.",
            ),
            discovered: registry.gauge(
                "prometheus_notifications_alertmanagers_discovered",
                "The number of alertmanagers discovered and active.",
            ),
        }
    }

    fn begin(&self, url: &str) {
        for vector in [&self.sent, &self.errors, &self.dropped, &self.queue_length] {
            vector.with(&[url]);
        }
    }

    fn end(&self, url: &str) {
        let vectors =
            [&self.latency, &self.latency_histogram, &self.sent, &self.errors, &self.dropped];
        for vector in vectors {
            vector.remove(&[url]);
        }
        self.queue_length.remove(&[url]);
    }
}

/// Sends alerts to all Alertmanagers. Share it by `Arc`.
pub struct Notifier {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    user_agent: String,
    state: Mutex<State>,
}

struct State {
    options: Options,
    sets: Vec<Set>,
    targets: TargetSets,
    is_stopped: bool,
}

struct Set {
    options: AlertmanagerSet,
    client: Arc<Client>,
    /// By URL.
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    dropped: Vec<String>,
}

impl Notifier {
    /// A notifier that knows no Alertmanager before [`Notifier::update_targets`]. Its tasks run on
    /// `runtime`.
    ///
    /// # Errors
    /// A set's HTTP options contradict each other.
    pub fn new(
        metrics: &Registry,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        user_agent: &str,
        options: Options,
    ) -> Result<Arc<Self>, OptionsError> {
        let empty = Options { sets: Vec::new(), ..options.clone() };
        let notifier = Self {
            metrics: Arc::new(Metrics::new(metrics)),
            clock,
            runtime,
            user_agent: user_agent.to_owned(),
            state: Mutex::new(State {
                options: empty,
                sets: Vec::new(),
                targets: TargetSets::new(),
                is_stopped: false,
            }),
        };
        notifier.apply(options)?;
        Ok(Arc::new(notifier))
    }

    /// Replaces the configuration. Sets that did not change keep their queues.
    ///
    /// # Errors
    /// A set's HTTP options contradict each other; then nothing changes.
    pub fn apply(&self, options: Options) -> Result<(), OptionsError> {
        let clients: Result<Vec<_>, _> =
            options.sets.iter().map(|set| Client::new(&set.http, &self.user_agent)).collect();
        let clients = clients?;
        let mut state = self.state.lock();
        self.metrics.queue_capacity.set(options.queue_capacity as f64);
        let mut old = std::mem::take(&mut state.sets);
        for (set, client) in options.sets.iter().zip(clients) {
            let same = old.iter().position(|one| one.options == *set);
            state.sets.push(match same {
                Some(at) => old.swap_remove(at),
                None => Set {
                    options: set.clone(),
                    client: Arc::new(client),
                    endpoints: BTreeMap::new(),
                    dropped: Vec::new(),
                },
            });
        }
        state.options = options;
        for endpoint in old.into_iter().flat_map(|set| set.endpoints.into_values()) {
            endpoint.stop(false);
            self.metrics.end(endpoint.url());
        }
        self.synchronize(&mut state);
        Ok(())
    }

    /// Replaces the known Alertmanagers; groups of other sets are ignored.
    pub fn update_targets(&self, targets: &TargetSets) {
        let mut state = self.state.lock();
        state.targets.clone_from(targets);
        self.synchronize(&mut state);
    }

    /// Makes the endpoints what sets and targets say.
    fn synchronize(&self, state: &mut State) {
        if state.is_stopped {
            return;
        }
        let State { options, sets, targets, .. } = state;
        for set in sets.iter_mut() {
            let groups = targets.get(&set.options.name).map_or(&[][..], Vec::as_slice);
            let found = resolve(&set.options, groups);
            set.endpoints.retain(|url, endpoint| {
                let keep = found.active.contains(url);
                if !keep {
                    endpoint.stop(false);
                    self.metrics.end(url);
                }
                keep
            });
            for url in found.active {
                if let std::collections::btree_map::Entry::Vacant(vacant) = set.endpoints.entry(url)
                {
                    match self.start(vacant.key(), &set.options, &set.client, options) {
                        Ok(endpoint) => {
                            vacant.insert(endpoint);
                        }
                        Err(err) => error!(error = %err, "Alertmanager has no valid URL."),
                    }
                }
            }
            set.dropped = found.dropped;
        }
        let count: usize = sets.iter().map(|set| set.endpoints.len()).sum();
        self.metrics.discovered.set(count as f64);
    }

    fn start(
        &self,
        url: &str,
        set: &AlertmanagerSet,
        client: &Arc<Client>,
        options: &Options,
    ) -> Result<Arc<Endpoint>, url::ParseError> {
        self.metrics.begin(url);
        let sending = endpoint::Sending {
            client: Arc::clone(client),
            timeout: set.timeout,
            batch_size: options.batch_size.max(1),
            queue_capacity: options.queue_capacity.max(1),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
        };
        Endpoint::start(url, sending, &self.runtime)
    }

    /// What alerts are sent to now, sorted.
    pub fn alertmanagers(&self) -> Alertmanagers {
        let state = self.state.lock();
        let mut all = Alertmanagers::default();
        for set in &state.sets {
            all.active.extend(set.endpoints.keys().cloned());
            all.dropped.extend(set.dropped.iter().cloned());
        }
        all.active.sort();
        all.dropped.sort();
        all
    }

    /// Takes no more alerts, sends what waits (when so configured) and ends all tasks. Each
    /// Alertmanager gets up to the first failure.
    pub async fn shutdown(&self) {
        let endpoints: Vec<_> = {
            let mut state = self.state.lock();
            state.is_stopped = true;
            let drain = state.options.drain_on_shutdown;
            let all = state.sets.iter_mut().flat_map(|set| std::mem::take(&mut set.endpoints));
            let all: Vec<_> = all.map(|(_, endpoint)| endpoint).collect();
            for endpoint in &all {
                endpoint.stop(drain);
            }
            all
        };
        for endpoint in endpoints {
            endpoint.ended().await;
        }
    }
}

impl AlertSink for Notifier {
    fn send(&self, alerts: &[Alert]) {
        let state = self.state.lock();
        let (labels, rules) = (&state.options.external_labels, &state.options.alert_relabel_rules);
        let alerts = prepare(alerts, labels, rules);
        for set in state.sets.iter().filter(|set| !set.endpoints.is_empty()) {
            let alerts = prepare(&alerts, &Labels::empty(), &set.options.alert_relabel_rules);
            for endpoint in set.endpoints.values() {
                endpoint.push(&alerts);
            }
        }
    }
}

/// URLs of a set's targets after relabelling, each once.
fn resolve(set: &AlertmanagerSet, groups: &[Arc<TargetGroup>]) -> Alertmanagers {
    let prefix = set.path_prefix.trim_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    let path = format!("{slash}{prefix}/api/v2/alerts");
    let url = |labels: &LabelsBuilder| {
        let part = |name| labels.get(name);
        format!("{}://{}{}", part("__scheme__"), part("__address__"), part("__alerts_path__"))
    };
    let mut found = Alertmanagers::default();
    for group in groups {
        for target in &group.targets {
            let mut labels = group.labels.to_builder();
            labels.set("__scheme__", &set.scheme);
            labels.set("__alerts_path__", &path);
            for (name, value) in target.iter() {
                labels.set(name, value);
            }
            let before = url(&labels);
            let keep = relabel::process(&set.relabel_rules, &mut labels);
            if !keep || labels.get("__address__").is_empty() {
                found.dropped.push(before);
                continue;
            }
            found.active.push(url(&labels));
        }
    }
    found.active.sort();
    found.active.dedup();
    found
}

#[cfg(test)]
mod tests;
