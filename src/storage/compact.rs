//! Merging segments: sealed log files into windows of two hours, those into days, those into more.
//!
//! A merge streams series by series in the order that segments have, writes one segment for each
//! window, and ends with one edit of the manifest that drops what was merged and adds what was
//! written. Of two samples with one timestamp the first accepted one stays. A crash before the
//! edit leaves files that nobody names, one after it files that nobody needs. What is merged can
//! be read all the while. What of a segment is damaged is not merged: the same edit tells that it is
//! lost (see `loss.rs`). Formats: `docs/formats/segment.md`, `docs/formats/manifest.md`.

pub mod plan;

mod sizes;

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;
use tracing::{debug, info, warn};

use super::delete::{Hidden, visible};
use super::manifest::{Edit, LostRun, SegmentEntry};
use super::options::SealError;
use super::query::merge::{Parts, Sharing};
use super::query::segment_reader::TimestampColumns;
use super::seal::not_poisoning;
use super::segment::{Segment, SegmentWriter, SequenceRange, SeriesIdentity};
use super::store::{Background, Store, segment_file_name};
use super::version::{OpenSegment, Version};
use crate::encoding::column::Density;
use crate::model::labels::Labels;
use crate::model::sample::TimeRange;
use crate::storage::select::QueryError;
use plan::{Piece, Plan, Room, Urgency};

/// Series between two looks at the clock and at whether the store is closing.
const PACE_SERIES: usize = 256;
/// Segments of a day and more are read seldom and have chunks long enough to be dense.
const DENSE_LEVEL: u8 = 2;
/// How often the thread looks for something to merge without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What a merge wrote: files that nobody names yet.
type Written = Vec<(SegmentEntry, Segment)>;
/// What could not be read of each input.
type Lost = Vec<Vec<LostRun>>;

/// What is merged, and how.
pub struct Merge {
    /// Level and windows of what is written.
    pub plan: Plan,
    /// In order of acceptance.
    pub inputs: Vec<Arc<OpenSegment>>,
    /// The last deletion that the inputs know of.
    pub tombstone: u64,
}

impl Store {
    /// Merges until nothing is worth it. Blocks; several callers take turns.
    pub fn compact(&self, urgency: Urgency) -> Result<(), SealError> {
        let _turn = self.begin_merging(urgency)?;
        while let Some(merge) = self.next_merge(urgency) {
            if self.is_poisoned() {
                return Err(SealError::Poisoned);
            }
            self.merge_and_count(&merge, urgency)?;
        }
        self.keep_reserve();
        Ok(())
    }

