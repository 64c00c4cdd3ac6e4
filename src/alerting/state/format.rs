//! Changes as JSON: the second set of types that keeps serde out of the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alerting::alerts::{StoredAlert, fingerprint};
use crate::alerting::notification_log::{LogEntry, LogKey};
use crate::alerting::pipeline::Change;
use crate::alerting::silence::Silence;
use crate::model::alert::Alert;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};

type Texts = BTreeMap<String, String>;

/// The names are on disk: they must not change.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record {
    Alert {
        labels: Texts,
        annotations: Texts,
        starts_at_ms: i64,
        ends_at_ms: i64,
        updated_at_ms: i64,
        timeout: bool,
        generator_url: String,
    },
    AlertRefreshed {
        fingerprint: u64,
        ends_at_ms: i64,
        updated_at_ms: i64,
    },
    AlertGone {
        fingerprint: u64,
    },
    Silence {
        id: String,
        /// Name, operator, value.
        matchers: Vec<(String, String, String)>,
        starts_at_ms: i64,
        ends_at_ms: i64,
        updated_at_ms: i64,
        created_by: String,
        comment: String,
        annotations: Texts,
    },
    SilenceGone {
        id: String,
    },
    Notified {
        group_key: String,
        integration: String,
        timestamp_ms: i64,
        expires_at_ms: i64,
        firing: BTreeSet<u64>,
        resolved: BTreeSet<u64>,
        store: Texts,
    },
    NotifiedGone {
        group_key: String,
        integration: String,
    },
}

pub(super) fn encode(changes: &[Change]) -> Vec<u8> {
    let records: Vec<_> = changes.iter().map(record).collect();
    serde_json::to_vec(&records).expect("texts and numbers are always JSON")
}

pub(super) fn decode(payload: &[u8]) -> Option<Vec<Change>> {
    let records: Vec<Record> = serde_json::from_slice(payload).ok()?;
    records.into_iter().map(change).collect()
}

