//! The registry on disk: all series of the head as of one commit, with their newest samples; and
//! metadata and exemplars.
//!
//! Written when a log file is sealed, so that the file may go although later ones use the series
//! it defined. Series stand in blocks, each field in a column, and each block can be read without
//! the others: a start reads several fields at once, each on a thread of its own. Labels have
//! numbers, and of a list of these only what differs from the list before is written. Immutable;
//! drawn in `docs/formats/manifest.md`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::SeriesRef;
use super::sets::{LabelRef, List, Sets};
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
const MAGIC: [u8; 8] = *b"NTXR\x03\0\0\0";
const DAMAGED: &str = "series are damaged";
/// Series of a block.
const BLOCK_SERIES_MAX: usize = 4096;
/// What two lists share at one end is counted in a byte.
const SHARED_MAX: usize = u8::MAX as usize;
/// What is buffered before it is written.
const BUFFER_BYTES: usize = 1 << 20;
/// Where blocks and where labels begin, and the checksum.
const FOOTER_BYTES: usize = 20;

/// Whether a newer program wrote this: then it is not damaged.
pub fn is_of_other_version(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC[..4]) && !bytes.starts_with(&MAGIC) && is_whole(bytes)
}

/// Whether the checksum fits.
fn is_whole(bytes: &[u8]) -> bool {
    let own = bytes.split_last_chunk::<4>();
    own.is_some_and(|(content, crc)| crc32c::crc32c(content) == u32::from_le_bytes(*crc))
}

/// The name of a checkpoint within its folder.
pub fn file_name(id: u64) -> String {
    format!("{id:010}.reg")
}

/// One series.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its number, greater than those before.
    pub series: SeriesRef,
    /// Its fingerprint.
    pub fingerprint: u128,
    /// Time of its newest sample; `i64::MIN`: none known.
    pub newest_ms: i64,
    /// Value of its newest sample.
    pub newest_bits: u64,
    /// Whether that sample was deleted: one with its time is no duplicate.
    pub is_hollow: bool,
    /// Its labels in the registry.
    pub labels: List<'a>,
}

/// A checkpoint being written.
pub struct Writer<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    written_bytes: u64,
    crc: u32,
    blocks_at: u64,
    block: Columns,
    /// Labels by their numbers in the file, and the other way round.
    labels: Vec<LabelRef>,
    numbers: Vec<u32>,
}

/// The columns of a block being written.
#[derive(Default)]
struct Columns {
    count: usize,
    first: SeriesRef,
    series: SeriesRef,
    newest_ms: i64,
    numbers: Vec<u8>,
    fingerprints: Vec<u8>,
    times: Vec<u8>,
    bits: Vec<u8>,
    lists: Vec<u8>,
    list: Vec<u8>,
    last_list: Vec<u8>,
}

impl Columns {
    /// Adds a series whose labels are in `list`.
    fn push(&mut self, entry: &Entry<'_>) {
        if self.count == 0 {
            (self.first, self.series) = (entry.series, entry.series);
        }
        let number = u64::from(entry.series - self.series) << 1 | u64::from(entry.is_hollow);
        push_varint(&mut self.numbers, number);
        self.fingerprints.extend_from_slice(&entry.fingerprint.to_le_bytes());
        push_zigzag(&mut self.times, entry.newest_ms.wrapping_sub(self.newest_ms));
        self.bits.extend_from_slice(&entry.newest_bits.to_le_bytes());
        let (own, last) = (&self.list, &self.last_list);
        let most = own.len().min(last.len()).min(SHARED_MAX);
        let head = own[..most].iter().zip(last).take_while(|(a, b)| a == b).count();
        let most = (own.len().min(last.len()) - head).min(SHARED_MAX);
        let ends = own.iter().rev().zip(last.iter().rev()).take(most);
        let tail = ends.take_while(|(a, b)| a == b).count();
        self.lists.extend_from_slice(&[head as u8, tail as u8]);
        push_sized(&mut self.lists, &own[head..own.len() - tail]);
        std::mem::swap(&mut self.list, &mut self.last_list);
        (self.series, self.newest_ms) = (entry.series, entry.newest_ms);
        self.count += 1;
    }

