//! Speed of the store on real files: appending, sealing, merging, opening.
//!
//! `cargo bench --bench storage [filter]` prints for each case what one sample (or series) costs in
//! wall-clock and in CPU time of the whole process, threads of the store included. `BENCH_SERIES`
//! is how many series the larger cases have. Appends do not wait for the disk.
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use narthex::base::clock::SimClock;
use narthex::base::disk::OsDisk;
use narthex::base::metrics::Registry;
use narthex::base::rng::SimRng;
use narthex::model::histogram::{Histogram, Span};
use narthex::model::labels::Labels;
use narthex::model::matcher::Matcher;
use narthex::model::sample::TimeRange;
use narthex::storage::Storage;
use narthex::storage::append::{Appender, OnReject, SeriesKey};
use narthex::storage::options::{Limits, Options, Retention, WalSync};
use narthex::storage::select::{Select, SelectHints};

const START_MS: i64 = 1_767_225_600_000;
const SCRAPE_MS: i64 = 15_000;
/// Series of one target.
const TARGET_SERIES: usize = 1_000;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| arg != "--bench").unwrap_or_default();
    let series = std::env::var("BENCH_SERIES").ok().and_then(|text| text.parse().ok());
    let series = series.unwrap_or(100_000);
    println!("{:44} {:>10} {:>10} {:>10}", "", "count", "wall ns", "CPU ns");
    for (name, case) in CASES.iter().filter(|(name, _)| name.contains(&filter)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        case(name, folder.path(), series);
    }
}

type Case = fn(&str, &Path, usize);

const CASES: &[(&str, Case)] = &[
    ("append, new series", append_new_series),
    ("append, known series", append_known_series),
    ("append, churn", append_churn),
    ("append, histograms", append_histograms),
    ("append, each series its own timestamps", append_own_timestamps),
    ("seal and merge", seal_and_merge),
    ("open", open_again),
];

fn open(folder: &Path) -> (Arc<Storage>, Arc<SimClock>) {
    let options = Options {
        path: folder.to_owned(),
        retention: Retention::default(),
        limits: Limits::default(),
        reserve_bytes_max: 0,
        out_of_order_window_ms: Arc::new(AtomicI64::new(2 * 3_600_000)),
        wal_sync: WalSync::Batch,
        log_file_bytes_max: 128 << 20,
        log_file_age_max_ms: 30 * 60_000,
        future_ms_max: 10 * 60_000,
        start_timestamps: narthex::storage::options::StartTimestamps::default(),
    };
    let clock = Arc::new(SimClock::new(START_MS));
    let rng = Arc::new(SimRng::new(1));
    let storage = Storage::open(Arc::new(OsDisk), clock.clone(), rng, &Registry::new(), options);
    (storage.expect("the store opens"), clock)
}

/// CPU time that this process has used.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = |text: &str| text.split(' ').next()?.parse().ok();
    let own = |entry: std::io::Result<std::fs::DirEntry>| {
        nanos(&std::fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?)
    };
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Duration::from_nanos(nanos(&stat).unwrap_or(0));
    };
    Duration::from_nanos(threads.filter_map(own).sum())
}

/// Runs `work`, which answers with how many things it did.
fn measure(name: &str, work: impl FnOnce() -> usize) {
    let (started, cpu_before) = (Instant::now(), cpu());
    let count = work();
    let (wall, used) = (started.elapsed(), cpu().saturating_sub(cpu_before));
    let each = |time: Duration| time.as_nanos() as f64 / count.max(1) as f64;
    println!("{name:44} {count:>10} {:>10.1} {:>10.1}", each(wall), each(used));
}

/// Series as exporters have them: a dozen labels or less, most of them the target's.
fn labels(target: usize, series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("node_metric_{}_total", series / 8)),
        ("cluster", "production-eu-1".to_owned()),
        ("device", format!("disk{}", series % 8)),
        ("instance", format!("host-{target}.example.com:9100")),
        ("job", "node".to_owned()),
    ])
}

fn targets(series: usize) -> Vec<Vec<Labels>> {
    let target = |target| (0..TARGET_SERIES).map(|own| labels(target, own)).collect();
    (0..series.div_ceil(TARGET_SERIES)).map(target).collect()
}

/// One scrape of each target; every third value stands still.
fn scrape(storage: &Storage, clock: &SimClock, targets: &[Vec<Labels>], round: usize) -> usize {
    clock.advance_ms(SCRAPE_MS);
    let now_ms = START_MS + (round as i64 + 1) * SCRAPE_MS;
    for (number, target) in targets.iter().enumerate() {
        let mut batch = storage.appender(OnReject::Skip);
        for (at, labels) in target.iter().enumerate() {
            let value = if at % 3 == 0 { at } else { at * round };
            batch.float(SeriesKey::Labels(labels), now_ms + number as i64 % 100, value as f64);
        }
        batch.commit().expect("the disk takes it");
    }
    targets.iter().map(Vec::len).sum()
}

