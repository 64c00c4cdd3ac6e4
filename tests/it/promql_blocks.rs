//! Results are the same, bit for bit, with any number of threads and wherever the samples are.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use narthex::base::clock::SimClock;
use narthex::base::disk::SimDisk;
use narthex::base::metrics::Registry;
use narthex::base::rng::SimRng;
use narthex::model::labels::Labels;
use narthex::model::sample::stale_nan;
use narthex::promql::engine::{Engine, EngineOptions, Query, Value};
use narthex::promql::parser::ParserOptions;
use narthex::storage::Storage;
use narthex::storage::append::{Appender as _, OnReject, SeriesKey};
use narthex::storage::options::{Limits, Options, Retention, WalSync};

const START_MS: i64 = 1_767_225_600_000;
const STEP_MS: i64 = 15_000;
const ROWS: i64 = 40;
/// Several blocks, the last one not full.
const SERIES: usize = 600;

const QUERIES: [&str; 16] = [
    "sum(rate(requests_total[1m]))",
    "sum by (job) (rate(requests_total[1m]))",
    "avg by (job) (increase(requests_total[2m]))",
    "avg(requests_total * 1e300)",
    "stddev by (job) (requests_total)",
    "stdvar(delta(requests_total[1m]))",
    "min by (odd) (requests_total)",
    "max(requests_total)",
    "count by (job, odd) (requests_total > 100)",
    "group by (job) (requests_total)",
    "quantile(0.9, requests_total)",
    "topk(3, rate(requests_total[1m]))",
    "sum(clamp_max(rate(requests_total[1m]), scalar(count(requests_total)) / 1000))",
    "requests_total",
    "sum(avg_over_time(requests_total[1m])) / sum(count_over_time(requests_total[1m]))",
    "sum by (job) (quantile_over_time(0.5, requests_total[1m])) + sum by (job) (requests_total)",
];

fn storage(clock: &Arc<SimClock>) -> Arc<Storage> {
    let options = Options {
        path: PathBuf::from("/data"),
        retention: Retention::default(),
        limits: Limits::default(),
        reserve_bytes_max: 16 << 10,
        out_of_order_window_ms: Arc::new(AtomicI64::new(2 * 3_600_000)),
        wal_sync: WalSync::Never,
        log_file_bytes_max: 16 << 20,
        log_file_age_max_ms: 24 * 3_600_000,
        future_ms_max: 10 * 60_000,
        start_timestamps: narthex::storage::options::StartTimestamps::default(),
    };
    let (disk, rng) = (Arc::new(SimDisk::new(1)), Arc::new(SimRng::new(1)));
    Storage::open(disk, clock.clone(), rng, &Registry::new(), options).unwrap()
}

fn labels(number: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "requests_total".to_owned()),
        ("instance", format!("host-{}", number % 11)),
        ("job", format!("job-{}", number % 5)),
        ("odd", if number.is_multiple_of(13) { "yes".to_owned() } else { String::new() }),
        ("path", format!("/{number}")),
    ])
}

/// Counters that are reset now and then; among the odd ones all that a float can be, and gaps.
fn value(number: usize, row: i64) -> Option<f64> {
    let row = row.unsigned_abs();
    let plain = ((number as u64 * 7919 + row * (number as u64 % 17)) % 9973) as f64 / 8.0;
    if !number.is_multiple_of(13) {
        return Some(plain);
    }
    match (number as u64 / 13 + row) % 11 {
        0 => Some(f64::NAN),
        1 => Some(f64::INFINITY),
        2 => Some(-plain),
        3 => Some(stale_nan()),
        4 => None,
        5 => Some(f64::MAX),
        _ => Some(plain * 1e-9),
    }
}

fn append(storage: &Storage, labels: &[Labels], rows: std::ops::Range<i64>) {
    for row in rows {
        let mut batch = storage.appender(OnReject::Abort);
        for (number, own) in labels.iter().enumerate() {
            if let Some(value) = value(number, row) {
                let at_ms = START_MS + row * STEP_MS + (number % 11) as i64;
                batch.float(SeriesKey::Labels(own), at_ms, value);
            }
        }
        batch.commit().unwrap();
    }
}

