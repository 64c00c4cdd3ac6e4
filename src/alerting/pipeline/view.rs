//! What the API shows of alerts and groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Pipeline;
use crate::alerting::alerts::{StoredAlert, print_fingerprint};
use crate::alerting::silence::{Silence, SilenceState};
use crate::model::labels::Labels;
use crate::model::matcher::{AnchoredRegex, MatchOp, Matcher};

/// Which alerts to show.
#[derive(Clone, Debug)]
pub struct AlertFilter {
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// Name of a receiver.
    pub receiver: Option<AnchoredRegex>,
    /// Labels of a receiver (`name` included); all must match.
    pub receiver_matchers: Vec<Matcher>,
    /// Show what is neither silenced nor inhibited.
    pub active: bool,
    /// Show what is silenced.
    pub silenced: bool,
    /// Show what is inhibited.
    pub inhibited: bool,
    /// Show groups muted by time (groups only).
    pub muted: bool,
}

impl AlertFilter {
    /// Shows everything.
    pub fn all() -> Self {
        Self {
            matchers: Vec::new(),
            receiver: None,
            receiver_matchers: Vec::new(),
            active: true,
            silenced: true,
            inhibited: true,
            muted: true,
        }
    }

    /// As Alertmanager filters: `a!=""` holds for present labels, `a=""` for absent ones.
    fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = labels.get(matcher.name());
            let negative = matches!(matcher.op(), MatchOp::NotEqual | MatchOp::NotRegex);
            (matcher.value().is_empty() && value.is_some() == negative)
                || matcher.matches(value.unwrap_or(""))
        })
    }
}

/// An alert with its state.
#[derive(Clone, Debug)]
pub struct AlertView {
    /// The alert.
    pub stored: Arc<StoredAlert>,
    /// Receivers of all its routes.
    pub receivers: Vec<String>,
    /// Ids of silences in force.
    pub silenced_by: Vec<String>,
    /// Fingerprints of alerts that inhibit it.
    pub inhibited_by: Vec<String>,
    /// Names of time intervals that mute its group.
    pub muted_by: Vec<String>,
}

impl AlertView {
    /// `active` or `suppressed`.
    pub fn state(&self) -> &'static str {
        let free =
            self.silenced_by.is_empty() && self.inhibited_by.is_empty() && self.muted_by.is_empty();
        if free { "active" } else { "suppressed" }
    }
}

/// A group with the alerts shown.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its labels.
    pub labels: Labels,
    /// Labels of its route.
    pub route_labels: Labels,
    /// Name of its receiver.
    pub receiver: String,
    /// Alerts that passed the filter, in order of fingerprints.
    pub alerts: Vec<AlertView>,
}

impl Pipeline {
    /// Firing alerts that pass the filter, in order of fingerprints.
    pub fn alert_views(&mut self, filter: &AlertFilter, now_ms: i64) -> Vec<AlertView> {
        let stored: Vec<_> = self.alerts.iter().cloned().collect();
        stored.into_iter().filter_map(|stored| self.view(stored, filter, now_ms)).collect()
    }

    fn view(
        &mut self,
        stored: Arc<StoredAlert>,
        filter: &AlertFilter,
        now_ms: i64,
    ) -> Option<AlertView> {
        let labels = &stored.alert.labels;
        if stored.is_resolved_at(now_ms) || !filter.matches(labels) {
            return None;
        }
        let matching = self.routes.matching(labels);
        let receivers: Vec<_> =
            matching.iter().map(|index| self.routes.get(*index).options.receiver.clone()).collect();
        if !receivers.iter().any(|name| self.receiver_passes(filter, name)) {
            return None;
        }
        let silenced_by = self.silences.silencing(stored.fingerprint, labels, now_ms);
        let firing = |source| self.alerts.firing(source, now_ms);
        let inhibited_by = self.inhibitor.inhibiting(labels, firing);
        let inhibited_by = inhibited_by.into_iter().map(print_fingerprint).collect();
        let view = AlertView { stored, receivers, silenced_by, inhibited_by, muted_by: Vec::new() };
        let hidden = (!filter.active && view.state() == "active")
            || (!filter.silenced && !view.silenced_by.is_empty())
            || (!filter.inhibited && !view.inhibited_by.is_empty());
        (!hidden).then_some(view)
    }