    /// Waits for the turn to merge. Who is in a hurry makes a merge in the background hurry too.
    pub fn begin_merging(&self, urgency: Urgency) -> Result<Turn<'_>, SealError> {
        if urgency == Urgency::Now {
            self.background.0.lock().waiting += 1;
            self.background.1.notify_all();
        }
        let turn = Turn { _compaction: self.compaction.lock(), store: self, urgency };
        self.check_open().map(|()| turn)
    }

    /// Merges, and tells the metrics. The caller has the lock of compaction.
    pub fn merge_and_count(&self, merge: &Merge, urgency: Urgency) -> Result<(), SealError> {
        let started = self.clock.monotonic();
        let merged = self.merge(merge, urgency);
        let seconds = self.seconds_since(started);
        self.metrics.seal_seconds.observe(seconds);
        match &merged {
            Ok(()) => self.metrics.seals.inc(),
            Err(SealError::Closing) => {}
            Err(_) => self.metrics.seals_failed.inc(),
        }
        let (level, inputs) = (merge.plan.level, merge.inputs.len());
        debug!(level, inputs, seconds, "Segments were merged.");
        merged
    }

    /// What is to be merged next. The caller has the lock of compaction.
    pub fn next_merge(&self, urgency: Urgency) -> Option<Merge> {
        let version = self.version.load();
        let piece = |own: &Arc<OpenSegment>| {
            let info = own.segment.info();
            let (range, level) = (own.segment.time_range(), own.entry.level);
            Piece { level, range, bytes: info.bytes, chunk_count: info.chunk_count }
        };
        let pieces: Vec<Piece> = version.segments.iter().map(piece).collect();
        let widths = plan::widths(self.retention.load().longest_ms());
        let newest_ms = self.range()?.max_ms;
        let series_count = |inputs: &[usize]| {
            sizes::series_count(inputs.iter().map(|at| &version.segments[*at].segment))
        };
        let next = |room| plan::next(&pieces, widths, newest_ms, urgency, room, &series_count);
        let room = self.room(urgency);
        let plan = next(room);
        if urgency == Urgency::Background {
            self.note_room(plan.is_none() && next(Room { free_bytes: u64::MAX, ..room }).is_some());
        }
        let plan = plan?;
        let inputs = plan.inputs.iter().map(|at| Arc::clone(&version.segments[*at])).collect();
        Some(Merge { plan, inputs, tombstone: version.tombstone() })
    }

    /// How much a merge may write. What somebody asked for is tried; in the background what comes in
    /// meanwhile and the reserve have precedence.
    fn room(&self, urgency: Urgency) -> Room {
        let retention = self.retention.load();
        let retention_bytes = self.bytes_max(&retention).ok().flatten();
        if urgency == Urgency::Now {
            return Room::new(u64::MAX, retention_bytes);
        }
        let needed_bytes = self.options.log_file_bytes_max + self.options.reserve_bytes_max;
        let free_bytes = self.disk.free_bytes(&self.options.path).unwrap_or(u64::MAX);
        Room::new(free_bytes.saturating_sub(needed_bytes), retention_bytes)
    }

    /// Whether so much may be written: in the background only what the disk holds, be it with the
    /// reserve. What does not fit would fill the disk, be given up, and be tried again soon.
    pub fn has_room(&self, bytes: u64, urgency: Urgency) -> bool {
        if urgency == Urgency::Now {
            return true;
        }
        let free_bytes = self.disk.free_bytes(&self.options.path).unwrap_or(u64::MAX);
        bytes <= free_bytes.saturating_add(self.reserve_bytes.load(Ordering::Acquire))
    }

    /// Tells people once when merges wait for space, and when no longer.
    fn note_room(&self, is_waiting: bool) {
        if self.merges_wait.swap(is_waiting, Ordering::Relaxed) != is_waiting {
            if is_waiting {
                warn!("The disk has no room for merging segments: they stay as they are.");
            } else {
                info!("Segments are merged again.");
            }
        }
    }

    /// Replaces the inputs by what is written for the windows.
    fn merge(&self, merge: &Merge, urgency: Urgency) -> Result<(), SealError> {
        let inputs = &merge.inputs;
        let mut made = Vec::new();
        let mut lost: Lost = inputs.iter().map(|_| Vec::new()).collect();
        let written = self.write_merged(merge, urgency, &mut made, &mut lost);
        let merged = written.and_then(|written| self.exchange(merge, written, lost));
        if !matches!(merged, Ok(true)) && !self.is_poisoned() {
            for path in &made {
                let _ = self.disk.remove_file(path);
            }
        }
        if matches!(merged, Ok(true)) {
            // What cannot be removed now is removed at the next start.
            for own in inputs {
                let _ = self.disk.remove_file(own.segment.path());
            }
        }
        merged.map(|_| ())
    }

    /// One edit that drops what was merged and names what was written; false when retention was
    /// faster and dropped some of it already.
    fn exchange(&self, merge: &Merge, written: Written, lost: Lost) -> Result<bool, SealError> {
        let inputs = &merge.inputs;
        let losses = self.losses_of(inputs, lost)?;
        let dropped: Vec<u64> = inputs.iter().map(|own| own.entry.id).collect();
        let mut manifest = self.lock_manifest();
        if !dropped.iter().all(|id| manifest.state().segments.contains_key(id)) {
            return Ok(false);
        }
        let mut edits: Vec<_> = dropped.iter().map(|id| Edit::DropSegment(*id)).collect();
        edits.extend(written.iter().map(|(entry, _)| Edit::AddSegment(*entry)));
        let mut version = Version::clone(&self.version.load());
        edits.extend(version.add_losses(losses, merge.tombstone).map(Edit::Loss));
        // Something may have been deleted meanwhile.
        let opened = written.into_iter().map(|(entry, own)| version.open_segment(entry, own));
        let opened = opened.collect::<Result<Vec<_>, _>>()?;
        manifest.edit(&edits).map_err(|err| self.classify("manifest could not be written", err))?;
        version.exchange(&dropped, opened);
        self.version.store(Arc::new(version));
        Ok(true)
    }

    fn write_merged(
        &self,
        merge: &Merge,
        urgency: Urgency,
        made: &mut Vec<PathBuf>,
        lost: &mut Lost,
    ) -> Result<Written, SealError> {
        let Merge { plan, inputs, tombstone } = merge;
        let firsts = inputs.iter().map(|own| own.entry.first_sequence);
        let lasts = inputs.iter().map(|own| own.entry.last_sequence);
        let sequences =
            SequenceRange { first: firsts.min().unwrap_or(0), last: lasts.max().unwrap_or(0) };
        let expired = inputs.iter().map(|own| self.expired(&own.segment));
        let expired = expired.collect::<Result<Vec<_>, _>>()?;
        let density = if plan.level < DENSE_LEVEL { Density::Fast } else { Density::Dense };
        let mut written = Vec::new();
        for window in &plan.windows {
            let id = self.new_id();
            let path = self.folders.segments.join(segment_file_name(id));
            let mut output = Output { store: self, path, density, writer: None, made };
            let sources = Sources { inputs, expired: &expired, window: *window };
            self.write_window(&sources, urgency, &mut output, lost)?;
            // Zeros in place of what somebody cut off must not become samples.
            inputs.iter().try_for_each(|own| own.segment.check_whole())?;
            let Some(writer) = output.writer else { continue };
            writer.finish(sequences).map_err(not_poisoning)?;
            let segment = Segment::open(&*self.disk, &output.path)?;
            let (first_sequence, last_sequence) = (sequences.first, sequences.last);
            let (level, tombstone) = (plan.level, *tombstone);
            let entry = SegmentEntry { id, first_sequence, last_sequence, level, tombstone };
            written.push((entry, segment));
        }
        Ok(written)
    }

    /// All samples of the window, series by series.
    fn write_window(
        &self,
        from: &Sources<'_>,
        urgency: Urgency,
        output: &mut Output<'_>,
        lost: &mut Lost,
    ) -> Result<(), SealError> {
        let Sources { inputs, window, .. } = *from;
        let columns = TimestampColumns::default();
        let mut sharing = Sharing::default();
        let mut heads = Heads::new(inputs, window)?;
        let mut pace = Pace::begin(self, urgency);
        let mut sources = Vec::new();
        while let Some((fingerprint, labels)) = heads.next(&mut sources)? {
            let identity = SeriesIdentity { fingerprint, labels: &labels };
            for slice in sizes::slices(inputs, &sources, window)? {
                let from = Sources { window: slice, ..*from };
                let mut parts = Parts::default();
                for (input, ordinal) in &sources {
                    from.read((*input, *ordinal), &columns, &mut parts, |range, offset_bytes| {
                        lost[*input].push(LostRun { labels: labels.clone(), range, offset_bytes });
                    })?;
                }
                for run in parts.finish(&mut sharing).runs {
                    output.writer()?.run(identity, &run).map_err(not_poisoning)?;
                }
            }
            pace.step()?;
        }
        Ok(())
    }

    /// The thread that merges until the store closes.
    pub fn run_compaction(&self) {
        while self.wait_for_compaction(LOOK_EVERY) {
            let cleaned = self.with_reserve(|| self.clean_tombstones(Urgency::Background));
            let expired = self.with_reserve(|| self.clean_expired(Urgency::Background));
            let compacted = self.compact(Urgency::Background);
            if let Err(err) = cleaned.and(expired).and(compacted)
                && !matches!(err, SealError::Poisoned | SealError::Closing)
            {
                warn!(error = %err, "Segments could not be merged; it will be tried again.");
            }
        }
    }

    /// Waits until something was sealed, at most so long; false when the store is closing.
    fn wait_for_compaction(&self, most: Duration) -> bool {
        let (state, wake) = &self.background;
        let mut state = state.lock();
        if !state.has_sealed && !state.is_stopped {
            wake.wait_for(&mut state, most);
        }
        state.has_sealed = false;
        !state.is_stopped
    }
}

