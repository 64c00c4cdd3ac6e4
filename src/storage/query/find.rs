//! Which series a query sees: those of the head and of segments, each once, in label order.
//!
//! Nothing is copied for a series of the head: its labels are numbers, and compared by these. Those
//! that are only in segments are copied as long as they are sorted, unless they are in order
//! already, which a single segment's nearly always are.

use std::cmp::Ordering;
use std::sync::Arc;

use foldhash::HashMap;
use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::Snapshot;
use super::order::{self, Numbered};
use super::selections::{Found, Located};
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::storage::append::SeriesKey;
use crate::storage::fingerprint::{compare_canonical, push_canonical};
use crate::storage::registry::sets::{Sets, Span};
use crate::storage::registry::{Registry, SeriesRef};
use crate::storage::segment::Segment;
use crate::storage::select::QueryError;
use crate::storage::version::Version;

/// Series of the head, found while it was locked.
pub struct HeadSeries {
    all: Vec<(SeriesRef, Span)>,
    /// As many, when there are segments to compare with.
    fingerprints: Vec<u128>,
    sets: Arc<Sets>,
}

impl HeadSeries {
    /// Notes which labels they have.
    pub fn note(registry: &Registry, series: &RoaringBitmap, has_segments: bool) -> Self {
        let all: Vec<_> = series.iter().map(|series| (series, registry.set(series))).collect();
        // Kept answers without any series of the head live long.
        let sets = if all.is_empty() { Arc::default() } else { Arc::clone(registry.sets()) };
        let fingerprints = if has_segments {
            series.iter().map(|series| registry.fingerprint(series)).collect()
        } else {
            Vec::new()
        };
        Self { all, fingerprints, sets }
    }
}

