//! The calls that Grafana's Prometheus data source makes, answered as it needs them.

use crate::process::{SeriesToWrite, Server, get, now_ms, post_form, remote_write};

fn server(folder: &std::path::Path) -> Server {
    let server = Server::start(folder, "global: {}\n", &["--web.enable-remote-write-receiver"]);
    let now = now_ms();
    let series: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|job| SeriesToWrite {
            labels: vec![
                ("__name__", "requests_total".to_owned()),
                ("http.status", "200".to_owned()),
                ("job", (*job).to_owned()),
            ],
            samples: (0..20).map(|n| (now - (20 - n) * 15_000, n as f64)).collect(),
        })
        .collect();
    assert_eq!(remote_write(server.port, &series).unwrap().status, 204);
    server
}

#[test]
fn save_and_test_explore_and_dashboards_work() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path());
    let port = server.port;
    let (start, end) = ((now_ms() / 1000 - 300).to_string(), (now_ms() / 1000).to_string());

    // "Save & test"
    let answer = post_form(port, "/api/v1/query", &[("query", "1+1"), ("time", "4")]);
    assert_eq!(answer.json()["data"]["result"], serde_json::json!([4, "2"]));
    let build = get(port, "/api/v1/status/buildinfo").json();
    assert!(build["data"]["version"].as_str().unwrap().starts_with("3."), "{build}");
    assert!(build["data"]["features"].is_null(), "else Grafana takes us for Mimir");

    // Queries by POST form, with float step.
    let form = [
        ("query", "sum(rate(requests_total[1m]))"),
        ("start", &start),
        ("end", &end),
        ("step", "15.0"),
    ];
    let answer = post_form(port, "/api/v1/query_range", &form);
    let data = &answer.json()["data"];
    assert_eq!(data["resultType"], "matrix");
    assert!(data["result"][0]["values"].as_array().unwrap().len() > 10, "{data}");
    let answer = post_form(port, "/api/v1/query", &[("query", "sum(")]);
    assert_eq!((answer.status, answer.json()["errorType"].as_str()), (400, Some("bad_data")));

    // Exemplar probe: times in milliseconds, taken for seconds, must not be refused.
    let path =
        format!("/api/v1/query_exemplars?query=test&start={}&end={}", now_ms() - 1000, now_ms());
    assert_eq!(get(port, &path).json()["status"], "success");

    // Editor: names, values (also of escaped names), series, metadata, with limits.
    let path = format!("/api/v1/label/__name__/values?limit=40000&start={start}&end={end}");
    assert_eq!(get(port, &path).json()["data"], serde_json::json!(["requests_total"]));
    let form =
        [("match[]", "requests_total"), ("start", &start), ("end", &end), ("limit", "40000")];
    let names = post_form(port, "/api/v1/labels", &form).json();
    assert_eq!(names["data"], serde_json::json!(["__name__", "http.status", "job"]));
    let values = get(port, "/api/v1/label/U__http_2e_status/values").json();
    assert_eq!(values["data"], serde_json::json!(["200"]));
    let path = "/api/v1/label/job/values?limit=2";
    let cut = get(port, path).json();
    assert_eq!(cut["data"], serde_json::json!(["a", "b"]));
    assert_eq!(cut["warnings"][0], "results truncated due to limit");
    let path = format!(
        "/api/v1/series?match[]=%7B__name__!%3D%22%22%7D&limit=40000&start={start}&end={end}"
    );
    assert_eq!(get(port, &path).json()["data"].as_array().unwrap().len(), 3);
    assert_eq!(get(port, "/api/v1/metadata?limit=40000").json()["status"], "success");
    assert_eq!(get(port, "/api/v1/rules").json()["data"]["groups"], serde_json::json!([]));
    assert_eq!(get(port, "/api/v1/alerts").json()["data"]["alerts"], serde_json::json!([]));
}
