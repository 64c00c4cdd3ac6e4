//! Writes a segment from front to back.
//!
//! Columns go to the file as they come; what is kept until the end is a few dozen bytes per chunk
//! and per timestamp column, and the labels of the series. Readers profit when chunks of one metric
//! are written side by side.

use std::hash::BuildHasher as _;
use std::io;
use std::path::Path;
use std::sync::Arc;

use smallvec::SmallVec;

use super::format::{Entry, HEADER_BYTES, HEADER_MAGIC, Section, VERSION};
use super::{SegmentInfo, SequenceRange, TimestampsId};
use crate::base::disk::Disk;
use crate::encoding::column::histogram::{encode_histograms, rows_that_fit};
use crate::encoding::column::{
    CHUNK_ROWS_MAX, Density, encode_starts, encode_timestamps, encode_values_as,
};
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::storage::fingerprint::HashKey;
use crate::storage::select::{Column, Run};

mod sections;

use sections::{Pages, Sections};

type HashMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

/// Chunks up to this length are written once, however many series have the same bytes.
const SHARED_BYTES_MAX: usize = 16;
/// Different short chunks that are remembered.
const SHARED_CHUNKS_MAX: usize = 16 << 10;

/// A series as the whole store knows it.
#[derive(Clone, Copy, Debug)]
pub struct SeriesIdentity<'a> {
    /// Keyed hash of the labels; one series has one, and no two have the same.
    pub fingerprint: u128,
    /// Its labels.
    pub labels: &'a Labels,
}

/// Which rows of a timestamp column have a value.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// All.
    All,
    /// Row `r` has one if bit `r % 64` of word `r / 64` is set. Bits behind the last row are zero.
    Mask(&'a [u64]),
}

/// A segment that is being written. Dropping it leaves an unfinished file.
pub struct SegmentWriter {
    pages: Pages,
    density: Density,
    timestamps: Vec<TimestampsMeta>,
    /// By a keyed hash, so that nobody can choose timestamps for which another column is taken.
    timestamps_ids: HashMap<u128, u32>,
    timestamps_key: HashKey,
    /// The column that was begun last, and its number.
    column: (Vec<i64>, u32),
    series: Vec<(u128, Labels)>,
    series_ids: HashMap<u128, u32>,
    chunks: Vec<ChunkMeta>,
    short_chunks: HashMap<SmallVec<[u8; SHARED_BYTES_MAX]>, u64>,
    scratch: Vec<u8>,
    sample_count: u64,
    min_ms: i64,
    max_ms: i64,
}

struct TimestampsMeta {
    first_ms: i64,
    last_ms: i64,
    offset: u64,
    length: u32,
    count: u32,
}

struct ChunkMeta {
    /// Position in the writer's list of series; the ordinal once that is known.
    series: u32,
    timestamps: u32,
    offset: u64,
    length: u32,
    part: Option<Box<Part>>,
    is_histograms: bool,
    /// Bytes of its start timestamps; 0: it has none.
    starts_length: u32,
    starts_offset: u64,
}

/// Which rows a chunk has that has not all.
struct Part {
    first_row: u32,
    last_row: u32,
    count: u32,
    first_ms: i64,
    last_ms: i64,
}

impl SegmentWriter {
    /// Creates the file; its name is durable when this returns.
    pub fn create(disk: &dyn Disk, path: &Path, density: Density) -> io::Result<Self> {
        let file = disk.create(path)?;
        disk.sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let mut pages = Pages::new(file);
        pages.push(&HEADER_MAGIC)?;
        pages.push(&VERSION.to_le_bytes())?;
        pages.push(&[0; 4])?;
        let random = foldhash::fast::RandomState::default();
        Ok(Self {
            pages,
            density,
            timestamps: Vec::new(),
            timestamps_ids: HashMap::default(),
            timestamps_key: HashKey(random.hash_one(0_u64), random.hash_one(1_u64)),
            column: (Vec::new(), 0),
            series: Vec::new(),
            series_ids: HashMap::default(),
            chunks: Vec::new(),
            short_chunks: HashMap::default(),
            scratch: Vec::new(),
            sample_count: 0,
            min_ms: i64::MAX,
            max_ms: i64::MIN,
        })
    }

