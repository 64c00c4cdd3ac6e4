//! Simulated time: alerts, silences, restarts and failing receivers against the state machine.

use std::path::Path;

use super::*;
use crate::alerting::inhibit::InhibitRule;
use crate::alerting::matchers::parse_list;
use crate::alerting::receiver::{IntegrationOptions, ReceiverOptions, Settings, webhook};
use crate::alerting::route::{GroupBy, RouteOptions};
use crate::alerting::silence::Silence;
use crate::alerting::state::StateLog;
use crate::alerting::time_interval::{NamedIntervals, TimeInterval};
use crate::base::disk::SimDisk;
use crate::base::metrics::Registry;
use crate::base::rng::SimRng;
use crate::http_client;
use crate::template::notification::Templates;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const START: i64 = 1_000_000_000;

fn route(receiver: &str, matchers: &str, routes: Vec<RouteOptions>) -> RouteOptions {
    RouteOptions {
        receiver: receiver.to_owned(),
        matchers: parse_list(matchers).unwrap(),
        continues: false,
        group_by: GroupBy::Labels(BTreeSet::from(["alertname".to_owned()])),
        group_wait_ms: 30_000,
        group_interval_ms: 5 * MINUTE,
        repeat_interval_ms: 4 * HOUR,
        mute_time_intervals: Vec::new(),
        active_time_intervals: Vec::new(),
        labels: Labels::empty(),
        routes,
    }
}

fn receiver(name: &str, integrations: usize) -> ReceiverOptions {
    let integration = IntegrationOptions {
        send_resolved: true,
        resolve_when_muted: false,
        http: http_client::Options::plain(),
        timeout: None,
        settings: Settings::Webhook(Box::new(webhook::Options {
            url: http_client::Secret::Inline("http://127.0.0.1/".to_owned()),
            alerts_max: 0,
            payload: None,
        })),
    };
    ReceiverOptions {
        name: name.to_owned(),
        labels: Labels::empty(),
        integrations: vec![integration; integrations],
    }
}

fn options() -> Options {
    Options {
        resolve_timeout_ms: 5 * MINUTE,
        retention_ms: 120 * HOUR,
        external_url: "http://here".to_owned(),
        route: route("team", "", vec![route("pager", "severity=critical", vec![])]),
        receivers: vec![receiver("team", 1), receiver("pager", 1)],
        inhibit_rules: Vec::new(),
        time_intervals: Vec::new(),
        templates: Templates::builtin(),
        original: String::new(),
    }
}

/// A pipeline with its log on a simulated disk, and receivers that answer as told.
struct Sim {
    pipeline: Pipeline,
    disk: SimDisk,
    log: StateLog,
    options: Arc<Options>,
    now_ms: i64,
    /// What was sent, as `minutes receiver status: instances`.
    sent: Vec<String>,
    /// How attempts end, for each receiver; without an entry they succeed.
    answers: HashMap<String, Outcome>,
    /// Attempts made.
    attempts: usize,
}

impl Sim {
    fn new(options: Options) -> Self {
        let disk = SimDisk::new(7);
        let options = Arc::new(options);
        let (log, recovered) = StateLog::open(Arc::new(disk.clone()), Path::new("/a")).unwrap();
        assert!(recovered.changes.is_empty());
        let pipeline = Self::pipeline(&options);
        Self {
            pipeline,
            disk,
            log,
            options,
            now_ms: START,
            sent: Vec::new(),
            answers: HashMap::new(),
            attempts: 0,
        }
    }

    fn pipeline(options: &Arc<Options>) -> Pipeline {
        let metrics = Metrics::new(&Registry::new());
        Pipeline::new(Arc::clone(options), Arc::new(SimRng::new(1)), metrics)
    }

    fn crash_and_restart(&mut self, down_ms: i64) {
        self.disk.crash();
        self.now_ms += down_ms;
        let (log, recovered) =
            StateLog::open(Arc::new(self.disk.clone()), Path::new("/a")).unwrap();
        assert_eq!(recovered.damage, None);
        self.log = log;
        self.pipeline = Self::pipeline(&self.options);
        self.pipeline.restore(recovered.changes, self.now_ms);
    }

