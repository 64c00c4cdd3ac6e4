//! What the world does to a running store: a full disk, files cut by a stranger, too many series.
//! The real binary goes on, says what is wrong, and recovers without a restart.
#![expect(clippy::disallowed_methods, reason = "damages the files of a real server")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::process::{
    Answer, HttpReceiver, SeriesToWrite, Server, encoded, get, instant, now_ms, post_form,
    post_json, remote_write, request, wait_for,
};
use crate::remote_write_v2::send_samples;

const FLAGS: [&str; 3] =
    ["--web.enable-admin-api", "--web.enable-remote-write-receiver", "--web.enable-otlp-receiver"];

/// A number between 0 and 1 that does not compress.
fn noise(seed: usize) -> f64 {
    (seed as f64 * 12.9898).sin().abs()
}

/// `count` series with so many samples up to a moment, a second apart.
fn write(port: u16, name: &str, count: usize, samples: i64, until_ms: i64) -> Answer {
    let one = |i: usize| SeriesToWrite {
        labels: vec![("__name__", name.to_owned()), ("i", i.to_string())],
        samples: (0..samples)
            .map(|at| (until_ms - (samples - 1 - at) * 1_000, noise(i * 1_000 + at as usize)))
            .collect(),
    };
    let series: Vec<_> = (0..count).map(one).collect();
    remote_write(port, &series).expect("an answer")
}

fn query(port: u16, expr: &str, at_ms: i64) -> Answer {
    let at = at_ms as f64 / 1000.0;
    get(port, &format!("/api/v1/query?query={}&time={at}", encoded(expr)))
}

fn only_segment(folder: &Path) -> PathBuf {
    let mut all = std::fs::read_dir(folder.join("data/segments")).unwrap();
    let path = all.next().expect("a segment").unwrap().path();
    assert!(all.next().is_none(), "one segment");
    path
}

#[test]
fn a_segment_that_is_cut_under_a_query_is_an_error_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), "global: {}\n", &FLAGS);
    let port = server.port;
    // What is sealed ends before what is written later begins.
    let now = now_ms();
    let before = now - 600_000;
    assert_eq!(write(port, "m", 400, 120, before).status, 204);
    assert_eq!(post_form(port, "/api/v1/admin/tsdb/compact", &[]).status, 204);
    assert_eq!(write(port, "m", 400, 2, now).status, 204);
    let path = only_segment(folder.path());
    let expr = "sum(count_over_time(m[5m]))";
    let whole = query(port, expr, before).json()["data"]["result"][0]["value"][1].clone();
    assert_eq!(whole, "48000");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However this ends, the readers do not go on for ever.
        let end = SetAtEnd(&is_over);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let answer = query(port, expr, before);
                        let result = &answer.json()["data"]["result"];
                        // All of it, an error, or nothing once it is left out; never a part.
                        let is_whole = result[0]["value"][1] == "48000";
                        let is_none = result.as_array().is_some_and(Vec::is_empty);
                        assert!(answer.status != 200 || is_whole || is_none, "{}", answer.body);
                    }
                })
            })
            .collect();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 3).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let told = wait_for("an error", || {
            let answer = query(port, expr, before);
            (answer.status != 200).then_some(answer.body)
        });
        assert!(told.contains(name) && told.contains("the file was cut"), "{told}");
        // What is not in that file can be read and written all the while.
        assert_eq!(query(port, "count(m)", now).json()["data"]["result"][0]["value"][1], "400");
        assert_eq!(write(port, "m", 10, 1, now + 1_000).status, 204);
        let kept = folder.path().join("data/quarantine").join(name);
        wait_for("the segment to be left out", || kept.exists().then_some(()));
        wait_for("queries of that time to be answered", || {
            (query(port, expr, before).status == 200).then_some(())
        });
        drop(end);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert!(server.process.is_running());
    let log = server.log();
    assert!(log.contains("A segment is damaged and left out"), "{log}");
    server.kill();
    server.start_again();
    assert_eq!(query(port, "count(m)", now).json()["data"]["result"][0]["value"][1], "400");
}

/// Sets a flag when it goes, by a failed assertion too.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fills the disk to the last byte.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for bytes in [1 << 20, 64 << 10, 4 << 10] {
        while file.write_all(&vec![1; bytes]).is_ok() {}
    }
}

