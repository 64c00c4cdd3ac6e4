//! `scrape_configs` and the discovery sections, which `alertmanagers` shares.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::http::{impl_http_config, resolve, with_http_fields};
use super::prometheus::Global;
use super::relabel::{RelabelConfig, to_rules};
use super::yaml::{Bytes, ConfigError, LabelMap, Span, Spanned, is_default};
use crate::discovery;
use crate::model::labels::{Labels, is_legacy_label_name, quote};
use crate::model::relabel::NameValidation;
use crate::model::target::TargetGroup;
use crate::scrape::{HistogramOptions, JobOptions, ScrapeProtocol};

/// `file_sd_configs` are read again after this long.
const FILE_REFRESH: Span = Span::from_secs(300);

/// One entry of `static_configs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct StaticConfig {
    pub targets: Vec<String>,
    #[serde(skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
}

impl StaticConfig {
    fn to_group(&self) -> Result<TargetGroup, String> {
        if let Some((name, _)) = self.labels.iter().find(|(name, _)| name.is_empty()) {
            return Err(format!("{} is not a valid label name", quote(name)));
        }
        let labels = |address: &String| Labels::from_pairs([("__address__", address.as_str())]);
        Ok(TargetGroup {
            source: String::new(),
            targets: self.targets.iter().map(labels).collect(),
            labels: Labels::from_pairs(self.labels.iter()),
        })
    }
}

/// One entry of `file_sd_configs`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct FileSdConfig {
    pub files: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub refresh_interval: Option<Span>,
}

/// `^[^*]*(\*[^*/]*)?\.(json|yml|yaml|JSON|YML|YAML)$`
fn is_discovery_pattern(path: &str) -> bool {
    let endings = [".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"];
    let star_is_last = match path.split_once('*') {
        None => true,
        Some((_, after)) => !after.contains(['*', '/']),
    };
    star_is_last && endings.iter().any(|ending| path.ends_with(ending))
}

impl FileSdConfig {
    fn to_options(&self, base: &Path) -> Result<discovery::Options, String> {
        if self.files.is_empty() {
            return Err("file service discovery config must contain at least one path name".into());
        }
        if let Some(bad) = self.files.iter().find(|path| !is_discovery_pattern(path)) {
            return Err(format!("path name {} is not valid for file discovery", quote(bad)));
        }
        Ok(discovery::Options::File(discovery::FileOptions {
            files: self.files.iter().map(|path| resolve(base, Path::new(path))).collect(),
            refresh: self.refresh_interval.unwrap_or(FILE_REFRESH).0,
        }))
    }
}

/// What discovers the targets of a section.
pub(super) fn discovery_options(
    statics: &[StaticConfig],
    files: &[FileSdConfig],
    base: &Path,
) -> Result<Vec<discovery::Options>, String> {
    let mut all = Vec::new();
    if !statics.is_empty() {
        let groups: Result<Vec<_>, _> = statics.iter().map(StaticConfig::to_group).collect();
        all.push(discovery::Options::Static(groups?));
    }
    for file in files {
        all.push(file.to_options(base)?);
    }
    Ok(all)
}