    fn alert(name: &str, instance: &str, severity: &str) -> Alert {
        let pairs = [("alertname", name), ("instance", instance), ("severity", severity)];
        Alert {
            labels: Labels::from_pairs(pairs),
            annotations: Labels::empty(),
            starts_at_ms: 0,
            ends_at_ms: 0,
            generator_url: String::new(),
        }
    }

    /// Reports that an alert fires, as rules do: for the next hours unless told otherwise.
    fn fire(&mut self, name: &str, instance: &str) {
        let mut alert = Self::alert(name, instance, "warning");
        alert.ends_at_ms = self.now_ms + 100 * HOUR;
        alert.starts_at_ms = self.now_ms;
        self.put(alert);
    }

    fn resolve(&mut self, name: &str, instance: &str) {
        let mut alert = Self::alert(name, instance, "warning");
        alert.ends_at_ms = self.now_ms;
        alert.starts_at_ms = self.now_ms;
        self.put(alert);
    }

    fn put(&mut self, alert: Alert) {
        let (changes, errors) = self.pipeline.put(vec![alert], self.now_ms);
        assert!(errors.is_empty());
        self.log.append(&changes).unwrap();
    }

    fn silence(&mut self, matchers: &str, for_ms: i64) -> String {
        let silence = Silence {
            id: String::new(),
            matchers: parse_list(matchers).unwrap(),
            starts_at_ms: self.now_ms,
            ends_at_ms: self.now_ms + for_ms,
            updated_at_ms: 0,
            created_by: String::new(),
            comment: String::new(),
            annotations: BTreeMap::new(),
        };
        let (id, changes) = self.pipeline.set_silence(silence, self.now_ms).unwrap();
        self.log.append(&changes).unwrap();
        id
    }

    /// Lets time pass, doing what is due when it is due.
    fn run(&mut self, for_ms: i64) {
        let end_ms = self.now_ms + for_ms;
        loop {
            loop {
                let (attempts, changes) = self.pipeline.tick(self.now_ms, 100);
                self.log.append(&changes).unwrap();
                if attempts.is_empty() {
                    break;
                }
                for attempt in attempts {
                    self.answer(&attempt);
                }
            }
            let next_ms = self.pipeline.next_wakeup_ms().unwrap();
            assert!(self.now_ms < next_ms, "a busy loop at {}", self.now_ms - START);
            if end_ms < next_ms {
                self.now_ms = end_ms;
                return;
            }
            self.now_ms = next_ms;
        }
    }

    fn answer(&mut self, attempt: &Attempt) {
        self.attempts += 1;
        let sent = Outcome::Sent(BTreeMap::new());
        let outcome = self.answers.get(&attempt.receiver).cloned().unwrap_or(sent);
        if matches!(outcome, Outcome::Sent(_)) {
            let data = &attempt.notification.data;
            let alert = |alert: &crate::template::notification::AlertData| {
                let end = if alert.status == "resolved" { "-" } else { "+" };
                format!("{end}{}", alert.labels.get("instance").unwrap_or(""))
            };
            let alerts: Vec<_> = data.alerts.iter().map(alert).collect();
            let seconds = (self.now_ms - START) as f64 / 1e3;
            let reason = &data.notification_reason;
            self.sent.push(format!(
                "{seconds}s {} {}: {} ({reason})",
                attempt.receiver,
                data.status,
                alerts.join(" ")
            ));
        }
        let changes = self.pipeline.finish(attempt.id, outcome, self.now_ms);
        self.log.append(&changes).unwrap();
    }

    fn take_sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }
}

