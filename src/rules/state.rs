//! The life of the alerts of one rule: inactive, pending, firing, resolved. Pure: the caller tells
//! the time of the evaluation.

use std::collections::BTreeMap;

use crate::model::alert::Alert;
use crate::model::labels::Labels;

/// Resolved alerts are kept and sent again for this long, so that an Alertmanager that was away
/// still hears of it.
pub const RESOLVED_RETENTION_MS: i64 = 15 * 60 * 1000;

/// State of an alert, in order of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// Resolved, or never there.
    Inactive,
    /// Its series is there, but not for long enough.
    Pending,
    /// It has to be dealt with.
    Firing,
}

impl AlertState {
    /// The word of the API and of `ALERTS{alertstate="…"}`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// One alert of a rule, resolved ones included.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ActiveAlert {
    pub annotations: Labels,
    pub state: AlertState,
    pub value: f64,
    /// When its series appeared.
    pub active_at_ms: i64,
    pub fired_at_ms: Option<i64>,
    pub resolved_at_ms: Option<i64>,
    pub last_sent_at_ms: Option<i64>,
    /// Since when it fires without a series.
    pub keep_firing_since_ms: Option<i64>,
}

/// What one series of the expression's result says now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observed {
    pub annotations: Labels,
    pub value: f64,
}

/// How long alerts wait before they fire and go on firing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub hold_ms: i64,
    pub keep_firing_ms: i64,
}

/// All alerts of one rule by their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Alerts(BTreeMap<Labels, ActiveAlert>);

impl Alerts {
    /// Takes in what an evaluation at `ts_ms` found; the number of alerts now pending or firing.
    pub fn observe(
        &mut self,
        mut found: BTreeMap<Labels, Observed>,
        patience: Patience,
        ts_ms: i64,
    ) -> usize {
        let mut active_count = 0;
        self.0.retain(|labels, alert| match found.remove(labels) {
            Some(observed) => {
                alert.reappear(observed, ts_ms);
                true
            }
            None => alert.miss(patience, ts_ms),
        });
        for (labels, observed) in found {
            self.0.insert(labels, ActiveAlert::new(observed, ts_ms));
        }
        for alert in self.0.values_mut().filter(|alert| alert.state != AlertState::Inactive) {
            active_count += 1;
            alert.ripen(patience.hold_ms, ts_ms);
        }
        active_count
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Pending and firing alerts in order of labels.
    pub fn active(&self) -> impl Iterator<Item = (&Labels, &ActiveAlert)> {
        self.0.iter().filter(|(_, alert)| alert.state != AlertState::Inactive)
    }

    /// The same, to shift when they began.
    pub fn active_mut(&mut self) -> impl Iterator<Item = (&Labels, &mut ActiveAlert)> {
        self.0.iter_mut().filter(|(_, alert)| alert.state != AlertState::Inactive)
    }

    /// Alerts to be sent now, which count as sent afterwards.
    pub fn take_due(&mut self, ts_ms: i64, timing: &SendTiming<'_>) -> Vec<Alert> {
        let due = self.0.iter_mut().filter(|(_, alert)| alert.needs_sending(ts_ms, timing));
        due.map(|(labels, alert)| {
            alert.last_sent_at_ms = Some(ts_ms);
            let valid_ms = 4 * timing.interval_ms.max(timing.resend_delay_ms);
            Alert {
                labels: labels.clone(),
                annotations: alert.annotations.clone(),
                starts_at_ms: alert.fired_at_ms.unwrap_or(ts_ms),
                ends_at_ms: alert.resolved_at_ms.unwrap_or(ts_ms + valid_ms),
                generator_url: timing.generator_url.to_owned(),
            }
        })
        .collect()
    }
}

/// What decides when an alert is sent and how long it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendTiming<'a> {
    pub resend_delay_ms: i64,
    pub interval_ms: i64,
    pub generator_url: &'a str,
}

impl ActiveAlert {
    fn new(observed: Observed, ts_ms: i64) -> Self {
        Self {
            annotations: observed.annotations,
            state: AlertState::Pending,
            value: observed.value,
            active_at_ms: ts_ms,
            fired_at_ms: None,
            resolved_at_ms: None,
            last_sent_at_ms: None,
            keep_firing_since_ms: None,
        }
    }

    /// Its series is there.
    fn reappear(&mut self, observed: Observed, ts_ms: i64) {
        if self.state == AlertState::Inactive {
            *self = Self::new(observed, ts_ms);
            return;
        }
        self.annotations = observed.annotations;
        self.value = observed.value;
        self.keep_firing_since_ms = None;
    }

    /// Its series is not there. `false`: the alert is to be forgotten.
    fn miss(&mut self, patience: Patience, ts_ms: i64) -> bool {
        if self.state == AlertState::Firing && patience.keep_firing_ms > 0 {
            let since_ms = *self.keep_firing_since_ms.get_or_insert(ts_ms);
            if ts_ms - since_ms < patience.keep_firing_ms {
                return true;
            }
        }
        let is_old = |resolved_ms: i64| ts_ms - resolved_ms > RESOLVED_RETENTION_MS;
        if self.state == AlertState::Pending || self.resolved_at_ms.is_some_and(is_old) {
            return false;
        }
        if self.state == AlertState::Firing {
            self.state = AlertState::Inactive;
            self.resolved_at_ms = Some(ts_ms);
        }
        true
    }

