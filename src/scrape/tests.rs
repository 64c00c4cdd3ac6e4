//! What the tests of this module share.

use std::time::Duration;

use super::*;
use crate::http_client;
use crate::model::relabel::NameValidation;

/// A job without limits that scrapes every 15 s.
pub(super) fn job(job_name: &str) -> JobOptions {
    JobOptions {
        job_name: job_name.to_owned(),
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        metrics_path: "/metrics".to_owned(),
        scheme: "http".to_owned(),
        params: Vec::new(),
        honor_labels: false,
        honor_timestamps: true,
        track_timestamps_staleness: false,
        enable_compression: true,
        scrape_protocols: vec![
            ScrapeProtocol::OpenMetricsText1_0_0,
            ScrapeProtocol::PrometheusText0_0_4,
        ],
        fallback_scrape_protocol: None,
        body_size_limit: 0,
        sample_limit: 0,
        label_limit: 0,
        label_name_length_limit: 0,
        label_value_length_limit: 0,
        target_limit: 0,
        keep_dropped_targets: 0,
        relabel_rules: Vec::new(),
        metric_relabel_rules: Vec::new(),
        name_validation: NameValidation::Utf8,
        name_escaping: "allow-utf-8".to_owned(),
        extra_scrape_metrics: false,
        scrape_failure_log_file: None,
        http: http_client::Options::plain(),
    }
}
