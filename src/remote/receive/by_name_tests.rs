//! Series that are recalled by the bytes of their labels: the same is stored as when the labels of
//! each are decoded.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::*;
use crate::base::clock::SimClock;
use crate::base::disk::SimDisk;
use crate::base::rng::{Rng, SimRng};
use crate::encoding::wire::protobuf::testing::{bytes, double, number};
use crate::model::exemplar::Exemplar;
use crate::model::histogram::Histogram;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::sample::TimeRange;
use crate::storage::Storage;
use crate::storage::options::{Limits, Options, Retention, StartTimestamps, WalSync};
use crate::storage::select::{Column, Select, SelectHints};

const NOW_MS: i64 = 1_767_225_600_000;

/// A store that knows no names.
struct Plain(Arc<Storage>);
struct PlainBatch(Box<dyn Append>);

impl Appender for Plain {
    fn appender(&self, on_reject: OnReject) -> Box<dyn Append> {
        Box::new(PlainBatch(self.0.appender(on_reject)))
    }
}

impl Append for PlainBatch {
    fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64) {
        self.0.float(series, timestamp_ms, value);
    }

    fn histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, own: &Histogram) {
        self.0.histogram(series, timestamp_ms, own);
    }

    fn exemplar(&mut self, series: SeriesKey<'_>, own: &Exemplar) {
        self.0.exemplar(series, own);
    }

    fn metadata(&mut self, metric: &str, metadata: &Metadata) {
        self.0.metadata(metric, metadata);
    }

    fn start(&mut self, start_ms: i64) {
        self.0.start(start_ms);
    }

    fn reject_out_of_order(&mut self, yes: bool) {
        self.0.reject_out_of_order(yes);
    }

    fn commit(self: Box<Self>) -> Result<(Appended, Ticket), AppendError> {
        self.0.commit()
    }
}

fn storage() -> Arc<Storage> {
    let options = Options {
        path: PathBuf::from("/data"),
        retention: Retention::default(),
        limits: Limits::default(),
        reserve_bytes_max: 16 << 10,
        out_of_order_window_ms: Arc::new(AtomicI64::new(3_600_000)),
        wal_sync: WalSync::Never,
        log_file_bytes_max: 1 << 20,
        log_file_age_max_ms: 24 * 3_600_000,
        future_ms_max: 10 * 60_000,
        start_timestamps: StartTimestamps::default(),
    };
    let (disk, rng) = (Arc::new(SimDisk::new(1)), Arc::new(SimRng::new(1)));
    let clock = Arc::new(SimClock::new(NOW_MS));
    Storage::open(disk, clock, rng, &Registry::new(), options).unwrap()
}

fn contents(storage: &Storage) -> String {
    let all = Matcher::new(MatchOp::NotEqual, "__name__", "").unwrap();
    let range = TimeRange { min_ms: i64::MIN, max_ms: i64::MAX };
    let found = storage.select(&[all], range, &SelectHints::default()).unwrap();
    let mut out = String::new();
    for position in 0..found.len() as u32 {
        out += &found.labels(position).unwrap().to_string();
        for own in &found.block(position, 1).unwrap().series[0].runs {
            let Column::Floats(values) = &own.values else { panic!("only floats are sent") };
            out += &format!(" {:?} {values:?}", own.timestamps_ms);
        }
        out.push('\n');
    }
    out
}

/// One of a few series, spelled in one of several ways, with one sample or two or something else.
fn series(rng: &SimRng, round: u64) -> Vec<u8> {
    let pick = |count: u64| rng.next_u64() % count;
    let mut labels = vec![("__name__", format!("m{}", pick(6))), ("a", format!("{}", pick(2)))];
    match pick(12) {
        0 => labels.reverse(),
        1 => labels.push(("empty", String::new())),
        2 => labels.push(("long", "x".repeat(3_000))),
        3 => labels.push(("a", "twice".to_owned())),
        _ => {}
    }
    let label = |(name, text): &(&str, String)| bytes(1, [bytes(1, name), bytes(2, text)].concat());
    let mut parts: Vec<Vec<u8>> = labels.iter().map(label).collect();
    for _ in 0..[1, 1, 1, 2, 0][pick(5) as usize] {
        // Now and then before what was sent, so that order within a request counts.
        let ms = NOW_MS as u64 + 1_000 * round - 500 * pick(3);
        let value = double(1, pick(3) as f64);
        let parts_of_it = [vec![value.clone(), number(2, ms)], vec![number(2, ms), value]];
        parts.push(bytes(2, parts_of_it[usize::from(pick(5) == 0)].concat()));
    }
    match pick(15) {
        // Another label behind the samples: another series.
        0 => parts.push(label(&("late", "1".to_owned()))),
        1 => parts.push(number(9, 1)),
        _ => {}
    }
    bytes(1, parts.concat())
}

#[test]
fn recalled_series_are_those_that_their_labels_name() {
    for seed in 0..12 {
        let rng = SimRng::new(seed);
        let (named, plain) = (storage(), storage());
        let registry = Registry::new();
        let by_name = Receiver::new(named.clone(), &registry);
        let by_labels = Receiver::new(Arc::new(Plain(plain.clone())), &Registry::new());
        for round in 1..20 {
            let count = rng.next_u64() % 300;
            let body: Vec<u8> = (0..count).flat_map(|_| series(&rng, round)).collect();
            let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
            let [own, other] = [&by_name, &by_labels].map(|receiver| {
                let written = receiver.write(&body, Version::One);
                written.map(|own| own.sample_count).map_err(|err| err.to_string())
            });
            assert_eq!(own, other, "seed {seed}, round {round}");
        }
        assert_eq!(by_name.invalid_labels.get(), by_labels.invalid_labels.get());
        assert_eq!(contents(&named), contents(&plain), "seed {seed}");
    }
}
