//! What the integrations send, as a server on this machine receives it.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse, Response as HttpResponse};
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::model::digest::sha256_hex;
use crate::template::notification::AlertData;

/// A server that hands over what it receives and answers as told.
struct Server {
    url: String,
    received: mpsc::Receiver<Received>,
}

struct Received {
    path: String,
    authorization: String,
    body: Value,
}

#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    sender: mpsc::Sender<Received>,
}

async fn handle(State(answer): State<Answer>, request: HttpRequest) -> HttpResponse {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get("authorization");
    let authorization = authorization.map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    answer.sender.send(Received { path, authorization, body }).await.unwrap();
    let status = StatusCode::from_u16(answer.status).unwrap();
    let mut response = (status, answer.body).into_response();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn server(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: &'static str,
) -> Server {
    let (sender, received) = mpsc::channel(16);
    let answer = Answer { status, headers: headers.to_vec(), body, sender };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(handle).with_state(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { url, received }
}

const GROUP_KEY: &str = r#"{}/{severity="critical"}:{alertname="Down"}"#;

fn notification(status: &str) -> Notification {
    let alert = |instance: &str| AlertData {
        status: status.to_owned(),
        labels: Labels::from_pairs([("alertname", "Down"), ("instance", instance)]),
        annotations: Labels::from_pairs([("summary", "It is down")]),
        starts_at_ms: 1_700_000_000_500,
        ends_at_ms: (status == "resolved").then_some(1_700_000_060_000),
        generator_url: "http://prom/graph".to_owned(),
        fingerprint: "00000000000000ff".to_owned(),
    };
    let mut data = Data {
        receiver: "team".to_owned(),
        status: status.to_owned(),
        alerts: vec![alert("a"), alert("b")],
        notification_reason: "first notification".to_owned(),
        group_labels: Labels::from_pairs([("alertname", "Down")]),
        common_labels: Labels::empty(),
        common_annotations: Labels::empty(),
        route_labels: Labels::from_pairs([("tier", "{{ .Status }}!")]),
        external_url: "http://here".to_owned(),
    };
    crate::alerting::group::summarize(&mut data);
    Notification {
        group_key: GROUP_KEY.to_owned(),
        data,
        store: BTreeMap::new(),
        now_ms: 1_700_000_100_000,
    }
}

fn integration(settings: Settings) -> Integration {
    let options = IntegrationOptions {
        send_resolved: true,
        resolve_when_muted: false,
        http: http_client::Options::plain(),
        timeout: None,
        settings,
    };
    Integration::new(options, Arc::new(Templates::builtin())).unwrap()
}

async fn send(settings: Settings, notification: &Notification) -> Sent {
    integration(settings).send(notification, Duration::from_secs(10)).await
}

fn webhook(url: &str, alerts_max: usize, payload: Option<Value>) -> Settings {
    let url = Secret::Inline(format!("{url}/hook"));
    Settings::Webhook(Box::new(webhook::Options { url, alerts_max, payload }))
}

fn slack_options(url: &str) -> slack::Options {
    let text = str::to_owned;
    slack::Options {
        url: Secret::Inline(url.to_owned()),
        app_token: None,
        update_message: false,
        channel: text("#{{ .CommonLabels.alertname }}"),
        username: text("me"),
        color: text(r#"{{ if eq .Status "firing" }}danger{{ else }}good{{ end }}"#),
        title: "é".repeat(1_030),
        title_link: String::new(),
        pretext: String::new(),
        text: text("{{ range .Alerts }}{{ .Labels.instance }} {{ end }}"),
        message_text: String::new(),
        fields: vec![slack::Field {
            title: text("n"),
            value: text("{{ len .Alerts }}"),
            short: true,
        }],
        footer: String::new(),
        fallback: text("{{ .Broken.Field }}"),
        callback_id: String::new(),
        icon_emoji: text(":fire:"),
        icon_url: String::new(),
        image_url: String::new(),
        thumb_url: String::new(),
        link_names: true,
        mrkdwn_in: vec![text("text")],
        actions: vec![slack::Action {
            kind: text("button"),
            text: text("Go"),
            url: text("{{ .ExternalURL }}"),
            style: String::new(),
            name: String::new(),
            value: String::new(),
            confirm: None,
        }],
    }
}

fn pagerduty_options(url: &str, key: pagerduty::Key) -> pagerduty::Options {
    let details = json!({
        "num_firing": "{{ .Alerts.Firing | len }}",
        "list": "[1, two]",
        "nested": {"{{ .Status }}": ["{{ .GroupLabels.alertname }}"]},
    });
    let Value::Object(details) = details else { unreachable!("written as a map") };
    pagerduty::Options {
        key,
        url: format!("{url}/v2"),
        client: "Narthex".to_owned(),
        client_url: "{{ .ExternalURL }}".to_owned(),
        description: "{{ .CommonAnnotations.summary }}".to_owned(),
        severity: "critical".to_owned(),
        source: "here".to_owned(),
        class: String::new(),
        component: String::new(),
        group: "{{ .GroupLabels.alertname }}".to_owned(),
        details,
        images: vec![pagerduty::Image {
            src: String::new(),
            alt: "gone".to_owned(),
            href: String::new(),
        }],
        links: vec![pagerduty::Link { href: "http://x".to_owned(), text: "x".to_owned() }],
    }
}

fn routing_key() -> pagerduty::Key {
    pagerduty::Key::Routing(Secret::Inline("k3y".to_owned()))
}

#[tokio::test]
async fn webhooks_get_version_4() {
    let mut server = server(200, &[], "").await;
    send(webhook(&server.url, 0, None), &notification("firing")).await.unwrap();
    let received = server.received.recv().await.unwrap();
    assert_eq!(received.path, "/hook");
    insta::assert_snapshot!(received.body["alerts"][0], @r#"{"annotations":{"summary":"It is down"},"endsAt":"0001-01-01T00:00:00Z","fingerprint":"00000000000000ff","generatorURL":"http://prom/graph","labels":{"alertname":"Down","instance":"a"},"startsAt":"2023-11-14T22:13:20.5Z","status":"firing"}"#);
    let mut rest = received.body.clone();
    rest.as_object_mut().unwrap().remove("alerts");
    insta::assert_snapshot!(rest, @r#"{"commonAnnotations":{"summary":"It is down"},"commonLabels":{"alertname":"Down"},"externalURL":"http://here","groupKey":"{}/{severity=\"critical\"}:{alertname=\"Down\"}","groupLabels":{"alertname":"Down"},"notification_reason":"first notification","receiver":"team","routeLabels":{"tier":"firing!"},"status":"firing","truncatedAlerts":0,"version":"4"}"#);
    send(webhook(&server.url, 1, None), &notification("resolved")).await.unwrap();
    let body = server.received.recv().await.unwrap().body;
    assert_eq!(
        (body["truncatedAlerts"].as_i64(), body["alerts"].as_array().unwrap().len()),
        (Some(1), 1)
    );
    assert_eq!(body["commonLabels"]["instance"], "a");
    assert_eq!(body["alerts"][0]["endsAt"], "2023-11-14T22:14:20Z");
    let payload = json!({"text": "{{ .Status }}", "count": "{{ len .Alerts }}", "fixed": 7});
    send(webhook(&server.url, 0, Some(payload)), &notification("firing")).await.unwrap();
    let body = server.received.recv().await.unwrap().body;
    assert_eq!(body, json!({"text": "firing", "count": 2, "fixed": 7}));
}

#[tokio::test]
async fn pagerduty_gets_the_same_key_when_it_ends() {
    let mut server = server(202, &[], r#"{"status":"success"}"#).await;
    let mut keys = Vec::new();
    for (status, action) in [("firing", "trigger"), ("resolved", "resolve")] {
        let options = pagerduty_options(&server.url, routing_key());
        send(Settings::PagerDuty(Box::new(options)), &notification(status)).await.unwrap();
        let received = server.received.recv().await.unwrap();
        assert_eq!(received.path, "/v2");
        assert_eq!(received.body["event_action"], action);
        keys.push(received.body["dedup_key"].as_str().unwrap().to_owned());
        if status == "firing" {
            insta::assert_snapshot!(received.body, @r##"{"client":"Narthex","client_url":"http://here","dedup_key":"5b17125ac1dde0d3a072e2d47b4a3225b0506e46226e85860e7f8d29658c8b64","event_action":"trigger","links":[{"href":"http://x","text":"x"}],"payload":{"custom_details":{"list":[1,"two"],"nested":{"firing":["Down"]},"num_firing":2},"group":"Down","severity":"critical","source":"here","summary":"It is down"},"routing_key":"k3y"}"##);
        }
    }
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0], sha256_hex(GROUP_KEY));
}

#[tokio::test]
async fn pagerduty_events_that_are_too_long_lose_their_details() {
    let mut server = server(202, &[], "{}").await;
    let mut options = pagerduty_options(&server.url, routing_key());
    options.details.insert("long".to_owned(), Value::String("x".repeat(600_000)));
    send(Settings::PagerDuty(Box::new(options)), &notification("firing")).await.unwrap();
    let details = &server.received.recv().await.unwrap().body["payload"]["custom_details"];
    assert!(details["error"].as_str().unwrap().contains("512KB"), "{details}");
}

#[tokio::test]
async fn slack_gets_an_attachment_even_when_a_template_fails() {
    let mut server = server(200, &[("content-type", "text/plain")], "ok").await;
    let options = slack_options(&format!("{}/services/s3cret", server.url));
    send(Settings::Slack(Box::new(options)), &notification("firing")).await.unwrap();
    let received = server.received.recv().await.unwrap();
    let attachment = &received.body["attachments"][0];
    let title = attachment["title"].as_str().unwrap();
    assert_eq!((title.chars().count(), title.ends_with('…')), (1_024, true));
    assert!(attachment["fallback"].as_str().unwrap().starts_with("[template error: "));
    assert_eq!(attachment["text"], "a b ");
    assert_eq!(attachment["color"], "danger");
    assert_eq!(attachment["fields"], json!([{"title": "n", "value": "2", "short": true}]));
    assert_eq!(
        attachment["actions"],
        json!([{"type": "button", "text": "Go", "url": "http://here"}])
    );
    assert_eq!(received.body["channel"], "#Down");
    assert_eq!(received.body["link_names"], true);
    assert!(received.body.get("text").is_none() && received.body.get("icon_url").is_none());
}

#[tokio::test]
async fn slack_apps_edit_the_message_of_the_group() {
    let json = [("content-type", "application/json; charset=utf-8")];
    let mut server = server(200, &json, r#"{"ok":true,"ts":"12.34","channel":"C1"}"#).await;
    let mut options = slack_options(&format!("{}/api/chat.postMessage", server.url));
    options.app_token = Some(Secret::Inline("xoxb".to_owned()));
    options.update_message = true;
    let settings = Settings::Slack(Box::new(options));
    let mut notification = notification("firing");
    notification.store = send(settings.clone(), &notification).await.unwrap();
    let first = server.received.recv().await.unwrap();
    assert_eq!(
        (first.path.as_str(), first.authorization.as_str()),
        ("/api/chat.postMessage", "Bearer xoxb")
    );
    send(settings, &notification).await.unwrap();
    let second = server.received.recv().await.unwrap();
    assert_eq!(second.path, "/api/chat.update");
    assert_eq!((&second.body["ts"], &second.body["channel"]), (&json!("12.34"), &json!("C1")));
}

#[tokio::test]
async fn refusals_are_judged_and_tell_no_secret() {
    let json = ("content-type", "application/json");
    for (status, headers, body, expected) in [
        (
            500,
            vec![],
            "oops",
            "unexpected status code 500: oops|Retry { after_ms: None, reason: \"serverError\" }",
        ),
        (
            429,
            vec![("retry-after", "7")],
            "",
            "unexpected status code 429|Retry { after_ms: Some(7000), reason: \"rateLimited\" }",
        ),
        (403, vec![], "no", "unexpected status code 403: no|Failed { reason: \"authError\" }"),
        (404, vec![], "", "unexpected status code 404|Failed { reason: \"clientError\" }"),
        (
            200,
            vec![],
            "invalid_token",
            "error response from Slack: invalid_token|Failed { reason: \"clientError\" }",
        ),
        (
            200,
            vec![json],
            r#"{"ok":false,"error":"channel_not_found"}"#,
            "error response from Slack: channel_not_found|Failed { reason: \"clientError\" }",
        ),
    ] {
        let server = server(status, &headers, body).await;
        let options = slack_options(&format!("{}/s3cret", server.url));
        let failure = send(Settings::Slack(Box::new(options)), &notification("firing")).await;
        let failure = failure.unwrap_err();
        assert_eq!(format!("{}|{:?}", failure.message, failure.outcome()), expected);
    }
    let nobody = slack_options("http://127.0.0.1:1/s3cret");
    let failure =
        send(Settings::Slack(Box::new(nobody)), &notification("firing")).await.unwrap_err();
    assert!(!failure.message.contains("s3cret"), "{}", failure.message);
    assert_eq!(failure.outcome(), Outcome::Retry { after_ms: None, reason: "other" });
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
async fn secrets_in_files_are_read_at_each_use() {
    let mut server = server(202, &[], "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = pagerduty::Key::Routing(Secret::File(path.clone()));
    let integration =
        integration(Settings::PagerDuty(Box::new(pagerduty_options(&server.url, key))));
    for secret in ["one\n", "two\n"] {
        std::fs::write(&path, secret).unwrap();
        integration.send(&notification("firing"), Duration::from_secs(10)).await.unwrap();
        let body = server.received.recv().await.unwrap().body;
        assert_eq!(body["routing_key"], secret.trim());
    }
}
