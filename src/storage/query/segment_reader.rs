//! Samples of series from segments.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::columns::Piece;
use super::merge::{Parts, Times, Values};
use crate::model::sample::TimeRange;
use crate::storage::segment::{ChunkKind, ChunkRef, Segment, TimestampsId, TimestampsSummary};
use crate::storage::select::{QueryError, Slice};
use crate::storage::version::OpenSegment;

/// Rows of decoded timestamp columns that are kept: each is asked for by every series of a group.
const KEPT_ROWS_MAX: usize = 1 << 20;

/// Neighbouring rows of a timestamp column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rows {
    /// Position of the segment.
    segment: u32,
    column: TimestampsId,
    first: u64,
    end: u64,
}

/// What several series have of several columns, one after the other.
type Sequence = SmallVec<[Rows; 4]>;

/// The timestamps of a sequence that lie in the range of the query.
#[derive(Clone)]
struct Shown {
    times: Arc<[i64]>,
    /// Rows before those.
    skipped: usize,
    /// Rows of the sequence.
    all: usize,
}

#[derive(Default)]
struct Columns {
    by_id: HashMap<(u32, TimestampsId), Arc<[i64]>, foldhash::fast::RandomState>,
    by_sequence: HashMap<Sequence, Shown, foldhash::fast::RandomState>,
    row_count: usize,
}

impl Columns {
    /// Makes room for more rows.
    fn count(&mut self, rows: usize) {
        if KEPT_ROWS_MAX < self.row_count + rows {
            *self = Self::default();
        }
        self.row_count += rows;
    }
}

/// Timestamp columns of one query, by position of the segment.
#[derive(Default)]
pub struct TimestampColumns(Mutex<Columns>);

impl TimestampColumns {
    fn get(
        &self,
        position: u32,
        segment: &Segment,
        id: TimestampsId,
    ) -> Result<Arc<[i64]>, QueryError> {
        if let Some(column) = self.0.lock().by_id.get(&(position, id)) {
            return Ok(Arc::clone(column));
        }
        let column = segment.decode_timestamps(id)?;
        let mut kept = self.0.lock();
        kept.count(column.len());
        kept.by_id.insert((position, id), Arc::clone(&column));
        Ok(column)
    }

    /// Adds the samples of a series that lie in the range.
    pub fn read(
        &self,
        position: u32,
        segment: &Segment,
        ordinal: u32,
        range: TimeRange,
        parts: &mut Parts,
    ) -> Result<(), QueryError> {
        for chunk in segment.chunks(ordinal, range)? {
            self.read_chunk(position, segment, &chunk, range, parts)?;
        }
        Ok(())
    }

    /// Adds the samples of a chunk that lie in the range; none when there is an error.
    pub fn read_chunk(
        &self,
        position: u32,
        segment: &Segment,
        chunk: &ChunkRef,
        range: TimeRange,
        parts: &mut Parts,
    ) -> Result<(), QueryError> {
        let whole = self.get(position, segment, chunk.timestamps)?;
        let times = segment.chunk_timestamps(chunk, &whole)?;
        let mut values: Values = match chunk.kind {
            ChunkKind::Floats => segment.decode_values(chunk)?.into(),
            ChunkKind::Histograms => segment.decode_histograms(chunk)?.into(),
        };
        let starts = segment.decode_starts(chunk)?;
        if range.contains(chunk.first_ms) && range.contains(chunk.last_ms) {
            parts.push_started(Times::Shared(times), values, starts.map(Into::into));
            return Ok(());
        }
        let start = times.partition_point(|ms| *ms < range.min_ms);
        let end = times.partition_point(|ms| *ms <= range.max_ms);
        values.keep(start..end);
        let starts = starts.map(|starts| starts[start..end].into());
        parts.push_started(Times::Own(times[start..end].to_vec()), values, starts);
        Ok(())
    }
}

/// So many summaries of timestamp columns are remembered.
const SUMMARIES: usize = 16;

/// What was known of timestamp columns, by position of the segment: the series of a group have the
/// same ones.
#[derive(Default)]
struct Summaries([Option<(u32, TimestampsId, TimestampsSummary)>; SUMMARIES]);

