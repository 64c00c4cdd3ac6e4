//! Bytes of log files: file header, frames, and the records within a frame.
//!
//! Drawn in `docs/formats/log.md`. Everything is little-endian; offsets fit in four bytes because
//! a log file is shorter than 4 GiB. Nothing here panics on damaged bytes: a reader gets `None` or
//! a reason.

use super::exemplar::read_exemplar;
use super::starts::{read_series_list, read_starts};
use crate::model::exemplar::Exemplar;
use crate::model::metadata::{Metadata, MetricType};

/// `NTXL`.
const MAGIC: u32 = u32::from_le_bytes(*b"NTXL");
/// Version of the format; it may still change without notice while it is 0.
const VERSION: u32 = 0;
/// Length of a file's header.
pub const FILE_HEADER_BYTES: usize = 40;
/// Length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Slots of a group. Bitmaps of a row stay within 256 bytes each.
pub const GROUP_SLOTS_MAX: usize = 2048;
/// Numbers of series and of groups are below this, far beyond what one machine holds: a damaged
/// number must not make a reader ask for the memory of billions. Tests have no memory for many.
pub const NUMBERS_MAX: u32 = if cfg!(test) { 1 << 20 } else { 1 << 28 };
/// Why a file that a newer program wrote is not read.
pub const UNKNOWN_VERSION: &str = "unknown version of the log format";
/// Sequences of commits and numbers of files are below this; one more can always be added.
pub const SEQUENCES_MAX: u64 = i64::MAX as u64;
/// Section header: tag and length.
const SECTION_HEADER_BYTES: usize = 5;

/// What stands at the beginning of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Number of the file; also in its name and in each frame.
    pub file_id: u64,
    /// When it was made; timestamps in it are relative to this.
    pub base_ms: i64,
    /// Sequence of its first frame.
    pub first_sequence: u64,
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(self) -> [u8; FILE_HEADER_BYTES] {
        let mut out = [0; FILE_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..16].copy_from_slice(&self.file_id.to_le_bytes());
        out[16..24].copy_from_slice(&self.base_ms.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        let crc = crc32c::crc32c(&out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let short = "file is shorter than its header";
        let mut cursor = Cursor::new(bytes, 0, FILE_HEADER_BYTES).ok_or(short)?;
        let magic = cursor.u32().ok_or(short)?;
        let version = cursor.u32().ok_or(short)?;
        let file_id = cursor.u64().ok_or(short)?;
        let base_ms = cursor.u64().ok_or(short)? as i64;
        let first_sequence = cursor.u64().ok_or(short)?;
        let crc = cursor.u32().ok_or(short)?;
        if magic != MAGIC {
            return Err("not a log file");
        }
        if bytes.get(..32).map(crc32c::crc32c) != Some(crc) {
            return Err("checksum of the file header does not match");
        }
        if version != VERSION {
            return Err(UNKNOWN_VERSION);
        }
        Ok(Self { file_id, base_ms, first_sequence })
    }
}

/// A reader of bytes that knows its position in the file.
#[derive(Clone, Debug, Default)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Over `bytes[at..end]`; `None` when that is not within.
    pub fn new(bytes: &'a [u8], at: usize, end: usize) -> Option<Self> {
        let bytes = bytes.get(..end)?;
        (at <= end).then_some(Self { bytes, at })
    }

    /// Position in the file.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    /// LEB128.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// LEB128 of a zigzag number.
    pub fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that fits in four bytes.
    pub fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    /// Bytes with their length before them.
    pub fn sized(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.varint()?).ok()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }
}

/// Appends LEB128.
pub fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends LEB128 of a zigzag number.
pub fn push_zigzag(out: &mut Vec<u8>, value: i64) {
    push_varint(out, (value << 1 ^ value >> 63) as u64);
}

/// Appends bytes with their length before them.
pub fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Kinds of sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// New series.
    Series = 1,
    /// New or changed metadata.
    Metadata = 2,
    /// New members of groups.
    Members = 3,
    /// Rows of groups.
    Rows = 4,
    /// Samples on their own.
    Loose = 5,
    /// Native histograms.
    Histograms = 6,
    /// Exemplars.
    Exemplars = 7,
    /// Start timestamps of series.
    Starts = 8,
}

/// A frame under construction.
#[derive(Debug, Default)]
pub struct FrameWriter {
    bytes: Vec<u8>,
    section_start: usize,
}

