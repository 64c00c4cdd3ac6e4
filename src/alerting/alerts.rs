//! The alerts known now, one for each label set, and how a newer report of one is merged in.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::alert::Alert;
use crate::model::labels::Labels;

/// Alerts kept at most: bounds memory against a runaway sender; new ones beyond it are refused.
pub const ALERTS_MAX: usize = 500_000;

/// An alert with what the store adds to it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAlert {
    /// Hash of the labels.
    pub fingerprint: u64,
    /// Labels and annotations, with both times set.
    pub alert: Alert,
    /// When it was last reported.
    pub updated_at_ms: i64,
    /// Whether its end is our guess because the sender told none.
    pub timeout: bool,
}

impl StoredAlert {
    /// Whether it has ended by `now_ms`.
    pub fn is_resolved_at(&self, now_ms: i64) -> bool {
        self.alert.is_resolved_at(now_ms)
    }
}

/// FNV-1a (64 bits) over names and values, each closed by 0xFF: Alertmanager's fingerprint.
pub fn fingerprint(labels: &Labels) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, value) in labels.iter() {
        for byte in name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// A fingerprint as the API and templates show it.
pub fn print_fingerprint(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

/// Why an alert was refused; the texts are Alertmanager's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlertError {
    /// Nothing identifies it.
    #[error("at least one label pair required")]
    NoLabels,
    /// A name that no label may have.
    #[error("invalid label set: invalid name \"\"")]
    EmptyName,
    /// The same among annotations.
    #[error("invalid annotations: invalid name \"\"")]
    EmptyAnnotation,
    /// Ends before it starts.
    #[error("start time must be before end time")]
    Times,
    /// The store is full.
    #[error("alert limit of {ALERTS_MAX} reached")]
    TooMany,
}

/// Completes the times of a reported alert and checks it.
pub fn accept(
    mut alert: Alert,
    resolve_timeout_ms: i64,
    now_ms: i64,
) -> Result<StoredAlert, AlertError> {
    if alert.starts_at_ms == 0 {
        alert.starts_at_ms = if alert.ends_at_ms == 0 { now_ms } else { alert.ends_at_ms };
    }
    let timeout = alert.ends_at_ms == 0;
    if timeout {
        alert.ends_at_ms = now_ms + resolve_timeout_ms;
    }
    if alert.ends_at_ms < alert.starts_at_ms {
        return Err(AlertError::Times);
    }
    if alert.labels.is_empty() {
        return Err(AlertError::NoLabels);
    }
    if alert.labels.iter().any(|(name, _)| name.is_empty()) {
        return Err(AlertError::EmptyName);
    }
    if alert.annotations.iter().any(|(name, _)| name.is_empty()) {
        return Err(AlertError::EmptyAnnotation);
    }
    let fingerprint = fingerprint(&alert.labels);
    Ok(StoredAlert { fingerprint, alert, updated_at_ms: now_ms, timeout })
}

/// Combines two reports of one alert; only overlapping ones are merged, else the newer stands alone.
pub fn merge(old: &StoredAlert, new: StoredAlert, now_ms: i64) -> StoredAlert {
    let (mine, other) = (&new.alert, &old.alert);
    let within = |at_ms: i64| other.starts_at_ms < at_ms && at_ms < other.ends_at_ms;
    if !within(mine.ends_at_ms)
        && !within(mine.starts_at_ms)
        && mine.starts_at_ms != other.starts_at_ms
    {
        return new;
    }
    let (older, newer) =
        if new.updated_at_ms < old.updated_at_ms { (&new, old) } else { (old, &new) };
    let mut merged = newer.clone();
    merged.alert.starts_at_ms = older.alert.starts_at_ms.min(newer.alert.starts_at_ms);
    if newer.is_resolved_at(now_ms) {
        if older.is_resolved_at(now_ms) {
            merged.alert.ends_at_ms = newer.alert.ends_at_ms.max(older.alert.ends_at_ms);
        }
    } else if newer.alert.ends_at_ms < older.alert.ends_at_ms && !older.timeout {
        merged.alert.ends_at_ms = older.alert.ends_at_ms;
    }
    merged
}

/// Alerts by fingerprint.
#[derive(Debug, Default)]
pub struct Alerts {
    by_fingerprint: BTreeMap<u64, Arc<StoredAlert>>,
}

impl Alerts {
    /// The alert of this fingerprint.
    pub fn get(&self, fingerprint: u64) -> Option<&Arc<StoredAlert>> {
        self.by_fingerprint.get(&fingerprint)
    }

    /// Labels of the alert if it fires now.
    pub fn firing(&self, fingerprint: u64, now_ms: i64) -> Option<&Labels> {
        let found = self.get(fingerprint)?;
        (!found.is_resolved_at(now_ms)).then_some(&found.alert.labels)
    }

    /// All alerts in order of fingerprints.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<StoredAlert>> {
        self.by_fingerprint.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_fingerprint.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_fingerprint.is_empty()
    }

    /// Puts an alert as it is, replacing the one with its labels.
    pub fn insert(&mut self, alert: Arc<StoredAlert>) {
        self.by_fingerprint.insert(alert.fingerprint, alert);
    }

    /// Forgets an alert.
    pub fn remove(&mut self, fingerprint: u64) -> Option<Arc<StoredAlert>> {
        self.by_fingerprint.remove(&fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(starts_at_ms: i64, ends_at_ms: i64) -> Alert {
        Alert {
            labels: Labels::from_pairs([("alertname", "Up"), ("job", "a")]),
            annotations: Labels::empty(),
            starts_at_ms,
            ends_at_ms,
            generator_url: String::new(),
        }
    }

    #[test]
    fn fingerprints_are_fnv_over_sorted_labels() {
        // FNV-1a of nothing is the offset basis; of one pair, worked out by hand from the primes.
        assert_eq!(print_fingerprint(fingerprint(&Labels::empty())), "cbf29ce484222325");
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in b"a\xff1\xffb\xff2\xff" {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let labels = Labels::from_pairs([("b", "2"), ("a", "1")]);
        assert_eq!(fingerprint(&labels), hash);
    }

    #[test]
    fn missing_times_are_completed() {
        let times = |starts, ends| {
            let stored = accept(alert(starts, ends), 300, 1_000)?;
            Ok((stored.alert.starts_at_ms, stored.alert.ends_at_ms, stored.timeout))
        };
        assert_eq!(times(0, 0), Ok((1_000, 1_300, true)));
        assert_eq!(times(0, 700), Ok((700, 700, false)));
        assert_eq!(times(500, 2_000), Ok((500, 2_000, false)));
        assert_eq!(times(500, 400), Err(AlertError::Times));
    }

    #[test]
    fn reports_merge_as_in_alertmanager() {
        for (name, old, new, expected) in [
            ("the end moves on", (100, 900, false), (100, 1_500, false), (100, 1_500)),
            ("the earliest start stays", (100, 900, false), (500, 1_500, false), (100, 1_500)),
            ("a later end stays", (100, 2_000, false), (100, 1_500, false), (100, 2_000)),
            ("a guessed end does not", (100, 2_000, true), (100, 1_500, false), (100, 1_500)),
            ("resolved wins when newer", (100, 2_000, false), (100, 900, false), (100, 900)),
            ("no overlap replaces", (100, 200, false), (500, 1_500, false), (500, 1_500)),
        ] {
            let make = |(starts, ends, timeout): (i64, i64, bool), updated_at_ms| StoredAlert {
                timeout,
                ..accept(alert(starts, ends), 300, updated_at_ms).unwrap()
            };
            let merged = merge(&make(old, 900), make(new, 1_000), 1_000);
            assert_eq!((merged.alert.starts_at_ms, merged.alert.ends_at_ms), expected, "{name}");
        }
    }
}
