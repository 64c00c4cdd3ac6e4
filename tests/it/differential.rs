//! Thousands of generated queries, asked of Debian's Prometheus and of us on the same remotely
//! written samples. Skipped without the package, unless `NARTHEX_REQUIRE_PEERS` is set (CI).
//!
//! That Prometheus (2.42) is older than the language we speak (3.14). The data and the generator
//! stay where both mean the same; what they leave out, and why:
//! - No sample lies on the edge of a window, and windows of subqueries do not end on their own
//!   steps: ranges are left-open since 3.0.
//! - No window begins before the first sample of its series: a counter that is young or restarts
//!   after a gap is extrapolated less far since prometheus/prometheus#13725 (half an interval, and
//!   never beyond its zero; before, up to its zero if that was nearer than 1.1 intervals). Quantiles
//!   of histograms in a series' first minutes differ for that reason, too; one test proves it.
//! - `predict_linear` has no `@`: it was taken for independent of the step then.
//! - `atan2` has no metric name to keep: it did not drop it then.
//! - `stddev` and `stdvar` see no infinity alone: they gave 0 for it, which is NaN now.
//! - No choice (`topk`) hangs on equal values: either may be chosen. Nothing that jumps or
//!   amplifies (`%`, `round`, sines, labels made of values) is fed with sums: their last digit changed.
//! - Parts of dates are taken of finite times: for others they depend on the processor.
//!
//! There is no such comparison with another parser in Rust: `promql-parser` panics on some queries,
//! overflows the stack on deep ones and gives no places; what it parses, Prometheus' own parser
//! here parses, too, and its printer tells more than whether a query was taken.
//!
//! `DIFFERENTIAL_QUERIES` and `DIFFERENTIAL_SEED` ask for more queries and for others.
#![expect(clippy::disallowed_methods, reason = "writes a peer's configuration")]

use std::collections::BTreeMap;
use std::path::Path;

use narthex::base::rng::{Rng, SimRng};
use narthex::model::sample::stale_nan;
use narthex::promql::parser::{ParserOptions, parse};
use narthex::promql::print::pretty::pretty;
use serde_json::Value;

use crate::interop::{peer, quiet};
use crate::process::{
    Answer, Process, SeriesToWrite, Server, encoded, free_port, get, now_ms, remote_write, request,
    wait_for,
};

const QUERIES: u64 = 1500;
const SAMPLES: i64 = 400;
const SAMPLE_INTERVAL_MS: i64 = 15_000;
/// The first evaluation is so long after the first sample.
const LEAD_MINUTES: i64 = 60;
/// Keeps samples off every edge that a query can name in whole seconds.
const SAMPLE_SHIFT_MS: i64 = 337;
/// Where evaluation starts within a minute, likewise for steps of subqueries.
const START_WITHIN_MINUTE: i64 = 7;