    /// Appends the block, if there is one, and begins another.
    fn take(&mut self, out: &mut Vec<u8>) {
        if self.count == 0 {
            return;
        }
        let lens = [self.count, self.numbers.len(), self.times.len(), self.lists.len()];
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend(lens.iter().flat_map(|len| (*len as u32).to_le_bytes()));
        let columns = [
            &mut self.numbers,
            &mut self.fingerprints,
            &mut self.times,
            &mut self.bits,
            &mut self.lists,
        ];
        for column in columns {
            out.append(column);
        }
        (self.count, self.newest_ms) = (0, 0);
        self.last_list.clear();
    }
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
            blocks_at: 0,
            block: Columns::default(),
            labels: Vec::new(),
            numbers: Vec::new(),
        };
        let mut canonical = Vec::new();
        for own in exemplars {
            canonical.clear();
            push_canonical(SeriesKey::Labels(&own.labels), &mut canonical);
            push_exemplar(&mut writer.buffer, 0, &canonical, &own.exemplar);
            writer.flush_full()?;
        }
        writer.blocks_at = writer.at();
        Ok(writer)
    }

    /// Adds a series. Until the end the registry must number its labels in the same way.
    pub fn push(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        const NONE: u32 = u32::MAX;
        self.block.list.clear();
        for label in entry.labels.clone() {
            let at = label as usize;
            if self.numbers.len() <= at {
                self.numbers.resize(at + 1, NONE);
            }
            if self.numbers[at] == NONE {
                self.numbers[at] = self.labels.len() as u32;
                self.labels.push(label);
            }
            push_varint(&mut self.block.list, u64::from(self.numbers[at]));
        }
        self.block.push(entry);
        if self.block.count == BLOCK_SERIES_MAX {
            self.block.take(&mut self.buffer);
        }
        self.flush_full()
    }

    fn at(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.file.write_at(&self.buffer, self.written_bytes)?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends it; durable, name included, when this returns. `sets` has the labels.
    pub fn finish(mut self, sets: &Sets) -> io::Result<()> {
        self.block.take(&mut self.buffer);
        let labels_at = self.at();
        push_varint(&mut self.buffer, self.labels.len() as u64);
        for label in std::mem::take(&mut self.labels) {
            push_sized(&mut self.buffer, sets.text(label));
            self.flush_full()?;
        }
        self.buffer.extend_from_slice(&self.blocks_at.to_le_bytes());
        self.buffer.extend_from_slice(&labels_at.to_le_bytes());
        self.flush()?;
        self.file.write_at(&self.crc.to_le_bytes(), self.written_bytes)?;
        self.file.sync()?;
        self.disk.sync_dir(self.path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }
}

/// A label in canonical form.
#[derive(Clone, Copy, Debug)]
pub struct Label<'a> {
    /// Name, 0xFF, value, 0xFF.
    pub text: &'a [u8],
    name_bytes: u32,
}

impl<'a> Label<'a> {
    fn new(text: &'a [u8]) -> Option<Self> {
        let mut ends = memchr::memchr_iter(END, text);
        let name_bytes = u32::try_from(ends.next()?).ok()?;
        (ends.next()? + 1 == text.len()).then_some(Self { text, name_bytes })
    }

    /// Its name.
    pub fn name(&self) -> &'a [u8] {
        &self.text[..self.name_bytes as usize]
    }

    /// Its value.
    pub fn value(&self) -> &'a [u8] {
        &self.text[self.name_bytes as usize + 1..self.text.len() - 1]
    }
}

/// A checkpoint being read.
#[derive(Debug)]
pub struct File<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    blocks: Cursor<'a>,
    /// Labels by their numbers.
    pub labels: Vec<Label<'a>>,
}

/// What a checkpoint tells besides its series.
#[derive(Debug, PartialEq)]
pub struct Head {
    /// The last commit it covers.
    pub sequence: u64,
    /// Metadata by metric.
    pub metadata: Vec<(String, Metadata)>,
}