with_http_fields! {
    /// One entry of `scrape_configs`. After loading, what was left out holds its default.
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct ScrapeConfig {
        pub job_name: Option<Spanned<String>>,
        pub honor_labels: bool,
        pub honor_timestamps: bool,
        pub track_timestamps_staleness: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub params: BTreeMap<String, Vec<String>>,
        pub scrape_interval: Option<Span>,
        pub scrape_timeout: Option<Spanned<Span>>,
        #[serde(skip_serializing_if = "is_default")]
        pub scrape_protocols: Option<Vec<String>>,
        #[serde(skip_serializing_if = "is_default")]
        pub fallback_scrape_protocol: Option<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub scrape_native_histograms: Option<bool>,
        #[serde(skip_serializing_if = "is_default")]
        pub always_scrape_classic_histograms: Option<bool>,
        #[serde(skip_serializing_if = "is_default")]
        pub convert_classic_histograms_to_nhcb: Option<bool>,
        #[serde(skip_serializing_if = "is_default")]
        pub extra_scrape_metrics: Option<bool>,
        pub metrics_path: String,
        pub scheme: String,
        pub enable_compression: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub scrape_failure_log_file: Option<PathBuf>,
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
        pub native_histogram_bucket_limit: u64,
        #[serde(skip_serializing_if = "is_default")]
        pub native_histogram_min_bucket_factor: Factor,
        #[serde(skip_serializing_if = "is_default")]
        pub metric_name_validation_scheme: Option<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub metric_name_escaping_scheme: Option<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub relabel_configs: Vec<RelabelConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub metric_relabel_configs: Vec<RelabelConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub static_configs: Vec<StaticConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub file_sd_configs: Vec<FileSdConfig>,
    }
}
impl_http_config!(ScrapeConfig);

impl Default for ScrapeConfig {
    fn default() -> Self {
        Self {
            job_name: None,
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            params: BTreeMap::new(),
            scrape_interval: None,
            scrape_timeout: None,
            scrape_protocols: None,
            fallback_scrape_protocol: None,
            scrape_native_histograms: None,
            always_scrape_classic_histograms: None,
            convert_classic_histograms_to_nhcb: None,
            extra_scrape_metrics: None,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            enable_compression: true,
            scrape_failure_log_file: None,
            body_size_limit: Bytes::default(),
            sample_limit: 0,
            target_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            keep_dropped_targets: 0,
            native_histogram_bucket_limit: 0,
            native_histogram_min_bucket_factor: Factor::default(),
            metric_name_validation_scheme: None,
            metric_name_escaping_scheme: None,
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
            basic_auth: None,
            authorization: None,
            oauth2: None,
            bearer_token: super::yaml::Secret::default(),
            bearer_token_file: None,
            tls_config: super::http::TlsConfig::default(),
            proxy_url: None,
            no_proxy: String::new(),
            proxy_from_environment: false,
            proxy_connect_header: BTreeMap::new(),
            follow_redirects: None,
            enable_http2: None,
            http_headers: BTreeMap::new(),
        }
    }
}

/// Formats that targets are asked for when nothing else is configured, best first.
pub(super) const PROTOCOLS: [ScrapeProtocol; 4] = [
    ScrapeProtocol::OpenMetricsText1_0_0,
    ScrapeProtocol::OpenMetricsText0_0_1,
    ScrapeProtocol::PrometheusText1_0_0,
    ScrapeProtocol::PrometheusText0_0_4,
];

/// Names to protocols, each at most once.
pub(super) fn protocols(names: &[String]) -> Result<Vec<ScrapeProtocol>, String> {
    let mut all = Vec::new();
    if names.is_empty() {
        return Err("scrape_protocols cannot be empty".to_owned());
    }
    for name in names {
        let protocol = protocol(name)?;
        if all.contains(&protocol) {
            let text = "duplicated protocol in scrape_protocols, got";
            return Err(format!("{text} {name}"));
        }
        all.push(protocol);
    }
    Ok(all)
}

fn protocol(name: &str) -> Result<ScrapeProtocol, String> {
    ScrapeProtocol::parse(name).ok_or_else(|| {
        let known: Vec<_> = ScrapeProtocol::ALL.iter().map(|known| known.as_str()).collect();
        let (name, known) = (quote(name), known.join(" "));
        format!("unknown scrape protocol {name}, supported: [{known}]")
    })
}

/// `utf8` or `legacy`.
pub(super) fn name_validation(name: &str) -> Result<NameValidation, String> {
    match name {
        "utf8" => Ok(NameValidation::Utf8),
        "legacy" => Ok(NameValidation::Legacy),
        other => Err(format!(
            "unknown global name validation method specified, must be either '', 'legacy' or \
             'utf8', got {other}"
        )),
    }
}

