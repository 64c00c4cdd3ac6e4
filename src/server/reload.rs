//! Everything that is read from files, loaded and checked as a whole before any of it is applied.

use std::time::Duration;

use anyhow::{Context, bail};
use tracing::warn;

use super::Options;
use crate::alerting;
use crate::base::disk::Disk;
use crate::config::yaml::Bytes;
use crate::config::{Config, NotifierLimits, alertmanager};
use crate::model::duration;
use crate::rules::{GroupOptions, notifier};
use crate::scrape::JobOptions;
use crate::storage::options::{Retention, StartTimestamps};

/// How long ended silences and the notification log of the built-in Alertmanager are kept;
/// Alertmanager's default of `--data.retention`.
const ALERTING_RETENTION: Duration = Duration::from_hours(120);

/// How long samples are kept unless a flag or the file says otherwise.
const RETENTION: Duration = Duration::from_hours(15 * 24);

/// One consistent reading of all files.
pub(super) struct Configuration {
    pub config: Config,
    pub groups: Vec<GroupOptions>,
    pub alerting: Option<alerting::Options>,
}

impl Configuration {
    /// Reads the main file, scrape files, rule files and the Alertmanager's file. Blocks.
    pub(super) fn load(disk: &dyn Disk, options: &Options) -> anyhow::Result<Self> {
        let environment = |name: &str| std::env::var(name).ok();
        let config = Config::load(&options.config_file, disk, &environment)
            .context("load the configuration")?;
        for warning in config.warnings() {
            warn!(reason = %warning, "Part of the configuration has no effect.");
        }
        for missing in config.missing_files(disk) {
            warn!(reason = %missing, "A file that the configuration names is missing.");
        }
        let groups = match config.rule_groups(disk, options.features.parser) {
            Ok(groups) => groups,
            Err(errors) => {
                let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
                bail!("load the rules: {}", texts.join("; "));
            }
        };
        let alerting = options.alertmanager_config_file.as_ref().map(|file| {
            let flags = alertmanager::Flags {
                external_url: options.external_url.clone(),
                retention_ms: ALERTING_RETENTION.as_millis() as i64,
            };
            alertmanager::load(disk, file, &flags).context("load the Alertmanager configuration")
        });
        Ok(Self { config, groups, alerting: alerting.transpose()? })
    }

    /// How long samples are kept; the configuration file wins over the flags, as in Prometheus.
    pub(super) fn retention(&self, options: &Options) -> Retention {
        let storage = self.config.storage();
        let (mut time, mut bytes) = (storage.retention_time, storage.retention_bytes);
        if !storage.is_retention_set {
            bytes = options.retention_bytes.filter(|bytes| *bytes > 0);
            let flag = options.retention_time.filter(|time| !time.is_zero());
            time = flag.or_else(|| bytes.is_none().then_some(RETENTION));
        }
        Retention {
            time_ms: time.map(|time| time.as_millis() as i64),
            bytes,
            percentage: storage.retention_percentage,
            rules: storage.retention_rules,
        }
    }

    /// As the API shows it.
    pub(super) fn retention_text(&self, options: &Options) -> String {
        let retention = self.retention(options);
        let time = |time_ms: i64| duration::format(Duration::from_millis(time_ms as u64));
        let parts = [
            retention.time_ms.map(time),
            retention.bytes.map(|bytes| Bytes(bytes).to_string()),
            retention.percentage.map(|percentage| format!("{percentage}%")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" or ")
    }

    pub(super) fn scrape_jobs(&self, options: &Options) -> Vec<JobOptions> {
        let mut jobs = self.config.scrape_jobs().to_vec();
        for job in &mut jobs {
            job.extra_scrape_metrics |= options.features.extra_scrape_metrics;
            if options.features.start_timestamps != StartTimestamps::default() {
                job.read_starts();
            }
        }
        jobs
    }

    pub(super) fn notifier(&self, options: &Options) -> notifier::Options {
        self.config.notifier(NotifierLimits {
            queue_capacity: options.notification_queue_capacity,
            batch_size: options.notification_batch_size,
            drain_on_shutdown: true,
        })
    }
}