#[test]
fn three_alerts_make_one_notification_and_one_resolve() {
    let mut sim = Sim::new(options());
    sim.fire("Down", "a");
    sim.run(10_000);
    sim.fire("Down", "b");
    sim.fire("Down", "c");
    sim.run(10 * MINUTE);
    assert_eq!(sim.take_sent(), ["30s team firing: +a +b +c (first notification)"]);
    sim.resolve("Down", "b");
    sim.run(5 * MINUTE);
    assert_eq!(sim.take_sent(), ["630s team firing: +a -b +c (some alerts resolved)"]);
    sim.resolve("Down", "a");
    sim.resolve("Down", "c");
    sim.run(10 * MINUTE);
    assert_eq!(sim.take_sent(), ["930s team resolved: -a -c (all alerts resolved)"]);
    assert_eq!(sim.pipeline.group_count(), 0);
    assert!(sim.pipeline.alerts.is_empty());
    sim.run(100 * HOUR);
    assert!(sim.take_sent().is_empty());
}

#[test]
fn nothing_is_repeated_before_repeat_interval_and_then_exactly() {
    let mut sim = Sim::new(options());
    sim.fire("Down", "a");
    sim.run(13 * HOUR);
    let times: Vec<_> =
        sim.take_sent().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(times, ["30s", "14430s", "28830s", "43230s"]);
}

#[test]
fn an_alert_that_ends_within_group_wait_notifies_nobody() {
    let mut sim = Sim::new(options());
    sim.fire("Down", "a");
    sim.run(10_000);
    sim.resolve("Down", "a");
    sim.run(HOUR);
    assert!(sim.take_sent().is_empty());
    assert_eq!(sim.pipeline.group_count(), 0);
}

#[test]
fn an_alert_that_nobody_reports_again_ends_by_itself() {
    let mut sim = Sim::new(options());
    sim.put(Sim::alert("Down", "a", "warning"));
    sim.run(20 * MINUTE);
    assert_eq!(
        sim.take_sent(),
        [
            "30s team firing: +a (first notification)",
            "330s team resolved: -a (all alerts resolved)"
        ]
    );
}

#[test]
fn silences_hold_messages_back_until_they_end() {
    let mut sim = Sim::new(options());
    let id = sim.silence("instance=a", 2 * HOUR);
    sim.fire("Down", "a");
    sim.fire("Down", "b");
    sim.run(HOUR);
    assert_eq!(sim.take_sent(), ["30s team firing: +b (first notification)"]);
    let views = sim.pipeline.alert_views(&AlertFilter::all(), sim.now_ms);
    let states: Vec<_> = views.iter().map(|view| (view.state(), &view.silenced_by)).collect();
    assert!(states.contains(&("suppressed", &vec![id.clone()])), "{states:?}");
    let changes = sim.pipeline.expire_silence(&id, sim.now_ms).unwrap();
    sim.log.append(&changes).unwrap();
    sim.run(10 * MINUTE);
    assert_eq!(sim.take_sent(), ["3630s team firing: +a +b (new alerts added)"]);
}

#[test]
fn what_was_announced_is_resolved_although_it_is_silenced() {
    let mut told = options();
    for receiver in &mut told.receivers {
        receiver.integrations[0].resolve_when_muted = true;
    }
    for (options, expected) in
        [(options(), &[][..]), (told, &["330s team resolved: -a (all alerts resolved)"][..])]
    {
        let mut sim = Sim::new(options);
        sim.fire("Down", "a");
        sim.run(MINUTE);
        sim.take_sent();
        sim.silence("instance=a", HOUR);
        sim.resolve("Down", "a");
        sim.run(10 * MINUTE);
        assert_eq!(sim.take_sent(), expected);
        assert_eq!(sim.pipeline.group_count(), 0);
    }
}

