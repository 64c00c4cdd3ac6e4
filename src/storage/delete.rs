//! Deleting series: a tombstone hides at once what was committed before it, and what is hidden is
//! left out whenever a file is written anew.
//!
//! The open log file is closed first, so each log file is older than a tombstone or younger as a
//! whole; a segment tells the last tombstone that was known when it was written. What comes later
//! is therefore never hidden, even at the same timestamps: a series whose newest sample was
//! deleted is *hollow*, and takes another sample with that time. The edit of the manifest that
//! adds the tombstone is all that a deletion writes; a crash before it leaves everything as it
//! was. A tombstone goes when no file has anything of it any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use smallvec::{SmallVec, smallvec};

use super::compact::Merge;
use super::compact::plan::{Plan, Urgency};
use super::index::postings::HeadIndex;
use super::manifest::{Edit, TombstoneEntry};
use super::options::SealError;
use super::segment::{ChunkRef, Segment};
use super::select::QueryError;
use super::store::Store;
use super::version::{OpenSegment, Version};
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;

/// With more tombstones, whatever they hide is cleaned up, be it ever so little.
const TOMBSTONES_MANY: usize = 64;
/// With more, a deletion cleans up before it adds another.
const TOMBSTONES_MAX: usize = 1024;
/// A segment is written anew when this part of it is hidden; less waits for the next merge.
const HIDDEN_PART: u64 = 64;

/// Samples of a file that nobody sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Hidden {
    /// Why: the number of a tombstone; 0: not for one.
    pub tombstone: u64,
    /// Which samples.
    pub range: TimeRange,
    /// Of which series: ordinals of a segment, numbers in log files.
    pub series: RoaringBitmap,
    /// About how long what is hidden is, in a segment.
    pub bytes: u64,
}

/// A deletion that still hides something, or may.
#[derive(Debug)]
pub struct Tombstone {
    /// What the manifest tells of it.
    pub entry: Arc<TombstoneEntry>,
    /// What it hides in log files that are not younger.
    pub head: Hidden,
}

impl Tombstone {
    /// With the series of the head that it is about.
    pub fn new(entry: Arc<TombstoneEntry>, index: &HeadIndex) -> Self {
        let mut series = RoaringBitmap::new();
        entry.sets.iter().for_each(|set| series |= index.select(set));
        let (tombstone, range) = (entry.id, entry.range);
        Self { entry, head: Hidden { tombstone, range, series, bytes: 0 } }
    }
}

/// Parts of a range, ascending.
pub type Ranges = SmallVec<[TimeRange; 1]>;

/// What of a range is not hidden for one series.
pub fn visible<'a>(
    range: TimeRange,
    series: u32,
    hidden: impl IntoIterator<Item = &'a Hidden>,
) -> Ranges {
    let mut parts: Ranges = smallvec![range];
    for own in hidden.into_iter().filter(|own| own.series.contains(series)) {
        let mut rest = Ranges::new();
        for part in parts {
            if !part.overlaps(own.range) {
                rest.push(part);
                continue;
            }
            if part.min_ms < own.range.min_ms {
                rest.push(TimeRange { min_ms: part.min_ms, max_ms: own.range.min_ms - 1 });
            }
            if own.range.max_ms < part.max_ms {
                rest.push(TimeRange { min_ms: own.range.max_ms + 1, max_ms: part.max_ms });
            }
        }
        parts = rest;
    }
    parts
}

/// What a deletion hides in a segment; `None`: nothing.
pub fn hidden_in(
    segment: &Segment,
    tombstone: u64,
    range: TimeRange,
    sets: &[Vec<Matcher>],
) -> Result<Option<Hidden>, QueryError> {
    if !segment.time_range().overlaps(range) {
        return Ok(None);
    }
    let mut selected = RoaringBitmap::new();
    for set in sets {
        selected |= segment.select(set)?;
    }
    let hidden = hidden_of(segment, tombstone, range, selected)?;
    Ok((!hidden.series.is_empty()).then_some(hidden))
}

