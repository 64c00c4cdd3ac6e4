//! The registry on disk: all series of the head as of one commit, with their newest samples; and
//! metadata and exemplars.
//!
//! Written when a log file is sealed, so that the file may go although later ones use the series
//! it defined. Series that follow each other share most of their labels: what a series has in
//! common with the one before is left out, and a label that occurred before is a number. Immutable;
//! drawn in `docs/formats/manifest.md`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;

use super::SeriesRef;
use crate::base::disk::{Disk, DiskFile};
use crate::model::exemplar::Exemplar;
use crate::model::metadata::Metadata;
use crate::storage::append::SeriesKey;
use crate::storage::exemplars::Stored;
use crate::storage::fingerprint::{END, push_canonical};
use crate::storage::log::exemplar::{push_exemplar, read_exemplar};
use crate::storage::log::format::{
    Cursor, NUMBERS_MAX, SEQUENCES_MAX, push_metadata, push_sized, push_varint, push_zigzag,
    read_metadata,
};
use crate::storage::select::QueryError;

/// `NTXR` and the format's version.
const MAGIC: [u8; 8] = *b"NTXR\x02\0\0\0";
/// Bytes are not what was written.
pub const CHECKSUM: &str = "checksum of the registry does not match";
/// So many labels get numbers, which bounds what the writer remembers.
const NUMBERED_MAX: usize = 64 << 10;
/// Labels that are shared at the beginning, and at the end, are counted in four bits each.
const SHARED_MAX: usize = 15;
/// What is buffered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

/// Whether a newer program wrote this: then it is not damaged.
pub fn is_of_other_version(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC[..4]) && !bytes.starts_with(&MAGIC)
}

/// The name of a checkpoint within its folder.
pub fn file_name(id: u64) -> String {
    format!("{id:010}.reg")
}

/// One series; its labels are canonical bytes when it is written, numbers when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<L> {
    /// Its number.
    pub series: SeriesRef,
    /// Its fingerprint.
    pub fingerprint: u128,
    /// Time of its newest sample; `i64::MIN`: none known.
    pub newest_ms: i64,
    /// Value of its newest sample.
    pub newest_bits: u64,
    /// Whether that sample was deleted: one with its time is no duplicate.
    pub is_hollow: bool,
    /// Its labels.
    pub labels: L,
}

impl Entry<()> {
    fn with_labels<L>(self, labels: L) -> Entry<L> {
        let Self { series, fingerprint, newest_ms, newest_bits, is_hollow, labels: () } = self;
        Entry { series, fingerprint, newest_ms, newest_bits, is_hollow, labels }
    }
}

/// A checkpoint being written.
pub struct Writer<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    written_bytes: u64,
    crc: u32,
    /// Labels that have numbers.
    numbers: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    last: Last,
    /// Where the labels of a series end.
    ends: Vec<usize>,
}

/// The series before.
#[derive(Default)]
struct Last {
    series: SeriesRef,
    newest_ms: i64,
    /// Its labels in canonical form: name, 0xFF, value, 0xFF each.
    canonical: Vec<u8>,
    /// Where each label ends.
    ends: Vec<usize>,
}

impl Last {
    fn set(&mut self, entry: &Entry<&[u8]>) {
        (self.series, self.newest_ms) = (entry.series, entry.newest_ms);
        self.canonical.clear();
        self.canonical.extend_from_slice(entry.labels);
        put_ends(entry.labels, &mut self.ends);
    }
}

fn put_ends(canonical: &[u8], ends: &mut Vec<usize>) {
    ends.clear();
    ends.extend(memchr::memchr_iter(END, canonical).skip(1).step_by(2).map(|at| at + 1));
}

/// A label, given where labels end.
fn label<'a>(canonical: &'a [u8], ends: &[usize], at: usize) -> &'a [u8] {
    let start = if at == 0 { 0 } else { ends[at - 1] };
    &canonical[start..ends[at]]
}

