//! Remote write 2.0: histograms, exemplars and metadata come in, and are there after a kill and
//! after compaction.

use prost::Message;
use serde_json::{Value, json};

use crate::process::{Answer, Server, get, instant, now_ms, post_form, request};

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(uint32, repeated, tag = "1")]
    labels: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    metric_type: i32,
    #[prost(uint32, tag = "3")]
    help: u32,
    #[prost(uint32, tag = "4")]
    unit: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Series {
    #[prost(uint32, repeated, tag = "1")]
    labels: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    series: Vec<Series>,
}

const SYMBOLS: [&str; 9] = [
    "",
    "__name__",
    "latency_seconds",
    "hits_total",
    "trace_id",
    "abc",
    "How long.",
    "seconds",
    "plain_total",
];

fn send(server: &Server, series: Vec<Series>) -> Answer {
    send_request(server, &Request { symbols: SYMBOLS.map(str::to_owned).into(), series })
}

/// One sample of each of the series, which have a name alone.
pub fn send_samples(server: &Server, names: &[&str], timestamp: i64, value: f64) -> Answer {
    let symbols = ["", "__name__"].iter().chain(names).map(|text| (*text).to_owned()).collect();
    let one = |at: usize| {
        let samples = vec![Sample { value, timestamp, ..Sample::default() }];
        Series { labels: vec![1, at as u32 + 2], samples, ..Series::default() }
    };
    send_request(server, &Request { symbols, series: (0..names.len()).map(one).collect() })
}

fn send_request(server: &Server, body: &Request) -> Answer {
    let body = body.encode_to_vec();
    let compressed = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let headers = [
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "2.0.0"),
    ];
    request(server.port, "POST", "/api/v1/write", &headers, &compressed).unwrap()
}

fn histogram(count: u64, timestamp: i64) -> Histogram {
    Histogram {
        count,
        sum: 2.5,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_deltas: vec![2, 1],
        timestamp,
        start_timestamp: 0,
    }
}

/// All that was sent, as the API tells it.
fn told(server: &Server) -> Value {
    let histogram = instant(server.port, "latency_seconds")[0]["histogram"][1].clone();
    let exemplars = get(server.port, "/api/v1/query_exemplars?query=rate(latency_seconds[5m])");
    let metadata = get(server.port, "/api/v1/metadata?metric=latency_seconds");
    json!([
        histogram,
        instant(server.port, "hits_total")[0]["value"][1],
        exemplars.json()["data"][0]["seriesLabels"],
        exemplars.json()["data"][0]["exemplars"][0]["labels"],
        exemplars.json()["data"][0]["exemplars"][0]["value"],
        metadata.json()["data"],
    ])
}

#[test]
fn histograms_exemplars_and_metadata_are_there_after_a_kill_and_after_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--web.enable-admin-api", "--web.enable-remote-write-receiver"];
    let mut server = Server::start(folder.path(), "global: {}\n", &flags);
    let now = now_ms() - 1_000;
    let latency = Series {
        labels: vec![1, 2],
        histograms: vec![histogram(5, now)],
        exemplars: vec![Exemplar { labels: vec![4, 5], value: 0.25, timestamp: now }],
        metadata: Some(Metadata { metric_type: 3, help: 6, unit: 7 }),
        ..Series::default()
    };
    let samples = vec![Sample { value: 7.0, timestamp: now, start_timestamp: 0 }];
    let hits = Series { labels: vec![1, 3], samples, ..Series::default() };
    let answer = send(&server, vec![latency, hits]);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    // What makes no sense is told, and is no reason to refuse the rest.
    let wrong =
        Series { labels: vec![1, 2], histograms: vec![histogram(6, now)], ..Series::default() };
    let samples = vec![Sample { value: 8.0, timestamp: now + 1, start_timestamp: 0 }];
    let more = Series { labels: vec![1, 3], samples, ..Series::default() };
    let answer = send(&server, vec![wrong, more]);
    let text = "5 observations found in buckets, but the Count field is 6";
    assert_eq!((answer.status, answer.body.starts_with(text)), (400, true), "{}", answer.body);
    let expected = json!([
        {
            "count": "5",
            "sum": "2.5",
            "buckets": [[0, "0.5", "1", "2"], [0, "1", "2", "3"]],
        },
        "8",
        {"__name__": "latency_seconds"},
        {"trace_id": "abc"},
        "0.25",
        {"latency_seconds": [{"type": "histogram", "help": "How long.", "unit": "seconds"}]},
    ]);
    assert_eq!(told(&server), expected);
    server.kill();
    server.start_again();
    assert_eq!(told(&server), expected, "after a kill");
    assert_eq!(post_form(server.port, "/api/v1/admin/tsdb/compact", &[]).status, 204);
    assert_eq!(told(&server), expected, "after compaction");
    server.kill();
    server.start_again();
    assert_eq!(told(&server), expected, "from segment and checkpoint");
}