/// Those of the series that have something in the range, and how much.
pub fn hidden_of(
    segment: &Segment,
    tombstone: u64,
    range: TimeRange,
    among: RoaringBitmap,
) -> Result<Hidden, QueryError> {
    let mut hidden = Hidden { tombstone, range, series: RoaringBitmap::new(), bytes: 0 };
    for ordinal in among {
        let chunks = segment.chunks(ordinal, range)?;
        if !chunks.is_empty() {
            hidden.series.insert(ordinal);
            hidden.bytes += chunks.iter().map(ChunkRef::bytes).sum::<u64>();
        }
    }
    Ok(hidden)
}

impl Store {
    /// Hides the samples of series that fulfil all matchers of any set and were committed so far.
    /// Durable when this returns. Blocks.
    pub fn delete_series(&self, sets: &[Vec<Matcher>], range: TimeRange) -> Result<(), SealError> {
        if TOMBSTONES_MAX <= self.version.load().tombstones.len() {
            self.close_log()?;
            self.seal_closed()?;
            self.clean_tombstones(Urgency::Now)?;
        }
        // Looked up before commits are held up; only what is sealed meanwhile is looked up then.
        let mut known = BTreeMap::new();
        for own in &self.version.load_full().segments {
            known.insert(own.entry.id, hidden_in(&own.segment, 0, range, sets)?);
        }
        let mut writer = self.lock_writer();
        if self.is_poisoned() || writer.is_closed {
            return Err(SealError::Poisoned);
        }
        if !writer.active.is_empty() {
            self.rotate(&mut writer, 0)
                .map_err(|err| self.classify("log file could not be closed", err))?;
        }
        let (id, sequence, sets) = (self.new_id(), writer.sequence, sets.to_vec());
        let entry = Arc::new(TombstoneEntry { id, sequence, range, sets });
        let tombstone = Tombstone::new(entry, self.registry.read().index());
        let deleted = tombstone.head.series.clone();
        self.add_tombstone(tombstone, known)?;
        for series in deleted {
            writer.newest.hollow_out(series, range);
        }
        drop(writer);
        let mut background = self.background.0.lock();
        (background.has_work, background.has_sealed) = (true, true);
        self.background.1.notify_all();
        Ok(())
    }

    /// The edit, and what queries see from now on. `known`: what is hidden by segment.
    fn add_tombstone(
        &self,
        tombstone: Tombstone,
        mut known: BTreeMap<u64, Option<Hidden>>,
    ) -> Result<(), SealError> {
        let TombstoneEntry { id, range, ref sets, .. } = *tombstone.entry;
        let mut manifest = self.lock_manifest();
        let mut version = Version::clone(&self.version.load());
        for own in &mut version.segments {
            let hidden = match known.remove(&own.entry.id) {
                Some(hidden) => hidden,
                None => hidden_in(&own.segment, id, range, sets)?,
            };
            if let Some(mut hidden) = hidden {
                hidden.tombstone = id;
                *own = Arc::new(own.without(hidden));
            }
        }
        let mut edits = vec![Edit::AddTombstone(Arc::clone(&tombstone.entry))];
        edits.extend(version.forget_lost(sets, range).map(Edit::Loss));
        manifest.edit(&edits).map_err(|err| self.classify("manifest could not be written", err))?;
        version.tombstones.push(Arc::new(tombstone));
        self.version.store(Arc::new(version));
        Ok(())
    }

    /// Writes segments anew without what is hidden in them, those where it pays or all, and
    /// forgets tombstones that hide nothing any more. Blocks.
    pub fn clean_tombstones(&self, urgency: Urgency) -> Result<(), SealError> {
        let _turn = self.begin_merging(urgency)?;
        while let Some(merge) = self.next_to_clean(urgency) {
            if self.is_poisoned() {
                return Err(SealError::Poisoned);
            }
            self.merge_and_count(&merge, urgency)?;
        }
        self.drop_tombstones()
    }