fn append_new_series(name: &str, folder: &Path, series: usize) {
    let (storage, clock) = open(folder);
    let targets = targets(series);
    measure(name, || scrape(&storage, &clock, &targets, 0));
}

fn append_known_series(name: &str, folder: &Path, series: usize) {
    let (storage, clock) = open(folder);
    let targets = targets(series.min(100_000));
    scrape(&storage, &clock, &targets, 0);
    measure(name, || (1..40).map(|round| scrape(&storage, &clock, &targets, round)).sum());
}

/// A fifth of the targets is replaced before each round.
fn append_churn(name: &str, folder: &Path, series: usize) {
    let (storage, clock) = open(folder);
    let mut targets = targets(series.min(100_000));
    let mut next = targets.len();
    let replaced = targets.len().div_ceil(5);
    scrape(&storage, &clock, &targets, 0);
    measure(name, || {
        let mut count = 0;
        for round in 1..11 {
            for target in 0..replaced {
                let at = (round * replaced + target) % targets.len();
                targets[at] = (0..TARGET_SERIES).map(|own| labels(next, own)).collect();
                next += 1;
            }
            count += scrape(&storage, &clock, &targets, round);
        }
        count
    });
}

fn append_histograms(name: &str, folder: &Path, series: usize) {
    let (storage, clock) = open(folder);
    let targets = targets(series.min(10_000));
    let round = |round: usize| {
        clock.advance_ms(SCRAPE_MS);
        let now_ms = START_MS + (round as i64 + 1) * SCRAPE_MS;
        let counts = (0..20).map(|bucket| (round * (bucket % 4 + 1)) as f64);
        let histogram = Histogram {
            schema: 3,
            zero_threshold: 1e-128,
            count: counts.clone().sum(),
            sum: round as f64,
            positive_spans: vec![Span { offset: -5, length: 20 }],
            positive_buckets: counts.collect(),
            ..Histogram::default()
        };
        for target in &targets {
            let mut batch = storage.appender(OnReject::Skip);
            for labels in target {
                batch.histogram(SeriesKey::Labels(labels), now_ms, &histogram);
            }
            batch.commit().expect("the disk takes it");
        }
        targets.iter().map(Vec::len).sum::<usize>()
    };
    round(0);
    measure(name, || (1..20).map(round).sum());
}

fn append_own_timestamps(name: &str, folder: &Path, series: usize) {
    let (storage, clock) = open(folder);
    let targets = targets(series.min(100_000));
    let round = |round: usize| {
        clock.advance_ms(SCRAPE_MS);
        let now_ms = START_MS + round as i64 * SCRAPE_MS;
        let mut number = 0;
        for target in &targets {
            let mut batch = storage.appender(OnReject::Skip);
            for labels in target {
                let timestamp_ms = now_ms + number * 7_919 % SCRAPE_MS;
                batch.float(SeriesKey::Labels(labels), timestamp_ms, round as f64);
                number += 1;
            }
            batch.commit().expect("the disk takes it");
        }
        number as usize
    };
    round(0);
    measure(name, || (1..20).map(round).sum());
}

fn seal_and_merge(name: &str, folder: &Path, series: usize) {
    let (storage, clock) = open(folder);
    let targets = targets(series.min(100_000));
    let mut samples = 0;
    for part in 0..4 {
        let rounds = part * 20..(part + 1) * 20;
        let own: usize = rounds.map(|round| scrape(&storage, &clock, &targets, round)).sum();
        samples += own;
        measure(&format!("{name}: seal"), || {
            storage.seal_now().expect("a segment is written");
            own
        });
    }
    measure(&format!("{name}: merge"), || {
        storage.compact_now().expect("segments are merged");
        samples
    });
    let bytes: u64 = files(folder).iter().sum();
    println!("{:44} {:>10.3} bytes per sample", name, bytes as f64 / samples as f64);
}

fn files(folder: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(own) if own.is_dir() => found.extend(files(&entry.path())),
            Ok(own) => found.push(own.len()),
            Err(_) => {}
        }
    }
    found
}

/// A part of the rows is sealed, a part in the open log file.
fn open_again(name: &str, folder: &Path, series: usize) {
    let (storage, clock) = open(folder);
    let targets = targets(series);
    scrape(&storage, &clock, &targets, 0);
    storage.seal_now().expect("a segment is written");
    for round in 1..4 {
        scrape(&storage, &clock, &targets, round);
    }
    drop(storage);
    let matchers = [
        Matcher::equal("__name__", "node_metric_3_total"),
        Matcher::equal("instance", "host-7.example.com:9100"),
    ];
    measure(&format!("{name}, first query"), || {
        let (storage, _) = open(folder);
        let range = TimeRange { min_ms: START_MS, max_ms: START_MS + 10 * SCRAPE_MS };
        let found = storage.select(&matchers, range, &SelectHints::default()).expect("an answer");
        let count = found.len();
        assert_eq!(count, 8);
        found.block(0, count).expect("samples");
        targets.len() * TARGET_SERIES
    });
}
