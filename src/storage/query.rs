//! Answering queries: which series, then their samples block by block.
//!
//! A query sees the commits that were published when it began, all or nothing of each: it holds a
//! version and how long the open log file was. The order in [`Store::snapshot`] matters: first the
//! length, then the registry, then the version; so every series of a visible commit is in the
//! registry, and what is no longer in the registry is in a segment of the version.

mod columns;
mod find;
mod gather;
mod labels;
pub mod log_reader;
pub mod merge;
mod order;
pub mod segment_reader;
mod selections;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::delete::visible;
use super::log::file::LogFile;
use super::registry::{Registry, SeriesRef};
use super::select::{
    BLOCK_SERIES_MAX, BlockSource, ColumnBlock, Pairs, QueryError, SelectHints, Selection,
    SeriesColumns,
};
use super::store::Store;
use super::version::{OpenSegment, Version};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use columns::{LogColumns, LogView, Places};
use find::{HeadSeries, find};
use gather::{Gathering, Joined, Joining};
use merge::{Parts, Sharing};
use segment_reader::{Allocations, Sealed, SealedReader, TimestampColumns};
use selections::{Found, Key, Selections};

/// Columns of log files that are kept for later queries.
const COLUMNS_BYTES_MAX: usize = 128 << 20;
/// Selections that are kept for later queries.
const SELECTIONS_BYTES_MAX: usize = 64 << 20;
/// Columns of log files that a query reads at a time where they are not kept: each pass over the
/// rows should serve many series.
const AHEAD_BYTES_MAX: usize = 16 << 20;
/// Threads of one query that read ahead without being in each other's way.
const AHEAD_MAX: usize = 4;

/// What queries leave for later ones.
pub struct Kept {
    columns: Arc<LogColumns>,
    selections: Selections,
    /// The oldest log file when last looked: what was older has been sealed.
    oldest_log: AtomicU64,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            columns: Arc::new(LogColumns::new(COLUMNS_BYTES_MAX)),
            selections: Selections::new(SELECTIONS_BYTES_MAX),
            oldest_log: AtomicU64::new(0),
        }
    }
}

impl Kept {
    /// Drops what was kept of files that are no more.
    fn forget_sealed(&self, version: &Version) {
        let oldest = version.logs.first().map_or(0, |log| log.id());
        if self.oldest_log.fetch_max(oldest, Ordering::Relaxed) < oldest {
            self.columns.forget_before(oldest);
            self.selections.forget_before(oldest);
        }
    }
}

/// What one query sees.
pub struct Snapshot {
    /// Files.
    pub version: Arc<Version>,
    /// The log file that was open.
    active_id: u64,
    /// How long it was.
    active_bytes: u64,
}

impl Snapshot {
    /// How much of a log file the query sees.
    pub fn limit_bytes(&self, log: &LogFile) -> u64 {
        match log.id().cmp(&self.active_id) {
            std::cmp::Ordering::Less => log.published_bytes(),
            std::cmp::Ordering::Equal => self.active_bytes,
            std::cmp::Ordering::Greater => 0,
        }
    }

    /// The visible log files that may have samples in the range, oldest first.
    fn logs(&self, range: TimeRange) -> impl Iterator<Item = &Arc<LogFile>> {
        let visible = self.version.logs.iter().filter(|log| log.id() <= self.active_id);
        visible.filter(move |log| log.directory().read().range().overlaps(range))
    }
}

impl Snapshot {
    /// The segments that may have samples in the range, with their positions in the version.
    fn segments(&self, range: TimeRange) -> impl Iterator<Item = (u32, &Arc<OpenSegment>)> {
        let all = (0..).zip(&self.version.segments);
        all.filter(move |(_, own)| own.segment.time_range().overlaps(range))
    }

    /// An error when somebody cut a segment while it was read. Log files are asked one by one.
    fn check_whole(&self, range: TimeRange) -> Result<(), QueryError> {
        self.segments(range).try_for_each(|(_, own)| own.segment.check_whole())
    }
}

struct Blocks {
    snapshot: Snapshot,
    range: TimeRange,
    found: Arc<Found>,
    /// Columns of segments.
    sealed: TimestampColumns,
    joined: Joined,
    allocations: Allocations,
    columns: Arc<LogColumns>,
    /// What is visible of log files.
    logs: Vec<LogView>,
    stride: OnceLock<Stride>,
    ahead: Mutex<Vec<Arc<Ahead>>>,
}

