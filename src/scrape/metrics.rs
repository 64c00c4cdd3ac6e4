//! Self-metrics of scraping, named as in Prometheus.

use crate::base::metrics::{Distribution, Number, Registry, Vector};

/// Counters of all pools.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub interval_length: Vector,
    pub delay: Distribution,
    pub sync_length: Vector,
    pub reload_length: Distribution,
    pub pools: Number,
    pub pools_failed: Number,
    pub pool_reloads: Number,
    pub pool_syncs: Vector,
    pub pool_targets: Vector,
    pub pool_target_limit: Vector,
    pub sync_failed: Vector,
    pub exceeded_target_limit: Number,
    pub exceeded_label_limits: Number,
    pub exceeded_sample_limit: Number,
    pub exceeded_body_size_limit: Number,
    pub exceeded_bucket_limit: Number,
    pub exemplar_out_of_order: Number,
    pub duplicate_timestamp: Number,
    pub out_of_order: Number,
    pub out_of_bounds: Number,
    pub cache_flush_forced: Number,
    pub metadata_entries: Vector,
    pub metadata_bytes: Vector,
}

const QUANTILES: &[f64] = &[0.01, 0.05, 0.5, 0.9, 0.99];
const BY_JOB: &[&str] = &["scrape_job"];

/// Upper bounds of delays, in seconds.
const DELAY_BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

impl Metrics {
    #[expect(clippy::too_many_lines, reason = "a table of names and help texts")]
    pub fn new(registry: &Registry) -> Self {
        let counter =
            |name: &str, help: &str| registry.counter(&format!("prometheus_target_{name}"), help);
        let gauges = |name: &str, help: &str| {
            registry.gauges(&format!("prometheus_target_{name}"), help, BY_JOB)
        };
        let counters = |name: &str, help: &str| {
            registry.counters(&format!("prometheus_target_{name}"), help, BY_JOB)
        };
        Self {
            interval_length: registry.summaries(
                "prometheus_target_interval_length_seconds",
                "Actual intervals between scrapes.",
                QUANTILES,
                &["interval"],
            ),
            delay: registry.histogram(
                "narthex_scrape_delay_seconds",
                "How much later than planned scrapes began.",
                DELAY_BOUNDS,
            ),
            sync_length: registry.summaries(
                "prometheus_target_sync_length_seconds",
                "Actual interval to sync the scrape pool.",
                QUANTILES,
                BY_JOB,
            ),
            reload_length: registry.summary(
                "prometheus_target_reload_length_seconds",
                "Actual interval to reload the scrape pool with a given configuration.",
                QUANTILES,
            ),
            pools: counter("scrape_pools_total", "Total number of scrape pool creation attempts."),
            pools_failed: counter(
                "scrape_pools_failed_total",
                "Total number of scrape pool creations that failed.",
            ),
            pool_reloads: counter(
                "scrape_pool_reloads_total",
                "Total number of scrape pool reloads.",
            ),
            pool_syncs: counters(
                "scrape_pool_sync_total",
                "Total number of syncs that were executed on a scrape pool.",
            ),
            pool_targets: gauges(
                "scrape_pool_targets",
                "Current number of targets in this scrape pool.",
            ),
            pool_target_limit: gauges(
                "scrape_pool_target_limit",
                "Maximum number of targets allowed in this scrape pool.",
            ),
            sync_failed: counters("sync_failed_total", "Total number of target sync failures."),
            exceeded_target_limit: counter(
                "scrape_pool_exceeded_target_limit_total",
                "Total number of times scrape pools hit the target limit, during sync or config reload.",
            ),
            exceeded_label_limits: counter(
                "scrape_pool_exceeded_label_limits_total",
                "Total number of times scrape pools hit the label limits, during sync or config reload.",
            ),
            exceeded_sample_limit: counter(
                "scrapes_exceeded_sample_limit_total",
                "Total number of scrapes that hit the sample limit and were rejected.",
            ),
            exceeded_body_size_limit: counter(
                "scrapes_exceeded_body_size_limit_total",
                "Total number of scrapes that hit the body size limit",
            ),
            duplicate_timestamp: counter(
                "scrapes_sample_duplicate_timestamp_total",
                "Total number of samples rejected due to duplicate timestamps but different values.",
            ),
            out_of_order: counter(
                "scrapes_sample_out_of_order_total",
                "Total number of samples rejected due to not being out of the expected order.",
            ),
            out_of_bounds: counter(
                "scrapes_sample_out_of_bounds_total",
                "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            ),
            exceeded_bucket_limit: counter(
                "scrapes_exceeded_native_histogram_bucket_limit_total",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected.",
            ),
            exemplar_out_of_order: counter(
                "scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            ),
            cache_flush_forced: counter(
                "scrapes_cache_flush_forced_total",
                "How many times a scrape cache was flushed due to getting big while scrapes are failing.",
            ),
            metadata_entries: gauges(
                "metadata_cache_entries",
                "Total number of metric metadata entries in the cache",
            ),
            metadata_bytes: gauges(
                "metadata_cache_bytes",
                "The number of bytes that are currently used for storing metric metadata in the cache",
            ),
        }
    }

    /// Forgets the series of a pool that is gone.
    pub fn forget_pool(&self, job: &str) {
        for vector in [
            &self.sync_length,
            &self.pool_syncs,
            &self.pool_targets,
            &self.pool_target_limit,
            &self.sync_failed,
            &self.metadata_entries,
            &self.metadata_bytes,
        ] {
            vector.remove(&[job]);
        }
    }
}
