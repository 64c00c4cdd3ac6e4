//! What a store must hold: the commits so far, in order, and what was taken away from them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::model::metadata::Metadata;
use crate::model::sample::TimeRange;

/// A series by number, and a timestamp.
pub type Key = (usize, i64);
/// Values by bits.
pub type Samples = BTreeMap<Key, u64>;

/// What one commit took in.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// In order of acceptance.
    pub samples: Vec<(Key, u64)>,
    /// By metric.
    pub metadata: Vec<(String, Metadata)>,
}

/// Samples that were deleted: of series by number, inclusive of both times.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Commits before it.
    pub after: usize,
    /// Which series.
    pub series: Range<usize>,
    /// Which times.
    pub range: TimeRange,
}

impl Deletion {
    fn hides(&self, (series, timestamp_ms): &Key) -> bool {
        self.series.contains(series) && self.range.contains(*timestamp_ms)
    }
}

/// What is there after some commits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The first value accepted counts.
    pub samples: Samples,
    /// The last one counts.
    pub metadata: BTreeMap<String, Metadata>,
}

impl State {
    fn apply(&mut self, commit: &Commit) {
        for (key, bits) in &commit.samples {
            self.samples.entry(*key).or_insert(*bits);
        }
        self.metadata.extend(commit.metadata.iter().cloned());
    }

    fn delete(&mut self, deletion: &Deletion) {
        self.samples.retain(|key, _| !deletion.hides(key));
    }
}

/// All that happened.
#[derive(Debug, Default)]
pub struct Model {
    commits: Vec<Commit>,
    deletions: Vec<Deletion>,
    /// After all commits and deletions.
    now: State,
    /// Commits that are known to be durable.
    acknowledged: usize,
    /// A batch whose write failed, and a deletion that failed: nobody knows.
    uncertain: Commit,
    uncertain_deletion: Option<Deletion>,
    /// Everything that was ever handed in.
    submitted: BTreeMap<Key, BTreeSet<u64>>,
    /// Retention never gets longer here: what a shorter one dropped is gone.
    retention_ms: Option<i64>,
    /// Newest sample taken in by a commit that was not lost.
    newest_ms: Option<i64>,
}

impl Model {
    /// Remembers what a batch is about to hand in.
    pub fn submit(&mut self, samples: &[(Key, u64)]) {
        for (key, bits) in samples {
            self.submitted.entry(*key).or_default().insert(*bits);
        }
    }

    /// Whether a value was ever handed in for a series and time.
    pub fn was_submitted(&self, key: &Key, bits: u64) -> bool {
        self.submitted.get(key).is_some_and(|all| all.contains(&bits))
    }

    /// A commit was taken in.
    pub fn commit(&mut self, commit: Commit) {
        self.newest_ms = self.newest_ms.max(commit.samples.iter().map(|own| own.0.1).max());
        self.now.apply(&commit);
        self.commits.push(commit);
    }

    /// A commit's write failed: it may be there after a restart.
    pub fn commit_failed(&mut self, batch: Commit) {
        self.uncertain = batch;
    }

    /// Everything up to now is durable.
    pub fn acknowledge(&mut self) {
        self.acknowledged = self.commits.len();
    }

    /// Samples were deleted; `done`: for certain.
    pub fn delete(&mut self, series: Range<usize>, range: TimeRange, done: bool) {
        let deletion = Deletion { after: self.commits.len(), series, range };
        if done {
            self.now.delete(&deletion);
            self.deletions.push(deletion);
        } else {
            self.uncertain_deletion = Some(deletion);
        }
    }

    /// From now on samples may go that are so much older than the newest.
    pub fn retain(&mut self, retention_ms: i64) {
        let shortest = self.retention_ms.unwrap_or(i64::MAX).min(retention_ms);
        self.retention_ms = Some(shortest);
    }

    /// The retention, if there is one.
    pub fn retention_ms(&self) -> Option<i64> {
        self.retention_ms
    }

    /// What queries must find now.
    pub fn now(&self) -> &State {
        &self.now
    }

    /// What is older may have been dropped by retention.
    pub fn least_ms(&self) -> i64 {
        match (self.retention_ms, self.newest_ms) {
            (Some(retention_ms), Some(newest_ms)) => newest_ms.saturating_sub(retention_ms),
            _ => i64::MIN,
        }
    }

    /// Without what retention may have dropped.
    pub fn retained(&self, mut samples: Samples) -> Samples {
        let least_ms = self.least_ms();
        samples.retain(|(_, timestamp_ms), _| least_ms <= *timestamp_ms);
        samples
    }

    fn state_after(&self, commits: usize, extra: Option<&Deletion>) -> State {
        let mut state = State::default();
        let mut deletions = self.deletions.iter().peekable();
        for (index, commit) in self.commits[..commits].iter().enumerate() {
            while deletions.next_if(|own| own.after <= index).is_some_and(|own| {
                state.delete(own);
                true
            }) {}
            state.apply(commit);
        }
        deletions.chain(extra).for_each(|own| state.delete(own));
        state
    }

