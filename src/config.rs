//! YAML files to each module's `Options`; the only home of defaults.
//!
//! [`Config::load`] reads the main file and the scrape files it names; [`Config::rule_groups`]
//! reads the rule files. Both check everything before anything is applied.

pub mod alertmanager;
pub mod http;
pub mod otlp;
pub mod prometheus;
pub mod relabel;
pub mod rules;
pub mod scrape;
pub mod yaml;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::disk::Disk;
use crate::discovery;
use crate::model::labels::{Labels, quote};
use crate::model::relabel::{NameValidation, Rule};
use crate::promql::parser::ParserOptions;
use crate::rules::GroupOptions;
use crate::rules::notifier;
use crate::scrape::JobOptions;

use prometheus::{PrometheusFile, ScrapeConfigFile, StorageOptions, folder_of};
use rules::{RuleDefaults, parse_rules};
use scrape::ScrapeConfig;
pub use yaml::ConfigError;
use yaml::FILE_BYTES_MAX;

/// Discovery sections by the set of targets that they feed: a job's name, or `config-N` of the
/// N-th entry of `alertmanagers`.
pub type DiscoverySets = BTreeMap<String, Vec<discovery::Options>>;

/// Sizes of the notifier that come from flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifierLimits {
    /// `--alertmanager.notification-queue-capacity`
    pub queue_capacity: usize,
    /// `--alertmanager.notification-batch-size`
    pub batch_size: usize,
    /// `--alertmanager.drain-notification-queue-on-shutdown`
    pub drain_on_shutdown: bool,
}

/// A loaded and checked main file.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    file: PrometheusFile,
    /// Jobs of `scrape_config_files`, with the file each stands in.
    more_jobs: Vec<(PathBuf, ScrapeConfig)>,
    scrape_jobs: Vec<JobOptions>,
    scrape_discovery: DiscoverySets,
}

impl Config {
    /// Reads and checks the main file and its scrape files. Variables in external labels are taken
    /// from `environment`.
    pub fn load(
        path: &Path,
        disk: &dyn Disk,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let text = read(disk, path)?;
        Self::parse(path, &text, disk, environment)
    }

    /// As [`Config::load`], for a text that was read already.
    pub fn parse(
        path: &Path,
        text: &str,
        disk: &dyn Disk,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut file: PrometheusFile = yaml::load(path, text)?;
        file.complete(path, environment)?;
        let mut more_jobs = Vec::new();
        for pattern in &file.scrape_config_files {
            for found in find(disk, folder_of(path), &pattern.value) {
                let text = read(disk, &found)?;
                let scrape: ScrapeConfigFile = yaml::load(&found, &text)?;
                for mut job in scrape.scrape_configs {
                    job.inherit(&file.global, &found)?;
                    more_jobs.push((found.clone(), job));
                }
            }
        }
        let mut config = Self {
            path: path.to_owned(),
            file,
            more_jobs,
            scrape_jobs: Vec::new(),
            scrape_discovery: DiscoverySets::new(),
        };
        config.build_jobs()?;
        Ok(config)
    }

    /// All jobs with the file that each stands in.
    fn jobs(&self) -> impl Iterator<Item = (&Path, &ScrapeConfig)> {
        let own = self.file.scrape_configs.iter().map(|job| (self.path.as_path(), job));
        own.chain(self.more_jobs.iter().map(|(path, job)| (path.as_path(), job)))
    }

    fn build_jobs(&mut self) -> Result<(), ConfigError> {
        let (mut names, mut jobs, mut sets) = (BTreeSet::new(), Vec::new(), DiscoverySets::new());
        for (path, job) in self.jobs() {
            let place = job.job_name.as_ref().map(yaml::Place::from).unwrap_or_default();
            let fail = |message: String| ConfigError::at(path, place, message);
            if !names.insert(job.name()) {
                let name = quote(job.name());
                return Err(fail(format!("found multiple scrape configs with job name {name}")));
            }
            let base = folder_of(path);
            jobs.push(job.to_job(base).map_err(fail)?);
            sets.insert(job.name().to_owned(), job.discovery(base).map_err(fail)?);
        }
        (self.scrape_jobs, self.scrape_discovery) = (jobs, sets);
        Ok(())
    }

