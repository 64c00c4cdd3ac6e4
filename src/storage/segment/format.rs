//! What writer and reader of segments agree on.
//!
//! Header, sections, tables, footer. A section is an array of unsigned integers of one width in
//! bits, packed without gaps, least significant bit first; plain bytes are integers of eight bits.

use roaring::RoaringBitmap;

use crate::encoding::column::varint;
use crate::storage::index::union::IdSet;

/// First bytes of a segment.
pub(super) const HEADER_MAGIC: [u8; 8] = *b"NTHXSEGM";
/// Last bytes of a segment.
pub(super) const FOOTER_MAGIC: [u8; 4] = *b"SEGE";
/// Version of the format.
pub(super) const VERSION: u32 = 1;
/// Magic, version, zero.
pub(super) const HEADER_BYTES: usize = 16;
/// See [`Footer`].
pub(super) const FOOTER_BYTES: usize = 32;
/// Unit of checksums: little to check for one chunk, 0.012 % of checksums.
pub(super) const PAGE_BYTES: usize = 32 << 10;
/// Bytes of a row in the table of sections.
pub(super) const ENTRY_BYTES: usize = 24;

/// What a section holds. The number is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Section {
    /// Chunks and timestamp columns, one after the other.
    Columns = 1,
    /// See [`InfoField`].
    Info = 2,
    /// By timestamp column: where it begins in `Columns`.
    TimestampsOffset = 3,
    /// Its bytes.
    TimestampsLength = 4,
    /// Its rows.
    TimestampsCount = 5,
    /// Its first timestamp, counted from the base.
    TimestampsFirst = 6,
    /// Milliseconds from its first to its last timestamp.
    TimestampsSpan = 7,
    /// By series: upper and lower half of the fingerprint.
    Fingerprints = 8,
    /// By series and once more: its first chunk, less its ordinal.
    SeriesChunks = 9,
    /// By run of series with the same label names and metric, and once more: its first series.
    RunFirst = 10,
    /// By run and once more: its first label in the three sections that follow the next.
    RunLabels = 11,
    /// By run and once more: where its rows begin in `ValueBits`.
    RunValues = 12,
    /// By label of a run: position of the name in `IndexNames`.
    RunLabelName = 13,
    /// The smallest position in `IndexValues` that occurs.
    RunLabelFirst = 14,
    /// Bits that say how far above that each series' value is.
    RunLabelWidth = 15,
    /// Bits, series by series, label by label.
    ValueBits = 16,
    /// By chunk: its timestamp column.
    ChunkTimestamps = 17,
    /// Where it begins in `Columns`.
    ChunkOffset = 18,
    /// Its bytes.
    ChunkLength = 19,
    /// Chunks that do not have all rows of their timestamp column, ascending.
    PartialChunk = 20,
    /// By partial chunk: its first row.
    PartialFirstRow = 21,
    /// Its last row.
    PartialLastRow = 22,
    /// Its number of rows.
    PartialCount = 23,
    /// Timestamp of its first row, counted from the base.
    PartialFirst = 24,
    /// Milliseconds from its first to its last row.
    PartialSpan = 25,
    /// Chunks of native histograms, ascending.
    HistogramChunks = 26,
    /// By symbol and once more: where its text begins.
    SymbolStarts = 27,
    /// Texts of symbols, in order.
    SymbolText = 28,
    /// Symbols of all label names, ascending.
    IndexNames = 29,
    /// By label name and once more: its first value.
    IndexNameValues = 30,
    /// By label name and once more: where the postings of all its series begin.
    IndexNamePostings = 31,
    /// Symbols of the values of each name, ascending.
    IndexValues = 32,
    /// By value and once more: where its postings begin.
    IndexValuePostings = 33,
    /// Postings.
    Postings = 34,
    /// Chunks with start timestamps, ascending.
    StartsChunk = 35,
    /// By such a chunk: where its start timestamps begin in `Columns`.
    StartsOffset = 36,
    /// Their bytes.
    StartsLength = 37,
}

/// Sections of this version, by their number less one.
pub(super) const SECTIONS: [Section; 37] = [
    Section::Columns,
    Section::Info,
    Section::TimestampsOffset,
    Section::TimestampsLength,
    Section::TimestampsCount,
    Section::TimestampsFirst,
    Section::TimestampsSpan,
    Section::Fingerprints,
    Section::SeriesChunks,
    Section::RunFirst,
    Section::RunLabels,
    Section::RunValues,
    Section::RunLabelName,
    Section::RunLabelFirst,
    Section::RunLabelWidth,
    Section::ValueBits,
    Section::ChunkTimestamps,
    Section::ChunkOffset,
    Section::ChunkLength,
    Section::PartialChunk,
    Section::PartialFirstRow,
    Section::PartialLastRow,
    Section::PartialCount,
    Section::PartialFirst,
    Section::PartialSpan,
    Section::HistogramChunks,
    Section::SymbolStarts,
    Section::SymbolText,
    Section::IndexNames,
    Section::IndexNameValues,
    Section::IndexNamePostings,
    Section::IndexValues,
    Section::IndexValuePostings,
    Section::Postings,
    Section::StartsChunk,
    Section::StartsOffset,
    Section::StartsLength,
];

/// Numbers of sections of this version, the unused zero included.
pub(super) const SECTION_COUNT: usize = SECTIONS.len() + 1;

const _: () = assert!(Section::StartsLength as usize + 1 == SECTION_COUNT);

/// The 64-bit integers of [`Section::Info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InfoField {
    MinMs,
    MaxMs,
    /// What other timestamps in the tables are counted from.
    BaseMs,
    SampleCount,
    SequenceFirst,
    SequenceLast,
}