    /// After a restart: what was found must be the first `k` commits for a `k` not below the
    /// acknowledged ones (all of them when `everything`), and perhaps the one whose write failed.
    /// From now on that is what happened.
    pub fn recovered(&mut self, found: &State, everything: bool) -> Result<(), String> {
        let least = if everything { self.commits.len() } else { self.acknowledged };
        let mut uncertain_deletions = vec![None];
        uncertain_deletions.extend(self.uncertain_deletion.take().map(Some));
        for deletion in uncertain_deletions {
            for kept in (least..=self.commits.len()).rev() {
                let mut state = self.state_after(kept, deletion.as_ref());
                let mut extra = None;
                if kept == self.commits.len() {
                    extra = self.rest_of_uncertain(&state, found);
                    if let Some(own) = &extra {
                        state.apply(own);
                    }
                }
                let fits = self.retained(state.samples) == self.retained(found.samples.clone());
                if fits && state.metadata == found.metadata {
                    self.settle(kept, extra, deletion);
                    return Ok(());
                }
            }
        }
        Err(self.difference(least, found))
    }

    fn settle(&mut self, kept: usize, extra: Option<Commit>, deletion: Option<Deletion>) {
        self.commits.truncate(kept);
        for own in &mut self.deletions {
            own.after = own.after.min(kept);
        }
        self.deletions.extend(deletion);
        self.commits.extend(extra);
        self.uncertain = Commit::default();
        self.acknowledge();
        self.now = self.state_after(self.commits.len(), None);
    }

    /// The part of the uncertain batch that was found and is not in the state otherwise.
    fn rest_of_uncertain(&self, state: &State, found: &State) -> Option<Commit> {
        let is_new = |(key, bits): &&(Key, u64)| {
            !state.samples.contains_key(key) && found.samples.get(key) == Some(bits)
        };
        let samples: Vec<_> = self.uncertain.samples.iter().filter(is_new).copied().collect();
        let is_new = |own: &&(String, Metadata)| found.metadata.get(&own.0) == Some(&own.1);
        let metadata: Vec<_> = self.uncertain.metadata.iter().filter(is_new).cloned().collect();
        let found_any = !samples.is_empty() || !metadata.is_empty();
        found_any.then_some(Commit { samples, metadata })
    }

    fn difference(&self, least: usize, found: &State) -> String {
        let least_state = self.state_after(least, None);
        let all = self.retained(self.state_after(self.commits.len(), None).samples);
        let found_samples = self.retained(found.samples.clone());
        let lost = self.retained(least_state.samples);
        let lost: Vec<_> =
            lost.iter().filter(|own| found_samples.get(own.0) != Some(own.1)).take(5).collect();
        let invented: Vec<_> =
            found_samples.iter().filter(|own| all.get(own.0) != Some(own.1)).take(5).collect();
        let (acknowledged, written) = (self.acknowledged, self.commits.len());
        format!(
            "of {written} commits with {acknowledged} acknowledged: lost {lost:?}, not the last \
             state {invented:?}, metadata {:?} instead of {:?}",
            found.metadata, least_state.metadata
        )
    }
}

/// The judge is judged: what a broken store would show is refused.
#[test]
fn losses_inventions_and_parts_of_commits_are_seen() {
    let bits = [((1, 10), 5), ((2, 10), 6)];
    let begin = || {
        let mut model = Model::default();
        model.commit(Commit { samples: bits.to_vec(), metadata: Vec::new() });
        model.acknowledge();
        model.commit(Commit { samples: vec![((1, 20), 7), ((2, 20), 8)], metadata: Vec::new() });
        model
    };
    let found = |samples: &[(Key, u64)]| State {
        samples: samples.iter().copied().collect(),
        metadata: BTreeMap::new(),
    };
    let whole = found(&[bits[0], bits[1], ((1, 20), 7), ((2, 20), 8)]);
    let cases = [
        // what is found -> fine after a power cut, fine after a kill
        (whole.clone(), true, true),
        (found(&bits), true, false),
        (found(&bits[..1]), false, false),
        (found(&[bits[0], bits[1], ((1, 20), 7)]), false, false),
        (found(&[bits[0], ((2, 10), 9)]), false, false),
        (found(&[bits[0], bits[1], ((3, 10), 9)]), false, false),
    ];
    for (found, after_crash, after_kill) in cases {
        assert_eq!(begin().recovered(&found, false).is_ok(), after_crash, "{found:?}");
        assert_eq!(begin().recovered(&found, true).is_ok(), after_kill, "{found:?}");
    }
    let mut model = begin();
    model.delete(2..3, TimeRange { min_ms: 10, max_ms: 20 }, true);
    assert_eq!(*model.now(), found(&[bits[0], ((1, 20), 7)]));
    assert!(model.recovered(&whole, false).is_err());
    model.commit_failed(Commit { samples: vec![((4, 30), 1)], metadata: Vec::new() });
    assert_eq!(model.recovered(&found(&[bits[0], ((1, 20), 7), ((4, 30), 1)]), true), Ok(()));
    model.delete(1..5, TimeRange { min_ms: 30, max_ms: 30 }, false);
    assert_eq!(model.recovered(&found(&[bits[0], ((1, 20), 7)]), true), Ok(()));
}