/// What functions that look at start timestamps say of all that was sent.
fn starts(server: &Server) -> Value {
    let value = |query: &str| instant(server.port, query)[0]["value"][1].clone();
    json!([
        value("start_timestamp(hits_total) - start_timestamp(latency_seconds)"),
        value("timestamp(hits_total) - start_timestamp(hits_total)"),
        value("resets(hits_total[1m])"),
        value("resets(plain_total[1m])"),
        value("count_over_time(hits_total[1m])"),
    ])
}

#[test]
fn start_timestamps_are_there_after_a_kill_and_after_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let features = "st-storage,use-start-timestamps,promql-experimental-functions";
    let flags = [
        "--web.enable-admin-api",
        "--web.enable-remote-write-receiver",
        &format!("--enable-feature={features}"),
    ];
    let mut server = Server::start(folder.path(), "global: {}\n", &flags);
    let now = now_ms() - 1_000;
    // The counter began anew between its samples, though it does not look like it.
    let samples = vec![
        Sample { value: 5.0, timestamp: now - 20_000, start_timestamp: now - 30_000 },
        Sample { value: 9.0, timestamp: now, start_timestamp: now - 10_000 },
    ];
    let plain: Vec<Sample> =
        samples.iter().map(|own| Sample { start_timestamp: 0, ..own.clone() }).collect();
    let own = Histogram { start_timestamp: now - 15_000, ..histogram(5, now) };
    let answer = send(
        &server,
        vec![
            Series { labels: vec![1, 3], samples, ..Series::default() },
            Series { labels: vec![1, 8], samples: plain, ..Series::default() },
            Series { labels: vec![1, 2], histograms: vec![own], ..Series::default() },
        ],
    );
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let expected = json!(["5", "10", "1", "0", "2"]);
    assert_eq!(starts(&server), expected);
    server.kill();
    server.start_again();
    assert_eq!(starts(&server), expected, "after a kill");
    assert_eq!(post_form(server.port, "/api/v1/admin/tsdb/compact", &[]).status, 204);
    assert_eq!(starts(&server), expected, "after compaction");
    server.kill();
    server.start_again();
    assert_eq!(starts(&server), expected, "from segments");
}

#[test]
fn counters_begin_with_a_zero_where_that_feature_is_on() {
    let folder = tempfile::tempdir().unwrap();
    let flags =
        ["--web.enable-remote-write-receiver", "--enable-feature=created-timestamp-zero-ingestion"];
    let server = Server::start(folder.path(), "global: {}\n", &flags);
    let now = now_ms() - 1_000;
    for (value, timestamp) in [(5.0, now - 5_000), (6.0, now)] {
        let samples = vec![Sample { value, timestamp, start_timestamp: now - 20_000 }];
        let hits = Series { labels: vec![1, 3], samples, ..Series::default() };
        let answer = send(&server, vec![hits]);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    }
    let found = instant(server.port, "hits_total[1m]")[0]["values"].clone();
    let seconds = |ms: i64| json!(ms as f64 / 1000.0);
    let expected =
        json!([[seconds(now - 20_000), "0"], [seconds(now - 5_000), "5"], [seconds(now), "6"]]);
    assert_eq!(found, expected);
}
