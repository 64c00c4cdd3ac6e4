//! The head's series: numbers, fingerprints, labels and the label index.
//!
//! A number is bound to a label set until the series has been without samples in any log file for
//! two rounds of collection; then it is free for another series. Log files define each series
//! before its first sample, and [`checkpoint`] holds those that older files defined.

pub mod checkpoint;
pub mod names;
pub mod restore;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;
use names::{Names, WireName};
use roaring::RoaringBitmap;

use crate::model::labels::Labels;
use crate::storage::fingerprint::parse_canonical;
use crate::storage::index::postings::HeadIndex;
use crate::storage::log::format::NUMBERS_MAX;

/// Number of a series in the head.
pub type SeriesRef = u32;

/// Labels are kept in pieces of this size: growing copies at most the last one, when a query holds
/// it.
const PIECE_BYTES: usize = 64 << 10;

/// Less than this is not worth the work of making it free.
const REPACK_BYTES_MIN: usize = 1 << 20;

/// Canonical label sets, one after the other.
#[derive(Debug, Default)]
struct Arena {
    pieces: Vec<Arc<Vec<u8>>>,
    live_bytes: usize,
    dead_bytes: usize,
}

/// Where the labels of a series are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    piece: u32,
    start: u32,
    len: u32,
}

impl Arena {
    fn push(&mut self, bytes: &[u8]) -> Span {
        let fits = |piece: &Arc<Vec<u8>>| bytes.len() <= piece.capacity() - piece.len();
        if !self.pieces.last().is_some_and(fits) {
            self.pieces.push(Arc::new(Vec::with_capacity(bytes.len().max(PIECE_BYTES))));
        }
        let piece = self.pieces.len() - 1;
        let target = unshared(&mut self.pieces[piece]);
        let start = target.len();
        target.extend_from_slice(bytes);
        self.live_bytes += bytes.len();
        Span { piece: piece as u32, start: start as u32, len: bytes.len() as u32 }
    }

    fn get(&self, span: Span) -> &[u8] {
        span.of(&self.pieces[span.piece as usize])
    }
}

impl Span {
    fn of(self, piece: &[u8]) -> &[u8] {
        &piece[self.start as usize..][..self.len as usize]
    }

    /// Length of the canonical form.
    pub fn len_bytes(self) -> usize {
        self.len as usize
    }
}

/// The piece itself, or a copy when somebody else holds it.
fn unshared(piece: &mut Arc<Vec<u8>>) -> &mut Vec<u8> {
    if Arc::get_mut(piece).is_none() {
        let mut copy = Vec::with_capacity(piece.capacity());
        copy.extend_from_slice(piece);
        *piece = Arc::new(copy);
    }
    Arc::get_mut(piece).expect("a copy is nobody else's")
}

/// Labels of some series as they were, held without the registry's lock.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// By number; only those with a label set that was asked for.
    pieces: Vec<Option<Arc<Vec<u8>>>>,
}

impl Texts {
    /// The canonical form of labels that were shared with this. Panics when they were not.
    pub fn get(&self, span: Span) -> &[u8] {
        let piece = self.pieces[span.piece as usize].as_ref().expect("shared before");
        span.of(piece)
    }
}

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
    arena: Arena,
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
        self.bind_unlisted(series, fingerprint, canonical);
        self.index.insert(series, labels);
    }

    /// The same without the index.
    fn bind_unlisted(&mut self, series: SeriesRef, fingerprint: u128, canonical: &[u8]) {
        debug_assert_eq!(self.fingerprints[series as usize], 0);
        debug_assert_eq!(self.find(fingerprint), None);
        self.fingerprints[series as usize] = fingerprint;
        self.spans[series as usize] = self.arena.push(canonical);
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
        self.arena.live_bytes -= self.spans[series as usize].len as usize;
        self.arena.dead_bytes += self.spans[series as usize].len as usize;
        self.spans[series as usize] = Span::default();
        self.fingerprints[series as usize] = 0;
    }

    /// The fingerprint of a bound number; 0 when it is free.
    pub fn fingerprint(&self, series: SeriesRef) -> u128 {
        self.fingerprints.get(series as usize).copied().unwrap_or(0)
    }

    /// Labels of a bound number in canonical form.
    pub fn canonical(&self, series: SeriesRef) -> &[u8] {
        self.spans.get(series as usize).map_or(&[], |span| self.arena.get(*span))
    }

    /// Keeps the labels of a bound number in `texts`.
    pub fn share(&self, series: SeriesRef, texts: &mut Texts) -> Span {
        let Some(span) = self.spans.get(series as usize) else { return Span::default() };
        let at = span.piece as usize;
        if texts.pieces.len() <= at {
            texts.pieces.resize(self.arena.pieces.len(), None);
        }
        texts.pieces[at].get_or_insert_with(|| Arc::clone(&self.arena.pieces[at]));
        *span
    }

    /// Labels of a bound number.
    pub fn labels(&self, series: SeriesRef) -> Labels {
        parse_canonical(self.canonical(series)).expect("only whole label sets are bound")
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
        if self.arena.dead_bytes > self.arena.live_bytes.max(REPACK_BYTES_MIN) {
            self.repack();
        }
        (dead.len(), freed)
    }

    fn repack(&mut self) {
        let old = std::mem::take(&mut self.arena);
        for (span, fingerprint) in self.spans.iter_mut().zip(&self.fingerprints) {
            if *fingerprint != 0 {
                *span = self.arena.push(old.get(*span));
            }
        }
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
        let mut texts = Texts::default();
        let spans = [a, b].map(|series| registry.share(series, &mut texts));
        registry.collect(&[a]);
        registry.collect(&[]);
        let c = bind(&mut registry, "c");
        assert_eq!(c, a, "its number is another series'");
        registry.repack();
        let text = |span: Span| parse_canonical(texts.get(span)).unwrap().name().to_owned();
        assert_eq!(spans.map(text), ["a", "b"]);
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
