//! Whole requests in JSON, and what is committed of them.

use std::sync::Mutex;

use insta::assert_snapshot;

use super::*;
use crate::model::exemplar::Exemplar;
use crate::storage::append::Appended;

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

struct Batch {
    recorder: Recorder,
    staged: Vec<String>,
    since: String,
}

impl Appender for Recorder {
    fn appender(&self, on_reject: OnReject) -> Box<dyn Append> {
        assert_eq!(on_reject, OnReject::Abort);
        Box::new(Batch { recorder: self.clone(), staged: Vec::new(), since: String::new() })
    }
}

impl Append for Batch {
    fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64) {
        let since = std::mem::take(&mut self.since);
        self.staged.push(format!("{} {value} @{timestamp_ms}{since}", series.to_labels()));
    }

    fn histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, histogram: &Histogram) {
        let (count, since) = (histogram.count, std::mem::take(&mut self.since));
        let series = series.to_labels();
        self.staged.push(format!("{series} histogram of {count} @{timestamp_ms}{since}"));
    }

    fn exemplar(&mut self, series: SeriesKey<'_>, own: &Exemplar) {
        let Exemplar { labels, value, timestamp_ms } = own;
        let series = series.to_labels();
        let le = series.get("le").unwrap_or("");
        self.staged.push(format!("{} {le} # {labels} {value} @{timestamp_ms}", series.name()));
    }

    fn metadata(&mut self, metric: &str, metadata: &Metadata) {
        let Metadata { metric_type, help, unit } = metadata;
        self.staged.push(format!("# {metric} {} {help:?} {unit:?}", metric_type.as_str()));
    }

    fn start(&mut self, start_ms: i64) {
        self.since = format!(" since {start_ms}");
    }

    fn reject_out_of_order(&mut self, _: bool) {}

    fn commit(self: Box<Self>) -> Result<(Appended, Ticket), AppendError> {
        self.recorder.0.lock().unwrap().extend(self.staged);
        Ok((Appended::default(), Ticket::settled(Ok(()))))
    }
}

fn options() -> Options {
    Options {
        strategy: Strategy::UnderscoreEscapingWithSuffixes,
        labels: LabelNamer { escapes: true, prefixes_underscore: true, keeps_underscores: true },
        promoted: Promoted::Only(Vec::new()),
        keep_identifying: false,
        histograms_to_custom_buckets: false,
        promote_scope: false,
        type_and_unit_labels: false,
        lookback_delta_ms: 300_000,
    }
}

/// What is committed of these metrics, one thing on a line, or the error.
fn written(metrics: &str, options: &Options) -> String {
    let body = format!(
        r#"{{"resourceMetrics": [{{
            "resource": {{"attributes": [
                {{"key": "service.name", "value": {{"stringValue": "shop"}}}},
                {{"key": "service.namespace", "value": {{"stringValue": "eu"}}}},
                {{"key": "service.instance.id", "value": {{"intValue": 7}}}},
                {{"key": "host.name", "value": {{"stringValue": "h1"}}}}
            ]}},
            "scopeMetrics": [{{"scope": {{"name": "lib", "version": "2"}}, "metrics": [{metrics}]}}]
        }}]}}"#
    );
    let recorder = Recorder::default();
    let receiver = Receiver::new(Arc::new(recorder.clone()), &Registry::new());
    match receiver.write(body.as_bytes(), Format::Json, options) {
        Ok(_) => recorder.0.lock().unwrap().join("\n"),
        Err(err) => {
            assert!(recorder.0.lock().unwrap().is_empty(), "nothing of it is stored");
            err.to_string()
        }
    }
}

const COUNTER: &str = r#"{"name": "http.requests", "description": "Requests.", "unit": "{request}",
    "sum": {"isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [
        {"timeUnixNano": 1000000000, "asInt": 3, "attributes": [
            {"key": "http.path", "value": {"stringValue": "/a"}},
            {"key": "http_path", "value": {"stringValue": "/b"}},
            {"key": "ok", "value": {"boolValue": true}}]}]}}"#;

