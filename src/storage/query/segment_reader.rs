//! Samples of series from segments.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::merge::{Parts, Times, Values};
use crate::model::sample::TimeRange;
use crate::storage::segment::{ChunkKind, Segment, TimestampsId};
use crate::storage::select::QueryError;

/// Rows of decoded timestamp columns that are kept: each is asked for by every series of a group.
const KEPT_ROWS_MAX: usize = 1 << 20;

#[derive(Default)]
struct Columns {
    by_id: HashMap<(u32, TimestampsId), Arc<[i64]>, foldhash::fast::RandomState>,
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
            let whole = self.get(position, segment, chunk.timestamps)?;
            let times = segment.chunk_timestamps(&chunk, &whole)?;
            let mut values: Values = match chunk.kind {
                ChunkKind::Floats => segment.decode_values(&chunk)?.into(),
                ChunkKind::Histograms => segment.decode_histograms(&chunk)?.into(),
            };
            if range.contains(chunk.first_ms) && range.contains(chunk.last_ms) {
                parts.push(Times::Shared(times), values);
                continue;
            }
            let start = times.partition_point(|ms| *ms < range.min_ms);
            let end = times.partition_point(|ms| *ms <= range.max_ms);
            values.keep(start..end);
            parts.push(Times::Own(times[start..end].to_vec()), values);
        }
        Ok(())
    }
}