impl Summaries {
    #[inline]
    fn get(
        &mut self,
        position: u32,
        segment: &Segment,
        id: TimestampsId,
    ) -> Result<TimestampsSummary, QueryError> {
        let at = position.wrapping_mul(5).wrapping_add(id.index());
        let slot = &mut self.0[at as usize % SUMMARIES];
        match *slot {
            Some((known, column, summary)) if (known, column) == (position, id) => Ok(summary),
            _ => {
                let summary = segment.timestamps_summary(id)?;
                *slot = Some((position, id, summary));
                Ok(summary)
            }
        }
    }
}

/// Values that lie in one allocation, unless one series has more.
const SHARED_VALUES_MAX: usize = 1 << 18;
/// Allocations that are kept until nobody uses them any more.
const ALLOCATIONS_MAX: usize = 8;

/// Allocations of values that a query uses again and again.
#[derive(Default)]
pub struct Allocations(Mutex<Vec<Arc<Vec<f64>>>>);

impl Allocations {
    /// One that nobody uses any more, or none; with anything in it.
    fn take(&self) -> Vec<f64> {
        let mut all = self.0.lock();
        let unused = all.iter().position(|own| Arc::strong_count(own) == 1);
        let unused = unused.map(|at| all.swap_remove(at));
        unused.and_then(|own| Arc::try_unwrap(own).ok()).unwrap_or_default()
    }

    /// Shares one, and takes it back when it is not used any more.
    fn share(&self, values: Vec<f64>) -> Arc<Vec<f64>> {
        let shared = Arc::new(values);
        let mut all = self.0.lock();
        if all.len() < ALLOCATIONS_MAX && shared.len() <= SHARED_VALUES_MAX {
            all.push(Arc::clone(&shared));
        }
        shared
    }
}

/// What [`SealedReader::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Nothing, or samples that [`SealedReader::finish`] gives.
    Read,
    /// They have to be read chunk by chunk and merged.
    Piecemeal,
}

/// Reads series one after the other, which mostly have the same timestamps.
pub struct SealedReader<'r> {
    columns: &'r TimestampColumns,
    allocations: &'r Allocations,
    segments: &'r [Arc<OpenSegment>],
    /// The same for all readers of these columns.
    range: TimeRange,
    summaries: Summaries,
    /// Of the series that is read.
    chunks: Vec<ChunkRef>,
    /// Of each of them.
    rows: Sequence,
    last: Option<(Sequence, Shown)>,
    /// Of the series since the last allocation was full.
    values: Vec<f64>,
    used: usize,
    waiting: Vec<(usize, Arc<[i64]>, Range<usize>)>,
    pieces: Vec<(usize, Piece)>,
}