#[test]
fn counters_have_names_of_prometheus() {
    assert_snapshot!(written(COUNTER, &options()), @r#"
    # http_requests_total counter "Requests." ""
    {__name__="http_requests_total", http_path="/a;/b", instance="7", job="eu/shop", ok="true"} 3 @1000
    # target_info gauge "Target metadata" ""
    {__name__="target_info", host_name="h1", instance="7", job="eu/shop"} 1 @1000
    "#);
    let as_they_are = Options {
        strategy: Strategy::NoTranslation,
        labels: LabelNamer { escapes: false, ..options().labels },
        promoted: Promoted::AllBut(vec!["service.name".to_owned()]),
        keep_identifying: true,
        promote_scope: true,
        type_and_unit_labels: true,
        ..options()
    };
    assert_snapshot!(written(COUNTER, &as_they_are), @r#"
    # http.requests counter "Requests." ""
    {__name__="http.requests", __type__="counter", "host.name"="h1", "http.path"="/a", http_path="/b", instance="7", job="eu/shop", ok="true", otel_scope_name="lib", otel_scope_version="2", "service.instance.id"="7", "service.namespace"="eu"} 3 @1000
    # target_info gauge "Target metadata" ""
    {__name__="target_info", "host.name"="h1", instance="7", job="eu/shop", "service.instance.id"="7", "service.name"="shop", "service.namespace"="eu"} 1 @1000
    "#);
}

const HISTOGRAM: &str = r#"{"name": "wait", "unit": "s", "histogram": {
    "aggregationTemporality": 2, "dataPoints": [
        {"timeUnixNano": 1000000000, "count": 3, "sum": 4.5,
         "bucketCounts": [1, 2, 0], "explicitBounds": [0.5, 10]},
        {"timeUnixNano": 401000000000, "count": 0, "flags": 1}]}}"#;

