//! The label sets of the head's series, and each label once.
//!
//! A label is a name with a value; most series share nearly all of theirs with others. Each has a
//! number, and a label set is a list of numbers: a byte for each of the first labels, two or three
//! for later ones. What nobody has any more goes when all is packed anew.
//!
//! Queries hold [`Sets`] as they were, without a lock: what is written while somebody holds them
//! goes to a copy of the tables of pieces, and of the last pieces.

use std::cmp::Ordering;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashTable;
use memchr::memchr;

use crate::storage::fingerprint::END;
use crate::storage::log::format::push_varint;
use crate::storage::select::Pairs;

/// Number of a label.
pub type LabelRef = u32;

/// Things are kept in pieces of this size: growing copies at most the last one, when a query holds
/// it.
const PIECE_BYTES: usize = 64 << 10;
/// Fewer dead bytes are not worth the work of making them free.
const REPACK_BYTES_MIN: usize = 1 << 20;
/// What is no label set.
const DAMAGED: &str = "label set is damaged";

/// Slices, one after the other.
#[derive(Clone, Debug, Default)]
struct Arena<T>(Vec<Arc<Vec<T>>>);

/// Where a slice is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    piece: u32,
    start: u32,
    len: u32,
}

impl Span {
    /// A part of it.
    fn part(self, range: Range<usize>) -> Self {
        debug_assert!(range.start <= range.end && range.end <= self.len as usize);
        let Range { start, end } = range;
        Self { start: self.start + start as u32, len: (end - start) as u32, ..self }
    }
}

impl<T: Copy> Arena<T> {
    const PIECE_LEN: usize = PIECE_BYTES / size_of::<T>();

    fn push(&mut self, items: &[T]) -> Span {
        let fits = |piece: &Arc<Vec<T>>| piece.len() + items.len() <= Self::PIECE_LEN;
        if !self.0.last().is_some_and(fits) {
            let capacity = items.len().max(Self::PIECE_LEN);
            self.0.push(Arc::new(Vec::with_capacity(capacity)));
        }
        let piece = self.0.len() - 1;
        let target = Self::unshared(&mut self.0[piece]);
        let start = target.len();
        target.extend_from_slice(items);
        Span { piece: piece as u32, start: start as u32, len: items.len() as u32 }
    }

    /// The piece itself, or a copy when somebody else holds it.
    fn unshared(piece: &mut Arc<Vec<T>>) -> &mut Vec<T> {
        if Arc::get_mut(piece).is_none() {
            let mut copy = Vec::with_capacity(Self::PIECE_LEN);
            copy.extend_from_slice(piece);
            *piece = Arc::new(copy);
        }
        Arc::get_mut(piece).expect("a copy is nobody else's")
    }

    #[inline]
    fn get(&self, span: Span) -> &[T] {
        match self.0.get(span.piece as usize) {
            Some(piece) => &piece[span.start as usize..][..span.len as usize],
            None => &[],
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Label {
    /// In canonical form: name, 0xFF, value, 0xFF.
    text: Span,
    name_bytes: u32,
}

/// Labels by number.
impl Arena<Label> {
    fn len(&self) -> usize {
        let last = self.0.last().map_or(0, |piece| piece.len());
        self.0.len().saturating_sub(1) * Self::PIECE_LEN + last
    }

    #[inline]
    fn label(&self, label: LabelRef) -> Label {
        let at = label as usize;
        self.0[at / Self::PIECE_LEN][at % Self::PIECE_LEN]
    }
}

/// Labels of a set, in order of their names.
#[derive(Clone, Debug)]
pub struct List<'a>(&'a [u8]);

impl<'a> List<'a> {
    /// From the numbers of the labels as LEB128.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Iterator for List<'_> {
    type Item = LabelRef;

    #[inline]
    fn next(&mut self) -> Option<LabelRef> {
        let (mut label, mut shift) = (0, 0);
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            label |= u32::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(label);
            }
            shift += 7;
        }
    }
}

/// Labels, and sets of those.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    labels: Arena<Label>,
    texts: Arena<u8>,
    /// Sets: numbers of labels as LEB128.
    lists: Arena<u8>,
}

impl Sets {
    /// A label in canonical form.
    #[inline]
    pub fn text(&self, label: LabelRef) -> &[u8] {
        self.texts.get(self.labels.label(label).text)
    }

    /// The name of a label.
    pub fn name(&self, label: LabelRef) -> &[u8] {
        let label = self.labels.label(label);
        &self.texts.get(label.text)[..label.name_bytes as usize]
    }

