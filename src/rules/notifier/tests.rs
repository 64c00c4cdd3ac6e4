//! The notifier against a small HTTP server.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State as Shared;
use axum::routing::post;
use tokio::sync::mpsc;

use super::*;
use crate::base::clock::SimClock;
use crate::model::matcher::AnchoredRegex;
use crate::model::relabel::{Action, NameValidation};

struct Server {
    address: String,
    bodies: mpsc::Receiver<serde_json::Value>,
    fails: Arc<AtomicBool>,
}

async fn serve() -> Server {
    let (sender, bodies) = mpsc::channel(100);
    let fails = Arc::new(AtomicBool::new(false));
    type Answer = (mpsc::Sender<serde_json::Value>, Arc<AtomicBool>);
    let handler = |Shared((sender, fails)): Shared<Answer>, body: String| async move {
        sender.send(serde_json::from_str(&body).unwrap()).await.unwrap();
        if fails.load(Ordering::SeqCst) {
            http::StatusCode::BAD_GATEWAY
        } else {
            http::StatusCode::OK
        }
    };
    let router = Router::new()
        .route("/am/api/v2/alerts", post(handler))
        .with_state((sender, Arc::clone(&fails)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { address, bodies, fails }
}

fn relabel(action: Action, source: &str, regex: &str, target: &str, replacement: &str) -> Rule {
    Rule {
        source_labels: vec![source.to_owned()],
        separator: ";".to_owned(),
        target_label: target.to_owned(),
        regex: AnchoredRegex::new(regex).unwrap(),
        modulus: 0,
        replacement: replacement.to_owned(),
        action,
        name_validation: NameValidation::Utf8,
    }
}

fn options(capacity: usize, batch_size: usize) -> Options {
    Options {
        external_labels: Labels::from_pairs([("dc", "x"), ("severity", "none")]),
        alert_relabel_rules: vec![relabel(Action::Drop, "alertname", "Quiet", "", "$1")],
        queue_capacity: capacity,
        batch_size,
        drain_on_shutdown: true,
        sets: vec![AlertmanagerSet {
            name: "config-0".to_owned(),
            scheme: "http".to_owned(),
            path_prefix: "/am/".to_owned(),
            timeout: Duration::from_secs(5),
            http: http_client::Options::plain(),
            relabel_rules: vec![relabel(Action::Drop, "__address__", "10\\..*", "", "$1")],
            alert_relabel_rules: vec![relabel(Action::Replace, "dc", "(.*)", "site", "$1")],
        }],
    }
}

fn targets(addresses: &[&str]) -> TargetSets {
    let labels = |address: &&str| Labels::from_pairs([("__address__", *address)]);
    let group = TargetGroup {
        source: String::new(),
        targets: addresses.iter().map(labels).collect(),
        labels: Labels::empty(),
    };
    TargetSets::from([("config-0".to_owned(), vec![Arc::new(group)])])
}

fn alert(name: &str) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", name), ("severity", "page")]),
        annotations: Labels::from_pairs([("summary", "s")]),
        starts_at_ms: 1_700_000_000_123,
        ends_at_ms: 1_700_000_240_000,
        generator_url: "http://n/graph".to_owned(),
    }
}

fn notifier(registry: &Registry, options: Options) -> Arc<Notifier> {
    let clock = Arc::new(SimClock::new(0));
    Notifier::new(registry, clock, Handle::current(), "Narthex/test", options).unwrap()
}

fn metric(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name == name).unwrap();
    family.samples.iter().map(|sample| sample.value).sum()
}

#[tokio::test]
async fn alerts_arrive_labelled_and_relabelled() {
    let mut server = serve().await;
    let registry = Registry::new();
    let notifier = notifier(&registry, options(100, 2));
    notifier.update_targets(&targets(&[&server.address, "10.0.0.1:9093"]));
    let known = notifier.alertmanagers();
    assert_eq!(known.active, [format!("http://{}/am/api/v2/alerts", server.address)]);
    assert_eq!(known.dropped, ["http://10.0.0.1:9093/am/api/v2/alerts"]);
    notifier.send(&[alert("A"), alert("Quiet"), alert("B"), alert("C")]);
    let first = server.bodies.recv().await.unwrap();
    assert_eq!(first.as_array().unwrap().len(), 2);
    insta::assert_snapshot!(first[0], @r#"{"annotations":{"summary":"s"},"endsAt":"2023-11-14T22:17:20Z","generatorURL":"http://n/graph","labels":{"alertname":"A","dc":"x","severity":"page","site":"x"},"startsAt":"2023-11-14T22:13:20.123Z"}"#);
    let second = server.bodies.recv().await.unwrap();
    assert_eq!(second[0]["labels"]["alertname"], "C");
    notifier.shutdown().await;
    assert_eq!(metric(&registry, "prometheus_notifications_sent_total"), 3.0);
    assert_eq!(metric(&registry, "prometheus_notifications_errors_total"), 0.0);
    assert_eq!(metric(&registry, "prometheus_notifications_alertmanagers_discovered"), 1.0);
}

#[tokio::test]
async fn full_queues_drop_the_oldest_and_failed_batches_are_not_repeated() {
    let mut server = serve().await;
    server.fails.store(true, Ordering::SeqCst);
    let registry = Registry::new();
    let notifier = notifier(&registry, options(2, 10));
    notifier.update_targets(&targets(&[&server.address]));
    // The current-thread runtime lets the task run only when we await.
    notifier.send(&[alert("A"), alert("B"), alert("C")]);
    let body = server.bodies.recv().await.unwrap();
    let names: Vec<_> =
        body.as_array().unwrap().iter().map(|a| &a["labels"]["alertname"]).collect();
    assert_eq!(names, ["B", "C"]);
    server.fails.store(false, Ordering::SeqCst);
    notifier.send(&[alert("D")]);
    notifier.shutdown().await;
    let body = server.bodies.recv().await.unwrap();
    assert_eq!(body[0]["labels"]["alertname"], "D");
    assert_eq!(metric(&registry, "prometheus_notifications_dropped_total"), 1.0 + 2.0);
    assert_eq!(metric(&registry, "prometheus_notifications_errors_total"), 2.0);
    notifier.send(&[alert("E")]);
    assert!(server.bodies.try_recv().is_err(), "nothing is taken after the end");
}

#[tokio::test]
async fn queues_outlive_a_reload_that_does_not_concern_them() {
    let server = serve().await;
    let registry = Registry::new();
    let notifier = notifier(&registry, options(10, 10));
    notifier.update_targets(&targets(&[&server.address]));
    notifier.send(&[alert("A")]);
    let mut changed = options(10, 10);
    changed.external_labels = Labels::empty();
    notifier.apply(changed).unwrap();
    assert_eq!(notifier.alertmanagers().active.len(), 1);
    notifier.update_targets(&TargetSets::new());
    assert_eq!(notifier.alertmanagers(), Alertmanagers::default());
    notifier.shutdown().await;
}