/// How blocks are read.
#[derive(Clone, Copy)]
struct Stride {
    /// How many series at a time.
    series: usize,
    /// Whether columns of log files are kept.
    keep: bool,
}

/// Series that were read together.
struct Ahead {
    first: usize,
    /// Nothing: not read yet.
    series: Mutex<Option<Vec<SeriesColumns>>>,
}

impl Store {
    /// Fixes what a query sees, and runs `look` on the registry as of then.
    pub fn snapshot<T>(&self, look: impl FnOnce(&Registry, &Snapshot) -> T) -> (Snapshot, T) {
        let active = self.active.load_full();
        let active_bytes = active.published_bytes();
        let registry = self.registry.read();
        let version = self.version.load_full();
        let snapshot = Snapshot { version, active_id: active.id(), active_bytes };
        let found = look(&registry, &snapshot);
        drop(registry);
        (snapshot, found)
    }

    /// See [`super::select::Select::select`].
    pub fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: &SelectHints,
    ) -> Result<Selection, QueryError> {
        let mut key = Key::new(matchers);
        let (snapshot, head) = self.snapshot(|registry, snapshot| {
            key.logs = snapshot.logs(range).map(|log| (log.id(), series_count(log))).collect();
            if !key.logs.is_empty() {
                key.head_changes = registry.index().changes();
            }
            let segments = snapshot.segments(range);
            key.segments = segments.map(|(position, own)| (position, own.entry.id)).collect();
            let known = is_kept(snapshot).then(|| self.kept.selections.get(&key)).flatten();
            known.ok_or_else(|| {
                let series = self.head_series(registry, snapshot, matchers, range);
                HeadSeries::note(registry, &series, !key.segments.is_empty())
            })
        });
        self.kept.forget_sealed(&snapshot.version);
        if !hints.labels_only {
            self.check_lost(&snapshot.version, matchers, range)?;
        }
        let found = match head {
            Ok(found) => found,
            Err(head) => {
                let found = Arc::new(find(head, &snapshot, matchers, range)?);
                snapshot.check_whole(range)?;
                if is_kept(&snapshot) {
                    self.kept.selections.put(key, &found);
                }
                found
            }
        };
        let found = if hints.labels_only { with_chunks(found, &snapshot, range)? } else { found };
        let all = found.len();
        let len = if hints.series_count_max == 0 { all } else { all.min(hints.series_count_max) };
        let memo = Arc::clone(&found.memo);
        let logs = snapshot.logs(range);
        let view =
            |log: &Arc<LogFile>| LogView::new(Arc::clone(log), snapshot.limit_bytes(log), range);
        let logs = logs.map(view).collect();
        let blocks = Blocks {
            snapshot,
            range,
            found,
            sealed: TimestampColumns::default(),
            joined: Joined::default(),
            allocations: Allocations::default(),
            columns: Arc::clone(&self.kept.columns),
            logs,
            stride: OnceLock::new(),
            ahead: Mutex::default(),
        };
        let selection = Selection::new(len, Box::new(blocks));
        Ok(if len == all { selection.with_memo(memo) } else { selection })
    }

    /// Series of the head that fulfil the matchers and may have samples in the range.
    fn head_series(
        &self,
        registry: &Registry,
        snapshot: &Snapshot,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> RoaringBitmap {
        let mut logs = snapshot.logs(range).map(|log| self.kept.selections.present(log));
        let Some(first) = logs.next() else { return RoaringBitmap::new() };
        let mut found = if matchers.is_empty() {
            registry.index().ids().clone()
        } else {
            registry.index().select(matchers)
        };
        match logs.next() {
            None => found &= &*first,
            Some(second) => {
                let mut present = &*first | &*second;
                logs.for_each(|more| present |= &*more);
                found &= present;
            }
        }
        let logs = snapshot.logs(range);
        let logs: Vec<_> = logs.map(|log| (log, snapshot.version.hidden_in_log(log))).collect();
        if logs.iter().all(|(_, hidden)| hidden.is_empty()) {
            return found;
        }
        let shows = |series: &u32| {
            logs.iter().any(|(log, hidden)| {
                let directory = log.directory().read();
                let mut parts = visible(range, *series, hidden.iter().copied()).into_iter();
                directory.has(*series) && parts.any(|part| part.overlaps(directory.range()))
            })
        };
        found.iter().filter(shows).collect()
    }
}

