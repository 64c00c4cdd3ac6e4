//! Random queries on random data: the engine's answers are those of the plain evaluator.
//!
//! Data have gaps, resets, stale markers, NaN, infinities, series that change between floats and
//! histograms, and series whose labels are equal once the name is gone. A seed fixes everything;
//! `PROMQL_SEED=n` runs one of
//! them, `PROMQL_SEEDS=n` so many.

use std::collections::BTreeMap;
use std::sync::Arc;

use narthex::base::rng::{Rng as _, SimRng};
use narthex::cli::test::memory::Memory;
use narthex::cli::test::notation::Step;
use narthex::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Histogram, ResetHint, Span};
use narthex::model::labels::Labels;
use narthex::model::sample::stale_nan;
use narthex::promql::ast::{AggregateOp, Expr, ExprKind};
use narthex::promql::engine::{Engine, Query, QueryError, QueryOutput, Value as Result_};
use narthex::promql::parser::{ParserOptions, parse};

use crate::promql_reference::{Output, Reference, Samples, Value};

const SEEDS: u64 = 150;
const QUERIES_PER_SEED: usize = 12;
const SCRAPE_MS: i64 = 15_000;
const SCRAPES: i64 = 80;

#[test]
fn queries_have_the_answers_of_a_plain_evaluator() {
    let given = |name| std::env::var(name).ok().and_then(|seed| seed.parse::<u64>().ok());
    let (only, seeds) = (given("PROMQL_SEED"), given("PROMQL_SEEDS").unwrap_or(SEEDS));
    let (mut answered, mut histograms, mut refused) = (0, 0, 0);
    let mut failures = Vec::new();
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let dice = Dice(SimRng::new(seed));
        let data = data(&dice);
        let engine = loaded(&data).engine(false);
        for _ in 0..QUERIES_PER_SEED {
            let query = vector(&dice, 3);
            let place = format!("PROMQL_SEED={seed}: {query}");
            let grid = grid(&dice);
            match judge(&engine, &data, &query, grid) {
                Ok(Verdict::Refused) => refused += 1,
                Ok(Verdict::Answered { with_histograms }) => {
                    answered += 1;
                    histograms += usize::from(with_histograms);
                }
                Err(err) => failures.push(format!("{place} {grid:?}\n{err}")),
            }
        }
    }
    let worst = failures.len().min(20);
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures[..worst].join("\n"));
    if only.is_none() {
        // Queries that all fail or find nothing would prove nothing.
        assert!(seeds as usize * 4 < answered, "only {answered} queries had an answer");
        assert!(seeds as usize / 2 < histograms, "only {histograms} answers had a histogram");
        assert!(0 < refused, "no query was refused");
    }
}

enum Verdict {
    Refused,
    Answered { with_histograms: bool },
}

/// Start, end and step; no step is an instant query.
type Grid = (i64, i64, i64);

fn judge(
    engine: &Engine,
    data: &[(Labels, Samples)],
    query: &str,
    (start_ms, end_ms, step_ms): Grid,
) -> Result<Verdict, String> {
    let expr = parse(query, &ParserOptions::ALL).map_err(|err| err.to_string())?;
    let reference = Reference {
        series: data,
        bounds_ms: (start_ms, end_ms),
        lookback_ms: 300_000,
        subquery_step_ms: 60_000,
    };
    let times: Vec<i64> = if step_ms == 0 {
        vec![start_ms]
    } else {
        (start_ms..=end_ms).step_by(step_ms.unsigned_abs() as usize).collect()
    };
    let expected = reference.evaluate(&expr, &times);
    let asked = Query::new(query);
    let answer = if step_ms == 0 {
        engine.instant(&asked, start_ms)
    } else {
        engine.range(&asked, start_ms, end_ms, step_ms)
    };
    let (expected, found) = match (expected, answer) {
        // Where there are several reasons, it is open which one is told.
        (Err(_), Err(QueryError::Execution(text))) if is_known(&text) => {
            return Ok(Verdict::Refused);
        }
        (Err(expected), answer) => return Err(format!("expected {expected}, got {answer:?}")),
        (Ok(_), Err(err)) => return Err(format!("failed: {err}")),
        (Ok(Output::Scalars(_)), _) => return Err("a scalar".to_owned()),
        (Ok(Output::Vectors(expected)), Ok(answer)) => (points(&times, expected), found(answer)),
    };
    let is_choice = matches!(&expr, Expr { kind: ExprKind::Aggregate(one), .. }
        if matches!(one.op, AggregateOp::TopK | AggregateOp::BottomK));
    if is_choice {
        // Which of equal values is chosen is open.
        compare_values(&expected, &found)?;
    } else {
        compare(&expected, &found)?;
    }
    let with_histograms = found.values().any(|value| matches!(value, Value::Histogram(_)));
    Ok(if found.is_empty() { Verdict::Refused } else { Verdict::Answered { with_histograms } })
}

