//! What surrounds the evaluation of queries in the real binary: the query log, statistics, the
//! list of active queries, cancellation, and limits.
#![expect(clippy::disallowed_methods, reason = "reads and moves the files of a running server")]

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::process::{
    Answer, PATIENCE, SeriesToWrite, Server, encoded, get, now_ms, remote_write, request, wait_for,
};

/// A query that would take minutes: at each of many steps the median of millions of samples.
const ENDLESS: &str = "quantile_over_time(0.5, vector(1)[4000000s:1s])";

fn endless_path() -> String {
    format!("/api/v1/query_range?query={}&start=0&end=10000&step=1", encoded(ENDLESS))
}

/// Sends a request and does not wait for the answer.
fn ask(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn active(port: u16) -> Vec<Value> {
    get(port, "/api/v1/status/active_queries").json()["data"].as_array().unwrap().clone()
}

fn wait_for_state(port: u16, state: &str) -> Value {
    wait_for(state, || active(port).into_iter().find(|query| query["state"] == state))
}

fn delete(port: u16, id: &Value) -> Answer {
    let path = format!("/api/v1/status/active_queries/{id}");
    request(port, "DELETE", &path, &[], b"").unwrap()
}

#[test]
fn active_queries_are_listed_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "global: {}\n", &["--query.max-concurrency=1"]);
    let port = server.port;
    assert_eq!(active(port), Vec::<Value>::new());
    // What was quick before waits like all others.
    let waits = "/api/v1/query?query=waits&time=10";
    (0..3).for_each(|_| assert_eq!(get(port, waits).status, 200));
    let mut first = ask(port, &endless_path());
    let running = wait_for_state(port, "running");
    assert_eq!(running["query"], ENDLESS);
    assert!(running["elapsedSeconds"].is_number() && running["startTime"].is_string());
    // Another one waits, and is ended while it does.
    let mut second = ask(port, waits);
    let waiting = wait_for_state(port, "waiting");
    assert_eq!((&waiting["query"], active(port).len()), (&json!("waits"), 2));
    for (stream, query, place) in
        [(&mut second, &waiting, "query queue"), (&mut first, &running, "expression evaluation")]
    {
        let ended = delete(port, &query["id"]);
        assert_eq!((ended.status, &ended.json()["data"]["id"]), (200, &query["id"]));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 499"), "{answer}");
        let text = format!("\"error\":\"query was canceled in {place}\"");
        assert!(answer.contains(&text) && answer.contains("\"canceled\""), "{answer}");
    }
    wait_for("the list to be empty", || active(port).is_empty().then_some(()));
    let gone = delete(port, &running["id"]);
    assert_eq!((gone.status, &gone.json()["errorType"]), (404, &json!("not_found")));
    assert_eq!(delete(port, &json!("x")).status, 400);
}

#[test]
fn answers_are_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--web.enable-remote-write-receiver"];
    let server = Server::start(folder.path(), "global: {}\n", &flags);
    let at_ms = now_ms();
    let series = [1_u8, 2].map(|number| SeriesToWrite {
        labels: vec![
            ("__name__", "up".to_owned()),
            ("job", "a\"b".to_owned()),
            ("n", number.to_string()),
        ],
        samples: vec![(at_ms, f64::from(number) / 3.0)],
    });
    assert_eq!(remote_write(server.port, &series).unwrap().status, 204);
    let time = at_ms / 1000 + 1;
    let (range, query) = (format!("start={}&end={time}", time - 60), encoded("up / 7"));
    for path in [
        format!("query?query={query}&time={time}"),
        format!("query_range?query={query}&{range}&step=15"),
        format!("query?query=up%2B&time={time}"),
        format!("query?query={query}&time={time}&limit=1"),
        format!("labels?{range}"),
        format!("labels?{range}&match[]=up{{n=~\"1|x\"}}"),
        format!("label/n/values?{range}"),
        format!("series?{range}&match[]=up"),
        format!("series?{range}&match[]=up{{"),
    ] {
        let ask = || get(server.port, &format!("/api/v1/{path}"));
        let first = ask();
        // Most of them are answered without a change of threads.
        for _ in 0..5 {
            let again = ask();
            assert_eq!((again.status, again.body), (first.status, first.body.clone()), "{path}");
        }
    }
}

