//! The head's series: numbers, fingerprints, labels and the label index.
//!
//! A number is bound to a label set until the series has been without samples in any log file for
//! two rounds of collection; then it is free for another series. Log files define each series
//! before its first sample, and [`checkpoint`] holds those that older files defined.

pub mod checkpoint;
pub mod names;
pub mod restore;
pub mod sets;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;
use names::{Names, WireName};
use roaring::RoaringBitmap;
use sets::{LabelRef, LabelSets, Sets, Span};

use crate::model::labels::{Labels, METRIC_NAME};
use crate::storage::index::postings::HeadIndex;
use crate::storage::log::format::NUMBERS_MAX;

/// Number of a series in the head.
pub type SeriesRef = u32;

/// All series of the head.
#[derive(Debug, Default)]
pub struct Registry {
    /// Bound numbers by fingerprint, retired ones too: a sample brings them back.
    table: HashTable<SeriesRef>,
    /// By number; 0: free or reserved.
    fingerprints: Vec<u128>,
    spans: Vec<Span>,
    /// Which series came after this one the last time.
    successors: Vec<AtomicU32>,
    /// What senders call them.
    names: Names,
    sets: LabelSets,
    index: HeadIndex,
    free: Vec<SeriesRef>,
    /// Without samples and out of the index; still bound, because a batch may hold the number.
    retired: RoaringBitmap,
    /// Held by open batches that may know retired numbers.
    pin: Arc<()>,
    retired_pin: Option<Arc<()>>,
}

impl Registry {
    /// The series with this fingerprint.
    pub fn find(&self, fingerprint: u128) -> Option<SeriesRef> {
        let same = |series: &SeriesRef| self.fingerprints[*series as usize] == fingerprint;
        self.table.find(fingerprint as u64, same).copied()
    }

    /// The same, trying first what came after `last` before. `last` learns what came.
    #[inline]
    pub fn find_after(&self, last: Option<SeriesRef>, fingerprint: u128) -> Option<SeriesRef> {
        let successor = last.and_then(|last| self.successors.get(last as usize));
        if let Some(successor) = successor {
            let guess = successor.load(Ordering::Relaxed);
            if self.fingerprints.get(guess as usize) == Some(&fingerprint) {
                return Some(guess);
            }
        }
        let found = self.find(fingerprint)?;
        if let Some(successor) = successor {
            successor.store(found, Ordering::Relaxed);
        }
        Some(found)
    }

    /// The series that came by this name, trying first what came after `last` before; none if it is
    /// retired. `last` learns what came.
    #[inline]
    pub fn recall(&self, last: Option<SeriesRef>, name: WireName) -> Option<SeriesRef> {
        let successor = last.and_then(|last| self.successors.get(last as usize));
        let guess = successor.map_or(SeriesRef::MAX, |own| own.load(Ordering::Relaxed));
        let found = if self.names.is(guess, name) { guess } else { self.names.find(name)? };
        if let Some(successor) = successor.filter(|_| found != guess) {
            successor.store(found, Ordering::Relaxed);
        }
        (self.retired.is_empty() || !self.retired.contains(found)).then_some(found)
    }

    /// A series came by this name.
    pub fn learn(&mut self, series: SeriesRef, name: WireName) {
        if self.fingerprint(series) != 0 {
            self.names.set(series, name);
        }
    }

    /// Takes a free number, to be bound or released.
    pub fn reserve(&mut self) -> SeriesRef {
        self.free.pop().unwrap_or_else(|| {
            let series = self.fingerprints.len() as SeriesRef;
            assert!(series < NUMBERS_MAX, "no machine holds so many series");
            self.extend(series);
            series
        })
    }

    fn extend(&mut self, series: SeriesRef) {
        let len = series as usize + 1;
        self.fingerprints.resize(len, 0);
        self.spans.resize(len, Span::default());
        self.successors.resize_with(len, || AtomicU32::new(SeriesRef::MAX));
    }

    /// Gives back a number that was reserved.
    pub fn release(&mut self, series: SeriesRef) {
        debug_assert_eq!(self.fingerprints[series as usize], 0);
        self.free.push(series);
    }