/// Whether a query was refused for labels that meet.
fn is_known(error: &str) -> bool {
    let reasons = [
        "vector cannot contain metrics with the same labelset",
        "found duplicate series for the match group",
        "multiple matches for labels",
    ];
    reasons.iter().any(|reason| error.starts_with(reason))
}

type Points = BTreeMap<(i64, Labels), Value>;

fn points(times: &[i64], vectors: Vec<Vec<(Labels, Value)>>) -> Points {
    let all = times.iter().zip(vectors);
    all.flat_map(|(at_ms, vector)| {
        vector.into_iter().map(|(labels, value)| ((*at_ms, labels), value))
    })
    .collect()
}

fn found(output: QueryOutput) -> Points {
    match output.value {
        Result_::Vector(samples) => samples
            .into_iter()
            .map(|sample| {
                let value = sample.histogram.map_or(Value::Float(sample.value), Value::Histogram);
                ((sample.timestamp_ms, sample.labels), value)
            })
            .collect(),
        Result_::Matrix(matrix) => {
            let mut points = Points::new();
            for series in matrix {
                for (at_ms, value) in series.points {
                    points.insert((at_ms, series.labels.clone()), Value::Float(value));
                }
                for (at_ms, histogram) in series.histograms {
                    let place = (at_ms, series.labels.clone());
                    assert!(points.insert(place, Value::Histogram(histogram)).is_none());
                }
            }
            points
        }
        other => panic!("not a vector: {other:?}"),
    }
}

fn compare(expected: &Points, found: &Points) -> Result<(), String> {
    for (place, value) in expected {
        match found.get(place) {
            Some(own) if same(value, own) => {}
            own => return Err(format!("{place:?}: expected {value:?}, got {own:?}")),
        }
    }
    match found.iter().find(|(place, _)| !expected.contains_key(place)) {
        Some(extra) => Err(format!("not expected: {extra:?}")),
        None => Ok(()),
    }
}

/// Only the values of each moment, in order.
fn compare_values(expected: &Points, found: &Points) -> Result<(), String> {
    let sorted = |points: &Points| {
        let float = |value: &Value| match value {
            // One zero and one NaN, whatever their signs.
            Value::Float(value) if !value.is_nan() => *value + 0.0,
            _ => f64::NAN,
        };
        let mut all: Vec<(i64, f64)> =
            points.iter().map(|((at_ms, _), value)| (*at_ms, float(value))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        all
    };
    let (expected, found) = (sorted(expected), sorted(found));
    let agree = expected.len() == found.len()
        && expected.iter().zip(&found).all(|(a, b)| a.0 == b.0 && close(a.1, b.1));
    if agree { Ok(()) } else { Err(format!("expected {expected:?}, got {found:?}")) }
}

fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) + 1e-9
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => close(*a, *b),
        (Value::Histogram(a), Value::Histogram(b)) => {
            let (a, b) = (Histogram::clone(a).compacted(), Histogram::clone(b).compacted());
            let buckets = (a.buckets(false), b.buckets(false));
            a.schema == b.schema
                && a.zero_threshold == b.zero_threshold
                && a.custom_bounds == b.custom_bounds
                && close(a.count, b.count)
                && close(a.sum, b.sum)
                && close(a.zero_count, b.zero_count)
                && buckets.0.iter().zip(&buckets.1).all(|(a, b)| {
                    (a.lower, a.upper) == (b.lower, b.upper) && close(a.count, b.count)
                })
                && buckets.0.len() == buckets.1.len()
        }
        _ => false,
    }
}

/// Chance.
struct Dice(SimRng);

impl Dice {
    fn below(&self, end: usize) -> usize {
        (self.0.next_u64() % end as u64) as usize
    }

    fn of<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn one_in(&self, count: usize) -> bool {
        self.below(count) == 0
    }
}

fn grid(dice: &Dice) -> Grid {
    let start_ms = dice.below(1_200) as i64 * 1_000;
    if dice.one_in(4) {
        return (start_ms, start_ms, 0);
    }
    let step_ms = dice.of(&[1_000, 7_000, 15_000, 60_000, 250_000]);
    (start_ms, start_ms + step_ms * dice.below(25) as i64, step_ms)
}