    /// Name and value of a label.
    pub fn pair(&self, label: LabelRef) -> (&str, &str) {
        let label = self.labels.label(label);
        let (name, value) = self.texts.get(label.text).split_at(label.name_bytes as usize);
        let text = |bytes| std::str::from_utf8(bytes).expect("looked at when it was new");
        (text(name), text(&value[1..value.len() - 1]))
    }

    /// How many labels there are; their numbers are below this.
    pub fn label_count(&self) -> usize {
        self.labels.len()
    }

    /// The labels of a set.
    pub fn list(&self, set: Span) -> List<'_> {
        List(self.lists.get(set))
    }

    /// Names and values of the labels of a set.
    pub fn pairs(&self, set: Span) -> Pairs<'_> {
        self.list(set).map(|label| self.pair(label)).collect()
    }

    /// Appends the canonical form of a set.
    pub fn push_canonical(&self, set: Span, out: &mut Vec<u8>) {
        for label in self.list(set) {
            out.extend_from_slice(self.text(label));
        }
    }

    /// Length of the canonical form of a set.
    pub fn len_bytes(&self, set: Span) -> usize {
        self.list(set).map(|label| self.labels.label(label).text.len as usize).sum()
    }

    /// The order of two sets: as label sets are ordered.
    pub fn compare(&self, a: List<'_>, mut b: List<'_>) -> Ordering {
        for own in a {
            match b.next() {
                None => return Ordering::Greater,
                Some(other) if own == other => {}
                // Each label is there once, so these differ.
                Some(other) => return self.pair(own).cmp(&self.pair(other)),
            }
        }
        if b.next().is_none() { Ordering::Equal } else { Ordering::Less }
    }
}

/// The label sets of a registry.
#[derive(Debug, Default)]
pub struct LabelSets {
    sets: Arc<Sets>,
    /// Labels by their text.
    by_text: HashTable<LabelRef>,
    hasher: foldhash::fast::RandomState,
    /// Bytes of lists that are in use, and that are not.
    live_bytes: usize,
    dead_bytes: usize,
    /// Labels of the set that was read last, and of the one before.
    own: Vec<LabelRef>,
    last: Vec<LabelRef>,
    buffer: Vec<u8>,
}

impl LabelSets {
    /// To read them.
    pub fn sets(&self) -> &Arc<Sets> {
        &self.sets
    }