#[test]
fn on_a_full_disk_samples_are_refused_and_everything_else_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = Server::start_on_small_disk(folder.path(), &FLAGS, 32 << 20) else {
        assert!(std::env::var_os("NARTHEX_REQUIRE_MOUNT").is_none(), "nothing can be mounted");
        eprintln!("skipped: this machine does not let us mount a small file system");
        return;
    };
    let port = server.port;
    let now = now_ms();
    assert_eq!(write(port, "kept", 50, 2, now).status, 204);
    assert_eq!(write(port, "gone", 50, 2, now).status, 204);
    let ballast = server.data_as_seen().join("ballast");
    fill(&ballast);
    // What was set aside for the open log file is used up first.
    let refused = (0..10_000_i64)
        .map(|at| write(port, "more", 1_000, 1, now + at))
        .find(|answer| answer.status != 204)
        .expect("the disk is full");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("no space left"), "{}", refused.body);
    let told = "The disk is full: samples are refused until there is space. Queries go on.";
    let log = server.log();
    assert_eq!(log.matches(told).count(), 1, "{log}");
    // Queries and deleting go on; deleting is what frees space.
    assert_eq!(instant(port, "count(kept)")[0]["value"][1], "50");
    let deleted = post_form(port, "/api/v1/admin/tsdb/delete_series", &[("match[]", "gone")]);
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    assert_eq!(instant(port, "count(gone)"), json!([]));
    assert_eq!(
        write(port, "even_more", 30_000, 1, now).status,
        503,
        "the reserve is not for samples"
    );
    assert_eq!(request(port, "GET", "/-/ready", &[], b"").unwrap().status, 200);
    std::fs::remove_file(&ballast).unwrap();
    wait_for("samples to be taken", || {
        (write(port, "kept", 50, 1, now + 1).status == 204).then_some(())
    });
    assert_eq!(write(port, "even_more", 30_000, 1, now).status, 204);
    assert_eq!(instant(port, "count(even_more)")[0]["value"][1], "30000");
    let log = server.log();
    assert!(log.contains("Samples are taken again after the disk was full."), "{log}");
    assert!(server.process.is_running() && !log.contains("until it is restarted"), "{log}");
}

/// Names of series of a metric that have a sample of that moment.
fn at(port: u16, expr: &str, at_ms: i64) -> Vec<String> {
    let answer = query(port, &format!("timestamp({expr})"), at_ms).json();
    let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let fresh = |own: &&serde_json::Value| {
        let seconds: f64 = own["value"][1].as_str().unwrap().parse().unwrap();
        (seconds * 1000.0).round() as i64 == at_ms
    };
    let mut names: Vec<_> =
        result.iter().filter(fresh).map(|own| own["metric"].to_string()).collect();
    names.sort();
    names
}

fn otlp(port: u16, points: &[&str], at_ms: i64) -> Answer {
    let points: Vec<_> = points
        .iter()
        .map(|name| {
            let attributes = json!([{"key": "k", "value": {"stringValue": name}}]);
            json!({"timeUnixNano": at_ms * 1_000_000, "asInt": 1, "attributes": attributes})
        })
        .collect();
    let metric = json!({"name": "otlp", "gauge": {"dataPoints": points}});
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]});
    post_json(port, "/api/v1/otlp/v1/metrics", &body)
}

#[test]
fn at_a_limit_known_series_go_on_and_new_ones_are_refused_by_every_way_in() {
    let target = HttpReceiver::start("text/plain; version=0.0.4", "scraped 1\n");
    let folder = tempfile::tempdir().unwrap();
    // The target's own series are `scraped`, `up` and four more.
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         storage: {{limits: {{active_series: 12, jobs: {{}}}}}}\n\
         scrape_configs:\n\
         - job_name: one\n  static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
        target.port
    );
    let server = Server::start(folder.path(), &config, &FLAGS);
    let port = server.port;
    wait_for("a scrape", || {
        let found = instant(port, "count({job='one'})");
        (found[0]["value"][1] == "6").then_some(())
    });
    let now = now_ms();
    let text = |answer: &Answer, samples: u64, example: &str| {
        assert_eq!(answer.status, 400, "{}", answer.body);
        let expected = format!(
            "limit of active series reached: {samples} samples of {samples} new series were not \
             stored, for example of {example}"
        );
        assert!(answer.body.contains(&expected), "{} instead of {expected}", answer.body);
    };
    assert_eq!(send_samples(&server, &["two_a", "two_b"], now - 5_000, 1.0).status, 204);
    assert_eq!(otlp(port, &["a"], now - 5_000).status, 200);
    assert_eq!(write(port, "one", 2, 1, now - 5_000).status, 204);
    // One more series may be.
    text(&write(port, "one", 5, 1, now - 4_000), 2, "{__name__=\"one\", i=\"3\"}");
    assert_eq!(at(port, "one", now - 4_000).len(), 3);
    text(
        &send_samples(&server, &["two_a", "two_b", "two_c"], now - 3_000, 1.0),
        1,
        "{__name__=\"two_c\"}",
    );
    let counts = ["two_a", "two_b", "two_c"].map(|name| at(port, name, now - 3_000).len());
    assert_eq!(counts, [1, 1, 0]);
    text(&otlp(port, &["a", "b", "c"], now - 2_000), 2, "{__name__=\"otlp\", k=\"b\"}");
    assert_eq!(at(port, "otlp", now - 2_000).len(), 1);
    // Scrapes of known series go on.
    let newest = || instant(port, "timestamp(scraped)")[0]["value"][1].as_str().map(str::to_owned);
    let before = newest();
    wait_for("another scrape", || (newest() != before).then_some(()));
    assert_eq!(instant(port, "up")[0]["value"][1], "1");
}