/// Whether answers may be kept: not while deletions hide parts of series.
fn is_kept(snapshot: &Snapshot) -> bool {
    snapshot.version.tombstones.is_empty()
}

/// Grows with each series that a log file has the first samples of.
fn series_count(log: &LogFile) -> u64 {
    log.directory().read().chunk_count()
}

/// Only series of the head, and those that have a chunk in the range.
fn with_chunks(
    found: Arc<Found>,
    snapshot: &Snapshot,
    range: TimeRange,
) -> Result<Arc<Found>, QueryError> {
    let is_covered = |own: &OpenSegment| {
        let own = own.segment.time_range();
        range.min_ms <= own.min_ms && own.max_ms <= range.max_ms
    };
    if snapshot.segments(range).all(|(_, own)| is_covered(own)) {
        return Ok(found);
    }
    let mut with_samples = Vec::new();
    for at in 0..found.len() {
        let mut has_samples = found.located().head(at).is_some();
        for (position, ordinal) in found.located().segments(at) {
            let own = &snapshot.version.segments[*position as usize];
            has_samples =
                has_samples || is_covered(own) || !own.segment.chunks(*ordinal, range)?.is_empty();
        }
        if has_samples {
            with_samples.push(at as u32);
        }
    }
    snapshot.check_whole(range)?;
    Ok(Arc::new(found.of(&with_samples)))
}

impl BlockSource for Blocks {
    fn pairs(&self, ordinal: u32) -> Result<Pairs<'_>, QueryError> {
        self.found.pairs(ordinal as usize, &self.snapshot.version)
    }

    fn block_labels(&self, first: u32, count: usize) -> Result<Arc<[Labels]>, QueryError> {
        let first = first as usize;
        self.found.block_labels(first..first + count, &self.snapshot.version)
    }

    fn block(&self, first: u32, count: usize) -> Result<ColumnBlock, QueryError> {
        let (start, end) = (first as usize, first as usize + count);
        let stride = self.stride();
        let own = start / stride * stride;
        if stride == BLOCK_SERIES_MAX || own + stride < end {
            return Ok(ColumnBlock { series: self.load(start, end)? });
        }
        let ahead = self.ahead(own);
        let mut series = ahead.series.lock();
        let until = self.found.len().min(own + stride);
        let all = match &mut *series {
            Some(all) => all,
            none => none.insert(self.load(own, until)?),
        };
        let block = ColumnBlock { series: all[start - own..end - own].to_vec() };
        if end == until {
            // One thread pulls them in order, so this was the last of them.
            self.ahead.lock().retain(|other| other.first != own);
        }
        Ok(block)
    }

    fn stride(&self) -> usize {
        self.strides().series
    }
}

impl Blocks {
    fn strides(&self) -> Stride {
        *self.stride.get_or_init(|| self.find_stride())
    }

    /// The series from `first` on that are read together.
    fn ahead(&self, first: usize) -> Arc<Ahead> {
        let mut all = self.ahead.lock();
        if let Some(found) = all.iter().find(|own| own.first == first) {
            return Arc::clone(found);
        }
        if all.len() == AHEAD_MAX {
            all.remove(0);
        }
        let new = Arc::new(Ahead { first, series: Mutex::new(None) });
        all.push(Arc::clone(&new));
        new
    }

    fn find_stride(&self) -> Stride {
        let rows = |view: &LogView| {
            let directory = view.log().directory().read();
            let groups = (0..).map_while(|group| directory.group(group));
            groups.map(|group| group.rows.len()).max().unwrap_or(0)
        };
        let rows: usize = self.logs.iter().map(rows).sum();
        if rows == 0 || self.columns.has_room(rows, self.found.len()) {
            self.prepare();
            return Stride { series: BLOCK_SERIES_MAX, keep: true };
        }
        let count = AHEAD_BYTES_MAX / LogColumns::series_bytes(rows);
        let series = (count / BLOCK_SERIES_MAX).max(1) * BLOCK_SERIES_MAX;
        Stride { series, keep: false }
    }

