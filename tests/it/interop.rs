//! Beside Debian's packages: Prometheus writes to us while both scrape one node_exporter, and
//! promtool and amtool talk to us. Skipped when they are not installed, unless
//! `NARTHEX_REQUIRE_PEERS` is set (CI).
#![expect(clippy::disallowed_methods, reason = "lets real time pass")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::{
    Process, SeriesToWrite, Server, encoded, free_port, get, now_ms, remote_write, request,
    wait_for,
};

/// Dashboard-style range queries, `#` before each selector; each must give at least one series.
const QUERIES: [&str; 20] = [
    "#up",
    "#node_load1",
    "sum by (mode) (rate(#node_cpu_seconds_total[10s]))",
    "100 * (1 - avg by (instance) (rate(#node_cpu_seconds_total{mode=\"idle\"}[10s])))",
    "1 - #node_memory_MemAvailable_bytes / #node_memory_MemTotal_bytes",
    "#node_filesystem_avail_bytes / #node_filesystem_size_bytes",
    "sum without (cpu) (irate(#node_cpu_seconds_total[10s]))",
    "topk(3, #node_filesystem_size_bytes)",
    "max_over_time(#node_load1[10s])",
    "avg_over_time(#node_memory_MemFree_bytes[10s])",
    "increase(#node_context_switches_total[10s])",
    "deriv(#node_memory_Cached_bytes[10s])",
    "predict_linear(#node_filesystem_free_bytes[10s], 3600)",
    "count(#node_cpu_seconds_total) by (mode) > 0",
    "quantile by (mode) (0.9, rate(#node_cpu_seconds_total[10s]))",
    "label_replace(#up, \"host\", \"$1\", \"instance\", \"(.*):.*\")",
    "stddev_over_time(#node_load5[10s])",
    "time() - #node_boot_time_seconds",
    "#node_memory_MemTotal_bytes - on (instance) group_left #node_memory_MemFree_bytes",
    "sum(rate(#node_network_receive_bytes_total[10s])) by (device) or vector(0)",
];

/// Where the program is, or `None` (with a message) when it may be missing.
pub fn peer(program: &str) -> Option<&str> {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok() {
        return Some(program);
    }
    let required = std::env::var_os("NARTHEX_REQUIRE_PEERS").is_some();
    assert!(!required, "{program} is required here, but is not installed");
    eprintln!("skipped: {program} is not installed");
    None
}

pub fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn start_node_exporter() -> (Process, u16) {
    let port = free_port();
    let address = format!("--web.listen-address=127.0.0.1:{port}");
    let process = Process::spawn(quiet("prometheus-node-exporter").arg(address));
    wait_for("node_exporter", || request(port, "GET", "/metrics", &[], b""));
    (process, port)
}

fn scrape_config(port: u16) -> String {
    format!(
        "global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"
    )
}