/// The series of head and segments in label order.
pub fn find(
    head: HeadSeries,
    snapshot: &Snapshot,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<Found, QueryError> {
    let segment_count = snapshot.segments(range).count();
    let is_single = head.all.is_empty() && segment_count == 1;
    let mut all = Gathered::new(head, !is_single);
    for (position, own) in snapshot.segments(range) {
        let selected = own.segment.select(matchers)?;
        for ordinal in selected.into_iter().filter(|ordinal| own.shows(range, *ordinal)) {
            all.add(position, ordinal, &own.segment)?;
        }
    }
    let order = all.order(&snapshot.version)?;
    Ok(all.finish(&order))
}

/// A part of a series: its number among those gathered, position of the segment, ordinal.
type Place = (u32, u32, u32);

/// Series by number: those of the head, then those only in segments.
struct Gathered {
    head: Vec<(SeriesRef, Span)>,
    sets: Arc<Sets>,
    /// Of each series; empty when there is only one segment.
    fingerprints: Vec<u128>,
    by_fingerprint: HashTable<u32>,
    is_single: bool,
    /// Series, also those of the head.
    count: u32,
    /// In order of segments.
    places: Vec<Place>,
}

impl Gathered {
    fn new(head: HeadSeries, has_several: bool) -> Self {
        let HeadSeries { all: head, fingerprints, sets } = head;
        let hash = |at: &u32| fingerprints[*at as usize] as u64;
        let mut by_fingerprint = HashTable::with_capacity(fingerprints.len());
        for (at, fingerprint) in (0..).zip(&fingerprints) {
            by_fingerprint.insert_unique(*fingerprint as u64, at, hash);
        }
        let (count, is_single) = (head.len() as u32, !has_several);
        Self { head, sets, fingerprints, by_fingerprint, is_single, count, places: Vec::new() }
    }

    fn add(&mut self, position: u32, ordinal: u32, segment: &Segment) -> Result<(), QueryError> {
        let number = if self.is_single { None } else { self.known(segment.fingerprint(ordinal)?) };
        let number = number.unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.places.push((number, position, ordinal));
        Ok(())
    }

    /// The series with this fingerprint; if there is none, the next one will have it.
    fn known(&mut self, fingerprint: u128) -> Option<u32> {
        let fingerprints = &mut self.fingerprints;
        let is_same = |at: &u32| fingerprints[*at as usize] == fingerprint;
        if let Some(known) = self.by_fingerprint.find(fingerprint as u64, is_same) {
            return Some(*known);
        }
        fingerprints.push(fingerprint);
        let hash = |at: &u32| fingerprints[*at as usize] as u64;
        self.by_fingerprint.insert_unique(fingerprint as u64, self.count, hash);
        None
    }

    /// The first places of the series that are only in segments, in order of their numbers.
    fn only_sealed(&self) -> impl Iterator<Item = &Place> {
        let mut next = self.head.len() as u32;
        self.places.iter().filter(move |(number, ..)| {
            let is_first = *number == next;
            next += u32::from(is_first);
            is_first
        })
    }

    /// Numbers in label order. Series that turn out to have equal labels, which only a damaged
    /// segment has, become one.
    fn order(&mut self, version: &Version) -> Result<Vec<u32>, QueryError> {
        let heads = self.head.len();
        if heads == 0 && self.ascend(version)? {
            return Ok((0..self.count).collect());
        }
        let copied = Canonicals::copy(self.only_sealed(), version)?;
        let sealed = order::sort(copied.iter().zip(heads as u32..).collect());
        let (order, same) = self.merge(&sealed);
        if !same.is_empty() {
            for (number, ..) in &mut self.places {
                *number = same.get(number).copied().unwrap_or(*number);
            }
        }
        Ok(order)
    }

    /// Series of the head and sorted others, and which of these are the same as another one.
    fn merge(&self, sealed: &[Numbered<'_>]) -> (Vec<u32>, HashMap<u32, u32>) {
        let head = order::sort_sets(&self.sets, self.head.iter().map(|(_, set)| *set));
        let mut head = head.into_iter().peekable();
        let mut labels = Vec::new();
        let mut compare = |number: u32, text: &[u8]| {
            labels.clear();
            self.sets.push_canonical(self.head[number as usize].1, &mut labels);
            compare_canonical(&labels, text)
        };
        let mut order = Vec::with_capacity(self.count as usize);
        let mut same = HashMap::default();
        for equal in sealed.chunk_by(|a, b| a.0 == b.0) {
            let (text, mut first) = equal[0];
            while let Some(before) = head.next_if(|own| compare(*own, text) == Ordering::Less) {
                order.push(before);
            }
            if let Some(own) = head.peek().filter(|own| compare(**own, text) == Ordering::Equal) {
                first = *own;
            } else {
                order.push(first);
            }
            let others = equal.iter().filter(|own| own.1 != first);
            same.extend(others.map(|(_, number)| (*number, first)));
        }
        order.extend(head);
        (order, same)
    }

    /// Whether all series are in label order as they are, when none is of the head.
    fn ascend(&self, version: &Version) -> Result<bool, QueryError> {
        let (mut last, mut next) = (Vec::new(), Vec::new());
        for (at, place) in self.only_sealed().enumerate() {
            next.clear();
            push_place(*place, version, &mut next)?;
            if 0 < at && compare_canonical(&last, &next) != Ordering::Less {
                return Ok(false);
            }
            std::mem::swap(&mut last, &mut next);
        }
        Ok(true)
    }

    fn finish(self, order: &[u32]) -> Found {
        let mut ranks = vec![0; self.count as usize];
        for (rank, number) in (0..).zip(order) {
            ranks[*number as usize] = rank;
        }
        let head = order.iter().map(|number| self.head.get(*number as usize).copied());
        let places = self.places.iter().map(|(number, position, ordinal)| {
            let rank: usize = ranks[*number as usize];
            (rank, (*position, *ordinal))
        });
        Found::new(Located::new(head, places), self.sets)
    }
}

fn push_place(
    (_, position, ordinal): Place,
    version: &Version,
    out: &mut Vec<u8>,
) -> Result<(), QueryError> {
    let pairs = version.segments[position as usize].segment.label_pairs(ordinal)?;
    push_canonical(SeriesKey::Pairs(&pairs), out);
    Ok(())
}

/// Labels of series of segments, one after the other.
struct Canonicals {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Canonicals {
    fn copy<'a>(
        places: impl Iterator<Item = &'a Place>,
        version: &Version,
    ) -> Result<Self, QueryError> {
        let mut own = Self { bytes: Vec::new(), ends: Vec::new() };
        for place in places {
            push_place(*place, version, &mut own.bytes)?;
            own.ends.push(own.bytes.len());
        }
        Ok(own)
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[*start..*end])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::labels::Labels;
    use crate::storage::registry::sets::LabelSets;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn head_and_segments_are_merged_as_if_all_were_texts(
            series in prop::collection::vec(
                (prop::collection::btree_map("[ab]{1,2}", "[aé]{1,2}", 0..3), any::<bool>()),
                0..200,
            ),
        ) {
            let mut kept = LabelSets::default();
            let (mut head, mut all, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
            let mut seen = BTreeSet::new();
            for (pairs, is_in_head) in &series {
                let mut text = Vec::new();
                push_canonical(SeriesKey::Labels(&Labels::from_pairs(pairs)), &mut text);
                if *is_in_head && seen.insert(text.clone()) {
                    kept.read(&text).unwrap();
                    head.push((head.len() as SeriesRef, kept.push_last_read()));
                    all.push(text);
                } else {
                    sealed.push(text);
                }
            }
            let head_count = all.len();
            all.append(&mut sealed);
            let numbered: Vec<Numbered<'_>> =
                all.iter().zip(0..).map(|(text, number)| (text.as_slice(), number)).collect();

            let sets = Arc::clone(kept.sets());
            let head = HeadSeries { all: head, fingerprints: Vec::new(), sets };
            let gathered = Gathered::new(head, true);
            let (order, same) = gathered.merge(&order::sort(numbered[head_count..].to_vec()));

            let mut expected_same = HashMap::default();
            let mut expected = order::sort(numbered);
            expected.dedup_by(|again, first| {
                let is_same = again.0 == first.0;
                if is_same {
                    expected_same.insert(again.1, first.1);
                }
                is_same
            });
            let expected: Vec<u32> = expected.into_iter().map(|own| own.1).collect();
            prop_assert_eq!(order, expected);
            prop_assert_eq!(same, expected_same);
        }
    }
}
