//! Aggregation groups: alerts of one route with the same group labels, notified together.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::alerting::alerts::{StoredAlert, print_fingerprint};
use crate::alerting::notification_log::Reason;
use crate::model::labels::Labels;
use crate::template::notification::{AlertData, Data};

/// A group.
#[derive(Debug)]
pub struct Group {
    /// Index of its route.
    pub route: usize,
    /// Labels that all members share and that name it.
    pub labels: Labels,
    /// Its name in the notification log and for receivers.
    pub key: String,
    /// Fingerprints of its members.
    pub alerts: BTreeSet<u64>,
    /// When it is looked at next; meaningless while `flush` is there.
    pub next_flush_ms: i64,
    /// Whether it was looked at before.
    pub has_flushed: bool,
    /// Deliveries under way.
    pub flush: Option<Flush>,
}

/// One look at a group whose notifications are on their way.
#[derive(Debug)]
pub struct Flush {
    /// Deliveries that are not finished.
    pub outstanding: usize,
    /// Whether any of them failed for good.
    pub failed: bool,
    /// Resolved members, to be dropped when all went well, as of these updates.
    pub resolved: Vec<(u64, i64)>,
}

/// A member as one flush sees it: whether it has ended is fixed at the tick.
#[derive(Clone, Debug)]
pub struct Member {
    /// The alert.
    pub stored: Arc<StoredAlert>,
    /// Whether it had ended.
    pub resolved: bool,
}

/// Sorts as messages list alerts: by job, by instance, then by all labels.
pub fn sort(members: &mut [Member]) {
    let key = |member: &Member| {
        let labels = &member.stored.alert.labels;
        let get = |name| labels.get(name).unwrap_or("").to_owned();
        (get("job"), get("instance"), labels.clone())
    };
    members.sort_by_cached_key(key);
}

/// Pairs that all sets have in common.
fn common<'a>(mut sets: impl Iterator<Item = &'a Labels>) -> Labels {
    let Some(first) = sets.next() else { return Labels::empty() };
    let mut common = first.clone();
    for set in sets {
        common = common.retain(|name| set.get(name) == common.get(name));
    }
    common
}

/// What the receivers of one group are told, apart from the alerts.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// Name of the receiver.
    pub receiver: &'a str,
    /// Labels of the group.
    pub group_labels: &'a Labels,
    /// Labels of the route.
    pub route_labels: &'a Labels,
    /// Where people reach us.
    pub external_url: &'a str,
    /// Why now.
    pub reason: Reason,
}

/// The data for templates and webhooks.
pub fn data(heading: Heading<'_>, members: &[Member]) -> Data {
    let alert = |member: &Member| {
        let alert = &member.stored.alert;
        AlertData {
            status: if member.resolved { "resolved" } else { "firing" }.to_owned(),
            labels: alert.labels.clone(),
            annotations: alert.annotations.clone(),
            starts_at_ms: alert.starts_at_ms,
            ends_at_ms: member.resolved.then_some(alert.ends_at_ms),
            generator_url: alert.generator_url.clone(),
            fingerprint: print_fingerprint(member.stored.fingerprint),
        }
    };
    let mut data = Data {
        receiver: quote_meta(heading.receiver),
        status: String::new(),
        alerts: members.iter().map(alert).collect(),
        notification_reason: heading.reason.as_str().to_owned(),
        group_labels: heading.group_labels.clone(),
        common_labels: Labels::empty(),
        common_annotations: Labels::empty(),
        route_labels: heading.route_labels.clone(),
        external_url: heading.external_url.to_owned(),
    };
    summarize(&mut data);
    data
}

/// Sets what follows from the alerts listed: the status and what they have in common.
pub fn summarize(data: &mut Data) {
    let firing = data.alerts.iter().any(|alert| alert.status == "firing");
    data.status = String::from(if firing { "firing" } else { "resolved" });
    data.common_labels = common(data.alerts.iter().map(|alert| &alert.labels));
    data.common_annotations = common(data.alerts.iter().map(|alert| &alert.annotations));
}

/// Go's `regexp.QuoteMeta`: links in messages use the receiver's name as a regular expression.
fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::alerts::accept;
    use crate::model::alert::Alert;

    #[test]
    fn data_is_sorted_and_shows_what_is_common() {
        let member = |instance: &str, note: &str, resolved| {
            let alert = Alert {
                labels: Labels::from_pairs([("alertname", "Up"), ("instance", instance)]),
                annotations: Labels::from_pairs([("note", note)]),
                starts_at_ms: 1_000,
                ends_at_ms: 2_000,
                generator_url: String::new(),
            };
            Member { stored: Arc::new(accept(alert, 0, 1_500).unwrap()), resolved }
        };
        let mut members = [member("b", "x", false), member("a", "x", true)];
        sort(&mut members);
        let labels = Labels::from_pairs([("alertname", "Up")]);
        let heading = Heading {
            receiver: "team.X-1",
            group_labels: &labels,
            route_labels: &Labels::empty(),
            external_url: "http://here",
            reason: Reason::First,
        };
        let data = data(heading, &members);
        assert_eq!(data.receiver, r"team\.X-1");
        assert_eq!(data.status, "firing");
        assert_eq!(data.common_labels, labels);
        assert_eq!(data.common_annotations.get("note"), Some("x"));
        let ends: Vec<_> = data.alerts.iter().map(|alert| alert.ends_at_ms).collect();
        assert_eq!(ends, [Some(2_000), None]);
    }
}
