//! The main file: schema, defaults and the checks of Prometheus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::http::{TlsConfig, impl_http_config, with_http_fields};
use super::relabel::{RelabelConfig, to_rules};
use super::scrape::{
    FileSdConfig, ScrapeConfig, StaticConfig, discovery_options, name_escaping, name_validation,
    protocols,
};
use super::yaml::{Bytes, ConfigError, LabelMap, Span, Spanned, is_default};
use crate::discovery;
use crate::model::labels::{Labels, quote};
use crate::model::matcher::CompileAllowance;
use crate::model::matcher::written::compile_all;
use crate::model::relabel::NameValidation;
use crate::promql::parser::{ParserOptions, parse_metric_selector};
use crate::rules::notifier::AlertmanagerSet;
use crate::storage::options;

/// `global.scrape_interval` and `global.evaluation_interval`.
const INTERVAL: Span = Span::from_secs(60);
/// `global.scrape_timeout`, unless the interval is shorter.
const SCRAPE_TIMEOUT: Span = Span::from_secs(10);
/// `alertmanagers.timeout`
const ALERTMANAGER_TIMEOUT: Span = Span::from_secs(10);
/// How late samples may come. Prometheus' default is zero; ours is documented as a difference.
const OUT_OF_ORDER_WINDOW: Span = Span::from_secs(2 * 3600);
/// Exemplars that are kept.
const EXEMPLARS_MAX: i64 = 100_000;
/// How long samples are kept when neither time nor size is limited.
const RETENTION: Span = Span::from_secs(15 * 24 * 3600);

/// The file as written; after loading, what was left out holds its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct PrometheusFile {
    pub global: Global,
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<Runtime>,
    #[serde(skip_serializing_if = "is_default")]
    pub alerting: Alerting,
    #[serde(skip_serializing_if = "is_default")]
    pub rule_files: Vec<Spanned<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub scrape_config_files: Vec<Spanned<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub scrape_configs: Vec<ScrapeConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub storage: Storage,
    #[serde(skip_serializing_if = "is_default")]
    pub otlp: Option<super::otlp::Otlp>,
    #[serde(skip_serializing_if = "is_default")]
    pub tracing: Option<Tracing>,
}

/// A file of `scrape_config_files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct ScrapeConfigFile {
    pub scrape_configs: Vec<ScrapeConfig>,
}

/// `global`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Global {
    pub scrape_interval: Option<Span>,
    pub scrape_timeout: Option<Spanned<Span>>,
    #[serde(skip_serializing_if = "is_default")]
    pub scrape_protocols: Option<Vec<String>>,
    pub evaluation_interval: Option<Span>,
    #[serde(skip_serializing_if = "is_default")]
    pub rule_query_offset: Span,
    #[serde(skip_serializing_if = "is_default")]
    pub query_log_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "is_default")]
    pub scrape_failure_log_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "LabelMap::is_empty")]
    pub external_labels: LabelMap,
    #[serde(skip_serializing_if = "is_default")]
    pub body_size_limit: Bytes,
    #[serde(skip_serializing_if = "is_default")]
    pub sample_limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub target_limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub label_limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub label_name_length_limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub label_value_length_limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub keep_dropped_targets: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub metric_name_validation_scheme: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub metric_name_escaping_scheme: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub scrape_native_histograms: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub convert_classic_histograms_to_nhcb: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub always_scrape_classic_histograms: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub extra_scrape_metrics: Option<bool>,
}

/// `runtime`: accepted, without effect (there is no garbage collector).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Runtime {
    pub gogc: Option<i64>,
}

/// `alerting`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Alerting {
    #[serde(skip_serializing_if = "is_default")]
    pub alert_relabel_configs: Vec<Spanned<RelabelConfig>>,
    #[serde(skip_serializing_if = "is_default")]
    pub alertmanagers: Vec<Spanned<Alertmanager>>,
}

