//! Reads a segment through a map of its file.
//!
//! Opening checks footer and tables; every page is checked against its checksum the first time
//! something in it is read. What passes the checksums is still taken as bytes from outside: every
//! position is checked before it is used.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::format::{
    ENTRY_BYTES, Entry, FOOTER_BYTES, Footer, HEADER_BYTES, HEADER_MAGIC, INFO_COUNT, InfoField,
    PAGE_BYTES, SECTION_COUNT, SECTIONS, Section, VERSION, add_postings, word,
};
use super::{SegmentInfo, SequenceRange, TimestampsId, TimestampsSummary, UNKNOWN_VERSION};
use crate::base::disk::{Disk, Map};
use crate::encoding::column::histogram::{CELLS_MAX, decode_histograms};
use crate::encoding::column::{
    ColumnError, decode_starts, decode_timestamps, decode_values, decode_values_into,
};
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::storage::index::union::{IdSet, Union};
use crate::storage::index::{LabelIndex, matchers};
use crate::storage::select::{Pairs, QueryError};

type Result<T, E = QueryError> = std::result::Result<T, E>;

const NO_RUN: &str = "series in no run";

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    map: Map,
    /// Where the checksummed pages end.
    body_bytes: usize,
    page_crcs: Vec<u32>,
    /// A bit for each page whose checksum was found right.
    checked: Vec<AtomicU64>,
    sections: [Entry; SECTION_COUNT],
    info: SegmentInfo,
    base_ms: i64,
    /// The first damage that was found outside of columns: nothing here can be trusted.
    damage: OnceLock<Damage>,
    /// The first one within columns: chunks that need that part cannot be read, others can.
    hole: OnceLock<Damage>,
    /// Whether people were told of it.
    is_told: AtomicBool,
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    /// Where.
    pub offset_bytes: u64,
    /// What.
    pub reason: &'static str,
}

/// What the values of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// For [`Segment::decode_values`].
    Floats,
    /// For [`Segment::decode_histograms`].
    Histograms,
}

/// A run of samples of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its timestamp column.
    pub timestamps: TimestampsId,
    /// Oldest sample, inclusive.
    pub first_ms: i64,
    /// Newest sample, inclusive.
    pub last_ms: i64,
    /// Samples.
    pub count: u32,
    /// What its values are.
    pub kind: ChunkKind,
    /// Position in the chunk directory.
    index: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    part: Option<Part>,
}

/// Chunks of one series; mostly one.
pub type Chunks = SmallVec<[ChunkRef; 1]>;

/// Rows of the timestamp column that a chunk has, when it has not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    first_row: u64,
    last_row: u64,
}

impl ChunkRef {
    /// Length of its values; some chunks share theirs.
    pub fn bytes(&self) -> u64 {
        self.length
    }

    /// Counts and spans that its histograms have at most, each of them counted as a few more; `None`
    /// for floats.
    pub fn histogram_cells_max(&self) -> Option<u64> {
        const OWN_CELLS: u64 = 32;
        let rows = u64::from(self.count);
        // A column takes at least two bytes, however many rows it has.
        let cells = rows.saturating_mul(self.length / 2).min(CELLS_MAX as u64);
        (self.kind == ChunkKind::Histograms).then_some(cells + rows * OWN_CELLS)
    }

    /// The rows of the timestamp column that it has, when they are neighbours.
    pub fn rows(&self) -> Option<Range<u64>> {
        let rows =
            self.part.map_or(0..u64::from(self.count), |part| part.first_row..part.last_row + 1);
        (rows.end - rows.start == u64::from(self.count)).then_some(rows)
    }

    /// Bytes of the bitmap of rows before the values.
    fn mask_bytes(&self) -> usize {
        match self.part {
            Some(part) if part.rows() != u64::from(self.count) => part.rows().div_ceil(8) as usize,
            _ => 0,
        }
    }
}

impl Part {
    fn rows(self) -> u64 {
        self.last_row - self.first_row + 1
    }
}

