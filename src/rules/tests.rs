//! Groups evaluated by the real engine on a real store, on simulated time and disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::Mutex;

use super::*;
use crate::base::clock::{Clock, SimClock};
use crate::base::disk::SimDisk;
use crate::base::metrics::Registry;
use crate::base::rng::SimRng;
use crate::model::histogram::{Histogram, Span};
use crate::promql::engine::EngineOptions;
use crate::promql::parser::{ParserOptions, parse_metric};
use crate::storage::Storage;
use crate::storage::append::{Appender, OnReject, SeriesKey};
use crate::storage::options::{Limits, Retention, WalSync};

/// 2026-01-01.
const NOW_MS: i64 = 1_767_225_600_000;
const MINUTE_MS: i64 = 60_000;

#[derive(Default)]
struct Sent(Mutex<Vec<Alert>>);

impl AlertSink for Sent {
    fn send(&self, alerts: &[Alert]) {
        self.0.lock().extend(alerts.iter().cloned());
    }
}

/// A server with nothing but a store, an engine and rules.
struct Rig {
    clock: Arc<SimClock>,
    storage: Arc<Storage>,
    engine: Arc<Engine>,
    sent: Arc<Sent>,
    registry: Registry,
    manager: Arc<Manager>,
}

impl Rig {
    fn new() -> Self {
        let clock = Arc::new(SimClock::new(NOW_MS));
        let options = crate::storage::options::Options {
            path: PathBuf::from("/data"),
            retention: Retention::default(),
            limits: Limits::default(),
            reserve_bytes_max: 0,
            out_of_order_window_ms: Arc::new(AtomicI64::new(0)),
            wal_sync: WalSync::Never,
            log_file_bytes_max: 64 << 20,
            log_file_age_max_ms: i64::MAX,
            future_ms_max: 10 * MINUTE_MS,
            start_timestamps: crate::storage::options::StartTimestamps::default(),
        };
        let (disk, rng) = (Arc::new(SimDisk::new(1)), Arc::new(SimRng::new(1)));
        let storage = Storage::open(disk, clock.clone(), rng, &Registry::new(), options).unwrap();
        Self::with_storage(clock, storage)
    }

    fn with_storage(clock: Arc<SimClock>, storage: Arc<Storage>) -> Self {
        let options = EngineOptions {
            lookback_delta_ms: 5 * MINUTE_MS,
            max_samples: 1_000_000,
            max_bytes: 1 << 30,
            timeout: Duration::from_mins(1),
            max_concurrency: 1,
            helper_threads: 0,
            default_subquery_step_ms: Arc::new(AtomicI64::new(MINUTE_MS)),
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
            parser: ParserOptions::ALL,
        };
        let registry = Registry::new();
        let engine =
            Arc::new(Engine::new(storage.clone(), clock.clone(), &Registry::new(), options));
        let sent = Arc::new(Sent::default());
        let stores = Stores {
            engine: engine.clone(),
            select: storage.clone(),
            appender: storage.clone(),
            sink: sent.clone(),
        };
        let options = Options {
            external_labels: Labels::empty(),
            external_url: "http://n".to_owned(),
            for_outage_tolerance_ms: 60 * MINUTE_MS,
            for_grace_period_ms: 10 * MINUTE_MS,
            resend_delay_ms: MINUTE_MS,
        };
        let manager = Manager::new(stores, clock.clone(), &registry, options);
        Self { clock, storage, engine, sent, registry, manager }
    }

    /// The server again, after its end.
    fn restarted(self) -> Self {
        Self::with_storage(self.clock, self.storage)
    }

    fn apply(&self, groups: &[GroupOptions]) -> &Self {
        self.manager.apply(Labels::from_pairs([("dc", "x")]), groups.to_vec());
        self
    }

