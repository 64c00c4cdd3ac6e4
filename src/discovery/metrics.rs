//! Self-metrics of service discovery, named as in Prometheus.

use crate::base::metrics::{Distribution, Number, Registry, Vector};

/// Counters and gauges of one manager.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub received_updates: Number,
    pub updates: Number,
    pub updates_delayed: Number,
    discovered_targets: Vector,
    pub file_read_errors: Number,
    pub file_scan_seconds: Distribution,
    name: &'static str,
}

impl Metrics {
    pub fn new(registry: &Registry, name: &'static str) -> Self {
        let labels: &'static [&'static str] = &["name"];
        let counter = |metric: &str, help: &str| {
            registry.counters(&format!("prometheus_sd_{metric}"), help, labels).with(&[name])
        };
        // Ours cannot fail to be set up; dashboards ask for it all the same.
        let help = "Current number of service discovery configurations that failed to load.";
        registry.gauges("prometheus_sd_failed_configs", help, labels).with(&[name]);
        Self {
            received_updates: counter(
                "received_updates_total",
                "Total number of update events received from the SD providers.",
            ),
            updates: counter(
                "updates_total",
                "Total number of update events sent to the SD consumers.",
            ),
            updates_delayed: counter(
                "updates_delayed_total",
                "Total number of update events that couldn't be sent immediately.",
            ),
            discovered_targets: registry.gauges(
                "prometheus_sd_discovered_targets",
                "Current number of discovered targets.",
                &["name", "config"],
            ),
            file_read_errors: registry.counter(
                "prometheus_sd_file_read_errors_total",
                "The number of File-SD read errors.",
            ),
            file_scan_seconds: registry.summary(
                "prometheus_sd_file_scan_duration_seconds",
                "The duration of the File-SD scan in seconds.",
                &[0.5, 0.9, 0.99],
            ),
            name,
        }
    }

    pub fn set_targets(&self, set: &str, count: usize) {
        self.discovered_targets.with(&[self.name, set]).set(count as f64);
    }

    pub fn forget_set(&self, set: &str) {
        self.discovered_targets.remove(&[self.name, set]);
    }
}