#[test]
fn a_query_ends_with_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "global: {}\n", &[]);
    let client = ask(server.port, &endless_path());
    wait_for_state(server.port, "running");
    drop(client);
    wait_for("the query to end", || active(server.port).is_empty().then_some(()));
}

#[test]
fn a_query_ends_at_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "global: {}\n", &[]);
    let answer = get(server.port, &format!("{}&timeout=50ms", endless_path()));
    assert_eq!(answer.status, 503, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["error"], "query timed out in expression evaluation");
    assert_eq!(answer["errorType"], "timeout");
}

/// Lines of a query log that are whole.
fn lines(folder: &std::path::Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn queries_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let rules = "groups: [{name: g, interval: 1s, rules: [{record: one, expr: vector(1) + 0}]}]\n";
    std::fs::write(path.join("rules.yml"), rules).unwrap();
    let config = |log: &str| format!("global: {{{log}}}\nrule_files: [rules.yml]\n");
    let with_log = config("query_log_file: queries.log");

    let flags = ["--web.enable-lifecycle"];
    std::fs::write(path.join("narthex.yml"), &with_log).unwrap();
    let server = Server::start(path, &with_log, &flags);
    let port = server.port;
    let failing = encoded("label_replace(vector(1), \"a\", \"\", \"b\", \"(\")");
    assert_eq!(get(port, "/api/v1/query?query=up%2B").status, 400);
    assert_eq!(get(port, &format!("/api/v1/query?query={failing}")).status, 422);
    let range = "/api/v1/query_range?query=time()&start=10&end=25.5&step=7.5";
    assert_eq!(get(port, range).status, 200);
    let by_client = |line: &Value| line.get("httpRequest").is_some();
    let logged = lines(path, "queries.log");
    let logged: Vec<&Value> = logged.iter().filter(|line| by_client(line)).collect();
    let [failed, ranged] = logged.as_slice() else { panic!("{logged:?}") };
    assert_eq!(failed["error"], "invalid regular expression in label_replace(): (");
    assert_eq!(
        ranged["params"],
        json!({ "query": "time()", "step": 7,
            "start": "1970-01-01T00:00:10.000Z", "end": "1970-01-01T00:00:25.500Z" })
    );
    assert_eq!(
        ranged["httpRequest"],
        json!({ "clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query_range" })
    );
    assert_eq!(ranged["msg"], "promql query logged");
    assert!(ranged["time"].is_string() && ranged.get("error").is_none());
    assert!(ranged["stats"]["timings"]["execTotalTime"].is_number());
    assert_eq!(ranged["stats"]["samples"]["totalQueryableSamples"], 0);
    let of_rule = wait_for("a rule in the log", || {
        lines(path, "queries.log").into_iter().find(|line| !by_client(line))
    });
    let file = path.join("rules.yml");
    assert_eq!(of_rule["ruleGroup"], json!({ "file": file.to_str().unwrap(), "name": "g" }));
    assert_eq!(of_rule["params"]["query"], "vector(1) + 0");

    // A log that was moved away is begun anew with the next configuration.
    std::fs::rename(path.join("queries.log"), path.join("old.log")).unwrap();
    let reload = || request(port, "POST", "/-/reload", &[], b"").unwrap().status;
    assert_eq!(reload(), 200);
    let before = lines(path, "old.log").len();
    assert_eq!(get(port, "/api/v1/query?query=later").status, 200);
    let of_later = |file| lines(path, file).iter().any(|line| line["params"]["query"] == "later");
    assert!(of_later("queries.log"));
    assert_eq!(lines(path, "old.log").len(), before);
    let enabled = |value: u8| {
        let line = format!("\nprometheus_engine_query_log_enabled {value}\n");
        get(port, "/metrics").body.contains(&line)
    };
    assert!(enabled(1));
    // One that cannot be opened is no reason to stop writing the one there is.
    std::fs::write(path.join("narthex.yml"), config("query_log_file: no/such/folder")).unwrap();
    assert_eq!(reload(), 500);
    assert!(enabled(1));
    std::fs::write(path.join("narthex.yml"), config("")).unwrap();
    assert_eq!(reload(), 200);
    assert!(enabled(0));
}