    /// Binds a reserved number to a label set that no other series has.
    pub fn bind(
        &mut self,
        series: SeriesRef,
        fingerprint: u128,
        canonical: &[u8],
        labels: &Labels,
    ) {
        debug_assert_eq!(self.fingerprints[series as usize], 0);
        debug_assert_eq!(self.find(fingerprint), None);
        self.sets.read(canonical).expect("writers name series canonically");
        self.spans[series as usize] = self.sets.push_last_read();
        self.fingerprints[series as usize] = fingerprint;
        self.add_to_table(series, fingerprint);
        self.index.insert(series, labels);
    }

    fn add_to_table(&mut self, series: SeriesRef, fingerprint: u128) {
        let fingerprints = &self.fingerprints;
        let hash = |series: &SeriesRef| fingerprints[*series as usize] as u64;
        self.table.insert_unique(fingerprint as u64, series, hash);
    }

    fn unbind(&mut self, series: SeriesRef) {
        let fingerprint = self.fingerprints[series as usize];
        let own = self.table.find_entry(fingerprint as u64, |candidate| *candidate == series);
        if let Ok(entry) = own {
            entry.remove();
        }
        self.names.forget(series);
        let labels = self.labels(series);
        self.index.remove(series, &labels);
        self.sets.remove(std::mem::take(&mut self.spans[series as usize]));
        self.fingerprints[series as usize] = 0;
    }

    /// The fingerprint of a bound number; 0 when it is free.
    pub fn fingerprint(&self, series: SeriesRef) -> u128 {
        self.fingerprints.get(series as usize).copied().unwrap_or(0)
    }

    /// Label sets as they are now. Who holds them reads them without the registry.
    pub fn sets(&self) -> &Arc<Sets> {
        self.sets.sets()
    }

    /// The label set of a bound number.
    pub fn set(&self, series: SeriesRef) -> Span {
        self.spans.get(series as usize).copied().unwrap_or_default()
    }

    /// Labels of a bound number.
    pub fn labels(&self, series: SeriesRef) -> Labels {
        Labels::from_sorted(self.sets().pairs(self.set(series)))
    }

    /// The label that tells the metric of a bound number.
    pub fn metric(&self, series: SeriesRef) -> Option<LabelRef> {
        let mut labels = self.sets().list(self.set(series));
        labels.find(|label| self.sets().name(*label) == METRIC_NAME.as_bytes())
    }

    /// The label index of all series but retired ones.
    pub fn index(&self) -> &HeadIndex {
        &self.index
    }

    /// Numbers given out so far; all are below this.
    pub fn bound_max(&self) -> usize {
        self.fingerprints.len()
    }

    /// Series that are bound and not retired.
    pub fn len(&self) -> usize {
        self.table.len() - self.retired.len() as usize
    }

    /// To be held by a batch as long as it remembers numbers.
    pub fn pin(&self) -> Arc<()> {
        Arc::clone(&self.pin)
    }

    /// Brings a retired series back, because it has a sample again.
    pub fn revive(&mut self, series: SeriesRef) {
        if self.retired.remove(series) {
            let labels = self.labels(series);
            self.index.insert(series, &labels);
        }
    }

    /// Series that are retired.
    pub fn retired(&self) -> &RoaringBitmap {
        &self.retired
    }

    /// Frees what was retired in an earlier round and then retires `dead`, unless a batch may
    /// still know a number that was retired earlier. Returns how many of `dead` were retired, all
    /// or none, and what was freed.
    pub fn collect(&mut self, dead: &[SeriesRef]) -> (usize, Vec<SeriesRef>) {
        if self.retired_pin.as_ref().is_some_and(|pin| Arc::strong_count(pin) > 1) {
            return (0, Vec::new());
        }
        let freed: Vec<_> = std::mem::take(&mut self.retired).into_iter().collect();
        for series in &freed {
            self.unbind(*series);
            self.free.push(*series);
        }
        for series in dead {
            let labels = self.labels(*series);
            self.index.remove(*series, &labels);
        }
        self.retired.extend(dead);
        self.retired_pin = Some(std::mem::take(&mut self.pin));
        if self.sets.is_wasteful() {
            self.repack();
        }
        (dead.len(), freed)
    }

