//! Self-metrics of the store, under Prometheus' names.

use super::append::Appended;
use crate::base::metrics::{Distribution, Family, Kind, Number, Registry, Sample};

/// Handles of what is counted as it happens. Gauges are read when somebody asks.
pub struct Metrics {
    samples_appended: Number,
    out_of_order_appended: Number,
    out_of_order: Number,
    out_of_bounds: Number,
    too_old: Number,
    /// Series that were made.
    pub series_created: Number,
    /// Series that were forgotten.
    pub series_removed: Number,
    /// Duration of a sync of the log.
    pub fsync_seconds: Distribution,
    /// Log files that were damaged.
    pub wal_corruptions: Number,
    /// Log files that became segments.
    pub seals: Number,
    /// Attempts at that which failed.
    pub seals_failed: Number,
    /// How long it took.
    pub seal_seconds: Distribution,
    /// Times that retention removed segments.
    pub time_retentions: Number,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Self {
        let by_type =
            |name: &str, help: &str| registry.counters(name, help, &["type"]).with(&["float"]);
        let seal_bounds = [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
        Self {
            samples_appended: by_type(
                "prometheus_tsdb_head_samples_appended_total",
                "Total number of appended samples.",
            ),
            out_of_order_appended: by_type(
                "prometheus_tsdb_head_out_of_order_samples_appended_total",
                "Total number of appended out of order samples.",
            ),
            out_of_order: by_type(
                "prometheus_tsdb_out_of_order_samples_total",
                "Total number of out of order samples ingestion failed attempts.",
            ),
            out_of_bounds: by_type(
                "prometheus_tsdb_out_of_bound_samples_total",
                "Total number of out of bound samples ingestion failed attempts.",
            ),
            too_old: by_type(
                "prometheus_tsdb_too_old_samples_total",
                "Total number of out of order samples ingestion failed attempts with out of \
                 support enabled, but sample outside of time window.",
            ),
            series_created: registry.counter(
                "prometheus_tsdb_head_series_created_total",
                "Total number of series created in the head",
            ),
            series_removed: registry.counter(
                "prometheus_tsdb_head_series_removed_total",
                "Total number of series removed in the head",
            ),
            fsync_seconds: registry.summary(
                "prometheus_tsdb_wal_fsync_duration_seconds",
                "Duration of write log fsync.",
                &[0.5, 0.9, 0.99],
            ),
            wal_corruptions: registry.counter(
                "prometheus_tsdb_wal_corruptions_total",
                "Total number of WAL corruptions.",
            ),
            seals: registry.counter(
                "prometheus_tsdb_compactions_total",
                "Total number of compactions that were executed for the partition.",
            ),
            seals_failed: registry.counter(
                "prometheus_tsdb_compactions_failed_total",
                "Total number of compactions that failed for the partition.",
            ),
            seal_seconds: registry.histogram(
                "prometheus_tsdb_compaction_duration_seconds",
                "Duration of compaction runs",
                &seal_bounds,
            ),
            time_retentions: registry.counter(
                "prometheus_tsdb_time_retentions_total",
                "The number of times that blocks were deleted because the maximum time limit \
                 was exceeded.",
            ),
        }
    }

    /// Counts what a commit took in.
    pub fn count_appended(&self, appended: &Appended, late_count: usize) {
        self.samples_appended.add(appended.sample_count as f64);
        if late_count > 0 {
            self.out_of_order_appended.add(late_count as f64);
        }
        if appended.new_series_count > 0 {
            self.series_created.add(appended.new_series_count as f64);
        }
    }

    /// Counts what a commit refused.
    pub fn count_rejected(&self, appended: &Appended) {
        let counts = [
            (&self.out_of_order, appended.out_of_order_count),
            (&self.out_of_bounds, appended.out_of_bounds_count),
            (&self.too_old, appended.too_old_count),
        ];
        for (number, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            number.add(count as f64);
        }
    }
}

/// A gauge that is read at the moment it is asked for.
pub fn gauge(name: &str, help: &str, value: f64) -> Family {
    Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: Kind::Gauge,
        samples: vec![Sample { suffix: "", labels: Vec::new(), value }],
    }
}
