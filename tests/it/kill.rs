//! `kill -9` under load at random moments, with scrapes and rules at work: what was acknowledged is
//! there afterwards. And what the system sees of it: no answer before the sync has returned.
#![expect(clippy::disallowed_methods, reason = "watches a real process")]

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use narthex::base::rng::{Rng, SimRng};

use crate::process::{PATIENCE, SeriesToWrite, Server, instant, now_ms, remote_write};

const ROUNDS: usize = 200;
/// Writers that send at the same time, each its own series.
const WRITERS: usize = 3;
const SERIES_PER_WRITER: usize = 20;
/// How far apart the rows of a writer are. They start an hour ago and must end before they reach
/// the ten minutes of future that remote write refuses, however fast the machine is.
const ROW_INTERVAL_MS: i64 = 10;
/// Each round acknowledges fewer rows than this before the kill comes.
const ROWS_UNTIL_KILL: u64 = 12;

/// Writes rows with the values 0, 1, 2 … until told to stop; keeps the newest
/// acknowledged one.
fn write_rows(port: u16, writer: usize, start_ms: i64, next: &AtomicI64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let row = next.load(Ordering::Relaxed);
        let series: Vec<_> = (0..SERIES_PER_WRITER)
            .map(|index| SeriesToWrite {
                labels: vec![
                    ("__name__", "kept_total".to_owned()),
                    ("series", index.to_string()),
                    ("writer", writer.to_string()),
                ],
                samples: vec![(start_ms + row * ROW_INTERVAL_MS, row as f64)],
            })
            .collect();
        match remote_write(port, &series) {
            Some(answer) => {
                assert_eq!(answer.status, 204, "{}", answer.body);
                next.store(row + 1, Ordering::Relaxed);
            }
            // Killed meanwhile; the row may or may not be there and is sent again.
            None => return,
        }
    }
}

fn assert_all_there(server: &Server, start_ms: i64, acknowledged: &[AtomicI64]) {
    for (writer, next) in acknowledged.iter().enumerate() {
        let rows = next.load(Ordering::Relaxed);
        if rows == 0 {
            continue;
        }
        // Rows count up from 0: none is missing when there are so many, the newest is the last
        // acknowledged one and the sum is right.
        let at = (start_ms + (rows - 1) * ROW_INTERVAL_MS) as f64 / 1000.0;
        let range =
            format!("kept_total{{writer=\"{writer}\"}}[{}ms] @ {at}", rows * ROW_INTERVAL_MS);
        let query = format!(
            "count_over_time({range}) + 0 * sum_over_time({range}) == {rows} \
             and last_over_time({range}) == {} and sum_over_time({range}) == {}",
            rows - 1,
            rows * (rows - 1) / 2
        );
        let found = instant(server.port, &query);
        assert_eq!(found.as_array().unwrap().len(), SERIES_PER_WRITER, "{query}\n{}", server.log());
    }
}

/// Scrapes of itself and a rule over what is written keep the store busy beside the writers.
fn configuration(port: u16) -> String {
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules.yml]\n\
         scrape_configs:\n\
         - job_name: self\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
    )
}

const RULES: &str = "groups:\n- name: busy\n  interval: 1s\n  rules:\n  \
    - {record: 'kept:sum', expr: sum by (writer) (kept_total)}\n  \
    - {alert: Busy, expr: up == 0, for: 1m}\n";

#[test]
fn acknowledged_samples_survive_two_hundred_kills() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yml"), RULES).unwrap();
    let arguments = ["--web.enable-remote-write-receiver"];
    let mut server = Server::start(folder.path(), "global: {}\n", &arguments);
    // The port is known now; the configuration is read at each of the restarts.
    std::fs::write(folder.path().join("narthex.yml"), configuration(server.port)).unwrap();
    let rng = SimRng::new(now_ms() as u64);
    let start_ms = now_ms() / 1000 * 1000 - 3_600_000;
    let acknowledged: Vec<AtomicI64> = (0..WRITERS).map(|_| AtomicI64::new(0)).collect();
    let mut restarts = Vec::new();
    for _ in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writer, next) in acknowledged.iter().enumerate() {
                let (port, stop) = (server.port, &stop);
                scope.spawn(move || write_rows(port, writer, start_ms, next, stop));
            }
            wait_for_rows(
                sum(&acknowledged) + 1 + (rng.next_u64() % ROWS_UNTIL_KILL) as i64,
                || sum(&acknowledged),
            );
            // Anywhere between two answers.
            std::thread::sleep(Duration::from_micros(rng.next_u64() % 3_000));
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        restarts.push(server.start_again());
        assert_all_there(&server, start_ms, &acknowledged);
    }
    restarts.sort();
    let (median, slowest) = (restarts[ROUNDS / 2], restarts[ROUNDS - 1]);
    let rows = sum(&acknowledged);
    println!(
        "{rows} rows acknowledged over {ROUNDS} kills; restarts: median {median:?}, slowest {slowest:?}"
    );
}