/// The right to merge.
pub struct Turn<'a> {
    _compaction: MutexGuard<'a, ()>,
    store: &'a Store,
    urgency: Urgency,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.urgency == Urgency::Now {
            self.store.background.0.lock().waiting -= 1;
        }
    }
}

/// A segment that is begun with its first samples.
struct Output<'a> {
    store: &'a Store,
    path: PathBuf,
    density: Density,
    writer: Option<SegmentWriter>,
    made: &'a mut Vec<PathBuf>,
}

impl Output<'_> {
    fn writer(&mut self) -> Result<&mut SegmentWriter, SealError> {
        if self.writer.is_none() {
            self.made.push(self.path.clone());
            let created = SegmentWriter::create(&*self.store.disk, &self.path, self.density);
            self.writer = Some(created.map_err(not_poisoning)?);
        }
        Ok(self.writer.as_mut().expect("made just now"))
    }
}

/// Lets a merge in the background work at most half of the time, unless somebody waits for it, and
/// ends it with the store.
struct Pace<'a> {
    store: &'a Store,
    urgency: Urgency,
    since: Duration,
    series: usize,
}

impl<'a> Pace<'a> {
    fn begin(store: &'a Store, urgency: Urgency) -> Self {
        Self { store, urgency, since: store.clock.monotonic(), series: 0 }
    }