    /// Samples at the present moment.
    fn feed(&self, samples: &[(&str, f64)]) -> &Self {
        let mut batch = self.storage.appender(OnReject::Skip);
        for (series, value) in samples {
            let labels = parse_metric(series).unwrap();
            batch.float(SeriesKey::Labels(&labels), self.clock.now_ms(), *value);
        }
        batch.commit().unwrap();
        self
    }

    /// Goes to the next round with these samples just before it.
    fn round(&self, samples: &[(&str, f64)]) -> &Self {
        let next_ms = self.manager.next_ms().unwrap();
        self.clock.advance_ms((next_ms - self.clock.now_ms() - 1).max(0));
        self.feed(samples);
        self.clock.advance_ms(next_ms - self.clock.now_ms());
        self.manager.evaluate_due();
        self
    }

    /// The vector of an expression now, one line for each sample.
    fn ask(&self, expr: &str) -> String {
        let asker = Asker { cancel: &CancelFlag::new(), file: "r.yml", group: "ask" };
        let output = self.engine.vector(expr, self.clock.now_ms(), asker).unwrap();
        let mut lines: Vec<_> =
            output.iter().map(|sample| format!("{} {}", sample.labels, sample.value)).collect();
        lines.sort();
        lines.join("\n")
    }

    /// State and error of the rules of the only group.
    fn health(&self) -> String {
        let groups = self.manager.groups();
        let rules = groups.iter().flat_map(|group| &group.rules);
        rules
            .map(|rule| format!("{}: {} {}", rule.name, rule.health.as_str(), rule.last_error))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// What was sent since the last call.
    fn sent(&self) -> Vec<Alert> {
        std::mem::take(&mut self.sent.0.lock())
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name == name).unwrap();
        family.samples.iter().map(|sample| sample.value).sum()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn record(name: &str, expr: &str, labels: &[(&str, &str)]) -> RuleOptions {
    let (name, expr) = (name.to_owned(), expr.to_owned());
    RuleOptions { name, expr, labels: pairs(labels), kind: RuleKind::Recording }
}

fn alert(name: &str, expr: &str, hold_min: i64) -> RuleOptions {
    let kind = RuleKind::Alerting {
        hold_ms: hold_min * MINUTE_MS,
        keep_firing_ms: 0,
        annotations: Vec::new(),
    };
    RuleOptions { name: name.to_owned(), expr: expr.to_owned(), labels: Vec::new(), kind }
}

fn group(name: &str, rules: Vec<RuleOptions>) -> GroupOptions {
    GroupOptions {
        name: name.to_owned(),
        file: "f.yml".to_owned(),
        interval_ms: MINUTE_MS,
        query_offset_ms: 0,
        limit: 0,
        rules,
    }
}

#[test]
fn recording_rules_write_series_and_end_them() {
    let rig = Rig::new();
    let chain = record("b", "a * 10", &[]);
    let first = record("a", "sum by (x, y) (m)", &[("x", ""), ("z", "1")]);
    rig.apply(&[group("g", vec![first, chain])]);
    rig.round(&[(r#"m{x="1",y="2"}"#, 3.0), (r#"m{x="1",y="3"}"#, 4.0)]);
    insta::assert_snapshot!(rig.ask(r#"{__name__=~"a|b"}"#), @r#"
{__name__="a", y="2", z="1"} 3
{__name__="a", y="3", z="1"} 4
{__name__="b", y="2", z="1"} 30
{__name__="b", y="3", z="1"} 40
"#);
    rig.round(&[
        (r#"m{x="1",y="2"}"#, 5.0),
        (r#"m{x="1",y="3"}"#, crate::model::sample::stale_nan()),
    ]);
    insta::assert_snapshot!(rig.ask(r#"{__name__=~"a|b"}"#), @r#"
{__name__="a", y="2", z="1"} 5
{__name__="b", y="2", z="1"} 50
"#);
    assert_eq!(rig.metric("prometheus_rule_evaluations_total"), 4.0);
    assert_eq!(rig.metric("prometheus_rule_group_last_evaluation_samples"), 2.0);
    assert_eq!(rig.metric("prometheus_rule_group_rules"), 2.0);
}

#[test]
fn failing_rules_tell_why_and_leave_their_series() {
    let rig = Rig::new();
    let rules = vec![
        record("a", "m", &[("y", "")]),
        record("b", "m / on (x) m", &[]),
        alert("C", r#"label_replace(m, "y", "", "", "")"#, 0),
        record("ok", "sum(m)", &[]),
    ];
    rig.apply(&[group("g", rules)]);
    assert_eq!(rig.health(), "a: unknown \nb: unknown \nC: unknown \nok: unknown ");
    rig.round(&[(r#"m{x="1",y="1"}"#, 1.0)]);
    insta::assert_snapshot!(rig.health(), @r"
a: ok 
b: ok 
C: ok 
ok: ok
");
    rig.round(&[(r#"m{x="1",y="1"}"#, 1.0), (r#"m{x="1",y="2"}"#, 2.0)]);
    insta::assert_snapshot!(rig.health(), @r#"
a: err vector contains metrics with the same labelset after applying rule labels
b: err found duplicate series for the match group {x="1"} on the right hand-side of the operation: [{__name__="m", x="1", y="1"}, {__name__="m", x="1", y="2"}];many-to-many matching not allowed: matching labels must be unique on one side
C: err vector cannot contain metrics with the same labelset
ok: ok
"#);
    insta::assert_snapshot!(rig.ask("a"), @r#"{__name__="a", x="1"} 1"#);
    assert_eq!(rig.metric("prometheus_rule_evaluation_failures_total"), 3.0);
}

#[test]
fn limits_fail_the_rule_and_forget_its_alerts() {
    let rig = Rig::new();
    let rules = vec![record("a", "m", &[]), alert("B", "m", 0)];
    rig.apply(&[GroupOptions { limit: 1, ..group("g", rules) }]);
    rig.round(&[(r#"m{x="1"}"#, 1.0)]);
    assert_eq!(rig.sent().len(), 1);
    rig.round(&[(r#"m{x="1"}"#, 1.0), (r#"m{x="2"}"#, 2.0)]);
    insta::assert_snapshot!(rig.health(), @r"
a: err exceeded limit of 1 with 2 series
B: err exceeded limit of 1 with 2 alerts
");
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.manager.groups()[0].rules[1].alerting.as_ref().unwrap().alerts, []);
}

#[test]
fn alerts_go_through_their_states_and_write_their_series() {
    let rig = Rig::new();
    rig.apply(&[])
        .apply(&[group("g", vec![alert("A", "m > 0", 2), record("n", "count(ALERTS)", &[])])]);
    let state = || rig.ask(r#"{__name__=~"ALERTS|n"}"#);
    rig.round(&[("m", 1.0)]);
    let first_ms = rig.clock.now_ms();
    insta::assert_snapshot!(state(), @r#"
{__name__="ALERTS", alertname="A", alertstate="pending"} 1
{__name__="n"} 1
"#);
    assert_eq!(
        rig.ask("ALERTS_FOR_STATE"),
        format!("{{__name__=\"ALERTS_FOR_STATE\", alertname=\"A\"}} {}", first_ms / 1000)
    );
    rig.round(&[("m", 1.0)]);
    assert_eq!(rig.sent(), []);
    rig.round(&[("m", 2.0)]);
    insta::assert_snapshot!(state(), @r#"
{__name__="ALERTS", alertname="A", alertstate="firing"} 1
{__name__="n"} 1
"#);
    let sent = rig.sent();
    assert_eq!(sent[0].labels.to_string(), r#"{alertname="A"}"#);
    assert_eq!(sent[0].starts_at_ms, first_ms + 2 * MINUTE_MS);
    assert_eq!(sent[0].ends_at_ms, first_ms + 6 * MINUTE_MS);
    assert_eq!(sent[0].generator_url, "http://n/graph?g0.expr=m+%3E+0&g0.tab=1");
    let status = rig.manager.groups();
    let alerting = status[0].rules[0].alerting.as_ref().unwrap();
    assert_eq!(alerting.state, Some(AlertState::Firing));
    assert_eq!((alerting.alerts[0].value, alerting.alerts[0].active_at_ms), (2.0, first_ms));
    rig.round(&[("m", 0.0)]);
    assert_eq!(state(), "");
    assert_eq!(rig.sent()[0].ends_at_ms, first_ms + 3 * MINUTE_MS);
}

#[test]
fn labels_and_annotations_are_templates() {
    let rig = Rig::new();
    let mut rule = alert("A", "m > 0", 0);
    rule.labels =
        pairs(&[("level", "{{ if gt $value 5.0 }}high{{ else }}low{{ end }}"), ("x", "")]);
    let RuleKind::Alerting { annotations, .. } = &mut rule.kind else { panic!("an alert") };
    *annotations = pairs(&[
        ("bad", "{{ .Nope }}"),
        (
            "text",
            r#"{{ $labels.x }} in {{ $externalLabels.dc }}: {{ with query "sum(m)" }}{{ . | first | value }}{{ end }}"#,
        ),
    ]);
    rig.apply(&[group("g", vec![rule])]);
    rig.round(&[(r#"m{x="1"}"#, 7.0)]);
    let sent = rig.sent();
    insta::assert_snapshot!(format!("{}\n{}", sent[0].labels, sent[0].annotations), @r#"
{alertname="A", level="high"}
{bad="<error expanding template: error executing template __alert_A: template: __alert_A:1:115: executing \"__alert_A\" at <.Nope>: can't evaluate field Nope in type struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }>", text="1 in x: 7"}
"#);
}

#[test]
fn histograms_are_recorded_and_shown_as_texts() {
    let rig = Rig::new();
    let mut rule = alert("A", "h", 0);
    let RuleKind::Alerting { annotations, .. } = &mut rule.kind else { panic!("an alert") };
    let text = r#"{{ $value }} {{ with query "recorded" }}{{ . | first | value }}{{ end }}"#;
    *annotations = pairs(&[("text", text)]);
    rig.apply(&[group("g", vec![record("recorded", "h * 2", &[]), rule])]);
    let histogram = Histogram {
        count: 3.0,
        sum: 4.5,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    let labels = parse_metric("h").unwrap();
    let mut batch = rig.storage.appender(OnReject::Skip);
    batch.histogram(SeriesKey::Labels(&labels), rig.clock.now_ms(), &histogram);
    batch.commit().unwrap();
    rig.round(&[]);
    let text = "{count:3, sum:4.5, (0.5,1]:1, (1,2]:2} {count:6, sum:9, (0.5,1]:2, (1,2]:4}";
    assert_eq!(rig.sent()[0].annotations.get("text"), Some(text));
    assert_eq!(rig.health(), "recorded: ok \nA: ok ");
}

#[test]
fn queries_look_and_results_are_written_in_the_past() {
    let rig = Rig::new();
    let options =
        GroupOptions { query_offset_ms: 2 * MINUTE_MS, ..group("g", vec![record("a", "m", &[])]) };
    rig.apply(&[options]);
    for value in [1.0, 2.0, 3.0] {
        rig.round(&[("m", value)]);
    }
    let expected = format!("{{__name__=\"a\"}} 1\n{}", "");
    assert_eq!(rig.ask("a"), expected.trim());
    let time = rig.ask("timestamp(a)");
    assert_eq!(time, format!("{{}} {}", (rig.clock.now_ms() - 2 * MINUTE_MS) as f64 / 1000.0));
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let rig = Rig::new();
    rig.apply(&[]).apply(&[group("g", vec![alert("A", "m > 0", 3)])]);
    rig.round(&[("m", 1.0)]);
    let first_ms = rig.clock.now_ms();
    // Another expression and another rule: the alert stays pending since its first round.
    let changed = vec![record("r", "m", &[]), alert("A", "m >= 1", 3)];
    rig.apply(&[group("g", changed.clone())]);
    for _ in 0..3 {
        rig.round(&[("m", 1.0)]);
    }
    assert_eq!(rig.sent()[0].starts_at_ms, first_ms + 3 * MINUTE_MS);
    // The recording rule goes: its series ends with the next round.
    rig.apply(&[group("g", vec![changed[1].clone()])]).round(&[("m", 1.0)]);
    assert_eq!(rig.ask("r"), "");
    // The whole group goes: two intervals later its series end too.
    rig.apply(&[]);
    rig.clock.advance_ms(2 * MINUTE_MS - 1);
    rig.manager.evaluate_due();
    assert_ne!(rig.ask("ALERTS"), "");
    rig.clock.advance_ms(1);
    rig.manager.evaluate_due();
    assert_eq!(rig.ask("ALERTS"), "");
}

#[test]
fn a_renamed_group_continues_its_series() {
    let rig = Rig::new();
    rig.apply(&[group("g", vec![record("a", "m", &[])])]);
    rig.round(&[("m", 1.0)]);
    rig.apply(&[group("h", vec![record("a", "m", &[])])]);
    for _ in 0..4 {
        rig.round(&[("m", 2.0)]);
        assert_eq!(rig.ask("a"), r#"{__name__="a"} 2"#);
    }
}

#[test]
fn pending_alerts_survive_a_restart() {
    let groups = [group("g", vec![alert("A", "m > 0", 30)])];
    let mut rig = Rig::new();
    rig.apply(&groups);
    rig.round(&[("m", 1.0)]);
    let first_ms = rig.clock.now_ms();
    assert_eq!(rig.ask("ALERTS"), "", "nothing is written before restoration");
    for _ in 0..10 {
        rig.round(&[("m", 1.0)]);
    }
    assert_ne!(rig.ask("ALERTS"), "");
    // Down for five minutes, which do not count.
    rig = rig.restarted();
    rig.clock.advance_ms(5 * MINUTE_MS - 1);
    rig.apply(&groups);
    let mut fired_ms = None;
    for _ in 0..40 {
        rig.round(&[("m", 1.0)]);
        fired_ms = fired_ms.or(rig.sent().first().map(|alert| alert.starts_at_ms));
    }
    // Rounds at first + 15 (up again), 16 (restored: down for 6 minutes since the last round).
    assert_eq!(fired_ms.map(|ms| (ms - first_ms) / MINUTE_MS), Some(36));
}

#[test]
fn late_rounds_are_left_out() {
    let rig = Rig::new();
    rig.apply(&[group("g", vec![record("a", "m", &[])])]);
    rig.round(&[("m", 1.0)]);
    rig.clock.advance_ms(5 * MINUTE_MS);
    rig.manager.evaluate_due();
    assert_eq!(rig.metric("prometheus_rule_group_iterations_missed_total"), 4.0);
    assert_eq!(rig.metric("prometheus_rule_group_iterations_total"), 6.0);
    assert_eq!(rig.metric("prometheus_rule_evaluations_total"), 2.0);
}

/// Holds up the expression `slow` until it is let go or its query is canceled.
struct Holdup {
    engine: Arc<Engine>,
    begun: std::sync::mpsc::SyncSender<()>,
    let_go: std::sync::atomic::AtomicBool,
}

impl Evaluate for Holdup {
    fn vector(
        &self,
        expr: &str,
        at_ms: i64,
        asker: Asker<'_>,
    ) -> Result<Vec<QuerySample>, EvaluateError> {
        if expr == "slow" {
            self.begun.send(()).unwrap();
            while !self.let_go.load(std::sync::atomic::Ordering::Relaxed) {
                if asker.cancel.is_canceled() {
                    return Err(EvaluateError::Canceled("canceled".to_owned()));
                }
                std::thread::yield_now();
            }
        }
        self.engine.vector(expr, at_ms, asker)
    }
}

impl Rig {
    /// With a slow group and a fast one, whose round begins now on a thread of its own.
    fn held_up(work: impl FnOnce(&Self, &Holdup)) -> Self {
        let (begun, wait) = std::sync::mpsc::sync_channel(1);
        let mut rig = Self::new();
        let let_go = false.into();
        let engine = Arc::new(Holdup { engine: rig.engine.clone(), begun, let_go });
        let stores = Stores {
            engine: engine.clone(),
            select: rig.storage.clone(),
            appender: rig.storage.clone(),
            sink: rig.sent.clone(),
        };
        let options = Options {
            external_labels: Labels::empty(),
            external_url: String::new(),
            for_outage_tolerance_ms: 0,
            for_grace_period_ms: 0,
            resend_delay_ms: 0,
        };
        rig.manager = Manager::new(stores, rig.clock.clone(), &rig.registry, options);
        rig.feed(&[("m", 1.0), ("slow", 1.0)]).apply(&[slow_group(), fast_group()]);
        std::thread::scope(|scope| {
            rig.clock.advance_ms(2 * MINUTE_MS);
            let thread = scope.spawn(|| rig.manager.evaluate_due());
            wait.recv().unwrap();
            work(&rig, &engine);
            thread.join().unwrap();
        });
        rig
    }
}

fn slow_group() -> GroupOptions {
    group("slow", vec![record("s", "slow", &[])])
}

fn fast_group() -> GroupOptions {
    group("fast", vec![record("f", "m + 1", &[])])
}

#[test]
fn a_slow_group_keeps_no_other_waiting() {
    let rig = Rig::held_up(|rig, engine| {
        rig.manager.evaluate_due();
        assert_eq!(rig.ask("f"), "{__name__=\"f\"} 2");
        rig.manager.apply(Labels::empty(), vec![slow_group(), fast_group()]);
        assert_eq!(rig.manager.groups().len(), 2, "nobody waits for what runs");
        assert_eq!(rig.ask("s"), "");
        engine.let_go.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(rig.ask("s"), "{__name__=\"s\"} 1", "the round of an unchanged group went on");
}

#[test]
fn groups_change_while_they_are_evaluated() {
    let rig = Rig::held_up(|rig, _| {
        let changed = group("slow", vec![record("s", "m * 7", &[])]);
        rig.manager.apply(Labels::empty(), vec![changed, fast_group()]);
    });
    rig.round(&[("m", 1.0)]);
    assert_eq!(rig.ask("s"), "{__name__=\"s\"} 7");
    assert_eq!(rig.health(), "f: ok \ns: ok ", "a canceled round is no failure");

    let rig = Rig::held_up(|rig, _| {
        rig.manager.apply(Labels::empty(), vec![fast_group()]);
        assert_eq!(rig.manager.groups().len(), 1);
        // Gone, and wanted after all.
        rig.manager.apply(Labels::empty(), vec![slow_group(), fast_group()]);
        rig.manager.apply(Labels::empty(), vec![fast_group()]);
    });
    assert_eq!(rig.manager.groups().len(), 1);
    rig.round(&[("m", 1.0)]);
    assert_eq!((rig.ask("s"), rig.ask("f")), (String::new(), "{__name__=\"f\"} 2".to_owned()));
}

#[test]
fn the_end_waits_for_no_query() {
    Rig::held_up(|rig, _| rig.manager.shutdown());
}

#[test]
fn the_thread_starts_and_ends() {
    let rig = Rig::new();
    rig.apply(&[group("g", vec![record("a", "m", &[])])]);
    rig.manager.run().unwrap();
    rig.manager.shutdown();
    rig.manager.shutdown();
}
