//! Silences: matchers and a span of time in which matching alerts notify nobody.

use std::collections::{BTreeMap, HashMap};

use crate::alerting::matchers::all_match;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;

/// Silences kept at most, expired ones included: far beyond what people write, bounds memory.
pub const SILENCES_MAX: usize = 100_000;

/// A silence.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// UUID; empty in a request for a new one.
    pub id: String,
    /// All must match; in the order they were given.
    pub matchers: Vec<Matcher>,
    /// First moment it is active, in milliseconds since 1970.
    pub starts_at_ms: i64,
    /// Last moment it is active.
    pub ends_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
    /// Who wrote it.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// More texts.
    pub annotations: BTreeMap<String, String>,
}

/// Where a silence stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SilenceState {
    /// In force.
    Active,
    /// Not begun.
    Pending,
    /// Over.
    Expired,
}

impl SilenceState {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Expired => "expired",
        }
    }
}

impl Silence {
    /// State at a moment.
    pub fn state_at(&self, now_ms: i64) -> SilenceState {
        if now_ms < self.starts_at_ms {
            SilenceState::Pending
        } else if now_ms > self.ends_at_ms {
            SilenceState::Expired
        } else {
            SilenceState::Active
        }
    }
}

/// Why a silence was refused; the texts are Alertmanager's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    /// No silence has the given id.
    #[error("silence not found")]
    NotFound,
    /// It can never be right.
    #[error("invalid silence: {0}")]
    Invalid(String),
    /// There are too many.
    #[error("exceeded maximum number of silences: {} (limit: {SILENCES_MAX})", SILENCES_MAX + 1)]
    TooMany,
}

/// All silences and what they match.
#[derive(Debug, Default)]
pub struct Silences {
    by_id: BTreeMap<String, Silence>,
    /// Grows with each change: tells which cached answers are stale.
    version: u64,
    /// For an alert's fingerprint, the ids of all matching silences and the version they are of.
    cache: HashMap<u64, (u64, Vec<String>)>,
}

impl Silences {
    /// The silence of this id.
    pub fn get(&self, id: &str) -> Option<&Silence> {
        self.by_id.get(id)
    }

    /// All silences in order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.by_id.values()
    }

    /// Puts a silence as it is: from the log at start, or made by [`Self::set`].
    pub fn insert(&mut self, silence: Silence) {
        self.version += 1;
        self.by_id.insert(silence.id.clone(), silence);
    }

    /// Forgets a silence.
    pub fn remove(&mut self, id: &str) {
        self.version += 1;
        self.by_id.remove(id);
    }

    /// Creates or updates. Returns the silences that changed; the last one is the result, whose id
    /// may be new although an id was given: an update that is no mere extension expires the old.
    pub fn set(
        &mut self,
        mut wanted: Silence,
        now_ms: i64,
        new_id: impl FnOnce() -> String,
    ) -> Result<Vec<Silence>, SilenceError> {
        validate(&wanted)?;
        wanted.updated_at_ms = now_ms;
        let mut changed = Vec::new();
        if !wanted.id.is_empty() {
            let old = self.by_id.get(&wanted.id).ok_or(SilenceError::NotFound)?;
            if can_update(old, &wanted, now_ms) {
                changed.push(wanted);
                return Ok(self.keep(changed));
            }
            changed.extend(expired(old, now_ms));
        }
        if self.by_id.len() >= SILENCES_MAX {
            return Err(SilenceError::TooMany);
        }
        wanted.starts_at_ms = wanted.starts_at_ms.max(now_ms);
        if wanted.ends_at_ms < wanted.starts_at_ms {
            return Err(SilenceError::Invalid("end time must not be before start time".into()));
        }
        wanted.id = new_id();
        changed.push(wanted);
        Ok(self.keep(changed))
    }

    /// Ends a silence now; one that is over stays as it is (`None`).
    pub fn expire(&mut self, id: &str, now_ms: i64) -> Result<Option<Silence>, SilenceError> {
        let old = self.by_id.get(id).ok_or(SilenceError::NotFound)?;
        let over = expired(old, now_ms);
        Ok(over.map(|over| self.keep(vec![over]).remove(0)))
    }

    fn keep(&mut self, changed: Vec<Silence>) -> Vec<Silence> {
        for silence in &changed {
            self.insert(silence.clone());
        }
        changed
    }

    /// Removes what has been over for `retention_ms` and tells the ids.
    pub fn collect(&mut self, now_ms: i64, retention_ms: i64) -> Vec<String> {
        let old = self.by_id.values().filter(|silence| silence.ends_at_ms + retention_ms < now_ms);
        let ids: Vec<_> = old.map(|silence| silence.id.clone()).collect();
        for id in &ids {
            self.remove(id);
        }
        ids
    }

    /// Ids of the silences in force for an alert, in order.
    pub fn silencing(&mut self, fingerprint: u64, labels: &Labels, now_ms: i64) -> Vec<String> {
        let (version, by_id) = (self.version, &self.by_id);
        let cached = self.cache.entry(fingerprint).or_insert((u64::MAX, Vec::new()));
        if cached.0 != version {
            let matching = by_id.values().filter(|silence| {
                silence.state_at(now_ms) != SilenceState::Expired
                    && all_match(&silence.matchers, labels)
            });
            *cached = (version, matching.map(|silence| silence.id.clone()).collect());
        }
        let active = |id: &&String| {
            by_id.get(*id).is_some_and(|found| found.state_at(now_ms) == SilenceState::Active)
        };
        cached.1.iter().filter(active).cloned().collect()
    }

    /// Drops the cached answers for an alert that is gone.
    pub fn forget_alert(&mut self, fingerprint: u64) {
        self.cache.remove(&fingerprint);
    }
}