fn texts(labels: &Labels) -> Texts {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn record(change: &Change) -> Record {
    match change {
        Change::Alert(stored) => Record::Alert {
            labels: texts(&stored.alert.labels),
            annotations: texts(&stored.alert.annotations),
            starts_at_ms: stored.alert.starts_at_ms,
            ends_at_ms: stored.alert.ends_at_ms,
            updated_at_ms: stored.updated_at_ms,
            timeout: stored.timeout,
            generator_url: stored.alert.generator_url.clone(),
        },
        &Change::AlertRefreshed { fingerprint, ends_at_ms, updated_at_ms } => {
            Record::AlertRefreshed { fingerprint, ends_at_ms, updated_at_ms }
        }
        &Change::AlertGone(fingerprint) => Record::AlertGone { fingerprint },
        Change::Silence(silence) => {
            let matcher = |matcher: &Matcher| {
                let op = matcher.op().as_str().to_owned();
                (matcher.name().to_owned(), op, matcher.value().to_owned())
            };
            Record::Silence {
                id: silence.id.clone(),
                matchers: silence.matchers.iter().map(matcher).collect(),
                starts_at_ms: silence.starts_at_ms,
                ends_at_ms: silence.ends_at_ms,
                updated_at_ms: silence.updated_at_ms,
                created_by: silence.created_by.clone(),
                comment: silence.comment.clone(),
                annotations: silence.annotations.clone(),
            }
        }
        Change::SilenceGone(id) => Record::SilenceGone { id: id.clone() },
        Change::Notified(key, entry) => Record::Notified {
            group_key: key.group_key.clone(),
            integration: key.integration.clone(),
            timestamp_ms: entry.timestamp_ms,
            expires_at_ms: entry.expires_at_ms,
            firing: entry.firing.clone(),
            resolved: entry.resolved.clone(),
            store: entry.store.clone(),
        },
        Change::NotifiedGone(key) => Record::NotifiedGone {
            group_key: key.group_key.clone(),
            integration: key.integration.clone(),
        },
    }
}

fn change(record: Record) -> Option<Change> {
    Some(match record {
        Record::Alert {
            labels,
            annotations,
            starts_at_ms,
            ends_at_ms,
            updated_at_ms,
            timeout,
            generator_url,
        } => {
            let labels = Labels::from_pairs(labels);
            let annotations = Labels::from_pairs(annotations);
            let fingerprint = fingerprint(&labels);
            let alert = Alert { labels, annotations, starts_at_ms, ends_at_ms, generator_url };
            Change::Alert(Arc::new(StoredAlert { fingerprint, alert, updated_at_ms, timeout }))
        }
        Record::AlertRefreshed { fingerprint, ends_at_ms, updated_at_ms } => {
            Change::AlertRefreshed { fingerprint, ends_at_ms, updated_at_ms }
        }
        Record::AlertGone { fingerprint } => Change::AlertGone(fingerprint),
        Record::Silence {
            id,
            matchers,
            starts_at_ms,
            ends_at_ms,
            updated_at_ms,
            created_by,
            comment,
            annotations,
        } => {
            let matchers = matchers.iter().map(matcher).collect::<Option<_>>()?;
            Change::Silence(Silence {
                id,
                matchers,
                starts_at_ms,
                ends_at_ms,
                updated_at_ms,
                created_by,
                comment,
                annotations,
            })
        }
        Record::SilenceGone { id } => Change::SilenceGone(id),
        Record::Notified {
            group_key,
            integration,
            timestamp_ms,
            expires_at_ms,
            firing,
            resolved,
            store,
        } => Change::Notified(
            LogKey { group_key, integration },
            LogEntry { timestamp_ms, expires_at_ms, firing, resolved, store },
        ),
        Record::NotifiedGone { group_key, integration } => {
            Change::NotifiedGone(LogKey { group_key, integration })
        }
    })
}

fn matcher((name, op, value): &(String, String, String)) -> Option<Matcher> {
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    let op = ops.into_iter().find(|known| known.as_str() == op)?;
    Matcher::new(op, name, value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::matchers::parse_list;

    #[test]
    fn every_change_round_trips() {
        let labels = Labels::from_pairs([("alertname", "Up"), ("é", "\"x\"\n")]);
        let alert = Alert {
            annotations: labels.clone(),
            starts_at_ms: 1,
            ends_at_ms: 2,
            generator_url: "http://x/?a=b".to_owned(),
            labels: labels.clone(),
        };
        let fingerprint = fingerprint(&labels);
        let stored = StoredAlert { fingerprint, alert, updated_at_ms: 3, timeout: true };
        let silence = Silence {
            id: "id".to_owned(),
            matchers: parse_list("a=b,c!=d,e=~\"f.*\",g!~\"h\"").unwrap(),
            starts_at_ms: 1,
            ends_at_ms: 2,
            updated_at_ms: 3,
            created_by: "me".to_owned(),
            comment: "c".to_owned(),
            annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        };
        let key = LogKey { group_key: "{}:{}".to_owned(), integration: "r/slack/0".to_owned() };
        let entry = LogEntry {
            timestamp_ms: 1,
            expires_at_ms: 2,
            firing: BTreeSet::from([u64::MAX]),
            resolved: BTreeSet::from([0]),
            store: BTreeMap::from([("ts".to_owned(), "1.2".to_owned())]),
        };
        let changes = [
            Change::Alert(Arc::new(stored)),
            Change::AlertRefreshed { fingerprint: u64::MAX, ends_at_ms: 1, updated_at_ms: 2 },
            Change::AlertGone(7),
            Change::Silence(silence),
            Change::SilenceGone("id".to_owned()),
            Change::Notified(key.clone(), entry),
            Change::NotifiedGone(key),
        ];
        assert_eq!(decode(&encode(&changes)).unwrap(), changes);
        assert_eq!(decode(b"[{\"kind\":\"later\"}]"), None);
    }
}