    fn next_to_clean(&self, urgency: Urgency) -> Option<Merge> {
        let version = self.version.load();
        let is_many = TOMBSTONES_MANY < version.tombstones.len();
        let pays = |own: &&Arc<OpenSegment>| {
            let bytes: u64 = own.hidden.iter().map(|hidden| hidden.bytes).sum();
            let enough = is_many || urgency == Urgency::Now;
            !own.hidden.is_empty()
                && (enough || own.segment.bytes() <= bytes.saturating_mul(HIDDEN_PART))
                && self.has_room(own.segment.bytes().saturating_sub(bytes), urgency)
        };
        let own = version.segments.iter().find(pays)?;
        let (level, windows) = (own.entry.level, vec![own.segment.time_range()]);
        let plan = Plan { level, inputs: Vec::new(), windows };
        Some(Merge { plan, inputs: vec![Arc::clone(own)], tombstone: version.tombstone() })
    }

    /// Forgets tombstones that hide nothing any more.
    fn drop_tombstones(&self) -> Result<(), SealError> {
        let mut manifest = self.lock_manifest();
        let mut version = Version::clone(&self.version.load());
        // A checkpoint from before a deletion does not know whose newest sample is gone.
        let known = manifest.state().checkpoint.map_or(u64::MAX, |own| own.tombstone);
        let is_over = |own: &Arc<Tombstone>| {
            let entry = &own.entry;
            let is_older = |first_sequence: u64| first_sequence <= entry.sequence;
            let hides = |segment: &OpenSegment| {
                segment.hidden.iter().any(|hidden| hidden.tombstone == entry.id)
            };
            entry.id <= known
                && !version.logs.iter().any(|log| is_older(log.header().first_sequence))
                && !version.segments.iter().any(|segment| hides(segment))
        };
        let (over, rest): (Vec<_>, Vec<_>) = version.tombstones.iter().cloned().partition(is_over);
        if over.is_empty() {
            return Ok(());
        }
        let edits: Vec<_> = over.iter().map(|own| Edit::DropTombstone(own.entry.id)).collect();
        manifest.edit(&edits).map_err(|err| self.classify("manifest could not be written", err))?;
        version.tombstones = rest;
        self.version.store(Arc::new(version));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_is_not_hidden_is_visible(
            hidden in prop::collection::vec((0_i64..20, 0_i64..20, 0_u32..3), 0..5),
            min_ms in 0_i64..20, length in 0_i64..20,
        ) {
            let hidden: Vec<Hidden> = hidden.into_iter().map(|(start, length, series)| {
                let range = TimeRange { min_ms: start, max_ms: start + length };
                Hidden { tombstone: 1, range, series: [series].into_iter().collect(), bytes: 0 }
            }).collect();
            let range = TimeRange { min_ms, max_ms: min_ms + length };
            for series in 0..3 {
                let parts = visible(range, series, &hidden);
                prop_assert!(parts.windows(2).all(|pair| pair[0].max_ms < pair[1].min_ms));
                for ms in -1..45 {
                    let is_hidden =
                        hidden.iter().any(|own| own.series.contains(series) && own.range.contains(ms));
                    let shown = parts.iter().any(|part| part.contains(ms));
                    prop_assert_eq!(shown, range.contains(ms) && !is_hidden);
                }
            }
        }
    }

    #[test]
    fn all_of_time_can_be_hidden() {
        let series: RoaringBitmap = [1].into_iter().collect();
        let hidden = Hidden { tombstone: 1, range: TimeRange::ALL, series, bytes: 0 };
        assert!(visible(TimeRange::ALL, 1, [&hidden]).is_empty());
        assert_eq!(visible(TimeRange::ALL, 2, [&hidden]).as_slice(), [TimeRange::ALL]);
    }
}
