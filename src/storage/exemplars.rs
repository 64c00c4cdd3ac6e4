//! Exemplars: the newest ones of all series in one ring, as many as are configured.
//!
//! They are in the frames of the log and, because log files go, in each registry checkpoint; so
//! they survive a restart, and need no files of their own. A series' exemplars ascend by time, then
//! value, then labels. Formats: `docs/formats/log.md`, `docs/formats/manifest.md`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;

use super::log::exemplar::push_exemplar;
use super::log::format::{FrameWriter, Section};
use super::store::Store;
use crate::model::exemplar::Exemplar;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::storage::append::Appended;
use crate::storage::fingerprint::parse_canonical;

/// Exemplars that are kept when nothing else is configured; Prometheus' default.
pub const EXEMPLARS_MAX: i64 = 100_000;

/// An exemplar and its series.
#[derive(Debug)]
pub struct Stored {
    fingerprint: u128,
    /// Labels of the series.
    pub labels: Labels,
    /// The exemplar.
    pub exemplar: Exemplar,
}

/// An exemplar to be judged.
#[derive(Debug)]
pub struct StagedExemplar {
    /// Of the series.
    pub fingerprint: u128,
    /// Labels of the series in canonical form, shared by neighbours.
    pub canonical: Arc<[u8]>,
    /// The exemplar.
    pub exemplar: Exemplar,
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Exemplars {
    /// Oldest first.
    ring: VecDeque<Arc<Stored>>,
    /// By fingerprint: exemplars in the ring, and the newest of them.
    series: HashMap<u128, (usize, Arc<Stored>), foldhash::fast::RandomState>,
}

/// What becomes of an exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Same,
    OutOfOrder,
}

impl Exemplars {
    fn judge(&self, fingerprint: u128, exemplar: &Exemplar) -> Verdict {
        let Some((_, newest)) = self.series.get(&fingerprint) else { return Verdict::New };
        let newest = &newest.exemplar;
        let order = exemplar.timestamp_ms.cmp(&newest.timestamp_ms);
        let order = order.then_with(|| exemplar.value.total_cmp(&newest.value));
        match order.then_with(|| exemplar.labels.cmp(&newest.labels)) {
            std::cmp::Ordering::Less => Verdict::OutOfOrder,
            std::cmp::Ordering::Equal => Verdict::Same,
            std::cmp::Ordering::Greater => Verdict::New,
        }
    }

    /// Adds an exemplar that is newer than those of its series.
    pub fn push(&mut self, fingerprint: u128, labels: Labels, exemplar: Exemplar) {
        let known = self.series.get(&fingerprint);
        let labels = known.map_or(labels, |(_, newest)| newest.labels.clone());
        let stored = Arc::new(Stored { fingerprint, labels, exemplar });
        let own = self.series.entry(fingerprint).or_insert_with(|| (0, Arc::clone(&stored)));
        *own = (own.0 + 1, Arc::clone(&stored));
        self.ring.push_back(stored);
    }

    /// Forgets the oldest ones.
    pub fn trim(&mut self, count_max: usize) {
        while self.ring.len() > count_max
            && let Some(oldest) = self.ring.pop_front()
        {
            if let Some((count, _)) = self.series.get_mut(&oldest.fingerprint) {
                *count -= 1;
                if *count == 0 {
                    self.series.remove(&oldest.fingerprint);
                }
            }
        }
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Stored>> {
        self.ring.iter().cloned().collect()
    }

    /// How many there are, of how many series, and the time of the newest.
    pub fn figures(&self) -> (usize, usize, Option<i64>) {
        let newest = self.ring.back().map(|own| own.exemplar.timestamp_ms);
        (self.ring.len(), self.series.len(), newest)
    }

    /// Those in the range of series that fulfil any of the matcher sets, by series in label order.
    pub fn select(&self, sets: &[Vec<Matcher>], range: TimeRange) -> Vec<(Labels, Vec<Exemplar>)> {
        let fulfils = |labels: &Labels, set: &[Matcher]| {
            set.iter().all(|own| own.matches(labels.get(own.name()).unwrap_or("")))
        };
        let is_wanted = |labels: &Labels| sets.iter().any(|set| fulfils(labels, set));
        let wanted = self.series.iter().filter(|(_, (_, newest))| is_wanted(&newest.labels));
        let mut found: HashMap<u128, (Labels, Vec<Exemplar>), foldhash::fast::RandomState> = wanted
            .map(|(fingerprint, (_, newest))| (*fingerprint, (newest.labels.clone(), Vec::new())))
            .collect();
        for own in self.ring.iter().filter(|own| range.contains(own.exemplar.timestamp_ms)) {
            if let Some((_, exemplars)) = found.get_mut(&own.fingerprint) {
                exemplars.push(own.exemplar.clone());
            }
        }
        let mut found: Vec<_> =
            found.into_values().filter(|(_, exemplars)| !exemplars.is_empty()).collect();
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

impl Store {
    /// How many exemplars are kept.
    pub fn exemplars_max(&self) -> usize {
        usize::try_from(self.exemplars_max.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Judges and keeps exemplars of series that are in the head, and adds them to the frame.
    pub fn add_exemplars(
        &self,
        staged: Vec<StagedExemplar>,
        base_ms: i64,
        max_ms: i64,
        appended: &mut Appended,
        frame: &mut FrameWriter,
    ) {
        let count_max = self.exemplars_max();
        if staged.is_empty() || count_max == 0 {
            return;
        }
        let registry = self.registry.read();
        let mut kept = self.exemplars.write();
        let mut has_begun = false;
        // Of the series that is looked at: refused ones, and whether all were.
        let (mut series, mut refused, mut all_refused) = (0, 0, false);
        let mut is_known = false;
        for own in staged {
            if own.exemplar.timestamp_ms > max_ms {
                continue;
            }
            if series != own.fingerprint {
                appended.exemplar_series_refused_count += if all_refused { refused } else { 0 };
                (series, refused, all_refused) = (own.fingerprint, 0, true);
                is_known = registry.find(series).is_some();
            }
            if !is_known {
                all_refused = false;
                continue;
            }
            let verdict = kept.judge(own.fingerprint, &own.exemplar);
            if verdict == Verdict::OutOfOrder {
                appended.exemplar_out_of_order_count += 1;
                refused += 1;
                continue;
            }
            all_refused = false;
            appended.exemplar_count += 1;
            if verdict == Verdict::Same {
                continue;
            }
            if !has_begun {
                frame.begin(Section::Exemplars);
                has_begun = true;
            }
            push_exemplar(frame.body(), base_ms, &own.canonical, &own.exemplar);
            let labels = parse_canonical(&own.canonical).unwrap_or_default();
            kept.push(own.fingerprint, labels, own.exemplar);
        }
        appended.exemplar_series_refused_count += if all_refused { refused } else { 0 };
        if has_begun {
            frame.end();
        }
        kept.trim(count_max);
    }
}
