//! Bodies against a recording store.

mod histograms;
mod starts;

use insta::assert_snapshot;

use super::*;
use crate::model::matcher::AnchoredRegex;
use crate::model::relabel::{Action, NameValidation, Rule};
use crate::scrape::cache::SharedMetadata;
use crate::scrape::tests::{Recorder, job};
use crate::storage::append::{Appender as _, OnReject};

/// One target, scraped every ten seconds.
struct Bench {
    job: JobOptions,
    cache: Cache,
    metadata: SharedMetadata,
    timestamp_ms: i64,
}

impl Bench {
    fn new(job: JobOptions) -> Self {
        let metadata = SharedMetadata::default();
        Self { job, cache: Cache::new(metadata.clone()), metadata, timestamp_ms: 0 }
    }

    /// Scrapes a body; what was staged, and the counts.
    fn scrape_as(&mut self, content_type: &str, body: &[u8]) -> String {
        self.timestamp_ms += 10_000;
        let recorder = Recorder::default();
        let mut append = recorder.appender(OnReject::Skip);
        let result = match Parser::for_content_type(body, content_type, None) {
            Ok(parser) => BodyAppender {
                job: &self.job,
                target_labels: &Labels::from_pairs([("job", "j")]),
                histograms: self.job.histograms,
                timestamp_ms: self.timestamp_ms,
                cache: &mut self.cache,
                append: &mut *append,
            }
            .append(parser),
            Err(err) => (Counts::default(), Err(err)),
        };
        if result.1.is_err() {
            append = recorder.appender(OnReject::Skip);
            let (vanished, _) = self.cache.end_failed();
            append_stale(&mut *append, &vanished, self.timestamp_ms);
        }
        append.commit().unwrap();
        let counts = result.0;
        let error = result.1.err().map(|err| format!(" error: {err}")).unwrap_or_default();
        format!(
            "{}scraped {} kept {} added {} duplicates {}{error}\n",
            recorder.take(),
            counts.scraped,
            counts.post_relabel,
            counts.added,
            counts.duplicates
        )
    }

    fn scrape(&mut self, body: &str) -> String {
        self.scrape_as("text/plain; version=0.0.4", body.as_bytes())
    }
}

fn rule(action: Action, source: &str, regex: &str) -> Rule {
    Rule {
        source_labels: vec![source.to_owned()],
        separator: ";".to_owned(),
        target_label: "x".to_owned(),
        regex: AnchoredRegex::new(regex).unwrap(),
        modulus: 0,
        replacement: "$1".to_owned(),
        action,
        name_validation: NameValidation::Utf8,
    }
}