    /// Adds a timestamp column: strictly ascending, not empty, at most [`CHUNK_ROWS_MAX`] rows.
    /// The same column again gives the same id. Chunks with all rows may refer to it until the end,
    /// others until the next one is begun.
    pub fn begin_timestamps(&mut self, timestamps_ms: &[i64]) -> io::Result<TimestampsId> {
        assert!(!timestamps_ms.is_empty() && timestamps_ms.len() <= CHUNK_ROWS_MAX);
        assert!(timestamps_ms.is_sorted_by(|a, b| a < b), "timestamps ascend");
        let (column, id) = &mut self.column;
        if *column == timestamps_ms {
            return Ok(TimestampsId(*id));
        }
        column.clear();
        column.extend_from_slice(timestamps_ms);
        self.scratch.clear();
        self.scratch.extend(timestamps_ms.iter().flat_map(|ms| ms.to_le_bytes()));
        let hash = self.timestamps_key.fingerprint(&self.scratch);
        let next = self.timestamps.len() as u32;
        *id = *self.timestamps_ids.entry(hash).or_insert(next);
        if *id != next {
            return Ok(TimestampsId(*id));
        }
        self.scratch.clear();
        encode_timestamps(timestamps_ms, &mut self.scratch);
        self.timestamps.push(TimestampsMeta {
            first_ms: timestamps_ms[0],
            last_ms: timestamps_ms[timestamps_ms.len() - 1],
            offset: self.pages.position() - HEADER_BYTES as u64,
            length: length_of(&self.scratch)?,
            count: timestamps_ms.len() as u32,
        });
        self.pages.push(&self.scratch)?;
        Ok(TimestampsId(next))
    }

    /// Adds samples of one series. There is one value for each row that has one. Of two chunks of
    /// a series the one written first comes first when they are read.
    pub fn chunk(
        &mut self,
        series: SeriesIdentity<'_>,
        timestamps: TimestampsId,
        rows: Rows<'_>,
        values: &[f64],
    ) -> io::Result<()> {
        let Some((part, count)) = self.begin_chunk(timestamps, rows) else {
            assert!(values.is_empty(), "a value for each row of the mask");
            return Ok(());
        };
        assert_eq!(values.len(), count, "a value for each row");
        encode_values_as(values, self.density, &mut self.scratch);
        self.end_chunk(series, timestamps, part, false)
    }

    /// Adds native histograms of one series, likewise. They must fit: see [`rows_that_fit`].
    pub fn histogram_chunk(
        &mut self,
        series: SeriesIdentity<'_>,
        timestamps: TimestampsId,
        rows: Rows<'_>,
        values: &[Arc<Histogram>],
    ) -> io::Result<()> {
        let Some((part, count)) = self.begin_chunk(timestamps, rows) else {
            assert!(values.is_empty(), "a value for each row of the mask");
            return Ok(());
        };
        assert_eq!(values.len(), count, "a value for each row");
        encode_histograms(values, self.density, &mut self.scratch);
        self.end_chunk(series, timestamps, part, true)
    }

    /// Says when the counting began that each sample of the last chunk tells of; 0: not known.
    pub fn starts(&mut self, starts_ms: &[i64]) -> io::Result<()> {
        if starts_ms.iter().all(|start_ms| *start_ms == 0) {
            return Ok(());
        }
        let Some(last) = self.chunks.last() else { return Ok(()) };
        let rows = self.timestamps[last.timestamps as usize].count as usize;
        let count = last.part.as_ref().map_or(rows, |part| part.count as usize);
        assert_eq!(starts_ms.len(), count, "a start for each sample");
        self.scratch.clear();
        encode_starts(starts_ms, &mut self.scratch);
        let (starts_length, starts_offset) = (length_of(&self.scratch)?, self.place()?);
        if let Some(last) = self.chunks.last_mut() {
            (last.starts_length, last.starts_offset) = (starts_length, starts_offset);
        }
        Ok(())
    }