/// Checks `metric_name_escaping_scheme`.
pub(super) fn name_escaping(name: &str, names: NameValidation) -> Result<(), String> {
    match name {
        "allow-utf-8" if names == NameValidation::Legacy => {
            Err("utf8 metric names requested but validation scheme is not set to UTF8".to_owned())
        }
        "allow-utf-8" | "underscores" | "dots" | "values" => Ok(()),
        other => Err(format!("unknown escaping scheme: {}", quote(other))),
    }
}

impl ScrapeConfig {
    /// The job's name; empty when it has none.
    pub fn name(&self) -> &str {
        self.job_name.as_ref().map_or("", |name| &name.value)
    }

    /// Fills in what `global` says and checks the times.
    pub(super) fn inherit(&mut self, global: &Global, file: &Path) -> Result<(), ConfigError> {
        let Some(name) = self.job_name.as_ref().filter(|name| !name.value.is_empty()) else {
            return Err(ConfigError::of_file(file, "job_name is empty"));
        };
        let fail = |message: String| ConfigError::at(file, name, message);
        let interval = self.scrape_interval.filter(|interval| !interval.is_zero());
        let interval = interval.unwrap_or_else(|| global.scrape_interval());
        self.scrape_interval = Some(interval);
        let own = self.scrape_timeout.as_ref().filter(|timeout| !timeout.value.is_zero());
        if let Some(timeout) = own.filter(|timeout| timeout.value > interval) {
            let text =
                "scrape timeout greater than scrape interval for scrape config with job name";
            let message = format!("{text} {}", quote(&name.value));
            return Err(ConfigError::at(file, timeout, message));
        }
        let timeout = own.map_or_else(|| global.scrape_timeout().min(interval), |own| own.value);
        let place = self.scrape_timeout.take().unwrap_or_else(|| unplaced(timeout));
        self.scrape_timeout = Some(Spanned { value: timeout, ..place });
        if self.body_size_limit == Bytes::default() {
            self.body_size_limit = global.body_size_limit;
        }
        let limits = [
            (&mut self.sample_limit, global.sample_limit),
            (&mut self.target_limit, global.target_limit),
            (&mut self.label_limit, global.label_limit),
            (&mut self.label_name_length_limit, global.label_name_length_limit),
            (&mut self.label_value_length_limit, global.label_value_length_limit),
            (&mut self.keep_dropped_targets, global.keep_dropped_targets),
        ];
        for (own, global) in limits {
            *own = if *own == 0 { global } else { *own };
        }
        inherit(&mut self.scrape_protocols, global.scrape_protocols.as_ref());
        inherit(
            &mut self.metric_name_validation_scheme,
            global.metric_name_validation_scheme.as_ref(),
        );
        inherit(&mut self.metric_name_escaping_scheme, global.metric_name_escaping_scheme.as_ref());
        inherit(&mut self.scrape_failure_log_file, global.scrape_failure_log_file.as_ref());
        inherit(&mut self.extra_scrape_metrics, global.extra_scrape_metrics.as_ref());
        inherit(&mut self.scrape_native_histograms, global.scrape_native_histograms.as_ref());
        let (own, all) = (
            &mut self.always_scrape_classic_histograms,
            global.always_scrape_classic_histograms.as_ref(),
        );
        inherit(own, all);
        let (own, all) = (
            &mut self.convert_classic_histograms_to_nhcb,
            global.convert_classic_histograms_to_nhcb.as_ref(),
        );
        inherit(own, all);
        if !matches!(self.scheme.as_str(), "http" | "https") {
            return Err(fail(format!("unsupported scheme {}", quote(&self.scheme))));
        }
        Ok(())
    }

    fn names(&self) -> Result<NameValidation, String> {
        self.metric_name_validation_scheme
            .as_deref()
            .map_or(Ok(NameValidation::Utf8), name_validation)
    }