with_http_fields! {
    /// One entry of `alertmanagers`.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Alertmanager {
        #[serde(skip_serializing_if = "is_default")]
        pub scheme: Option<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub path_prefix: String,
        #[serde(skip_serializing_if = "is_default")]
        pub timeout: Option<Span>,
        #[serde(skip_serializing_if = "is_default")]
        pub api_version: Option<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub relabel_configs: Vec<RelabelConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub alert_relabel_configs: Vec<RelabelConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub static_configs: Vec<StaticConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub file_sd_configs: Vec<FileSdConfig>,
    }
}
impl_http_config!(Alertmanager);

/// `storage`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Storage {
    #[serde(skip_serializing_if = "is_default")]
    pub tsdb: Tsdb,
    #[serde(skip_serializing_if = "is_default")]
    pub exemplars: Option<Exemplars>,
    #[serde(skip_serializing_if = "is_default")]
    pub retention: Vec<Spanned<RetentionRule>>,
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Limits,
}

/// An entry of `storage.retention`, an extension: how long some series are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct RetentionRule {
    #[serde(rename = "match")]
    pub selector: String,
    pub time: Option<Span>,
}

impl RetentionRule {
    fn to_rule(&self) -> Result<options::RetentionRule, String> {
        let refused = |err: &dyn std::fmt::Display| {
            format!("storage.retention match {}: {err}", quote(&self.selector))
        };
        let written = parse_metric_selector(&self.selector, &ParserOptions::ALL)
            .map_err(|err| refused(&err))?;
        let matchers =
            compile_all(&written, &mut CompileAllowance::default()).map_err(|err| refused(&err))?;
        let time = self.time.ok_or("storage.retention entry without time")?;
        let time_ms = (!time.is_zero()).then_some(time.0.as_millis() as i64);
        Ok(options::RetentionRule { matchers, time_ms })
    }
}

/// `storage.limits`, an extension: how many active series there may be; 0: any number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Limits {
    #[serde(skip_serializing_if = "is_default")]
    pub active_series: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub active_series_per_job: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub jobs: BTreeMap<String, u64>,
}

/// `storage.tsdb`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Tsdb {
    #[serde(skip_serializing_if = "is_default")]
    pub out_of_order_time_window: Option<Span>,
    #[serde(skip_serializing_if = "is_default")]
    pub retention: Retention,
    #[serde(skip_serializing_if = "is_default")]
    pub stale_series_compaction_threshold: Option<super::scrape::Factor>,
    #[serde(skip_serializing_if = "is_default")]
    pub chunk_encoding: Option<ChunkEncoding>,
}

/// `storage.tsdb.retention`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Retention {
    #[serde(skip_serializing_if = "is_default")]
    pub time: Option<Span>,
    #[serde(skip_serializing_if = "is_default")]
    pub size: Option<Bytes>,
    #[serde(skip_serializing_if = "is_default")]
    pub percentage: Option<super::scrape::Factor>,
}

/// `storage.tsdb.chunk_encoding`: accepted, without effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct ChunkEncoding {
    pub floats: String,
}

/// `storage.exemplars`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Exemplars {
    pub max_exemplars: Option<i64>,
}

/// `tracing`: accepted, without effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Tracing {
    #[serde(skip_serializing_if = "is_default")]
    pub client_type: Option<String>,
    pub endpoint: String,
    #[serde(skip_serializing_if = "is_default")]
    pub sampling_fraction: Option<super::scrape::Factor>,
    #[serde(skip_serializing_if = "is_default")]
    pub insecure: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub headers: BTreeMap<String, super::yaml::Secret>,
    #[serde(skip_serializing_if = "is_default")]
    pub compression: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: Option<Span>,
    #[serde(skip_serializing_if = "is_default")]
    pub tls_config: TlsConfig,
}

impl Global {
    /// Default of all jobs.
    pub fn scrape_interval(&self) -> Span {
        self.scrape_interval.filter(|span| !span.is_zero()).unwrap_or(INTERVAL)
    }

    /// Default of all jobs whose interval is not shorter.
    pub fn scrape_timeout(&self) -> Span {
        let own = self.scrape_timeout.as_ref().map(|span| span.value);
        let default = SCRAPE_TIMEOUT.min(self.scrape_interval());
        own.filter(|span| !span.is_zero()).unwrap_or(default)
    }

    /// Default of all rule groups, and the step of subqueries that name none.
    pub fn evaluation_interval(&self) -> Span {
        self.evaluation_interval.filter(|span| !span.is_zero()).unwrap_or(INTERVAL)
    }

