//! From samples to Slack and PagerDuty: rules fire, alerts are grouped, silenced, repeated,
//! resolved, also across `kill -9`. Receivers are real HTTP servers.
#![expect(clippy::disallowed_methods, reason = "lets real time pass")]

use std::path::Path;
use std::time::Duration;

use narthex::model::digest::sha256_hex;
use serde_json::{Value, json};

use crate::process::{
    HttpReceiver, SeriesToWrite, Server, get, now_ms, post_json, remote_write, request, wait_for,
};

const CONFIG: &str = "
global:
  evaluation_interval: 200ms
  external_labels: {cluster: test}
rule_files: [rules.yml]
";

const RULES: &str = "
groups:
  - name: disks
    rules:
      - alert: DiskFull
        expr: disk_used_ratio > 0.9
        labels: {severity: page}
        annotations:
          summary: 'Disk {{ $labels.disk }} is at {{ $value | humanizePercentage }}'
";

fn alertmanager_config(slack: u16, pagerduty: u16, folder: &Path) -> String {
    let routing_key = folder.join("pagerduty_key");
    std::fs::write(&routing_key, "secret-routing-key\n").unwrap();
    let slack_url = folder.join("slack_url");
    std::fs::write(&slack_url, format!("http://127.0.0.1:{slack}/slack")).unwrap();
    format!(
        "
global:
  slack_api_url_file: {}
  pagerduty_url: http://127.0.0.1:{pagerduty}/v2/enqueue
route:
  receiver: everybody
  group_by: [alertname]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: everybody
    slack_configs:
      - channel: '#alerts'
        send_resolved: true
    pagerduty_configs:
      - routing_key_file: {}
",
        slack_url.display(),
        routing_key.display()
    )
}

struct Scene {
    server: Server,
    slack: HttpReceiver,
    pagerduty: HttpReceiver,
}

impl Scene {
    fn new(folder: &Path) -> Self {
        let slack = HttpReceiver::start("text/plain", "ok");
        let pagerduty = HttpReceiver::start("application/json", "{\"status\":\"success\"}");
        std::fs::write(folder.join("rules.yml"), RULES).unwrap();
        let alertmanager = folder.join("alertmanager.yml");
        let text = alertmanager_config(slack.port, pagerduty.port, folder);
        std::fs::write(&alertmanager, text).unwrap();
        let file = format!("--alertmanager.config.file={}", alertmanager.display());
        let arguments = ["--web.enable-remote-write-receiver", file.as_str()];
        let server = Server::start(folder, CONFIG, &arguments);
        Self { server, slack, pagerduty }
    }

    /// Says how full three disks are.
    fn write(&self, ratio: f64) {
        let disk = |name: &str| SeriesToWrite {
            labels: vec![("__name__", "disk_used_ratio".to_owned()), ("disk", name.to_owned())],
            samples: vec![(now_ms(), ratio)],
        };
        let answer = remote_write(self.server.port, &[disk("sda"), disk("sdb"), disk("sdc")]);
        assert_eq!(answer.unwrap().status, 204);
    }

    fn silence_all(&self) -> String {
        let minutes =
            |n: i64| jiff::Timestamp::from_millisecond(now_ms() + n * 60_000).unwrap().to_string();
        let silence = json!({
            "matchers": [{ "name": "alertname", "value": "DiskFull", "isRegex": false, "isEqual": true }],
            "startsAt": minutes(0), "endsAt": minutes(10),
            "createdBy": "test", "comment": "being replaced",
        });
        let answer = post_json(self.server.port, "/alertmanager/api/v2/silences", &silence);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["silenceID"].as_str().unwrap().to_owned()
    }

    fn unsilence(&self, id: &str) {
        let path = format!("/alertmanager/api/v2/silence/{id}");
        let answer = request(self.server.port, "DELETE", &path, &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    fn firing(&self) -> usize {
        let alerts = get(self.server.port, "/alertmanager/api/v2/alerts").json();
        alerts.as_array().unwrap().len()
    }
}

fn event(received: &Value) -> (&str, &str) {
    (received["event_action"].as_str().unwrap(), received["dedup_key"].as_str().unwrap())
}

#[test]
fn three_alerts_are_one_notification_and_one_resolve_across_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(folder.path());

    // Silenced from the start: nothing leaves while the three alerts fire.
    let silence = scene.silence_all();
    scene.write(0.95);
    wait_for("three alerts", || (scene.firing() == 3).then_some(()));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((scene.slack.count(), scene.pagerduty.count()), (0, 0), "silenced");

    // The silence ends: one grouped notification to each.
    scene.unsilence(&silence);
    let slack = scene.slack.wait_for(1);
    let paged = scene.pagerduty.wait_for(1);
    let attachment = &slack[0].body["attachments"][0];
    assert_eq!(slack[0].path, "/slack");
    assert_eq!(slack[0].body["channel"], "#alerts");
    assert!(attachment["title"].as_str().unwrap().contains("[FIRING:3] DiskFull"), "{attachment}");
    assert_eq!(attachment["color"], "danger");
    let (action, key) = event(&paged[0].body);
    assert_eq!(action, "trigger");
    // The SHA-256 of `{}:{alertname="DiskFull"}`, as Alertmanager names this group.
    assert_eq!(key, sha256_hex("{}:{alertname=\"DiskFull\"}"));
    assert_eq!(paged[0].body["routing_key"], "secret-routing-key");

    // Nothing is repeated before repeat_interval, neither now nor after a kill.
    std::thread::sleep(Duration::from_millis(2500));
    scene.write(0.96);
    assert_eq!((scene.slack.count(), scene.pagerduty.count()), (1, 1), "not repeated");
    scene.server.kill();
    scene.server.start_again();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((scene.slack.count(), scene.pagerduty.count()), (1, 1), "not repeated after a kill");

    // All disks are emptied: one resolve with the same key.
    scene.write(0.5);
    let paged = scene.pagerduty.wait_for(2);
    let slack = scene.slack.wait_for(2);
    assert_eq!(event(&paged[1].body), ("resolve", key));
    let attachment = &slack[1].body["attachments"][0];
    assert!(attachment["title"].as_str().unwrap().contains("[RESOLVED] DiskFull"), "{attachment}");
    assert_eq!(attachment["color"], "good");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((scene.slack.count(), scene.pagerduty.count()), (2, 2), "one resolve");
    assert!(!scene.server.log().contains("secret-routing-key"), "secrets stay out of the log");
}