impl FrameWriter {
    /// Forgets the last frame, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEADER_BYTES, 0);
    }

    /// Begins a section; records are appended to what is returned.
    pub fn begin(&mut self, section: Section) -> &mut Vec<u8> {
        self.section_start = self.bytes.len();
        self.bytes.push(section as u8);
        self.bytes.extend_from_slice(&[0; SECTION_HEADER_BYTES - 1]);
        &mut self.bytes
    }

    /// Where records of the section that was begun go.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends the section.
    pub fn end(&mut self) {
        let start = self.section_start + SECTION_HEADER_BYTES;
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start - 4..start].copy_from_slice(&len.to_le_bytes());
    }

    /// Whether there is no section.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= FRAME_HEADER_BYTES
    }

    /// Fills in the header; the bytes are ready to be written.
    pub fn finish(&mut self, file_id: u64, sequence: u64, durable_bytes: u64) -> &[u8] {
        let body = (self.bytes.len() - FRAME_HEADER_BYTES) as u32;
        self.bytes[0..4].copy_from_slice(&body.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&file_id.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[24..32].copy_from_slice(&durable_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&self.bytes[8..]);
        let crc = crc32c::crc32c_append(crc, &body.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }
}

/// A frame whose checksum matches.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The commit.
    pub sequence: u64,
    /// Everything before this position was on disk when the frame was written.
    pub durable_bytes: u64,
    /// Where its records begin.
    pub body_start: usize,
    /// Where it ends.
    pub end: usize,
}

/// The frame at `at`; a reason when there is none. A length of zero is the end of what was written.
pub fn read_frame(file: &[u8], at: usize, file_id: u64) -> Result<Frame, &'static str> {
    let torn = "frame is cut off";
    let end = at.checked_add(FRAME_HEADER_BYTES).ok_or(torn)?;
    let mut cursor = Cursor::new(file, at, end).ok_or(torn)?;
    let body = cursor.u32().ok_or(torn)?;
    let crc = cursor.u32().ok_or(torn)?;
    let own_file = cursor.u64().ok_or(torn)?;
    let sequence = cursor.u64().ok_or(torn)?;
    let durable_bytes = cursor.u64().ok_or(torn)?;
    if body == 0 {
        return Err("no frame");
    }
    if own_file != file_id {
        return Err("frame belongs to another file");
    }
    if SEQUENCES_MAX <= sequence {
        return Err("sequence of the frame is too large");
    }
    let end = end.checked_add(body as usize).ok_or(torn)?;
    let covered = file.get(at + 8..end).ok_or(torn)?;
    let found = crc32c::crc32c_append(crc32c::crc32c(covered), &body.to_le_bytes());
    if found != crc {
        return Err("checksum of the frame does not match");
    }
    Ok(Frame { sequence, durable_bytes, body_start: at + FRAME_HEADER_BYTES, end })
}

/// A bitmap over the slots of a group, in place.
#[derive(Clone, Copy, Debug)]
pub enum Bits<'a> {
    /// Every one of so many slots.
    All(usize),
    /// None.
    Nothing,
    /// As written.
    Bytes(&'a [u8]),
}

impl Bits<'_> {
    /// 64 slots from `64 * index` on.
    #[inline]
    pub fn word(&self, index: usize) -> u64 {
        match *self {
            Self::Nothing => 0,
            Self::All(slots) => {
                let left = slots.saturating_sub(index * 64);
                if left >= 64 { u64::MAX } else { (1 << left) - 1 }
            }
            Self::Bytes(bytes) => {
                let rest = bytes.get(index * 8..).unwrap_or(&[]);
                if let Some(chunk) = rest.first_chunk::<8>() {
                    return u64::from_le_bytes(*chunk);
                }
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                u64::from_le_bytes(last)
            }
        }
    }
}

/// One row of a group, in place.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its time.
    pub timestamp_ms: i64,
    /// Slots the group had when it was written.
    pub slot_count: usize,
    /// Slots with a sample.
    pub present: Bits<'a>,
    /// Slots whose value differs from the one in the row before; a part of `present`.
    pub changed: Bits<'a>,
    /// Eight bytes for each changed slot.
    values: &'a [u8],
}

const ALL_PRESENT: u8 = 1;
const ALL_CHANGED: u8 = 2;
const NONE_CHANGED: u8 = 4;

impl<'a> Row<'a> {
    /// Reads the row at the cursor.
    pub fn read(cursor: &mut Cursor<'a>, base_ms: i64) -> Option<Self> {
        let timestamp_ms = base_ms.wrapping_add(cursor.zigzag()?);
        let flags = cursor.u8()?;
        let slot_count = usize::try_from(cursor.varint()?).ok()?;
        if slot_count > GROUP_SLOTS_MAX {
            return None;
        }
        let mut bitmap = || Some(Bits::Bytes(cursor.take(slot_count.div_ceil(8))?));
        let present = if flags & ALL_PRESENT != 0 { Bits::All(slot_count) } else { bitmap()? };
        let changed = match flags & (ALL_CHANGED | NONE_CHANGED) {
            ALL_CHANGED => present,
            NONE_CHANGED => Bits::Nothing,
            _ => bitmap()?,
        };
        let words = slot_count.div_ceil(64);
        let count: u32 = (0..words).map(|index| changed.word(index).count_ones()).sum();
        let values = cursor.take(8 * count as usize)?;
        Some(Self { timestamp_ms, slot_count, present, changed, values })
    }

