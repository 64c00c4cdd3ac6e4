//! What queries evaluate to, with names dropped at once as in a plain Prometheus.

use std::fmt::Write as _;
use std::time::Duration;

use insta::assert_snapshot;
use narthex::cli::test::memory::Memory;
use narthex::model::duration;
use narthex::promql::engine::{Engine, PerStep, Query, QueryError, QueryOutput, Value};

fn milliseconds(text: &str) -> i64 {
    duration::parse(text).unwrap().as_millis() as i64
}

/// A store with series from 0 on, `gap` apart.
fn load(gap: &str, lines: &str) -> Memory {
    let mut memory = Memory::default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        memory.load(milliseconds(gap), line).unwrap();
    }
    memory
}

fn show(result: Result<QueryOutput, QueryError>) -> String {
    let mut out = String::new();
    let output = match result {
        Ok(output) => output,
        Err(err) => return format!("error: {err}"),
    };
    match output.value {
        Value::Scalar { value, .. } => writeln!(out, "{value}").unwrap(),
        Value::String { value, .. } => writeln!(out, "{value:?}").unwrap(),
        Value::Vector(vector) => {
            for sample in vector {
                writeln!(out, "{} {}", sample.labels, sample.value).unwrap();
            }
        }
        Value::Matrix(matrix) => {
            for series in matrix {
                write!(out, "{}", series.labels).unwrap();
                for (at_ms, value) in series.points {
                    write!(out, " {value}@{}", at_ms as f64 / 1000.0).unwrap();
                }
                out.push('\n');
            }
        }
    }
    for note in output.warnings.iter().chain(&output.infos) {
        writeln!(out, "{note}").unwrap();
    }
    out
}

fn eval(memory: &Memory, query: &str, at: &str) -> String {
    show(memory.engine(false).instant(&Query::new(query), milliseconds(at)))
}

fn eval_range(memory: &Memory, query: &str, start: &str, end: &str, step: &str) -> String {
    let (start_ms, end_ms, step_ms) = (milliseconds(start), milliseconds(end), milliseconds(step));
    show(memory.engine(false).range(&Query::new(query), start_ms, end_ms, step_ms))
}

