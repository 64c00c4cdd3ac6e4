//! The part of a segment behind its columns: integers in sections, the label index, checksums.

use std::io;

use smallvec::SmallVec;

use super::{ChunkMeta, HashMap, Part, TimestampsMeta};
use crate::base::disk::DiskFile;
use crate::model::labels::Labels;
use crate::storage::segment::format::{
    BitPacker, Entry, FOOTER_BYTES, Footer, OrdinalRun, PAGE_BYTES, Section, pack, put_postings,
    width_bits,
};

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 16 * PAGE_BYTES;

/// Written bytes are brought to the device in steps of this size: waiting for all of a large segment
/// at once would hold up the log's syncs.
const SYNC_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// Bytes on their way to the file, with a checksum for each page.
pub(super) struct Pages {
    file: Box<dyn DiskFile>,
    /// Begins on a page.
    buffer: Vec<u8>,
    /// Bytes before the buffer.
    flushed: u64,
    /// Bytes on the device.
    synced: u64,
    crcs: Vec<u32>,
}

impl Pages {
    pub(super) fn new(file: Box<dyn DiskFile>) -> Self {
        Self { file, buffer: Vec::new(), flushed: 0, synced: 0, crcs: Vec::new() }
    }

    pub(super) fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if BUFFER_BYTES <= self.buffer.len() {
            let whole = self.buffer.len() / PAGE_BYTES * PAGE_BYTES;
            self.flush(whole)?;
        }
        Ok(())
    }

    fn flush(&mut self, len: usize) -> io::Result<()> {
        let bytes = &self.buffer[..len];
        self.file.write_at(bytes, self.flushed)?;
        self.crcs.extend(bytes.chunks(PAGE_BYTES).map(crc32c::crc32c));
        self.flushed += len as u64;
        self.buffer.drain(..len);
        if SYNC_BYTES <= self.flushed - self.synced {
            self.file.sync()?;
            self.synced = self.flushed;
        }
        Ok(())
    }
}

/// The part behind the columns.
pub(super) struct Sections {
    pages: Pages,
    entries: Vec<Entry>,
}

impl Sections {
    /// After the columns.
    pub(super) fn new(pages: Pages, columns: Entry) -> Self {
        Self { pages, entries: vec![columns] }
    }

    fn integers(&mut self, section: Section, integers: &[u64]) -> io::Result<()> {
        self.integers_of_width(section, integers, width_bits(integers))
    }

    pub(super) fn integers_of_width(
        &mut self,
        section: Section,
        integers: &[u64],
        width_bits: u32,
    ) -> io::Result<()> {
        let offset = self.pages.position();
        let count = integers.len() as u64;
        self.entries.push(Entry { id: section as u32, width_bits, count, offset });
        // Groups of eight end on a whole byte.
        for part in integers.chunks(8 << 10) {
            self.pages.push(&pack(part, width_bits))?;
        }
        Ok(())
    }

    fn column<T>(
        &mut self,
        section: Section,
        rows: &[T],
        integer: impl Fn(&T) -> u64,
    ) -> io::Result<()> {
        self.integers(section, &rows.iter().map(integer).collect::<Vec<_>>())
    }

    fn text(&mut self, section: Section, bytes: &[u8]) -> io::Result<()> {
        let (offset, count) = (self.pages.position(), bytes.len() as u64);
        self.entries.push(Entry { id: section as u32, width_bits: 8, count, offset });
        self.pages.push(bytes)
    }

    pub(super) fn timestamps(&mut self, rows: &[TimestampsMeta], base_ms: i64) -> io::Result<()> {
        self.column(Section::TimestampsOffset, rows, |own| own.offset)?;
        self.column(Section::TimestampsLength, rows, |own| u64::from(own.length))?;
        self.column(Section::TimestampsCount, rows, |own| u64::from(own.count))?;
        self.column(Section::TimestampsFirst, rows, |own| own.first_ms.abs_diff(base_ms))?;
        self.column(Section::TimestampsSpan, rows, |own| own.last_ms.abs_diff(own.first_ms))
    }

