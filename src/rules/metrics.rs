//! What rule evaluation reports about itself, under Prometheus' names.

use crate::base::metrics::{Distribution, Registry, Vector};

use super::GroupOptions;

/// Metrics of all groups; the label `rule_group` is `file;name`.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) evaluation_duration: Distribution,
    pub(super) group_duration: Distribution,
    pub(super) delay: Distribution,
    pub(super) evaluations: Vector,
    pub(super) evaluation_failures: Vector,
    pub(super) iterations: Vector,
    pub(super) iterations_missed: Vector,
    pub(super) interval_seconds: Vector,
    pub(super) last_evaluation_timestamp: Vector,
    pub(super) last_duration: Vector,
    pub(super) last_rule_duration_sum: Vector,
    pub(super) last_restore_duration: Vector,
    pub(super) rules: Vector,
    pub(super) last_samples: Vector,
}

const GROUP: &[&str] = &["rule_group"];

/// Upper bounds of delays, in seconds.
const DELAY_BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

impl Metrics {
    /// Registers them.
    #[expect(clippy::too_many_lines, reason = "a table of names and help texts")]
    pub fn new(registry: &Registry) -> Self {
        Self {
            evaluation_duration: registry.summary(
                "prometheus_rule_evaluation_duration_seconds",
                "The duration for a rule to execute.",
                &[0.5, 0.9, 0.99],
            ),
            group_duration: registry.summary(
                "prometheus_rule_group_duration_seconds",
                "The duration of rule group evaluations.",
                &[0.01, 0.05, 0.5, 0.9, 0.99],
            ),
            delay: registry.histogram(
                "narthex_rule_group_delay_seconds",
                "How much later than planned evaluations of rule groups began.",
                DELAY_BOUNDS,
            ),
            evaluations: registry.counters(
                "prometheus_rule_evaluations_total",
                "The total number of rule evaluations.",
                GROUP,
            ),
            evaluation_failures: registry.counters(
                "prometheus_rule_evaluation_failures_total",
                "The total number of rule evaluation failures.",
                GROUP,
            ),
            iterations: registry.counters(
                "prometheus_rule_group_iterations_total",
                "The total number of scheduled rule group evaluations, whether executed or missed.",
                GROUP,
            ),
            iterations_missed: registry.counters(
                "prometheus_rule_group_iterations_missed_total",
                "The total number of rule group evaluations missed due to slow rule group evaluation.",
                GROUP,
            ),
            interval_seconds: registry.gauges(
                "prometheus_rule_group_interval_seconds",
                "The interval of a rule group.",
                GROUP,
            ),
            last_evaluation_timestamp: registry.gauges(
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "The timestamp of the last rule group evaluation in seconds.",
                GROUP,
            ),
            last_duration: registry.gauges(
                "prometheus_rule_group_last_duration_seconds",
                "The duration of the last rule group evaluation.",
                GROUP,
            ),
            last_rule_duration_sum: registry.gauges(
                "prometheus_rule_group_last_rule_duration_sum_seconds",
                "The sum of time in seconds it took to evaluate each rule in the group regardless of concurrency.",
                GROUP,
            ),
            last_restore_duration: registry.gauges(
                "prometheus_rule_group_last_restore_duration_seconds",
                "The duration of the last alert rules alerts restoration using the ALERTS_FOR_STATE series.",
                GROUP,
            ),
            rules: registry.gauges(
                "prometheus_rule_group_rules",
                "The number of rules.",
                GROUP,
            ),
            last_samples: registry.gauges(
                "prometheus_rule_group_last_evaluation_samples",
                "The number of samples returned during the last rule group evaluation.",
                GROUP,
            ),
        }
    }

    /// Makes the series of a group, so that its counters start at zero.
    pub(super) fn begin(&self, group: &GroupOptions) {
        let key = [&*group.key()];
        for vector in self.of_group() {
            vector.with(&key);
        }
        self.rules.with(&key).set(group.rules.len() as f64);
        self.interval_seconds.with(&key).set(group.interval_ms as f64 / 1000.0);
    }

    /// Forgets a group.
    pub(super) fn end(&self, key: &str) {
        for vector in self.of_group() {
            vector.remove(&[key]);
        }
    }

    fn of_group(&self) -> [&Vector; 11] {
        [
            &self.evaluations,
            &self.evaluation_failures,
            &self.iterations,
            &self.iterations_missed,
            &self.interval_seconds,
            &self.last_evaluation_timestamp,
            &self.last_duration,
            &self.last_rule_duration_sum,
            &self.last_restore_duration,
            &self.rules,
            &self.last_samples,
        ]
    }
}