#[test]
fn increase_extrapolates_to_the_whole_window() {
    let db = load("5m", r#"requests_total{job="api"} 0+10x10"#);
    assert_snapshot!(eval(&db, "increase(requests_total[20m])", "50m"), @r#"{job="api"} 40"#);
    let db = load("1m", "a 1 2 3 1 2 3");
    assert_snapshot!(eval_range(&db, "rate(a[3m])", "3m", "5m", "1m"), @r#"
    {} 0.016666666666666666@180 0.016666666666666666@240 0.016666666666666666@300
    PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "a" (1:6)
    "#);
}

#[test]
fn a_stale_marker_ends_a_series_and_lookback_is_left_open() {
    let db = load("1m", "a 1 2 stale _ 5\nb 1 _x10");
    assert_snapshot!(eval_range(&db, "a", "0", "10m", "1m"), @r#"{__name__="a"} 1@0 2@60 5@240 5@300 5@360 5@420 5@480"#);
    assert_snapshot!(eval_range(&db, "b", "4m", "6m", "1m"), @r#"{__name__="b"} 1@240"#);
    assert_snapshot!(eval(&db, "a[5m]", "5m"), @r#"{__name__="a"} 2@60 5@240"#);
}

#[test]
fn dropped_names_must_not_make_series_equal() {
    let db = load("1m", "a{x=\"1\"} 1 2\nb{x=\"1\"} _ 4\nc{x=\"2\"} 7 8");
    assert_snapshot!(eval(&db, r#"abs({__name__=~"a|b"})"#, "1m"), @"error: vector cannot contain metrics with the same labelset");
    // At different steps they become one series; functions of ranges refuse even that.
    let early = load("1m", "a{x=\"1\"} 1 stale\nb{x=\"1\"} _ 4");
    assert_snapshot!(eval_range(&early, r#"-{__name__=~"a|b"}"#, "0", "1m", "1m"), @r#"{x="1"} -1@0 -4@60"#);
    assert_snapshot!(eval_range(&early, r#"sum_over_time({__name__=~"a|b"}[1m])"#, "0", "1m", "1m"), @"error: vector cannot contain metrics with the same labelset");
    assert_snapshot!(eval(&db, r#"sum(abs({__name__=~"a|c"}))"#, "1m"), @"{} 10");
    assert_snapshot!(eval(&db, "sum without (y) (rate(a[2m]))", "1m"), @r#"
    {x="1"} 0.016666666666666666
    PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "a" (1:23)
    "#);
    assert_snapshot!(eval(&db, "count by (__name__, x) ({x=~'.+'})", "1m"), @r#"
    {__name__="a", x="1"} 1
    {__name__="b", x="1"} 1
    {__name__="c", x="2"} 1
    "#);
    assert_snapshot!(eval(&db, "count by (__name__) (-c)", "1m"), @"{} 1");
}

#[test]
fn vectors_are_matched_by_labels() {
    let db = load(
        "1m",
        r#"
        a{x="1",y="p"} 1
        a{x="1",y="q"} 2
        a{x="2",y="p"} 3
        one{x="1",z="k"} 10
        one{x="2",z="l"} 20
        two{x="1",z="k"} 1
        two{x="1",z="l"} 2
        "#,
    );
    assert_snapshot!(eval(&db, "a * on (x) group_left (z) one", "0"), @r#"
    {x="1", y="p", z="k"} 10
    {x="1", y="q", z="k"} 20
    {x="2", y="p", z="l"} 60
    "#);
    assert_snapshot!(eval(&db, "one > bool on (x) group_right () a", "0"), @r#"
    {x="1", y="p"} 1
    {x="1", y="q"} 1
    {x="2", y="p"} 1
    "#);
    assert_snapshot!(eval(&db, "a * on (x) one", "0"), @"error: multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)");
    assert_snapshot!(eval(&db, "a * on (x) group_left () two", "0"), @r#"error: found duplicate series for the match group {x="1"} on the right hand-side of the operation: [{__name__="two", x="1", z="k"}, {__name__="two", x="1", z="l"}];many-to-many matching not allowed: matching labels must be unique on one side"#);
    assert_snapshot!(eval(&db, "a * on (x) group_left (y) one", "0"), @"error: multiple matches for labels: grouping labels must ensure unique matches");
    assert_snapshot!(eval(&db, "one * on (x) fill_right (1) two{z='k'}", "0"), @r#"
    {x="1"} 10
    {x="2"} 20
    "#);
    assert_snapshot!(eval(&db, "one and on (x) two or a{x='2'}", "0"), @r#"
    {__name__="one", x="1", z="k"} 10
    {__name__="a", x="2", y="p"} 3
    "#);
    assert_snapshot!(eval(&db, "one unless on (x) two", "0"), @r#"{__name__="one", x="2", z="l"} 20"#);
    assert_snapshot!(eval(&db, "5 < one < 15", "0"), @r#"{__name__="one", x="1", z="k"} 10"#);
}

#[test]
fn choices_keep_whole_series() {
    let db = load("1m", "a{x=\"1\"} 1 5\na{x=\"2\"} 2 4\na{x=\"3\"} 3 NaN");
    assert_snapshot!(eval(&db, "topk(2, a)", "0"), @r#"
    {__name__="a", x="3"} 3
    {__name__="a", x="2"} 2
    "#);
    assert_snapshot!(eval(&db, "bottomk(3, a)", "1m"), @r#"
    {__name__="a", x="2"} 4
    {__name__="a", x="1"} 5
    {__name__="a", x="3"} NaN
    "#);
    assert_snapshot!(eval_range(&db, "topk(1, a)", "0", "1m", "1m"), @r#"
    {__name__="a", x="1"} 5@60
    {__name__="a", x="3"} 3@0
    "#);
    assert_snapshot!(eval(&db, "sort_desc(a)", "1m"), @r#"
    {__name__="a", x="1"} 5
    {__name__="a", x="2"} 4
    {__name__="a", x="3"} NaN
    "#);
    assert_snapshot!(eval(&db, "topk(NaN, a)", "0"), @"error: Parameter value is NaN");
    assert_snapshot!(eval(&db, "topk(1e20, a)", "0"), @"error: Scalar value 1e+20 overflows int64");
    assert_snapshot!(eval(&db, "quantile(2, a)", "0"), @r"
    {} inf
    PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)
    ");
}

#[test]
fn subqueries_step_on_absolute_multiples() {
    let db = load("10s", "a 0+1x100");
    assert_snapshot!(eval(&db, "a[1m:20s]", "95s"), @r#"{__name__="a"} 4@40 6@60 8@80"#);
    assert_snapshot!(eval(&db, "max_over_time((a * 2)[1m:20s] offset 15s)", "95s"), @"{} 16");
    assert_snapshot!(eval_range(&db, "sum_over_time(a[30s] @ 60)", "0", "2m", "1m"), @"{} 15@0 15@60 15@120");
    assert_snapshot!(eval(&db, "sum_over_time(vector(1)[3m:])", "10m"), @"{} 3");
}

#[test]
fn limits_end_a_query() {
    let db = load("1m", "a{x=\"1\"} 0+1x20\na{x=\"2\"} 0+1x20");
    let engine = db.engine_with(|options| options.max_samples = 10);
    let range =
        |engine: &Engine, query: &Query<'_>| show(engine.range(query, 0, 1_200_000, 60_000));
    assert_snapshot!(range(&engine, &Query::new("a")), @"error: query processing would load too many samples into memory in query execution");
    assert_snapshot!(eval(&db, "max_over_time(vector(1)[10y:1ms])", "0"), @"error: query processing would load too many samples into memory in query execution");
    assert_snapshot!(eval(&db, "a @ 9e15 offset -200y", "0"), @"");
    let engine = db.engine_with(|options| options.timeout = Duration::ZERO);
    assert_snapshot!(range(&engine, &Query::new("a")), @"error: query timed out in query queue");
    let query = Query::new("a");
    query.cancel.cancel();
    assert_snapshot!(range(&db.engine(true), &query), @"error: query was canceled in query queue");
    assert_snapshot!(range(&db.engine(true), &Query::new("a[5m]")), @r#"error: invalid expression type "range vector" for range query, must be Scalar or instant Vector"#);
    assert_snapshot!(range(&db.engine(true), &Query::new("a +")), @"error: 1:4: parse error: unexpected end of input");
}

#[test]
fn histograms_count_as_several_samples() {
    let buckets = "1 ".repeat(60);
    let db = load("1m", &format!("f 1\nh {{{{count:60 sum:60 buckets:[{buckets}]}}}}"));
    let engine = db.engine_with(|options| options.max_samples = 30);
    for query in ["f", "last_over_time(f[5m])"] {
        assert_eq!(show(engine.instant(&Query::new(query), 0)), "{__name__=\"f\"} 1\n");
    }
    for query in ["h", "last_over_time(h[5m])", "sum(h)"] {
        let answer = show(engine.instant(&Query::new(query), 0));
        assert_eq!(
            answer,
            "error: query processing would load too many samples into memory in query execution"
        );
    }
}

#[test]
fn deep_expressions_are_evaluated_or_refused_but_do_not_overflow_the_stack() {
    let db = load("1m", "a 1");
    let sum = |terms: usize| vec!["a"; terms].join(" + ");
    let nested = |depth: usize| format!("{}a{}", "abs(".repeat(depth), ")".repeat(depth));
    let evaluate = move || {
        assert_eq!(eval(&db, &sum(90), "0"), "{} 90\n");
        assert_eq!(eval(&db, &nested(90), "0"), "{} 1\n");
        for query in [sum(20_000), nested(20_000), "-".repeat(20_000) + "a"] {
            assert!(eval(&db, &query, "0").starts_with("error: "));
        }
    };
    // The stack of a blocking thread.
    std::thread::Builder::new().stack_size(2 << 20).spawn(evaluate).unwrap().join().unwrap();
}

#[test]
fn statistics_count_samples() {
    let db = load("1m", "a{x=\"1\"} 0+1x20\na{x=\"2\"} 0+1x20");
    let output = db
        .engine(false)
        .range(&Query::new("sum(sum_over_time(a[5m]))"), 600_000, 660_000, 60_000)
        .unwrap();
    assert_eq!(output.stats.total_samples, 20);
    assert!((1..=10).contains(&output.stats.peak_samples));
}

#[test]
fn statistics_count_histograms_and_steps() {
    let db = load("10s", "h {{schema:1 count:5 sum:20 buckets:[1 2 1 1]}}x20");
    let engine = db.engine(false);
    let stats = |query: &str, end_ms: i64| {
        let query = Query { per_step: true, ..Query::new(query) };
        engine.range(&query, 100_000, end_ms, 10_000).unwrap().stats
    };
    let steps = |total: &[u64], read: &[u64]| {
        let (start_ms, step_ms) = (100_000, 10_000);
        Some(PerStep { start_ms, step_ms, total: total.to_vec(), read: read.to_vec() })
    };
    // 13 for each, as in Prometheus.
    let one = stats("h", 110_000);
    assert_eq!((one.total_samples, one.samples_read), (26, 26));
    let windows = stats("histogram_count(increase(h[30s]))", 120_000);
    assert_eq!((windows.total_samples, windows.samples_read), (9 * 13, 5 * 13));
    assert_eq!(windows.per_step, steps(&[39, 39, 39], &[39, 13, 13]));
    // What is the same at each step is read once.
    let same = stats("h @ 50", 120_000);
    assert_eq!(same.per_step, steps(&[13, 13, 13], &[13, 0, 0]));
    // Of a subquery the windows count, and what was read for them.
    let inner = stats("count_over_time(h[30s:10s])", 110_000);
    assert_eq!((inner.total_samples, inner.samples_read), (2 * 39, 4 * 13 + 4 * 13));
    let bare = engine.instant(&Query::new("h[30s:10s]"), 100_000).unwrap().stats;
    assert_eq!(bare.total_samples, 39);
}