#[test]
fn inhibited_alerts_notify_when_the_source_ends() {
    let mut options = options();
    options.inhibit_rules = vec![InhibitRule {
        name: String::new(),
        source_matchers: parse_list("alertname=Cluster").unwrap(),
        target_matchers: parse_list("alertname=Down").unwrap(),
        equal: vec!["severity".to_owned()],
    }];
    let mut sim = Sim::new(options);
    sim.fire("Cluster", "x");
    sim.fire("Down", "a");
    sim.run(10 * MINUTE);
    assert_eq!(sim.take_sent(), ["30s team firing: +x (first notification)"]);
    sim.resolve("Cluster", "x");
    sim.run(5 * MINUTE);
    assert_eq!(
        sim.take_sent(),
        [
            "630s team resolved: -x (all alerts resolved)",
            "630s team firing: +a (first notification)"
        ]
    );
}

#[test]
fn time_intervals_mute_routes() {
    let mut options = options();
    let always = TimeInterval {
        times: Vec::new(),
        weekdays: Vec::new(),
        days_of_month: Vec::new(),
        months: Vec::new(),
        years: Vec::new(),
        location: jiff::tz::TimeZone::UTC,
    };
    options.time_intervals =
        vec![NamedIntervals { name: "always".to_owned(), intervals: vec![always] }];
    options.route.routes[0].mute_time_intervals = vec!["always".to_owned()];
    let mut sim = Sim::new(options);
    sim.put(Sim::alert("Down", "a", "critical"));
    sim.put(Sim::alert("Down", "b", "warning"));
    sim.run(MINUTE);
    assert_eq!(sim.take_sent(), ["30s team firing: +b (first notification)"]);
    let groups = sim.pipeline.group_views(&AlertFilter::all(), sim.now_ms);
    let muted: Vec<_> = groups.iter().map(|group| group.alerts[0].muted_by.len()).collect();
    assert_eq!(muted, [1, 0]);
}

#[test]
fn a_crash_between_firing_and_resolving_loses_and_repeats_nothing() {
    let mut sim = Sim::new(options());
    let silence = sim.silence("instance=quiet", 48 * HOUR);
    sim.fire("Down", "a");
    sim.fire("Down", "quiet");
    sim.run(MINUTE);
    assert_eq!(sim.take_sent(), ["30s team firing: +a (first notification)"]);
    sim.crash_and_restart(MINUTE);
    sim.run(HOUR);
    assert!(sim.take_sent().is_empty(), "no repeat after the restart");
    assert!(sim.pipeline.silences().get(&silence).is_some());
    let now_ms = sim.now_ms;
    assert_eq!(sim.pipeline.group_views(&AlertFilter::all(), now_ms)[0].alerts.len(), 2);
    sim.resolve("Down", "a");
    sim.resolve("Down", "quiet");
    sim.crash_and_restart(0);
    sim.run(10 * MINUTE);
    let sent = sim.take_sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].contains("team resolved: -a (all alerts resolved)"), "{sent:?}");
}

#[test]
fn alerts_that_expired_while_we_were_down_get_a_grace() {
    let mut sim = Sim::new(options());
    sim.put(Sim::alert("Down", "a", "warning"));
    sim.run(MINUTE);
    assert_eq!(sim.take_sent().len(), 1);
    sim.crash_and_restart(HOUR);
    sim.run(4 * MINUTE);
    assert!(sim.take_sent().is_empty(), "the sender has time to report it again");
    sim.fire("Down", "a");
    sim.run(HOUR);
    assert!(sim.take_sent().is_empty());
    sim.resolve("Down", "a");
    sim.run(10 * MINUTE);
    assert!(sim.take_sent()[0].contains("team resolved: -a"));
}

#[test]
fn a_failing_receiver_is_retried_and_does_not_hold_others_up() {
    let mut options = options();
    options.receivers[0] = receiver("team", 2);
    let mut sim = Sim::new(options);
    let retry = Outcome::Retry { after_ms: None, reason: "serverError" };
    sim.answers.insert("team".to_owned(), retry);
    sim.fire("Down", "a");
    sim.put(Sim::alert("Other", "b", "critical"));
    sim.run(MINUTE);
    assert_eq!(sim.take_sent(), ["30s pager firing: +b (first notification)"]);
    assert!((10..40).contains(&sim.attempts), "{} attempts with backoff", sim.attempts);
    sim.answers.clear();
    sim.run(MINUTE);
    let sent = sim.take_sent();
    assert_eq!(sent.len(), 2, "once for each integration: {sent:?}");
    sim.run(HOUR);
    assert!(sim.take_sent().iter().all(|line| !line.contains("team")));
}

