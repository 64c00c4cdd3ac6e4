//! Flags of the server, under Prometheus' names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, ValueEnum};

use crate::api::ReadLimits;
use crate::config::yaml::Bytes;
use crate::model::{duration, matcher::AnchoredRegex};
use crate::server::logging::{LogFormat, LogLevel};
use crate::server::{Features, Options};
use crate::storage::options::WalSync;

/// `--storage.wal-sync`
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Sync {
    /// Before an acknowledgement; whatever nobody waits for within a second.
    Batch,
    /// Once a second; acknowledgements do not wait.
    Interval,
    /// When the operating system likes.
    Never,
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|err| err.to_string())
}

/// A count that may be written as `5e7`.
fn parse_count(text: &str) -> Result<usize, String> {
    let is_count = |number: &f64| *number >= 0.0 && number.fract() == 0.0 && *number < 1e18;
    let number = text.parse::<f64>().ok().filter(is_count);
    number.map(|number| number as usize).ok_or_else(|| "not a count".to_owned())
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    Bytes::parse(text).map(|bytes| bytes.0)
}

/// All flags; see each one's help text.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Flags of the server")]
pub struct ServeFlags {
    /// Configuration file, in Prometheus' format.
    #[arg(long = "config.file", default_value = "prometheus.yml", value_name = "FILE")]
    config_file: PathBuf,

    /// Configuration file of the built-in Alertmanager, in Alertmanager's format. Without it alerts
    /// go to external Alertmanagers only.
    #[arg(long = "alertmanager.config.file", value_name = "FILE")]
    alertmanager_config_file: Option<PathBuf>,

    /// Second address, where the Alertmanager API is served at the root.
    #[arg(long = "alertmanager.listen-address", value_name = "ADDRESS")]
    alertmanager_listen_address: Option<String>,

    /// Alerts that wait for one external Alertmanager; beyond, the oldest go.
    #[arg(long = "alertmanager.notification-queue-capacity", default_value_t = 10_000)]
    notification_queue_capacity: usize,

    /// Alerts in one request to an external Alertmanager.
    #[arg(long = "alertmanager.notification-batch-size", default_value_t = 256)]
    notification_batch_size: usize,

    /// Address to serve on; may be repeated.
    #[arg(long = "web.listen-address", default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    listen_addresses: Vec<String>,

    /// URL under which this server is reachable from outside, for links.
    #[arg(long = "web.external-url", value_name = "URL")]
    external_url: Option<String>,

    /// Path before all routes; the path of the external URL when it is left out.
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    route_prefix: Option<String>,

    /// Regular expression for allowed CORS origins, fully anchored.
    #[arg(long = "web.cors.origin", default_value = ".*", value_name = "REGEX")]
    cors_origin: String,

    /// Longest wait for a request to come to its end, and for the next one on a connection.
    #[arg(long = "web.read-timeout", default_value = "5m", value_parser = parse_duration)]
    read_timeout: Duration,

    /// Connections that may be open at the same time.
    #[arg(long = "web.max-connections", default_value_t = 512)]
    max_connections: usize,

    /// Allow shutdown and reload by HTTP.
    #[arg(long = "web.enable-lifecycle")]
    enable_lifecycle: bool,

    /// Allow administrative actions by HTTP.
    #[arg(long = "web.enable-admin-api")]
    enable_admin_api: bool,

    /// Take samples by remote write.
    #[arg(long = "web.enable-remote-write-receiver")]
    enable_remote_write_receiver: bool,

    /// Take metrics by OTLP.
    #[arg(long = "web.enable-otlp-receiver")]
    enable_otlp_receiver: bool,

    /// Data directory.
    #[arg(long = "storage.tsdb.path", default_value = "data/", value_name = "FOLDER")]
    storage_path: PathBuf,

    /// How long samples are kept. Overrides the configuration file; 15d when neither says.
    #[arg(long = "storage.tsdb.retention.time", value_parser = parse_duration, value_name = "DURATION")]
    retention_time: Option<Duration>,

    /// Bytes that all samples may take (like 512MB); the oldest go. The configuration file wins.
    #[arg(long = "storage.tsdb.retention.size", value_parser = parse_bytes, value_name = "SIZE")]
    retention_size: Option<u64>,

    /// When a write counts as durable.
    #[arg(long = "storage.wal-sync", default_value = "batch")]
    wal_sync: Sync,

    /// Samples that one remote read may return; 0 means no limit. Streamed answers have none.
    #[arg(long = "storage.remote.read-sample-limit", default_value = "5e7", value_parser = parse_count)]
    read_sample_limit: usize,

    /// Remote reads that run at the same time; 0 means no limit.
    #[arg(long = "storage.remote.read-concurrent-limit", default_value_t = 10)]
    read_concurrent_limit: usize,

