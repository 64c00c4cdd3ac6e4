//! What was last sent for each group through each integration: the memory that stops repeats.

use std::collections::{BTreeMap, BTreeSet};

/// Names one integration's view of one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// Key of the group.
    pub group_key: String,
    /// Receiver, kind and position of the integration, as `name/kind/0`.
    pub integration: String,
}

/// The last notification.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// When it was sent (the tick that caused it).
    pub timestamp_ms: i64,
    /// After this it may be forgotten.
    pub expires_at_ms: i64,
    /// Fingerprints announced as firing.
    pub firing: BTreeSet<u64>,
    /// Fingerprints announced as resolved.
    pub resolved: BTreeSet<u64>,
    /// What the integration wants to remember (for example the id of its message).
    pub store: BTreeMap<String, String>,
}

/// Why a notification is sent; the texts show in templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing was announced before.
    First,
    /// An alert is firing that was not announced.
    NewAlerts,
    /// Nothing fires any more.
    AllResolved,
    /// One has ended that was not announced as ended.
    SomeResolved,
    /// It was time to say it again.
    Repeat,
}

impl Reason {
    /// As in `.NotificationReason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first notification",
            Self::NewAlerts => "new alerts added",
            Self::AllResolved => "all alerts resolved",
            Self::SomeResolved => "some alerts resolved",
            Self::Repeat => "repeat interval elapsed",
        }
    }
}

/// What a flush knows when it asks whether to notify.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Firing now.
    pub firing: &'a BTreeSet<u64>,
    /// Resolved now.
    pub resolved: &'a BTreeSet<u64>,
    /// Whether the integration tells of single resolved alerts.
    pub send_resolved: bool,
    /// Time between repeats.
    pub repeat_interval_ms: i64,
    /// Lateness of timers that still counts as in time.
    pub slack_ms: i64,
    /// The tick.
    pub now_ms: i64,
}

/// All entries.
#[derive(Debug, Default)]
pub struct NotificationLog {
    entries: BTreeMap<LogKey, LogEntry>,
}

impl NotificationLog {
    /// The entry of this key.
    pub fn get(&self, key: &LogKey) -> Option<&LogEntry> {
        self.entries.get(key)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&LogKey, &LogEntry)> {
        self.entries.iter()
    }

    /// Replaces an entry.
    pub fn insert(&mut self, key: LogKey, entry: LogEntry) {
        self.entries.insert(key, entry);
    }

    /// Forgets an entry.
    pub fn remove(&mut self, key: &LogKey) {
        self.entries.remove(key);
    }

    /// Forgets what has expired, unless it is in use, and tells the keys.
    pub fn collect(&mut self, now_ms: i64, in_use: impl Fn(&LogKey) -> bool) -> Vec<LogKey> {
        let old = self.entries.iter().filter(|(_, entry)| entry.expires_at_ms < now_ms);
        let keys: Vec<_> = old.map(|(key, _)| key.clone()).filter(|key| !in_use(key)).collect();
        for key in &keys {
            self.entries.remove(key);
        }
        keys
    }

    /// Whether to notify, and why.
    pub fn decide(&self, key: &LogKey, ask: Question<'_>) -> Option<Reason> {
        let Some(entry) = self.entries.get(key) else {
            return (!ask.firing.is_empty()).then_some(Reason::First);
        };
        if !ask.firing.is_subset(&entry.firing) {
            let first = entry.firing.is_empty();
            return Some(if first { Reason::First } else { Reason::NewAlerts });
        }
        if ask.firing.is_empty() {
            return (!entry.firing.is_empty()).then_some(Reason::AllResolved);
        }
        if ask.send_resolved && !ask.resolved.is_subset(&entry.resolved) {
            return Some(Reason::SomeResolved);
        }
        let age_ms = ask.now_ms - entry.timestamp_ms;
        // An entry from the far future means that the clock was set back: do not wait for it.
        let due =
            age_ms + ask.slack_ms >= ask.repeat_interval_ms || -age_ms > ask.repeat_interval_ms;
        due.then_some(Reason::Repeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_follow_alertmanager() {
        let key = LogKey { group_key: "g".to_owned(), integration: "r/slack/0".to_owned() };
        let logged = |firing: &[u64], resolved: &[u64]| {
            let mut log = NotificationLog::default();
            let (firing, resolved) =
                (firing.iter().copied().collect(), resolved.iter().copied().collect());
            let entry = LogEntry {
                timestamp_ms: 1_000,
                expires_at_ms: 99_000,
                firing,
                resolved,
                store: BTreeMap::new(),
            };
            log.insert(key.clone(), entry);
            log
        };
        let none = NotificationLog::default();
        for (log, firing, resolved, send_resolved, now_ms, expected) in [
            (&none, &[][..], &[1][..], true, 1_000, None),
            (&none, &[1], &[], true, 1_000, Some(Reason::First)),
            (&logged(&[1, 2], &[]), &[1], &[], true, 1_500, None),
            (&logged(&[1], &[]), &[1, 2], &[], true, 1_500, Some(Reason::NewAlerts)),
            (&logged(&[], &[1]), &[1], &[], true, 1_500, Some(Reason::First)),
            (&logged(&[1], &[]), &[], &[1], false, 1_500, Some(Reason::AllResolved)),
            (&logged(&[], &[1]), &[], &[1], true, 99_500, None),
            (&logged(&[1, 2], &[]), &[1], &[2], true, 1_500, Some(Reason::SomeResolved)),
            (&logged(&[1, 2], &[]), &[1], &[2], false, 1_500, None),
            (&logged(&[1], &[]), &[1], &[], true, 10_949, None),
            (&logged(&[1], &[]), &[1], &[], true, 10_950, Some(Reason::Repeat)),
            (&logged(&[1], &[]), &[1], &[], true, -900, None),
            (&logged(&[1], &[]), &[1], &[], true, -9_900, Some(Reason::Repeat)),
        ] {
            let (firing, resolved): (BTreeSet<u64>, BTreeSet<u64>) =
                (firing.iter().copied().collect(), resolved.iter().copied().collect());
            let ask = Question {
                firing: &firing,
                resolved: &resolved,
                send_resolved,
                repeat_interval_ms: 10_000,
                slack_ms: 50,
                now_ms,
            };
            assert_eq!(log.decide(&key, ask), expected, "{ask:?}");
        }
    }
}