    /// Pending alerts fire when they are old enough; firing ones step back when `for` was raised.
    fn ripen(&mut self, hold_ms: i64, ts_ms: i64) {
        let is_ripe = ts_ms - self.active_at_ms >= hold_ms;
        match self.state {
            AlertState::Pending if is_ripe => {
                self.state = AlertState::Firing;
                self.fired_at_ms = Some(ts_ms);
            }
            AlertState::Firing if !is_ripe => {
                self.state = AlertState::Pending;
                self.fired_at_ms = None;
            }
            _ => {}
        }
    }

    fn needs_sending(&self, ts_ms: i64, timing: &SendTiming<'_>) -> bool {
        if self.state == AlertState::Pending {
            return false;
        }
        match (self.last_sent_at_ms, self.resolved_at_ms) {
            (None, _) => true,
            (Some(sent_ms), Some(resolved_ms)) if resolved_ms > sent_ms => true,
            (Some(sent_ms), _) => sent_ms + timing.resend_delay_ms < ts_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter per evaluation, a minute apart: `x` the series is there, `.` it is not. The
    /// answer has one letter each: `p`ending, `f`iring, `r`esolved, `.` unknown; a `!` follows when
    /// the alert was sent.
    fn life(hold_min: i64, keep_min: i64, resend_min: i64, input: &str) -> String {
        let minute = 60_000;
        let patience = Patience { hold_ms: hold_min * minute, keep_firing_ms: keep_min * minute };
        let timing = SendTiming {
            resend_delay_ms: resend_min * minute,
            interval_ms: minute,
            generator_url: "u",
        };
        let labels = Labels::from_pairs([("alertname", "A")]);
        let (mut alerts, mut out) = (Alerts::default(), String::new());
        for (round, letter) in input.chars().enumerate() {
            let ts_ms = (round as i64 + 100) * minute;
            let mut found = BTreeMap::new();
            if letter == 'x' {
                found.insert(labels.clone(), Observed { annotations: Labels::empty(), value: 1.0 });
            }
            alerts.observe(found, patience, ts_ms);
            out.push(match alerts.0.get(&labels) {
                None => '.',
                Some(alert) => match alert.state {
                    AlertState::Pending => 'p',
                    AlertState::Firing => 'f',
                    AlertState::Inactive => 'r',
                },
            });
            let sent = alerts.take_due(ts_ms, &timing);
            assert!(sent.iter().all(|alert| alert.ends_at_ms >= alert.starts_at_ms));
            out.push_str(if sent.is_empty() { "" } else { "!" });
        }
        out
    }

    #[test]
    fn the_life_of_an_alert() {
        insta::assert_snapshot!(life(0, 0, 1, "xx."), @"f!fr!");
        insta::assert_snapshot!(life(2, 0, 1, "xxxx..x"), @"ppf!fr!rp");
        insta::assert_snapshot!(life(2, 0, 1, "xx.xx"), @"pp.pp");
        insta::assert_snapshot!(life(0, 0, 1, "x......"), @"f!r!rr!rr!r");
        insta::assert_snapshot!(life(0, 0, 60, "x.................."), @"f!r!rrrrrrrrrrrrrrr..");
        insta::assert_snapshot!(life(0, 3, 60, "x..x.....x"), @"f!ffffffr!rf!");
        insta::assert_snapshot!(life(1, 2, 60, "xx.x...xx"), @"pf!ffffr!pf!");
    }

    #[test]
    fn sent_alerts_have_their_times() {
        let mut alerts = Alerts::default();
        let labels = Labels::from_pairs([("alertname", "A")]);
        let observed = Observed { annotations: Labels::empty(), value: 1.0 };
        let patience = Patience { hold_ms: 10, keep_firing_ms: 0 };
        let timing = SendTiming { resend_delay_ms: 60, interval_ms: 10, generator_url: "u" };
        let found = BTreeMap::from([(labels, observed)]);
        assert_eq!(alerts.observe(found.clone(), patience, 1000), 1);
        assert_eq!(alerts.take_due(1000, &timing), []);
        alerts.observe(found, patience, 1010);
        let sent = &alerts.take_due(1010, &timing)[0];
        assert_eq!((sent.starts_at_ms, sent.ends_at_ms), (1010, 1010 + 240));
        assert_eq!(alerts.observe(BTreeMap::new(), patience, 1020), 0);
        let sent = &alerts.take_due(1020, &timing)[0];
        assert_eq!((sent.starts_at_ms, sent.ends_at_ms), (1010, 1020));
    }

    #[test]
    fn raising_for_makes_a_firing_alert_pending_again() {
        let mut alerts = Alerts::default();
        let labels = Labels::from_pairs([("alertname", "A")]);
        let observed = Observed { annotations: Labels::empty(), value: 1.0 };
        let found = BTreeMap::from([(labels, observed)]);
        let patience = |hold_ms| Patience { hold_ms, keep_firing_ms: 0 };
        let mut state = |hold_ms, ts_ms| {
            alerts.observe(found.clone(), patience(hold_ms), ts_ms);
            alerts.active().next().unwrap().1.state
        };
        assert_eq!(state(0, 1000), AlertState::Firing);
        assert_eq!(state(100, 1050), AlertState::Pending);
        assert_eq!(state(100, 1100), AlertState::Firing);
    }
}