#[test]
fn samples_are_counted_by_step_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--web.enable-remote-write-receiver", "--enable-feature=promql-per-step-stats"];
    let server = Server::start(folder.path(), "global: {}\n", &flags);
    let start_s = now_ms() / 1000 - 600;
    let samples = (0..10).map(|n| ((start_s + n * 10) * 1000, n as f64)).collect();
    let series = [SeriesToWrite { labels: vec![("__name__", "a".to_owned())], samples }];
    assert_eq!(remote_write(server.port, &series).unwrap().status, 204);
    let asked = |stats: &str| {
        let (start, end) = (start_s + 20, start_s + 40);
        let path = format!(
            "/api/v1/query_range?query=sum_over_time(a[30s])&start={start}&end={end}&step=10&stats={stats}"
        );
        get(server.port, &path).json()["data"]["stats"]["samples"].clone()
    };
    let per_step = |counts: [u64; 3]| {
        let point = |n: usize| json!([(start_s + 20 + 10 * n as i64) as f64, counts[n]]);
        json!([point(0), point(1), point(2)])
    };
    let all = asked("all");
    assert_eq!((&all["totalQueryableSamples"], &all["samplesRead"]), (&json!(9), &json!(5)));
    assert_eq!(all["totalQueryableSamplesPerStep"], per_step([3, 3, 3]));
    assert_eq!(all["samplesReadPerStep"], per_step([3, 1, 1]));
    let brief = asked("true");
    assert_eq!(brief["totalQueryableSamples"], 9);
    assert!(brief.get("totalQueryableSamplesPerStep").is_none());
}

/// Kibibytes of a line in `/proc/PID/status`.
fn memory_kib(server: &Server, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_query_that_would_take_too_much_memory_is_refused() {
    const BUDGET: u64 = 4 << 20;
    /// Beside the budgets: stacks, answers, what the allocator keeps.
    const CONSTANT_KIB: u64 = 64 << 10;
    const QUERIES: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let budget = format!("--query.max-bytes={BUDGET}");
    let flags = ["--web.enable-remote-write-receiver", &budget];
    let server = Server::start(folder.path(), "global: {}\n", &flags);
    let at_ms = now_ms() - 10_000;
    let series: Vec<_> = (0..1000)
        .map(|n| SeriesToWrite {
            labels: vec![("__name__", "a".to_owned()), ("n", n.to_string())],
            samples: vec![(at_ms, 1.0)],
        })
        .collect();
    assert_eq!(remote_write(server.port, &series).unwrap().status, 204);
    // 88 MB each.
    let (start, port) = (at_ms / 1000 - 5_000, server.port);
    let path = format!(
        "/api/v1/query_range?query=last_over_time(a[1h])&start={start}&end={}&step=1",
        start + 10_999
    );
    let idle_kib = memory_kib(&server, "VmRSS");
    let clients: Vec<_> = (0..QUERIES)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || get(port, &path))
        })
        .collect();
    for client in clients {
        let refused = client.join().unwrap();
        assert_eq!(refused.status, 422, "{}", refused.body);
        let refused = refused.json();
        let text = refused["error"].as_str().unwrap();
        let start = "query would take more memory than it may: it holds ";
        let end = format!(" for series of a vector; the limit is {BUDGET} (--query.max-bytes)");
        assert!(text.starts_with(start) && text.ends_with(&end), "{text}");
        assert_eq!(refused["errorType"], "execution");
    }
    let grown_kib = memory_kib(&server, "VmHWM") - idle_kib;
    let most_kib = QUERIES as u64 * (BUDGET >> 10) + CONSTANT_KIB;
    assert!(grown_kib < most_kib, "{grown_kib} KiB more than before, {most_kib} expected");
    // Smaller ones go on.
    assert_eq!(get(port, "/api/v1/query?query=count(a)").status, 200);
}