#[test]
fn histograms_are_classic_or_native() {
    assert_snapshot!(written(HISTOGRAM, &options()), @r#"
    # wait_seconds histogram "" "seconds"
    {__name__="wait_seconds_sum", instance="7", job="eu/shop"} 4.5 @1000
    {__name__="wait_seconds_count", instance="7", job="eu/shop"} 3 @1000
    {__name__="wait_seconds_bucket", instance="7", job="eu/shop", le="0.5"} 1 @1000
    {__name__="wait_seconds_bucket", instance="7", job="eu/shop", le="10"} 3 @1000
    {__name__="wait_seconds_bucket", instance="7", job="eu/shop", le="+Inf"} 3 @1000
    {__name__="wait_seconds_count", instance="7", job="eu/shop"} NaN @401000
    {__name__="wait_seconds_bucket", instance="7", job="eu/shop", le="+Inf"} NaN @401000
    # target_info gauge "Target metadata" ""
    {__name__="target_info", host_name="h1", instance="7", job="eu/shop"} 1 @1000
    {__name__="target_info", host_name="h1", instance="7", job="eu/shop"} 1 @151000
    {__name__="target_info", host_name="h1", instance="7", job="eu/shop"} 1 @301000
    {__name__="target_info", host_name="h1", instance="7", job="eu/shop"} 1 @401000
    "#);
    let native = Options { histograms_to_custom_buckets: true, ..options() };
    let lines = written(HISTOGRAM, &native);
    assert!(lines.contains(
        r#"{__name__="wait_seconds", instance="7", job="eu/shop"} histogram of 3 @1000"#
    ));
}

#[test]
fn exemplars_belong_to_sums_and_buckets() {
    let exemplars = |long: &str| {
        format!(
            r#""exemplars": [
            {{"timeUnixNano": 900000000, "asDouble": 20, "traceId": "AB01", "spanId": "0000",
              "filteredAttributes": [{{"key": "who", "value": {{"stringValue": "{long}"}}}}]}},
            {{"asInt": "-1", "spanId": "0c"}},
            {{"timeUnixNano": 800000000, "asDouble": 0.5}}], "timeUnixNano"#
        )
    };
    let of = |metric: &str, long: &str, options: &Options| {
        let lines = written(&metric.replacen("\"timeUnixNano", &exemplars(long), 1), options);
        lines.lines().filter(|line| line.contains(" # ")).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(of(HISTOGRAM, "me", &options()), @r#"
    wait_seconds_bucket 0.5 # {} 0.5 @800
    wait_seconds_bucket 0.5 # {span_id="0c"} -1 @1000
    wait_seconds_bucket +Inf # {trace_id="ab01", who="me"} 20 @900
    "#);
    assert_snapshot!(of(COUNTER, &"long".repeat(40), &options()), @r#"
    http_requests_total  # {} 0.5 @800
    http_requests_total  # {trace_id="ab01"} 20 @900
    http_requests_total  # {span_id="0c"} -1 @1000
    "#);
    let native = Options { histograms_to_custom_buckets: true, ..options() };
    assert_snapshot!(of(HISTOGRAM, "me", &native), @r#"
    wait_seconds  # {} 0.5 @800
    wait_seconds  # {trace_id="ab01", who="me"} 20 @900
    wait_seconds  # {span_id="0c"} -1 @1000
    "#);
    assert_eq!(of(&COUNTER.replace("sum", "gauge"), "me", &options()), "", "gauges have none");
    let nothing = COUNTER.replacen("\"timeUnixNano", r#""exemplars": [{}], "timeUnixNano"#, 1);
    assert_eq!(written(&nothing, &options()), "unsupported exemplar value type: Empty");
}

#[test]
fn summaries_have_quantiles() {
    let summary = r#"{"name": "size", "unit": "By", "summary": {"dataPoints": [
        {"timeUnixNano": 1000000000, "count": 2, "sum": 5,
         "quantileValues": [{"quantile": 0.5, "value": 2}]}]}}"#;
    let lines = written(summary, &options());
    assert!(lines.contains(
        r#"{__name__="size_bytes", instance="7", job="eu/shop", quantile="0.5"} 2 @1000"#
    ));
    assert!(
        lines.contains(r#"{__name__="size_bytes_count", instance="7", job="eu/shop"} 2 @1000"#)
    );
}

#[test]
fn what_counts_has_a_start() {
    let body = COUNTER
        .replace(r#"{"timeUnixNano""#, r#"{"startTimeUnixNano": "500000000", "timeUnixNano""#);
    let first = |own: &str| own.lines().nth(1).unwrap_or_default().to_owned();
    assert!(first(&written(&body, &options())).ends_with(" 3 @1000 since 500"));
    let gauge = body.replace("\"isMonotonic\": true", "\"isMonotonic\": false");
    assert!(first(&written(&gauge, &options())).ends_with(" 3 @1000"));
    let body = HISTOGRAM
        .replace(r#"{"timeUnixNano""#, r#"{"startTimeUnixNano": "500000000", "timeUnixNano""#);
    let lines = written(&body, &options());
    assert_eq!(lines.matches(" since 500").count(), 5, "none where it ended: {lines}");
    let native = Options { histograms_to_custom_buckets: true, ..options() };
    assert!(written(&body, &native).contains(" histogram of 3 @1000 since 500"));
}

#[test]
fn requests_are_stored_as_a_whole_or_not_at_all() {
    let delta = COUNTER.replace("\"aggregationTemporality\": 2", "\"aggregationTemporality\": 1");
    let refusal = r#"invalid temporality and type combination for metric "http.requests""#;
    assert_eq!(written(&format!("{COUNTER}, {delta}"), &options()), refusal);
    let nameless = r#"{"name": "!", "gauge": {"dataPoints": [{"asInt": 1}]}}"#;
    let errors = written(&format!("{nameless}, {delta}"), &options());
    assert_eq!(errors.lines().count(), 2, "{errors}");
    // Metrics without data points are left out.
    let empty = r#"{"name": "x", "gauge": {"dataPoints": []}}"#;
    assert_eq!(written(empty, &options()), "");
}

#[test]
fn labels_that_all_samples_share_are_bounded() {
    let written = |job: usize, points: usize| {
        let point = r#"{"timeUnixNano": 1000000000, "asInt": 3}"#;
        let points = vec![point; points].join(",");
        let body = format!(
            r#"{{"resourceMetrics": [{{
                "resource": {{"attributes": [
                    {{"key": "service.name", "value": {{"stringValue": "{}"}}}}
                ]}},
                "scopeMetrics": [{{"metrics": [
                    {{"name": "a", "gauge": {{"dataPoints": [{points}]}}}},
                    {{"name": "b", "gauge": {{"dataPoints": [{points}]}}}}
                ]}}]
            }}]}}"#,
            "j".repeat(job)
        );
        let recorder = Recorder::default();
        let receiver = Receiver::new(Arc::new(recorder.clone()), &Registry::new());
        let result = receiver.write(body.as_bytes(), Format::Json, &options());
        let staged = recorder.0.lock().unwrap().len();
        result.map(|_| staged).map_err(|err| err.to_string())
    };
    assert_eq!(written(60_000, 20), Ok(42));
    let shared = "labels that all series of a resource share have more than 65536 bytes";
    assert_eq!(written(70_000, 1), Err(shared.to_owned()));
    let all = "labels of all samples of the request have more than 4194304 bytes";
    assert_eq!(written(60_000, 100), Err(all.to_owned()));
    // The last sample is the one that is too much.
    assert_eq!(written(60_000, 35), Err(all.to_owned()));
}
