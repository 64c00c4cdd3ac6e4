//! What the tests of this module share.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;
use insta::assert_snapshot;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::append::ScrapeError;
use super::fetch::{Fetch, Fetched, Fetching, HttpFetch};
use super::metrics::Metrics;
use super::pool::Pool;
use super::run::{Job, Shared};
use super::target::Target;
use super::*;
use crate::base::clock::{Clock, OsClock};
use crate::base::metrics::Registry;
use crate::encoding::wire::exposition;
use crate::encoding::wire::negotiate::negotiate;
use crate::http_client;
use crate::model::exemplar::Exemplar;
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::model::metadata::Metadata;
use crate::model::relabel::NameValidation;
use crate::model::sample::is_stale_nan;
use crate::model::target::{TargetGroup, TargetSets};
use crate::storage::append::{
    Append, AppendError, Appended, Appender, OnReject, SeriesKey, Ticket,
};

/// A store that writes down what is committed.
#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<String>>);

impl Recorder {
    /// What was committed since the last call.
    pub fn take(&self) -> String {
        std::mem::take(&mut self.0.lock())
    }
}

impl Appender for Recorder {
    fn appender(&self, _on_reject: OnReject) -> Box<dyn Append> {
        let to = Arc::clone(&self.0);
        let start = String::new();
        Box::new(Batch { to, rows: String::new(), start, rejects_old: false, count: 0 })
    }
}

struct Batch {
    to: Arc<Mutex<String>>,
    rows: String,
    start: String,
    rejects_old: bool,
    count: u64,
}

impl Append for Batch {
    fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64) {
        let labels = series.to_labels();
        let stale = if self.rejects_old { "stale (no old)" } else { "stale" };
        let value = if is_stale_nan(value) { stale.to_owned() } else { value.to_string() };
        let start = std::mem::take(&mut self.start);
        self.rows += &format!("{timestamp_ms} {labels} {value}{start}\n");
        self.count += 1;
    }

    fn histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, histogram: &Histogram) {
        let labels = series.to_labels();
        let Histogram { schema, count, sum, positive_buckets, .. } = histogram;
        self.rows += &format!(
            "{timestamp_ms} {labels} schema {schema} count {count} sum {sum} {positive_buckets:?} {:?}{}\n",
            histogram.custom_bounds,
            std::mem::take(&mut self.start)
        );
        self.count += 1;
    }

    fn exemplar(&mut self, series: SeriesKey<'_>, own: &Exemplar) {
        let labels = series.to_labels();
        let Exemplar { labels: own_labels, value, timestamp_ms } = own;
        self.rows += &format!("exemplar {labels} {own_labels} {value} {timestamp_ms}\n");
    }

    fn metadata(&mut self, metric: &str, metadata: &Metadata) {
        let (kind, help) = (metadata.metric_type.as_str(), &metadata.help);
        self.rows += &format!("metadata {metric} {kind} {help:?}\n");
    }

    fn start(&mut self, start_ms: i64) {
        self.start = if start_ms == 0 { String::new() } else { format!(" since {start_ms}") };
    }

    fn reject_out_of_order(&mut self, yes: bool) {
        self.rejects_old = yes;
    }

    fn commit(self: Box<Self>) -> Result<(Appended, Ticket), AppendError> {
        *self.to.lock() += &self.rows;
        let appended = Appended { sample_count: self.count, ..Appended::default() };
        Ok((appended, Ticket::settled(Ok(()))))
    }
}

/// Tokio's clock, which tests may pause.
struct TokioClock {
    start: tokio::time::Instant,
    /// By how much threads come too late since some moment.
    late_ms: AtomicU64,
}

impl Clock for TokioClock {
    fn now_ms(&self) -> i64 {
        1_000_000_000 + self.monotonic().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed() + Duration::from_millis(self.late_ms.load(Ordering::Relaxed))
    }
}

/// Answers in turn, each after a while; the last answer stays.
struct Script(Mutex<VecDeque<(u64, Result<&'static str, &'static str>)>>);

impl Fetch for Script {
    fn fetch<'a>(&'a self, _target: &'a Target) -> Fetching<'a> {
        let mut script = self.0.lock();
        let (seconds, answer) = match script.len() {
            1 => script[0],
            _ => script.pop_front().expect("a script has an answer"),
        };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let fetched = |body: &'static str| Fetched {
                content_type: "text/plain".to_owned(),
                body: Bytes::from_static(body.as_bytes()),
                is_gzip: false,
            };
            answer.map(fetched).map_err(|text| ScrapeError::Fetch(text.to_owned()))
        })
    }
}