fn start_prometheus(folder: &Path, exporter: u16, narthex: u16) -> (Process, u16) {
    let port = free_port();
    let config = format!(
        "{}remote_write:
  - url: http://127.0.0.1:{narthex}/api/v1/write
    queue_config: {{batch_send_deadline: 200ms}}
",
        scrape_config(exporter)
    );
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let process = Process::spawn(
        quiet("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
    );
    wait_for("Prometheus", || {
        request(port, "GET", "/-/ready", &[], b"").filter(|answer| answer.status == 200)
    });
    (process, port)
}

/// Series of a range answer by labels, values as numbers.
fn matrix(port: u16, query: &str, start: i64, end: i64) -> Vec<(String, Vec<(f64, f64)>)> {
    let path =
        format!("/api/v1/query_range?query={}&start={start}&end={end}&step=1", encoded(query));
    let answer = get(port, &path);
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    let answer = answer.json();
    let point =
        |pair: &Value| (pair[0].as_f64().unwrap(), pair[1].as_str().unwrap().parse().unwrap());
    let series = answer["data"]["result"].as_array().unwrap().iter().map(|series| {
        let points = series["values"].as_array().unwrap().iter().map(point).collect();
        (series["metric"].to_string(), points)
    });
    let mut series: Vec<_> = series.collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    series
}

fn agree(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn interop_remote_write_from_prometheus_answers_the_same() {
    let (Some(_), Some(_)) = (peer("prometheus"), peer("prometheus-node-exporter")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (_exporter, exporter_port) = start_node_exporter();
    // Our own scrapes go under another job, so that they do not mix with what is written to us.
    let config = scrape_config(exporter_port).replace("job_name: node", "job_name: own");
    let server = Server::start(folder.path(), &config, &["--web.enable-remote-write-receiver"]);
    let (_prometheus, prometheus_port) =
        start_prometheus(folder.path(), exporter_port, server.port);

    let begun = now_ms() / 1000;
    let newest = |port: u16| {
        let path = "/api/v1/query?query=max(timestamp(node_load1%7Bjob%3D%22node%22%7D))";
        let answer = get(port, path).json();
        answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
    };
    std::thread::sleep(Duration::from_secs(16));
    let end = now_ms() / 1000 - 2;
    wait_for("what Prometheus has", || newest(server.port).filter(|at| *at > end as f64 + 1.0));
    for query in QUERIES {
        // Both hold the same samples of the job that Prometheus writes; ours has more jobs.
        let query = only_job_node(query);
        let theirs = matrix(prometheus_port, &query, begun + 3, end);
        let ours = matrix(server.port, &query, begun + 3, end);
        assert!(!theirs.is_empty(), "{query}: no series");
        let names = |all: &[(String, Vec<_>)]| all.iter().map(|s| s.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "{query}");
        for (our, their) in ours.iter().zip(&theirs) {
            assert_eq!(our.1.len(), their.1.len(), "{query} {}", our.0);
            for (a, b) in our.1.iter().zip(&their.1) {
                assert!(a.0 == b.0 && agree(a.1, b.1), "{query} {}: {a:?} {b:?}", our.0);
            }
        }
    }

    // Our own scrape sees the exporter too.
    let own = matrix(server.port, "up{job=\"own\"}", end, end);
    assert_eq!(own[0].1[0].1, 1.0);
    let count = |job: &str| {
        matrix(server.port, &format!("count({{job=\"{job}\",__name__=~\"node_.+\"}})"), end, end)
    };
    assert_eq!(
        count("own")[0].1,
        count("node")[0].1,
        "as many series by scrape as by remote write"
    );
    let output = Command::new("promtool")
        .args([
            "query",
            "instant",
            &format!("http://127.0.0.1:{}", server.port),
            "count(up{job=\"node\"})",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("{} => 1 @["), "{output:?}");
}

/// Adds `job="node"` to every selector, which `#` marks.
fn only_job_node(query: &str) -> String {
    let mut parts = query.split('#');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = part.find(|c| !word(c)).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        out.push_str(name);
        match rest.strip_prefix('{') {
            Some(inner) => out.push_str(&format!("{{job=\"node\",{inner}")),
            None => out.push_str(&format!("{{job=\"node\"}}{rest}")),
        }
    }
    out
}

#[test]
fn interop_amtool_works_against_both_addresses() {
    let Some(amtool) = peer("amtool") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alertmanager.yml");
    let config = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
    std::fs::write(&file, config).unwrap();
    let port = free_port();
    let arguments = [
        format!("--alertmanager.config.file={}", file.display()),
        format!("--alertmanager.listen-address=127.0.0.1:{port}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start(folder.path(), "global: {}\n", &arguments);
    let urls = [
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}/alertmanager", server.port),
    ];
    for (index, url) in urls.iter().enumerate() {
        let run = |arguments: &[&str]| {
            let output = Command::new(amtool)
                .arg(format!("--alertmanager.url={url}"))
                .args(arguments)
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{arguments:?}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let alert = format!("Disk{index}");
        run(&["alert", "add", &alert, "disk=sda", "--annotation=summary=full"]);
        assert!(run(&["alert", "query"]).contains(&alert));
        let matcher = format!("alertname={alert}");
        let id =
            run(&["silence", "add", &matcher, "--comment=test", "--author=me", "--duration=1h"]);
        let id = id.trim();
        assert_eq!(id.len(), 36, "{id}");
        assert!(run(&["silence", "query"]).contains(id));
        assert!(!run(&["alert", "query"]).contains(&alert), "silenced alerts are not shown");
        assert!(run(&["alert", "query", "--silenced"]).contains(&alert));
        run(&["silence", "expire", id]);
        assert!(!run(&["silence", "query"]).contains(id));
        assert!(run(&["silence", "query", "--expired"]).contains(id));
        assert!(run(&["alert", "query"]).contains(&alert));
    }
}

#[test]
fn interop_prometheus_reads_from_us() {
    let Some(_) = peer("prometheus") else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = "global: {external_labels: {site: here}}\n";
    let narthex = Server::start(folder.path(), config, &["--web.enable-remote-write-receiver"]);
    let end_ms = now_ms() / 1000 * 1000;
    // More samples than a chunk holds, at uneven times, with odd values.
    let series: Vec<_> = ["a", "b"]
        .iter()
        .map(|room| SeriesToWrite {
            labels: vec![("__name__", "heat".to_owned()), ("room", (*room).to_owned())],
            samples: (0..500_i64)
                .map(|n| {
                    let value = if n % 7 == 0 { 21.0 } else { 1.0 / n as f64 };
                    (end_ms - (500 - n) * 1000 + n % 3, value)
                })
                .collect(),
        })
        .collect();
    assert_eq!(remote_write(narthex.port, &series).unwrap().status, 204);
    let port = free_port();
    let file = folder.path().join("prometheus.yml");
    let url = format!("http://127.0.0.1:{}/api/v1/read", narthex.port);
    std::fs::write(&file, format!("remote_read: [{{url: '{url}', read_recent: true}}]\n")).unwrap();
    let _prometheus = Process::spawn(
        quiet("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
    );
    wait_for("Prometheus", || {
        request(port, "GET", "/-/ready", &[], b"").filter(|answer| answer.status == 200)
    });
    let query = encoded("heat{site=\"here\"}[10m]");
    let path = format!("/api/v1/query?query={query}&time={}", end_ms / 1000);
    let theirs = get(port, &path).json();
    assert_eq!(theirs["status"], "success", "{theirs}");
    let result = theirs["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), 2, "{theirs}");
    let query = encoded("heat[10m]");
    let path = format!("/api/v1/query?query={query}&time={}", end_ms / 1000);
    let ours = get(narthex.port, &path).json();
    for (theirs, ours) in result.iter().zip(ours["data"]["result"].as_array().unwrap()) {
        assert_eq!(theirs["metric"]["room"], ours["metric"]["room"]);
        assert_eq!(theirs["values"].as_array().unwrap().len(), 500);
        assert_eq!(theirs["values"], ours["values"]);
    }
}