    /// The job, for the scraper. Call it after the defaults were filled in.
    ///
    /// # Errors
    /// Prometheus' texts for values that make no sense.
    pub(super) fn to_job(&self, base: &Path) -> Result<JobOptions, String> {
        let names = self.names()?;
        let escaping = self.metric_name_escaping_scheme.clone().unwrap_or_else(|| {
            if names == NameValidation::Utf8 { "allow-utf-8" } else { "underscores" }.to_owned()
        });
        name_escaping(&escaping, names)?;
        let protocols = self.scrape_protocols.as_deref();
        let fallback = self.fallback_scrape_protocol.as_deref().map(protocol).transpose();
        let invalid = |err| {
            let name = quote(self.name());
            format!(
                "invalid fallback_scrape_protocol for scrape config with job name {name}: {err}"
            )
        };
        let log_file = self.scrape_failure_log_file.as_deref();
        let native = self.scrape_native_histograms.unwrap_or(false);
        // Only protobuf has native histograms.
        let proto = native.then_some(ScrapeProtocol::PrometheusProto);
        let default = || proto.into_iter().chain(PROTOCOLS).collect();
        let factor = self.native_histogram_min_bucket_factor.0;
        let histograms = HistogramOptions {
            native,
            always_classic: self.always_scrape_classic_histograms.unwrap_or(false),
            convert: self.convert_classic_histograms_to_nhcb.unwrap_or(false),
            bucket_limit: self.native_histogram_bucket_limit,
            schema_max: HistogramOptions::schema_of_factor(factor),
        };
        Ok(JobOptions {
            job_name: self.name().to_owned(),
            interval: self.scrape_interval.map_or(Duration::ZERO, |span| span.0),
            timeout: self.scrape_timeout.as_ref().map_or(Duration::ZERO, |span| span.value.0),
            metrics_path: self.metrics_path.clone(),
            scheme: self.scheme.clone(),
            params: self.params.clone().into_iter().collect(),
            honor_labels: self.honor_labels,
            honor_timestamps: self.honor_timestamps,
            track_timestamps_staleness: self.track_timestamps_staleness,
            enable_compression: self.enable_compression,
            scrape_protocols: protocols.map_or_else(|| Ok(default()), self::protocols)?,
            has_default_protocols: protocols.is_none(),
            fallback_scrape_protocol: fallback.map_err(invalid)?,
            histograms,
            body_size_limit: self.body_size_limit.0,
            sample_limit: self.sample_limit,
            label_limit: self.label_limit,
            label_name_length_limit: self.label_name_length_limit,
            label_value_length_limit: self.label_value_length_limit,
            target_limit: self.target_limit,
            keep_dropped_targets: self.keep_dropped_targets,
            relabel_rules: to_rules(&self.relabel_configs, names)?,
            metric_relabel_rules: to_rules(&self.metric_relabel_configs, names)?,
            name_validation: names,
            name_escaping: escaping,
            extra_scrape_metrics: self.extra_scrape_metrics.unwrap_or(false),
            reads_starts: false,
            scrape_failure_log_file: log_file.map(|path| resolve(base, path)),
            http: self.http_config().to_options(base)?,
        })
    }

    /// What discovers the job's targets.
    pub(super) fn discovery(&self, base: &Path) -> Result<Vec<discovery::Options>, String> {
        for (name, _) in self.static_configs.iter().flat_map(|config| config.labels.iter()) {
            if self.names()? == NameValidation::Legacy && !is_legacy_label_name(name) {
                return Err(format!("{} is not a valid label name", quote(name)));
            }
        }
        discovery_options(&self.static_configs, &self.file_sd_configs, base)
    }
}

fn inherit<T: Clone>(own: &mut Option<T>, global: Option<&T>) {
    if own.is_none() {
        *own = global.cloned();
    }
}

fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(value, serde_saphyr::Location::UNKNOWN, serde_saphyr::Location::UNKNOWN)
}

/// A float of the configuration; equal when its bits are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Factor(pub f64);

impl PartialEq for Factor {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Factor {}
