//! Protobuf bodies, native histograms, conversion of classic ones, exemplars.

use super::*;
use crate::encoding::wire::exposition_proto::testing::{bucket, exemplar, family, labels};
use crate::encoding::wire::histogram::testing;
use crate::encoding::wire::protobuf::testing::{bytes, double, number};
use crate::model::histogram::{Histogram, Span};

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                        encoding=delimited";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

fn options(change: impl Fn(&mut HistogramOptions)) -> Bench {
    let mut job = job("j");
    change(&mut job.histograms);
    Bench::new(job)
}

fn native(counts: &[f64]) -> Histogram {
    Histogram {
        schema: 1,
        count: counts.iter().sum(),
        sum: 2.5,
        positive_spans: vec![Span { offset: 1, length: counts.len() as u32 }],
        positive_buckets: counts.to_vec(),
        ..Histogram::default()
    }
}

/// A histogram that is exposed both ways.
fn both() -> Vec<u8> {
    let buckets = [
        bucket(1.0, 2, Some(exemplar("b", 0.5, Some(7_000)))),
        bucket(2.0, 5, Some(exemplar("a", 1.5, None))),
    ];
    let own = [testing::exposition(&native(&[2.0, 3.0, 1.0]), true), buckets.concat()].concat();
    let metric = [labels(&[("x", "y")]), bytes(7, own)].concat();
    family("h", "Help.", 4, "", &[metric])
}