/// Series of a few metrics and label sets, in the order of labels.
fn data(dice: &Dice) -> Vec<(Labels, Samples)> {
    let mut series = BTreeMap::new();
    for name in ["m_total", "g", "h", "mixed"] {
        for (a, b) in [("x", "1"), ("x", "2"), ("y", "1")] {
            if dice.one_in(5) {
                continue;
            }
            let labels = Labels::from_pairs([("__name__", name), ("a", a), ("b", b)]);
            series.insert(labels, samples(dice, name));
        }
    }
    series.into_iter().collect()
}

fn samples(dice: &Dice, name: &str) -> Samples {
    let mut out = Samples::new();
    let offset_ms = dice.of(&[0, 0, 3_000]);
    let mut counter = 0.0;
    let mut histogram = empty(dice);
    let (mut is_float, mut gap) = (name != "h", 0_usize);
    for scrape in 0..SCRAPES {
        if 0 < gap {
            gap -= 1;
            continue;
        }
        if dice.one_in(25) {
            gap = dice.below(30);
        }
        if name == "mixed" && dice.one_in(8) {
            is_float = !is_float;
        }
        let at_ms = scrape * SCRAPE_MS + offset_ms;
        let value = if dice.one_in(30) {
            Value::Float(stale_nan())
        } else if is_float {
            counter = if dice.one_in(15) { 0.0 } else { counter + dice.below(9) as f64 };
            let wild = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e9];
            let odd = name != "m_total" && dice.one_in(20);
            Value::Float(if odd { dice.of(&wild) } else { counter })
        } else {
            histogram = next(dice, &histogram);
            Value::Histogram(Arc::new(histogram.clone()))
        };
        out.push((at_ms, value));
    }
    out
}

fn empty(dice: &Dice) -> Histogram {
    let custom = dice.one_in(3);
    let bounds: &[f64] = dice.of(&[&[1.0, 2.0, 5.0], &[1.0, 5.0, 10.0], &[2.0]]);
    Histogram {
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { dice.of(&[0, 0, 1, 2]) },
        zero_threshold: if custom { 0.0 } else { dice.of(&[0.0, 0.001, 0.5]) },
        custom_bounds: if custom { bounds.into() } else { Arc::default() },
        reset_hint: if dice.one_in(6) { ResetHint::Gauge } else { ResetHint::Unknown },
        ..Histogram::default()
    }
}

/// More observations; at times a new start, perhaps with other buckets.
fn next(dice: &Dice, before: &Histogram) -> Histogram {
    let mut one = if dice.one_in(12) { empty(dice) } else { before.clone() };
    let custom = one.has_custom_buckets();
    let length = if custom { one.custom_bounds.len() + 1 } else { 4 };
    if one.positive_buckets.is_empty() {
        // Above the widest zero bucket, whatever the schema.
        let offset = if custom { 0 } else { 2 };
        one.positive_spans = vec![Span { offset, length: length as u32 }];
        one.positive_buckets = vec![0.0; length];
    }
    for bucket in &mut one.positive_buckets {
        let more = dice.below(4) as f64;
        *bucket += more;
        one.count += more;
        one.sum += 1.5 * more;
    }
    if !custom {
        let more = dice.below(2) as f64;
        one.zero_count += more;
        one.count += more;
    }
    one
}

fn loaded(data: &[(Labels, Samples)]) -> Memory {
    let mut memory = Memory::default();
    for (labels, samples) in data {
        for (at_ms, value) in samples {
            let step = match value {
                Value::Float(value) => Step::Float(*value),
                Value::Histogram(histogram) => Step::Histogram(Arc::clone(histogram), false),
            };
            memory.insert(labels, *at_ms, step);
        }
    }
    memory
}

fn selector(dice: &Dice, range: &str) -> String {
    let names =
        ["m_total", "g", "h", "mixed", "mixed", "{__name__=~\"m.*|g\"", "{__name__=~\".+\""];
    let name = dice.of(&names);
    let matcher =
        dice.of(&["", "", "", "a=\"x\"", "a!=\"x\"", "b=~\"1|3\"", "a=\"x\",b!~\"1\"", "c=\"\""]);
    let open = name.starts_with('{');
    let text = match (open, matcher) {
        (true, "") => format!("{name}}}"),
        (true, matcher) => format!("{name},{matcher}}}"),
        (false, "") => name.to_owned(),
        (false, matcher) => format!("{name}{{{matcher}}}"),
    };
    let time = if dice.one_in(4) {
        dice.of(&[" offset 1m", " offset -40s", " @ 500", " @ start()", " @ end() offset 2m"])
    } else {
        ""
    };
    format!("{text}{range}{time}")
}

