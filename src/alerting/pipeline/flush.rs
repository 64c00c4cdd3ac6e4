//! One look at a group: who is muted, what is news to whom, which messages result.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Change, Delivery, FLUSH_TIMEOUT_MIN_MS, Integration, Notification, Pipeline};
use crate::alerting::alerts::StoredAlert;
use crate::alerting::group::{self, Flush, Heading, Member};
use crate::alerting::notification_log::{LogEntry, LogKey, Question, Reason};

/// How late a timer may be and still count as in time for a repeat.
const TIMER_SLACK_MAX_MS: i64 = 1_000;
/// Wait before looking again at a group whose messages of before a reload are still under way.
const BUSY_WAIT_MS: i64 = 500;

/// Members that may be told of, and those that are muted.
struct Sorted {
    open: Vec<Member>,
    muted: Vec<Member>,
}

/// Members that an integration may be told of. Who was told that one fires is told that it ended,
/// muted or not, if the integration wants that.
fn tellable(integration: &Integration, sorted: &Sorted, logged: Option<&LogEntry>) -> Vec<Member> {
    let mut members = sorted.open.clone();
    if integration.resolve_when_muted
        && let Some(entry) = logged
    {
        let announced =
            |member: &&Member| member.resolved && entry.firing.contains(&member.stored.fingerprint);
        members.extend(sorted.muted.iter().filter(announced).cloned());
        group::sort(&mut members);
    }
    members
}

impl Pipeline {
    /// Looks at a group that is due (and not in the schedule any more).
    pub(super) fn flush(&mut self, id: u64, now_ms: i64, changes: &mut Vec<Change>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let route = &self.routes.get(group.route).options;
        let receiver = route.receiver.clone();
        let (interval_ms, repeat_ms) = (route.group_interval_ms, route.repeat_interval_ms);
        if self.busy.contains_key(&group.key) {
            group.next_flush_ms = now_ms + BUSY_WAIT_MS;
            self.schedule.insert((group.next_flush_ms, id));
            return;
        }
        // The cadence does not shift with late timers or slow receivers; after a suspend it restarts.
        let next_ms = group.next_flush_ms + interval_ms;
        group.next_flush_ms = if next_ms > now_ms { next_ms } else { now_ms + interval_ms };
        group.has_flushed = true;

        let members: Vec<_> = group.alerts.iter().filter_map(|it| self.alerts.get(*it)).collect();
        let member = |stored: &Arc<StoredAlert>| Member {
            stored: Arc::clone(stored),
            resolved: stored.is_resolved_at(now_ms),
        };
        let mut members: Vec<_> = members.into_iter().map(member).collect();
        group::sort(&mut members);
        let ended = members.iter().filter(|member| member.resolved);
        let resolved =
            ended.map(|member| (member.stored.fingerprint, member.stored.updated_at_ms)).collect();
        let sorted = self.mute(id, members, now_ms);

        let count = self.receivers.get(&receiver).map_or(0, Vec::len);
        let deadline_ms = now_ms + interval_ms.max(FLUSH_TIMEOUT_MIN_MS);
        let mut outstanding = 0;
        for index in 0..count {
            let plan = self.plan(id, &receiver, index, &sorted, now_ms, changes);
            if let Some(mut delivery) = plan {
                delivery.deadline_ms = deadline_ms;
                delivery.repeat_interval_ms = repeat_ms;
                let delivery_id = self.take_id();
                self.waiting.insert((now_ms, delivery_id));
                *self.busy.entry(delivery.key.group_key.clone()).or_default() += 1;
                self.metrics.notifications.with(&[delivery.kind]).inc();
                self.deliveries.insert(delivery_id, delivery);
                outstanding += 1;
            }
        }
        let flush = Flush { outstanding: outstanding.max(1), failed: false, resolved };
        if let Some(group) = self.groups.get_mut(&id) {
            group.flush = Some(flush);
        }
        if outstanding == 0 {
            self.delivered(id, true, now_ms, changes);
        }
    }

    /// Sorts out what inhibition, time intervals and silences mute.
    fn mute(&mut self, id: u64, members: Vec<Member>, now_ms: i64) -> Sorted {
        let Some(group) = self.groups.get(&id) else {
            return Sorted { open: members, muted: Vec::new() };
        };
        let by_time = self.muted_by_time(group.route, now_ms);
        let mut sorted = Sorted { open: Vec::new(), muted: Vec::new() };
        for member in members {
            let (fingerprint, labels) = (member.stored.fingerprint, &member.stored.alert.labels);
            let firing = |source| self.alerts.firing(source, now_ms);
            let reason = if !self.inhibitor.inhibiting(labels, firing).is_empty() {
                Some("inhibition")
            } else if let Some((reason, _)) = &by_time {
                Some(*reason)
            } else if self.silences.silencing(fingerprint, labels, now_ms).is_empty() {
                None
            } else {
                Some("silence")
            };
            match reason {
                Some(reason) => {
                    self.metrics.suppressed.with(&[reason]).inc();
                    sorted.muted.push(member);
                }
                None => sorted.open.push(member),
            }
        }
        sorted
    }