#[test]
fn protobuf_bodies_are_as_good_as_text() {
    let mut bench = options(|_| ());
    let counter = bytes(3, [double(1, 3.0), bytes(2, exemplar("x", 1.0, None))].concat());
    let quantile = bytes(3, [double(1, 0.5), double(2, 9.0)].concat());
    let summary = bytes(4, [number(1, 4), double(2, 2.5), quantile].concat());
    let body = [
        family(
            "hits_total",
            "Hits.",
            0,
            "",
            &[[labels(&[("b", "2"), ("job", "k")]), counter].concat()],
        ),
        family("s", "", 2, "", &[summary]),
        family("old", "", 1, "", &[[bytes(2, double(1, 1.0)), number(6, 5_000)].concat()]),
        family("none", "Nothing.", 1, "", &[]),
    ];
    let mut out = bench.scrape_as(PROTOBUF, &body.concat());
    out += &bench.scrape_as(PROTOBUF, &body[1..].concat());
    out += &bench.scrape_as(PROTOBUF, &body.concat()[..30]);
    let twice = family("g", "", 1, "", &[labels(&[("a", "1"), ("a", "2")])]);
    out += &bench.scrape_as(PROTOBUF, &twice);
    assert_snapshot!(out, @r#"
    10000 {__name__="hits_total", b="2", exported_job="k", job="j"} 3
    exemplar {__name__="hits_total", b="2", exported_job="k", job="j"} {trace_id="x"} 1 10000
    10000 {__name__="s_count", job="j"} 4
    10000 {__name__="s_sum", job="j"} 2.5
    10000 {__name__="s", job="j", quantile="0.5"} 9
    5000 {__name__="old", job="j"} 1
    metadata hits_total counter "Hits."
    metadata old gauge ""
    metadata s summary ""
    scraped 5 kept 5 added 5 duplicates 0
    20000 {__name__="s_count", job="j"} 4
    20000 {__name__="s_sum", job="j"} 2.5
    20000 {__name__="s", job="j", quantile="0.5"} 9
    5000 {__name__="old", job="j"} 1
    20000 {__name__="hits_total", b="2", exported_job="k", job="j"} stale (no old)
    scraped 4 kept 4 added 0 duplicates 0
    30000 {__name__="s", job="j", quantile="0.5"} stale (no old)
    30000 {__name__="s_count", job="j"} stale (no old)
    30000 {__name__="s_sum", job="j"} stale (no old)
    scraped 0 kept 0 added 0 duplicates 0 error: proto: unexpected end of message
    scraped 1 kept 0 added 0 duplicates 0 error: label name "a" is not unique: invalid sample
    "#);
}

#[test]
#[expect(clippy::too_many_lines, reason = "most of it is a snapshot")]
fn native_histograms_are_taken_when_they_are_wanted() {
    let mut out = String::new();
    for (title, change) in [
        ("classic only", (|_| ()) as fn(&mut HistogramOptions)),
        ("native", |own| own.native = true),
        ("both", |own| (own.native, own.always_classic) = (true, true)),
        ("converted", |own| own.convert = true),
        ("native before converted", |own| (own.native, own.convert) = (true, true)),
        ("converted and classic", |own| (own.convert, own.always_classic) = (true, true)),
        ("reduced by factor", |own| (own.native, own.schema_max) = (true, 0)),
        ("reduced by limit", |own| (own.native, own.bucket_limit) = (true, 2)),
    ] {
        let mut bench = options(change);
        out += &format!("{title}\n{}", bench.scrape_as(PROTOBUF, &both()));
        let again = bench.scrape_as(PROTOBUF, &both());
        assert!(again.ends_with("added 0 duplicates 0\n"), "{again}");
        // All of it ends together.
        let ended = bench.scrape_as(PROTOBUF, b"");
        let count = |text: &str, what: &str| text.lines().filter(|row| row.contains(what)).count();
        let samples = count(&again, "__name__") - count(&again, "exemplar");
        assert_eq!(count(&ended, "stale"), samples, "{ended}");
    }
    assert_snapshot!(out, @r#"
    classic only
    10000 {__name__="h_count", job="j", x="y"} 6
    10000 {__name__="h_sum", job="j", x="y"} 2.5
    10000 {__name__="h_bucket", job="j", le="1.0", x="y"} 2
    exemplar {__name__="h_bucket", job="j", le="1.0", x="y"} {trace_id="b"} 0.5 7000
    10000 {__name__="h_bucket", job="j", le="2.0", x="y"} 5
    exemplar {__name__="h_bucket", job="j", le="2.0", x="y"} {trace_id="a"} 1.5 10000
    10000 {__name__="h_bucket", job="j", le="+Inf", x="y"} 6
    metadata h histogram "Help."
    scraped 5 kept 5 added 5 duplicates 0
    native
    10000 {__name__="h", job="j", x="y"} schema 1 count 6 sum 2.5 [2.0, 3.0, 1.0] []
    exemplar {__name__="h", job="j", x="y"} {trace_id="b"} 0.5 7000
    metadata h histogram "Help."
    scraped 1 kept 1 added 1 duplicates 0
    both
    10000 {__name__="h", job="j", x="y"} schema 1 count 6 sum 2.5 [2.0, 3.0, 1.0] []
    exemplar {__name__="h", job="j", x="y"} {trace_id="b"} 0.5 7000
    10000 {__name__="h_count", job="j", x="y"} 6
    10000 {__name__="h_sum", job="j", x="y"} 2.5
    10000 {__name__="h_bucket", job="j", le="1.0", x="y"} 2
    exemplar {__name__="h_bucket", job="j", le="1.0", x="y"} {trace_id="b"} 0.5 7000
    10000 {__name__="h_bucket", job="j", le="2.0", x="y"} 5
    exemplar {__name__="h_bucket", job="j", le="2.0", x="y"} {trace_id="a"} 1.5 10000
    10000 {__name__="h_bucket", job="j", le="+Inf", x="y"} 6
    metadata h histogram "Help."
    scraped 6 kept 6 added 6 duplicates 0
    converted
    10000 {__name__="h", job="j", x="y"} schema -53 count 6 sum 2.5 [2.0, 3.0, 1.0] [1.0, 2.0]
    exemplar {__name__="h", job="j", x="y"} {trace_id="b"} 0.5 7000
    metadata h histogram "Help."
    scraped 1 kept 1 added 1 duplicates 0
    native before converted
    10000 {__name__="h", job="j", x="y"} schema 1 count 6 sum 2.5 [2.0, 3.0, 1.0] []
    exemplar {__name__="h", job="j", x="y"} {trace_id="b"} 0.5 7000
    metadata h histogram "Help."
    scraped 1 kept 1 added 1 duplicates 0
    converted and classic
    10000 {__name__="h_count", job="j", x="y"} 6
    10000 {__name__="h_sum", job="j", x="y"} 2.5
    10000 {__name__="h_bucket", job="j", le="1.0", x="y"} 2
    exemplar {__name__="h_bucket", job="j", le="1.0", x="y"} {trace_id="b"} 0.5 7000
    10000 {__name__="h_bucket", job="j", le="2.0", x="y"} 5
    exemplar {__name__="h_bucket", job="j", le="2.0", x="y"} {trace_id="a"} 1.5 10000
    10000 {__name__="h_bucket", job="j", le="+Inf", x="y"} 6
    10000 {__name__="h", job="j", x="y"} schema -53 count 6 sum 2.5 [2.0, 3.0, 1.0] [1.0, 2.0]
    exemplar {__name__="h", job="j", x="y"} {trace_id="b"} 0.5 7000
    metadata h histogram "Help."
    scraped 6 kept 6 added 6 duplicates 0
    reduced by factor
    10000 {__name__="h", job="j", x="y"} schema 0 count 6 sum 2.5 [5.0, 1.0] []
    exemplar {__name__="h", job="j", x="y"} {trace_id="b"} 0.5 7000
    metadata h histogram "Help."
    scraped 1 kept 1 added 1 duplicates 0
    reduced by limit
    10000 {__name__="h", job="j", x="y"} schema 0 count 6 sum 2.5 [5.0, 1.0] []
    exemplar {__name__="h", job="j", x="y"} {trace_id="b"} 0.5 7000
    metadata h histogram "Help."
    scraped 1 kept 1 added 1 duplicates 0
    "#);
}

#[test]
fn histograms_that_make_no_sense_fail_the_scrape() {
    let scrape = |own: Histogram, change: fn(&mut HistogramOptions)| {
        let mut bench = options(change);
        let body = family("h", "", 4, "", &[bytes(7, testing::exposition(&own, true))]);
        bench.scrape_as(PROTOBUF, &body)
    };
    let wrong = Histogram { count: 9.0, ..native(&[1.0]) };
    let mut out = scrape(wrong, |own| own.native = true);
    let far = Histogram {
        positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1000, length: 1 }],
        ..native(&[1.0, 1.0])
    };
    out += &scrape(far, |own| (own.native, own.bucket_limit) = (true, 1));
    assert_snapshot!(out, @r#"
    scraped 0 kept 0 added 0 duplicates 0 error: 1 observations found in buckets, but the Count field is 9: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)
    scraped 1 kept 1 added 0 duplicates 0 error: histogram bucket limit exceeded
    "#);
}