    /// The value of the changed slot with so many changed slots before it.
    #[inline]
    pub fn value_bits(&self, rank: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*self.values.get(8 * rank..)?.first_chunk()?))
    }

    /// The values of the changed slots.
    #[inline]
    pub fn values(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.values.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// Appends a row. `values` has one entry for each changed slot.
pub fn push_row(
    out: &mut Vec<u8>,
    delta_ms: i64,
    slot_count: usize,
    present: &[u64],
    changed: &[u64],
    values: &[u64],
) {
    let count = |words: &[u64]| words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
    debug_assert_eq!(count(changed), values.len());
    let mut flags = 0;
    if count(present) == slot_count {
        flags |= ALL_PRESENT;
    }
    if values.is_empty() {
        flags |= NONE_CHANGED;
    } else if present == changed {
        flags |= ALL_CHANGED;
    }
    push_zigzag(out, delta_ms);
    out.push(flags);
    push_varint(out, slot_count as u64);
    if flags & ALL_PRESENT == 0 {
        push_bitmap(out, present, slot_count);
    }
    if flags & (ALL_CHANGED | NONE_CHANGED) == 0 {
        push_bitmap(out, changed, slot_count);
    }
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn push_bitmap(out: &mut Vec<u8>, words: &[u64], slot_count: usize) {
    let end = out.len() + slot_count.div_ceil(8);
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(end);
}

/// One record of a frame.
#[derive(Debug)]
pub enum Record<'a> {
    /// A series gets its number.
    Series {
        /// The number.
        series: u32,
        /// Its labels in canonical form.
        canonical: &'a [u8],
    },
    /// What is known of a metric.
    Metadata {
        /// Name of the metric.
        metric: &'a str,
        /// Its metadata.
        metadata: Metadata,
    },
    /// A group, numbered within the file, gets more slots.
    Members {
        /// The group.
        group: u32,
        /// Series of the slots.
        series: Vec<u32>,
    },
    /// A row.
    Row {
        /// The group.
        group: u32,
        /// Position of the row in the file, for [`Row::read`].
        offset: u32,
        /// The row.
        row: Row<'a>,
    },
    /// A sample on its own.
    Loose {
        /// The series.
        series: u32,
        /// Position of timestamp and value in the file, for [`read_loose`].
        offset: u32,
        /// Time.
        timestamp_ms: i64,
        /// Value.
        bits: u64,
    },
    /// A native histogram.
    Histogram {
        /// The series.
        series: u32,
        /// Position of timestamp and histogram in the file, for [`read_sized_sample`].
        offset: u32,
        /// Time.
        timestamp_ms: i64,
        /// For [`super::histogram::read_histogram`].
        bytes: &'a [u8],
    },
    /// An exemplar.
    Exemplar {
        /// Labels of its series in canonical form.
        canonical: &'a [u8],
        /// The exemplar.
        exemplar: Exemplar,
    },
    /// When counting began, of what follows of some series.
    Starts {
        /// Position of the record in the file.
        offset: u32,
        /// That moment; 0: not known.
        start_ms: i64,
        /// The series.
        series: Vec<u32>,
    },
}

impl Record<'_> {
    fn has_fitting_numbers(&self) -> bool {
        match self {
            Self::Metadata { .. } | Self::Exemplar { .. } => true,
            Self::Members { group, series } => {
                *group < NUMBERS_MAX && series.iter().all(|own| *own < NUMBERS_MAX)
            }
            Self::Starts { series, .. } => series.iter().all(|own| *own < NUMBERS_MAX),
            Self::Row { group: number, .. }
            | Self::Series { series: number, .. }
            | Self::Loose { series: number, .. }
            | Self::Histogram { series: number, .. } => *number < NUMBERS_MAX,
        }
    }
}

/// Timestamp and bytes of the histogram at the cursor.
pub fn read_sized_sample<'a>(cursor: &mut Cursor<'a>, base_ms: i64) -> Option<(i64, &'a [u8])> {
    let timestamp_ms = base_ms.wrapping_add(cursor.zigzag()?);
    Some((timestamp_ms, cursor.sized()?))
}

/// Timestamp and value of the loose sample at the cursor.
pub fn read_loose(cursor: &mut Cursor<'_>, base_ms: i64) -> Option<(i64, u64)> {
    let timestamp_ms = base_ms.wrapping_add(cursor.zigzag()?);
    Some((timestamp_ms, cursor.u64()?))
}