    /// The main file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The main file as written, defaults filled in.
    pub fn file(&self) -> &PrometheusFile {
        &self.file
    }

    /// What scraping needs.
    pub fn scrape_jobs(&self) -> &[JobOptions] {
        &self.scrape_jobs
    }

    /// What discovers the targets of scrape jobs.
    pub fn scrape_discovery(&self) -> &DiscoverySets {
        &self.scrape_discovery
    }

    /// What discovers Alertmanagers.
    pub fn alertmanager_discovery(&self) -> DiscoverySets {
        let base = folder_of(&self.path);
        let sets = self.file.alerting.alertmanagers.iter().enumerate();
        sets.filter_map(|(index, set)| {
            Some((format!("config-{index}"), set.value.discovery(base).ok()?))
        })
        .collect()
    }

    /// Labels of this server, for alerts, federation and remote systems.
    pub fn external_labels(&self) -> Labels {
        Labels::from(&self.file.global)
    }

    /// `global.evaluation_interval`: default of rule groups and step of subqueries.
    pub fn evaluation_interval_ms(&self) -> i64 {
        self.file.global.evaluation_interval().as_ms()
    }

    /// `global.query_log_file`
    pub fn query_log_file(&self) -> Option<PathBuf> {
        let file = self.file.global.query_log_file.as_deref();
        let file = file.filter(|file| !file.as_os_str().is_empty())?;
        Some(http::resolve(folder_of(&self.path), file))
    }

    /// What the store is told.
    pub fn storage(&self) -> StorageOptions {
        self.file.storage.to_options()
    }

    fn names(&self) -> NameValidation {
        self.file.global.names().unwrap_or(NameValidation::Utf8)
    }

    /// `alert_relabel_configs`
    pub fn alert_relabel_rules(&self) -> Vec<Rule> {
        let configs = self.file.alerting.alert_relabel_configs.iter();
        configs.filter_map(|config| config.value.to_rule(self.names()).ok()).collect()
    }

    /// What the notifier needs.
    pub fn notifier(&self, limits: NotifierLimits) -> notifier::Options {
        let base = folder_of(&self.path);
        let sets = self.file.alerting.alertmanagers.iter().enumerate();
        notifier::Options {
            external_labels: self.external_labels(),
            alert_relabel_rules: self.alert_relabel_rules(),
            queue_capacity: limits.queue_capacity,
            batch_size: limits.batch_size,
            drain_on_shutdown: limits.drain_on_shutdown,
            sets: sets
                .filter_map(|(index, set)| set.value.to_set(index, base, self.names()).ok())
                .collect(),
        }
    }

