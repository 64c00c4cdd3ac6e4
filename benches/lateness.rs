//! How late scrapes and rules begin while 50 clients send heavy queries without pause, for the
//! real binary.
//!
//! `LATENESS_SECONDS` sets how long each phase lasts.
#![expect(clippy::disallowed_methods, reason = "a harness for a real process")]

#[path = "../tests/it/process.rs"]
#[expect(dead_code, reason = "the tests need the rest of it")]
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use process::{SeriesToWrite, Server, encoded, get, now_ms, remote_write};

const CLIENTS: usize = 50;
const TARGETS: usize = 20;
const GROUPS: usize = 10;
/// Series that are queried, and their samples: an hour, 15 s apart.
const SERIES: usize = 3000;
const SAMPLES: i64 = 240;
const QUERIES: [&str; 6] = [
    "sum by (job) (rate(load_total[5m]))",
    "quantile by (job) (0.9, quantile_over_time(0.9, load_total[10m]))",
    "topk(5, max_over_time(load_total[10m]))",
    "rate(load_total[5m])",
    "load_total",
    "count(load_total * on (instance) group_left () load_total > 0) or stddev(load_total)",
];
/// Scrapes and rules begin at most so late at the 99th percentile.
const DELAY_MAX_S: f64 = 0.25;

/// Serves a page of metrics to whoever connects.
fn exporter(page: Arc<str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let page = Arc::clone(&page);
            std::thread::spawn(move || serve_page(stream.unwrap(), &page));
        }
    });
    port
}

fn serve_page(stream: TcpStream, page: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut writer = stream;
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
            let written = write!(writer, "{head}Content-Length: {}\r\n\r\n{page}", page.len());
            if written.is_err() {
                return;
            }
        }
    }
}

fn configuration(folder: &std::path::Path) -> String {
    let page: String = (0..100).map(|n| format!("work_total{{part=\"{n}\"}} {n}\n")).collect();
    let page: Arc<str> = page.into();
    let targets: Vec<String> =
        (0..TARGETS).map(|_| format!("'127.0.0.1:{}'", exporter(Arc::clone(&page)))).collect();
    let rules: String = (0..GROUPS)
        .map(|n| {
            format!(
                "- name: g{n}\n  interval: 1s\n  rules:\n  - record: part:work:rate1m\n    expr: sum by (part) (rate(work_total[1m]))\n    labels: {{group: g{n}}}\n"
            )
        })
        .collect();
    std::fs::write(folder.join("rules.yml"), format!("groups:\n{rules}")).unwrap();
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n- job_name: work\n  static_configs: [{{targets: [{}]}}]\n",
        targets.join(", ")
    )
}

fn fill(port: u16) -> i64 {
    let end_ms = now_ms() - 5_000;
    for first in (0..SAMPLES).step_by(20) {
        for part in (0..SERIES).collect::<Vec<_>>().chunks(500) {
            let series: Vec<_> = part
                .iter()
                .map(|n| SeriesToWrite {
                    labels: vec![
                        ("__name__", "load_total".to_owned()),
                        ("instance", format!("host-{n:04}")),
                        ("job", format!("job-{}", n % 20)),
                    ],
                    samples: (first..first + 20)
                        .map(|at| (end_ms - (SAMPLES - at) * 15_000, (at * (1 + *n as i64)) as f64))
                        .collect(),
                })
                .collect();
            assert_eq!(remote_write(port, &series).unwrap().status, 204);
        }
    }
    end_ms
}

/// Upper bounds and cumulative counts of a histogram among the server's own metrics.
fn buckets(metrics: &str, name: &str) -> Vec<(f64, f64)> {
    let start = format!("{name}_bucket{{le=\"");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(&start));
    let pair = |line: &str| {
        let (bound, count) = line.split_once("\"} ").unwrap();
        (bound.parse().unwrap_or(f64::INFINITY), count.parse().unwrap())
    };
    lines.map(pair).collect()
}

/// The bound below which this share of what came between two readings lies.
fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> (f64, f64) {
    let total = after.last().unwrap().1 - before.last().unwrap().1;
    let found = before.iter().zip(after).find(|(old, new)| share * total <= new.1 - old.1);
    (found.map_or(f64::INFINITY, |(_, new)| new.0), total)
}