fn validate(silence: &Silence) -> Result<(), SilenceError> {
    let invalid = |text: &str| Err(SilenceError::Invalid(text.to_owned()));
    if silence.matchers.is_empty() {
        return invalid("at least one matcher required");
    }
    for (index, matcher) in silence.matchers.iter().enumerate() {
        if matcher.name().is_empty() {
            return invalid(&format!("invalid label matcher {index}: invalid label name \"\""));
        }
    }
    if silence.matchers.iter().all(Matcher::matches_empty) {
        return invalid("at least one matcher must not match the empty string");
    }
    if silence.ends_at_ms < silence.starts_at_ms {
        return invalid("end time must not be before start time");
    }
    Ok(())
}

/// Whether a change may keep the id: same matchers, and the past is not rewritten.
fn can_update(old: &Silence, wanted: &Silence, now_ms: i64) -> bool {
    if old.matchers != wanted.matchers {
        return false;
    }
    match old.state_at(now_ms) {
        SilenceState::Active => {
            wanted.starts_at_ms / 1000 == old.starts_at_ms / 1000 && wanted.ends_at_ms >= now_ms
        }
        SilenceState::Pending => wanted.starts_at_ms >= now_ms,
        SilenceState::Expired => false,
    }
}

/// The silence as it looks after being ended now.
fn expired(old: &Silence, now_ms: i64) -> Option<Silence> {
    let mut over = old.clone();
    match old.state_at(now_ms) {
        SilenceState::Expired => return None,
        SilenceState::Active => over.ends_at_ms = now_ms - 1,
        // A silence that never began ends where it starts.
        SilenceState::Pending => {
            over.starts_at_ms = now_ms - 1;
            over.ends_at_ms = now_ms - 1;
        }
    }
    over.updated_at_ms = now_ms;
    Some(over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::matchers::parse_list;

    fn silence(id: &str, matchers: &str, starts_at_ms: i64, ends_at_ms: i64) -> Silence {
        Silence {
            id: id.to_owned(),
            matchers: parse_list(matchers).unwrap(),
            starts_at_ms,
            ends_at_ms,
            updated_at_ms: 0,
            created_by: "me".to_owned(),
            comment: "because".to_owned(),
            annotations: BTreeMap::new(),
        }
    }

    fn set(silences: &mut Silences, wanted: Silence, now_ms: i64) -> Result<String, SilenceError> {
        let id = format!("id{}", silences.by_id.len());
        Ok(silences.set(wanted, now_ms, || id)?.pop().unwrap().id)
    }

    #[test]
    fn silences_live_from_pending_to_expired() {
        let mut silences = Silences::default();
        let id = set(&mut silences, silence("", "a=b", 5_000, 9_000), 1_000).unwrap();
        let state = |silences: &Silences, now_ms| silences.get(&id).unwrap().state_at(now_ms);
        assert_eq!(state(&silences, 4_999), SilenceState::Pending);
        assert_eq!(state(&silences, 5_000), SilenceState::Active);
        assert_eq!(state(&silences, 9_001), SilenceState::Expired);
        let labels = Labels::from_pairs([("a", "b")]);
        assert!(silences.silencing(1, &labels, 4_000).is_empty());
        assert_eq!(silences.silencing(1, &labels, 6_000), ["id0"]);
        silences.expire(&id, 7_000).unwrap();
        assert!(silences.silencing(1, &labels, 7_000).is_empty());
        assert_eq!(silences.expire(&id, 7_100), Ok(None));
        assert_eq!(silences.expire("x", 7_100), Err(SilenceError::NotFound));
        assert!(silences.collect(8_000, 2_000).is_empty());
        assert_eq!(silences.collect(9_001, 2_000), ["id0"]);
    }

    #[test]
    fn an_update_keeps_the_id_only_when_the_past_stays() {
        let mut silences = Silences::default();
        let id = set(&mut silences, silence("", "a=b,c=d", 1_000, 9_000), 2_000).unwrap();
        assert_eq!(silences.get(&id).unwrap().starts_at_ms, 2_000);
        let extended = set(&mut silences, silence(&id, "a=b,c=d", 2_000, 20_000), 3_000);
        assert_eq!(extended.unwrap(), id);
        let other = set(&mut silences, silence(&id, "c=d,a=b", 2_000, 20_000), 3_000).unwrap();
        assert_ne!(other, id);
        assert_eq!(silences.get(&id).unwrap().state_at(3_000), SilenceState::Expired);
        assert_eq!(
            set(&mut silences, silence("x", "a=b", 0, 9_000), 0),
            Err(SilenceError::NotFound)
        );
    }

    #[test]
    fn invalid_silences_are_refused() {
        for (matchers, start, end, text) in [
            ("", 0, 1, "invalid silence: at least one matcher required"),
            (
                "a=~\".*\",b=",
                0,
                1,
                "invalid silence: at least one matcher must not match the empty string",
            ),
            ("a=b", 2, 1, "invalid silence: end time must not be before start time"),
        ] {
            let refused = set(&mut Silences::default(), silence("", matchers, start, end), 0);
            assert_eq!(refused.unwrap_err().to_string(), text);
        }
    }
}