fn range(dice: &Dice, depth: usize) -> String {
    let length = dice.of(&["20s", "1m", "5m", "10m"]);
    if 0 < depth && dice.one_in(4) {
        let step = dice.of(&["", "30s", "17s"]);
        let time = dice.of(&["", "", "", " offset 30s", " @ 700", " @ end()"]);
        return format!("({})[{length}:{step}]{time}", vector(dice, depth - 1));
    }
    selector(dice, &format!("[{length}]"))
}

const OVER_RANGE: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "changes",
    "resets",
    "count_over_time",
    "present_over_time",
    "first_over_time",
    "last_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "stdvar_over_time",
    "stddev_over_time",
    "deriv",
];

const ELEMENTWISE: &[&str] =
    &["abs", "sqrt", "sgn", "histogram_count", "histogram_sum", "histogram_avg", "-"];

fn scalar(dice: &Dice, depth: usize) -> String {
    match dice.below(5) {
        0 if 0 < depth => format!("scalar({})", vector(dice, depth - 1)),
        1 => "time()".to_owned(),
        2 => dice.of(&["NaN", "Inf", "-Inf", "0"]).to_owned(),
        _ => dice.of(&["1", "2", "-3", "0.5", "100", "1e6"]).to_owned(),
    }
}

/// An expression that is an instant vector.
fn vector(dice: &Dice, depth: usize) -> String {
    let Some(depth) = depth.checked_sub(1) else { return selector(dice, "") };
    match dice.below(14) {
        0 | 1 => selector(dice, ""),
        2..=4 => format!("{}({})", dice.of(OVER_RANGE), range(dice, depth)),
        5 => match dice.below(5) {
            0 => format!(
                "quantile_over_time({}, {})",
                dice.of(&["0", "0.3", "1"]),
                range(dice, depth)
            ),
            1 => format!("predict_linear({}, 90)", range(dice, depth)),
            2 => format!("timestamp({})", selector(dice, "")),
            3 => format!("clamp_max({}, {})", vector(dice, depth), scalar(dice, depth)),
            _ => format!("vector({})", scalar(dice, depth)),
        },
        6 | 7 => format!("{}({})", dice.of(ELEMENTWISE), vector(dice, depth)),
        8 | 9 => {
            let op = dice.of(&["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"]);
            let by =
                dice.of(&["", "", " by (a)", " by (b, __name__)", " without (a)", " without ()"]);
            format!("{op}{by} ({})", vector(dice, depth))
        }
        10 if depth == 2 => {
            let (op, k) = (dice.of(&["topk", "bottomk"]), dice.of(&["1", "2", "5"]));
            format!("{op}{} ({k}, {})", dice.of(&["", " by (a)"]), vector(dice, depth))
        }
        10 => {
            let at = dice.of(&["0", "0.25", "0.9", "1"]);
            format!("quantile by (a) ({at}, {})", vector(dice, depth))
        }
        11 => {
            let op = operator(dice);
            let (one, other) = (vector(dice, depth), scalar(dice, depth));
            let (lhs, rhs) = if dice.one_in(3) { (other, one) } else { (one, other) };
            format!("({lhs}) {op} ({rhs})")
        }
        12 => {
            let matching = dice.of(&["", "", " on (a, b)", " on (a)", " ignoring (b)"]);
            let op = dice.of(&["and", "or", "unless"]);
            format!("({}) {op}{matching} ({})", vector(dice, depth), vector(dice, depth))
        }
        _ => {
            let matching = dice.of(&[
                "",
                "",
                " on (a, b)",
                " on (a)",
                " ignoring (b)",
                " on (a) group_left ()",
                " on (b) group_right ()",
                " ignoring (a) group_left (a)",
                " fill (7)",
                " on (a, b) fill_left (-1)",
                " ignoring (b) fill_right (0)",
                " on (a) group_left () fill (2)",
                " on (b) group_right () fill_left (3)",
            ]);
            let op = operator(dice);
            format!("({}) {op}{matching} ({})", vector(dice, depth), vector(dice, depth))
        }
    }
}

fn operator(dice: &Dice) -> &'static str {
    dice.of(&[
        "+", "+", "-", "-", "*", "*", "/", "/", "%", "^", "atan2", "==", "!=", "<", "<=", ">",
        ">=", "== bool", "!= bool", "< bool", ">= bool", "</", ">/",
    ])
}
