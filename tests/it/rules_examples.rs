//! Every file of `rules-examples/` loads, and every rule in it fires when it should and only then.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use narthex::base::clock::{Clock, SimClock};
use narthex::base::disk::{Disk, OsDisk, SimDisk};
use narthex::base::metrics::Registry;
use narthex::base::rng::SimRng;
use narthex::config::{Config, alertmanager};
use narthex::model::alert::Alert;
use narthex::promql::engine::{CancelFlag, Engine, EngineOptions};
use narthex::promql::parser::{ParserOptions, parse_metric};
use narthex::rules::{
    AlertSink, Asker, Evaluate, GroupOptions, Manager, Options, RuleKind, Stores,
};
use narthex::storage::Storage;
use narthex::storage::append::{Appender, OnReject, SeriesKey};
use narthex::storage::options::{Limits, Options as StorageOptions, Retention, WalSync};

const NOW_MS: i64 = 1_767_225_600_000;
const STEP_MS: i64 = 60_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules-examples")
}

fn load() -> Config {
    Config::load(&folder().join("narthex.yml"), &OsDisk, &|_| None).unwrap()
}

fn groups() -> Vec<GroupOptions> {
    load().rule_groups(&OsDisk, parser()).unwrap()
}

/// What users have without any feature flag.
fn parser() -> ParserOptions {
    ParserOptions {
        experimental_functions: false,
        duration_expressions: true,
        extended_range_selectors: false,
        binop_fill_modifiers: false,
    }
}

#[derive(Default)]
struct Sent(Mutex<Vec<Alert>>);

impl AlertSink for Sent {
    fn send(&self, alerts: &[Alert]) {
        self.0.lock().unwrap().extend(alerts.iter().cloned());
    }
}

struct Rig {
    clock: Arc<SimClock>,
    storage: Arc<Storage>,
    engine: Arc<Engine>,
    sent: Arc<Sent>,
    manager: Arc<Manager>,
}

impl Rig {
    fn new() -> Self {
        let clock = Arc::new(SimClock::new(NOW_MS));
        let options = StorageOptions {
            path: PathBuf::from("/data"),
            retention: Retention::default(),
            limits: Limits::default(),
            reserve_bytes_max: 0,
            out_of_order_window_ms: Arc::new(AtomicI64::new(0)),
            wal_sync: WalSync::Never,
            log_file_bytes_max: 64 << 20,
            log_file_age_max_ms: i64::MAX,
            future_ms_max: 600_000,
            start_timestamps: narthex::storage::options::StartTimestamps::default(),
        };
        let (disk, rng) = (Arc::new(SimDisk::new(1)), Arc::new(SimRng::new(1)));
        let registry = Registry::new();
        let storage = Storage::open(disk, clock.clone(), rng, &registry, options).unwrap();
        let options = EngineOptions {
            lookback_delta_ms: 300_000,
            max_samples: 1_000_000,
            max_bytes: 1 << 30,
            timeout: Duration::from_mins(1),
            max_concurrency: 1,
            helper_threads: 0,
            default_subquery_step_ms: Arc::new(AtomicI64::new(15_000)),
            parser: parser(),
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
        };
        let engine = Arc::new(Engine::new(storage.clone(), clock.clone(), &registry, options));
        let sent = Arc::new(Sent::default());
        let stores = Stores {
            engine: engine.clone(),
            select: storage.clone(),
            appender: storage.clone(),
            sink: sent.clone(),
        };
        let options = Options {
            external_labels: load().external_labels(),
            external_url: "http://n".to_owned(),
            for_outage_tolerance_ms: 3_600_000,
            for_grace_period_ms: 600_000,
            resend_delay_ms: 60_000,
        };
        let manager = Manager::new(stores, clock.clone(), &registry, options);
        manager.apply(load().external_labels(), groups());
        Self { clock, storage, engine, sent, manager }
    }

    /// Lets the minutes pass; `series` tells the samples of each.
    fn run(&self, minutes: i64, series: &[(&str, fn(f64) -> f64)]) {
        for minute in 0..minutes {
            let mut batch = self.storage.appender(OnReject::Skip);
            for (metric, value) in series {
                let labels = parse_metric(metric).unwrap();
                let value = value(minute as f64);
                batch.float(SeriesKey::Labels(&labels), self.clock.now_ms(), value);
            }
            batch.commit().unwrap();
            self.manager.evaluate_due();
            self.clock.advance_ms(STEP_MS);
        }
    }