    fn receiver_passes(&self, filter: &AlertFilter, name: &str) -> bool {
        let by_name = filter.receiver.as_ref().is_none_or(|regex| regex.is_match(name));
        by_name
            && (filter.receiver_matchers.is_empty() || {
                let labels = self.receiver_labels(name);
                crate::alerting::matchers::all_match(&filter.receiver_matchers, &labels)
            })
    }

    /// Labels of a receiver, its name among them.
    pub fn receiver_labels(&self, name: &str) -> Labels {
        let found = self.options.receivers.iter().find(|receiver| receiver.name == name);
        let mut labels = found.map(|receiver| receiver.labels.to_builder()).unwrap_or_default();
        labels.set("name", name);
        labels.build()
    }

    /// Groups with alerts that pass the filter, in order of labels and receivers.
    pub fn group_views(&mut self, filter: &AlertFilter, now_ms: i64) -> Vec<GroupView> {
        let ids: Vec<_> = self.groups.keys().copied().collect();
        let mut views: Vec<_> =
            ids.into_iter().filter_map(|id| self.group_view(id, filter, now_ms)).collect();
        views.sort_by(|a, b| (&a.labels, &a.receiver).cmp(&(&b.labels, &b.receiver)));
        views
    }

    fn group_view(&mut self, id: u64, filter: &AlertFilter, now_ms: i64) -> Option<GroupView> {
        let group = self.groups.get(&id)?;
        let route = &self.routes.get(group.route).options;
        let (receiver, route_labels) = (route.receiver.clone(), route.labels.clone());
        let muted_by = self.muted_by_time(group.route, now_ms).map_or(Vec::new(), |(_, by)| by);
        if !self.receiver_passes(filter, &receiver) || (!filter.muted && !muted_by.is_empty()) {
            return None;
        }
        let labels = group.labels.clone();
        let members: Vec<_> =
            group.alerts.iter().filter_map(|it| self.alerts.get(*it).cloned()).collect();
        let own = AlertFilter { receiver: None, receiver_matchers: Vec::new(), ..filter.clone() };
        let views = members.into_iter().filter_map(|stored| self.view(stored, &own, now_ms));
        let alerts: Vec<_> =
            views.map(|view| AlertView { muted_by: muted_by.clone(), ..view }).collect();
        (!alerts.is_empty()).then_some(GroupView { labels, route_labels, receiver, alerts })
    }

    /// Silences that hold all these matchers, sorted as Alertmanager lists them.
    pub fn silence_views(&self, filter: &[Matcher], now_ms: i64) -> Vec<Silence> {
        let passes = |silence: &&Silence| filter.iter().all(|it| silence.matchers.contains(it));
        let mut found: Vec<_> = self.silences.iter().filter(passes).cloned().collect();
        found.sort_by_key(|silence| {
            let state = silence.state_at(now_ms);
            let order = match state {
                SilenceState::Active => silence.ends_at_ms,
                SilenceState::Pending => silence.starts_at_ms,
                SilenceState::Expired => -silence.ends_at_ms,
            };
            (state, order)
        });
        found
    }

    /// How many alerts are in each state, for the metrics: (active, suppressed).
    pub fn alert_counts(&mut self, now_ms: i64) -> (usize, usize) {
        let views = self.alert_views(&AlertFilter::all(), now_ms);
        let active = views.iter().filter(|view| view.state() == "active").count();
        (active, views.len() - active)
    }

    /// How many silences are in each state.
    pub fn silence_counts(&self, now_ms: i64) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::from([("active", 0), ("pending", 0), ("expired", 0)]);
        for silence in self.silences.iter() {
            *counts.entry(silence.state_at(now_ms).as_str()).or_default() += 1;
        }
        counts
    }
}