#[test]
fn many_buckets_with_long_labels_fail_the_scrape() {
    let scrape = |label: usize, buckets: u64| {
        let mut bench = options(|_| ());
        let all: Vec<u8> = (0..buckets).flat_map(|own| bucket(own as f64, own, None)).collect();
        let metric = [labels(&[("x", &"y".repeat(label))]), bytes(7, all)].concat();
        let shown = bench.scrape_as(PROTOBUF, &family("h", "", 4, "", &[metric]));
        shown.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(scrape(60_000, 20), "scraped 23 kept 23 added 23 duplicates 0");
    let refused = scrape(60_000, 400);
    assert!(refused.ends_with("error: labels of all series of the body take too many bytes"));
}

#[test]
fn classic_histograms_of_text_are_converted() {
    let mut bench = options(|own| own.convert = true);
    let of = |x: &str, low: u32, high: u32| {
        format!(
            "h_bucket{{x=\"{x}\",le=\"1\"}} {low}\nh_bucket{{x=\"{x}\",le=\"+Inf\"}} {high}\n\
             h_sum{{x=\"{x}\"}} 0.5\nh_count{{x=\"{x}\"}} {high}\n"
        )
    };
    let body = |low| format!("# TYPE h histogram\n{}{}other 1\n", of("a", low, 5), of("b", 0, 1));
    let mut out = bench.scrape(&body(2));
    out += &bench.scrape(&body(3));
    out += &bench.scrape(&format!("# TYPE h histogram\n{}", of("b", 1, 1)));
    // Contradictions leave nothing; without its type a name means nothing.
    out += &bench.scrape(&format!("# TYPE h histogram\n{}", of("b", 7, 1)));
    out += &bench.scrape("g_bucket{le=\"1\"} 1\n");
    assert_snapshot!(out, @r#"
    10000 {__name__="h", job="j", x="a"} schema -53 count 5 sum 0.5 [2.0, 3.0] [1.0]
    10000 {__name__="h", job="j", x="b"} schema -53 count 1 sum 0.5 [1.0] [1.0]
    10000 {__name__="other", job="j"} 1
    metadata h histogram ""
    scraped 3 kept 3 added 3 duplicates 0
    20000 {__name__="h", job="j", x="a"} schema -53 count 5 sum 0.5 [3.0, 2.0] [1.0]
    20000 {__name__="h", job="j", x="b"} schema -53 count 1 sum 0.5 [1.0] [1.0]
    20000 {__name__="other", job="j"} 1
    scraped 3 kept 3 added 0 duplicates 0
    30000 {__name__="h", job="j", x="b"} schema -53 count 1 sum 0.5 [1.0] [1.0]
    30000 {__name__="h", job="j", x="a"} stale (no old)
    30000 {__name__="other", job="j"} stale (no old)
    scraped 1 kept 1 added 0 duplicates 0
    40000 {__name__="h", job="j", x="b"} stale (no old)
    scraped 0 kept 0 added 0 duplicates 0
    50000 {__name__="g_bucket", job="j", le="1"} 1
    scraped 1 kept 1 added 1 duplicates 0
    "#);
    let mut bench = options(|own| (own.convert, own.always_classic) = (true, true));
    assert_snapshot!(bench.scrape(&body(2)), @r#"
    10000 {__name__="h_bucket", job="j", le="1.0", x="a"} 2
    10000 {__name__="h_bucket", job="j", le="+Inf", x="a"} 5
    10000 {__name__="h_sum", job="j", x="a"} 0.5
    10000 {__name__="h_count", job="j", x="a"} 5
    10000 {__name__="h", job="j", x="a"} schema -53 count 5 sum 0.5 [2.0, 3.0] [1.0]
    10000 {__name__="h_bucket", job="j", le="1.0", x="b"} 0
    10000 {__name__="h_bucket", job="j", le="+Inf", x="b"} 1
    10000 {__name__="h_sum", job="j", x="b"} 0.5
    10000 {__name__="h_count", job="j", x="b"} 1
    10000 {__name__="h", job="j", x="b"} schema -53 count 1 sum 0.5 [1.0] [1.0]
    10000 {__name__="other", job="j"} 1
    metadata h histogram ""
    scraped 11 kept 11 added 11 duplicates 0
    "#);
}

#[test]
fn exemplars_of_openmetrics_are_staged() {
    let body = "# TYPE a counter\n\
                a_total{x=\"y\"} 2 # {trace_id=\"t\",u=\"v\\\"w\"} 0.5 3.25\n\
                a_total{x=\"z\"} 2 # {} 1\n\
                # EOF\n";
    let mut out = String::new();
    let mut bench = options(|_| ());
    for _ in 0..2 {
        out += &bench.scrape_as(OPENMETRICS, body.as_bytes());
    }
    let body = "# TYPE h histogram\n\
                h_bucket{le=\"1.0\"} 2 # {trace_id=\"b\"} 0.5 3.5\n\
                h_bucket{le=\"+Inf\"} 3 # {trace_id=\"a\"} 1.5 2.5\n\
                h_count 3\n\
                # EOF\n";
    let mut bench = options(|own| own.convert = true);
    out += &bench.scrape_as(OPENMETRICS, body.as_bytes());
    assert_snapshot!(out, @r#"
    10000 {__name__="a_total", job="j", x="y"} 2
    exemplar {__name__="a_total", job="j", x="y"} {trace_id="t", u="v\"w"} 0.5 3250
    10000 {__name__="a_total", job="j", x="z"} 2
    exemplar {__name__="a_total", job="j", x="z"} {} 1 10000
    metadata a counter ""
    scraped 2 kept 2 added 2 duplicates 0
    20000 {__name__="a_total", job="j", x="y"} 2
    exemplar {__name__="a_total", job="j", x="y"} {trace_id="t", u="v\"w"} 0.5 3250
    20000 {__name__="a_total", job="j", x="z"} 2
    exemplar {__name__="a_total", job="j", x="z"} {} 1 20000
    scraped 2 kept 2 added 0 duplicates 0
    10000 {__name__="h", job="j"} schema -53 count 3 sum 0 [2.0, 1.0] [1.0]
    exemplar {__name__="h", job="j"} {trace_id="a"} 1.5 2500
    exemplar {__name__="h", job="j"} {trace_id="b"} 0.5 3500
    metadata h histogram ""
    scraped 1 kept 1 added 1 duplicates 0
    "#);
}

#[test]
fn factors_choose_schemas() {
    let schemas = [0.0, 1.0, 1.1, 1.4, 1.5, 2.0, 1e9].map(HistogramOptions::schema_of_factor);
    assert_eq!(schemas, [8, 8, 2, 1, 0, 0, -4]);
}