    /// Chunks in order of their series.
    pub(super) fn chunks(
        &mut self,
        rows: &[ChunkMeta],
        series_count: usize,
        base_ms: i64,
    ) -> io::Result<()> {
        let mut starts = vec![0; series_count + 1];
        for chunk in rows {
            starts[chunk.series as usize + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        // Each has at least one; where each has just one, this takes no bytes.
        for (start, ordinal) in starts.iter_mut().zip(0..) {
            *start -= ordinal;
        }
        self.integers(Section::SeriesChunks, &starts)?;
        self.column(Section::ChunkTimestamps, rows, |own| u64::from(own.timestamps))?;
        self.column(Section::ChunkOffset, rows, |own| own.offset)?;
        self.column(Section::ChunkLength, rows, |own| u64::from(own.length))?;
        let histograms = (0..).zip(rows).filter(|(_, own)| own.is_histograms);
        let histograms: Vec<u64> = histograms.map(|(at, _)| at).collect();
        if !histograms.is_empty() {
            self.integers(Section::HistogramChunks, &histograms)?;
        }
        let starts: Vec<(u64, &ChunkMeta)> =
            (0..).zip(rows).filter(|(_, own)| own.starts_length != 0).collect();
        if !starts.is_empty() {
            self.column(Section::StartsChunk, &starts, |own| own.0)?;
            self.column(Section::StartsOffset, &starts, |own| own.1.starts_offset)?;
            self.column(Section::StartsLength, &starts, |own| u64::from(own.1.starts_length))?;
        }
        let parts = rows.iter().enumerate();
        let parts: Vec<(u64, &Part)> =
            parts.filter_map(|(at, own)| Some((at as u64, own.part.as_deref()?))).collect();
        self.column(Section::PartialChunk, &parts, |own| own.0)?;
        self.column(Section::PartialFirstRow, &parts, |own| u64::from(own.1.first_row))?;
        self.column(Section::PartialLastRow, &parts, |own| u64::from(own.1.last_row))?;
        self.column(Section::PartialCount, &parts, |own| u64::from(own.1.count))?;
        self.column(Section::PartialFirst, &parts, |own| own.1.first_ms.abs_diff(base_ms))?;
        self.column(Section::PartialSpan, &parts, |own| own.1.last_ms.abs_diff(own.1.first_ms))
    }

    /// Series in order of their ordinals.
    pub(super) fn series(&mut self, series: &[(u128, Labels)]) -> io::Result<()> {
        let halves = series.iter().flat_map(|(own, _)| [(own >> 64) as u64, *own as u64]);
        self.integers_of_width(Section::Fingerprints, &halves.collect::<Vec<_>>(), 64)?;
        let symbols = Symbols::of(series);
        self.symbols(&symbols.texts)?;
        let (mut by_name, mut by_pair) = (HashMap::default(), HashMap::default());
        for (ordinal, (_, labels)) in series.iter().enumerate() {
            for (name, value) in labels.iter() {
                let (name, value) = (symbols.id(name), symbols.id(value));
                push_ordinal(by_name.entry(name).or_default(), ordinal as u32);
                push_ordinal(by_pair.entry((name, value)).or_default(), ordinal as u32);
            }
        }
        let positions = self.index(by_name, by_pair)?;
        self.label_runs(series, &symbols, &positions)
    }

    /// The labels of the series, by runs with the same label names and metric.
    fn label_runs(
        &mut self,
        series: &[(u128, Labels)],
        symbols: &Symbols<'_>,
        positions: &Positions,
    ) -> io::Result<()> {
        let (mut firsts, mut labels_starts, mut bits_starts) = (vec![], vec![0], vec![0]);
        let mut columns: Vec<RunColumn> = Vec::new();
        let mut bits = BitPacker::default();
        let mut first = 0;
        while first < series.len() {
            let own = &series[first].1;
            let same = |other: &&(u128, Labels)| {
                let (names, own_names) =
                    (other.1.iter().map(|own| own.0), own.iter().map(|own| own.0));
                other.1.name() == own.name() && names.eq(own_names)
            };
            let run = &series[first..first + series[first..].iter().take_while(same).count()];
            let rows: Vec<u64> = run.iter().flat_map(|own| positions.of(&own.1, symbols)).collect();
            let names: Vec<_> = own.iter().map(|own| positions.names[&symbols.id(own.0)]).collect();
            let width = names.len();
            let own_columns: Vec<_> = (0..width)
                .map(|label| RunColumn::of(names[label], &rows[label..], width))
                .collect();
            for row in rows.chunks(width.max(1)) {
                for (position, column) in row.iter().zip(&own_columns) {
                    bits.push(position - column.first, column.width_bits);
                }
            }
            firsts.push(first as u64);
            columns.extend(own_columns);
            labels_starts.push(columns.len() as u64);
            bits_starts.push(bits.len_bits());
            first += run.len();
        }
        firsts.push(first as u64);
        self.integers(Section::RunFirst, &firsts)?;
        self.integers(Section::RunLabels, &labels_starts)?;
        self.integers(Section::RunValues, &bits_starts)?;
        self.column(Section::RunLabelName, &columns, |own| u64::from(own.name))?;
        self.column(Section::RunLabelFirst, &columns, |own| own.first)?;
        self.column(Section::RunLabelWidth, &columns, |own| u64::from(own.width_bits))?;
        let (offset, count) = (self.pages.position(), bits.len_bits());
        self.entries.push(Entry { id: Section::ValueBits as u32, width_bits: 1, count, offset });
        self.pages.push(&bits.finish())
    }

    fn symbols(&mut self, texts: &[&str]) -> io::Result<()> {
        let mut starts = vec![0];
        let mut blob = Vec::new();
        for text in texts {
            blob.extend_from_slice(text.as_bytes());
            starts.push(blob.len() as u64);
        }
        self.integers(Section::SymbolStarts, &starts)?;
        self.text(Section::SymbolText, &blob)
    }

    fn index(
        &mut self,
        by_name: HashMap<u32, Runs>,
        by_pair: HashMap<(u32, u32), Runs>,
    ) -> io::Result<Positions> {
        let mut by_name: Vec<_> = by_name.into_iter().collect();
        by_name.sort_unstable_by_key(|(name, _)| *name);
        let mut by_pair: Vec<_> = by_pair.into_iter().collect();
        by_pair.sort_unstable_by_key(|(pair, _)| *pair);
        let mut postings = Vec::new();
        let (mut name_values, mut name_postings) = (Vec::new(), Vec::new());
        for (name, runs) in &by_name {
            name_values.push(by_pair.partition_point(|(pair, _)| pair.0 < *name) as u64);
            name_postings.push(postings.len() as u64);
            put_postings(runs, &mut postings);
        }
        name_values.push(by_pair.len() as u64);
        name_postings.push(postings.len() as u64);
        let mut value_postings = Vec::new();
        for (_, runs) in &by_pair {
            value_postings.push(postings.len() as u64);
            put_postings(runs, &mut postings);
        }
        value_postings.push(postings.len() as u64);
        self.column(Section::IndexNames, &by_name, |(name, _)| u64::from(*name))?;
        self.integers(Section::IndexNameValues, &name_values)?;
        self.integers(Section::IndexNamePostings, &name_postings)?;
        self.column(Section::IndexValues, &by_pair, |(pair, _)| u64::from(pair.1))?;
        self.integers(Section::IndexValuePostings, &value_postings)?;
        self.text(Section::Postings, &postings)?;
        Ok(Positions {
            names: by_name.iter().zip(0..).map(|((name, _), at)| (*name, at)).collect(),
            pairs: by_pair.iter().zip(0..).map(|((pair, _), at)| (*pair, at)).collect(),
        })
    }

    /// Tables, footer, sync; the length of the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.pages.flush(self.pages.buffer.len())?;
        let tables_offset = self.pages.flushed;
        let mut bytes = Vec::new();
        for crc in &self.pages.crcs {
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        for entry in &self.entries {
            entry.write(&mut bytes);
        }
        let footer = Footer {
            tables_offset,
            page_count: self.pages.crcs.len() as u32,
            section_count: self.entries.len() as u32,
            tables_crc: crc32c::crc32c(&bytes),
        };
        let tables_len = bytes.len();
        footer.write(&mut bytes);
        assert_eq!(bytes.len(), tables_len + FOOTER_BYTES);
        self.pages.file.write_at(&bytes, tables_offset)?;
        self.pages.file.sync()?;
        Ok(tables_offset + bytes.len() as u64)
    }
}

/// Where label names and values stand in the index, by symbols.
struct Positions {
    names: HashMap<u32, u32>,
    pairs: HashMap<(u32, u32), u64>,
}

impl Positions {
    /// Of the values of all labels.
    fn of(&self, labels: &Labels, symbols: &Symbols<'_>) -> impl Iterator<Item = u64> {
        labels.iter().map(|(name, value)| self.pairs[&(symbols.id(name), symbols.id(value))])
    }
}

/// A label of a run: positions of values in the index from `first` on.
struct RunColumn {
    name: u32,
    first: u64,
    width_bits: u32,
}

impl RunColumn {
    /// `positions` has the label's first and then each `step`-th.
    fn of(name: u32, positions: &[u64], step: usize) -> Self {
        let own = || positions.iter().step_by(step).copied();
        let first = own().min().unwrap_or(0);
        let above: Vec<u64> = own().map(|position| position - first).collect();
        Self { name, first, width_bits: width_bits(&above) }
    }
}

/// Ordinals of one name or pair; mostly one run.
type Runs = SmallVec<[OrdinalRun; 1]>;

/// Ordinals come in ascending order.
fn push_ordinal(runs: &mut Runs, ordinal: u32) {
    match runs.last_mut() {
        Some((first, more)) if *first + *more + 1 == ordinal => *more += 1,
        _ => runs.push((ordinal, 0)),
    }
}

/// All names and values in order.
struct Symbols<'a> {
    texts: Vec<&'a str>,
    ids: HashMap<&'a str, u32>,
}

impl<'a> Symbols<'a> {
    fn of(series: &'a [(u128, Labels)]) -> Self {
        let mut ids = HashMap::default();
        for (name, value) in series.iter().flat_map(|(_, labels)| labels.iter()) {
            ids.insert(name, 0);
            ids.insert(value, 0);
        }
        let mut texts: Vec<_> = ids.keys().copied().collect();
        texts.sort_unstable();
        for (id, text) in texts.iter().enumerate() {
            ids.insert(text, id as u32);
        }
        Self { texts, ids }
    }

    fn id(&self, text: &str) -> u32 {
        self.ids[text]
    }
}
