//! Samples of series from segments.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::columns::Piece;
use super::merge::{Parts, Times, Values};
use crate::model::sample::TimeRange;
use crate::storage::segment::{ChunkKind, ChunkRef, Segment, TimestampsId};
use crate::storage::select::{QueryError, Slice};

/// Rows of decoded timestamp columns that are kept: each is asked for by every series of a group.
const KEPT_ROWS_MAX: usize = 1 << 20;

/// Part of a timestamp column: position of the segment, column, first row, row after the last.
type Cut = (u32, TimestampsId, usize, usize);

#[derive(Default)]
struct Columns {
    by_id: HashMap<(u32, TimestampsId), Arc<[i64]>, foldhash::fast::RandomState>,
    cuts: HashMap<Cut, Arc<[i64]>, foldhash::fast::RandomState>,
    row_count: usize,
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
        if kept.row_count + column.len() > KEPT_ROWS_MAX {
            *kept = Columns::default();
        }
        kept.row_count += column.len();
        kept.by_id.insert((position, id), Arc::clone(&column));
        Ok(column)
    }

    /// Some rows of a column; the same slice for all that ask.
    fn cut(&self, key: Cut, whole: &[i64]) -> Arc<[i64]> {
        let mut kept = self.0.lock();
        if let Some(cut) = kept.cuts.get(&key) {
            return Arc::clone(cut);
        }
        let cut: Arc<[i64]> = whole[key.2..key.3].into();
        if kept.row_count + cut.len() > KEPT_ROWS_MAX {
            *kept = Columns::default();
        }
        kept.row_count += cut.len();
        kept.cuts.insert(key, Arc::clone(&cut));
        cut
    }

    /// The samples of a series that lie in the range, when they are floats of one chunk without
    /// start timestamps.
    pub fn piece(
        &self,
        position: u32,
        segment: &Segment,
        ordinal: u32,
        range: TimeRange,
    ) -> Result<Option<Piece>, QueryError> {
        let chunks = segment.chunks(ordinal, range)?;
        let [chunk] = chunks.as_slice() else { return Ok(None) };
        if chunk.kind != ChunkKind::Floats || segment.has_starts(chunk)? {
            return Ok(None);
        }
        let whole = self.get(position, segment, chunk.timestamps)?;
        let times = segment.chunk_timestamps(chunk, &whole)?;
        let mut rows = 0..times.len();
        let mut shown = Arc::clone(&times);
        if !range.contains(chunk.first_ms) || !range.contains(chunk.last_ms) {
            let start = times.partition_point(|ms| *ms < range.min_ms);
            let end = times.partition_point(|ms| *ms <= range.max_ms);
            if start == end {
                return Ok(None);
            }
            rows = start..end;
            shown = if Arc::ptr_eq(&times, &whole) {
                self.cut((position, chunk.timestamps, start, end), &whole)
            } else {
                times[start..end].into()
            };
        }
        let mut values = vec![0.0; chunk.count as usize];
        segment.decode_values_into(chunk, &mut values)?;
        let values = Slice::new(Arc::new(values), rows);
        Ok(Some(Piece { times: shown, values, stale: None }))
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
