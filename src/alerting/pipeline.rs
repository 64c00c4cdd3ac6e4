//! The heart of alerting as a state machine: alerts come in, due notifications come out.
//!
//! Nothing here reads a clock, a file or the network. The caller passes `now_ms`, carries out the
//! [`Attempt`]s and reports back by [`Pipeline::finish`], and writes the returned [`Change`]s to the
//! log. So a whole week of alerting runs in a test within milliseconds.

mod flush;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use view::{AlertFilter, AlertView, GroupView};

use crate::alerting::Options;
use crate::alerting::alerts::{self, ALERTS_MAX, AlertError, Alerts, StoredAlert};
use crate::alerting::group::Group;
use crate::alerting::inhibit::Inhibitor;
use crate::alerting::metrics::Metrics;
use crate::alerting::notification_log::{LogEntry, LogKey, NotificationLog};
use crate::alerting::route::{RouteTree, group_key};
use crate::alerting::silence::{Silence, SilenceError, Silences};
use crate::base::rng::Rng;
use crate::model::alert::Alert;
use crate::model::labels::Labels;
use crate::template::notification::Data;

/// Deliveries to one integration at the same time: a hanging receiver must not take all slots.
const IN_FLIGHT_PER_INTEGRATION_MAX: usize = 8;
/// First wait before a retry; grows by half each time, up to the maximum.
const RETRY_FIRST_MS: f64 = 500.0;
/// Longest wait before a retry, as in Alertmanager.
const RETRY_MAX_MS: f64 = 60_000.0;
/// Shortest time that a flush may take, however small the group interval.
const FLUSH_TIMEOUT_MIN_MS: i64 = 10_000;
/// Time between removals of old silences and log entries.
const COLLECT_INTERVAL_MS: i64 = 60_000;

/// A change that the log must hold before it is acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new alert, or one with changed texts or start.
    Alert(Arc<StoredAlert>),
    /// A known alert was reported again.
    AlertRefreshed {
        /// Which.
        fingerprint: u64,
        /// New end.
        ends_at_ms: i64,
        /// When it was reported.
        updated_at_ms: i64,
    },
    /// An alert was dropped.
    AlertGone(u64),
    /// A silence as it is now.
    Silence(Silence),
    /// A silence was dropped.
    SilenceGone(String),
    /// A notification was sent.
    Notified(LogKey, LogEntry),
    /// A log entry was dropped.
    NotifiedGone(LogKey),
}

/// A message to send now.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// To be given to [`Pipeline::finish`].
    pub id: u64,
    /// Name of the receiver.
    pub receiver: String,
    /// Position of the integration in the receiver.
    pub integration: usize,
    /// What to send.
    pub notification: Arc<Notification>,
    /// When the attempt must be over.
    pub deadline_ms: i64,
}

/// What an integration sends.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Names the group; its hash is the key by which receivers recognise it.
    pub group_key: String,
    /// For the templates.
    pub data: Data,
    /// What the integration remembered at its last message about this group.
    pub store: BTreeMap<String, String>,
    /// The tick.
    pub now_ms: i64,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted; the values are remembered for the next message about the group.
    Sent(BTreeMap<String, String>),
    /// May work later.
    Retry {
        /// How long the receiver asked us to wait.
        after_ms: Option<i64>,
        /// Why, as the metric has it.
        reason: &'static str,
    },
    /// Will not work this time.
    Failed {
        /// Why, as the metric has it.
        reason: &'static str,
    },
}

/// What the pipeline must know of an integration.
#[derive(Clone, Debug)]
struct Integration {
    /// `receiver/kind/0`, as in [`LogKey`].
    name: String,
    kind: &'static str,
    send_resolved: bool,
    resolve_when_muted: bool,
    in_flight: usize,
    /// Nothing is sent before this, by the receiver's own wish.
    blocked_until_ms: i64,
}

#[derive(Debug)]
struct Delivery {
    /// Group it belongs to; it may be gone after a reload.
    group: u64,
    key: LogKey,
    receiver: String,
    integration: usize,
    notification: Arc<Notification>,
    firing: BTreeSet<u64>,
    resolved: BTreeSet<u64>,
    repeat_interval_ms: i64,
    deadline_ms: i64,
    attempts: u32,
    /// When to try next; `None` while an attempt is under way.
    next_attempt_ms: Option<i64>,
    kind: &'static str,
    /// Why the last attempt failed.
    failure: &'static str,
}