impl<'a> Writer<'a> {
    /// Begins a checkpoint of the state after commit `sequence`.
    pub fn create(
        disk: &'a dyn Disk,
        path: &'a Path,
        sequence: u64,
        metadata: &[(String, Metadata)],
        exemplars: &[Arc<Stored>],
    ) -> io::Result<Self> {
        let file = disk.create(path)?;
        let mut buffer = MAGIC.to_vec();
        buffer.extend_from_slice(&sequence.to_le_bytes());
        push_varint(&mut buffer, metadata.len() as u64);
        for (metric, metadata) in metadata {
            push_metadata(&mut buffer, metric, metadata);
        }
        push_varint(&mut buffer, exemplars.len() as u64);
        let mut writer = Self {
            disk,
            path,
            file,
            buffer,
            written_bytes: 0,
            crc: 0,
            numbers: HashMap::default(),
            last: Last::default(),
            ends: Vec::new(),
        };
        let mut canonical = Vec::new();
        for own in exemplars {
            canonical.clear();
            push_canonical(SeriesKey::Labels(&own.labels), &mut canonical);
            push_exemplar(&mut writer.buffer, 0, &canonical, &own.exemplar);
            if writer.buffer.len() >= BUFFER_BYTES {
                writer.flush()?;
            }
        }
        Ok(writer)
    }

    /// Adds a series.
    pub fn push(&mut self, entry: Entry<&[u8]>) -> io::Result<()> {
        let last = &self.last;
        let series = u64::from(entry.series.wrapping_sub(last.series));
        push_varint(&mut self.buffer, series << 1 | u64::from(entry.is_hollow));
        self.buffer.extend_from_slice(&entry.fingerprint.to_le_bytes());
        push_zigzag(&mut self.buffer, entry.newest_ms.wrapping_sub(last.newest_ms));
        push_varint(&mut self.buffer, entry.newest_bits.swap_bytes());
        put_ends(entry.labels, &mut self.ends);
        let own = |at: usize| label(entry.labels, &self.ends, at);
        let before = |at: usize| label(&last.canonical, &last.ends, at);
        let (count, count_before) = (self.ends.len(), last.ends.len());
        let most = count.min(count_before).min(SHARED_MAX);
        let head = (0..most).take_while(|at| own(*at) == before(*at)).count();
        let most = (count.min(count_before) - head).min(SHARED_MAX);
        let is_same = |at: &usize| own(count - 1 - at) == before(count_before - 1 - at);
        let tail = (0..most).take_while(is_same).count();
        self.buffer.push((head << 4 | tail) as u8);
        push_varint(&mut self.buffer, (count - head - tail) as u64);
        for at in head..count - tail {
            let label = own(at);
            if let Some(number) = self.numbers.get(label) {
                push_varint(&mut self.buffer, u64::from(*number) + 1);
            } else {
                push_varint(&mut self.buffer, 0);
                push_sized(&mut self.buffer, label);
                let number = self.numbers.len();
                if number < NUMBERED_MAX {
                    self.numbers.insert(label.into(), number as u32);
                }
            }
        }
        self.last.set(&entry);
        if self.buffer.len() < BUFFER_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.file.write_at(&self.buffer, self.written_bytes)?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends it; durable, name included, when this returns.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.write_at(&self.crc.to_le_bytes(), self.written_bytes)?;
        self.file.sync()?;
        self.disk.sync_dir(self.path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }
}

/// What a checkpoint tells besides its series.
#[derive(Debug, PartialEq)]
pub struct Checkpoint {
    /// The last commit it covers.
    pub sequence: u64,
    /// Metadata by metric.
    pub metadata: Vec<(String, Metadata)>,
}

/// What is read one at a time.
#[derive(Debug)]
pub enum Item<'a> {
    /// An exemplar, of the series with these labels in canonical form; oldest first.
    Exemplar(&'a [u8], Exemplar),
    /// A label in canonical form. The first has the number 0, the next one 1, and so on.
    Label(&'a [u8]),
    /// A series, by the numbers of its labels, which are in the order of their names.
    Series(Entry<&'a [u32]>),
}

/// Reads a checkpoint and hands each exemplar, each label and each series to `visit`.
pub fn read(
    path: &Path,
    bytes: &[u8],
    visit: &mut dyn FnMut(Item<'_>) -> Result<(), &'static str>,
) -> Result<Checkpoint, QueryError> {
    let corrupt = |at: usize, reason| QueryError::Corrupt {
        path: path.to_owned(),
        offset_bytes: at as u64,
        reason,
    };
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(corrupt(0, "file is too short"));
    };
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(corrupt(0, CHECKSUM));
    }
    let mut cursor =
        Cursor::new(content, 0, content.len()).ok_or_else(|| corrupt(0, "file is too short"))?;
    let head = read_head(&mut cursor).filter(|own| own.sequence < SEQUENCES_MAX);
    let checkpoint = head.ok_or_else(|| corrupt(cursor.at(), "head of the registry is damaged"))?;
    let exemplars = cursor.varint().ok_or_else(|| corrupt(cursor.at(), "head is damaged"))?;
    for _ in 0..exemplars {
        let at = cursor.at();
        let (canonical, exemplar) =
            read_exemplar(&mut cursor, 0).ok_or_else(|| corrupt(at, "exemplar is damaged"))?;
        visit(Item::Exemplar(canonical, exemplar)).map_err(|reason| corrupt(at, reason))?;
    }
    let mut reader = Reader::default();
    while !cursor.is_empty() {
        let (at, label_count) = (cursor.at(), reader.labels.len());
        let entry = reader.read(&mut cursor).filter(|own| own.series < NUMBERS_MAX);
        let entry = entry.ok_or_else(|| corrupt(at, "series is damaged"))?;
        for label in &reader.labels[label_count..] {
            visit(Item::Label(label.text)).map_err(|reason| corrupt(at, reason))?;
        }
        let entry = entry.with_labels(&*reader.own);
        visit(Item::Series(entry)).map_err(|reason| corrupt(at, reason))?;
    }
    Ok(checkpoint)
}

fn read_head(cursor: &mut Cursor<'_>) -> Option<Checkpoint> {
    if cursor.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let sequence = cursor.u64()?;
    let count = cursor.varint()?;
    let mut metadata = Vec::new();
    for _ in 0..count {
        let (metric, own) = read_metadata(cursor)?;
        metadata.push((metric.to_owned(), own));
    }
    Some(Checkpoint { sequence, metadata })
}

/// What was read so far.
#[derive(Default)]
struct Reader<'a> {
    series: SeriesRef,
    newest_ms: i64,
    /// All labels that were written out.
    labels: Vec<Label<'a>>,
    /// Numbers of the labels of the series that was read last, and of the one before.
    own: Vec<u32>,
    last: Vec<u32>,
}

struct Label<'a> {
    text: &'a [u8],
    name: &'a [u8],
}