    /// The rule files that exist now, each once.
    pub fn rule_files(&self, disk: &dyn Disk) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        let patterns = self.file.rule_files.iter();
        let found = patterns.flat_map(|one| find(disk, folder_of(&self.path), &one.value));
        found.filter(|path| seen.insert(path.clone())).collect()
    }

    /// What rule files get from the main file.
    pub fn rule_defaults(&self, parser: ParserOptions) -> RuleDefaults {
        RuleDefaults {
            interval: self.file.global.evaluation_interval(),
            query_offset: self.file.global.rule_query_offset,
            names: self.names(),
            parser,
        }
    }

    /// Reads and checks all rule files.
    ///
    /// # Errors
    /// Everything that is wrong in any of them; then no group should be applied.
    pub fn rule_groups(
        &self,
        disk: &dyn Disk,
        parser: ParserOptions,
    ) -> Result<Vec<GroupOptions>, Vec<ConfigError>> {
        let defaults = self.rule_defaults(parser);
        let (mut groups, mut errors) = (Vec::new(), Vec::new());
        for path in self.rule_files(disk) {
            let text = read(disk, &path).map_err(|err| vec![err]);
            match text.and_then(|text| parse_rules(&path, &text, &defaults)) {
                Ok(found) => groups.extend(found),
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() { Ok(groups) } else { Err(errors) }
    }

    /// Files that are named and not there: rule files without wildcard, credentials, certificates.
    /// They do not keep the server from starting.
    pub fn missing_files(&self, disk: &dyn Disk) -> Vec<ConfigError> {
        let mut missing = Vec::new();
        let base = folder_of(&self.path);
        for pattern in &self.file.rule_files {
            let has_wildcard = pattern.value.contains(['*', '?', '[']);
            if !has_wildcard && !disk.exists(&base.join(&pattern.value)) {
                let name = quote(&pattern.value);
                let message = format!("{name} does not point to an existing file");
                missing.push(ConfigError::at(&self.path, pattern, message));
            }
        }
        for (path, job) in self.jobs() {
            let place = job.job_name.as_ref().map(yaml::Place::from).unwrap_or_default();
            for file in job.http_config().files(folder_of(path)) {
                missing.extend(check_file(disk, path, place, &file));
            }
        }
        for set in &self.file.alerting.alertmanagers {
            for file in set.value.http_config().files(base) {
                missing.extend(check_file(disk, &self.path, set.into(), &file));
            }
        }
        missing
    }

    /// How metrics of OpenTelemetry are received. The two arguments are flags.
    pub fn otlp(
        &self,
        lookback_delta_ms: i64,
        type_and_unit_labels: bool,
    ) -> crate::remote::otlp::Options {
        let own = self.file.otlp.clone().unwrap_or_default();
        own.to_options(lookback_delta_ms, type_and_unit_labels)
    }

    /// Sections that were accepted and do nothing.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut ignored = |name: &str, is_set: bool| {
            if is_set {
                warnings.push(format!("{name} is accepted, but has no effect yet"));
            }
        };
        ignored("tracing", self.file.tracing.is_some());
        warnings
    }

    /// The file as it is in effect, secrets replaced by `<secret>`.
    pub fn to_yaml_redacted(&self) -> String {
        serde_saphyr::to_string(&self.file)
            .unwrap_or_else(|err| format!("# cannot be shown: {err}\n"))
    }

    /// Each scrape job as it is in effect, by name, secrets replaced by `<secret>`.
    pub fn scrape_yaml_redacted(&self) -> BTreeMap<String, String> {
        let text = |job: &ScrapeConfig| {
            serde_saphyr::to_string(job).unwrap_or_else(|err| format!("# cannot be shown: {err}\n"))
        };
        self.jobs().map(|(_, job)| (job.name().to_owned(), text(job))).collect()
    }
}

fn check_file(
    disk: &dyn Disk,
    path: &Path,
    place: yaml::Place,
    file: &Path,
) -> Option<ConfigError> {
    let message = || format!("file {} does not exist", quote(&file.display().to_string()));
    (!disk.exists(file)).then(|| ConfigError::at(path, place, message()))
}

/// The text of a configuration file.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<String, ConfigError> {
    let fail = |message: String| ConfigError::of_file(path, message);
    let bytes = disk.len(path).map_err(|err| fail(format!("cannot be read: {err}")))?;
    if bytes > FILE_BYTES_MAX as u64 {
        return Err(fail(format!("file is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let bytes = disk.read(path).map_err(|err| fail(format!("cannot be read: {err}")))?;
    String::from_utf8(bytes).map_err(|_| fail("file is not UTF-8".to_owned()))
}

/// The files that a pattern names, sorted; wildcards only in the last part. A missing file is no
/// error.
fn find(disk: &dyn Disk, base: &Path, pattern: &str) -> Vec<PathBuf> {
    let whole = base.join(pattern);
    if !pattern.contains(['*', '?', '[']) {
        return if disk.exists(&whole) { vec![whole] } else { Vec::new() };
    }
    let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Vec::new();
    };
    let Ok(name) = glob::Pattern::new(&name.to_string_lossy()) else { return Vec::new() };
    let folder_to_list = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let listed = disk.list(folder_to_list).unwrap_or_default();
    listed.iter().filter(|file| name.matches(file)).map(|file| folder.join(file)).collect()
}