impl Segment {
    /// Maps a segment and checks its tables. What the device does not give is not damage.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let bytes = disk.len(path)?;
        let map = disk.map(path, bytes)?;
        let opened = Self::of_map(path, map.clone(), bytes);
        map.check_read()?;
        opened
    }

    fn of_map(path: &Path, map: Map, bytes: u64) -> Result<Self> {
        let corrupt = |offset_bytes: usize, reason| QueryError::Corrupt {
            path: path.to_owned(),
            offset_bytes: offset_bytes as u64,
            reason,
        };
        if !map.starts_with(&HEADER_MAGIC) {
            return Err(corrupt(0, "no segment"));
        }
        if word(&map, 8) as u32 != VERSION {
            return Err(corrupt(8, UNKNOWN_VERSION));
        }
        let footer_at = map.len().saturating_sub(FOOTER_BYTES);
        let footer = map.last_chunk().filter(|_| HEADER_BYTES <= footer_at);
        let footer = footer.ok_or_else(|| corrupt(footer_at, "file too short"))?;
        let footer = Footer::read(footer).map_err(|reason| corrupt(footer_at, reason))?;
        let body_bytes = usize::try_from(footer.tables_offset).unwrap_or(usize::MAX);
        let tables = map.get(body_bytes..footer_at);
        let tables = tables.ok_or_else(|| corrupt(footer_at, "tables outside of the file"))?;
        if crc32c::crc32c(tables) != footer.tables_crc {
            return Err(corrupt(body_bytes, "checksum of the tables does not fit"));
        }
        let crcs_bytes = footer.page_count as usize * 4;
        let fits = footer.page_count as usize == body_bytes.div_ceil(PAGE_BYTES)
            && crcs_bytes + footer.section_count as usize * ENTRY_BYTES == tables.len();
        if !fits {
            return Err(corrupt(footer_at, "tables of another length"));
        }
        let (crcs, entries) = tables.split_at(crcs_bytes);
        let (crcs, _) = crcs.as_chunks::<4>();
        let page_crcs: Vec<_> = crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
        let mut sections = [Entry::default(); SECTION_COUNT];
        for entry in entries.as_chunks().0.iter().map(Entry::read) {
            let end = entry.bytes().and_then(|bytes| entry.offset.checked_add(bytes));
            if 64 < entry.width_bits || end.is_none_or(|end| (body_bytes as u64) < end) {
                return Err(corrupt(body_bytes, "section outside of the file"));
            }
            // Sections that a later version adds without changing what is there are passed over.
            if let Some(slot) = sections.get_mut(entry.id as usize) {
                *slot = entry;
            }
        }
        let checked = (0..page_crcs.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let sequences = SequenceRange { first: 0, last: 0 };
        let info = SegmentInfo {
            min_ms: i64::MAX,
            max_ms: i64::MIN,
            series_count: 0,
            chunk_count: 0,
            sample_count: 0,
            bytes,
            sequences,
        };
        let path = path.to_owned();
        let mut segment = Self {
            path,
            map,
            body_bytes,
            page_crcs,
            checked,
            sections,
            info,
            base_ms: 0,
            damage: OnceLock::new(),
            hole: OnceLock::new(),
            is_told: AtomicBool::new(false),
        };
        segment.read_info()?;
        Ok(segment)
    }

    /// What it holds.
    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    /// The span of its samples; inclusive.
    pub fn time_range(&self) -> TimeRange {
        TimeRange { min_ms: self.info.min_ms, max_ms: self.info.max_ms }
    }

    /// Series; ordinals are below this.
    pub fn series_count(&self) -> u32 {
        self.info.series_count
    }

    /// Samples.
    pub fn sample_count(&self) -> u64 {
        self.info.sample_count
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.info.bytes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parts of the file and their bytes, headers and checksums last.
    pub fn sizes(&self) -> Vec<(String, u64)> {
        let sections = SECTIONS.iter().map(|section| {
            let entry = self.sections[*section as usize];
            (format!("{section:?}"), entry.bytes().unwrap_or(0))
        });
        let mut sizes: Vec<_> = sections.collect();
        let known: u64 = sizes.iter().map(|own| own.1).sum();
        sizes.push(("Tables".to_owned(), self.info.bytes.saturating_sub(known)));
        sizes
    }

    /// An error when somebody cut the file while it was read: what was read may be zeros.
    pub fn check_whole(&self) -> Result<()> {
        if self.map.is_torn() {
            return Err(self.corrupt(0, "the file was cut, or the device did not give it"));
        }
        Ok(())
    }

    /// An error when bytes could not be read, for whatever reason.
    pub fn check_read(&self) -> Result<()> {
        Ok(self.map.check_read()?)
    }

    /// Whether bytes were missing when they were read; they may be there when it is opened anew.
    pub fn is_torn(&self) -> bool {
        self.map.is_torn()
    }

    /// Checks the pages that were not touched yet.
    pub fn check_pages(&self) -> Result<()> {
        (0..self.page_crcs.len()).try_for_each(|page| self.check_page(page))
    }

    /// The first damage that a reader met and that concerns all of the segment.
    pub fn damage(&self) -> Option<Damage> {
        let _ = self.check_whole();
        self.damage.get().copied()
    }

    /// The first damage that a reader met and that concerns some chunks only.
    pub fn hole(&self) -> Option<Damage> {
        self.hole.get().copied()
    }

    /// People are told of the hole; whether they were before.
    pub fn set_told(&self) -> bool {
        self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Too much is damaged: the segment as a whole cannot be used any more.
    pub fn give_up(&self, offset_bytes: u64) -> QueryError {
        self.corrupt(offset_bytes, "too much is damaged")
    }

    /// The labels of a series.
    pub fn labels(&self, ordinal: u32) -> Result<Labels> {
        Ok(Labels::from_sorted(self.label_pairs(ordinal)?))
    }

    /// The same as pairs in order of names.
    pub fn label_pairs(&self, ordinal: u32) -> Result<Pairs<'_>> {
        let at = u64::from(ordinal);
        let runs = self.count(Section::RunFirst) - 1;
        let run = self.partition_point(Section::RunFirst, (0, runs), at + 1)?;
        let run =
            run.checked_sub(1).ok_or_else(|| self.corrupt_at(Section::RunFirst, 0, NO_RUN))?;
        let (first, behind) = self.span(Section::RunFirst, run)?;
        if behind <= at {
            return Err(self.corrupt_at(Section::RunFirst, run, NO_RUN));
        }
        let (bits_start, bits_end) = self.span(Section::RunValues, run)?;
        let mut bit = bits_start + (bits_end - bits_start) / (behind - first) * (at - first);
        let (start, end) = self.span(Section::RunLabels, run)?;
        let mut pairs = Pairs::new();
        for label in start..end {
            let name = self.get(Section::RunLabelName, label)?;
            let name = self.symbol(self.get(Section::IndexNames, name)?)?;
            let width_bits = self.get(Section::RunLabelWidth, label)?;
            let above = self.bits(Section::ValueBits, bit, width_bits)?;
            bit += width_bits;
            let position = self.get(Section::RunLabelFirst, label)?.saturating_add(above);
            let value = self.symbol(self.get(Section::IndexValues, position)?)?;
            let ascends = pairs.last().is_none_or(|last| last.0 < name);
            if !ascends || value.is_empty() {
                return Err(self.corrupt_at(Section::RunLabelName, label, "labels out of order"));
            }
            pairs.push((name, value));
        }
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if u32::try_from(bytes).is_err() {
            return Err(self.corrupt_at(Section::RunLabels, run, "labels of absurd length"));
        }
        Ok(pairs)
    }

    /// The fingerprint of a series.
    pub fn fingerprint(&self, ordinal: u32) -> Result<u128> {
        let at = 2 * u64::from(ordinal);
        let high = self.get(Section::Fingerprints, at)?;
        let low = self.get(Section::Fingerprints, at + 1)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    /// Ordinals of the series that fulfil all matchers. They ascend by metric name, then labels.
    pub fn select(&self, matchers: &[Matcher]) -> Result<RoaringBitmap> {
        matchers::select(self, matchers)
    }

    /// Sorted label names, of some series or of all.
    pub fn label_names(&self, within: Option<&RoaringBitmap>) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in 0..self.count(Section::IndexNames) {
            if let Some(within) = within {
                let mut ids = RoaringBitmap::new();
                self.postings(Section::IndexNamePostings, name, &mut ids)?;
                if ids.is_disjoint(within) {
                    continue;
                }
            }
            found.push(self.symbol(self.get(Section::IndexNames, name)?)?.to_owned());
        }
        Ok(found)
    }

    /// Sorted values of a label, of some series or of all.
    pub fn label_values(&self, name: &str, within: Option<&RoaringBitmap>) -> Result<Vec<String>> {
        let Some((start, end)) = self.values_of(name)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for value in start..end {
            if let Some(within) = within {
                let mut ids = RoaringBitmap::new();
                self.postings(Section::IndexValuePostings, value, &mut ids)?;
                if ids.is_disjoint(within) {
                    continue;
                }
            }
            found.push(self.symbol(self.get(Section::IndexValues, value)?)?.to_owned());
        }
        Ok(found)
    }

    /// Chunks of a series that overlap the range, in the order they were written.
    pub fn chunks(&self, ordinal: u32, range: TimeRange) -> Result<Chunks> {
        let mut found = Chunks::new();
        let summary = |id| self.timestamps_summary(id);
        self.each_chunk(ordinal, range, summary, |chunk| found.push(chunk))?;
        Ok(found)
    }

    /// The same one by one. `summary` is [`Segment::timestamps_summary`], or remembers what that told.
    #[inline]
    pub fn each_chunk(
        &self,
        ordinal: u32,
        range: TimeRange,
        mut summary: impl FnMut(TimestampsId) -> Result<TimestampsSummary>,
        mut take: impl FnMut(ChunkRef),
    ) -> Result<()> {
        let at = u64::from(ordinal);
        let (start, end) = self.span(Section::SeriesChunks, at)?;
        let (start, end) = (start.saturating_add(at), end.saturating_add(at + 1));
        for index in start..end {
            let chunk = self.chunk(index, &mut summary)?;
            if range.overlaps(TimeRange { min_ms: chunk.first_ms, max_ms: chunk.last_ms }) {
                take(chunk);
            }
        }
        Ok(())
    }

    /// Whether any chunk has native histograms.
    pub fn has_histograms(&self) -> bool {
        0 < self.count(Section::HistogramChunks)
    }

    /// A whole timestamp column, strictly ascending.
    pub fn decode_timestamps(&self, id: TimestampsId) -> Result<Arc<[i64]>> {
        let at = u64::from(id.0);
        let offset = self.get(Section::TimestampsOffset, at)?;
        let bytes = self.column(offset, self.get(Section::TimestampsLength, at)?)?;
        let (first_ms, last_ms, count) = self.timestamps_summary(id)?;
        let mut found = Vec::new();
        decode_timestamps(bytes, count as usize, &mut found)
            .map_err(|err| self.column_error(offset, err))?;
        let as_listed = found.first() == Some(&first_ms) && found.last() == Some(&last_ms);
        if !as_listed || !found.is_sorted_by(|a, b| a < b) {
            return Err(self.column_corrupt(offset, "timestamps that do not ascend as listed"));
        }
        Ok(found.into())
    }

    /// The timestamps of a chunk, given its whole column: the same slice when it has all rows.
    pub fn chunk_timestamps(&self, chunk: &ChunkRef, whole: &Arc<[i64]>) -> Result<Arc<[i64]>> {
        let Some(part) = chunk.part else { return Ok(whole.clone()) };
        let rows = whole.get(part.first_row as usize..=part.last_row as usize);
        let rows = rows.ok_or_else(|| self.column_corrupt(chunk.offset, "rows beyond the end"))?;
        let mask_bytes = chunk.mask_bytes();
        if mask_bytes == 0 {
            return Ok(rows.into());
        }
        let mask = self.column(chunk.offset, chunk.length)?.get(..mask_bytes);
        let mask = mask.ok_or_else(|| self.column_corrupt(chunk.offset, "chunk without rows"))?;
        let is_set = |row: usize| mask.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1);
        let rows = rows.iter().enumerate().filter(|(row, _)| is_set(*row));
        let found: Arc<[i64]> = rows.map(|(_, timestamp_ms)| *timestamp_ms).collect();
        let as_listed =
            found.first() == Some(&chunk.first_ms) && found.last() == Some(&chunk.last_ms);
        if found.len() != chunk.count as usize || !as_listed {
            return Err(self.column_corrupt(chunk.offset, "other rows than listed"));
        }
        Ok(found)
    }

    /// The values of a chunk, as many as it has timestamps.
    pub fn decode_values(&self, chunk: &ChunkRef) -> Result<Vec<f64>> {
        let (bytes, offset) = self.values_bytes(chunk)?;
        let mut found = Vec::new();
        decode_values(bytes, chunk.count as usize, &mut found)
            .map_err(|err| self.column_error(offset, err))?;
        Ok(found)
    }

    /// The same into a slice of that length.
    pub fn decode_values_into(&self, chunk: &ChunkRef, out: &mut [f64]) -> Result<()> {
        let (bytes, offset) = self.values_bytes(chunk)?;
        assert_eq!(out.len(), chunk.count as usize, "as many values as rows");
        decode_values_into(bytes, out).map_err(|err| self.column_error(offset, err))
    }

    /// The histograms of a chunk, as many as it has timestamps.
    pub fn decode_histograms(&self, chunk: &ChunkRef) -> Result<Vec<Arc<Histogram>>> {
        let (bytes, offset) = self.values_bytes(chunk)?;
        let mut found = Vec::new();
        decode_histograms(bytes, chunk.count as usize, &mut found)
            .map_err(|err| self.column_error(offset, err))?;
        Ok(found)
    }

    /// When the counting began that each sample of a chunk tells of, 0 where that is not known;
    /// `None`: nowhere.
    pub fn decode_starts(&self, chunk: &ChunkRef) -> Result<Option<Vec<i64>>> {
        let Some(at) = self.find_starts(chunk)? else { return Ok(None) };
        let offset = self.get(Section::StartsOffset, at)?;
        let bytes = self.column(offset, self.get(Section::StartsLength, at)?)?;
        let found = decode_starts(bytes, chunk.count as usize);
        Ok(Some(found.map_err(|err| self.column_error(offset, err))?))
    }

    /// Whether a chunk has start timestamps.
    pub fn has_starts(&self, chunk: &ChunkRef) -> Result<bool> {
        Ok(self.find_starts(chunk)?.is_some())
    }

    fn find_starts(&self, chunk: &ChunkRef) -> Result<Option<u64>> {
        let all = (0, self.count(Section::StartsChunk));
        if all.1 == 0 {
            return Ok(None);
        }
        self.find_integer(Section::StartsChunk, all, chunk.index)
    }

    /// A chunk without its bitmap of rows, and where that begins.
    fn values_bytes(&self, chunk: &ChunkRef) -> Result<(&[u8], u64)> {
        let mask_bytes = chunk.mask_bytes();
        let bytes = self.column(chunk.offset, chunk.length)?.get(mask_bytes..);
        let bytes =
            bytes.ok_or_else(|| self.column_corrupt(chunk.offset, "chunk without values"))?;
        Ok((bytes, chunk.offset + mask_bytes as u64))
    }

    fn read_info(&mut self) -> Result<()> {
        let series_count = self.count(Section::Fingerprints) / 2;
        let chunk_count = self.count(Section::ChunkOffset);
        let timestamps_count = self.count(Section::TimestampsOffset);
        let part_count = self.count(Section::PartialChunk);
        let runs = self.count(Section::RunFirst).saturating_sub(1);
        let run_labels = self.count(Section::RunLabelName);
        let names = self.count(Section::IndexNames);
        let values = self.count(Section::IndexValues);
        let expected = [
            (Section::Info, INFO_COUNT),
            (Section::Fingerprints, series_count * 2),
            (Section::SeriesChunks, series_count + 1),
            (Section::RunFirst, runs + 1),
            (Section::RunLabels, runs + 1),
            (Section::RunValues, runs + 1),
            (Section::RunLabelFirst, run_labels),
            (Section::RunLabelWidth, run_labels),
            (Section::TimestampsLength, timestamps_count),
            (Section::TimestampsCount, timestamps_count),
            (Section::TimestampsFirst, timestamps_count),
            (Section::TimestampsSpan, timestamps_count),
            (Section::ChunkTimestamps, chunk_count),
            (Section::ChunkLength, chunk_count),
            (Section::PartialFirstRow, part_count),
            (Section::PartialLastRow, part_count),
            (Section::PartialCount, part_count),
            (Section::PartialFirst, part_count),
            (Section::PartialSpan, part_count),
            (Section::IndexNameValues, names + 1),
            (Section::IndexNamePostings, names + 1),
            (Section::IndexValuePostings, values + 1),
        ];
        let starts = self.count(Section::StartsChunk);
        let expected_starts = [(Section::StartsOffset, starts), (Section::StartsLength, starts)];
        let expected_starts = expected_starts.into_iter().filter(|_| starts != 0);
        for (section, count) in expected.into_iter().chain(expected_starts) {
            let entry = self.sections[section as usize];
            if entry.count != count || entry.id != section as u32 {
                return Err(self.corrupt(entry.offset, "section of another length"));
            }
        }
        let field = |field: InfoField| self.get(Section::Info, field as u64);
        let too_many = |_| self.corrupt(0, "more series than a segment may have");
        let info = SegmentInfo {
            min_ms: field(InfoField::MinMs)? as i64,
            max_ms: field(InfoField::MaxMs)? as i64,
            series_count: u32::try_from(series_count).map_err(too_many)?,
            chunk_count,
            sample_count: field(InfoField::SampleCount)?,
            bytes: self.info.bytes,
            sequences: SequenceRange {
                first: field(InfoField::SequenceFirst)?,
                last: field(InfoField::SequenceLast)?,
            },
        };
        self.base_ms = field(InfoField::BaseMs)? as i64;
        self.info = info;
        Ok(())
    }

    #[inline]
    fn chunk(
        &self,
        index: u64,
        mut summary: impl FnMut(TimestampsId) -> Result<TimestampsSummary>,
    ) -> Result<ChunkRef> {
        let timestamps = TimestampsId(self.get(Section::ChunkTimestamps, index)? as u32);
        let offset = self.get(Section::ChunkOffset, index)?;
        let length = self.get(Section::ChunkLength, index)?;
        let (first_ms, last_ms, count) = summary(timestamps)?;
        let is_histograms =
            self.has_histograms() && self.has_integer(Section::HistogramChunks, index)?;
        let kind = if is_histograms { ChunkKind::Histograms } else { ChunkKind::Floats };
        let part = None;
        let whole =
            ChunkRef { timestamps, first_ms, last_ms, count, kind, index, offset, length, part };
        let parts = self.count(Section::PartialChunk);
        if parts == 0 {
            return Ok(whole);
        }
        let at = self.partition_point(Section::PartialChunk, (0, parts), index)?;
        if at == parts || self.get(Section::PartialChunk, at)? != index {
            return Ok(whole);
        }
        let part = Part {
            first_row: self.get(Section::PartialFirstRow, at)?,
            last_row: self.get(Section::PartialLastRow, at)?,
        };
        let own_count = self.get(Section::PartialCount, at)?;
        let within = part.first_row <= part.last_row && part.last_row < u64::from(count);
        if !within || own_count == 0 || part.rows() < own_count {
            return Err(self.corrupt_at(
                Section::PartialFirstRow,
                at,
                "rows outside of the column",
            ));
        }
        let first_ms = self.base_ms.wrapping_add_unsigned(self.get(Section::PartialFirst, at)?);
        let last_ms = first_ms.wrapping_add_unsigned(self.get(Section::PartialSpan, at)?);
        Ok(ChunkRef { first_ms, last_ms, count: own_count as u32, part: Some(part), ..whole })
    }

    /// First and last timestamp of a column and its rows.
    pub fn timestamps_summary(&self, id: TimestampsId) -> Result<TimestampsSummary> {
        let at = u64::from(id.0);
        let first = self.get(Section::TimestampsFirst, at)?;
        let first_ms = self.base_ms.wrapping_add_unsigned(first);
        let last_ms = first_ms.wrapping_add_unsigned(self.get(Section::TimestampsSpan, at)?);
        let count = self.get(Section::TimestampsCount, at)?;
        let too_many =
            |_| self.corrupt_at(Section::TimestampsCount, at, "more rows than a column may have");
        Ok((first_ms, last_ms, u32::try_from(count).map_err(too_many)?))
    }

    /// Where the values of a label stand in the index.
    fn values_of(&self, name: &str) -> Result<Option<(u64, u64)>> {
        let Some(at) = self.name_position(name)? else { return Ok(None) };
        self.span(Section::IndexNameValues, at).map(Some)
    }

    fn name_position(&self, name: &str) -> Result<Option<u64>> {
        let Some(symbol) = self.find_symbol(name)? else { return Ok(None) };
        self.find_integer(Section::IndexNames, (0, self.count(Section::IndexNames)), symbol)
    }

    fn postings(&self, starts: Section, at: u64, into: &mut impl IdSet) -> Result<()> {
        let (start, end) = self.span(starts, at)?;
        let offset = self.sections[Section::Postings as usize].offset + start;
        let bytes = self.slice(Section::Postings, start, end - start)?;
        add_postings(bytes, self.info.series_count, into)
            .map_err(|reason| self.corrupt(offset, reason))
    }

    fn symbol(&self, id: u64) -> Result<&str> {
        let (start, end) = self.span(Section::SymbolStarts, id)?;
        let bytes = self.slice(Section::SymbolText, start, end - start)?;
        std::str::from_utf8(bytes)
            .map_err(|_| self.corrupt_at(Section::SymbolText, start, "text that is not UTF-8"))
    }

    /// The number of symbols for which `before` holds; it must hold for a beginning of them.
    fn symbols_before(&self, before: impl Fn(&str) -> bool) -> Result<u64> {
        let (mut low, mut high) = (0, self.count(Section::SymbolStarts).saturating_sub(1));
        while low < high {
            let middle = u64::midpoint(low, high);
            if before(self.symbol(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn find_symbol(&self, text: &str) -> Result<Option<u64>> {
        let at = self.symbols_before(|own| own < text)?;
        let found = at + 1 < self.count(Section::SymbolStarts) && self.symbol(at)? == text;
        Ok(found.then_some(at))
    }

    /// Two neighbours of a section of starts, in order.
    fn span(&self, starts: Section, at: u64) -> Result<(u64, u64)> {
        let (start, end) = (self.get(starts, at)?, self.get(starts, at.saturating_add(1))?);
        if end < start {
            return Err(self.corrupt_at(starts, at, "starts that do not ascend"));
        }
        Ok((start, end))
    }

    /// How many of an ascending part of a section are below `limit`, as a position in the section.
    fn partition_point(
        &self,
        section: Section,
        (mut low, mut high): (u64, u64),
        limit: u64,
    ) -> Result<u64> {
        while low < high {
            let middle = u64::midpoint(low, high);
            if self.get(section, middle)? < limit {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Whether an ascending section has the integer.
    fn has_integer(&self, section: Section, integer: u64) -> Result<bool> {
        Ok(self.find_integer(section, (0, self.count(section)), integer)?.is_some())
    }

    fn find_integer(
        &self,
        section: Section,
        within: (u64, u64),
        integer: u64,
    ) -> Result<Option<u64>> {
        let at = self.partition_point(section, within, integer)?;
        let found = at < within.1 && self.get(section, at)? == integer;
        Ok(found.then_some(at))
    }

    /// Integers in a section.
    fn count(&self, section: Section) -> u64 {
        self.sections[section as usize].count
    }

    /// One integer of a section.
    #[inline]
    fn get(&self, section: Section, index: u64) -> Result<u64> {
        let entry = self.sections[section as usize];
        if index < entry.count
            && let Some(found) = self.checked_word(entry, index * u64::from(entry.width_bits))
        {
            return Ok(found);
        }
        self.get_slowly(entry, index)
    }

    #[cold]
    fn get_slowly(&self, entry: Entry, index: u64) -> Result<u64> {
        if entry.count <= index {
            return Err(self.corrupt(entry.offset, "reference beyond the end of a section"));
        }
        self.word(entry, index * u64::from(entry.width_bits), entry.width_bits)
    }

    /// An integer of a section from this bit on, if it is in a page that was found right.
    #[inline]
    fn checked_word(&self, entry: Entry, bit: u64) -> Option<u64> {
        let start = usize::try_from(entry.offset + bit / 8).ok()?;
        let (page, shift) = (start / PAGE_BYTES, (bit % 8) as u32);
        let is_checked =
            self.checked.get(page / 64)?.load(Ordering::Relaxed) >> (page % 64) & 1 == 1;
        let within = page == (start + 7) / PAGE_BYTES && shift + entry.width_bits <= u64::BITS;
        if !is_checked || !within {
            return None;
        }
        let word = self.map.get(start..)?.first_chunk()?;
        Some(u64::from_le_bytes(*word) >> shift & !u64::MAX.unbounded_shl(entry.width_bits))
    }

    /// Some bits of a section of bits.
    fn bits(&self, section: Section, bit: u64, width_bits: u64) -> Result<u64> {
        let entry = self.sections[section as usize];
        if entry.width_bits != 1 || 64 < width_bits || entry.count < bit.saturating_add(width_bits)
        {
            return Err(self.corrupt(entry.offset, "reference beyond the end of a section"));
        }
        self.word(entry, bit, width_bits as u32)
    }

    fn word(&self, entry: Entry, bit: u64, width_bits: u32) -> Result<u64> {
        if width_bits == 0 {
            return Ok(0);
        }
        let shift = (bit % 8) as u32;
        let len = (shift + width_bits).div_ceil(8) as usize;
        let bytes = self.checked_bytes(entry.offset + bit / 8, len as u64)?;
        let mut word = [0; 16];
        word[..len].copy_from_slice(bytes);
        let mask = u64::MAX >> (64 - width_bits);
        Ok((u128::from_le_bytes(word) >> shift) as u64 & mask)
    }

    /// Bytes of a section of bytes.
    fn slice(&self, section: Section, start: u64, len: u64) -> Result<&[u8]> {
        let entry = self.sections[section as usize];
        if entry.count < start.saturating_add(len) || entry.width_bits != 8 {
            return Err(self.corrupt(entry.offset, "reference beyond the end of a section"));
        }
        self.checked_bytes(entry.offset + start, len)
    }

    fn column(&self, offset: u64, length: u64) -> Result<&[u8]> {
        self.slice(Section::Columns, offset, length)
    }

    /// Bytes of the body, their pages checked.
    fn checked_bytes(&self, offset: u64, len: u64) -> Result<&[u8]> {
        let end = offset.saturating_add(len);
        if (self.body_bytes as u64) < end {
            return Err(self.corrupt(offset, "reference beyond the end of the file"));
        }
        let range = offset as usize..end as usize;
        for page in range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES) {
            let bit = 1 << (page % 64);
            if self.checked[page / 64].load(Ordering::Relaxed) & bit == 0 {
                self.check_page(page)?;
                self.checked[page / 64].fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(&self.map[range])
    }

    #[cold]
    fn check_page(&self, page: usize) -> Result<()> {
        let start = page * PAGE_BYTES;
        let bytes = &self.map[start..self.body_bytes.min(start + PAGE_BYTES)];
        if crc32c::crc32c(bytes) == self.page_crcs[page] {
            return Ok(());
        }
        let reason = "checksum of the page does not fit";
        let columns = self.sections[Section::Columns as usize];
        let end = columns.offset.saturating_add(columns.bytes().unwrap_or(0));
        // The first page has the header too, which was checked.
        let is_of_columns = (start + bytes.len()) as u64 <= end;
        Err(if is_of_columns {
            self.holed(start as u64, reason)
        } else {
            self.corrupt(start as u64, reason)
        })
    }

    fn holed(&self, offset_bytes: u64, reason: &'static str) -> QueryError {
        self.hole.get_or_init(|| Damage { offset_bytes, reason });
        QueryError::Corrupt { path: self.path.clone(), offset_bytes, reason }
    }

    fn corrupt(&self, offset_bytes: u64, reason: &'static str) -> QueryError {
        self.damage.get_or_init(|| Damage { offset_bytes, reason });
        QueryError::Corrupt { path: self.path.clone(), offset_bytes, reason }
    }

    /// At an integer of a section.
    fn corrupt_at(&self, section: Section, index: u64, reason: &'static str) -> QueryError {
        let entry = self.sections[section as usize];
        let bit = index.saturating_mul(u64::from(entry.width_bits));
        self.corrupt(entry.offset.saturating_add(bit / 8), reason)
    }

    fn column_corrupt(&self, offset: u64, reason: &'static str) -> QueryError {
        let at = self.sections[Section::Columns as usize].offset.saturating_add(offset);
        self.holed(at, reason)
    }

    fn column_error(&self, offset: u64, err: ColumnError) -> QueryError {
        self.column_corrupt(offset + err.offset_bytes as u64, err.reason)
    }
}

impl LabelIndex for Segment {
    type Error = QueryError;

    fn all(&self) -> Result<RoaringBitmap> {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.info.series_count);
        Ok(all)
    }

    fn add_name(&self, name: &str, into: &mut RoaringBitmap) -> Result<()> {
        match self.name_position(name)? {
            Some(at) => self.postings(Section::IndexNamePostings, at, into),
            None => Ok(()),
        }
    }

    fn add_value(&self, name: &str, value: &str, into: &mut RoaringBitmap) -> Result<()> {
        let Some(values) = self.values_of(name)? else { return Ok(()) };
        let Some(symbol) = self.find_symbol(value)? else { return Ok(()) };
        match self.find_integer(Section::IndexValues, values, symbol)? {
            Some(at) => self.postings(Section::IndexValuePostings, at, into),
            None => Ok(()),
        }
    }

    fn add_values(
        &self,
        name: &str,
        prefix: &str,
        accept: &mut dyn FnMut(&str) -> bool,
        into: &mut RoaringBitmap,
    ) -> Result<()> {
        let Some((mut start, mut end)) = self.values_of(name)? else { return Ok(()) };
        if !prefix.is_empty() {
            let first = self.symbols_before(|own| own < prefix)?;
            let behind = self.symbols_before(|own| own < prefix || own.starts_with(prefix))?;
            start = self.partition_point(Section::IndexValues, (start, end), first)?;
            end = self.partition_point(Section::IndexValues, (start, end), behind)?;
        }
        let mut union = Union::default();
        for value in start..end {
            if accept(self.symbol(self.get(Section::IndexValues, value)?)?) {
                self.postings(Section::IndexValuePostings, value, &mut union)?;
            }
        }
        *into |= union.finish();
        Ok(())
    }
}
