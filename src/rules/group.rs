//! One rule group: its place on the grid of time, its rules' state, and one round of evaluation.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::warn;
use xxhash_rust::xxh64::xxh64;

use crate::base::clock::Clock;
use crate::encoding::column::histogram::check_size;
use crate::model::labels::Labels;
use crate::model::sample::{TimeRange, stale_nan};
use crate::promql::engine::CancelFlag;
use crate::storage::append::{Appended, Appender, OnReject, SeriesKey};
use crate::storage::select::Select;
use crate::template::prometheus::QuerySample;

use super::alerting::{self, Surroundings};
use super::metrics::Metrics;
use super::recording::{self, Moment};
use super::restore;
use super::state::{AlertState, Alerts, Patience, SendTiming};
use super::{
    AlertSink, AlertStatus, AlertingStatus, Asker, Evaluate, EvaluateError, GroupOptions,
    GroupStatus, Health, Options, RuleKind, RuleOptions, RuleStatus,
};

/// What a round needs from outside.
pub(super) struct Context<'a> {
    pub engine: &'a dyn Evaluate,
    pub select: &'a dyn Select,
    pub appender: &'a dyn Appender,
    pub sink: &'a dyn AlertSink,
    pub clock: &'a dyn Clock,
    pub metrics: &'a Metrics,
    pub options: &'a Options,
    pub cancel: &'a CancelFlag,
}

const NS_PER_MS: i64 = 1_000_000;

/// The moments at which a group is evaluated: `k · interval + offset`, where the offset follows
/// from the group's file and name, so that it outlives restarts and spreads the load.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the name")]
pub(super) struct Schedule {
    interval_ns: i64,
    last_ns: Option<i64>,
    next_ns: i64,
}

/// A round that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub ts_ms: i64,
    /// Rounds left out because the last one took too long.
    pub missed_count: i64,
}

impl Schedule {
    pub fn new(group: &GroupOptions, now_ms: i64) -> Self {
        assert!(group.interval_ms > 0, "the configuration gives every group an interval");
        let interval_ns = group.interval_ms.saturating_mul(NS_PER_MS);
        let offset_ns = (group_hash(&group.file, &group.name) % interval_ns as u64) as i64;
        // The whole millisecond counts as past, so that a round within it is not planned again.
        let now_ns = now_ms.saturating_add(1).saturating_mul(NS_PER_MS) - 1;
        let adjusted_ns = now_ns - offset_ns;
        let slot_ns = adjusted_ns - adjusted_ns.rem_euclid(interval_ns) + offset_ns;
        Self { interval_ns, last_ns: None, next_ns: slot_ns + interval_ns }
    }

    /// When the next round is due; its timestamp.
    pub fn next_ms(&self) -> i64 {
        self.next_ns.div_euclid(NS_PER_MS)
    }

    /// The first moment after the last round, at which its series may be ended.
    pub fn after_last_ms(&self) -> i64 {
        self.last_ns.map_or(i64::MIN, |last_ns| last_ns.div_euclid(NS_PER_MS) + 1)
    }

    /// The round that is due by now, if any; the one after it is planned.
    pub fn take_due(&mut self, now_ms: i64) -> Option<Due> {
        if now_ms < self.next_ms() {
            return None;
        }
        let missed_count = self.last_ns.map_or(0, |last_ns| {
            (now_ms - last_ns.div_euclid(NS_PER_MS)) * NS_PER_MS / self.interval_ns - 1
        });
        let missed_count = missed_count.max(0);
        let ts_ns = self.next_ns + missed_count * self.interval_ns;
        self.last_ns = Some(ts_ns);
        self.next_ns = ts_ns + self.interval_ns;
        Some(Due { ts_ms: ts_ns.div_euclid(NS_PER_MS), missed_count })
    }
}