/// Appends metadata of a metric.
pub fn push_metadata(out: &mut Vec<u8>, metric: &str, metadata: &Metadata) {
    push_sized(out, metric.as_bytes());
    let kind = TYPES.iter().position(|kind| *kind == metadata.metric_type);
    out.push(kind.expect("every type is in the table") as u8);
    push_sized(out, metadata.help.as_bytes());
    push_sized(out, metadata.unit.as_bytes());
}

/// Metadata of a metric at the cursor.
pub fn read_metadata<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a str, Metadata)> {
    let metric = cursor.text()?;
    let metric_type = *TYPES.get(usize::from(cursor.u8()?))?;
    let (help, unit) = (cursor.text()?.to_owned(), cursor.text()?.to_owned());
    Some((metric, Metadata { metric_type, help, unit }))
}

/// Types by their number on disk.
const TYPES: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

/// Calls `visit` with each record of a frame, in the order they were written.
pub fn visit_records<'a>(
    file: &'a [u8],
    frame: &Frame,
    base_ms: i64,
    visit: &mut impl FnMut(Record<'a>) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let short = "record is cut off";
    let mut body = Cursor::new(file, frame.body_start, frame.end).ok_or(short)?;
    while !body.is_empty() {
        let tag = body.u8().ok_or(short)?;
        let len = body.u32().ok_or(short)? as usize;
        let start = body.at();
        body.take(len).ok_or(short)?;
        let mut section = Cursor::new(file, start, start + len).ok_or(short)?;
        let mut last_series = 0;
        while !section.is_empty() {
            let record = match tag {
                1 => read_series(&mut section),
                2 => read_metadata(&mut section)
                    .map(|(metric, metadata)| Record::Metadata { metric, metadata }),
                3 => read_members(&mut section),
                4 => read_row(&mut section, base_ms),
                5 => read_loose_record(&mut section, &mut last_series, base_ms),
                6 => read_histogram_record(&mut section, &mut last_series, base_ms),
                7 => read_exemplar(&mut section, base_ms)
                    .map(|(canonical, exemplar)| Record::Exemplar { canonical, exemplar }),
                8 => read_starts_record(&mut section, base_ms),
                _ => return Err("unknown section"),
            };
            let record = record.ok_or(short)?;
            if !record.has_fitting_numbers() {
                return Err("number of a series or group is too large");
            }
            visit(record)?;
        }
    }
    Ok(())
}

fn read_series<'a>(section: &mut Cursor<'a>) -> Option<Record<'a>> {
    Some(Record::Series { series: section.varint_u32()?, canonical: section.sized()? })
}

fn read_members<'a>(section: &mut Cursor<'a>) -> Option<Record<'a>> {
    Some(Record::Members { group: section.varint_u32()?, series: read_series_list(section)? })
}

fn read_starts_record<'a>(section: &mut Cursor<'a>, base_ms: i64) -> Option<Record<'a>> {
    let offset = u32::try_from(section.at()).ok()?;
    let (start_ms, series) = read_starts(section, base_ms)?;
    Some(Record::Starts { offset, start_ms, series })
}

/// Appends new members of a group.
pub fn push_members(out: &mut Vec<u8>, group: u32, series: &[u32]) {
    push_varint(out, u64::from(group));
    push_varint(out, series.len() as u64);
    let mut last = 0;
    for series in series {
        push_zigzag(out, i64::from(*series) - last);
        last = i64::from(*series);
    }
}

fn read_row<'a>(section: &mut Cursor<'a>, base_ms: i64) -> Option<Record<'a>> {
    let group = section.varint_u32()?;
    let offset = u32::try_from(section.at()).ok()?;
    Some(Record::Row { group, offset, row: Row::read(section, base_ms)? })
}

/// The series of the next record, told by its distance from the last one, and where its sample is.
fn read_owner(section: &mut Cursor<'_>, last_series: &mut i64) -> Option<(u32, u32)> {
    *last_series = last_series.checked_add(section.zigzag()?)?;
    Some((u32::try_from(*last_series).ok()?, u32::try_from(section.at()).ok()?))
}

fn read_loose_record<'a>(
    section: &mut Cursor<'a>,
    last_series: &mut i64,
    base_ms: i64,
) -> Option<Record<'a>> {
    let (series, offset) = read_owner(section, last_series)?;
    let (timestamp_ms, bits) = read_loose(section, base_ms)?;
    Some(Record::Loose { series, offset, timestamp_ms, bits })
}

fn read_histogram_record<'a>(
    section: &mut Cursor<'a>,
    last_series: &mut i64,
    base_ms: i64,
) -> Option<Record<'a>> {
    let (series, offset) = read_owner(section, last_series)?;
    let (timestamp_ms, bytes) = read_sized_sample(section, base_ms)?;
    Some(Record::Histogram { series, offset, timestamp_ms, bytes })
}