    /// Adds a run of samples of either kind, in as many chunks as it takes.
    pub fn run(&mut self, series: SeriesIdentity<'_>, run: &Run) -> io::Result<()> {
        let mut starts = run.starts_ms.as_deref().unwrap_or_default();
        let mut next_starts = |rows: usize| {
            let (head, rest) = starts.split_at(rows.min(starts.len()));
            starts = rest;
            head
        };
        match &run.values {
            Column::Floats(values) => {
                let times = run.timestamps_ms.chunks(CHUNK_ROWS_MAX);
                for (times, values) in times.zip(values.chunks(CHUNK_ROWS_MAX)) {
                    let timestamps = self.begin_timestamps(times)?;
                    self.chunk(series, timestamps, Rows::All, values)?;
                    self.starts(next_starts(values.len()))?;
                }
            }
            Column::Histograms(values) => {
                let (mut times, mut values) = (&*run.timestamps_ms, &**values);
                while !values.is_empty() {
                    let (head, rest) = values.split_at(rows_that_fit(values));
                    let (head_times, rest_times) = times.split_at(head.len());
                    let timestamps = self.begin_timestamps(head_times)?;
                    self.histogram_chunk(series, timestamps, Rows::All, head)?;
                    self.starts(next_starts(head.len()))?;
                    (times, values) = (rest_times, rest);
                }
            }
        }
        Ok(())
    }

    /// Puts the bitmap of rows into `scratch`; how many rows there are, if any.
    fn begin_chunk(
        &mut self,
        timestamps: TimestampsId,
        rows: Rows<'_>,
    ) -> Option<(Option<Box<Part>>, usize)> {
        let whole = &self.timestamps[timestamps.0 as usize];
        self.scratch.clear();
        let part = match rows {
            Rows::All => None,
            Rows::Mask(mask) => {
                if mask.iter().all(|word| *word == 0) {
                    return None;
                }
                assert_eq!(self.column.1, timestamps.0, "the column that was begun last");
                part_of(mask, &self.column.0, &mut self.scratch)
            }
        };
        let (first_ms, last_ms, count) = match &part {
            Some(part) => (part.first_ms, part.last_ms, part.count as usize),
            None => (whole.first_ms, whole.last_ms, whole.count as usize),
        };
        self.min_ms = self.min_ms.min(first_ms);
        self.max_ms = self.max_ms.max(last_ms);
        self.sample_count += count as u64;
        Some((part, count))
    }

    /// Writes what is in `scratch`.
    fn end_chunk(
        &mut self,
        series: SeriesIdentity<'_>,
        timestamps: TimestampsId,
        part: Option<Box<Part>>,
        is_histograms: bool,
    ) -> io::Result<()> {
        let series = self.series_id(series)?;
        let length = length_of(&self.scratch)?;
        let offset = self.place()?;
        let timestamps = timestamps.0;
        self.chunks.push(ChunkMeta {
            series,
            timestamps,
            offset,
            length,
            part,
            is_histograms,
            starts_length: 0,
            starts_offset: 0,
        });
        Ok(())
    }