    /// Which names are valid where a section says nothing else.
    pub fn names(&self) -> Result<NameValidation, String> {
        self.metric_name_validation_scheme
            .as_deref()
            .map_or(Ok(NameValidation::Utf8), name_validation)
    }

    fn check(&self, file: &Path) -> Result<(), ConfigError> {
        let fail = |message: String| ConfigError::of_file(file, message);
        if let Some(timeout) = &self.scrape_timeout
            && timeout.value > self.scrape_interval()
        {
            let text = "global scrape timeout greater than scrape interval";
            return Err(ConfigError::at(file, timeout, text));
        }
        let names = self.names().map_err(fail)?;
        if let Some(escaping) = &self.metric_name_escaping_scheme {
            name_escaping(escaping, names).map_err(fail)?;
        }
        if let Some(own) = &self.scrape_protocols {
            protocols(own).map_err(|err| fail(format!("{err} for global config")))?;
        }
        for (name, _) in self.external_labels.iter() {
            if !names.is_valid_label_name(name) {
                return Err(fail(format!("{} is not a valid label name", quote(name))));
            }
        }
        Ok(())
    }
}

/// `$NAME` and `${NAME}` replaced by what the environment says (nothing when it does not), `$$` by
/// `$`.
pub(super) fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{').and_then(|text| text.split_once('}')) {
            Some(braced) => braced,
            None => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if name.is_empty() {
            out.push('$');
        }
        out.push_str(&environment(name).unwrap_or_default());
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `^[^*]*(\*[^/]*)?$`
fn is_file_pattern(path: &str) -> bool {
    path.split_once('*').is_none_or(|(_, after)| !after.contains('/'))
}

impl PrometheusFile {
    /// Expands external labels, fills in defaults and checks what needs no other file.
    pub(super) fn complete(
        &mut self,
        file: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        for value in self.global.external_labels.0.values_mut() {
            *value = expand(value, environment);
        }
        self.global.check(file)?;
        for (patterns, what) in
            [(&self.rule_files, "rule"), (&self.scrape_config_files, "scrape config")]
        {
            if let Some(bad) = patterns.iter().find(|pattern| !is_file_pattern(&pattern.value)) {
                let message = format!("invalid {what} file path {}", quote(&bad.value));
                return Err(ConfigError::at(file, bad, message));
            }
        }
        for job in &mut self.scrape_configs {
            job.inherit(&self.global, file)?;
        }
        self.check_alerting(file)?;
        self.check_storage(file)?;
        if let Some(otlp) = &self.otlp {
            let names = self.global.names().unwrap_or(NameValidation::Utf8);
            otlp.check(names).map_err(|err| ConfigError::of_file(file, err))?;
        }
        let interval = self.global.scrape_interval();
        let timeout = self.global.scrape_timeout();
        self.global.scrape_interval = Some(interval);
        if self.global.scrape_timeout.is_none() {
            let nowhere = serde_saphyr::Location::UNKNOWN;
            self.global.scrape_timeout = Some(Spanned::new(timeout, nowhere, nowhere));
        }
        self.global.evaluation_interval = Some(self.global.evaluation_interval());
        Ok(())
    }

    fn check_alerting(&self, file: &Path) -> Result<(), ConfigError> {
        let names = self.global.names().unwrap_or(NameValidation::Utf8);
        for config in &self.alerting.alert_relabel_configs {
            config.value.to_rule(names).map_err(|err| ConfigError::at(file, config, err))?;
        }
        let base = folder_of(file);
        for (index, config) in self.alerting.alertmanagers.iter().enumerate() {
            let fail = |err| ConfigError::at(file, config, err);
            config.value.to_set(index, base, names).map_err(fail)?;
            config.value.discovery(base).map_err(fail)?;
        }
        Ok(())
    }