impl<'a> Label<'a> {
    /// A name and a value, with their ends.
    fn new(text: &'a [u8]) -> Option<Self> {
        let mut ends = memchr::memchr_iter(END, text);
        let name = &text[..ends.next()?];
        (ends.next()? + 1 == text.len()).then_some(Self { text, name })
    }
}

impl<'a> Reader<'a> {
    /// The series at the cursor, but for its labels: these are in `own`.
    fn read(&mut self, cursor: &mut Cursor<'a>) -> Option<Entry<()>> {
        let number = cursor.varint()?;
        let (series, is_hollow) = (u32::try_from(number >> 1).ok()?, number & 1 == 1);
        self.series = self.series.wrapping_add(series);
        let fingerprint = u128::from_le_bytes(*cursor.take(16)?.first_chunk()?);
        self.newest_ms = self.newest_ms.wrapping_add(cursor.zigzag()?);
        let newest_bits = cursor.varint()?.swap_bytes();
        self.read_labels(cursor)?;
        let (series, newest_ms) = (self.series, self.newest_ms);
        // Zero stands for none.
        (fingerprint != 0).then_some(Entry {
            series,
            fingerprint,
            newest_ms,
            newest_bits,
            is_hollow,
            labels: (),
        })
    }

    fn read_labels(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        let shared = usize::from(cursor.u8()?);
        let (head, tail) = (shared >> 4, shared & SHARED_MAX);
        std::mem::swap(&mut self.last, &mut self.own);
        let (last, own) = (&self.last, &mut self.own);
        if last.len() < head + tail {
            return None;
        }
        own.clear();
        own.extend_from_slice(&last[..head]);
        for _ in 0..cursor.varint()? {
            if let Some(number) = cursor.varint()?.checked_sub(1) {
                own.push(u32::try_from(number).ok().filter(|_| number < self.labels.len() as u64)?);
            } else {
                own.push(self.labels.len() as u32);
                self.labels.push(Label::new(cursor.sized()?)?);
            }
        }
        let new_end = own.len();
        own.extend_from_slice(&last[last.len() - tail..]);
        // What is shared was in order there.
        let seams = &own[head.saturating_sub(1)..own.len().min(new_end + 1)];
        let name = |number: &u32| self.labels[*number as usize].name;
        seams.is_sorted_by(|a, b| name(a) < name(b)).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::SimDisk;
    use crate::model::metadata::MetricType;

    #[test]
    fn a_checkpoint_is_read_as_written_and_any_flipped_bit_is_found() {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/r")).unwrap();
        let path = Path::new("/r").join(file_name(3));
        let unit = "s".to_owned();
        let own = Metadata { metric_type: MetricType::Gauge, help: "Help.".to_owned(), unit };
        let metadata = [("up".to_owned(), own)];
        let entries: [(SeriesRef, i64, u64, &[u8]); 6] = [
            (0, i64::MIN, 0, b"__name__\xffup\xffjob\xffa\xff"),
            (7, -3, 1, b"__name__\xffup\xffinstance\xffx\xffjob\xffa\xff"),
            (8, i64::MAX, u64::MAX, b"__name__\xffup\xffinstance\xffy\xffjob\xffa\xff"),
            (NUMBERS_MAX - 1, 0, 5, b""),
            (2, 0, 5, b"instance\xffy\xff"),
            (3, 0, 5, b"instance\xffy\xffjob\xffa\xff"),
        ];
        let mut writer = Writer::create(&disk, &path, 9, &metadata, &[]).unwrap();
        for (series, newest_ms, newest_bits, labels) in entries {
            let (is_hollow, fingerprint) = (series == 7, !u128::from(series));
            let entry = Entry { series, fingerprint, newest_ms, newest_bits, is_hollow, labels };
            writer.push(entry).unwrap();
        }
        writer.finish().unwrap();
        let bytes = disk.read(&path).unwrap();
        let (mut found, mut labels) = (Vec::new(), Vec::new());
        let keep = &mut |item: Item<'_>| {
            match item {
                Item::Exemplar(..) => return Err("no exemplar was written"),
                Item::Label(label) => labels.push(label.to_vec()),
                Item::Series(own) => {
                    assert_eq!(
                        (own.is_hollow, own.fingerprint),
                        (own.series == 7, !u128::from(own.series))
                    );
                    let texts = own.labels.iter().map(|label| &*labels[*label as usize]);
                    let canonical: Vec<u8> = texts.flatten().copied().collect();
                    found.push((own.series, own.newest_ms, own.newest_bits, canonical));
                }
            }
            Ok(())
        };
        let checkpoint = read(&path, &bytes, keep).unwrap();
        assert_eq!(checkpoint, Checkpoint { sequence: 9, metadata: metadata.to_vec() });
        assert_eq!(found, entries.map(|own| (own.0, own.1, own.2, own.3.to_vec())));
        assert_eq!(labels.len(), 4, "each is written out once");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(read(&path, &damaged, &mut |_| Ok(())).is_err(), "byte {at}");
            assert!(read(&path, &bytes[..at], &mut |_| Ok(())).is_err(), "cut at {at}");
        }
    }

    /// A label that is written out once and asked for many times, and others.
    #[test]
    fn a_series_has_each_name_once_and_in_order() {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/r")).unwrap();
        let path = Path::new("/r").join(file_name(3));
        let cases: [(&[&[u8]], bool); 7] = [
            (&[b"a\xff1\xffb\xff1\xff", b"a\xff1\xffb\xff2\xff"], true),
            (&[b"a\xff1\xffc\xff1\xff", b"a\xff1\xffb\xff2\xffc\xff1\xff"], true),
            (&[b"a\xff1\xffa\xff1\xff"], false),
            (&[b"b\xff1\xffa\xff1\xff"], false),
            (&[b"b\xff1\xffc\xff1\xff", b"b\xff1\xffa\xff1\xff"], false),
            (&[b"b\xff1\xffc\xff1\xff", b"d\xff1\xffc\xff1\xff"], false),
            (&[b"b\xff1\xffc\xff1\xff", b"b\xff1\xffc\xff1\xffa\xff1\xff"], false),
        ];
        for (series, is_fine) in cases {
            let mut writer = Writer::create(&disk, &path, 9, &[], &[]).unwrap();
            for (number, labels) in (0..).zip(series) {
                let entry = Entry {
                    series: number,
                    fingerprint: 1,
                    newest_ms: 0,
                    newest_bits: 0,
                    is_hollow: false,
                    labels: *labels,
                };
                writer.push(entry).unwrap();
            }
            writer.finish().unwrap();
            let bytes = disk.read(&path).unwrap();
            assert_eq!(read(&path, &bytes, &mut |_| Ok(())).is_ok(), is_fine, "{series:?}");
        }
    }
}
