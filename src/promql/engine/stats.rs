//! How much work a query was: where its time went, and how many samples it looked at.

use std::time::Duration;

use serde_json::{Value, json};

/// How long each part of a query took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Waiting for a place.
    pub exec_queue: Duration,
    /// Parsing and planning.
    pub query_preparation: Duration,
    /// Evaluation proper.
    pub inner_eval: Duration,
    /// Sorting the result.
    pub result_sort: Duration,
    /// Preparation, evaluation and sorting.
    pub eval_total: Duration,
    /// Everything.
    pub exec_total: Duration,
}

/// Statistics of one query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Where the time went.
    pub timings: Timings,
    /// Samples that functions and selectors looked at, the whole window at each step.
    pub total_samples: u64,
    /// Samples that were read from the store: those that the windows of neighbouring steps share
    /// count once.
    pub samples_read: u64,
    /// Most samples held at a time.
    pub peak_samples: u64,
    /// The same for each step, when it was asked for.
    pub per_step: Option<PerStep>,
}

/// Samples by step. Their sums are the totals of the query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PerStep {
    /// First step.
    pub start_ms: i64,
    /// Between two steps.
    pub step_ms: i64,
    /// Samples that were looked at.
    pub total: Vec<u64>,
    /// Samples that were read for the first time.
    pub read: Vec<u64>,
}

impl PerStep {
    fn points(&self, counts: &[u64]) -> Vec<(f64, u64)> {
        let second = |at: usize| (self.start_ms + at as i64 * self.step_ms) as f64 / 1000.0;
        counts.iter().enumerate().map(|(at, count)| (second(at), *count)).collect()
    }
}

impl Stats {
    /// As the API and the query log write them.
    pub fn to_json(&self) -> Value {
        let timings = &self.timings;
        let mut samples = json!({
            "totalQueryableSamples": self.total_samples,
            "samplesRead": self.samples_read,
            "peakSamples": self.peak_samples,
        });
        if let Some(steps) = &self.per_step {
            samples["totalQueryableSamplesPerStep"] = json!(steps.points(&steps.total));
            samples["samplesReadPerStep"] = json!(steps.points(&steps.read));
        }
        json!({
            "timings": {
                "evalTotalTime": timings.eval_total.as_secs_f64(),
                "resultSortTime": timings.result_sort.as_secs_f64(),
                "queryPreparationTime": timings.query_preparation.as_secs_f64(),
                "innerEvalTime": timings.inner_eval.as_secs_f64(),
                "execQueueTime": timings.exec_queue.as_secs_f64(),
                "execTotalTime": timings.exec_total.as_secs_f64(),
            },
            "samples": samples,
        })
    }
}
