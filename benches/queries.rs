//! Speed of queries against a store in a temporary folder.
//!
//! `cargo bench --bench queries [filter] [--threads N] [--only TEXT]` prints the best times; with
//! `--only` of queries whose place and text (`sealed sum by`) have that in them. `rate` has the shape of
//! Thanos' engine benchmarks: 3,000 series, a sample every 30 s, 241 steps; `large` the same with
//! 100,000 series and a fifth of the steps; `index` has a million series, and tells by how much
//! anonymous memory grows while a query runs.
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use narthex::base::clock::SimClock;
use narthex::base::disk::OsDisk;
use narthex::base::metrics::Registry;
use narthex::base::rng::SimRng;
use narthex::model::labels::Labels;
use narthex::model::matcher::{MatchOp, Matcher};
use narthex::model::sample::TimeRange;
use narthex::promql::engine::{Engine, EngineOptions, Query, Value};
use narthex::promql::parser::ParserOptions;
use narthex::storage::Storage;
use narthex::storage::append::{Appender as _, OnReject, SeriesKey};
use narthex::storage::options::{Limits, Options, Retention, WalSync};
use narthex::storage::select::{Select as _, SelectHints};

const START_MS: i64 = 1_767_225_600_000;
const STEP_MS: i64 = 30_000;
/// Series that are scraped together.
const TARGET: usize = 100;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut filter, mut only, mut threads) = (String::new(), String::new(), 1);
    while let Some(arg) = args.next() {
        if arg == "--threads" {
            threads = args.next().and_then(|count| count.parse().ok()).unwrap_or(1);
        } else if arg == "--only" {
            only = args.next().unwrap_or_default();
        } else {
            filter = arg;
        }
    }
    if "rate".contains(&filter) {
        rate(3_000, 241, threads, &only);
    }
    if "large".contains(&filter) {
        rate(100_000, 48, threads, &only);
    }
    if "index".contains(&filter) {
        index();
    }
}

struct Room {
    storage: Arc<Storage>,
    clock: Arc<SimClock>,
    _folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Arc::new(SimClock::new(START_MS + 1000 * STEP_MS));
        let options = Options {
            path: folder.path().join("data"),
            retention: Retention::default(),
            limits: Limits::default(),
            reserve_bytes_max: 16 << 10,
            out_of_order_window_ms: Arc::new(AtomicI64::new(2 * 3_600_000)),
            wal_sync: WalSync::Never,
            log_file_bytes_max: 128 << 20,
            log_file_age_max_ms: 24 * 3_600_000,
            future_ms_max: 10 * 60_000,
            start_timestamps: narthex::storage::options::StartTimestamps::default(),
        };
        let rng = Arc::new(SimRng::new(7));
        let own = clock.clone();
        let storage = Storage::open(Arc::new(OsDisk), own, rng, &Registry::new(), options);
        Self { storage: storage.expect("an empty folder"), clock, _folder: folder }
    }

    fn append<'a>(&self, samples: impl Iterator<Item = (&'a Labels, i64, f64)>) {
        let mut batch = self.storage.appender(OnReject::Abort);
        for (labels, timestamp_ms, value) in samples {
            batch.float(SeriesKey::Labels(labels), timestamp_ms, value);
        }
        batch.commit().expect("samples in order");
    }

    fn engine(&self, threads: usize) -> Engine {
        let options = EngineOptions {
            lookback_delta_ms: 300_000,
            max_samples: 500_000_000,
            max_bytes: 1 << 30,
            timeout: Duration::from_mins(10),
            max_concurrency: 20,
            helper_threads: threads - 1,
            default_subquery_step_ms: Arc::new(AtomicI64::new(60_000)),
            parser: ParserOptions::ALL,
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
        };
        let storage = Arc::clone(&self.storage);
        Engine::new(storage, self.clock.clone(), &Registry::new(), options)
    }
}

/// The best time of one call, as the machine may have other work; the first is not counted.
fn best(mut call: impl FnMut()) -> Duration {
    call();
    let mut best = Duration::MAX;
    let (mut count, began) = (0, Instant::now());
    while count < 5 || count < 3000 && began.elapsed() < Duration::from_secs(3) {
        let now = Instant::now();
        call();
        best = best.min(now.elapsed());
        count += 1;
    }
    best
}

