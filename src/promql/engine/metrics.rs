//! What an engine reports of itself, under the names of Prometheus.

use crate::base::metrics::{Distribution, Number, Registry};

use super::Stats;

/// The engine's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Queries that run or wait.
    pub(super) queries: Number,
    samples: Number,
    samples_read: Number,
    queue_time: Distribution,
    prepare_time: Distribution,
    inner_eval: Distribution,
    result_sort: Distribution,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, concurrency_max: usize) -> Self {
        registry
            .gauge(
                "prometheus_engine_queries_concurrent_max",
                "The max number of concurrent queries.",
            )
            .set(concurrency_max as f64);
        let durations = registry.summaries(
            "prometheus_engine_query_duration_seconds",
            "Query timings",
            &[0.5, 0.9, 0.99],
            &["slice"],
        );
        Self {
            queries: registry.gauge(
                "prometheus_engine_queries",
                "The current number of queries being executed or waiting.",
            ),
            samples: registry.counter(
                "prometheus_engine_query_samples_total",
                "The total number of samples loaded by all queries (full window per step for range-vector).",
            ),
            samples_read: registry.counter(
                "prometheus_engine_query_samples_read_total",
                "The total number of samples read from storage by all queries.",
            ),
            queue_time: durations.distribution(&["queue_time"]),
            prepare_time: durations.distribution(&["prepare_time"]),
            inner_eval: durations.distribution(&["inner_eval"]),
            result_sort: durations.distribution(&["result_sort"]),
        }
    }

    /// Takes in a query that has ended well.
    pub(super) fn observe(&self, stats: &Stats) {
        let timings = &stats.timings;
        self.samples.add(stats.total_samples as f64);
        self.samples_read.add(stats.samples_read as f64);
        self.queue_time.observe(timings.exec_queue.as_secs_f64());
        self.prepare_time.observe(timings.query_preparation.as_secs_f64());
        self.inner_eval.observe(timings.inner_eval.as_secs_f64());
        self.result_sort.observe(timings.result_sort.as_secs_f64());
    }
}