/// Sent a part of the samples at a time, oldest first, as a real sender does.
struct Data {
    start_ms: i64,
    series: Vec<(Vec<(&'static str, String)>, Vec<(i64, f64)>)>,
}

impl Data {
    fn new(start_ms: i64) -> Self {
        let mut data = Self { start_ms, series: Vec::new() };
        let rng = SimRng::new(42);
        data.counters(&rng);
        data.gauges(&rng);
        data.histograms(&rng);
        data
    }

    fn at(&self, index: i64) -> i64 {
        self.start_ms + index * SAMPLE_INTERVAL_MS + SAMPLE_SHIFT_MS
    }

    fn add(
        &mut self,
        labels: &[(&'static str, String)],
        values: impl Iterator<Item = Option<f64>>,
    ) {
        let samples = values.zip(0..).filter_map(|(value, index)| Some((self.at(index), value?)));
        let samples = samples.collect();
        let mut labels = labels.to_vec();
        labels.sort();
        self.series.push((labels, samples));
    }

    fn counters(&mut self, rng: &SimRng) {
        for (job, instances) in [("api", 4), ("db", 3)] {
            for instance in 0..instances {
                for code in ["200", "404", "500"] {
                    let mut total = 0.0;
                    let values = (0..SAMPLES).map(|index| {
                        let step = rng.next_u64() % 50;
                        // The fourth instance misses scrapes now and then; others restart.
                        let restarts = rng.next_u64().is_multiple_of(60) && instance != 3;
                        total = if restarts { 0.0 } else { total + step as f64 };
                        let missing = instance == 3 && index % 37 > 28;
                        (!missing).then_some(total)
                    });
                    let values: Vec<_> = values.collect();
                    let labels = [
                        ("__name__", "requests_total".to_owned()),
                        ("job", job.to_owned()),
                        ("instance", instance.to_string()),
                        ("code", code.to_owned()),
                    ];
                    self.add(&labels, values.into_iter());
                }
                let labels = [
                    ("__name__", "build_info".to_owned()),
                    ("job", job.to_owned()),
                    ("instance", instance.to_string()),
                    ("version", format!("1.{}", instance % 2)),
                ];
                self.add(&labels, (0..SAMPLES).map(|_| Some(1.0)));
            }
        }
    }

    fn gauges(&mut self, rng: &SimRng) {
        for (job, instances) in [("api", 4), ("db", 3)] {
            for instance in 0..instances {
                let mut level = 200.0 + f64::from(instance) * 7.3;
                let values: Vec<_> = (0..SAMPLES)
                    .map(|index| {
                        level += (rng.next_u64() % 2001) as f64 / 100.0 - 10.0;
                        match (instance, index) {
                            // One target goes away for a while, another says that it does.
                            (2, 300) => Some(stale_nan()),
                            (1, 280..310) | (2, 301..310) => None,
                            _ => Some(level),
                        }
                    })
                    .collect();
                let labels = [
                    ("__name__", "temperature".to_owned()),
                    ("job", job.to_owned()),
                    ("instance", instance.to_string()),
                ];
                self.add(&labels, values.into_iter());
            }
        }
        for (kind, value) in [
            ("nan", f64::NAN),
            ("inf", f64::INFINITY),
            ("minus_inf", f64::NEG_INFINITY),
            ("minus_zero", -0.0),
            ("small", 5e-300),
        ] {
            let labels = [("__name__", "odd".to_owned()), ("kind", kind.to_owned())];
            let values = (0..SAMPLES).map(|index| Some(if index % 5 == 4 { 1.5 } else { value }));
            self.add(&labels, values);
        }
    }

    fn histograms(&mut self, rng: &SimRng) {
        const BOUNDS: [&str; 6] = ["0.1", "0.5", "1", "2.5", "10", "+Inf"];
        for job in ["api", "db"] {
            let mut totals = [0.0; BOUNDS.len()];
            let mut columns: [Vec<Option<f64>>; BOUNDS.len()] = Default::default();
            for _ in 0..SAMPLES {
                let mut below = 0.0;
                for (total, column) in totals.iter_mut().zip(&mut columns) {
                    below += (rng.next_u64() % 9) as f64;
                    *total += below;
                    column.push(Some(*total));
                }
            }
            for (bound, column) in BOUNDS.into_iter().zip(columns) {
                let labels = [
                    ("__name__", "latency_bucket".to_owned()),
                    ("job", job.to_owned()),
                    ("le", bound.to_owned()),
                ];
                self.add(&labels, column.into_iter());
            }
        }
    }

    fn send(&self, port: u16) {
        const PART: i64 = 25;
        for part in 0..SAMPLES / PART {
            let times = self.at(part * PART)..self.at((part + 1) * PART);
            let series: Vec<_> = self
                .series
                .iter()
                .map(|(labels, samples)| SeriesToWrite {
                    labels: labels.clone(),
                    samples: samples.iter().copied().filter(|s| times.contains(&s.0)).collect(),
                })
                .filter(|series| !series.samples.is_empty())
                .collect();
            let answer = remote_write(port, &series).expect("an answer");
            assert_eq!(answer.status / 100, 2, "{}", answer.body);
        }
    }
}

/// Writes queries that are likely to have a result.
struct Generator<'a>(&'a SimRng);

impl Generator<'_> {
    fn below(&self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    fn pick<'a>(&self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn scalar(&self) -> String {
        match self.below(8) {
            0 => "time()".to_owned(),
            1 => format!("scalar({})", self.one_series()),
            2 => format!("({} * 2)", self.below(9)),
            _ => self.pick(&["0", "1", "2.5", "-3", "100", "1e3", "0.01", "250"]).to_owned(),
        }
    }

    fn one_series(&self) -> &str {
        self.pick(&[
            "temperature{job='api',instance='0'}",
            "requests_total{job='db',instance='1',code='404'}",
            "latency_bucket{job='db',le='1'}",
            "nothing",
        ])
    }

    fn selector(&self) -> String {
        let metric =
            self.pick(&["requests_total", "requests_total", "temperature", "latency_bucket"]);
        format!("{metric}{}", self.matchers())
    }

    fn matchers(&self) -> &str {
        self.pick(&[
            "",
            "",
            "{job='api'}",
            "{job!='api'}",
            "{instance=~'[01]'}",
            "{instance!~'1|2'}",
            "{job=~'a.+',instance!='0'}",
            "{code=~'.*',job='db'}",
            "{code!=''}",
            "{nothing=''}",
        ])
    }

    fn time(&self) -> &str {
        self.pick(&["", "", "", "", " offset 2m", " offset -1m30s", " @ end()", " @ start()"])
    }

    fn range(&self) -> String {
        match self.below(5) {
            0 => {
                let window = self.pick(&["10m:1m", "5m:30s", "15m:2m", "4m:15s"]);
                format!("({})[{window}]{}", self.in_subquery(), self.time())
            }
            _ => self.plain_range(),
        }
    }

    fn plain_range(&self) -> String {
        let window = self.pick(&["1m", "2m", "5m", "10m", "45s", "20m"]);
        format!("{}[{window}]{}", self.selector(), self.time())
    }

    /// What a subquery may evaluate: no subquery, whose windows would end on the outer one's steps.
    fn in_subquery(&self) -> String {
        match self.below(4) {
            0 => format!("sum {}({})", self.grouping(), self.selector()),
            1 => format!("abs({})", self.selector()),
            2 => format!("max_over_time({})", self.plain_range()),
            _ => format!("rate(requests_total{}[5m])", self.matchers()),
        }
    }

    fn over_range(&self) -> String {
        let range = self.range();
        match self.below(4) {
            0 => format!(
                "quantile_over_time({}, {range})",
                self.pick(&["0.5", "0.9", "0", "1", "2"])
            ),
            1 if !range.contains('@') => {
                format!("predict_linear({range}, {})", self.pick(&["60", "3600", "-300"]))
            }
            _ => {
                let function = self.pick(&[
                    "rate",
                    "rate",
                    "increase",
                    "irate",
                    "delta",
                    "idelta",
                    "deriv",
                    "changes",
                    "resets",
                    "avg_over_time",
                    "sum_over_time",
                    "min_over_time",
                    "max_over_time",
                    "count_over_time",
                    "last_over_time",
                    "present_over_time",
                    "stddev_over_time",
                    "stdvar_over_time",
                    "absent_over_time",
                ]);
                let rises = !range.contains('(') && !range.contains("temperature");
                match function {
                    "rate" | "increase" if !rises => format!("delta({range})"),
                    _ => format!("{function}({range})"),
                }
            }
        }
    }

    fn grouping(&self) -> &str {
        self.pick(&[
            "",
            "by (job) ",
            "by (job, code) ",
            "without (instance) ",
            "by (nothing) ",
            "without (code, job) ",
            "by (le) ",
        ])
    }

    fn aggregation(&self, depth: usize) -> String {
        let (grouping, inner) = (self.grouping(), self.vector(depth));
        match self.below(8) {
            0 => {
                format!("quantile {grouping}({}, {inner})", self.pick(&["0.5", "0.95", "-1", "2"]))
            }
            1 => {
                let choose = self.pick(&["topk", "bottomk"]);
                let matchers = self.pick(&["", "{job='api'}", "{instance!='0'}"]);
                format!("{choose} {grouping}({}, temperature{matchers})", self.below(4))
            }
            2 => {
                let counted = self.pick(&["build_info", "odd", "requests_total", "temperature"]);
                format!("count_values {grouping}('value', {counted}{})", self.time())
            }
            3 => {
                let op = self.pick(&["stddev", "stdvar"]);
                format!("{op} {grouping}(({inner} < 1e9) > -1e9)")
            }
            _ => {
                let op = self.pick(&["sum", "sum", "avg", "min", "max", "count", "group"]);
                format!("{op} {grouping}({inner})")
            }
        }
    }

    fn function(&self, depth: usize) -> String {
        let inner = self.vector(depth);
        match self.below(10) {
            0 => format!(
                "clamp({inner}, {}, {})",
                self.pick(&["-5", "0", "10"]),
                self.pick(&["20", "300"])
            ),
            1 => format!("round({}, {})", self.selector(), self.pick(&["0.1", "5", "1"])),
            2 => format!("label_replace({inner}, 'to', '$1-x', 'instance', '(.)')"),
            3 => format!("label_join({inner}, 'to', '/', 'job', 'instance')"),
            4 => format!(
                "histogram_quantile({}, sum by (job, le) (increase(latency_bucket[{}])))",
                self.pick(&["0.5", "0.9", "0.99", "0", "1"]),
                self.pick(&["2m", "10m"])
            ),
            5 => format!("timestamp({})", self.selector()),
            6 => format!("absent({inner})"),
            8 => format!("{}({})", self.pick(&["sin", "cos", "tan"]), self.selector()),
            7 => {
                let part = self.pick(&["hour", "minute", "day_of_week", "days_in_month", "year"]);
                format!("{part}(vector(time()) + on () group_right {} * 1e4)", self.selector())
            }
            _ => {
                let name = self.pick(&[
                    "abs",
                    "ceil",
                    "floor",
                    "exp",
                    "sqrt",
                    "ln",
                    "log2",
                    "log10",
                    "sgn",
                    "atan",
                    "deg",
                    "rad",
                    "sort",
                    "sort_desc",
                ]);
                format!("{name}({inner})")
            }
        }
    }

    fn binary(&self, depth: usize) -> String {
        let (lhs, rhs) = (self.vector(depth), self.vector(depth));
        let arithmetic = self.pick(&["+", "-", "*", "/", "^"]);
        let compare = self.pick(&["==", "!=", ">", "<", ">=", "<="]);
        match self.below(11) {
            10 => format!("({} % {})", self.selector(), self.scalar()),
            9 => format!("(abs({lhs}) atan2 {rhs})"),
            0 => format!("({lhs} {arithmetic} {rhs})"),
            1 => format!("({lhs} {} {rhs})", self.pick(&["and", "or", "unless"])),
            2 => format!("({lhs} {} on (job) {rhs})", self.pick(&["and", "or", "unless"])),
            3 => format!("({lhs} {compare} {})", self.scalar()),
            4 => format!("({lhs} {compare} bool {})", self.scalar()),
            5 => format!("({} {arithmetic} {rhs})", self.scalar()),
            6 => format!(
                "({} {arithmetic} on (job, instance) group_left (version) build_info)",
                self.pick(&[
                    "requests_total",
                    "rate(requests_total[5m])",
                    "requests_total{code='200'}"
                ])
            ),
            7 => format!("({lhs} {arithmetic} ignoring (code) group_right {rhs})"),
            _ => format!("({lhs} {arithmetic} {})", self.scalar()),
        }
    }

    fn vector(&self, depth: usize) -> String {
        if depth == 0 {
            return match self.below(3) {
                0 => self.over_range(),
                1 => format!("{}{}", self.selector(), self.time()),
                _ => self
                    .pick(&["odd", "build_info", "temperature", "vector(3)", "requests_total"])
                    .to_owned(),
            };
        }
        let depth = depth - 1;
        match self.below(10) {
            0..3 => self.aggregation(depth),
            3..5 => self.function(depth),
            5..7 => self.binary(depth),
            7 => format!("-{}", self.vector(0)),
            8 => self.over_range(),
            _ => self.vector(0),
        }
    }

    fn query(&self) -> String {
        let depth = 1 + self.below(3);
        match self.below(12) {
            0 => self.scalar(),
            _ => self.vector(depth),
        }
    }
}

/// Values of each series by time; the order of series is not compared.
type Matrix = BTreeMap<String, Vec<(f64, f64)>>;

fn matrix(answer: &Answer) -> Matrix {
    let answer = answer.json();
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap();
    let result = answer["data"]["result"].as_array().unwrap();
    let series = result.iter().map(|series| {
        let points = series["values"].as_array().unwrap().iter();
        let points = points.map(|pair| (pair[0].as_f64().unwrap(), number(&pair[1])));
        (series["metric"].to_string(), points.collect())
    });
    series.collect()
}

fn agree(ours: f64, theirs: f64) -> bool {
    ours == theirs
        || (ours.is_nan() && theirs.is_nan())
        || (ours - theirs).abs() <= 1e-12 + 1e-9 * ours.abs().max(theirs.abs())
}

/// What differs first, if anything.
fn difference(ours: &Answer, theirs: &Answer) -> Option<String> {
    if ours.status != theirs.status {
        return Some(format!(
            "ours {} {}, theirs {} {}",
            ours.status, ours.body, theirs.status, theirs.body
        ));
    }
    if ours.status != 200 {
        return None;
    }
    let (ours, theirs) = (matrix(ours), matrix(theirs));
    if let Some(only) = ours.keys().find(|key| !theirs.contains_key(*key)) {
        return Some(format!("only ours: {only} {:?}", &ours[only][..1]));
    }
    if let Some(only) = theirs.keys().find(|key| !ours.contains_key(*key)) {
        return Some(format!("only theirs: {only} {:?}", &theirs[only][..1]));
    }
    ours.iter().zip(theirs.values()).find_map(|((labels, ours), theirs)| {
        let same = |(a, b): (&(f64, f64), &(f64, f64))| a.0 == b.0 && agree(a.1, b.1);
        match ours.iter().zip(theirs).find(|pair| !same(*pair)) {
            Some((ours, theirs)) => Some(format!("{labels}: ours {ours:?}, theirs {theirs:?}")),
            None if ours.len() == theirs.len() => None,
            None => Some(format!("{labels}: {} points, theirs {}", ours.len(), theirs.len())),
        }
    })
}

fn start_prometheus(folder: &Path) -> (Process, u16) {
    let port = free_port();
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, "global: {}\n").unwrap();
    let process = Process::spawn(
        quiet("prometheus")
            .arg("--web.enable-remote-write-receiver")
            .arg("--enable-feature=promql-at-modifier,promql-negative-offset,promql-per-step-stats")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
    );
    wait_for("Prometheus", || {
        request(port, "GET", "/-/ready", &[], b"").filter(|answer| answer.status == 200)
    });
    (process, port)
}

/// Our server and Prometheus, both taking remote write.
struct Pair {
    server: Server,
    prometheus_port: u16,
    _prometheus: Process,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// Both, ready; `None` when this machine has no Prometheus.
    fn start(flags: &[&str]) -> Option<Self> {
        peer("prometheus")?;
        let folder = tempfile::tempdir().unwrap();
        let flags = [&["--web.enable-remote-write-receiver"], flags].concat();
        let server = Server::start(folder.path(), "global: {}\n", &flags);
        let (prometheus, prometheus_port) = start_prometheus(folder.path());
        Some(Self { server, prometheus_port, _prometheus: prometheus, _folder: folder })
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn interop_generated_queries_have_the_same_answers() {
    let Some(pair) = Pair::start(&[]) else { return };
    let (server, prometheus_port) = (&pair.server, pair.prometheus_port);
    let start = now_ms() / 60_000 * 60 - 7200;
    let data = Data::new(start * 1000);
    data.send(prometheus_port);
    data.send(server.port);

    let (count, seed) = (setting("DIFFERENTIAL_QUERIES", QUERIES), setting("DIFFERENTIAL_SEED", 1));
    let rng = SimRng::new(seed);
    let generator = Generator(&rng);
    let (mut filled, mut differences) = (0, Vec::new());
    for _ in 0..count {
        let query = generator.query();
        let begin = start + 60 * (LEAD_MINUTES + generator.below(20) as i64) + START_WITHIN_MINUTE;
        let step = 60 * (1 + generator.below(4) as i64);
        let end = begin + step * (1 + generator.below(5) as i64);
        let path = format!(
            "/api/v1/query_range?query={}&start={begin}&end={end}&step={step}",
            encoded(&query)
        );
        let (ours, theirs) = (get(server.port, &path), get(prometheus_port, &path));
        filled += u64::from(theirs.status == 200 && !matrix(&theirs).is_empty());
        if let Some(difference) = difference(&ours, &theirs) {
            differences.push(format!("{query}\n    {begin} to {end} by {step}: {difference}"));
        }
    }
    println!("{count} queries, {filled} with results, {} differ", differences.len());
    assert!(count / 2 < filled, "the queries find something");
    assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
}

/// A counter that is 24 when it is first seen and has risen by 120 a minute later, asked for 5 s
/// after that: it was zero 12 s before its first sample, within 1.1 intervals of 15 s.
#[test]
fn interop_young_counters_are_extrapolated_less_far() {
    const SAMPLED: f64 = 60.0;
    const INCREASE: f64 = 120.0;
    const TO_END: f64 = 5.0;
    let Some(pair) = Pair::start(&[]) else { return };
    let (server, prometheus_port) = (&pair.server, pair.prometheus_port);
    let start_ms = now_ms() - 600_000;
    let samples = (0..5).map(|n| (start_ms + n * 15_000, 24.0 + 30.0 * n as f64)).collect();
    let labels = vec![("__name__", "young_total".to_owned())];
    let series = [SeriesToWrite { labels, samples }];
    let asked_ms = start_ms + ((SAMPLED + TO_END) * 1000.0) as i64;
    let path =
        format!("/api/v1/query?query=rate(young_total[5m])&time={}", asked_ms as f64 / 1000.0);
    let rate = |port: u16| -> f64 {
        assert_eq!(remote_write(port, &series).expect("an answer").status / 100, 2);
        let answer = get(port, &path).json();
        answer["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap()
    };
    let extrapolated = |to_start: f64| INCREASE * ((SAMPLED + to_start + TO_END) / SAMPLED) / 300.0;
    let to_zero = SAMPLED * (24.0 / INCREASE);
    assert!(agree(rate(prometheus_port), extrapolated(to_zero)), "all the way to zero");
    assert!(agree(rate(server.port), extrapolated(7.5)), "half an interval");
}

/// Queries whose samples are counted alike then and now.
const COUNTED: [&str; 14] = [
    "temperature",
    "sum(temperature) + on () group_left () count(requests_total)",
    "temperature @ START",
    "requests_total @ START offset 5m + requests_total",
    "rate(requests_total[5m])",
    "sum by (job) (increase(requests_total{code='200'}[10m])) / 2",
    "max_over_time(temperature[3m] @ START)",
    "absent_over_time(temperature{job='none'}[5m])",
    "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))",
    "max_over_time(sum(temperature)[5m:70s])",
    "sum_over_time(rate(requests_total[5m])[10m:90s])",
    "timestamp(temperature)",
    "temperature and temperature",
    "-abs(temperature) or vector(time())",
];

#[test]
fn interop_samples_are_counted_alike() {
    let Some(pair) = Pair::start(&["--enable-feature=promql-per-step-stats"]) else { return };
    let (server, prometheus_port) = (&pair.server, pair.prometheus_port);
    let start = now_ms() / 60_000 * 60 - 7200;
    let data = Data::new(start * 1000);
    data.send(prometheus_port);
    data.send(server.port);
    let begin = start + 60 * LEAD_MINUTES + START_WITHIN_MINUTE;
    let mut differences = Vec::new();
    for query in COUNTED {
        let query = query.replace("START", &begin.to_string());
        let path = format!(
            "/api/v1/query_range?query={}&start={begin}&end={}&step=30&stats=all",
            encoded(&query),
            begin + 300
        );
        let counts = |port: u16| {
            let samples = get(port, &path).json()["data"]["stats"]["samples"].clone();
            ["totalQueryableSamples", "totalQueryableSamplesPerStep"]
                .map(|name| samples[name].clone())
        };
        let ([ours, our_steps], [theirs, their_steps]) =
            (counts(server.port), counts(prometheus_port));
        let seconds = |steps: &Value| -> Vec<(f64, u64)> {
            let steps = steps.as_array().unwrap().iter();
            steps.map(|pair| (pair[0].as_f64().unwrap(), pair[1].as_u64().unwrap())).collect()
        };
        if ours != theirs || seconds(&our_steps) != seconds(&their_steps) {
            differences.push(format!(
                "{query}\n  ours {ours} {our_steps}\n  theirs {theirs} {their_steps}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Without white space, for lines are split by their length, and large numbers were shorter then.
fn squeezed(text: &str) -> String {
    let text: String = text.split_whitespace().collect();
    text.replace("1e+09", "1000000000")
}

#[test]
fn interop_generated_queries_print_the_same() {
    if peer("prometheus").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_prometheus, port) = start_prometheus(folder.path());
    let (count, seed) = (setting("DIFFERENTIAL_QUERIES", QUERIES), setting("DIFFERENTIAL_SEED", 1));
    let rng = SimRng::new(seed);
    let generator = Generator(&rng);
    let (mut same, mut differences) = (0, Vec::new());
    for _ in 0..count {
        let query = generator.query();
        let answer = get(port, &format!("/api/v1/format_query?query={}", encoded(&query)));
        // What the older parser does not know.
        if answer.status != 200 {
            continue;
        }
        let theirs = answer.json()["data"].as_str().unwrap_or_default().to_owned();
        let ours = parse(&query, &ParserOptions::ALL).map(|expr| pretty(&expr)).unwrap();
        if squeezed(&ours) == squeezed(&theirs) {
            same += 1;
        } else {
            differences.push(format!("{query}\n  ours   {ours}\n  theirs {theirs}"));
        }
    }
    assert!(count / 2 < same + differences.len() as u64, "most queries are known to both");
    assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
}