/// A pool on paused time.
struct Bench {
    pool: Pool,
    recorder: Recorder,
    clock: Arc<TokioClock>,
    script: Arc<Script>,
    ended: mpsc::Receiver<()>,
    shared: Arc<Shared>,
    registry: Registry,
}

impl Bench {
    fn new(options: JobOptions, script: &[(u64, Result<&'static str, &'static str>)]) -> Self {
        let (recorder, (alive, ended)) = (Recorder::default(), mpsc::channel(1));
        let late_ms = AtomicU64::new(0);
        let clock = Arc::new(TokioClock { start: tokio::time::Instant::now(), late_ms });
        let registry = Registry::new();
        let shared = Arc::new(Shared {
            storage: Arc::new(recorder.clone()),
            clock: clock.clone(),
            metrics: Metrics::new(&registry),
            seed: AtomicU64::new(1),
            shutdown: watch::Sender::new(false),
        });
        let script = Arc::new(Script(Mutex::new(script.iter().copied().collect())));
        let job = Job { options, fetch: script.clone() };
        let runtime = tokio::runtime::Handle::current();
        let pool = Pool::new(shared.clone(), runtime, alive, job);
        Self { pool, recorder, clock, script, ended, shared, registry }
    }

    fn targets(&mut self, addresses: &[&str]) {
        let target = |address: &&str| Labels::from_pairs([("__address__", *address)]);
        let group = TargetGroup {
            source: "0".to_owned(),
            targets: addresses.iter().map(target).collect(),
            labels: Labels::empty(),
        };
        self.pool.update(&[Arc::new(group)]);
    }