    fn check_storage(&self, file: &Path) -> Result<(), ConfigError> {
        let percentage = self.storage.tsdb.retention.percentage.unwrap_or_default().0;
        if !(0.0..=100.0).contains(&percentage) {
            let text = "storage.tsdb.retention.percentage must be in the range [0, 100]";
            return Err(ConfigError::of_file(file, text));
        }
        for rule in &self.storage.retention {
            rule.value.to_rule().map_err(|err| ConfigError::at(file, rule, err))?;
        }
        let encoding = self.storage.tsdb.chunk_encoding.as_ref();
        if let Some(floats) = encoding.map(|encoding| encoding.floats.as_str())
            && !matches!(floats, "" | "xor" | "xor2")
        {
            let message = format!("unknown chunk encoding {}", quote(floats));
            return Err(ConfigError::of_file(file, message));
        }
        Ok(())
    }
}

/// Where relative paths of a file start.
pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or_else(|| Path::new(""))
}

impl Alertmanager {
    /// As the notifier takes it.
    pub(super) fn to_set(
        &self,
        index: usize,
        base: &Path,
        names: NameValidation,
    ) -> Result<AlertmanagerSet, String> {
        let version = self.api_version.as_deref().unwrap_or("v2");
        if version != "v2" {
            return Err(format!(
                "expected Alertmanager api version to be one of [v2] but got {version}"
            ));
        }
        let scheme = self.scheme.clone().unwrap_or_else(|| "http".to_owned());
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(format!("unsupported scheme {}", quote(&scheme)));
        }
        Ok(AlertmanagerSet {
            name: format!("config-{index}"),
            scheme,
            path_prefix: self.path_prefix.clone(),
            timeout: self.timeout.unwrap_or(ALERTMANAGER_TIMEOUT).0,
            http: self.http_config().to_options(base)?,
            relabel_rules: to_rules(&self.relabel_configs, names)?,
            alert_relabel_rules: to_rules(&self.alert_relabel_configs, names)?,
        })
    }

    /// What discovers the Alertmanagers.
    pub(super) fn discovery(&self, base: &Path) -> Result<Vec<discovery::Options>, String> {
        discovery_options(&self.static_configs, &self.file_sd_configs, base)
    }
}

/// What the configuration says about the store; flags may say the same.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageOptions {
    /// How late samples may come.
    pub out_of_order_window: Duration,
    /// How many exemplars are kept.
    pub exemplars_max: i64,
    /// `None`: nothing is said about time, but the size is limited.
    pub retention_time: Option<Duration>,
    /// Bytes; `None`: any size.
    pub retention_bytes: Option<u64>,
    /// Of the file system; counts instead of bytes.
    pub retention_percentage: Option<f64>,
    /// Other times for some series.
    pub retention_rules: Vec<options::RetentionRule>,
    /// How many active series there may be.
    pub limits: options::Limits,
    /// Whether the file says anything about retention; if not, deprecated flags count.
    pub is_retention_set: bool,
}

impl Storage {
    /// The store's options with defaults.
    pub fn to_options(&self) -> StorageOptions {
        let Retention { time, size, percentage } = &self.tsdb.retention;
        let percentage = percentage.map(|factor| factor.0).filter(|factor| *factor > 0.0);
        let rules = self.retention.iter().filter_map(|rule| rule.value.to_rule().ok());
        let limit = |count: u64| (count > 0).then_some(count);
        let limits = options::Limits {
            active_series: limit(self.limits.active_series),
            active_series_per_job: limit(self.limits.active_series_per_job),
            jobs: self.limits.jobs.iter().map(|(job, own)| (job.clone(), limit(*own))).collect(),
        };
        let time = time.filter(|span| !span.is_zero());
        let size = size.filter(|size| size.0 > 0);
        let default = size.is_none().then_some(RETENTION);
        let window = self.tsdb.out_of_order_time_window.unwrap_or(OUT_OF_ORDER_WINDOW);
        StorageOptions {
            out_of_order_window: window.0,
            exemplars_max: self
                .exemplars
                .as_ref()
                .and_then(|own| own.max_exemplars)
                .unwrap_or(EXEMPLARS_MAX),
            retention_time: time.or(default).map(|span| span.0),
            retention_bytes: size.map(|size| size.0),
            retention_percentage: percentage,
            retention_rules: rules.collect(),
            limits,
            is_retention_set: time.is_some() || size.is_some() || percentage.is_some(),
        }
    }
}

/// External labels as a set.
impl From<&Global> for Labels {
    fn from(global: &Global) -> Self {
        Self::from_pairs(global.external_labels.iter())
    }
}