    /// The number of the label at the beginning of `text`, a new one if need be.
    pub fn label(&mut self, text: &[u8]) -> Result<LabelRef, &'static str> {
        let end_of = |text: &[u8]| memchr(END, text).ok_or(DAMAGED);
        let name_bytes = end_of(text)?;
        let value = &text[name_bytes + 1..];
        let value = &value[..end_of(value)?];
        let text = &text[..name_bytes + value.len() + 2];
        let hash = self.hasher.hash_one(text);
        if let Some(label) = self.by_text.find(hash, |own| self.sets.text(*own) == text) {
            return Ok(*label);
        }
        let name = &text[..name_bytes];
        if value.is_empty() || [name, value].iter().any(|text| std::str::from_utf8(text).is_err()) {
            return Err(DAMAGED);
        }
        let sets = Arc::make_mut(&mut self.sets);
        let label = sets.labels.len() as LabelRef;
        let own = Label { text: sets.texts.push(text), name_bytes: name_bytes as u32 };
        sets.labels.push(&[own]);
        let hash_of = |own: &LabelRef| self.hasher.hash_one(sets.text(*own));
        self.by_text.insert_unique(hash, label, hash_of);
        Ok(label)
    }

    /// Reads a set in canonical form. Series that follow each other share most of their labels: one
    /// that stands where it stood in the set before is found by one comparison.
    pub fn read(&mut self, canonical: &[u8]) -> Result<(), &'static str> {
        let (mut rest, mut at) = (canonical, 0);
        std::mem::swap(&mut self.last, &mut self.own);
        self.own.clear();
        while !rest.is_empty() {
            // What stands at `at` comes after the own labels so far in the order of names.
            let guess = self.last.get(at).copied();
            let guess = guess.filter(|own| rest.starts_with(self.sets.text(*own)));
            let label = if let Some(label) = guess {
                at += 1;
                label
            } else {
                let label = self.label(rest)?;
                let name = self.sets.name(label);
                if self.own.last().is_some_and(|before| name <= self.sets.name(*before)) {
                    return Err(DAMAGED);
                }
                while self.last.get(at).is_some_and(|other| self.sets.name(*other) <= name) {
                    at += 1;
                }
                label
            };
            rest = &rest[self.sets.text(label).len()..];
            self.own.push(label);
        }
        Ok(())
    }

    /// The set that was read last.
    pub fn last_read(&self) -> &[LabelRef] {
        &self.own
    }

    /// Keeps the set that was read last.
    pub fn push_last_read(&mut self) -> Span {
        let own = std::mem::take(&mut self.own);
        let set = self.push(&own);
        self.own = own;
        set
    }

    /// Keeps a set of labels, which are in the order of their names.
    pub fn push(&mut self, labels: &[LabelRef]) -> Span {
        self.buffer.clear();
        for label in labels {
            push_varint(&mut self.buffer, u64::from(*label));
        }
        self.live_bytes += self.buffer.len();
        Arc::make_mut(&mut self.sets).lists.push(&self.buffer)
    }

    /// Keeps sets as they are written one after the other: numbers of labels as LEB128. `ends` tells
    /// where each ends.
    pub fn push_lists<'a>(
        &mut self,
        lists: &[u8],
        ends: &'a [usize],
    ) -> impl Iterator<Item = Span> + use<'a> {
        self.live_bytes += lists.len();
        let all = Arc::make_mut(&mut self.sets).lists.push(lists);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).map(move |(start, end)| all.part(start..*end))
    }

    /// A set is not needed any more.
    pub fn remove(&mut self, set: Span) {
        self.live_bytes -= set.len as usize;
        self.dead_bytes += set.len as usize;
    }

    /// Whether more is dead than alive.
    pub fn is_wasteful(&self) -> bool {
        self.live_bytes.max(REPACK_BYTES_MIN) < self.dead_bytes
    }

    /// Keeps nothing but these sets, whose places change.
    pub fn repack<'a>(&mut self, sets: impl Iterator<Item = &'a mut Span>) {
        const NONE: LabelRef = LabelRef::MAX;
        let old = std::mem::take(self).sets;
        let mut numbers = vec![NONE; old.label_count()];
        let mut own = Vec::new();
        for set in sets {
            own.clear();
            for label in old.list(*set) {
                let number = &mut numbers[label as usize];
                if *number == NONE {
                    *number = self.label(old.text(label)).expect("it was a label before");
                }
                own.push(*number);
            }
            *set = self.push(&own);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::labels::Labels;
    use crate::storage::fingerprint::canonical;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn sets_are_kept_as_they_came_until_they_are_removed(
            all in prop::collection::vec(
                (prop::collection::btree_map("[a-d]", "[x-zü]{1,2}", 0..5), any::<bool>()), 1..30),
        ) {
            let mut sets = LabelSets::default();
            let mut kept = Vec::new();
            for (pairs, is_kept) in all {
                let labels = Labels::from_pairs(pairs);
                sets.read(&canonical(&labels)).unwrap();
                let set = sets.push_last_read();
                if is_kept {
                    kept.push((labels, set));
                } else {
                    sets.remove(set);
                }
            }
            for is_packed in [false, true] {
                if is_packed {
                    let old_count = sets.sets().label_count();
                    sets.repack(kept.iter_mut().map(|own| &mut own.1));
                    prop_assert!(sets.sets().label_count() <= old_count);
                    prop_assert_eq!(sets.dead_bytes, 0);
                }
                for (labels, set) in &kept {
                    let mut bytes = Vec::new();
                    sets.sets().push_canonical(*set, &mut bytes);
                    prop_assert_eq!(sets.sets().len_bytes(*set), bytes.len());
                    prop_assert_eq!(bytes, canonical(labels));
                    prop_assert_eq!(&Labels::from_sorted(sets.sets().pairs(*set)), labels);
                }
            }
        }
    }

    #[test]
    fn a_label_is_kept_once() {
        let mut sets = LabelSets::default();
        sets.read(b"a\xff1\xffb\xff2\xff").unwrap();
        assert_eq!(sets.last_read(), [0, 1]);
        sets.read(b"a\xff1\xffc\xff2\xff").unwrap();
        assert_eq!((sets.last_read(), sets.sets().pair(2)), (&[0, 2][..], ("c", "2")));
        sets.read(b"").unwrap();
        assert_eq!((sets.last_read(), sets.sets().label_count()), (&[][..], 3));
    }
}