    /// Goes through the rows of log files once for all blocks.
    fn prepare(&self) {
        let count = self.found.len();
        if count <= BLOCK_SERIES_MAX {
            return;
        }
        for view in &self.logs {
            // Once, when the first query of a selection comes.
            if self.found.is_prepared(view.log().id(), view.limit_bytes()) {
                continue;
            }
            let places = Places::find(view.log(), &self.head_of(0, count));
            // What goes wrong here goes wrong again where the columns are read.
            let _ = self.columns.prepare(view, &places);
        }
    }

    /// The series of the head among some of the selection, by position among those.
    fn head_of(&self, start: usize, end: usize) -> Vec<(usize, SeriesRef)> {
        let located = self.found.located();
        (start..end).filter_map(|at| Some((at - start, located.head(at)?))).collect()
    }

    fn load(&self, start: usize, end: usize) -> Result<Vec<SeriesColumns>, QueryError> {
        let mut all: Vec<Gathering> = (start..end).map(|_| Gathering::Nothing).collect();
        let segments = &self.snapshot.version.segments;
        let (columns, allocations) = (&self.sealed, &self.allocations);
        let mut reader = SealedReader::new(columns, allocations, segments, self.range);
        for (number, target) in all.iter_mut().enumerate() {
            let places = self.found.located().segments(start + number);
            if reader.read(number, places)? == Sealed::Piecemeal {
                self.load_piecemeal(places, target.parts())?;
            }
        }
        for (number, piece) in reader.finish() {
            all[number].push(piece);
        }
        for view in &self.logs {
            self.load_log(view, start..end, &mut all)?;
        }
        self.snapshot.check_whole(self.range)?;
        let mut joining = Joining::new(&self.joined);
        for own in &mut all {
            own.join(&mut joining);
        }
        let mut sharing = Sharing::default();
        // What is merged shares the timestamps of what is not.
        if all.iter().any(|own| matches!(own, Gathering::Several(_))) {
            for own in &mut all {
                own.share(&mut sharing);
            }
        }
        Ok(all.into_iter().map(|own| own.finish(&mut sharing)).collect())
    }

    fn load_piecemeal(&self, places: &[(u32, u32)], parts: &mut Parts) -> Result<(), QueryError> {
        for (segment, ordinal) in places {
            let own = &self.snapshot.version.segments[*segment as usize];
            for range in own.visible(self.range, *ordinal) {
                self.sealed.read(*segment, &own.segment, *ordinal, range, parts)?;
            }
        }
        Ok(())
    }

    fn load_log(
        &self,
        view: &LogView,
        series: Range<usize>,
        all: &mut [Gathering],
    ) -> Result<(), QueryError> {
        let log = view.log();
        let hidden = self.snapshot.version.hidden_in_log(log);
        let find = || Places::find(log, &self.head_of(series.start, series.end));
        let (places, partly) = if hidden.is_empty() {
            (self.found.places(log.id(), &series, find), Vec::new())
        } else {
            let is_whole = |own: &(usize, SeriesRef)| {
                !hidden.iter().any(|hidden| hidden.series.contains(own.1))
            };
            let head = self.head_of(series.start, series.end);
            let (whole, partly): (Vec<_>, Vec<_>) = head.into_iter().partition(is_whole);
            (Arc::new(Places::find(log, &whole)), partly)
        };
        self.columns.read(view, &places, self.strides().keep, &mut |at, piece| {
            all[at].push(piece);
        })?;
        let others: Vec<_> = places.others().iter().copied().chain(partly).collect();
        for some in others.chunks(BLOCK_SERIES_MAX) {
            let wanted: Vec<_> = (0..).zip(some).map(|(at, (_, series))| (at, *series)).collect();
            let mut parts: Vec<_> =
                some.iter().map(|(at, _)| std::mem::take(all[*at].parts())).collect();
            let limit_bytes = view.limit_bytes();
            log_reader::read_visible(log, limit_bytes, &wanted, self.range, &hidden, &mut parts)?;
            for ((at, _), parts) in some.iter().zip(parts) {
                all[*at] = Gathering::Several(parts);
            }
        }
        Ok(())
    }
}