fn read_all(stream: &mut TcpStream) -> usize {
    let mut buffer = vec![0; 1 << 16];
    let mut count = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        count += read;
    }
    count
}

struct Load {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    clients: Vec<Client>,
}

struct Client {
    /// Whole ones that came.
    answers: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    /// Answers of each client, and the bytes of all, until now.
    fn counts(&self) -> (Vec<u64>, u64) {
        let answers = self.clients.iter().map(|client| client.answers.load(Ordering::Relaxed));
        (answers.collect(), self.bytes.load(Ordering::Relaxed))
    }
}

fn start_load(port: u16, end_ms: i64) -> Load {
    let mut load = Load { stop: Arc::default(), bytes: Arc::default(), clients: Vec::new() };
    for client in 0..CLIENTS {
        let answers: Arc<AtomicU64> = Arc::default();
        let (stop, bytes, counted) = (load.stop.clone(), load.bytes.clone(), answers.clone());
        let thread = std::thread::spawn(move || {
            let end = end_ms / 1000;
            for n in client.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let query = encoded(QUERIES[n % QUERIES.len()]);
                let path = format!(
                    "/api/v1/query_range?query={query}&start={}&end={end}&step=15",
                    end - 3600
                );
                let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let head = "HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close";
                if write!(stream, "GET {path} {head}\r\n\r\n").is_ok() {
                    bytes.fetch_add(read_all(&mut stream) as u64, Ordering::Relaxed);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        load.clients.push(Client { answers, thread });
    }
    load
}

/// The sum of a metric's values.
fn sum(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// Prints delays of one phase; the 99th percentiles.
fn phase(port: u16, name: &str, length: Duration) -> [f64; 2] {
    let before = get(port, "/metrics").body;
    std::thread::sleep(length);
    let after = get(port, "/metrics").body;
    let missed = "prometheus_rule_group_iterations_missed_total";
    let missed = sum(&after, missed) - sum(&before, missed);
    let scrapes = length.as_secs() * TARGETS as u64;
    println!("{name:>8} {missed} rounds of rules missed; {scrapes} scrapes planned");
    ["narthex_scrape_delay_seconds", "narthex_rule_group_delay_seconds"].map(|metric| {
        let (before, after) = (buckets(&before, metric), buckets(&after, metric));
        let at = |share| quantile(&before, &after, share).0;
        let (p99, count) = quantile(&before, &after, 0.99);
        println!(
            "{name:>8} {metric}: p50 <= {} s, p90 <= {} s, p99 <= {p99} s, max <= {} s, of {count}",
            at(0.5),
            at(0.9),
            at(1.0)
        );
        p99
    })
}

/// KiB of a line in `/proc/PID/status`.
fn status_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let seconds = std::env::var("LATENESS_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(20));
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path());
    let flags = ["--web.enable-remote-write-receiver", "--log.level=error"];
    let server = Server::start(folder.path(), &config, &flags);
    let port = server.port;
    let end_ms = fill(port);
    std::thread::sleep(Duration::from_secs(3));
    phase(port, "idle", length);
    let load = start_load(port, end_ms);
    std::thread::sleep(Duration::from_secs(3));
    let (begun, before) = (Instant::now(), load.counts());
    let p99 = phase(port, "loaded", length);
    let took = begun.elapsed().as_secs_f64();
    let (answers, bytes) = load.counts();
    load.stop.store(true, Ordering::Relaxed);
    let own = answers.iter().zip(&before.0).map(|(after, before)| after - before);
    let (all, least) = (own.clone().sum::<u64>(), own.min().unwrap());
    let mib = (bytes - before.1) >> 20;
    println!("{:>8} {all} answers, {least} or more for each, {mib} MiB in {took:.1} s", "clients");
    println!("{:>8} {} MiB at most", "memory", status_kib(server.process.id(), "VmHWM") >> 10);
    for client in load.clients {
        client.thread.join().unwrap();
    }
    assert!(0 < least, "some clients got no answer");
    assert!(p99.iter().all(|p99| *p99 <= DELAY_MAX_S), "scrapes or rules begin too late: {p99:?}");
}