    /// Bytes of a frame in a streamed answer to a remote read.
    #[arg(long = "storage.remote.read-max-bytes-in-frame", default_value_t = 1 << 20)]
    read_max_bytes_in_frame: usize,

    /// Longest outage for which the `for` state of alerts is restored.
    #[arg(long = "rules.alert.for-outage-tolerance", default_value = "1h", value_parser = parse_duration)]
    for_outage_tolerance: Duration,

    /// Shortest time between alert and restored `for` state; only for alerts with a longer `for`.
    #[arg(long = "rules.alert.for-grace-period", default_value = "10m", value_parser = parse_duration)]
    for_grace_period: Duration,

    /// Shortest time before a firing alert is sent again.
    #[arg(long = "rules.alert.resend-delay", default_value = "1m", value_parser = parse_duration)]
    resend_delay: Duration,

    /// How old a sample may be and still stand for its series.
    #[arg(long = "query.lookback-delta", default_value = "5m", value_parser = parse_duration)]
    lookback_delta: Duration,

    /// Longest run of a query.
    #[arg(long = "query.timeout", default_value = "2m", value_parser = parse_duration)]
    query_timeout: Duration,

    /// Queries that run at the same time.
    #[arg(long = "query.max-concurrency", default_value_t = 20)]
    query_max_concurrency: usize,

    /// Samples that one query may hold in memory.
    #[arg(long = "query.max-samples", default_value_t = 50_000_000)]
    query_max_samples: u64,

    /// Bytes that one query may hold in memory.
    #[arg(long = "query.max-bytes", default_value_t = 1 << 30)]
    query_max_bytes: u64,

    /// Features to switch on, separated by commas; may be repeated. Unknown ones are warned of.
    #[arg(long = "enable-feature", value_delimiter = ',', value_name = "FEATURE")]
    enable_feature: Vec<String>,

    /// Least severe lines to log.
    #[arg(long = "log.level", default_value = "info")]
    log_level: LogLevel,

    /// Form of log lines.
    #[arg(long = "log.format", default_value = "logfmt")]
    log_format: LogFormat,

    #[command(flatten)]
    accepted: AcceptedFlags,

    #[command(flatten)]
    unsupported: UnsupportedFlags,
}

/// Flags of Prometheus whose work is not done here: refused by name rather than as unknown.
#[derive(Args, Clone, Debug)]
struct UnsupportedFlags {
    #[arg(long = "web.config.file", hide = true)]
    web_config_file: Option<String>,
    #[arg(long = "config.auto-reload", hide = true)]
    auto_reload: bool,
    #[arg(long = "agent", hide = true)]
    agent: bool,
    #[arg(long = "storage.agent.path", hide = true)]
    agent_path: Option<String>,
}

