//! Parts of Prometheus' API that are not about samples, asked of the real binary.
#![expect(clippy::disallowed_methods, reason = "changes the configuration of a running server")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::process::{
    PATIENCE, SeriesToWrite, Server, encoded, get, instant, now_ms, post_form, post_json,
    remote_write, request,
};

#[test]
fn queries_are_formatted_and_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "global: {}\n", &[]);
    let port = server.port;
    let ask = |path: &str, query: &str| post_form(port, path, &[("query", query)]);
    let formatted = ask("/api/v1/format_query", "sum  by(a)( rate( foo [5m] ) )").json();
    assert_eq!(formatted["data"], "sum by (a) (rate(foo[5m]))");
    let long = format!("topk(5, {} + {})", "a".repeat(60), "b".repeat(60));
    let formatted = ask("/api/v1/format_query", &long).json();
    assert_eq!(formatted["data"].as_str().unwrap().lines().count(), 6, "{formatted}");
    let parsed = ask("/api/v1/parse_query", "-up").json();
    assert_eq!(parsed["data"]["expr"]["matchers"][0]["value"], "up");
    for path in ["/api/v1/format_query", "/api/v1/parse_query"] {
        let refused = ask(path, "sum(");
        assert_eq!(refused.status, 400);
        let text = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(text.starts_with("invalid parameter \"query\": 1:5: parse error:"), "{text}");
    }

    // No time is too little, but wrong syntax is told first.
    let path = |query| format!("/api/v1/query?timeout=0&query={}", encoded(query));
    let refused = get(port, &path("1"));
    assert_eq!((refused.status, &refused.json()["errorType"]), (503, &json!("timeout")));
    assert_eq!(get(port, &path("1 +")).status, 400);
    let warned = get(port, "/api/v1/query?query=1&stats=x").json();
    assert!(warned["warnings"][0].as_str().unwrap().starts_with("value \"x\" for parameter"));
    assert!(warned["data"]["stats"].is_object());
    let refused = get(port, "/api/v1/query?query=1&lookback_delta=x").json();
    let text = "error parsing lookback delta duration: cannot parse \"x\" to a valid duration";
    assert_eq!(refused["error"], text);
}

#[test]
fn targets_of_requests_need_not_be_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::start(folder.path(), "global: {}\n", &["--web.enable-remote-write-receiver"]);
    let labels = vec![("__name__", "heat".to_owned()), ("room", "a".to_owned())];
    let series = [SeriesToWrite { labels, samples: vec![(now_ms(), 21.0)] }];
    assert_eq!(remote_write(server.port, &series).unwrap().status, 204);
    assert_eq!(instant(server.port, "heat").as_array().unwrap().len(), 1);
    // Two requests on one connection, the first with a body.
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let form = "query=heat>20";
    write!(
        stream,
        "POST /api/v1/query HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}\
         GET /api/v1/query?query=heat{{room=\"a\"}}>20<30 HTTP/1.1\r\nHost: a\r\n\r\n",
        form.len()
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    for _ in 0..2 {
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            let mut byte_count = 0;
            // The body has no line end: it is read by its length.
            loop {
                let mut head = String::new();
                reader.read_line(&mut head).unwrap();
                if let Some(value) = head.to_lowercase().strip_prefix("content-length:") {
                    byte_count = value.trim().parse().unwrap();
                }
                if head == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; byte_count];
            std::io::Read::read_exact(&mut reader, &mut body).unwrap();
            line = String::from_utf8(body).unwrap();
        }
        assert!(line.contains("\"21\""), "{line}");
    }
}

#[test]
fn the_server_tells_about_itself() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--web.enable-lifecycle", "--web.enable-admin-api"];
    let arguments = [&arguments[..], &["--web.enable-remote-write-receiver"]].concat();
    let server = Server::start(folder.path(), "global: {}\n", &arguments);
    let port = server.port;
    let data = |path: &str| get(port, path).json()["data"].clone();

    let features = data("/api/v1/features");
    assert_eq!(features["api"]["lifecycle"], true);
    assert_eq!(features["promql_functions"]["info"], false);

    let metrics = data("/api/v1/status/self_metrics?metric_name_pattern=prometheus_build_.*");
    assert_eq!(metrics[0]["name"], "prometheus_build_info");
    assert_eq!(metrics.as_array().unwrap().len(), 1);
    let refused = get(port, "/api/v1/status/self_metrics?metric_name_pattern=(");
    assert_eq!(refused.status, 400);

    assert_eq!(data("/api/v1/status/tsdb/blocks"), json!({ "blocks": [] }));
    let labels = vec![("__name__", "heat".to_owned())];
    let series = [SeriesToWrite { labels, samples: vec![(now_ms(), 21.0)] }];
    assert_eq!(remote_write(port, &series).unwrap().status, 204);
    let compacted = request(port, "POST", "/api/v1/admin/tsdb/compact", &[], b"").unwrap();
    assert_eq!(compacted.status, 204);
    let blocks = data("/api/v1/status/tsdb/blocks");
    assert_eq!(blocks["blocks"][0]["stats"]["numSamples"], 1, "{blocks}");

    assert_eq!(data("/api/v1/notifications"), json!([]));
    std::fs::write(folder.path().join("narthex.yml"), "x: y\n").unwrap();
    assert_eq!(request(port, "POST", "/-/reload", &[], b"").unwrap().status, 500);
    let notices = data("/api/v1/notifications");
    assert_eq!(notices[0]["text"], "Configuration reload has failed.");
    assert_eq!(notices[0]["active"], true);
    // The stream tells what there is, and that it is over.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /api/v1/notifications/live HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let event = |line: &String| line.starts_with("data: ");
    assert!(lines.find(event).unwrap().contains("\"active\":true"));
    std::fs::write(folder.path().join("narthex.yml"), "global: {}\n").unwrap();
    assert_eq!(request(port, "POST", "/-/reload", &[], b"").unwrap().status, 200);
    assert!(lines.find(event).unwrap().contains("\"active\":false"));
    assert_eq!(data("/api/v1/notifications"), json!([]));

    let refused = request(port, "DELETE", "/api/v1/query", &[], b"").unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (405, "Method Not Allowed\n"));
}

