//! The series that a scrape writes about itself: `up` and the like.

use std::time::Duration;

use super::append::Counts;
use super::options::JobOptions;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::sample::stale_nan;
use crate::storage::append::{Append, SeriesKey};

/// Always written, in the order of [`Outcome::values`].
const NAMES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];
/// Written with `extra_scrape_metrics`.
const EXTRA_NAMES: [&str; 3] =
    ["scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"];

/// How a scrape went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub is_up: bool,
    pub duration: Duration,
    pub counts: Counts,
    pub timeout: Duration,
    pub sample_limit: u64,
    /// Uncompressed; -1 when the limit was exceeded, 0 when there was no body.
    pub body_bytes: i64,
}

impl Outcome {
    fn values(&self) -> [f64; 8] {
        [
            f64::from(u8::from(self.is_up)),
            self.duration.as_secs_f64(),
            self.counts.scraped as f64,
            self.counts.post_relabel as f64,
            self.counts.added as f64,
            self.timeout.as_secs_f64(),
            self.sample_limit as f64,
            self.body_bytes as f64,
        ]
    }
}

/// The report series of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReportSeries(Vec<Labels>);

impl ReportSeries {
    pub fn new(job: &JobOptions, target_labels: &Labels) -> Self {
        let extra = if job.extra_scrape_metrics { &EXTRA_NAMES[..] } else { &[] };
        let series = NAMES.iter().chain(extra).map(|name| {
            let mut labels = target_labels.to_builder();
            labels.set(METRIC_NAME, name);
            labels.build()
        });
        Self(series.collect())
    }

    pub fn append(&self, append: &mut dyn Append, timestamp_ms: i64, outcome: &Outcome) {
        for (labels, value) in self.0.iter().zip(outcome.values()) {
            append.float(SeriesKey::Labels(labels), timestamp_ms, value);
        }
    }

    /// Ends them: the target is gone.
    pub fn append_stale(&self, append: &mut dyn Append, timestamp_ms: i64) {
        append.reject_out_of_order(true);
        for labels in &self.0 {
            append.float(SeriesKey::Labels(labels), timestamp_ms, stale_nan());
        }
    }
}