/// Some series; the columns are as long as there are series.
#[derive(Debug)]
pub struct Block<'a> {
    first: SeriesRef,
    numbers: &'a [u8],
    times: &'a [u8],
    lists: &'a [u8],
    /// Fingerprints.
    pub fingerprints: &'a [[u8; 16]],
    /// Values of the newest samples.
    pub newest_bits: &'a [[u8; 8]],
}

impl<'a> File<'a> {
    /// Finds labels and blocks in a file, whose checksum may not fit.
    pub fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Self, QueryError> {
        let mut file = Self { path, bytes, blocks: Cursor::default(), labels: Vec::new() };
        if !bytes.starts_with(&MAGIC) {
            return Err(file.corrupt(0, "head of the registry is damaged"));
        }
        let footer_at = bytes.len().saturating_sub(FOOTER_BYTES);
        let place = |cursor: &mut Cursor<'_>| usize::try_from(cursor.u64()?).ok();
        let places = Cursor::new(bytes, footer_at, bytes.len())
            .and_then(|mut footer| Some((place(&mut footer)?, place(&mut footer)?)));
        let cursors = places.and_then(|(blocks_at, labels_at)| {
            let labels = Cursor::new(bytes, labels_at, footer_at)?;
            Some((Cursor::new(bytes, blocks_at, labels_at)?, labels))
        });
        let (blocks, labels) =
            cursors.ok_or_else(|| file.corrupt(footer_at, "end of the registry is damaged"))?;
        let labels_at = labels.at();
        let labels = read_labels(labels);
        file.labels = labels.ok_or_else(|| file.corrupt(labels_at, "labels are damaged"))?;
        file.blocks = blocks;
        Ok(file)
    }

    fn corrupt(&self, at: usize, reason: &'static str) -> QueryError {
        QueryError::Corrupt { path: self.path.to_owned(), offset_bytes: at as u64, reason }
    }

    /// What is wrong with the series.
    pub fn damaged(&self, reason: &'static str) -> QueryError {
        self.corrupt(self.blocks.at(), reason)
    }

    /// Compares with the checksum, reads what is before the series, and hands each exemplar, oldest
    /// first, to `visit` with the labels of its series in canonical form.
    pub fn read_head(
        &self,
        visit: &mut dyn FnMut(&[u8], Exemplar) -> Result<(), &'static str>,
    ) -> Result<Head, QueryError> {
        if !is_whole(self.bytes) {
            return Err(self.corrupt(0, "checksum of the registry does not match"));
        }
        let mut cursor = Cursor::new(self.bytes, MAGIC.len(), self.blocks.at())
            .ok_or_else(|| self.corrupt(0, "head of the registry is damaged"))?;
        let head = read_head(&mut cursor).filter(|own| own.sequence < SEQUENCES_MAX);
        let head =
            head.ok_or_else(|| self.corrupt(cursor.at(), "head of the registry is damaged"))?;
        let count = cursor.varint();
        for _ in 0..count.ok_or_else(|| self.corrupt(cursor.at(), "head is damaged"))? {
            let at = cursor.at();
            let exemplar = read_exemplar(&mut cursor, 0);
            let (canonical, exemplar) =
                exemplar.ok_or_else(|| self.corrupt(at, "exemplar is damaged"))?;
            visit(canonical, exemplar).map_err(|reason| self.corrupt(at, reason))?;
        }
        Ok(head)
    }

    /// No number of a series is as great; 0 when the blocks are damaged.
    pub fn bound(&self) -> usize {
        let series = self.blocks().last().and_then(|block| block.ok()?.series().ok());
        series.and_then(|series| Some(series.last()?.0 as usize + 1)).unwrap_or(0)
    }

    /// The series, block by block.
    pub fn blocks(&self) -> impl Iterator<Item = Result<Block<'a>, &'static str>> {
        let mut cursor = self.blocks.clone();
        std::iter::from_fn(move || {
            if cursor.is_empty() {
                return None;
            }
            let block = read_block(&mut cursor);
            if block.is_none() {
                cursor = Cursor::default();
            }
            Some(block.ok_or(DAMAGED))
        })
    }
}

