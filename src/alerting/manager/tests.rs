//! The manager with a simulated disk and clock, and a real server as the receiver.

use std::collections::BTreeSet;

use axum::Router;
use axum::routing::post;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::alerting::receiver::{IntegrationOptions, ReceiverOptions, Settings, webhook};
use crate::alerting::route::{GroupBy, RouteOptions};
use crate::base::clock::SimClock;
use crate::base::disk::SimDisk;
use crate::base::rng::SimRng;
use crate::http_client;
use crate::template::notification::Templates;

const MINUTE_MS: i64 = 60_000;

pub(crate) fn options(url: &str) -> Options {
    let settings = Settings::Webhook(Box::new(webhook::Options {
        url: http_client::Secret::Inline(url.to_owned()),
        alerts_max: 0,
        payload: None,
    }));
    let integration = IntegrationOptions {
        send_resolved: true,
        resolve_when_muted: false,
        http: http_client::Options::plain(),
        timeout: None,
        settings,
    };
    Options {
        resolve_timeout_ms: 5 * MINUTE_MS,
        retention_ms: 3_600_000,
        external_url: "http://here".to_owned(),
        route: RouteOptions {
            receiver: "hook".to_owned(),
            matchers: Vec::new(),
            continues: false,
            group_by: GroupBy::Labels(BTreeSet::from(["alertname".to_owned()])),
            group_wait_ms: 0,
            group_interval_ms: MINUTE_MS,
            repeat_interval_ms: 60 * MINUTE_MS,
            mute_time_intervals: Vec::new(),
            active_time_intervals: Vec::new(),
            labels: Labels::empty(),
            routes: Vec::new(),
        },
        receivers: vec![ReceiverOptions {
            name: "hook".to_owned(),
            labels: Labels::from_pairs([("team", "x")]),
            integrations: vec![integration],
        }],
        inhibit_rules: Vec::new(),
        time_intervals: Vec::new(),
        templates: Templates::builtin(),
        original: "route:\n  receiver: hook\n".to_owned(),
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, registry: &Registry, url: &str) -> Arc<Manager> {
    let ground = Ground {
        disk: Arc::new(disk.clone()),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        rng: Arc::new(SimRng::new(1)),
        registry: registry.clone(),
    };
    Manager::open(ground, Path::new("/data/alerting"), options(url)).unwrap()
}

fn alert(now_ms: i64, ends_at_ms: i64) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", "Down"), ("instance", "a")]),
        annotations: Labels::empty(),
        starts_at_ms: now_ms,
        ends_at_ms,
        generator_url: String::new(),
    }
}

#[tokio::test]
async fn an_alert_reaches_its_receiver_and_its_end_does_so_after_a_crash() {
    let (sender, mut received) = mpsc::channel::<serde_json::Value>(16);
    let handler = post(move |body: axum::body::Bytes| async move {
        sender.send(serde_json::from_slice(&body).unwrap()).await.unwrap();
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", handler);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(1_000_000_000)));
    let registry = Registry::new();
    let mut keys = Vec::new();
    for (status, ends_at_ms) in [("firing", 1_000_600_000), ("resolved", 1_000_060_000)] {
        let manager = open(&disk, &clock, &registry, &url);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(Arc::clone(&manager).run(async {
            let _ = stopped.await;
        }));
        manager.put_alerts(vec![alert(clock.now_ms(), ends_at_ms)]).unwrap();
        let message = received.recv().await.unwrap();
        assert_eq!(message["status"], status);
        keys.push(message["groupKey"].clone());
        // Waits until the message is in the log.
        stop.send(()).unwrap();
        running.await.unwrap();
        drop(manager);
        disk.crash();
        clock.advance_ms(MINUTE_MS);
    }
    assert_eq!(keys[0], keys[1]);
    let manager = open(&disk, &clock, &registry, &url);
    assert!(manager.alerts(&AlertFilter::all()).is_empty());
    let families = registry.gather();
    let value = |name: &str| {
        let family = families.iter().find(|family| family.name == name).unwrap();
        family.samples.iter().map(|sample| sample.value).sum::<f64>()
    };
    assert_eq!(value("alertmanager_notifications_total"), 2.0);
    assert_eq!(value("alertmanager_notifications_failed_total"), 0.0);
    assert_eq!(value("alertmanager_nflog_entries"), 1.0);
    assert_eq!(value("alertmanager_config_last_reload_successful"), 1.0);
}

#[test]
fn a_full_disk_refuses_silences_but_keeps_alerts_in_force() {
    let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(1_000_000_000)));
    let manager = open(&disk, &clock, &Registry::new(), "http://127.0.0.1:1/");
    disk.fail_after(Some(0));
    let put = manager.put_alerts(vec![alert(clock.now_ms(), 0)]);
    assert!(matches!(put, Err(PutError::State(_))));
    assert_eq!(manager.alerts(&AlertFilter::all()).len(), 1);
    disk.fail_after(None);
    let again = manager.put_alerts(vec![alert(clock.now_ms(), 0)]);
    assert!(matches!(again, Err(PutError::State(StateError::Poisoned))));
}