    /// Writes the tables and waits until everything is on the device.
    pub fn finish(mut self, sequences: SequenceRange) -> io::Result<SegmentInfo> {
        let mut order: Vec<u32> = (0..self.series.len() as u32).collect();
        let key = |id: &u32| {
            let labels = &self.series[*id as usize].1;
            (labels.name(), labels)
        };
        order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        let mut ordinals = vec![0; order.len()];
        for (ordinal, id) in order.iter().enumerate() {
            ordinals[*id as usize] = ordinal as u32;
        }
        let series: Vec<_> = order.iter().map(|id| self.series[*id as usize].clone()).collect();
        for chunk in &mut self.chunks {
            chunk.series = ordinals[chunk.series as usize];
        }
        // Stable: chunks of one series stay in write order.
        self.chunks.sort_by_key(|chunk| chunk.series);

        let columns = self.pages.position() - HEADER_BYTES as u64;
        let columns_entry = Entry {
            id: Section::Columns as u32,
            width_bits: 8,
            count: columns,
            offset: HEADER_BYTES as u64,
        };
        let mut sections = Sections::new(self.pages, columns_entry);
        let base_ms = self.timestamps.iter().map(|own| own.first_ms).min().unwrap_or(0);
        let info = [
            self.min_ms as u64,
            self.max_ms as u64,
            base_ms as u64,
            self.sample_count,
            sequences.first,
            sequences.last,
        ];
        sections.integers_of_width(Section::Info, &info, 64)?;
        sections.timestamps(&self.timestamps, base_ms)?;
        sections.chunks(&self.chunks, series.len(), base_ms)?;
        sections.series(&series)?;
        let bytes = sections.finish()?;
        Ok(SegmentInfo {
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            series_count: series.len() as u32,
            chunk_count: self.chunks.len() as u64,
            sample_count: self.sample_count,
            bytes,
            sequences,
        })
    }

    /// An error when a damaged segment, which is merged, says of two series that they are one.
    fn series_id(&mut self, series: SeriesIdentity<'_>) -> io::Result<u32> {
        let next = self.series.len() as u32;
        let id = *self.series_ids.entry(series.fingerprint).or_insert(next);
        if id == next {
            self.series.push((series.fingerprint, series.labels.clone()));
        }
        if &self.series[id as usize].1 != series.labels {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "two series, one fingerprint"));
        }
        Ok(id)
    }

    /// Writes the chunk in `scratch` unless it is short and there already; where it lies.
    fn place(&mut self) -> io::Result<u64> {
        let offset = self.pages.position() - HEADER_BYTES as u64;
        if self.scratch.len() <= SHARED_BYTES_MAX {
            let bytes = SmallVec::from_slice(&self.scratch);
            if let Some(offset) = self.short_chunks.get(&bytes) {
                return Ok(*offset);
            }
            if self.short_chunks.len() < SHARED_CHUNKS_MAX {
                self.short_chunks.insert(bytes, offset);
            }
        }
        self.pages.push(&self.scratch)?;
        Ok(offset)
    }
}

/// The length of a column, which no one of ours exceeds.
fn length_of(bytes: &[u8]) -> io::Result<u32> {
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidData, "chunk of more than 4 GiB");
    u32::try_from(bytes.len()).map_err(too_long)
}

/// The rows of a mask that has at least one; `None` when it has all. Rows with gaps are put down
/// as bits from the first to the last.
fn part_of(mask: &[u64], column: &[i64], out: &mut Vec<u8>) -> Option<Box<Part>> {
    let is_set = |row: usize| mask.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1);
    let count = mask.iter().map(|word| word.count_ones()).sum::<u32>();
    if count as usize == column.len() {
        return None;
    }
    let first_row = (0..column.len()).find(|row| is_set(*row)).expect("bits within the rows");
    let last_row = (0..column.len()).rfind(|row| is_set(*row)).expect("bits within the rows");
    let span = last_row - first_row + 1;
    if span != count as usize {
        let start = out.len();
        out.resize(start + span.div_ceil(8), 0);
        for row in (0..span).filter(|row| is_set(first_row + row)) {
            out[start + row / 8] |= 1 << (row % 8);
        }
    }
    Some(Box::new(Part {
        first_row: first_row as u32,
        last_row: last_row as u32,
        count,
        first_ms: column[first_row],
        last_ms: column[last_row],
    }))
}