fn rate(series: usize, steps: i64, threads: usize, only: &str) {
    let room = Room::new();
    let labels: Vec<Labels> = (0..series)
        .map(|number| {
            Labels::from_pairs([
                ("__name__", "requests_total".to_owned()),
                ("instance", format!("host-{}:9100", number / TARGET)),
                ("job", format!("job-{}", number % 7)),
                ("path", format!("/api/v1/{number}")),
            ])
        })
        .collect();
    let mut values = vec![0.0; series];
    // Enough for the window of the first step.
    for row in -20..steps {
        for (number, value) in values.iter_mut().enumerate() {
            let hash = (number as u64 + 1).wrapping_mul(row.unsigned_abs() + 1) % 97;
            *value += if hash < 60 { hash as f64 } else { 0.0 };
        }
        for (target, own) in labels.chunks(TARGET).enumerate() {
            let at_ms = START_MS + row * STEP_MS + target as i64 * 13;
            let values = &values[target * TARGET..];
            room.append(own.iter().zip(values).map(|(labels, value)| (labels, at_ms, *value)));
        }
    }
    let engine = room.engine(threads);
    let end_ms = START_MS + (steps - 1) * STEP_MS;
    for place in ["head", "sealed"] {
        if place == "sealed" {
            room.storage.seal_now().expect("seal");
        }
        let is_wanted = |text: &&str| format!("{place} {text}").contains(only);
        for text in [
            "sum by (job) (rate(requests_total[5m]))",
            "sum(rate(requests_total[5m]))",
            "max by (job) (requests_total)",
            "rate(requests_total[5m])",
            "topk(5, rate(requests_total[5m]))",
            "sum by (job) (avg_over_time(requests_total[5m]))",
        ]
        .into_iter()
        .filter(is_wanted)
        {
            let query = Query::new(text);
            let time = best(|| {
                let output = engine.range(&query, START_MS, end_ms, STEP_MS).expect("a result");
                assert!(matches!(&output.value, Value::Matrix(series) if !series.is_empty()));
                black_box(output);
            });
            let each = time.as_nanos() as f64 / (series as f64 * steps as f64);
            println!("{place:8} {text:52} {time:>12.3?} {each:>8.2} ns per series and step");
        }
        for text in [
            "count(requests_total)",
            "sum by (job) (rate(requests_total[5m]))",
            "topk(10, requests_total)",
            r#"sum(requests_total{instance=~"host-[01]:.*"})"#,
            r#"topk(10, requests_total{instance=~"host-[01]:.*"})"#,
        ]
        .into_iter()
        .filter(|text| is_wanted(&&*format!("instant {text}")))
        {
            let query = Query::new(text);
            let time = best(|| {
                black_box(engine.instant(&query, end_ms).expect("a result"));
            });
            println!("{place:8} {text:52} {time:>12.3?} instant");
        }
    }
}

/// How long a call takes, and by how much anonymous memory grows meanwhile, looked at every
/// millisecond.
fn growth(call: &mut dyn FnMut()) -> String {
    let anonymous_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        number.unwrap_or(0_u64)
    };
    let (before, is_done) = (anonymous_kib(), AtomicBool::new(false));
    let began = Instant::now();
    let (most, took) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = before;
            while !is_done.load(Ordering::Relaxed) {
                most = most.max(anonymous_kib());
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        call();
        let took = began.elapsed();
        is_done.store(true, Ordering::Relaxed);
        (watch.join().expect("the watch ends"), took)
    });
    format!("{took:.3?}, anonymous memory +{} MiB", (most - before) / 1024)
}

fn index() {
    let room = Room::new();
    let began = Instant::now();
    for host in 0..100_000 {
        let labels = ["a", "b", "c", "d", "e", "x", "f", "g", "h", "i"].map(|job| {
            Labels::from_pairs([
                ("__name__", "up".to_owned()),
                ("instance", format!("host-{host}")),
                ("job", job.to_owned()),
            ])
        });
        room.append(labels.iter().map(|labels| (labels, START_MS, 1.0)));
    }
    println!("1,000,000 series appended in {:?}", began.elapsed());
    let range = TimeRange { min_ms: START_MS - 1, max_ms: START_MS + 1 };
    let matchers = [
        Matcher::equal("job", "x"),
        Matcher::new(MatchOp::Regex, "instance", "host-1.*").expect("an expression"),
    ];
    for place in ["head", "sealed"] {
        if place == "sealed" {
            room.storage.seal_now().expect("seal");
        }
        let counted = SelectHints { labels_only: true, ..SelectHints::default() };
        for (what, hints) in [("select", SelectHints::default()), ("match", counted)] {
            let time = best(|| {
                let found = room.storage.select(&matchers, range, &hints).expect("found");
                assert_eq!(black_box(found.len()), 11_111);
            });
            println!(r#"{place:8} {what} {{job="x",instance=~"host-1.*"}} {time:>12.3?}"#);
        }
        let time = best(|| {
            let found = room.storage.label_values("instance", &[], range).expect("found");
            assert_eq!(black_box(found.len()), 100_000);
        });
        println!("{place:8} label values of `instance` {time:>12.3?}");
        let engine = room.engine(1);
        for text in [
            r#"count({job="x",instance=~"host-1.*"})"#,
            "count by (__name__) (up)",
            r#"count by (__name__) ({__name__=~".+"})"#,
        ] {
            let query = Query::new(text);
            let mut ask = || {
                black_box(engine.instant(&query, START_MS).expect("a result"));
            };
            let grown = growth(&mut ask);
            let time = best(ask);
            println!("{place:8} {text} {time:>12.3?}, first {grown}");
        }
    }
}