#[test]
fn series_end_when_they_vanish_and_come_back() {
    let mut bench = Bench::new(job("j"));
    let mut out = bench.scrape("a 1\nb{x=\"y\"} NaN\n");
    out += &bench.scrape("a 2\nc 3\n");
    out += &bench.scrape("c 3\na 2\n");
    out += &bench.scrape("");
    out += &bench.scrape("b{x=\"y\"} 4\n");
    out += &bench.scrape("b{x=\"y\"} oops\n");
    out += &bench.scrape("b{x=\"y\"} 5\n");
    assert_snapshot!(out, @r#"
    10000 {__name__="a", job="j"} 1
    10000 {__name__="b", job="j", x="y"} NaN
    scraped 2 kept 2 added 2 duplicates 0
    20000 {__name__="a", job="j"} 2
    20000 {__name__="c", job="j"} 3
    20000 {__name__="b", job="j", x="y"} stale (no old)
    scraped 2 kept 2 added 1 duplicates 0
    30000 {__name__="c", job="j"} 3
    30000 {__name__="a", job="j"} 2
    scraped 2 kept 2 added 0 duplicates 0
    40000 {__name__="a", job="j"} stale (no old)
    40000 {__name__="c", job="j"} stale (no old)
    scraped 0 kept 0 added 0 duplicates 0
    50000 {__name__="b", job="j", x="y"} 4
    scraped 1 kept 1 added 1 duplicates 0
    60000 {__name__="b", job="j", x="y"} stale (no old)
    scraped 0 kept 0 added 0 duplicates 0 error: unsupported character in float while parsing: "b{x=\"y\"} oops"
    70000 {__name__="b", job="j", x="y"} 5
    scraped 1 kept 1 added 0 duplicates 0
    "#);
}

#[test]
fn two_spellings_of_one_series_end_together() {
    let mut bench = Bench::new(job("j"));
    let mut out = bench.scrape("a{x=\"1\",y=\"2\"} 1\n");
    out += &bench.scrape("a{y=\"2\",x=\"1\"} 2\n");
    out += &bench.scrape("b 1\n");
    assert_snapshot!(out, @r#"
    10000 {__name__="a", job="j", x="1", y="2"} 1
    scraped 1 kept 1 added 1 duplicates 0
    20000 {__name__="a", job="j", x="1", y="2"} 2
    scraped 1 kept 1 added 1 duplicates 0
    30000 {__name__="b", job="j"} 1
    30000 {__name__="a", job="j", x="1", y="2"} stale (no old)
    scraped 1 kept 1 added 1 duplicates 0
    "#);
}

#[test]
fn explicit_timestamps_take_no_part_in_staleness_unless_asked() {
    let mut bench = Bench::new(job("j"));
    let mut out = bench.scrape("a 1 5000\na 2 6000\nb 1\nb 2\n");
    out += &bench.scrape("c 1\n");
    bench.job.track_timestamps_staleness = true;
    out += &bench.scrape("a 1 7000\n");
    bench.job.honor_timestamps = false;
    out += &bench.scrape("d 1 8000\n");
    assert_snapshot!(out, @r#"
    5000 {__name__="a", job="j"} 1
    6000 {__name__="a", job="j"} 2
    10000 {__name__="b", job="j"} 1
    scraped 4 kept 4 added 2 duplicates 1
    20000 {__name__="c", job="j"} 1
    20000 {__name__="b", job="j"} stale (no old)
    scraped 1 kept 1 added 1 duplicates 0
    7000 {__name__="a", job="j"} 1
    30000 {__name__="c", job="j"} stale (no old)
    scraped 1 kept 1 added 1 duplicates 0
    40000 {__name__="d", job="j"} 1
    40000 {__name__="a", job="j"} stale (no old)
    scraped 1 kept 1 added 1 duplicates 0
    "#);
}

#[test]
fn relabelling_limits_and_bad_labels() {
    let mut options = job("j");
    options.metric_relabel_rules = vec![rule(Action::Drop, "__name__", "drop.*")];
    options.sample_limit = 2;
    let mut bench = Bench::new(options);
    let mut out = bench.scrape("a 1\ndrop1 2\nb 3\ndrop2 4\n");
    out += &bench.scrape("a 1\ndrop1 2\nb 3\nc 4\n");
    out += &bench.scrape("a 1\n");
    out += &bench.scrape("a{b=\"1\",b=\"2\"} 1\n");
    bench.job.label_limit = 2;
    out += &bench.scrape("e{b=\"1\"} 1\n");
    assert_snapshot!(out, @r#"
    10000 {__name__="a", job="j"} 1
    10000 {__name__="b", job="j"} 3
    scraped 4 kept 2 added 2 duplicates 0
    20000 {__name__="a", job="j"} stale (no old)
    20000 {__name__="b", job="j"} stale (no old)
    scraped 4 kept 3 added 0 duplicates 0 error: sample limit exceeded
    30000 {__name__="a", job="j"} 1
    scraped 1 kept 1 added 0 duplicates 0
    40000 {__name__="a", job="j"} stale (no old)
    scraped 1 kept 0 added 0 duplicates 0 error: label name "b" is not unique: invalid sample
    scraped 1 kept 0 added 0 duplicates 0 error: label_limit exceeded (metric: e, number of labels: 3, limit: 2)
    "#);
}

#[test]
fn changed_label_rules_end_the_old_series() {
    let mut bench = Bench::new(job("j"));
    let mut out = bench.scrape("a{job=\"own\"} 1\nb 1\n");
    bench.job.honor_labels = true;
    bench.cache.forget_labels();
    out += &bench.scrape("a{job=\"own\"} 1\nb 1\n");
    assert_snapshot!(out, @r#"
    10000 {__name__="a", exported_job="own", job="j"} 1
    10000 {__name__="b", job="j"} 1
    scraped 2 kept 2 added 2 duplicates 0
    20000 {__name__="a", job="own"} 1
    20000 {__name__="b", job="j"} 1
    20000 {__name__="a", exported_job="own", job="j"} stale (no old)
    scraped 2 kept 2 added 2 duplicates 0
    "#);
}

#[test]
fn metadata_is_told_when_it_changes_and_forgotten_ten_scrapes_later() {
    let mut bench = Bench::new(job("j"));
    let full = "# HELP h Help.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n";
    let mut out = bench.scrape(full);
    out += &bench.scrape(full);
    out += &bench.scrape("# HELP h Other.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n");
    out += &bench.scrape(full);
    for _ in 0..10 {
        bench.scrape("a 1\n");
    }
    out += &format!("{} known\n", bench.metadata.lock().len());
    bench.scrape("b 1\n");
    out += &format!("{} known\n", bench.metadata.lock().len());
    assert_snapshot!(out, @r#"
    10000 {__name__="h_bucket", job="j", le="1.0"} 1
    metadata h histogram "Help."
    scraped 1 kept 1 added 1 duplicates 0
    20000 {__name__="h_bucket", job="j", le="1.0"} 1
    scraped 1 kept 1 added 0 duplicates 0
    30000 {__name__="h_bucket", job="j", le="1.0"} 1
    metadata h histogram "Other."
    scraped 1 kept 1 added 0 duplicates 0
    40000 {__name__="h_bucket", job="j", le="1.0"} 1
    metadata h histogram "Help."
    scraped 1 kept 1 added 0 duplicates 0
    1 known
    0 known
    "#);
}

#[test]
fn the_content_type_decides() {
    let mut bench = Bench::new(job("j"));
    let mut out = String::new();
    for (content_type, body) in [
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# TYPE a counter\na_total 1 # {x=\"y\"} 1\n# EOF\n",
        ),
        ("Application/OpenMetrics-Text", "a_total 1\n"),
        ("", "a 1\n"),
        ("text/html; charset=utf-8", "a 1\n"),
        ("text", "a 1\n"),
        ("text/; x", "a 1\n"),
        ("application/vnd.google.protobuf; proto=x", "a 1\n"),
    ] {
        out += &bench.scrape_as(content_type, body.as_bytes());
    }
    assert_snapshot!(out, @r#"
    10000 {__name__="a_total", job="j"} 1
    exemplar {__name__="a_total", job="j"} {x="y"} 1 10000
    metadata a counter ""
    scraped 1 kept 1 added 1 duplicates 0
    20000 {__name__="a_total", job="j"} stale (no old)
    scraped 1 kept 1 added 0 duplicates 0 error: data does not end with # EOF
    scraped 0 kept 0 added 0 duplicates 0 error: non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target
    scraped 0 kept 0 added 0 duplicates 0 error: received unsupported Content-Type "text/html; charset=utf-8" and no fallback_scrape_protocol specified for target
    scraped 0 kept 0 added 0 duplicates 0 error: received unsupported Content-Type "text" and no fallback_scrape_protocol specified for target
    scraped 0 kept 0 added 0 duplicates 0 error: cannot parse Content-Type "text/; x" and no fallback_scrape_protocol for target
    scraped 0 kept 0 added 0 duplicates 0 error: proto: unexpected end of message
    "#);
    let fallback = Some(ScrapeProtocol::PrometheusText0_0_4);
    assert!(Parser::for_content_type(b"", "text/html", fallback).is_ok());
}

#[test]
fn failing_scrapes_of_ever_new_series_do_not_fill_the_cache() {
    let mut options = job("j");
    options.sample_limit = 1;
    let mut bench = Bench::new(options);
    let body = |scrape: usize| {
        let lines = (0..400).map(|index| format!("m{{i=\"{scrape}-{index}\"}} 1\n"));
        lines.collect::<Vec<_>>().concat()
    };
    for scrape in 0..20 {
        let out = bench.scrape(&body(scrape));
        assert!(out.contains("scraped 400 kept 400"), "{out}");
    }
    assert!(bench.cache.line_count() <= 1400, "{}", bench.cache.line_count());
}

#[test]
fn gzip_is_undone_up_to_the_limit() {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&[b'#'; 1000]).unwrap();
    let packed = encoder.finish().unwrap();
    assert_eq!(decompress(&packed, 0).map(|body| body.len()), Ok(1000));
    assert_eq!(decompress(&packed, 1001).map(|body| body.len()), Ok(1000));
    assert_eq!(decompress(&packed, 1000), Err(ScrapeError::BodySize));
    assert_eq!(decompress(&packed[..20], 0), Err(ScrapeError::Gzip));
    assert_eq!(decompress(b"plain", 0), Err(ScrapeError::Gzip));
}