#[test]
fn metrics_of_opentelemetry_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let config = "otlp: {promote_resource_attributes: [host.name]}\n";
    let server = Server::start(folder.path(), config, &["--web.enable-otlp-receiver"]);
    let body = |temporality: u8| {
        json!({ "resourceMetrics": [{
            "resource": { "attributes": [
                { "key": "service.name", "value": { "stringValue": "shop" } },
                { "key": "host.name", "value": { "stringValue": "h1" } },
            ] },
            "scopeMetrics": [{ "metrics": [{
                "name": "orders", "unit": "{order}",
                "sum": { "isMonotonic": true, "aggregationTemporality": temporality,
                         "dataPoints": [{ "asInt": "5", "timeUnixNano": (now_ms() * 1_000_000).to_string() }] },
            }] }],
        }] })
    };
    let path = "/api/v1/otlp/v1/metrics";
    let taken = post_json(server.port, path, &body(2));
    assert_eq!((taken.status, taken.body.as_str()), (200, ""));
    let orders = instant(server.port, "orders_total{job=\"shop\", host_name=\"h1\"}");
    assert_eq!(orders[0]["value"][1], "5", "{orders}");
    assert_eq!(instant(server.port, "target_info").as_array().unwrap().len(), 1);
    let refused = post_json(server.port, path, &body(1));
    assert_eq!(refused.status, 400);
    assert!(refused.body.starts_with("invalid temporality"), "{}", refused.body);
    let kind = ("Content-Type", "text/plain");
    assert_eq!(request(server.port, "POST", path, &[kind], b"").unwrap().status, 400);
}

#[test]
fn scrape_pools_show_their_configuration_and_rules() {
    let folder = tempfile::tempdir().unwrap();
    let config = "scrape_configs:\n- job_name: a\n  basic_auth: {username: u, password: hush}\n\
        \x20 relabel_configs:\n\
        \x20 - {source_labels: [x, y], target_label: z}\n\
        \x20 - {source_labels: [x], regex: drop, action: drop}\n\
        \x20 - {regex: x, action: labeldrop}\n- job_name: b\n";
    let server = Server::start(folder.path(), config, &[]);
    let ask = |path: &str| get(server.port, path);
    let pools = ask("/api/v1/scrape_pools").json();
    assert_eq!(pools["data"]["scrapePools"], json!(["a", "b"]));
    let shown = ask("/api/v1/scrape_pools/config?scrapePool=a").json();
    let yaml = shown["data"]["yaml"].as_str().unwrap();
    assert!(yaml.contains("job_name: a\n") && yaml.contains("scrape_interval: 1m"), "{yaml}");
    assert!(yaml.contains("<secret>") && !yaml.contains("hush"), "{yaml}");
    assert!(!yaml.contains("job_name: b"), "{yaml}");
    assert_eq!(ask("/api/v1/scrape_pools/config?scrapePool=c").status, 404);
    assert_eq!(ask("/api/v1/scrape_pools/config").status, 400);

    let steps = |labels: &str| {
        let labels = encoded(labels);
        let path = format!("/api/v1/targets/relabel_steps?scrapePool=a&labels={labels}");
        ask(&path).json()["data"]["steps"].clone()
    };
    let kept = steps(r#"{"x": "1", "y": "2"}"#);
    assert_eq!(
        kept[0],
        json!({ "keep": true, "output": { "x": "1", "y": "2", "z": "1;2" }, "rule": {
            "sourceLabels": ["x", "y"], "separator": ";", "regex": "(.*)", "targetLabel": "z",
            "replacement": "$1", "action": "replace" } })
    );
    assert_eq!(kept[2]["output"], json!({ "y": "2", "z": "1;2" }));
    let dropped = steps(r#"{"x": "drop"}"#);
    let kept: Vec<bool> =
        dropped.as_array().unwrap().iter().map(|step| step["keep"] == true).collect();
    assert_eq!(kept, [true, false, false]);
    assert_eq!((&dropped[1]["output"], &dropped[2]["output"]), (&json!({}), &json!({})));
    for (query, error) in [
        ("scrapePool=a", "no labels parameter provided"),
        ("scrapePool=a&labels=x", "error parsing labels: expected value at line 1 column 1"),
        ("scrapePool=c&labels={}", "error retrieving scrape config: scrape pool \"c\" not found"),
    ] {
        let refused = ask(&format!("/api/v1/targets/relabel_steps?{query}"));
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!(error)));
    }
}