/// The state machine.
pub struct Pipeline {
    routes: RouteTree,
    receivers: BTreeMap<String, Vec<Integration>>,
    options: Arc<Options>,
    alerts: Alerts,
    inhibitor: Inhibitor,
    silences: Silences,
    log: NotificationLog,
    groups: BTreeMap<u64, Group>,
    group_ids: HashMap<(usize, Labels), u64>,
    /// Groups without a flush under way, by the time they are due.
    schedule: BTreeSet<(i64, u64)>,
    deliveries: BTreeMap<u64, Delivery>,
    /// Deliveries by the key of their group, whatever group object they belong to.
    busy: HashMap<String, usize>,
    /// Deliveries that wait for an attempt, by its time.
    waiting: BTreeSet<(i64, u64)>,
    next_id: u64,
    next_collect_ms: i64,
    rng: Arc<dyn Rng>,
    metrics: Metrics,
}

impl Pipeline {
    /// A pipeline that knows no alerts.
    pub fn new(options: Arc<Options>, rng: Arc<dyn Rng>, metrics: Metrics) -> Self {
        Self {
            routes: RouteTree::new(options.route.clone()),
            receivers: integrations(&options),
            inhibitor: Inhibitor::new(options.inhibit_rules.clone()),
            options,
            alerts: Alerts::default(),
            silences: Silences::default(),
            log: NotificationLog::default(),
            groups: BTreeMap::new(),
            group_ids: HashMap::new(),
            schedule: BTreeSet::new(),
            deliveries: BTreeMap::new(),
            busy: HashMap::new(),
            waiting: BTreeSet::new(),
            next_id: 1,
            next_collect_ms: 0,
            rng,
            metrics,
        }
    }

