//! Which series a query sees: those of the head and of segments, each once, in label order.
//!
//! Labels are compared where they lie, in the registry's arena or in a segment. Nothing is copied
//! for a series of the head; those that are only in segments are copied as long as they are sorted,
//! unless they are in order already, which a single segment's nearly always are.

use std::cmp::Ordering;

use foldhash::HashMap;
use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::selections::{Found, Located};
use super::{Snapshot, order};
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::storage::append::SeriesKey;
use crate::storage::fingerprint::{compare_canonical, push_canonical};
use crate::storage::registry::{Registry, SeriesRef, Span, Texts};
use crate::storage::segment::Segment;
use crate::storage::select::QueryError;
use crate::storage::version::Version;

/// Series of the head, found while it was locked.
pub struct HeadSeries {
    all: Vec<(SeriesRef, Span)>,
    /// As many, when there are segments to compare with.
    fingerprints: Vec<u128>,
    texts: Texts,
}

impl HeadSeries {
    /// Notes where their labels are.
    pub fn note(registry: &Registry, series: &RoaringBitmap, has_segments: bool) -> Self {
        let mut texts = Texts::default();
        let all = series.iter().map(|series| (series, registry.share(series, &mut texts)));
        let all = all.collect();
        let fingerprints = if has_segments {
            series.iter().map(|series| registry.fingerprint(series)).collect()
        } else {
            Vec::new()
        };
        Self { all, fingerprints, texts }
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
    texts: Texts,
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
        let HeadSeries { all: head, fingerprints, texts } = head;
        let hash = |at: &u32| fingerprints[*at as usize] as u64;
        let mut by_fingerprint = HashTable::with_capacity(fingerprints.len());
        for (at, fingerprint) in (0..).zip(&fingerprints) {
            by_fingerprint.insert_unique(*fingerprint as u64, at, hash);
        }
        let (count, is_single) = (head.len() as u32, !has_several);
        Self { head, texts, fingerprints, by_fingerprint, is_single, count, places: Vec::new() }
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
        let sealed = Canonicals::copy(self.only_sealed(), version)?;
        let head = (0..).zip(&self.head).map(|(at, (_, span))| (self.texts.get(*span), at));
        let mut all = order::sort(head.chain(sealed.iter().zip(heads as u32..)).collect());
        let mut same: HashMap<u32, u32> = HashMap::default();
        all.dedup_by(|again, first| {
            let is_same = again.0 == first.0;
            if is_same {
                same.insert(again.1, first.1);
            }
            is_same
        });
        let order = all.into_iter().map(|(_, number)| number).collect();
        if !same.is_empty() {
            for (number, ..) in &mut self.places {
                *number = same.get(number).copied().unwrap_or(*number);
            }
        }
        Ok(order)
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
        Found::new(Located::new(head, places), self.texts)
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
