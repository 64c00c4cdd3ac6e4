//! The registry on disk: all series of the head as of one commit, with their newest samples.
//!
//! Written when a log file is sealed, so that the file may go although later ones use the series
//! it defined. Immutable; drawn in `docs/formats/manifest.md`.

use std::io;
use std::path::Path;

use super::SeriesRef;
use crate::base::disk::{Disk, DiskFile};
use crate::model::metadata::Metadata;
use crate::storage::log::format::{
    Cursor, push_metadata, push_sized, push_varint, push_zigzag, read_metadata,
};
use crate::storage::select::QueryError;

/// `NTXR` and the format's version, which may still change while it is 0.
const MAGIC: [u8; 8] = *b"NTXR\0\0\0\0";
/// What is buffered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

/// The name of a checkpoint within its folder.
pub fn file_name(id: u64) -> String {
    format!("{id:010}.reg")
}

/// One series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number.
    pub series: SeriesRef,
    /// Time of its newest sample; `i64::MIN`: none known.
    pub newest_ms: i64,
    /// Value of its newest sample.
    pub newest_bits: u64,
    /// Whether that sample was deleted: one with its time is no duplicate.
    pub is_hollow: bool,
    /// Its labels in canonical form.
    pub canonical: &'a [u8],
}

/// A checkpoint being written.
pub struct Writer<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    written_bytes: u64,
    crc: u32,
}

impl<'a> Writer<'a> {
    /// Begins a checkpoint of the state after commit `sequence`.
    pub fn create(
        disk: &'a dyn Disk,
        path: &'a Path,
        sequence: u64,
        metadata: &[(String, Metadata)],
    ) -> io::Result<Self> {
        let file = disk.create(path)?;
        let mut buffer = MAGIC.to_vec();
        buffer.extend_from_slice(&sequence.to_le_bytes());
        push_varint(&mut buffer, metadata.len() as u64);
        for (metric, metadata) in metadata {
            push_metadata(&mut buffer, metric, metadata);
        }
        Ok(Self { disk, path, file, buffer, written_bytes: 0, crc: 0 })
    }

    /// Adds a series.
    pub fn push(&mut self, entry: Entry<'_>) -> io::Result<()> {
        push_varint(&mut self.buffer, u64::from(entry.series) << 1 | u64::from(entry.is_hollow));
        push_zigzag(&mut self.buffer, entry.newest_ms);
        self.buffer.extend_from_slice(&entry.newest_bits.to_le_bytes());
        push_sized(&mut self.buffer, entry.canonical);
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

/// Reads a checkpoint and hands each series to `visit`.
pub fn read(
    path: &Path,
    bytes: &[u8],
    visit: &mut dyn FnMut(Entry<'_>) -> Result<(), &'static str>,
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
        return Err(corrupt(0, "checksum of the registry does not match"));
    }
    let mut cursor =
        Cursor::new(content, 0, content.len()).ok_or_else(|| corrupt(0, "file is too short"))?;
    let head = read_head(&mut cursor);
    let checkpoint = head.ok_or_else(|| corrupt(cursor.at(), "head of the registry is damaged"))?;
    while !cursor.is_empty() {
        let at = cursor.at();
        let entry = read_entry(&mut cursor).ok_or_else(|| corrupt(at, "series is damaged"))?;
        visit(entry).map_err(|reason| corrupt(at, reason))?;
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

fn read_entry<'a>(cursor: &mut Cursor<'a>) -> Option<Entry<'a>> {
    let number = cursor.varint()?;
    Some(Entry {
        series: u32::try_from(number >> 1).ok()?,
        is_hollow: number & 1 == 1,
        newest_ms: cursor.zigzag()?,
        newest_bits: cursor.u64()?,
        canonical: cursor.sized()?,
    })
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
        let entry = |series, newest_ms| {
            let is_hollow = series == 7;
            Entry { series, newest_ms, newest_bits: 5, is_hollow, canonical: b"x" }
        };
        let mut writer = Writer::create(&disk, &path, 9, &metadata).unwrap();
        writer.push(entry(0, i64::MIN)).unwrap();
        writer.push(entry(7, -3)).unwrap();
        writer.finish().unwrap();
        let bytes = disk.read(&path).unwrap();
        let mut found = Vec::new();
        let keep = &mut |entry: Entry<'_>| {
            found.push((entry.series, entry.newest_ms, entry.newest_bits, entry.is_hollow));
            Ok(())
        };
        let checkpoint = read(&path, &bytes, keep).unwrap();
        assert_eq!(checkpoint, Checkpoint { sequence: 9, metadata: metadata.to_vec() });
        assert_eq!(found, [(0, i64::MIN, 5, false), (7, -3, 5, true)]);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(read(&path, &damaged, &mut |_| Ok(())).is_err(), "byte {at}");
            assert!(read(&path, &bytes[..at], &mut |_| Ok(())).is_err(), "cut at {at}");
        }
    }
}