    fn step(&mut self) -> Result<(), SealError> {
        self.series += 1;
        if !self.series.is_multiple_of(PACE_SERIES) {
            return Ok(());
        }
        let worked = self.store.clock.monotonic().saturating_sub(self.since);
        let (state, wake) = &self.store.background;
        let mut state = state.lock();
        if self.urgency == Urgency::Background {
            let goes_on = |state: &mut Background| !state.is_stopped && state.waiting == 0;
            let _ = wake.wait_while_for(&mut state, goes_on, worked);
        }
        if state.is_stopped {
            return Err(SealError::Closing);
        }
        drop(state);
        self.since = self.store.clock.monotonic();
        Ok(())
    }
}

/// What a window is written from.
struct Sources<'a> {
    inputs: &'a [Arc<OpenSegment>],
    /// What retention lets go of each of them.
    expired: &'a [Vec<Hidden>],
    window: TimeRange,
}

impl Sources<'_> {
    /// Adds the samples of one series of an input, and tells which cannot be read: their times, and
    /// where the damage is.
    fn read(
        &self,
        (input, ordinal): (usize, u32),
        columns: &TimestampColumns,
        parts: &mut Parts,
        mut lose: impl FnMut(TimeRange, u64),
    ) -> Result<(), QueryError> {
        let own = &self.inputs[input];
        let hidden = own.hidden.iter().chain(&self.expired[input]);
        for range in visible(self.window, ordinal, hidden) {
            for chunk in own.segment.chunks(ordinal, range)? {
                match columns.read_chunk(input as u32, &own.segment, &chunk, range, parts) {
                    Err(QueryError::Corrupt { offset_bytes, .. })
                        if own.segment.damage().is_none() =>
                    {
                        let min_ms = range.min_ms.max(chunk.first_ms);
                        let max_ms = range.max_ms.min(chunk.last_ms);
                        lose(TimeRange { min_ms, max_ms }, offset_bytes);
                    }
                    read => read?,
                }
            }
        }
        Ok(())
    }
}

/// The next series of one input.
struct Head {
    labels: Labels,
    fingerprint: u128,
    input: usize,
    ordinal: u32,
}

impl Head {
    fn key(&self) -> (&str, &Labels, usize) {
        (self.labels.name(), &self.labels, self.input)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    /// The heap gives its greatest first: that is the first series here.
    fn cmp(&self, other: &Self) -> Order {
        other.key().cmp(&self.key())
    }
}

/// The series of several segments in the order of one.
struct Heads<'a> {
    inputs: &'a [Arc<OpenSegment>],
    heap: BinaryHeap<Head>,
}

impl<'a> Heads<'a> {
    fn new(inputs: &'a [Arc<OpenSegment>], window: TimeRange) -> Result<Self, QueryError> {
        let mut heads = Self { inputs, heap: BinaryHeap::new() };
        for (input, own) in inputs.iter().enumerate() {
            if own.segment.time_range().overlaps(window) {
                heads.push(input, 0)?;
            }
        }
        Ok(heads)
    }

    fn push(&mut self, input: usize, ordinal: u32) -> Result<(), QueryError> {
        let segment = &self.inputs[input].segment;
        if ordinal < segment.series_count() {
            let (labels, fingerprint) = (segment.labels(ordinal)?, segment.fingerprint(ordinal)?);
            self.heap.push(Head { labels, fingerprint, input, ordinal });
        }
        Ok(())
    }

    /// The next series, and where it is: inputs, in their order, and ordinals.
    fn next(
        &mut self,
        sources: &mut Vec<(usize, u32)>,
    ) -> Result<Option<(u128, Labels)>, QueryError> {
        sources.clear();
        let Some(first) = self.heap.pop() else { return Ok(None) };
        sources.push((first.input, first.ordinal));
        self.push(first.input, first.ordinal + 1)?;
        while let Some(head) = self.heap.peek()
            && head.labels == first.labels
        {
            let (input, ordinal) = (head.input, head.ordinal);
            self.heap.pop();
            sources.push((input, ordinal));
            self.push(input, ordinal + 1)?;
        }
        Ok(Some((first.fingerprint, first.labels)))
    }
}
