//! The administrative calls: off unless asked for, with Prometheus' texts, and what they do.

use crate::process::{
    Answer, SeriesToWrite, Server, get, instant, now_ms, post_form, remote_write, request,
};

fn write(server: &Server, count: usize) {
    let now = now_ms();
    let one = |i: usize| SeriesToWrite {
        labels: vec![("__name__", "m".to_owned()), ("i", i.to_string())],
        samples: vec![(now - 1_000, i as f64), (now, i as f64)],
    };
    let series: Vec<_> = (0..count).map(one).collect();
    assert_eq!(remote_write(server.port, &series).unwrap().status, 204);
}

fn admin(server: &Server, call: &str, pairs: &[(&str, &str)]) -> Answer {
    post_form(server.port, &format!("/api/v1/admin/tsdb/{call}"), pairs)
}

fn count(server: &Server) -> serde_json::Value {
    instant(server.port, "count(m)")[0]["value"][1].clone()
}

#[test]
fn without_the_flag_nothing_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "global: {}\n", &[]);
    for call in ["delete_series", "clean_tombstones", "snapshot", "compact"] {
        let answer = admin(&server, call, &[("match[]", "m")]);
        assert_eq!(answer.status, 500, "{call}");
        assert_eq!(
            answer.json(),
            serde_json::json!({
                "status": "error", "errorType": "unavailable", "error": "admin APIs disabled",
            })
        );
    }
    assert_eq!(get(server.port, "/api/v1/admin/tsdb/snapshot").status, 405);
}

#[test]
fn series_are_deleted_and_snapshots_can_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--web.enable-admin-api", "--web.enable-remote-write-receiver"];
    let mut server = Server::start(folder.path(), "global: {}\n", &flags);
    write(&server, 4);
    let refused = [
        ("delete_series", vec![], "no match[] parameter provided"),
        (
            "snapshot",
            vec![("skip_head", "x")],
            "invalid parameter \"skip_head\": unable to parse boolean \"skip_head\" argument: \
             strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            "delete_series",
            vec![("match[]", "m"), ("start", "x")],
            "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a \
             valid timestamp",
        ),
    ];
    for (call, pairs, reason) in refused {
        let answer = admin(&server, call, &pairs);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(reason)));
    }
    let answer = admin(&server, "snapshot", &[]);
    let name = answer.json()["data"]["name"].as_str().unwrap().to_owned();
    let path = "/api/v1/admin/tsdb/delete_series?match[]=m%7Bi=%221%22%7D&match[]=m%7Bi=%222%22%7D";
    let answer = request(server.port, "PUT", path, &[], b"").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(count(&server), "2");
    for call in ["clean_tombstones", "compact"] {
        assert_eq!(admin(&server, call, &[]).status, 204);
        assert_eq!(count(&server), "2");
    }
    server.kill();
    server.start_again();
    assert_eq!(count(&server), "2");
    let copy = tempfile::tempdir().unwrap();
    let from = folder.path().join("data/snapshots").join(name);
    rename(&from, &copy.path().join("data"));
    let restored = Server::start(copy.path(), "global: {}\n", &flags);
    assert_eq!(count(&restored), "4");
}

#[expect(clippy::disallowed_methods, reason = "moves a folder of a real server")]
fn rename(from: &std::path::Path, to: &std::path::Path) {
    std::fs::rename(from, to).unwrap();
}