    /// Labels and summaries of what was sent of one alert, each once.
    fn sent(&self, name: &str) -> String {
        let sent = self.sent.0.lock().unwrap();
        let ours = sent.iter().filter(|alert| alert.labels.get("alertname") == Some(name));
        let lines: BTreeSet<_> = ours
            .map(|alert| {
                let text = |name| alert.annotations.get(name).unwrap_or("");
                assert!(!alert.annotations.to_string().contains("error expanding"), "{name}");
                format!("{} | {} | {}", alert.labels, text("summary"), text("description"))
            })
            .collect();
        lines.into_iter().collect::<Vec<_>>().join("\n")
    }

    fn value(&self, expr: &str) -> String {
        let at_ms = self.clock.now_ms() - STEP_MS;
        let asker = Asker { cancel: &CancelFlag::new(), file: "", group: "" };
        let found = self.engine.vector(expr, at_ms, asker).unwrap();
        found
            .iter()
            .map(|one| format!("{} {:.3}", one.labels, one.value))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn after(minutes: i64, alert: &str, series: &[(&str, fn(f64) -> f64)]) -> String {
    let rig = Rig::new();
    rig.run(minutes, series);
    rig.sent(alert)
}

const GIB: f64 = 1_073_741_824.0;

#[test]
fn files_load() {
    let config = load();
    assert_eq!(config.missing_files(&OsDisk), []);
    assert_eq!(config.scrape_jobs().len(), 3);
    let flags =
        alertmanager::Flags { external_url: "http://n".to_owned(), retention_ms: 120 * 3_600_000 };
    alertmanager::load(&OsDisk, &folder().join("alertmanager.yml"), &flags).unwrap();
    let files: BTreeSet<_> = OsDisk.list(&folder().join("rules")).unwrap().into_iter().collect();
    let used = config.rule_files(&OsDisk);
    let used = used.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    assert_eq!(files, used.collect(), "every rule file is used by narthex.yml");
}

/// A rule that is added gets a test here.
#[test]
fn every_alert_is_tested_below() {
    let groups = groups();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let alerts = rules.filter(|rule| matches!(rule.kind, RuleKind::Alerting { .. }));
    let mut names: Vec<_> = alerts.map(|rule| rule.name.as_str()).collect();
    names.sort_unstable();
    insta::assert_snapshot!(names.join(" "), @"CertificateExpiresSoon DiskWillFill HighErrorRate MemoryAlmostFull RestartLoop TargetDown Watchdog");
}

#[test]
fn high_error_rate() {
    let ok = r#"http_requests_total{job="web",code="200"}"#;
    let bad = r#"http_requests_total{job="web",code="503"}"#;
    insta::assert_snapshot!(after(15, "HighErrorRate", &[(ok, |m| 90.0 * m), (bad, |m| 10.0 * m)]), @r#"{alertname="HighErrorRate", job="web", severity="page", team="services"} | web answers 10% of its requests with an error | More than 5% of the requests of the last five minutes failed with a 5xx status."#);
    assert_eq!(after(15, "HighErrorRate", &[(ok, |m| 99.0 * m), (bad, |m| m)]), "");
    assert_eq!(
        after(7, "HighErrorRate", &[(ok, |m| 90.0 * m), (bad, |m| 10.0 * m)]),
        "",
        "too short"
    );
}

#[test]
fn target_down() {
    let (one, two) = (r#"up{job="node",instance="a:9100"}"#, r#"up{job="node",instance="b:9100"}"#);
    insta::assert_snapshot!(after(6, "TargetDown", &[(one, |_| 0.0), (two, |_| 1.0)]), @r#"{alertname="TargetDown", instance="a:9100", job="node", severity="page", team="services"} | node on a:9100 cannot be scraped | 1 target(s) of this job are down."#);
    assert_eq!(after(6, "TargetDown", &[(one, |_| 1.0), (two, |m| f64::from(m != 2.0))]), "");
}

#[test]
fn restart_loop() {
    let start = r#"process_start_time_seconds{job="web",instance="a:80"}"#;
    insta::assert_snapshot!(after(6, "RestartLoop", &[(start, |m| m)]), @r#"{alertname="RestartLoop", instance="a:80", job="web", severity="page", team="services"} | web on a:80 restarted 4 times in 15 minutes |"#);
    assert_eq!(after(20, "RestartLoop", &[(start, |m| (m / 10.0).floor())]), "");
}

#[test]
fn certificate_expires_soon() {
    let expiry = r#"probe_ssl_earliest_cert_expiry{instance="https://a"}"#;
    let soon = |_| NOW_MS as f64 / 1000.0 + 10.0 * 86_400.0;
    let late = |_| NOW_MS as f64 / 1000.0 + 30.0 * 86_400.0;
    let sent = after(63, "CertificateExpiresSoon", &[(expiry, soon)]);
    // The group's place on the grid, so the seconds, follow from the path of its file.
    let text = r#"{alertname="CertificateExpiresSoon", instance="https://a", severity="ticket", team="services"} | The certificate of https://a expires in 9d 22h 59m "#;
    assert!(sent.starts_with(text) && sent.lines().count() == 1, "{sent}");
    assert_eq!(after(63, "CertificateExpiresSoon", &[(expiry, late)]), "");
}

#[test]
fn memory_almost_full() {
    let total = r#"node_memory_MemTotal_bytes{instance="a:9100"}"#;
    let free = r#"node_memory_MemAvailable_bytes{instance="a:9100"}"#;
    let all = |_| 16.0 * GIB;
    insta::assert_snapshot!(after(14, "MemoryAlmostFull", &[(total, all), (free, |_| GIB)]), @r#"{alertname="MemoryAlmostFull", instance="a:9100", severity="page", team="infrastructure"} | a:9100 uses 93.75% of its memory |"#);
    assert_eq!(after(14, "MemoryAlmostFull", &[(total, all), (free, |_| 3.0 * GIB)]), "");
}

#[test]
fn disk_will_fill() {
    let size = r#"node_filesystem_size_bytes{instance="a:9100",mountpoint="/",fstype="ext4"}"#;
    let free = r#"node_filesystem_avail_bytes{instance="a:9100",mountpoint="/",fstype="ext4"}"#;
    let all = |_| 100.0 * GIB;
    let sent = after(60, "DiskWillFill", &[(size, all), (free, |m| 30.0 * GIB - m * 0.2 * GIB)]);
    let labels: BTreeSet<_> = sent.lines().filter_map(|line| line.split(" | ").next()).collect();
    insta::assert_snapshot!(labels.into_iter().collect::<Vec<_>>().join("\n"), @r#"{alertname="DiskWillFill", fstype="ext4", instance="a:9100", mountpoint="/", severity="page", team="infrastructure"}"#);
    assert!(
        sent.contains("will be full within four hours") && sent.contains("GiB are left."),
        "{sent}"
    );
    assert_eq!(after(60, "DiskWillFill", &[(size, all), (free, |_| 30.0 * GIB)]), "", "steady");
    assert_eq!(
        after(60, "DiskWillFill", &[(size, all), (free, |m| 90.0 * GIB - m * 0.5 * GIB)]),
        "",
        "much is left"
    );
}

#[test]
fn watchdog() {
    insta::assert_snapshot!(after(2, "Watchdog", &[]), @r#"{alertname="Watchdog", severity="none"} | Monitoring is alive |"#);
}

#[test]
fn recording_rules() {
    let rig = Rig::new();
    rig.run(
        10,
        &[
            (r#"http_requests_total{job="web",code="200"}"#, |m| 60.0 * m),
            (r#"http_requests_total{job="web",code="500"}"#, |m| 6.0 * m),
            (r#"http_request_duration_seconds_bucket{job="web",le="0.1"}"#, |m| 50.0 * m),
            (r#"http_request_duration_seconds_bucket{job="web",le="1"}"#, |m| 100.0 * m),
            (r#"http_request_duration_seconds_bucket{job="web",le="+Inf"}"#, |m| 100.0 * m),
            (r#"node_cpu_seconds_total{instance="a",cpu="0",mode="idle"}"#, |m| 15.0 * m),
            (r#"node_memory_MemTotal_bytes{instance="a"}"#, |_| 4.0),
            (r#"node_memory_MemAvailable_bytes{instance="a"}"#, |_| 1.0),
        ],
    );
    insta::assert_snapshot!(rig.value(r#"sort({__name__=~".+:.+"})"#), @r#"
{__name__="job:http_requests_failed:rate5m", job="web"} 0.100
{__name__="instance:node_cpu_busy:ratio", instance="a"} 0.750
{__name__="instance:node_memory_used:ratio", instance="a"} 0.750
{__name__="job:http_request_duration_seconds:p99", job="web"} 0.982
{__name__="job:http_requests:rate5m", job="web"} 1.100
"#);
}
