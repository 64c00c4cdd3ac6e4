//! The API as amtool and Grafana call it.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::alerting::manager::Ground;
use crate::base::clock::{Clock, SimClock};
use crate::base::disk::SimDisk;
use crate::base::metrics::Registry;
use crate::base::rng::SimRng;
use crate::config::alertmanager::{Flags, parse};

const CONFIG: &str = r"
route:
  receiver: team
  group_by: [alertname]
  routes: [{matchers: [severity=critical], receiver: pager}]
receivers:
  - name: team
    labels: {tier: gold}
  - name: pager
    webhook_configs: [{url: 'http://127.0.0.1:1/s3cret'}]
inhibit_rules:
  - source_matchers: [severity=critical]
    target_matchers: [severity=warning]
    equal: [alertname]
";

struct Api {
    router: Router,
    clock: Arc<SimClock>,
}

impl Api {
    fn new() -> Self {
        let clock = Arc::new(SimClock::new(1_700_000_000_000));
        let disk = SimDisk::new(1);
        let flags = Flags { external_url: "http://here".to_owned(), retention_ms: 3_600_000 };
        let path = std::path::Path::new("/etc/alertmanager.yml");
        let options = parse(&disk, path, CONFIG, &flags).unwrap();
        let ground = Ground {
            disk: Arc::new(disk),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            rng: Arc::new(SimRng::new(1)),
            registry: Registry::new(),
        };
        let folder = std::path::Path::new("/data/alerting");
        let manager = Manager::open(ground, folder, options).unwrap();
        Self { router: router(manager), clock }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> String {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.call_with(method, path, "application/json", text).await
    }

    async fn call_with(&self, method: &str, path: &str, kind: &str, text: String) -> String {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
        let request = request.body(Body::from(text)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        format!("{status} {}", String::from_utf8(bytes.to_vec()).unwrap()).trim().to_owned()
    }

    async fn get(&self, path: &str) -> String {
        self.call("GET", path, Value::Null).await
    }

    async fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        serde_json::from_str(answer.strip_prefix("200 ").unwrap_or("null")).unwrap()
    }

    async fn fire(&self, name: &str, severity: &str) {
        let labels = json!({"alertname": name, "severity": severity, "empty": ""});
        let alert =
            json!([{"labels": labels, "annotations": {"a": "b"}, "generatorURL": "http://g"}]);
        assert_eq!(self.call("POST", "/alerts", alert).await, "200");
    }
}

fn silence(matcher: &Value) -> Value {
    json!({
        "matchers": [matcher],
        "startsAt": "2023-11-14T22:13:20.000Z",
        "endsAt": "2023-11-14T23:13:20.000Z",
        "createdBy": "me",
        "comment": "because",
    })
}

#[tokio::test]
async fn posted_alerts_are_listed() {
    let api = Api::new();
    api.fire("Down", "critical").await;
    insta::assert_snapshot!(api.get("/alerts").await, @r#"200 [{"annotations":{"a":"b"},"endsAt":"2023-11-14T22:18:20.000Z","fingerprint":"4f000a279caba656","receivers":[{"name":"pager"}],"startsAt":"2023-11-14T22:13:20.000Z","status":{"inhibitedBy":[],"mutedBy":[],"silencedBy":[],"state":"active"},"updatedAt":"2023-11-14T22:13:20.000Z","generatorURL":"http://g","labels":{"alertname":"Down","severity":"critical"}}]"#);
    api.fire("Down", "warning").await;
    let shown = api.get_json("/alerts?filter=severity%3Dwarning").await;
    assert_eq!(shown[0]["status"]["state"], "suppressed");
    let inhibitor = api.get_json("/alerts?receiver=pag.*").await[0]["fingerprint"].clone();
    assert_eq!(shown[0]["status"]["inhibitedBy"], json!([inhibitor]));
    let count = async |query: &str| {
        api.get_json(&format!("/alerts?{query}")).await.as_array().map(Vec::len)
    };
    assert_eq!(count("inhibited=false").await, Some(1));
    assert_eq!(count("active=false").await, Some(1));
    assert_eq!(count("receiver=pag").await, Some(0));
    assert_eq!(count("receiver_matchers=tier%3Dgold").await, Some(1));
    assert_eq!(count("filter=alertname%3DDown&filter=severity%21%3Dwarning").await, Some(1));
    let groups = api.get_json("/alerts/groups").await;
    let receivers: Vec<_> =
        groups.as_array().unwrap().iter().map(|it| &it["receiver"]["name"]).collect();
    assert_eq!(receivers, ["pager", "team"]);
    assert_eq!(groups[0]["labels"], json!({"alertname": "Down"}));
    api.clock.advance_ms(300_000);
    assert_eq!(count("").await, Some(0), "resolved alerts are not listed");
}

#[tokio::test]
async fn bad_requests_get_alertmanagers_answers() {
    let api = Api::new();
    let matcher = json!({"name": "a", "value": "b", "isRegex": false});
    let mut backwards = silence(&matcher);
    backwards["endsAt"] = json!("2023-11-14T22:13:20Z");
    let mut past = silence(&matcher);
    past["startsAt"] = json!("2020-01-01T00:00:00Z");
    past["endsAt"] = json!("2020-01-01T02:00:00+01:00");
    let mut nameless = silence(&matcher);
    nameless.as_object_mut().unwrap().remove("comment");
    let mut unknown = silence(&matcher);
    unknown["id"] = json!("x");
    let bad_regex = silence(&json!({"name": "a", "value": "(", "isRegex": true}));
    let matches_all = silence(&json!({"name": "a", "value": ".*", "isRegex": true}));
    let half = json!([{"labels": {}}, {"labels": {"alertname": "Good"}}]);
    let mut out = String::new();
    for (method, path, body) in [
        ("GET", "/alerts?filter=%7Ba%3Db%7D", Value::Null),
        ("GET", "/alerts?active=maybe", Value::Null),
        ("GET", "/silence/x", Value::Null),
        ("GET", "/silence/8f7a2f0e-3f6b-4c5e-9d7a-000000000000", Value::Null),
        ("DELETE", "/silence/8f7a2f0e-3f6b-4c5e-9d7a-000000000000", Value::Null),
        ("POST", "/alerts", json!([{}])),
        ("POST", "/alerts", half),
        ("POST", "/silences", backwards),
        ("POST", "/silences", past),
        ("POST", "/silences", nameless),
        ("POST", "/silences", unknown),
        ("POST", "/silences", bad_regex),
        ("POST", "/silences", matches_all),
    ] {
        out.push_str(&format!("{}\n", api.call(method, path, body).await));
    }
    insta::assert_snapshot!(out, @r#"
    400 "matcher cannot start or end with braces"
    422 {"code":601,"message":"active in query must be of type boolean: \"maybe\""}
    422 {"code":601,"message":"silenceID in path must be of type uuid: \"x\""}
    404
    404
    422 {"code":602,"message":"0.labels in body is required"}
    400 "at least one label pair required"
    400 "Failed to create silence: start time must be before end time"
    400 "Failed to create silence: end time can't be in the past"
    422 {"code":602,"message":"comment in body is required"}
    404 "silence not found"
    400 "invalid silence: invalid label matcher 0: error parsing regexp: missing closing ): `(`"
    400 "invalid silence: at least one matcher must not match the empty string"
    "#);
    let kept = api.get_json("/alerts").await;
    assert_eq!(kept[0]["labels"]["alertname"], "Good", "the good part of a batch is stored");
}

#[tokio::test]
async fn silences_live_through_the_api() {
    let api = Api::new();
    api.fire("Down", "critical").await;
    let matcher = json!({"name": "alertname", "value": "D.*", "isRegex": true, "isEqual": true});
    let answer = api.call("POST", "/silences", silence(&matcher)).await;
    let answer: Value = serde_json::from_str(answer.strip_prefix("200 ").unwrap()).unwrap();
    let id = answer["silenceID"].as_str().unwrap().to_owned();
    let shown = api.get(&format!("/silence/{id}")).await.replace(&id, "ID");
    insta::assert_snapshot!(shown, @r#"200 {"id":"ID","status":{"state":"active"},"updatedAt":"2023-11-14T22:13:20.000Z","comment":"because","createdBy":"me","endsAt":"2023-11-14T23:13:20.000Z","matchers":[{"isEqual":true,"isRegex":true,"name":"alertname","value":"D.*"}],"startsAt":"2023-11-14T22:13:20.000Z"}"#);
    let alerts = api.get_json("/alerts").await;
    assert_eq!(alerts[0]["status"]["silencedBy"], json!([id]));
    assert_eq!(api.get("/alerts?silenced=false").await, "200 []");
    let count = async |query: &str| {
        api.get_json(&format!("/silences?{query}")).await.as_array().map(Vec::len)
    };
    assert_eq!(count("filter=alertname%3D~%22D.*%22").await, Some(1));
    assert_eq!(count("filter=alertname%3DDown").await, Some(0));
    assert_eq!(count("active=false").await, Some(0));
    assert_eq!(api.call("DELETE", &format!("/silence/{id}"), Value::Null).await, "200");
    assert_eq!(count("expired=true").await, Some(1));
    assert_eq!(count("expired=false").await, Some(0));
    let alerts = api.get_json("/alerts").await;
    assert_eq!(alerts[0]["status"]["state"], "active");
}

#[tokio::test]
async fn status_and_receivers_tell_no_secret() {
    let api = Api::new();
    insta::assert_snapshot!(api.get("/receivers").await, @r#"200 [{"name":"team","labels":{"name":"team","tier":"gold"}},{"name":"pager","labels":{"name":"pager"}}]"#);
    let status = api.get_json("/status").await;
    assert_eq!(status["cluster"], json!({"status": "disabled", "peers": []}));
    assert_eq!(status["uptime"], "2023-11-14T22:13:20.000Z");
    let config = status["config"]["original"].as_str().unwrap();
    assert!(config.contains("url: <secret>") && !config.contains("s3cret"), "{config}");
    assert_eq!(status["versionInfo"]["version"], "0.34.0");
}

#[tokio::test]
async fn what_is_not_there_is_refused_as_json() {
    let api = Api::new();
    for (method, path, answer) in [
        ("GET", "/nothing", r#"404 {"code":404,"message":"path /api/v2/nothing was not found"}"#),
        (
            "DELETE",
            "/alerts",
            r#"405 {"code":405,"message":"method DELETE is not allowed, but [GET,POST] are"}"#,
        ),
        (
            "POST",
            "/silence/x",
            r#"405 {"code":405,"message":"method POST is not allowed, but [DELETE,GET] are"}"#,
        ),
        (
            "PUT",
            "/status",
            r#"405 {"code":405,"message":"method PUT is not allowed, but [GET] are"}"#,
        ),
    ] {
        assert_eq!(api.call(method, path, Value::Null).await, answer);
    }
    let post = async |kind| api.call_with("POST", "/alerts", kind, "[]".to_owned()).await;
    assert_eq!(
        post("text/plain").await,
        r#"415 {"code":415,"message":"unsupported media type \"text/plain\", only [application/json] are allowed"}"#
    );
    assert_eq!(post("application/json; charset=utf-8").await, "200");
}
