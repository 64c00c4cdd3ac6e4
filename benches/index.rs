//! Speed of finding series by matchers, in the shapes of Prometheus' `BenchmarkQuerier` and
//! `PostingsForMatchers`, and of listing the values of labels.
//!
//! `cargo bench --bench index [filter]` prints milliseconds, the best of several rounds, for the
//! index of the head alone, then for whole selections from the head and from a segment.
//! `BENCH_SERIES` is how many series there are.
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use narthex::base::clock::SimClock;
use narthex::base::disk::OsDisk;
use narthex::base::metrics::Registry;
use narthex::base::rng::SimRng;
use narthex::model::labels::Labels;
use narthex::model::matcher::{MatchOp, Matcher};
use narthex::model::sample::TimeRange;
use narthex::storage::Storage;
use narthex::storage::append::{Appender, OnReject, SeriesKey};
use narthex::storage::index::postings::HeadIndex;
use narthex::storage::options::{Limits, Options, Retention, WalSync};
use narthex::storage::select::{Select, SelectHints};

const START_MS: i64 = 1_767_225_600_000;
const ROUND: Duration = Duration::from_millis(300);
const ROUNDS_MIN: usize = 3;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| arg != "--bench").unwrap_or_default();
    let series = std::env::var("BENCH_SERIES").ok().and_then(|text| text.parse().ok());
    let series: usize = series.unwrap_or(100_000);
    let cases: Vec<_> =
        CASES.iter().filter(|own| format!("{own:?}").contains(&filter)).map(matchers).collect();
    println!("{:64} {:>9} {:>10}", "", "found", "ms");
    postings(series, &cases);
    selections(series, &cases);
}

/// `n` has ten values, `i` many, `j` two or one of a few thousand; and then hosts of a job.
fn each_series(series: usize, mut visit: impl FnMut(Labels)) {
    for number in 0..series / 2 {
        let (n, i) = (number % 10, number / 10);
        let j = ["foo", "bar"][usize::from(number % 5 == 4)];
        let pairs = [("i", format!("{i}a")), ("j", j.to_owned()), ("n", format!("{n}a"))];
        visit(Labels::from_pairs(pairs));
    }
    for number in 0..series / 2 {
        let (metric, host) = (number % 5, number / 5);
        visit(Labels::from_pairs([
            ("__name__", format!("metric_{metric}")),
            ("instance", format!("host-{host}")),
            ("job", "x".to_owned()),
        ]));
    }
}

use MatchOp::{Equal, NotEqual, NotRegex, Regex};

const CASES: &[&[(&str, MatchOp, &str)]] = &[
    &[("n", Equal, "1a")],
    &[("n", Equal, "X")],
    &[("n", Equal, "1a"), ("j", Equal, "foo")],
    &[("n", Equal, "X"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("j", NotEqual, "foo")],
    &[("n", Equal, "1a"), ("i", NotEqual, "2a")],
    &[("i", Regex, ".*")],
    &[("i", Regex, "1.*")],
    &[("i", Regex, ".*1a")],
    &[("i", Regex, ".+")],
    &[("i", Regex, "")],
    &[("i", NotEqual, "")],
    &[("n", Equal, "1a"), ("i", Regex, ".*"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("i", Regex, ".*"), ("i", NotEqual, "2a"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("i", NotEqual, "")],
    &[("n", Equal, "1a"), ("i", Regex, ".+"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("i", Regex, "1.+"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("i", Regex, ".*1.*"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("i", Regex, ".+"), ("i", NotRegex, "2.*"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("i", Regex, ".+"), ("i", NotRegex, ".*2.*"), ("j", Equal, "foo")],
    &[("n", Equal, "1a"), ("i", Regex, "(1a|2a|3a|40a|50a|666a)")],
    &[("job", Equal, "x"), ("instance", Regex, "host-1.*")],
    &[("job", Equal, "x"), ("instance", Equal, "host-77")],
    &[("__name__", Equal, "metric_3"), ("instance", Regex, "host-(1|2)[0-9]{2}")],
];

type NamedMatchers = (String, Vec<Matcher>);

fn matchers(case: &&[(&str, MatchOp, &str)]) -> NamedMatchers {
    let matcher = |(name, op, value): &(&str, MatchOp, &str)| {
        Matcher::new(*op, name, value).expect("the expression is valid")
    };
    let text =
        |(name, op, value): &(&str, MatchOp, &str)| format!("{name}{}{value:?}", op.as_str());
    let texts: Vec<String> = case.iter().map(text).collect();
    (format!("{{{}}}", texts.join(",")), case.iter().map(matcher).collect())
}

/// The best of several rounds. `work` answers with how much it found.
fn measure(name: &str, mut work: impl FnMut() -> usize) {
    let (mut best, mut found) = (Duration::MAX, 0);
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS_MIN || begun.elapsed() < ROUND {
        let started = Instant::now();
        found = black_box(work());
        best = best.min(started.elapsed());
        rounds += 1;
    }
    println!("{name:64} {found:>9} {:>10.4}", best.as_secs_f64() * 1e3);
}

fn postings(series: usize, cases: &[NamedMatchers]) {
    let mut index = HeadIndex::new();
    let mut next = 0;
    each_series(series, |labels| {
        index.insert(next, &labels);
        next += 1;
    });
    for (name, matchers) in cases {
        measure(&format!("postings {name}"), || index.select(matchers).len() as usize);
    }
    measure("values of instance", || index.label_values("instance", None).len());
    let some = index.select(&[Matcher::equal("__name__", "metric_3")]);
    measure("values of instance of a metric", || index.label_values("instance", Some(&some)).len());
}

fn selections(series: usize, cases: &[NamedMatchers]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        path: folder.path().to_owned(),
        retention: Retention::default(),
        limits: Limits::default(),
        reserve_bytes_max: 0,
        out_of_order_window_ms: Arc::new(AtomicI64::new(0)),
        wal_sync: WalSync::Never,
        log_file_bytes_max: 128 << 20,
        log_file_age_max_ms: i64::MAX,
        future_ms_max: 10 * 60_000,
        start_timestamps: narthex::storage::options::StartTimestamps::default(),
    };
    let (clock, rng) = (Arc::new(SimClock::new(START_MS)), Arc::new(SimRng::new(1)));
    let storage = Storage::open(Arc::new(OsDisk), clock, rng, &Registry::new(), options);
    let storage = storage.expect("the store opens");
    let mut batch = storage.appender(OnReject::Skip);
    let mut staged = 0;
    each_series(series, |labels| {
        batch.float(SeriesKey::Labels(&labels), START_MS, 1.0);
        staged += 1;
        if staged % 10_000 == 0 {
            let full = std::mem::replace(&mut batch, storage.appender(OnReject::Skip));
            full.commit().expect("the disk takes it");
        }
    });
    batch.commit().expect("the disk takes it");
    let range = TimeRange { min_ms: START_MS, max_ms: START_MS };
    let hints = SelectHints { labels_only: true, ..SelectHints::default() };
    for place in ["head", "segment"] {
        for (name, matchers) in cases {
            measure(&format!("{place} {name}"), || {
                storage.select(matchers, range, &hints).expect("an answer").len()
            });
        }
        measure(&format!("{place} values of instance"), || {
            storage.label_values("instance", &[], range).expect("an answer").len()
        });
        storage.seal_now().expect("a segment is written");
    }
}
