//! What a scrape job is configured with.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use crate::http_client;
use crate::model::histogram::{Histogram, SCHEMA_MAX, SCHEMA_MIN};
use crate::model::relabel::{NameValidation, Rule};

/// A format that a target may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// `PrometheusProto`
    PrometheusProto,
    /// `PrometheusText0.0.4`
    PrometheusText0_0_4,
    /// `PrometheusText1.0.0`
    PrometheusText1_0_0,
    /// `OpenMetricsText0.0.1`
    OpenMetricsText0_0_1,
    /// `OpenMetricsText1.0.0`
    OpenMetricsText1_0_0,
}

impl ScrapeProtocol {
    /// All protocols.
    pub const ALL: [Self; 5] = [
        Self::PrometheusProto,
        Self::PrometheusText0_0_4,
        Self::PrometheusText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::OpenMetricsText1_0_0,
    ];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
        }
    }

    /// The protocol of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }

    /// The media type of the `Accept` header, without escaping.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
        }
    }
}

/// What is done with histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramOptions {
    /// Whether native histograms are taken (`scrape_native_histograms`).
    pub native: bool,
    /// Whether classic ones are taken too where there is a native one
    /// (`always_scrape_classic_histograms`).
    pub always_classic: bool,
    /// Whether classic ones become native (`convert_classic_histograms_to_nhcb`).
    pub convert: bool,
    /// The scrape fails when a native histogram cannot be reduced to so many buckets; 0: any.
    pub bucket_limit: u64,
    /// Finer schemas are reduced to this (`native_histogram_min_bucket_factor`).
    pub schema_max: i32,
}

impl HistogramOptions {
    /// The finest schema whose buckets grow at least by this factor.
    pub fn schema_of_factor(factor: f64) -> i32 {
        let factor = if factor <= 1.0 { 1.002_71 } else { factor };
        let schema = (-factor.log2().log2()).floor();
        schema.clamp(f64::from(SCHEMA_MIN), f64::from(SCHEMA_MAX)) as i32
    }

    /// The histogram as it is stored; `None` when it has too many buckets.
    pub(super) fn limited<'a>(&self, own: &'a Histogram) -> Option<Cow<'a, Histogram>> {
        let mut own = Cow::Borrowed(own);
        if !own.has_custom_buckets() && self.schema_max < own.schema {
            own = Cow::Owned(own.reduced(self.schema_max));
        }
        let count = |own: &Histogram| own.positive_buckets.len() + own.negative_buckets.len();
        while self.bucket_limit > 0 && self.bucket_limit < count(&own) as u64 {
            if own.has_custom_buckets() || own.schema <= SCHEMA_MIN {
                return None;
            }
            own = Cow::Owned(own.reduced(own.schema - 1));
        }
        Some(own)
    }
}

/// One entry of `scrape_configs`, with the global values filled in. Limits of zero mean none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOptions {
    /// Name of the job and of its pool.
    pub job_name: String,
    /// Time between two scrapes of a target.
    pub interval: Duration,
    /// A scrape fails after this; not above `interval`.
    pub timeout: Duration,
    /// Path of the URL.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Query parameters of the URL.
    pub params: Vec<(String, Vec<String>)>,
    /// Whether scraped labels win over target labels.
    pub honor_labels: bool,
    /// Whether timestamps in the exposition are used.
    pub honor_timestamps: bool,
    /// Whether samples with such timestamps take part in staleness.
    pub track_timestamps_staleness: bool,
    /// Whether gzip is asked for.
    pub enable_compression: bool,
    /// Formats to ask for, best first.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Whether nobody said which.
    pub has_default_protocols: bool,
    /// Format of a body whose `Content-Type` is missing or unknown.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    /// What is done with histograms; labels of a target may say otherwise.
    pub histograms: HistogramOptions,
    /// The scrape fails when the uncompressed body has this many bytes or more.
    pub body_size_limit: u64,
    /// The scrape fails when it has more samples after metric relabelling.
    pub sample_limit: u64,
    /// The scrape fails when a sample has more labels.
    pub label_limit: u64,
    /// The scrape fails when a label's name is longer (bytes).
    pub label_name_length_limit: u64,
    /// The scrape fails when a label's value is longer (bytes).
    pub label_value_length_limit: u64,
    /// All targets of the job fail when there are more.
    pub target_limit: u64,
    /// How many dropped targets are remembered for display.
    pub keep_dropped_targets: u64,
    /// Rules for targets.
    pub relabel_rules: Vec<Rule>,
    /// Rules for samples.
    pub metric_relabel_rules: Vec<Rule>,
    /// Which names samples may have.
    pub name_validation: NameValidation,
    /// `metric_name_escaping_scheme`: `allow-utf-8`, `underscores`, `dots` or `values`.
    pub name_escaping: String,
    /// Whether `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` are
    /// written too.
    pub extra_scrape_metrics: bool,
    /// Whether the `_created` samples of OpenMetrics tell since when others are counted, instead of
    /// being samples; see [`JobOptions::read_starts`].
    pub reads_starts: bool,
    /// A file that gets one JSON line for each failed scrape.
    pub scrape_failure_log_file: Option<PathBuf>,
    /// How targets are reached.
    pub http: http_client::Options,
}

impl JobOptions {
    /// Since when counters are counted is wanted: that is best told in protobuf.
    pub fn read_starts(&mut self) {
        self.reads_starts = true;
        let proto = ScrapeProtocol::PrometheusProto;
        if self.has_default_protocols && !self.scrape_protocols.contains(&proto) {
            self.scrape_protocols.insert(0, proto);
        }
    }
}