#[test]
fn a_wish_to_wait_is_respected_and_a_refusal_is_tried_at_the_next_tick() {
    let mut sim = Sim::new(options());
    let wait = Outcome::Retry { after_ms: Some(100_000), reason: "rateLimited" };
    sim.answers.insert("team".to_owned(), wait);
    sim.fire("Down", "a");
    sim.run(31_000);
    sim.answers.clear();
    assert_eq!(sim.attempts, 1);
    sim.run(10 * MINUTE);
    assert_eq!(sim.take_sent(), ["130s team firing: +a (first notification)"]);

    sim.answers.insert("team".to_owned(), Outcome::Failed { reason: "clientError" });
    sim.fire("Down", "b");
    sim.run(5 * MINUTE);
    sim.answers.clear();
    assert!(sim.take_sent().is_empty());
    sim.run(5 * MINUTE);
    assert_eq!(sim.take_sent().len(), 1);
}

#[test]
fn a_reload_keeps_what_was_sent() {
    let mut sim = Sim::new(options());
    sim.fire("Down", "a");
    sim.run(MINUTE);
    assert_eq!(sim.take_sent().len(), 1);
    sim.pipeline.reload(Arc::new(options()), sim.now_ms);
    sim.run(HOUR);
    assert!(sim.take_sent().is_empty());
    let mut other = options();
    other.route.receiver = "pager".to_owned();
    sim.pipeline.reload(Arc::new(other), sim.now_ms);
    sim.run(MINUTE);
    assert_eq!(sim.take_sent(), ["3660s pager firing: +a (first notification)"]);
}

#[test]
fn a_reload_while_a_message_is_under_way_does_not_send_it_twice() {
    let mut sim = Sim::new(options());
    sim.fire("Down", "a");
    sim.now_ms += 30_000;
    let (attempts, _) = sim.pipeline.tick(sim.now_ms, 100);
    sim.pipeline.reload(Arc::new(options()), sim.now_ms);
    sim.now_ms += MINUTE;
    let (others, _) = sim.pipeline.tick(sim.now_ms, 100);
    assert!(others.is_empty());
    sim.answer(&attempts[0]);
    sim.run(HOUR);
    assert_eq!(sim.take_sent().len(), 1);
}

#[test]
fn bad_alerts_are_refused_and_good_ones_kept() {
    let mut sim = Sim::new(options());
    let good = Sim::alert("Down", "a", "warning");
    let mut backwards = Sim::alert("Down", "b", "warning");
    (backwards.starts_at_ms, backwards.ends_at_ms) = (START, START - 1);
    let empty = Alert { labels: Labels::empty(), ..good.clone() };
    let (changes, errors) = sim.pipeline.put(vec![backwards, good, empty], START);
    assert_eq!(changes.len(), 1);
    assert_eq!(errors, [AlertError::Times, AlertError::NoLabels]);
}

#[test]
fn one_integration_never_takes_all_slots() {
    let mut sim = Sim::new(options());
    for number in 0..40 {
        sim.fire(&format!("Down{number}"), "a");
    }
    sim.put(Sim::alert("Other", "b", "critical"));
    sim.now_ms += 30_000;
    let (attempts, _) = sim.pipeline.tick(sim.now_ms, 64);
    let to_team = attempts.iter().filter(|attempt| attempt.receiver == "team").count();
    assert_eq!((to_team, attempts.len()), (8, 9));
    assert!(sim.now_ms < sim.pipeline.next_wakeup_ms().unwrap(), "no busy loop while full");
    for attempt in &attempts {
        sim.answer(attempt);
    }
    sim.run(MINUTE);
    assert_eq!(sim.take_sent().len(), 41);
}