impl UnsupportedFlags {
    fn check(&self) -> anyhow::Result<()> {
        let given = [
            ("web.config.file", self.web_config_file.is_some()),
            ("config.auto-reload", self.auto_reload),
            ("agent", self.agent),
            ("storage.agent.path", self.agent_path.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => bail!("--{name} is not supported yet"),
            None => Ok(()),
        }
    }
}

/// Flags that deployments of Prometheus pass and that have nothing to act on here.
#[derive(Args, Clone, Debug)]
struct AcceptedFlags {
    #[arg(long = "storage.tsdb.no-lockfile", hide = true)]
    no_lockfile: bool,
    #[arg(long = "storage.tsdb.wal-compression", hide = true)]
    wal_compression: bool,
    #[arg(long = "storage.tsdb.allow-overlapping-blocks", hide = true)]
    allow_overlapping_blocks: bool,
    #[arg(long = "auto-gomaxprocs", hide = true)]
    auto_gomaxprocs: bool,
    #[arg(long = "auto-gomemlimit", hide = true)]
    auto_gomemlimit: bool,
    #[arg(long = "alertmanager.drain-notification-queue-on-shutdown", hide = true)]
    drain_queue: bool,
    #[arg(long = "scrape.adjust-timestamps", hide = true)]
    adjust_timestamps: bool,
    #[arg(long = "storage.tsdb.min-block-duration", hide = true)]
    min_block_duration: Option<String>,
    #[arg(long = "storage.tsdb.max-block-duration", hide = true)]
    max_block_duration: Option<String>,
    #[arg(long = "storage.tsdb.wal-segment-size", hide = true)]
    wal_segment_size: Option<String>,
    #[arg(long = "storage.tsdb.wal-compression-type", hide = true)]
    wal_compression_type: Option<String>,
    #[arg(long = "storage.tsdb.head-chunks-write-queue-size", hide = true)]
    head_chunks_write_queue_size: Option<String>,
    #[arg(long = "storage.tsdb.allow-overlapping-compaction", hide = true)]
    allow_overlapping_compaction: bool,
    #[arg(long = "rules.max-concurrent-evals", hide = true)]
    max_concurrent_evals: Option<String>,
    #[arg(long = "scrape.discovery-reload-interval", hide = true)]
    discovery_reload_interval: Option<String>,
    #[arg(long = "web.user-assets", hide = true)]
    user_assets: Option<String>,
    #[arg(long = "web.console.templates", hide = true)]
    console_templates: Option<String>,
    #[arg(long = "web.console.libraries", hide = true)]
    console_libraries: Option<String>,
    #[arg(long = "web.page-title", hide = true)]
    page_title: Option<String>,
    #[arg(long = "web.max-notifications-subscribers", hide = true)]
    max_notifications_subscribers: Option<String>,
    #[arg(long = "scrape.timestamp-tolerance", hide = true)]
    timestamp_tolerance: Option<String>,
    #[arg(long = "auto-gomemlimit.ratio", hide = true)]
    gomemlimit_ratio: Option<String>,
    #[arg(long = "config.auto-reload-interval", hide = true)]
    auto_reload_interval: Option<String>,
    #[arg(long = "web.remote-write-receiver.accepted-protobuf-messages", hide = true)]
    accepted_protobuf_messages: Vec<String>,
    #[arg(long = "web.search.max-limit", hide = true)]
    search_max_limit: Option<String>,
    #[arg(long = "storage.remote.flush-deadline", hide = true)]
    flush_deadline: Option<String>,
}

impl ServeFlags {
    /// Checks what single flags cannot, and hands everything to the server.
    pub fn into_options(self, flags: BTreeMap<String, String>) -> anyhow::Result<Options> {
        self.unsupported.check()?;
        let cors_origin =
            AnchoredRegex::new(&self.cors_origin).context("parse --web.cors.origin")?;
        let (external_url, path) =
            external_url(self.external_url.as_deref(), &self.listen_addresses)?;
        let route_prefix = self.route_prefix.unwrap_or(path);
        if self.query_max_concurrency == 0 {
            bail!("--query.max-concurrency must be at least 1");
        }
        let (features, unknown_features) = Features::parse(&self.enable_feature);
        Ok(Options {
            config_file: self.config_file,
            alertmanager_config_file: self.alertmanager_config_file,
            alertmanager_listen_address: self.alertmanager_listen_address,
            notification_queue_capacity: self.notification_queue_capacity,
            notification_batch_size: self.notification_batch_size.max(1),
            listen_addresses: self.listen_addresses,
            external_url,
            route_prefix: normal_prefix(&route_prefix),
            cors_origin,
            connections_max: self.max_connections.max(1),
            read_timeout: self.read_timeout,
            enable_lifecycle: self.enable_lifecycle,
            enable_admin_api: self.enable_admin_api,
            enable_remote_write_receiver: self.enable_remote_write_receiver,
            enable_otlp_receiver: self.enable_otlp_receiver,
            read_limits: ReadLimits {
                samples: self.read_sample_limit,
                requests: self.read_concurrent_limit,
                frame_bytes: self.read_max_bytes_in_frame,
            },
            storage_path: self.storage_path,
            retention_time: self.retention_time,
            retention_bytes: self.retention_size,
            wal_sync: match self.wal_sync {
                Sync::Batch => WalSync::Batch,
                Sync::Interval => WalSync::Interval,
                Sync::Never => WalSync::Never,
            },
            for_outage_tolerance: self.for_outage_tolerance,
            for_grace_period: self.for_grace_period,
            resend_delay: self.resend_delay,
            lookback_delta: self.lookback_delta,
            query_timeout: self.query_timeout,
            query_max_concurrency: self.query_max_concurrency,
            query_max_samples: self.query_max_samples,
            query_max_bytes: self.query_max_bytes,
            features,
            unknown_features,
            log_level: self.log_level,
            log_format: self.log_format,
            flags,
        })
    }
}

/// The external URL without a trailing slash, and its path.
fn external_url(given: Option<&str>, listen: &[String]) -> anyhow::Result<(String, String)> {
    let text = match given {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => {
            let port = listen.first().and_then(|a| a.rsplit_once(':')).map_or("9090", |(_, p)| p);
            let uname = rustix::system::uname();
            format!("http://{}:{port}/", uname.nodename().to_string_lossy())
        }
    };
    let url = url::Url::parse(&text).context("parse --web.external-url")?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("--web.external-url must begin with http:// or https://");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    Ok((url.to_string().trim_end_matches('/').to_owned(), path))
}

fn normal_prefix(path: &str) -> String {
    let inner = path.trim_matches('/');
    if inner.is_empty() { String::new() } else { format!("/{inner}") }
}

/// Drops `--no-X` where `X` is a switch, together with each earlier `--X`: the last one said wins.
pub fn without_negations(arguments: Vec<OsString>) -> Vec<OsString> {
    let command = ServeFlags::augment_args(Command::new("narthex"));
    let is_switch = |name: &str| {
        let found = command.get_arguments().find(|arg| arg.get_long() == Some(name));
        found.is_some_and(|arg| matches!(arg.get_action(), ArgAction::SetTrue))
    };
    let mut kept: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let text = argument.to_string_lossy().into_owned();
        match text.strip_prefix("--no-").filter(|name| is_switch(name)) {
            Some(name) => kept.retain(|earlier| *earlier != *format!("--{name}")),
            None => {
                // Kingpin lets a switch be said twice; clap does not.
                let again =
                    text.strip_prefix("--").is_some_and(is_switch) && kept.contains(&argument);
                if !again {
                    kept.push(argument);
                }
            }
        }
    }
    kept
}