fn engine(storage: &Arc<Storage>, clock: &Arc<SimClock>, helper_threads: usize) -> Engine {
    let options = EngineOptions {
        lookback_delta_ms: 300_000,
        max_samples: 50_000_000,
        max_bytes: 1 << 30,
        timeout: Duration::from_mins(2),
        max_concurrency: 20,
        helper_threads,
        default_subquery_step_ms: Arc::new(AtomicI64::new(60_000)),
        parser: ParserOptions::ALL,
        delayed_name_removal: false,
        type_and_unit_labels: false,
        use_start_timestamps: false,
    };
    Engine::new(storage.clone(), clock.clone(), &Registry::new(), options)
}

/// Each value by its bits.
fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Matrix(series) => {
            for one in series {
                let points = one.points.iter();
                let points: Vec<_> =
                    points.map(|(at, value)| format!("{at}={:x}", value.to_bits())).collect();
                let _ = writeln!(out, "{} {}", one.labels, points.join(" "));
            }
        }
        Value::Vector(samples) => {
            for one in samples {
                let _ = writeln!(out, "{} {:x}", one.labels, one.value.to_bits());
            }
        }
        other => panic!("neither matrix nor vector: {other:?}"),
    }
    out
}

fn results(engine: &Engine) -> Vec<String> {
    let end_ms = START_MS + ROWS * STEP_MS;
    let mut all = Vec::new();
    for query in QUERIES {
        let query = Query::new(query);
        let range = engine.range(&query, START_MS + 45_000, end_ms, 3 * STEP_MS).unwrap();
        assert!(range.stats.total_samples > 0);
        all.push(format!("{}{} samples", text(&range.value), range.stats.total_samples));
        all.push(text(&engine.instant(&query, end_ms - 30_000).unwrap().value));
    }
    all
}

#[test]
fn results_depend_neither_on_threads_nor_on_places() {
    let clock = Arc::new(SimClock::new(START_MS + ROWS * STEP_MS));
    let all: Vec<Labels> = (0..SERIES).map(labels).collect();
    let store = storage(&clock);
    append(&store, &all, 0..ROWS);
    let expected = results(&engine(&store, &clock, 0));
    assert!(expected.iter().all(|result| !result.is_empty()));
    let check = |store: &Arc<Storage>, place: &str| {
        for helpers in [0, 1, 7] {
            let found = results(&engine(store, &clock, helpers));
            for ((found, expected), number) in found.iter().zip(&expected).zip(0..) {
                let query = QUERIES[number / 2];
                assert!(found == expected, "{query} with {helpers} helpers, {place}");
            }
        }
    };
    check(&store, "in the open log file");
    store.seal_now().unwrap();
    check(&store, "sealed");
    let halves = storage(&clock);
    append(&halves, &all, 0..ROWS / 2);
    halves.seal_now().unwrap();
    append(&halves, &all, ROWS / 2..ROWS);
    check(&halves, "half sealed");
}

#[test]
fn too_much_memory_is_refused_with_the_reason() {
    let clock = Arc::new(SimClock::new(START_MS + ROWS * STEP_MS));
    let all: Vec<Labels> = (0..SERIES).map(labels).collect();
    let store = storage(&clock);
    append(&store, &all, 0..4);
    let options = |max_bytes| EngineOptions {
        lookback_delta_ms: 300_000,
        max_samples: 50_000_000,
        max_bytes,
        timeout: Duration::from_mins(2),
        max_concurrency: 20,
        helper_threads: 1,
        default_subquery_step_ms: Arc::new(AtomicI64::new(60_000)),
        parser: ParserOptions::ALL,
        delayed_name_removal: false,
        type_and_unit_labels: false,
        use_start_timestamps: false,
    };
    let run = |text: &str, max_bytes: u64| {
        let metrics = Registry::new();
        let engine = Engine::new(store.clone(), clock.clone(), &metrics, options(max_bytes));
        let found = engine.range(&Query::new(text), START_MS, START_MS + 60_000_000, STEP_MS);
        found.map(|_| ()).map_err(|err| err.to_string())
    };
    let error = run("requests_total", 4 << 20).unwrap_err();
    assert!(error.starts_with("query would take more memory than it may: it holds "), "{error}");
    assert!(error.ends_with("; the limit is 4194304 (--query.max-bytes)"), "{error}");
    assert_eq!(run("sum(requests_total)", 4 << 20), Ok(()), "folded as they come");
    assert_eq!(run("requests_total", 1 << 30), Ok(()));
}