/// Number of [`InfoField`]s.
pub(super) const INFO_COUNT: u64 = InfoField::SequenceLast as u64 + 1;

/// Where a section lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u32,
    /// At most 64.
    pub(super) width_bits: u32,
    /// Integers.
    pub(super) count: u64,
    /// In the file.
    pub(super) offset: u64,
}

impl Entry {
    /// `None`: more than any file can hold.
    pub(super) fn bytes(self) -> Option<u64> {
        Some(self.count.checked_mul(u64::from(self.width_bits))?.div_ceil(8))
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.width_bits.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        Self {
            id: word(bytes, 0) as u32,
            width_bits: (word(bytes, 0) >> 32) as u32,
            count: word(bytes, 8),
            offset: word(bytes, 16),
        }
    }
}

/// The end of the file: what lies before the tables, how large they are, their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Where the tables begin: checksums of the pages before, then entries of sections.
    pub(super) tables_offset: u64,
    pub(super) page_count: u32,
    pub(super) section_count: u32,
    /// Of the tables.
    pub(super) tables_crc: u32,
}

impl Footer {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.tables_offset.to_le_bytes());
        out.extend_from_slice(&self.page_count.to_le_bytes());
        out.extend_from_slice(&self.section_count.to_le_bytes());
        out.extend_from_slice(&self.tables_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&FOOTER_MAGIC);
    }

    pub(super) fn read(bytes: &[u8; FOOTER_BYTES]) -> Result<Self, &'static str> {
        if !bytes.ends_with(&FOOTER_MAGIC) {
            return Err("no footer: the file is torn or no segment");
        }
        if word(bytes, 24) as u32 != crc32c::crc32c(&bytes[..24]) {
            return Err("checksum of the footer does not fit");
        }
        Ok(Self {
            tables_offset: word(bytes, 0),
            page_count: word(bytes, 8) as u32,
            section_count: (word(bytes, 8) >> 32) as u32,
            tables_crc: word(bytes, 16) as u32,
        })
    }
}

/// Eight bytes at `at`; zero beyond the end.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).and_then(<[u8]>::first_chunk);
    rest.map_or(0, |word| u64::from_le_bytes(*word))
}

/// The width that holds all integers.
pub(super) fn width_bits(integers: &[u64]) -> u32 {
    let all = integers.iter().fold(0, |all, own| all | own);
    64 - all.leading_zeros()
}

/// Collects bits, least significant first.
#[derive(Default)]
pub(super) struct BitPacker {
    pub(super) bytes: Vec<u8>,
    pending: u128,
    pending_bits: u32,
}

impl BitPacker {
    /// Appends an integer of at most `width_bits`.
    pub(super) fn push(&mut self, integer: u64, width_bits: u32) {
        self.pending |= u128::from(integer) << self.pending_bits;
        self.pending_bits += width_bits;
        while 8 <= self.pending_bits {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// Bits so far.
    pub(super) fn len_bits(&self) -> u64 {
        self.bytes.len() as u64 * 8 + u64::from(self.pending_bits)
    }

    /// Fills the last byte.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if 0 < self.pending_bits {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Packs integers of at most `width_bits`.
pub(super) fn pack(integers: &[u64], width_bits: u32) -> Vec<u8> {
    let mut packer = BitPacker::default();
    for integer in integers {
        packer.push(*integer, width_bits);
    }
    packer.finish()
}

const POSTINGS_RUNS: u8 = 0;
const POSTINGS_ROARING: u8 = 1;
/// More runs are faster read as a roaring bitmap.
const RUNS_MAX: usize = 64;

/// Neighbouring ordinals: the first and how many follow it.
pub(super) type OrdinalRun = (u32, u32);

/// Appends a set of ordinals, given as ascending runs.
pub(super) fn put_postings(runs: &[OrdinalRun], out: &mut Vec<u8>) {
    if runs.len() <= RUNS_MAX {
        out.push(POSTINGS_RUNS);
        let mut next = 0;
        for (first, more) in runs {
            varint::put(u64::from(first - next), out);
            varint::put(u64::from(*more), out);
            next = first + more + 1;
        }
        return;
    }
    let mut set = RoaringBitmap::new();
    for (first, more) in runs {
        set.insert_range(*first..=first + more);
    }
    set.optimize();
    out.push(POSTINGS_ROARING);
    set.serialize_into(out).expect("a vector takes all bytes");
}

/// Adds a set of ordinals below `series_count`.
pub(super) fn add_postings(
    bytes: &[u8],
    series_count: u32,
    into: &mut impl IdSet,
) -> Result<(), &'static str> {
    const BEYOND: &str = "postings of a series that does not exist";
    match bytes.split_first() {
        Some((&POSTINGS_RUNS, mut rest)) => {
            let mut next = 0_u64;
            while !rest.is_empty() {
                let mut integer = || {
                    let (value, len) = varint::take(rest)?;
                    rest = &rest[len..];
                    Some(value)
                };
                let (Some(gap), Some(more)) = (integer(), integer()) else {
                    return Err("postings end too early");
                };
                let first = next.saturating_add(gap);
                let last = first.saturating_add(more);
                if u64::from(series_count) <= last {
                    return Err(BEYOND);
                }
                into.add_range(first as u32, last as u32);
                next = last + 1;
            }
            Ok(())
        }
        Some((&POSTINGS_ROARING, rest)) => {
            let set = RoaringBitmap::deserialize_from(rest).map_err(|_| "not a roaring bitmap")?;
            if set.max().is_some_and(|last| series_count <= last) {
                return Err(BEYOND);
            }
            into.add_set(&set);
            Ok(())
        }
        _ => Err("unknown kind of postings"),
    }
}