    /// Why the route's time intervals mute it now, with the names of the intervals.
    pub(super) fn muted_by_time(
        &self,
        route: usize,
        now_ms: i64,
    ) -> Option<(&'static str, Vec<String>)> {
        let options = &self.routes.get(route).options;
        let intervals = &self.options.time_intervals;
        let now_in = |name: &&String| {
            intervals.iter().any(|interval| interval.name == **name && interval.contains(now_ms))
        };
        if !options.active_time_intervals.is_empty()
            && !options.active_time_intervals.iter().any(|name| now_in(&name))
        {
            return Some(("active_time_interval", options.active_time_intervals.clone()));
        }
        let muting: Vec<_> = options.mute_time_intervals.iter().filter(now_in).cloned().collect();
        (!muting.is_empty()).then_some(("mute_time_interval", muting))
    }

    /// What one integration must send, if anything.
    fn plan(
        &mut self,
        id: u64,
        receiver: &str,
        index: usize,
        sorted: &Sorted,
        now_ms: i64,
        changes: &mut Vec<Change>,
    ) -> Option<Delivery> {
        let group = self.groups.get(&id)?;
        let integration = self.receivers.get(receiver)?.get(index)?;
        let route = &self.routes.get(group.route).options;
        let key = LogKey { group_key: group.key.clone(), integration: integration.name.clone() };
        let logged = self.log.get(&key);

        let mut members = tellable(integration, sorted, logged);
        if members.is_empty() {
            return None;
        }
        let pick = |resolved: bool| {
            let some = members.iter().filter(|member| member.resolved == resolved);
            some.map(|member| member.stored.fingerprint).collect::<BTreeSet<_>>()
        };
        let (firing, resolved) = (pick(false), pick(true));
        let ask = Question {
            firing: &firing,
            resolved: &resolved,
            send_resolved: integration.send_resolved,
            repeat_interval_ms: route.repeat_interval_ms,
            slack_ms: TIMER_SLACK_MAX_MS.min(route.group_interval_ms / 2),
            now_ms,
        };
        let reason = self.log.decide(&key, ask)?;
        if !integration.send_resolved {
            members.retain(|member| !member.resolved);
        }
        let store = match (reason, logged) {
            (Reason::First, _) | (_, None) => std::collections::BTreeMap::new(),
            (_, Some(entry)) => entry.store.clone(),
        };
        if members.is_empty() {
            // Nobody wants to hear of the end, but a later start must count as news.
            let keep_ms = self.options.retention_ms.max(2 * route.repeat_interval_ms);
            let expires_at_ms = now_ms + keep_ms;
            let entry = LogEntry { timestamp_ms: now_ms, expires_at_ms, firing, resolved, store };
            self.log.insert(key.clone(), entry.clone());
            changes.push(Change::Notified(key, entry));
            return None;
        }
        let heading = Heading {
            receiver,
            group_labels: &group.labels,
            route_labels: &route.labels,
            external_url: &self.options.external_url,
            reason,
        };
        let notification = Notification {
            group_key: group.key.clone(),
            data: group::data(heading, &members),
            store,
            now_ms,
        };
        Some(Delivery {
            group: id,
            key,
            receiver: receiver.to_owned(),
            integration: index,
            notification: Arc::new(notification),
            firing,
            resolved,
            repeat_interval_ms: 0,
            deadline_ms: 0,
            attempts: 0,
            next_attempt_ms: Some(now_ms),
            kind: integration.kind,
            failure: "contextDeadlineExceeded",
        })
    }

    /// One delivery of a group's flush is over. After the last one, ended members go if all of
    /// them were told, and an empty group goes with them.
    pub(super) fn delivered(
        &mut self,
        id: u64,
        sent: bool,
        now_ms: i64,
        changes: &mut Vec<Change>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(flush) = &mut group.flush else { return };
        flush.outstanding -= 1;
        flush.failed |= !sent;
        if flush.outstanding > 0 {
            return;
        }
        let Some(flush) = group.flush.take() else { return };
        let mut released = Vec::new();
        if !flush.failed {
            for (fingerprint, updated_at_ms) in flush.resolved {
                let same = self.alerts.get(fingerprint).is_none_or(|stored| {
                    stored.updated_at_ms == updated_at_ms && stored.is_resolved_at(now_ms)
                });
                if same {
                    group.alerts.remove(&fingerprint);
                    released.push(fingerprint);
                }
            }
        }
        if group.alerts.is_empty() {
            if let Some(group) = self.groups.remove(&id) {
                self.group_ids.remove(&(group.route, group.labels));
            }
        } else {
            group.next_flush_ms = group.next_flush_ms.max(now_ms);
            self.schedule.insert((group.next_flush_ms, id));
        }
        for fingerprint in released {
            self.release(fingerprint, changes);
        }
    }

    /// Forgets an alert that no group holds any more.
    fn release(&mut self, fingerprint: u64, changes: &mut Vec<Change>) {
        let Some(stored) = self.alerts.get(fingerprint) else { return };
        let labels = stored.alert.labels.clone();
        for index in self.routes.matching(&labels) {
            let own = self.routes.get(index).options.group_by.project(&labels);
            let group = self.group_ids.get(&(index, own)).and_then(|id| self.groups.get(id));
            if group.is_some_and(|group| group.alerts.contains(&fingerprint)) {
                return;
            }
        }
        self.alerts.remove(fingerprint);
        self.inhibitor.remove(fingerprint, &labels);
        self.silences.forget_alert(fingerprint);
        changes.push(Change::AlertGone(fingerprint));
    }
}