    fn repack(&mut self) {
        let bound = self.spans.iter_mut().zip(&self.fingerprints);
        self.sets.repack(bound.filter(|own| *own.1 != 0).map(|own| own.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matcher::Matcher;
    use crate::storage::append::SeriesKey;
    use crate::storage::fingerprint::{HashKey, push_canonical};

    #[test]
    fn a_name_is_recalled_as_long_as_its_series_is_alive() {
        let hash = names::NameHash::new(HashKey(3, 4));
        let name = |text: &str| hash.hash(text.as_bytes()).unwrap();
        let mut registry = Registry::default();
        let (a, b) = (bind(&mut registry, "a"), bind(&mut registry, "b"));
        assert_eq!(registry.recall(None, name("A")), None);
        registry.learn(a, name("A"));
        registry.learn(b, name("B"));
        for _ in 0..2 {
            assert_eq!(registry.recall(None, name("A")), Some(a));
            assert_eq!(registry.recall(Some(a), name("B")), Some(b));
        }
        registry.collect(&[b]);
        assert_eq!(registry.recall(Some(a), name("B")), None, "retired");
        registry.revive(b);
        assert_eq!(registry.recall(Some(a), name("B")), Some(b));
        registry.collect(&[b]);
        assert_eq!(registry.collect(&[]), (0, vec![b]));
        assert_eq!(bind(&mut registry, "c"), b);
        assert_eq!(registry.recall(Some(a), name("B")), None, "its number is another series'");
        let free = registry.reserve();
        registry.learn(free, name("D"));
        assert_eq!(registry.recall(None, name("D")), None, "a number without a series");
    }

    #[test]
    fn shared_labels_stay_as_they_were() {
        let mut registry = Registry::default();
        let (a, b) = (bind(&mut registry, "a"), bind(&mut registry, "b"));
        let shared = Arc::clone(registry.sets());
        let sets = [a, b].map(|series| registry.set(series));
        registry.collect(&[a]);
        registry.collect(&[]);
        let c = bind(&mut registry, "c");
        assert_eq!(c, a, "its number is another series'");
        registry.repack();
        assert_eq!(
            sets.map(|set| shared.pairs(set)[0]),
            ["a", "b"].map(|name| (METRIC_NAME, name))
        );
        assert_eq!((registry.labels(b).name(), registry.labels(c).name()), ("b", "c"));
    }

    fn bind(registry: &mut Registry, name: &str) -> SeriesRef {
        let labels = Labels::from_pairs([("__name__", name)]);
        let mut canonical = Vec::new();
        push_canonical(SeriesKey::Labels(&labels), &mut canonical);
        let series = registry.reserve();
        registry.bind(series, u128::from(name.as_bytes()[0]), &canonical, &labels);
        series
    }

    #[test]
    fn numbers_are_free_again_after_two_rounds_without_samples() {
        let mut registry = Registry::default();
        let (a, b) = (bind(&mut registry, "a"), bind(&mut registry, "b"));
        assert_eq!(registry.find_after(Some(a), u128::from(b'b')), Some(b));
        assert_eq!(registry.collect(&[b]), (1, vec![]));
        assert_eq!(registry.len(), 1);
        assert_eq!(registry.index().select(&[Matcher::equal("__name__", "b")]).len(), 0);
        registry.revive(b);
        assert_eq!(registry.len(), 2);
        assert_eq!(registry.find(u128::from(b'b')), Some(b));
        let batch = registry.pin();
        assert_eq!(registry.collect(&[b]), (1, vec![]));
        assert_eq!(registry.collect(&[]), (0, vec![]), "a batch may know the number");
        drop(batch);
        assert_eq!(registry.collect(&[]), (0, vec![b]));
        assert_eq!(bind(&mut registry, "c"), b);
        assert_eq!(registry.labels(a).to_string(), r#"{__name__="a"}"#);
        assert_eq!(registry.len(), 2);
    }
}