impl<'r> SealedReader<'r> {
    /// Of the segments of a version.
    pub fn new(
        columns: &'r TimestampColumns,
        allocations: &'r Allocations,
        segments: &'r [Arc<OpenSegment>],
        range: TimeRange,
    ) -> Self {
        Self {
            columns,
            allocations,
            segments,
            range,
            summaries: Summaries::default(),
            chunks: Vec::new(),
            rows: Sequence::new(),
            last: None,
            values: Vec::new(),
            used: 0,
            waiting: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// Reads the samples of a series (positions of segments and ordinals in them) within the range,
    /// when they are floats without start timestamps, of which nothing is hidden, in chunks that
    /// follow each other.
    pub fn read(&mut self, number: usize, places: &[(u32, u32)]) -> Result<Sealed, QueryError> {
        if !self.find_chunks(places)? {
            return Ok(Sealed::Piecemeal);
        }
        if self.chunks.is_empty() {
            return Ok(Sealed::Read);
        }
        let Some(shown) = self.shown()? else { return Ok(Sealed::Piecemeal) };
        if shown.times.is_empty() {
            return Ok(Sealed::Read);
        }
        if 0 < self.used && SHARED_VALUES_MAX < self.used + shown.all {
            self.share();
        }
        let start = self.used;
        let end = start + shown.all;
        if self.values.is_empty() {
            self.values = self.allocations.take();
        }
        if self.values.len() < end {
            self.values.resize(end, 0.0);
        }
        let mut rest = &mut self.values[start..end];
        for (rows, chunk) in self.rows.iter().zip(&self.chunks) {
            let (own, behind) = rest.split_at_mut(chunk.count as usize);
            let segment = &self.segments[rows.segment as usize].segment;
            segment.decode_values_into(chunk, own)?;
            rest = behind;
        }
        self.used = end;
        let first = start + shown.skipped;
        let rows = first..first + shown.times.len();
        self.waiting.push((number, shown.times, rows));
        Ok(Sealed::Read)
    }

    /// The samples of all series that have any, with their numbers.
    pub fn finish(mut self) -> Vec<(usize, Piece)> {
        self.share();
        self.pieces
    }

    fn share(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.used = 0;
        if values.is_empty() {
            return;
        }
        let values = self.allocations.share(values);
        let piece = |(number, times, rows)| {
            (number, Piece { times, values: Slice::new(values.clone(), rows), stale: None })
        };
        self.pieces.extend(self.waiting.drain(..).map(piece));
    }

    /// Finds the chunks that overlap the range; whether they are such as [`Self::read`] joins.
    fn find_chunks(&mut self, places: &[(u32, u32)]) -> Result<bool, QueryError> {
        self.chunks.clear();
        self.rows.clear();
        for (position, ordinal) in places {
            let own = &self.segments[*position as usize];
            if !own.hidden.is_empty() {
                return Ok(false);
            }
            let known = self.chunks.len();
            let summary = |id| self.summaries.get(*position, &own.segment, id);
            let take = |chunk| self.chunks.push(chunk);
            own.segment.each_chunk(*ordinal, self.range, summary, take)?;
            for chunk in &self.chunks[known..] {
                let Some(rows) = chunk.rows() else { return Ok(false) };
                if chunk.kind != ChunkKind::Floats || own.segment.has_starts(chunk)? {
                    return Ok(false);
                }
                let (column, first, end) = (chunk.timestamps, rows.start, rows.end);
                self.rows.push(Rows { segment: *position, column, first, end });
            }
        }
        Ok(self.chunks.is_sorted_by(|before, after| before.last_ms < after.first_ms))
    }

    /// The timestamps of the chunks; `None`: they do not ascend.
    fn shown(&mut self) -> Result<Option<Shown>, QueryError> {
        if let Some((rows, shown)) = &self.last
            && *rows == self.rows
        {
            return Ok(Some(shown.clone()));
        }
        let known = self.columns.0.lock().by_sequence.get(&self.rows).cloned();
        let shown = match known {
            Some(known) => known,
            None => {
                let Some(shown) = self.join()? else { return Ok(None) };
                let mut kept = self.columns.0.lock();
                kept.count(shown.times.len());
                kept.by_sequence.insert(self.rows.clone(), shown.clone());
                shown
            }
        };
        self.last = Some((self.rows.clone(), shown.clone()));
        Ok(Some(shown))
    }

    fn join(&self) -> Result<Option<Shown>, QueryError> {
        let mut slices: SmallVec<[Arc<[i64]>; 4]> = SmallVec::new();
        for (rows, chunk) in self.rows.iter().zip(&self.chunks) {
            let segment = &self.segments[rows.segment as usize].segment;
            let whole = self.columns.get(rows.segment, segment, chunk.timestamps)?;
            slices.push(segment.chunk_timestamps(chunk, &whole)?);
        }
        let times: Arc<[i64]> = match slices.as_slice() {
            [alone] => Arc::clone(alone),
            all => all.iter().flat_map(|slice| slice.iter().copied()).collect(),
        };
        if !times.is_sorted_by(|a, b| a < b) {
            return Ok(None);
        }
        let all = times.len();
        let start = times.partition_point(|ms| *ms < self.range.min_ms);
        let end = times.partition_point(|ms| *ms <= self.range.max_ms).max(start);
        let times = if end - start == all { times } else { times[start..end].into() };
        Ok(Some(Shown { times, skipped: start, all }))
    }
}