/// Prometheus' hash of the label set `{file="…", name="…"}`: xxhash64 over names and values, each
/// after its length.
fn group_hash(file: &str, name: &str) -> u64 {
    let mut bytes = Vec::new();
    for text in ["file", file, "name", name] {
        match u8::try_from(text.len()) {
            Ok(len) if len < 255 => bytes.push(len),
            _ => {
                bytes.push(0xff);
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes, 0)
}

/// A rule and what it remembers between rounds.
#[derive(Debug)]
struct Rule {
    options: RuleOptions,
    generator_url: String,
    alerts: Alerts,
    /// Whether the state of an earlier run was looked up; `ALERTS` is not written before.
    is_restored: bool,
    /// Series of the last successful round.
    previous: BTreeSet<Labels>,
    health: Health,
    last_error: String,
    evaluation_time: Duration,
    last_evaluation_ms: i64,
}

/// A group and what it remembers between rounds.
#[derive(Debug)]
pub(super) struct Group {
    pub options: GroupOptions,
    pub schedule: Schedule,
    rules: Vec<Rule>,
    /// Series of rules that are gone, to be ended in the next round.
    stale: Vec<Labels>,
    /// Rounds until the `for` state of an earlier run is taken up.
    rounds_to_restore: Option<u32>,
    evaluation_time: Duration,
    last_evaluation_ms: i64,
}

/// The first round may come before the data that alerts need; so state is restored after the second.
const ROUNDS_TO_RESTORE: u32 = 2;

impl Group {
    /// A group that begins at its next moment but one. With `restore`, it looks for the `for` state
    /// of an earlier run of the server.
    pub fn new(options: GroupOptions, external_url: &str, restore: bool, now_ms: i64) -> Self {
        let rules = options.rules.iter().map(|rule| Rule {
            options: rule.clone(),
            generator_url: alerting::generator_url(external_url, &rule.expr),
            alerts: Alerts::default(),
            is_restored: !restore,
            previous: BTreeSet::new(),
            health: Health::Unknown,
            last_error: String::new(),
            evaluation_time: Duration::ZERO,
            last_evaluation_ms: 0,
        });
        Self {
            schedule: Schedule::new(&options, now_ms),
            rules: rules.collect(),
            options,
            stale: Vec::new(),
            rounds_to_restore: restore.then_some(ROUNDS_TO_RESTORE),
            evaluation_time: Duration::ZERO,
            last_evaluation_ms: 0,
        }
    }

    /// Takes over what rules of the same name and labels remember; series of rules that are gone
    /// will be ended.
    pub fn inherit(&mut self, mut old: Self) {
        self.evaluation_time = old.evaluation_time;
        self.last_evaluation_ms = old.last_evaluation_ms;
        self.rounds_to_restore = old.rounds_to_restore;
        self.stale = std::mem::take(&mut old.stale);
        let mut heirs: Vec<Option<Rule>> = old.rules.into_iter().map(Some).collect();
        for rule in &mut self.rules {
            let is_same = |from: &Rule| {
                (&from.options.name, &from.options.labels)
                    == (&rule.options.name, &rule.options.labels)
                    && is_alerting(&from.options) == is_alerting(&rule.options)
            };
            let found = heirs.iter_mut().find(|from| from.as_ref().is_some_and(is_same));
            if let Some(from) = found.and_then(Option::take) {
                rule.alerts = from.alerts;
                rule.is_restored = from.is_restored;
                rule.previous = from.previous;
                rule.health = from.health;
                rule.last_error = from.last_error;
                rule.evaluation_time = from.evaluation_time;
                rule.last_evaluation_ms = from.last_evaluation_ms;
            }
        }
        let orphans = heirs.into_iter().flatten();
        self.stale.extend(orphans.flat_map(|rule| rule.previous));
        for rule in &mut self.rules {
            rule.is_restored |= self.rounds_to_restore.is_none();
        }
    }

    /// All series that end with this group.
    pub fn into_series(self) -> Vec<Labels> {
        let mut series = self.stale;
        series.extend(self.rules.into_iter().flat_map(|rule| rule.previous));
        series
    }

    /// Evaluates all rules in order; each sees what those before it wrote.
    pub fn run(&mut self, due: Due, ctx: &Context<'_>) {
        let key = self.options.key();
        let key = [&*key];
        ctx.metrics.iterations.with(&key).add((due.missed_count + 1) as f64);
        ctx.metrics.iterations_missed.with(&key).add(due.missed_count as f64);
        let (started_ms, started) = (ctx.clock.now_ms(), ctx.clock.monotonic());
        let moment = Moment {
            ts_ms: due.ts_ms,
            offset_ms: self.options.query_offset_ms,
            limit: self.options.limit,
        };
        let late_ms = (started_ms - due.ts_ms).max(0);
        ctx.metrics.delay.observe(late_ms as f64 / 1000.0);
        let mut sample_count = 0;
        for rule in &mut self.rules {
            if ctx.cancel.is_canceled() {
                return;
            }
            sample_count += rule.run(&self.options, moment, ctx);
        }
        if end_series(&self.stale, moment.sample_ms(), ctx) {
            self.stale.clear();
        }
        self.evaluation_time = ctx.clock.monotonic().saturating_sub(started);
        self.last_evaluation_ms = started_ms;
        let rule_sum: Duration = self.rules.iter().map(|rule| rule.evaluation_time).sum();
        let metrics = ctx.metrics;
        metrics.group_duration.observe(self.evaluation_time.as_secs_f64());
        metrics.last_duration.with(&key).set(self.evaluation_time.as_secs_f64());
        metrics.last_rule_duration_sum.with(&key).set(rule_sum.as_secs_f64());
        metrics.last_evaluation_timestamp.with(&key).set(started_ms as f64 / 1000.0);
        metrics.last_samples.with(&key).set(sample_count as f64);
        self.restore_when_time_has_come(ctx);
    }

    fn restore_when_time_has_come(&mut self, ctx: &Context<'_>) {
        let Some(rounds) = &mut self.rounds_to_restore else { return };
        *rounds -= 1;
        if *rounds > 0 {
            return;
        }
        self.rounds_to_restore = None;
        let started = ctx.clock.monotonic();
        for rule in &mut self.rules {
            rule.restore(ctx);
        }
        let took = ctx.clock.monotonic().saturating_sub(started);
        ctx.metrics.last_restore_duration.with(&[&self.options.key()]).set(took.as_secs_f64());
    }

    /// As the API shows it.
    pub fn status(&self) -> GroupStatus {
        GroupStatus {
            name: self.options.name.clone(),
            file: self.options.file.clone(),
            interval_ms: self.options.interval_ms,
            query_offset_ms: self.options.query_offset_ms,
            limit: self.options.limit,
            rules: self.rules.iter().map(Rule::status).collect(),
            evaluation_time: self.evaluation_time,
            last_evaluation_ms: self.last_evaluation_ms,
        }
    }
}

fn is_alerting(options: &RuleOptions) -> bool {
    matches!(options.kind, RuleKind::Alerting { .. })
}

/// Writes stale markers. Whether that worked; refused markers do not count as failure, since the
/// series lives on elsewhere then.
pub(super) fn end_series(series: &[Labels], timestamp_ms: i64, ctx: &Context<'_>) -> bool {
    if series.is_empty() {
        return true;
    }
    let mut batch = ctx.appender.appender(OnReject::Skip);
    batch.reject_out_of_order(true);
    for labels in series {
        batch.float(SeriesKey::Labels(labels), timestamp_ms, stale_nan());
    }
    match batch.commit() {
        Ok(_) => true,
        Err(err) => {
            warn!(error = %err, "Stale sample appending for removed rules failed.");
            false
        }
    }
}

impl Rule {
    fn patience(&self) -> Patience {
        match self.options.kind {
            RuleKind::Alerting { hold_ms, keep_firing_ms, .. } => {
                Patience { hold_ms, keep_firing_ms }
            }
            RuleKind::Recording => Patience { hold_ms: 0, keep_firing_ms: 0 },
        }
    }

    /// One evaluation with all that follows. The number of samples it yielded.
    fn run(&mut self, group: &GroupOptions, moment: Moment, ctx: &Context<'_>) -> usize {
        let key = group.key();
        ctx.metrics.evaluations.with(&[&key]).inc();
        let (started_ms, started) = (ctx.clock.now_ms(), ctx.clock.monotonic());
        let outcome = self.evaluate(group, moment, ctx);
        let sample_count = match outcome {
            Ok(samples) => {
                (self.health, self.last_error) = (Health::Ok, String::new());
                self.send_alerts(group, moment, ctx);
                self.write(&samples, moment.sample_ms(), &key, ctx);
                samples.len()
            }
            // Nobody learns anything from a round that was ended on purpose.
            Err(EvaluateError::Canceled(_)) => 0,
            Err(EvaluateError::Failed(error)) => {
                ctx.metrics.evaluation_failures.with(&[&key]).inc();
                let (rule, group) = (&self.options.name, &group.name);
                warn!(%group, %rule, %error, "Evaluating rule failed.");
                self.fail(error);
                0
            }
        };
        self.evaluation_time = ctx.clock.monotonic().saturating_sub(started);
        self.last_evaluation_ms = started_ms;
        ctx.metrics.evaluation_duration.observe(self.evaluation_time.as_secs_f64());
        sample_count
    }

    fn fail(&mut self, error: String) {
        (self.health, self.last_error) = (Health::Err, error);
    }

    fn evaluate(
        &mut self,
        group: &GroupOptions,
        moment: Moment,
        ctx: &Context<'_>,
    ) -> Result<Vec<QuerySample>, EvaluateError> {
        let patience = self.patience();
        let asker = Asker { cancel: ctx.cancel, file: &group.file, group: &group.name };
        match &self.options.kind {
            RuleKind::Recording => recording::evaluate(&self.options, moment, ctx.engine, asker),
            RuleKind::Alerting { annotations, .. } => {
                let around = Surroundings { engine: ctx.engine, asker, options: ctx.options };
                let (rule, alerts) = (&self.options, &mut self.alerts);
                alerting::evaluate(rule, annotations, patience, moment, &around, alerts)?;
                Ok(if self.is_restored { alerting::series(&self.alerts) } else { Vec::new() })
            }
        }
    }

    fn send_alerts(&mut self, group: &GroupOptions, moment: Moment, ctx: &Context<'_>) {
        let timing = SendTiming {
            resend_delay_ms: ctx.options.resend_delay_ms,
            interval_ms: group.interval_ms,
            generator_url: &self.generator_url,
        };
        let due = self.alerts.take_due(moment.ts_ms, &timing);
        if !due.is_empty() {
            ctx.sink.send(&due);
        }
    }

    /// Writes the results and ends the series that were there last time and are not now.
    fn write(&mut self, samples: &[QuerySample], at_ms: i64, key: &str, ctx: &Context<'_>) {
        let returned: BTreeSet<Labels> =
            samples.iter().map(|sample| sample.labels.clone()).collect();
        let gone: BTreeSet<Labels> = self.previous.difference(&returned).cloned().collect();
        if samples.is_empty() && gone.is_empty() {
            return;
        }
        let mut batch = ctx.appender.appender(OnReject::Skip);
        batch.reject_out_of_order(true);
        let mut too_large = 0;
        for QuerySample { labels, value, histogram } in samples {
            match histogram {
                None => batch.float(SeriesKey::Labels(labels), at_ms, *value),
                Some(one) if check_size(one) => {
                    batch.histogram(SeriesKey::Labels(labels), at_ms, one);
                }
                Some(_) => too_large += 1,
            }
        }
        for labels in &gone {
            batch.float(SeriesKey::Labels(labels), at_ms, stale_nan());
        }
        match batch.commit() {
            Ok((appended, _ticket)) => {
                self.previous = returned;
                self.note_refused(&appended, &gone);
                if 0 < too_large {
                    self.fail(format!("{too_large} histograms have too many buckets"));
                }
            }
            Err(err) => {
                warn!(rule = %self.options.name, error = %err, "Rule sample appending failed.");
                ctx.metrics.evaluation_failures.with(&[key]).inc();
                self.fail(err.to_string());
            }
        }
    }

    /// Refused results make the rule unhealthy; refused stale markers do not, since then the series
    /// lives on elsewhere.
    fn note_refused(&mut self, appended: &Appended, gone: &BTreeSet<Labels>) {
        let refused = &appended.rejected_examples;
        let Some(first) = refused.iter().find(|one| !gone.contains(&one.labels)) else { return };
        warn!(
            rule = %self.options.name,
            out_of_order_count = appended.out_of_order_count,
            duplicate_count = appended.duplicate_count,
            too_old_count = appended.too_old_count + appended.out_of_bounds_count,
            "Error on ingesting results from rule evaluation."
        );
        let error = first.reason.to_string();
        for one in refused {
            self.previous.remove(&one.labels);
        }
        self.fail(error);
    }

    /// Looks up since when the alerts were active before the server was restarted.
    fn restore(&mut self, ctx: &Context<'_>) {
        let (hold_ms, options) = (self.patience().hold_ms, ctx.options);
        if self.is_restored || hold_ms < options.for_grace_period_ms || !is_alerting(&self.options)
        {
            self.is_restored = true;
            return;
        }
        let now_ms = ctx.clock.now_ms();
        let range = TimeRange { min_ms: now_ms - options.for_outage_tolerance_ms, max_ms: now_ms };
        match restore::recorded(ctx.select, &self.options.name, range) {
            Ok(recorded) => {
                for (labels, alert) in self.alerts.active_mut() {
                    let sample = recorded.get(labels).copied();
                    let grace_ms = options.for_grace_period_ms;
                    let restored = sample
                        .and_then(|one| restore::active_at_ms(one, now_ms, hold_ms, grace_ms));
                    alert.active_at_ms = restored.unwrap_or(alert.active_at_ms);
                }
            }
            Err(err) => {
                warn!(rule = %self.options.name, error = %err, "Restoring 'for' state failed.");
            }
        }
        self.is_restored = true;
    }

    fn status(&self) -> RuleStatus {
        let alerting = match &self.options.kind {
            RuleKind::Recording => None,
            RuleKind::Alerting { hold_ms, keep_firing_ms, annotations } => {
                let alerts = self.alerts.active().map(|(labels, alert)| AlertStatus {
                    labels: labels.clone(),
                    annotations: alert.annotations.clone(),
                    state: alert.state,
                    active_at_ms: alert.active_at_ms,
                    keep_firing_since_ms: alert.keep_firing_since_ms,
                    value: alert.value,
                });
                let alerts: Vec<_> = alerts.collect();
                let gravest = alerts.iter().map(|alert| alert.state).max();
                let state =
                    (self.last_evaluation_ms != 0).then(|| gravest.unwrap_or(AlertState::Inactive));
                Some(AlertingStatus {
                    state,
                    hold_ms: *hold_ms,
                    keep_firing_ms: *keep_firing_ms,
                    annotations: annotations.clone(),
                    alerts,
                })
            }
        };
        RuleStatus {
            name: self.options.name.clone(),
            query: self.options.expr.clone(),
            labels: self.options.labels.clone(),
            health: self.health,
            last_error: self.last_error.clone(),
            evaluation_time: self.evaluation_time,
            last_evaluation_ms: self.last_evaluation_ms,
            alerting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(interval_ms: i64) -> GroupOptions {
        GroupOptions {
            name: "g".to_owned(),
            file: "f.yml".to_owned(),
            interval_ms,
            query_offset_ms: 0,
            limit: 0,
            rules: Vec::new(),
        }
    }

    #[test]
    fn rounds_stay_on_the_grid_whenever_the_process_starts() {
        let first = |now_ms| Schedule::new(&group(60_000), now_ms).next_ns;
        let phase = first(0).rem_euclid(60_000 * NS_PER_MS);
        for now_ms in [1, 59_999, 60_000, 1_700_000_000_123] {
            assert_eq!(first(now_ms).rem_euclid(60_000 * NS_PER_MS), phase);
            let ahead_ns = first(now_ms) - now_ms * NS_PER_MS;
            assert!(0 < ahead_ns && ahead_ns <= 60_000 * NS_PER_MS, "{ahead_ns}");
        }
    }

    #[test]
    fn late_rounds_are_counted_and_left_out() {
        let mut schedule = Schedule::new(&group(10_000), 1_000_000);
        let first_ms = schedule.next_ms();
        assert_eq!(schedule.take_due(first_ms - 1), None);
        let due = schedule.take_due(first_ms).unwrap();
        assert_eq!(due.missed_count, 0);
        assert_eq!(schedule.take_due(first_ms + 9_000), None);
        let late = schedule.take_due(first_ms + 35_000).unwrap();
        assert_eq!((late.ts_ms - due.ts_ms, late.missed_count), (30_000, 2));
        assert_eq!(schedule.next_ms(), first_ms + 40_000);
    }

    #[test]
    fn the_hash_prefixes_lengths() {
        let long = "x".repeat(300);
        let mut bytes = b"\x04file\x01f\x04name\xff\x2c\x01\x00".to_vec();
        bytes.extend_from_slice(long.as_bytes());
        assert_eq!(group_hash("f", &long), xxh64(&bytes, 0));
    }
}