    /// Takes over the state that the log held, at start. Alerts that fired when they were last
    /// reported count as firing for at least another `resolve_timeout`: their senders had no chance
    /// to report them while we were down.
    pub fn restore(&mut self, changes: Vec<Change>, now_ms: i64) {
        for change in changes {
            self.apply(change);
        }
        let grace_end_ms = now_ms + self.options.resolve_timeout_ms;
        let stored: Vec<_> = self.alerts.iter().cloned().collect();
        for old in stored {
            let was_firing = old.alert.ends_at_ms > old.updated_at_ms;
            if was_firing && old.alert.ends_at_ms < grace_end_ms {
                let mut kept = StoredAlert::clone(&old);
                kept.alert.ends_at_ms = grace_end_ms;
                // The guess must give way to what the sender says next.
                kept.timeout = true;
                self.alerts.insert(Arc::new(kept));
            }
        }
        self.rebuild(now_ms);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Alert(alert) => self.alerts.insert(alert),
            Change::AlertRefreshed { fingerprint, ends_at_ms, updated_at_ms } => {
                if let Some(old) = self.alerts.get(fingerprint) {
                    let mut stored = StoredAlert::clone(old);
                    stored.alert.ends_at_ms = ends_at_ms;
                    stored.updated_at_ms = updated_at_ms;
                    self.alerts.insert(Arc::new(stored));
                }
            }
            Change::AlertGone(fingerprint) => {
                self.alerts.remove(fingerprint);
            }
            Change::Silence(silence) => self.silences.insert(silence),
            Change::SilenceGone(id) => self.silences.remove(&id),
            Change::Notified(key, entry) => self.log.insert(key, entry),
            Change::NotifiedGone(key) => self.log.remove(&key),
        }
    }

    /// The whole state as changes to an empty one, for the rewritten log.
    pub fn snapshot(&self) -> Vec<Change> {
        let alerts = self.alerts.iter().cloned().map(Change::Alert);
        let silences = self.silences.iter().cloned().map(Change::Silence);
        let log = self.log.iter();
        let log = log.map(|(key, entry)| Change::Notified(key.clone(), entry.clone()));
        alerts.chain(silences).chain(log).collect()
    }

    /// Swaps the configuration. Alerts, silences and the log stay; groups are built anew.
    pub fn reload(&mut self, options: Arc<Options>, now_ms: i64) {
        self.routes = RouteTree::new(options.route.clone());
        self.receivers = integrations(&options);
        self.inhibitor = Inhibitor::new(options.inhibit_rules.clone());
        self.options = options;
        // What is on its way may arrive and is logged then; what waits is decided anew.
        self.deliveries.retain(|_, delivery| delivery.next_attempt_ms.is_none());
        self.waiting.clear();
        self.busy.clear();
        for delivery in self.deliveries.values_mut() {
            delivery.group = 0;
            *self.busy.entry(delivery.key.group_key.clone()).or_default() += 1;
        }
        self.rebuild(now_ms);
    }

    fn rebuild(&mut self, now_ms: i64) {
        self.groups.clear();
        self.group_ids.clear();
        self.schedule.clear();
        let stored: Vec<_> = self.alerts.iter().cloned().collect();
        for alert in &stored {
            self.inhibitor.insert(alert.fingerprint, &alert.alert.labels);
        }
        for alert in &stored {
            self.route(alert, now_ms);
        }
    }

    /// Takes reported alerts in. Valid ones are kept even when others are refused.
    pub fn put(&mut self, reported: Vec<Alert>, now_ms: i64) -> (Vec<Change>, Vec<AlertError>) {
        let (mut changes, mut errors) = (Vec::new(), Vec::new());
        for alert in reported {
            match self.put_one(alert, now_ms) {
                Ok(change) => changes.push(change),
                Err(err) => {
                    self.metrics.alerts_invalid.inc();
                    errors.push(err);
                }
            }
        }
        (changes, errors)
    }

    fn put_one(&mut self, alert: Alert, now_ms: i64) -> Result<Change, AlertError> {
        let new = alerts::accept(alert, self.options.resolve_timeout_ms, now_ms)?;
        self.metrics.received(new.is_resolved_at(now_ms));
        let fingerprint = new.fingerprint;
        let old = self.alerts.get(fingerprint).cloned();
        let merged = match &old {
            Some(old) => alerts::merge(old, new, now_ms),
            None if self.alerts.len() >= ALERTS_MAX => {
                self.metrics.alerts_limited.inc();
                return Err(AlertError::TooMany);
            }
            None => new,
        };
        let stored = Arc::new(merged);
        self.alerts.insert(Arc::clone(&stored));
        if old.is_none() {
            self.inhibitor.insert(fingerprint, &stored.alert.labels);
        }
        self.route(&stored, now_ms);
        Ok(match old {
            Some(old) if only_refreshed(&old, &stored) => Change::AlertRefreshed {
                fingerprint,
                ends_at_ms: stored.alert.ends_at_ms,
                updated_at_ms: stored.updated_at_ms,
            },
            _ => Change::Alert(stored),
        })
    }

    /// Puts an alert into the groups of all its routes.
    fn route(&mut self, stored: &StoredAlert, now_ms: i64) {
        for index in self.routes.matching(&stored.alert.labels) {
            let route = self.routes.get(index);
            let (wait_ms, route_key) = (route.options.group_wait_ms, &route.key);
            let labels = route.options.group_by.project(&stored.alert.labels);
            let id = match self.group_ids.get(&(index, labels.clone())) {
                Some(id) => *id,
                None => {
                    let group = Group {
                        route: index,
                        key: group_key(route_key, &labels),
                        labels: labels.clone(),
                        alerts: BTreeSet::new(),
                        next_flush_ms: now_ms + wait_ms,
                        has_flushed: false,
                        flush: None,
                    };
                    let id = self.take_id();
                    self.schedule.insert((group.next_flush_ms, id));
                    self.groups.insert(id, group);
                    self.group_ids.insert((index, labels), id);
                    id
                }
            };
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.alerts.insert(stored.fingerprint);
            let overdue = stored.alert.starts_at_ms + wait_ms < now_ms;
            if overdue && !group.has_flushed && group.flush.is_none() {
                self.schedule.remove(&(group.next_flush_ms, id));
                group.next_flush_ms = group.next_flush_ms.min(now_ms);
                self.schedule.insert((group.next_flush_ms, id));
            }
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Does what is due and returns at most `attempts_max` messages to send, and changes to log.
    pub fn tick(&mut self, now_ms: i64, attempts_max: usize) -> (Vec<Attempt>, Vec<Change>) {
        let mut changes = Vec::new();
        if self.next_collect_ms <= now_ms {
            self.next_collect_ms = now_ms + COLLECT_INTERVAL_MS;
            self.collect(now_ms, &mut changes);
        }
        while let Some(&(due_ms, id)) = self.schedule.first()
            && due_ms <= now_ms
        {
            self.schedule.pop_first();
            self.flush(id, now_ms, &mut changes);
        }
        let attempts = self.start_attempts(now_ms, attempts_max, &mut changes);
        (attempts, changes)
    }

    fn collect(&mut self, now_ms: i64, changes: &mut Vec<Change>) {
        let silences = self.silences.collect(now_ms, self.options.retention_ms);
        changes.extend(silences.into_iter().map(Change::SilenceGone));
        let in_use: BTreeSet<_> = self.groups.values().map(|group| group.key.clone()).collect();
        for key in self.log.collect(now_ms, |key| in_use.contains(&key.group_key)) {
            changes.push(Change::NotifiedGone(key));
        }
    }

    fn start_attempts(
        &mut self,
        now_ms: i64,
        attempts_max: usize,
        changes: &mut Vec<Change>,
    ) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let due: Vec<_> = self.waiting.range(..=(now_ms, u64::MAX)).copied().collect();
        for (at_ms, id) in due {
            if attempts.len() >= attempts_max {
                break;
            }
            let Some(delivery) = self.deliveries.get_mut(&id) else { continue };
            if delivery.deadline_ms <= now_ms {
                self.waiting.remove(&(at_ms, id));
                self.give_up(id, now_ms, changes);
                continue;
            }
            let integrations = self.receivers.get_mut(&delivery.receiver);
            let Some(integration) = integrations.and_then(|all| all.get_mut(delivery.integration))
            else {
                continue;
            };
            if now_ms < integration.blocked_until_ms {
                self.waiting.remove(&(at_ms, id));
                let next_ms = integration.blocked_until_ms.min(delivery.deadline_ms);
                delivery.next_attempt_ms = Some(next_ms);
                self.waiting.insert((next_ms, id));
                continue;
            }
            if integration.in_flight >= IN_FLIGHT_PER_INTEGRATION_MAX {
                continue;
            }
            self.waiting.remove(&(at_ms, id));
            integration.in_flight += 1;
            delivery.next_attempt_ms = None;
            delivery.attempts += 1;
            attempts.push(Attempt {
                id,
                receiver: delivery.receiver.clone(),
                integration: delivery.integration,
                notification: Arc::clone(&delivery.notification),
                deadline_ms: delivery.deadline_ms,
            });
        }
        attempts
    }

    /// Reports how an attempt ended. The returned changes must be logged before anything else.
    pub fn finish(&mut self, id: u64, outcome: Outcome, now_ms: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        let jitter = 0.5 + self.rng.next_u64() as f64 / u64::MAX as f64;
        let Some(delivery) = self.deliveries.get_mut(&id) else { return changes };
        let integrations = self.receivers.get_mut(&delivery.receiver);
        let mut integration = integrations.and_then(|all| all.get_mut(delivery.integration));
        if let Some(integration) = &mut integration {
            // A reload starts counting anew while old attempts are still under way.
            integration.in_flight = integration.in_flight.saturating_sub(1);
        }
        match outcome {
            Outcome::Sent(store) => {
                let Some(delivery) = self.take_delivery(id) else { return changes };
                let keep_ms = self.options.retention_ms.max(2 * delivery.repeat_interval_ms);
                let entry = LogEntry {
                    timestamp_ms: delivery.notification.now_ms,
                    expires_at_ms: now_ms + keep_ms,
                    firing: delivery.firing,
                    resolved: delivery.resolved,
                    store,
                };
                self.log.insert(delivery.key.clone(), entry.clone());
                changes.push(Change::Notified(delivery.key, entry));
                self.delivered(delivery.group, true, now_ms, &mut changes);
            }
            Outcome::Retry { after_ms, reason } => {
                delivery.failure = reason;
                let backoff_ms = RETRY_FIRST_MS * 1.5_f64.powi(delivery.attempts as i32 - 1);
                let wait_ms = (backoff_ms.min(RETRY_MAX_MS) * jitter) as i64;
                let next_ms = now_ms + after_ms.unwrap_or(0).max(wait_ms);
                if let (Some(integration), Some(after_ms)) = (integration, after_ms) {
                    integration.blocked_until_ms = now_ms + after_ms;
                }
                if next_ms < delivery.deadline_ms && delivery.group != 0 {
                    delivery.next_attempt_ms = Some(next_ms);
                    self.waiting.insert((next_ms, id));
                } else {
                    self.give_up(id, now_ms, &mut changes);
                }
            }
            Outcome::Failed { reason } => {
                delivery.failure = reason;
                self.give_up(id, now_ms, &mut changes);
            }
        }
        changes
    }

    fn take_delivery(&mut self, id: u64) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&id)?;
        if let Some(count) = self.busy.get_mut(&delivery.key.group_key) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&delivery.key.group_key);
            }
        }
        Some(delivery)
    }

    fn give_up(&mut self, id: u64, now_ms: i64, changes: &mut Vec<Change>) {
        if let Some(delivery) = self.take_delivery(id) {
            self.metrics.notifications_failed.with(&[delivery.kind, delivery.failure]).inc();
            self.delivered(delivery.group, false, now_ms, changes);
        }
    }

    /// The next time at which [`Self::tick`] has something to do; `None`: when something happens.
    pub fn next_wakeup_ms(&self) -> Option<i64> {
        let group = self.schedule.first().map(|(due_ms, _)| *due_ms);
        let free = |id: &u64| {
            let delivery = self.deliveries.get(id)?;
            let integration = self.receivers.get(&delivery.receiver)?.get(delivery.integration)?;
            Some(integration.in_flight < IN_FLIGHT_PER_INTEGRATION_MAX)
        };
        let mut waiting = self.waiting.iter();
        let attempt = waiting.find(|(_, id)| free(id) == Some(true)).map(|(at_ms, _)| *at_ms);
        group.into_iter().chain(attempt).chain([self.next_collect_ms]).min()
    }

    /// Creates or updates a silence; returns its id and the changes to log.
    pub fn set_silence(
        &mut self,
        wanted: Silence,
        now_ms: i64,
    ) -> Result<(String, Vec<Change>), SilenceError> {
        let rng = Arc::clone(&self.rng);
        let changed = self.silences.set(wanted, now_ms, || rng.uuid())?;
        let id = changed.last().map(|silence| silence.id.clone()).unwrap_or_default();
        Ok((id, changed.into_iter().map(Change::Silence).collect()))
    }

    /// Ends a silence now.
    pub fn expire_silence(&mut self, id: &str, now_ms: i64) -> Result<Vec<Change>, SilenceError> {
        let changed = self.silences.expire(id, now_ms)?;
        Ok(changed.into_iter().map(Change::Silence).collect())
    }

    /// The configuration in force.
    pub fn options(&self) -> &Arc<Options> {
        &self.options
    }

    /// The silences.
    pub fn silences(&self) -> &Silences {
        &self.silences
    }

    /// Number of entries in the notification log.
    pub fn log_len(&self) -> usize {
        self.log.iter().count()
    }

    /// Number of groups.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }
}

/// Whether nothing changed but the end and the time of the report.
fn only_refreshed(old: &StoredAlert, new: &StoredAlert) -> bool {
    old.alert.starts_at_ms == new.alert.starts_at_ms
        && old.timeout == new.timeout
        && old.alert.annotations == new.alert.annotations
        && old.alert.generator_url == new.alert.generator_url
}

fn integrations(options: &Options) -> BTreeMap<String, Vec<Integration>> {
    let receivers = options.receivers.iter();
    let all = receivers.map(|receiver| {
        let mut integrations = Vec::new();
        for (index, integration) in receiver.integrations.iter().enumerate() {
            let kind = integration.settings.kind();
            let same_kind = receiver.integrations.iter().take(index);
            let position = same_kind.filter(|other| other.settings.kind() == kind).count();
            integrations.push(Integration {
                name: format!("{}/{kind}/{position}", receiver.name),
                kind,
                send_resolved: integration.send_resolved,
                resolve_when_muted: integration.resolve_when_muted,
                in_flight: 0,
                blocked_until_ms: i64::MIN,
            });
        }
        (receiver.name.clone(), integrations)
    });
    all.collect()
}

#[cfg(test)]
mod tests;