/// Every flag with its value, as `/api/v1/status/flags` shows them.
pub fn values(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for argument in command.get_arguments() {
        let (id, Some(long)) = (argument.get_id().as_str(), argument.get_long()) else { continue };
        if matches!(long, "help" | "version") {
            continue;
        }
        let hidden_and_unset =
            argument.is_hide_set() && matches.value_source(id) != Some(ValueSource::CommandLine);
        if hidden_and_unset {
            continue;
        }
        let value = if matches!(argument.get_action(), ArgAction::SetTrue) {
            matches.get_flag(id).to_string()
        } else {
            let raw = matches.get_raw(id).into_iter().flatten();
            raw.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",")
        };
        values.insert(long.to_owned(), value);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let command = ServeFlags::augment_args(Command::new("narthex"));
        let arguments = ["narthex"].iter().chain(arguments).map(OsString::from).collect();
        let matches = command.clone().try_get_matches_from(without_negations(arguments));
        let matches = matches.map_err(|err| err.to_string())?;
        let flags = ServeFlags::from_arg_matches(&matches).map_err(|err| err.to_string())?;
        flags.into_options(values(&command, &matches)).map_err(|err| format!("{err:#}"))
    }

    #[test]
    fn flags_of_prometheus_are_understood() {
        let options = parse(&[
            "--config.file=a.yml",
            "--web.listen-address=127.0.0.1:1",
            "--web.listen-address=127.0.0.1:2",
            "--web.external-url=https://x.example/prom/",
            "--web.enable-lifecycle",
            "--web.enable-lifecycle",
            "--web.enable-admin-api",
            "--no-web.enable-admin-api",
            "--no-storage.tsdb.wal-compression",
            "--auto-gomemlimit.ratio=0.8",
            "--config.auto-reload-interval=30s",
            "--web.remote-write-receiver.accepted-protobuf-messages=prometheus.WriteRequest",
            "--web.search.max-limit=100",
            "--storage.tsdb.retention.time=100y",
            "--storage.tsdb.retention.size=1.5GB",
            "--enable-feature=promql-experimental-functions,native-histograms",
        ])
        .unwrap();
        assert_eq!(options.listen_addresses, ["127.0.0.1:1", "127.0.0.1:2"]);
        assert!(options.enable_lifecycle && !options.enable_admin_api);
        assert_eq!(options.retention_bytes, Some(3 << 29));
        assert_eq!(options.external_url, "https://x.example/prom");
        assert_eq!(options.route_prefix, "/prom");
        assert_eq!(options.flags["web.listen-address"], "127.0.0.1:1,127.0.0.1:2");
        assert_eq!(options.flags["query.timeout"], "2m");
        assert_eq!(options.read_limits.samples, 50_000_000);
        assert!(!options.flags.contains_key("web.console.templates"));
    }

    #[test]
    fn wrong_flags_are_refused() {
        let refused = parse(&["--web.config.file=x"]).unwrap_err();
        assert_eq!(refused, "--web.config.file is not supported yet");
        assert!(parse(&["--storage.agent.path=x"]).unwrap_err().ends_with("not supported yet"));
        assert!(parse(&["--query.timeout=abc"]).unwrap_err().contains("not a valid duration"));
        assert!(parse(&["--web.cors.origin=("]).is_err());
        assert!(parse(&["--storage.remote.read-sample-limit=1.5"]).is_err());
        assert!(parse(&["--web.external-url=ftp://x"]).is_err());
        assert!(parse(&["--web.listen-adress=x"]).unwrap_err().contains("--web.listen-address"));
    }
}