fn read_labels(mut cursor: Cursor<'_>) -> Option<Vec<Label<'_>>> {
    let mut labels = Vec::new();
    for _ in 0..cursor.varint()? {
        labels.push(Label::new(cursor.sized()?)?);
    }
    cursor.is_empty().then_some(labels)
}

fn read_head(cursor: &mut Cursor<'_>) -> Option<Head> {
    let sequence = cursor.u64()?;
    let count = cursor.varint()?;
    let mut metadata = Vec::new();
    for _ in 0..count {
        let (metric, own) = read_metadata(cursor)?;
        metadata.push((metric.to_owned(), own));
    }
    Some(Head { sequence, metadata })
}

fn read_block<'a>(cursor: &mut Cursor<'a>) -> Option<Block<'a>> {
    let first = cursor.u32()?;
    let mut len = || cursor.u32().map(|len| len as usize);
    let (count, numbers, times, lists) = (len()?, len()?, len()?, len()?);
    if count == 0 || BLOCK_SERIES_MAX < count {
        return None;
    }
    Some(Block {
        first,
        numbers: cursor.take(numbers)?,
        fingerprints: cursor.take(16 * count)?.as_chunks().0,
        times: cursor.take(times)?,
        newest_bits: cursor.take(8 * count)?.as_chunks().0,
        lists: cursor.take(lists)?,
    })
}

