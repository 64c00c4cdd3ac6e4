//! Self-metrics under Alertmanager's names, so that its dashboards and alerts keep working.

use crate::alerting::Options;
use crate::base::metrics::{Number, Registry, Vector};

/// Bounds as Alertmanager exposes them.
const LATENCY_BOUNDS: [f64; 5] = [1.0, 5.0, 10.0, 15.0, 20.0];
/// Reasons for which notifications fail; all are shown from the start, so that rates work.
pub const FAILURE_REASONS: [&str; 7] = [
    "other",
    "clientError",
    "serverError",
    "contextCanceled",
    "contextDeadlineExceeded",
    "authError",
    "rateLimited",
];

/// Handles of all alerting metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    received: Vector,
    /// Refused alerts.
    pub alerts_invalid: Number,
    /// Alerts refused because there are too many.
    pub alerts_limited: Number,
    /// Notifications that were attempted.
    pub notifications: Vector,
    /// Notifications that failed for good in their flush.
    pub notifications_failed: Vector,
    /// Attempts.
    pub requests: Vector,
    /// Failed attempts.
    pub requests_failed: Vector,
    /// Time that attempts took.
    pub latency: Vector,
    /// Alerts that were not told of.
    pub suppressed: Vector,
    /// Failed writes of the state log.
    pub log_errors: Number,
    /// Rewrites of the state log.
    pub log_compactions: Number,
    /// Whether the last configuration was accepted.
    pub reload_successful: Number,
    /// When the last one was.
    pub reload_timestamp: Number,
    /// Inhibition rules.
    pub inhibition_rules: Number,
    /// Receivers.
    pub receivers: Number,
    /// Integrations.
    pub integrations: Number,
}

impl Metrics {
    /// Registers all of them.
    #[expect(clippy::too_many_lines, reason = "a table: a line or two for each metric")]
    pub fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, labels| {
            registry.counters(&format!("alertmanager_{name}"), help, labels)
        };
        let counter =
            |name: &str, help: &str| registry.counter(&format!("alertmanager_{name}"), help);
        let gauge = |name: &str, help: &str| registry.gauge(&format!("alertmanager_{name}"), help);
        Self {
            received: counters(
                "alerts_received_total",
                "The total number of received alerts.",
                &["status", "version"],
            ),
            alerts_invalid: counter(
                "alerts_invalid_total",
                "The total number of received alerts that were invalid.",
            ),
            alerts_limited: counter(
                "alerts_limited_total",
                "The total number of alerts refused because of limits.",
            ),
            notifications: counters(
                "notifications_total",
                "The total number of attempted notifications.",
                &["integration"],
            ),
            notifications_failed: counters(
                "notifications_failed_total",
                "The total number of failed notifications.",
                &["integration", "reason"],
            ),
            requests: counters(
                "notification_requests_total",
                "The total number of attempted notification requests.",
                &["integration"],
            ),
            requests_failed: counters(
                "notification_requests_failed_total",
                "The total number of failed notification requests.",
                &["integration"],
            ),
            latency: registry.histograms(
                "alertmanager_notification_latency_seconds",
                "The latency of notifications in seconds.",
                &LATENCY_BOUNDS,
                &["integration"],
            ),
            suppressed: counters(
                "notifications_suppressed_total",
                "The total number of notifications suppressed for being silenced, inhibited, outside of active time intervals or within muted time intervals.",
                &["reason"],
            ),
            log_errors: counter(
                "state_log_errors_total",
                "The total number of failed writes of the state log.",
            ),
            log_compactions: counter(
                "state_log_compactions_total",
                "The total number of rewrites of the state log.",
            ),
            reload_successful: gauge(
                "config_last_reload_successful",
                "Whether the last configuration reload attempt was successful.",
            ),
            reload_timestamp: gauge(
                "config_last_reload_success_timestamp_seconds",
                "Timestamp of the last successful configuration reload.",
            ),
            inhibition_rules: gauge("inhibition_rules", "Number of configured inhibition rules."),
            receivers: gauge("receivers", "Number of configured receivers."),
            integrations: gauge("integrations", "Number of configured integrations."),
        }
    }

    /// Notes that a configuration is in force.
    pub fn loaded(&self, options: &Options, now_ms: i64) {
        self.reload_successful.set(1.0);
        self.reload_timestamp.set(now_ms as f64 / 1e3);
        self.inhibition_rules.set(options.inhibit_rules.len() as f64);
        self.receivers.set(options.receivers.len() as f64);
        let integrations = options.receivers.iter().map(|receiver| receiver.integrations.len());
        self.integrations.set(integrations.sum::<usize>() as f64);
    }

    /// Counts a reported alert.
    pub fn received(&self, resolved: bool) {
        let status = if resolved { "resolved" } else { "firing" };
        self.received.with(&[status, "v2"]).inc();
    }

    /// Shows the counters of an integration at zero.
    pub fn prepare(&self, kind: &str) {
        for vector in [&self.notifications, &self.requests, &self.requests_failed] {
            vector.with(&[kind]);
        }
        for reason in FAILURE_REASONS {
            self.notifications_failed.with(&[kind, reason]);
        }
        self.latency.distribution(&[kind]);
    }
}