    /// Lets time pass; what was committed, by seconds since the start, without most of what
    /// scrapes report about themselves.
    async fn pass(&self, seconds: u64) -> String {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let rows = self.recorder.take();
        let shown = rows.lines().filter(|row| !row.contains("\"scrape_")).map(|row| {
            let (time, rest) = row.split_once(' ').expect("rows begin with a time");
            let time_ms = time.parse::<i64>().expect("a number") - 1_000_000_000;
            format!("{:.3} {rest}\n", time_ms as f64 / 1000.0)
        });
        shown.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_lives_fails_recovers_and_ends() {
    let script =
        [(0, Ok("a 1\nb 2\n")), (0, Ok("a 1\n")), (1, Err("connection refused")), (0, Ok("a 3\n"))];
    let mut bench = Bench::new(job("j"), &script);
    bench.targets(&["h:1"]);
    let mut out = bench.pass(60).await;
    let status = bench.pool.status();
    assert_eq!(status.active[0].health, Health::Up);
    bench.targets(&[]);
    out += "gone\n";
    out += &bench.pass(60).await;
    assert_snapshot!(out, @r#"
    9.969 {__name__="a", instance="h:1", job="j"} 1
    9.969 {__name__="b", instance="h:1", job="j"} 2
    9.969 {__name__="up", instance="h:1", job="j"} 1
    24.969 {__name__="a", instance="h:1", job="j"} 1
    24.969 {__name__="b", instance="h:1", job="j"} stale (no old)
    24.969 {__name__="up", instance="h:1", job="j"} 1
    39.969 {__name__="a", instance="h:1", job="j"} stale (no old)
    39.969 {__name__="up", instance="h:1", job="j"} 0
    54.969 {__name__="a", instance="h:1", job="j"} 3
    54.969 {__name__="up", instance="h:1", job="j"} 1
    gone
    69.969 {__name__="a", instance="h:1", job="j"} stale (no old)
    69.969 {__name__="up", instance="h:1", job="j"} stale (no old)
    "#);
    assert!(bench.pool.status().active.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_scrape_skips_ticks_and_keeps_the_grid() {
    let script = [(0, Ok("a 1\n")), (40, Ok("a 2\n")), (0, Ok("a 3\n"))];
    let mut bench = Bench::new(job("j"), &script);
    bench.targets(&["h:1"]);
    assert_snapshot!(bench.pass(90).await, @r#"
    9.969 {__name__="a", instance="h:1", job="j"} 1
    9.969 {__name__="up", instance="h:1", job="j"} 1
    24.969 {__name__="a", instance="h:1", job="j"} 2
    24.969 {__name__="up", instance="h:1", job="j"} 1
    69.969 {__name__="a", instance="h:1", job="j"} 3
    69.969 {__name__="up", instance="h:1", job="j"} 1
    84.969 {__name__="a", instance="h:1", job="j"} 3
    84.969 {__name__="up", instance="h:1", job="j"} 1
    "#);
}

#[tokio::test(start_paused = true)]
async fn delays_and_intervals_are_told_as_they_were() {
    let script = [(0, Ok("a 1\n")), (40, Ok("a 2\n")), (0, Ok("a 3\n"))];
    let mut bench = Bench::new(job("j"), &script);
    bench.targets(&["h:1"]);
    // The second scrape takes so long that two are left out; the last one begins too late.
    bench.pass(80).await;
    bench.clock.late_ms.store(300, Ordering::Relaxed);
    bench.pass(10).await;
    let families = bench.registry.gather();
    let text = exposition::write_families(&families, negotiate(""));
    let wanted = ["interval_length_seconds_", "delay_seconds_sum", "delay_seconds_count"];
    let mut told = String::new();
    for line in text.lines().filter(|line| wanted.iter().any(|name| line.contains(name))) {
        told += line;
        told.push('\n');
    }
    assert_snapshot!(told, @r#"
    narthex_scrape_delay_seconds_sum 0.3
    narthex_scrape_delay_seconds_count 4
    prometheus_target_interval_length_seconds_sum{interval="15s"} 75.3
    prometheus_target_interval_length_seconds_count{interval="15s"} 3
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_targets_and_their_phase() {
    let mut bench = Bench::new(job("j"), &[(0, Ok("a{job=\"own\"} 1\n"))]);
    bench.targets(&["h:1"]);
    let mut out = bench.pass(20).await;
    let mut options = job("j");
    options.timeout = Duration::from_secs(5);
    bench.pool.reload(Job { options: options.clone(), fetch: bench.script.clone() });
    out += "other timeout\n";
    out += &bench.pass(15).await;
    options.honor_labels = true;
    bench.pool.reload(Job { options, fetch: bench.script.clone() });
    out += "honor labels\n";
    out += &bench.pass(15).await;
    assert_snapshot!(out, @r#"
    9.969 {__name__="a", exported_job="own", instance="h:1", job="j"} 1
    9.969 {__name__="up", instance="h:1", job="j"} 1
    other timeout
    24.969 {__name__="a", exported_job="own", instance="h:1", job="j"} 1
    24.969 {__name__="up", instance="h:1", job="j"} 1
    honor labels
    39.969 {__name__="a", instance="h:1", job="own"} 1
    39.969 {__name__="a", exported_job="own", instance="h:1", job="j"} stale (no old)
    39.969 {__name__="up", instance="h:1", job="j"} 1
    "#);
}

#[tokio::test(start_paused = true)]
async fn too_many_targets_all_fail_and_recover() {
    let mut options = job("j");
    options.target_limit = 1;
    let mut bench = Bench::new(options, &[(0, Ok("a 1\n"))]);
    bench.targets(&["h:1", "h:2"]);
    bench.pass(20).await;
    let errors: Vec<_> =
        bench.pool.status().active.into_iter().map(|target| target.last_error).collect();
    assert_eq!(errors, ["target_limit exceeded (number of targets: 2, limit: 1)"; 2]);
    bench.targets(&["h:1"]);
    bench.pass(20).await;
    assert_eq!(bench.pool.status().active[0].last_error, "");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_loops_without_stale_markers() {
    let mut bench = Bench::new(job("j"), &[(0, Ok("a 1\n"))]);
    bench.targets(&["h:1"]);
    bench.pass(20).await;
    bench.shared.shutdown.send_replace(true);
    drop(bench.pool);
    assert_eq!(bench.ended.recv().await, None);
    assert_eq!(bench.recorder.take(), "");
    assert!(bench.clock.monotonic() < Duration::from_secs(21));
}

/// A server that answers in many ways; its address.
async fn serve() -> String {
    let gzip = |body: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let text = [("content-type", "text/plain")];
    let packed = gzip("a 1\nb 2\n");
    let app = Router::new()
        .route(
            "/plain",
            get(move |headers: HeaderMap| async move {
                let header =
                    |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
                let seen = ["accept-encoding", "user-agent", "x-prometheus-scrape-timeout-seconds"]
                    .map(header)
                    .join("|");
                (text, format!("seen{{by=\"{seen}\"}} 1\n"))
            }),
        )
        .route(
            "/gzip",
            get(move || async move {
                ([("content-type", "text/plain"), ("content-encoding", "gzip")], packed.clone())
            }),
        )
        .route("/missing", get(|| async { StatusCode::NOT_FOUND }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_mins(1)).await;
                "a 1\n".into_response()
            }),
        )
        .route("/moved", get(|| async { (StatusCode::FOUND, [("location", "/gzip")], "") }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn fetch(options: &JobOptions, address: &str, path: &str) -> String {
    let group = TargetGroup {
        source: "0".to_owned(),
        targets: vec![Labels::from_pairs([("__address__", address), ("__metrics_path__", path)])],
        labels: Labels::empty(),
    };
    let mut found = Vec::new();
    target::targets_of(options, &group, |target| found.extend(target), |_, err| panic!("{err}"));
    let fetch = HttpFetch::new(options, "Prometheus/3").unwrap();
    match fetch.fetch(&found[0]).await {
        Ok(fetched) if fetched.is_gzip => {
            match append::decompress(&fetched.body, options.body_size_limit) {
                Ok(body) => format!("gzip {}", String::from_utf8_lossy(&body).escape_debug()),
                Err(err) => format!("error: {err}"),
            }
        }
        Ok(fetched) => String::from_utf8_lossy(&fetched.body).escape_debug().to_string(),
        Err(err) => format!("error: {}", err.to_string().replace(address, "h:1")),
    }
}

#[tokio::test]
async fn fetching_over_http() {
    let address = serve().await;
    let mut options = job("j");
    let mut out = String::new();
    for path in ["/plain", "/gzip", "/missing", "/moved"] {
        out += &format!("{path}: {}\n", fetch(&options, &address, path).await);
    }
    options.timeout = Duration::from_millis(50);
    out += &format!("/slow: {}\n", fetch(&options, &address, "/slow").await);
    options.timeout = Duration::from_secs(10);
    options.body_size_limit = 8;
    options.http.follow_redirects = false;
    for path in ["/plain", "/gzip", "/moved"] {
        out += &format!("{path} with limit: {}\n", fetch(&options, &address, path).await);
    }
    out += &format!("closed: {}\n", fetch(&options, "127.0.0.1:1", "/").await);
    assert_snapshot!(out, @r#"
    /plain: seen{by=\"gzip|Prometheus/3|10\"} 1\n
    /gzip: gzip a 1\nb 2\n
    /missing: error: server returned HTTP status 404 Not Found
    /moved: gzip a 1\nb 2\n
    /slow: error: Get "http://h:1/slow": context deadline exceeded
    /plain with limit: error: body size limit exceeded
    /gzip with limit: error: body size limit exceeded
    /moved with limit: error: server returned HTTP status 302 Found
    closed: error: Get "http://h:1/": dial tcp h:1: connect: connection refused
    "#);
}

#[tokio::test]
async fn the_manager_scrapes_what_discovery_finds() {
    let address = serve().await;
    let recorder = Recorder::default();
    let options = ManagerOptions { user_agent: "test".to_owned(), hostname: "host".to_owned() };
    let registry = Registry::new();
    let storage = Arc::new(recorder.clone());
    let manager = Arc::new(Manager::new(storage, Arc::new(OsClock::new()), &registry, options));
    let mut options = job("j");
    (options.interval, options.timeout) = (Duration::from_millis(50), Duration::from_millis(50));
    options.metrics_path = "/gzip".to_owned();
    manager.apply(vec![options], &Labels::empty()).unwrap();
    let (sender, receiver) = watch::channel(Arc::new(TargetSets::new()));
    let running = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.run(receiver).await }
    });
    let group = TargetGroup {
        source: "0".to_owned(),
        targets: vec![Labels::from_pairs([("__address__", &address)])],
        labels: Labels::empty(),
    };
    sender.send_replace(Arc::new(TargetSets::from([("j".to_owned(), vec![Arc::new(group)])])));
    let is_up = || manager.status()[0].active.first().is_some_and(|own| own.health == Health::Up);
    while !is_up() {
        // The answer comes over a real socket, beyond tokio's clock.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    manager.shutdown().await;
    running.await.unwrap();
    let rows = recorder.take();
    let row = format!("{{__name__=\"b\", instance=\"{address}\", job=\"j\"}} 2");
    assert!(rows.contains(&row), "{rows}");
    assert!(
        registry.gather().iter().any(|own| own.name == "prometheus_target_scrape_pool_targets")
    );
}

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
        has_default_protocols: false,
        fallback_scrape_protocol: None,
        histograms: HistogramOptions {
            native: false,
            always_classic: false,
            convert: false,
            bucket_limit: 0,
            schema_max: 8,
        },
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
        reads_starts: false,
        scrape_failure_log_file: None,
        http: http_client::Options::plain(),
    }
}