fn sum(acknowledged: &[AtomicI64]) -> i64 {
    acknowledged.iter().map(|next| next.load(Ordering::Relaxed)).sum()
}

/// Waits until `rows` are acknowledged; as long as a slow device needs.
fn wait_for_rows(rows: i64, acknowledged: impl Fn() -> i64) {
    let begun = Instant::now();
    while acknowledged() < rows {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {rows} rows");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What a trace of system calls tells, line by line.
#[derive(Default)]
struct Trace {
    /// Frames written to log files so far.
    written: usize,
    /// Frames that a sync has covered which returned.
    durable: usize,
    /// Frames written before the sync that a thread is in began.
    under_way: HashMap<String, usize>,
    answers: usize,
}

impl Trace {
    fn line(&mut self, line: &str) {
        let (thread, call) = line.split_once(' ').unwrap_or((line, ""));
        let call = call.trim_start();
        if call.starts_with("pwrite64(") && call.contains("/wal/") {
            self.written += 1;
        } else if call.starts_with("fdatasync(") && call.contains("/wal/") {
            self.under_way.insert(thread.to_owned(), self.written);
        }
        let is_sync = call.starts_with("fdatasync(") || call.contains("fdatasync resumed>");
        if is_sync
            && call.ends_with("= 0")
            && let Some(covered) = self.under_way.remove(thread)
        {
            self.durable = self.durable.max(covered);
        }
        if call.contains("HTTP/1.1 204") {
            self.answers += 1;
            let (durable, written) = (self.durable, self.written);
            assert_eq!(durable, written, "answer {} before its sync: {line}", self.answers);
        }
    }
}

/// One sender that waits for each answer: when it goes out, all that was written is synced.
#[test]
fn no_answer_leaves_before_the_sync_has_returned() {
    let traced = |command: &mut Command| {
        command.args(["true"]).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    let works = traced(Command::new("strace").args(["-o", "/dev/null"]));
    if !works.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("NARTHEX_REQUIRE_STRACE").is_none(), "strace does not work here");
        eprintln!("skipped: strace is not installed or may not trace");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--web.enable-remote-write-receiver"];
    let mut server = Server::start(folder.path(), "global: {}\n", &arguments);
    server.kill();
    let trace = folder.path().join("trace");
    server.start_traced(&trace);
    let (stop, next) = (AtomicBool::new(false), AtomicI64::new(0));
    let start_ms = now_ms() - 3_600_000;
    std::thread::scope(|scope| {
        scope.spawn(|| write_rows(server.port, 0, start_ms, &next, &stop));
        wait_for_rows(30, || next.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
    });
    server.kill();
    let mut seen = Trace::default();
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        seen.line(line);
    }
    // The last lines may still be on their way when the server is dead.
    assert!(20 <= seen.answers && 20 <= seen.written, "{} answers", seen.answers);
}

#[test]
fn a_trace_with_an_early_answer_is_refused() {
    let good = "1 pwrite64(9</d/wal/1.log>, \"\", 5, 40) = 5\n\
        2 fdatasync(9</d/wal/1.log> <unfinished ...>\n\
        2 <... fdatasync resumed>) = 0\n\
        3 sendto(12<socket:[1]>, \"HTTP/1.1 204 No Content\", 23, 0) = 23";
    let check = |lines: &[&str]| {
        let mut trace = Trace::default();
        for line in lines {
            trace.line(line);
        }
    };
    let lines: Vec<_> = good.lines().collect();
    check(&lines);
    for missing in 1..3 {
        let mut lines = lines.clone();
        lines.remove(missing);
        assert!(std::panic::catch_unwind(|| check(&lines)).is_err(), "without line {missing}");
    }
}