impl Block<'_> {
    /// The numbers of the series, ascending, and whether the newest sample was deleted.
    pub fn series(&self) -> Result<Vec<(SeriesRef, bool)>, &'static str> {
        self.read_series().ok_or(DAMAGED)
    }

    fn read_series(&self) -> Option<Vec<(SeriesRef, bool)>> {
        let mut cursor = Cursor::new(self.numbers, 0, self.numbers.len())?;
        let mut all = Vec::with_capacity(self.fingerprints.len());
        let mut series = self.first;
        for at in 0..self.fingerprints.len() {
            let number = cursor.varint()?;
            let step = u32::try_from(number >> 1).ok().filter(|step| (*step == 0) == (at == 0))?;
            series = series.checked_add(step).filter(|series| *series < NUMBERS_MAX)?;
            all.push((series, number & 1 == 1));
        }
        Some(all)
    }

    /// Times of the newest samples.
    pub fn newest_ms(&self) -> Result<Vec<i64>, &'static str> {
        let mut newest_ms: i64 = 0;
        let times = Cursor::new(self.times, 0, self.times.len()).and_then(|mut cursor| {
            let own = self.fingerprints.iter().map(|_| {
                newest_ms = newest_ms.wrapping_add(cursor.zigzag()?);
                Some(newest_ms)
            });
            own.collect()
        });
        times.ok_or(DAMAGED)
    }

    /// Appends the label lists of all series, each as LEB128 of numbers of labels, to `out`, and
    /// where in it each of them ends to `ends`.
    pub fn push_lists(&self, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<(), &'static str> {
        self.read_lists(out, ends).ok_or(DAMAGED)
    }

    fn read_lists(&self, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Option<()> {
        let mut cursor = Cursor::new(self.lists, 0, self.lists.len())?;
        let mut last = out.len()..out.len();
        for _ in self.fingerprints {
            let (head, tail) = (usize::from(cursor.u8()?), usize::from(cursor.u8()?));
            if last.len() < head + tail {
                return None;
            }
            let start = out.len();
            out.extend_from_within(last.start..last.start + head);
            out.extend_from_slice(cursor.sized()?);
            out.extend_from_within(last.end - tail..last.end);
            last = start..out.len();
            ends.push(out.len());
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::disk::SimDisk;
    use crate::model::matcher::Matcher;
    use crate::model::metadata::MetricType;
    use crate::storage::index::postings::HeadIndex;
    use crate::storage::registry::restore::{self, Restoring};
    use crate::storage::registry::sets::{LabelSets, Span};

    /// A file with these series; of each its number, what is known of its newest sample, and labels
    /// in canonical form.
    fn file(series: &[(SeriesRef, i64, u64, Vec<u8>)], metadata: &[(String, Metadata)]) -> Vec<u8> {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/r")).unwrap();
        let path = Path::new("/r").join(file_name(3));
        let mut sets = LabelSets::default();
        // The numbers of the registry are others than those of the file.
        sets.label(b"zone\xffz\xff").unwrap();
        let keep = |own: &(SeriesRef, i64, u64, Vec<u8>)| {
            sets.read(&own.3).unwrap();
            sets.push_last_read()
        };
        let spans: Vec<Span> = series.iter().map(keep).collect();
        let mut writer = Writer::create(&disk, &path, 9, metadata, &[]).unwrap();
        for ((series, newest_ms, newest_bits, _), span) in series.iter().zip(spans) {
            let entry = Entry {
                series: *series,
                fingerprint: fingerprint(*series),
                newest_ms: *newest_ms,
                newest_bits: *newest_bits,
                is_hollow: series % 7 == 3,
                labels: sets.sets().list(span),
            };
            writer.push(&entry).unwrap();
        }
        writer.finish(sets.sets()).unwrap();
        disk.read(&path).unwrap()
    }

    fn fingerprint(series: SeriesRef) -> u128 {
        u128::from(series + 1) * 0x1_0000_0001_2345_6789_abcd
    }

    /// Whether all of a file can be read, checksum apart.
    fn is_readable(bytes: &[u8]) -> bool {
        let Ok(file) = File::open(Path::new("f"), bytes) else { return false };
        let mut restoring = Restoring::default();
        let is_added = restoring.add_labels(&file.labels).is_ok()
            && file.blocks().all(|block| {
                block.is_ok_and(|block| {
                    let series = block.series();
                    series.is_ok_and(|series| restoring.add_block(&block, &series).is_ok())
                })
            });
        is_added && restore::index_of(&file).is_ok() && restore::table_of(&file).is_ok()
    }

    #[test]
    fn any_flipped_bit_and_any_missing_end_is_found() {
        let unit = "s".to_owned();
        let own = Metadata { metric_type: MetricType::Gauge, help: "Help.".to_owned(), unit };
        let metadata = [("up".to_owned(), own)];
        let labels = |text: &[u8]| text.to_vec();
        let series = [
            (0, i64::MIN, 0, labels(b"__name__\xffup\xffjob\xffa\xff")),
            (7, -3, 1, labels(b"__name__\xffup\xffinstance\xffx\xffjob\xffa\xff")),
            (9, i64::MAX, u64::MAX, labels(b"__name__\xffup\xffinstance\xffy\xffjob\xffa\xff")),
            (NUMBERS_MAX - 1, 0, 5, labels(b"")),
        ];
        let bytes = file(&series[..3], &metadata);
        let path = Path::new("f");
        assert!(restore::check(path, &bytes).is_ok() && is_readable(&bytes));
        let head = File::open(path, &bytes).unwrap().read_head(&mut |_, _| Ok(())).unwrap();
        assert_eq!(head, Head { sequence: 9, metadata: metadata.to_vec() });
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(restore::check(path, &damaged).is_err(), "byte {at}");
            is_readable(&damaged);
            assert!(restore::check(path, &bytes[..at]).is_err(), "cut at {at}");
        }
        let last = file(&series[2..], &[]);
        let last = File::open(path, &last).unwrap();
        let numbers = last.blocks().next().unwrap().unwrap().series().unwrap();
        assert_eq!(numbers.last(), Some(&(NUMBERS_MAX - 1, (NUMBERS_MAX - 1) % 7 == 3)));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let a = b"a\xff1\xff".to_vec();
        let ab = b"a\xff1\xffb\xff2\xff".to_vec();
        let good = file(&[(1, 5, 6, ab), (2, 5, 6, a)], &[]);
        assert!(is_readable(&good));
        let change = |from: &[u8], to: &[u8]| {
            let at = memchr::memmem::find(&good, from).unwrap();
            let mut changed = good.clone();
            changed[at..at + to.len()].copy_from_slice(to);
            is_readable(&changed)
        };
        assert!(change(b"b\xff2", b"c\xff3"));
        assert!(!change(b"b\xff2", b"a\xff2"), "a name twice");
        assert!(!change(b"b\xff2", b"A\xff2"), "names out of order");
        assert!(!change(b"a\xff1", b"b\xff2"), "a label twice");
        assert!(!change(b"b\xff2", b"b\xc32"), "no UTF-8");
        assert!(!change(b"b\xff2\xff", b"b\xff\xff2"), "no value");
        // Both lists: nothing shared, labels 0 and 1; one shared, nothing new.
        let lists = [0, 0, 2, 0, 1, 1, 0, 0];
        assert!(change(&lists, &lists) && change(&lists, &[0, 0, 2, 0, 1, 2, 0, 0]));
        assert!(!change(&lists, &[0, 0, 2, 0, 2, 1, 0, 0]), "an unknown label");
        assert!(!change(&lists, &[0, 0, 2, 1, 0, 1, 0, 0]), "out of order");
        assert!(!change(&lists, &[0, 0, 2, 0, 1, 2, 1, 0]), "more than there was before");
        let second = fingerprint(2).to_le_bytes();
        assert!(!change(&second, &[0; 16]));
        let numbers = [0, 2];
        let at = memchr::memmem::find(
            &good,
            &[numbers.as_slice(), &fingerprint(1).to_le_bytes()].concat(),
        );
        let mut twice = good.clone();
        twice[at.unwrap() + 1] = 0;
        assert!(!is_readable(&twice), "a number twice");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]
        #[test]
        fn a_start_finds_all_series_as_they_were(
            all in prop::collection::vec(
                (prop::collection::btree_map("[a-d]{1,2}", "[x-zü]{1,2}", 0..5), any::<i64>(), any::<u64>(), 1_u32..3),
                1..40,
            ),
            copies in prop::sample::select(vec![1, 2, 300]),
        ) {
            let mut number = 0;
            let mut series = Vec::new();
            for (labels, newest_ms, bits, step) in (0..copies).flat_map(|_| &all) {
                let mut canonical = Vec::new();
                for (name, value) in labels {
                    canonical.extend_from_slice(&[name.as_bytes(), &[END], value.as_bytes(), &[END]].concat());
                }
                series.push((number, *newest_ms, *bits, canonical));
                number += step;
            }
            let bytes = file(&series, &[]);
            let file = File::open(Path::new("f"), &bytes).unwrap();
            let (index, table) = (restore::index_of(&file).unwrap(), restore::table_of(&file).unwrap());
            let mut restoring = Restoring::default();
            restoring.add_labels(&file.labels).unwrap();
            let mut newest = Vec::new();
            for block in file.blocks() {
                let block = block.unwrap();
                let own = block.series().unwrap();
                restoring.add_block(&block, &own).unwrap();
                let values = block.newest_ms().unwrap().into_iter().zip(block.newest_bits);
                newest.extend(own.into_iter().zip(values.map(|(ms, bits)| (ms, u64::from_le_bytes(*bits)))));
            }
            restoring.end_checkpoint(table, index);
            let registry = restoring.finish(&roaring::RoaringBitmap::new());
            let mut expected = HeadIndex::new();
            for ((own, newest_ms, bits, canonical), found) in series.iter().zip(newest) {
                prop_assert_eq!(found, ((*own, own % 7 == 3), (*newest_ms, *bits)));
                let mut kept = Vec::new();
                registry.sets().push_canonical(registry.set(*own), &mut kept);
                prop_assert_eq!(&kept, canonical);
                prop_assert_eq!(registry.find(fingerprint(*own)), Some(*own));
                expected.insert(*own, &registry.labels(*own));
            }
            prop_assert_eq!(registry.len(), series.len());
            prop_assert_eq!(registry.index().stats(20), expected.stats(20));
            for name in expected.label_names(None) {
                for value in expected.label_values(&name, None) {
                    let matcher = [Matcher::equal(&name, &value)];
                    let found = registry.index().select(&matcher);
                    prop_assert!(found.iter().eq(expected.select(&matcher).iter()));
                }
            }
        }
    }
}
