//! One log file, open for reading and, while it is the newest, for writing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::directory::Directory;
use super::format::{FILE_HEADER_BYTES, FileHeader, SEQUENCES_MAX};
use crate::base::disk::{Disk, DiskFile, Map};
use crate::storage::failure::Failure;
use crate::storage::select::QueryError;

/// What is written again at once.
const PIECE_BYTES: u64 = 1 << 20;
/// A new file has so much space, unless that is too much or too little for it.
const FIRST_BYTES_MAX: u64 = 64 << 10;
const FIRST_BYTES_MIN: u64 = 1 << 10;
/// Space is doubled until it grows by this: few steps for busy files, little waste for idle ones.
const STEP_BYTES_MAX: u64 = 16 << 20;

/// A log file. Frames are appended by one writer; readers see what is published.
pub struct LogFile {
    header: FileHeader,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    capacity_bytes: u64,
    /// Bytes that are reserved on the device.
    allocated_bytes: AtomicU64,
    /// Bytes that readers may look at: whole frames.
    published_bytes: AtomicU64,
    /// Bytes that are on the device for certain.
    durable_bytes: AtomicU64,
    /// A map, and how many of its bytes are surely current: a copy ages.
    map: Mutex<(Map, u64)>,
    directory: RwLock<Directory>,
    /// Whether somebody cut it while it was open.
    is_torn: AtomicBool,
    failure: Failure,
    /// Held while it is synced: of two at one moment the system tells only one of an error.
    syncing: Mutex<()>,
}

/// Adds the file to an error of reading it.
fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |err| io::Error::new(err.kind(), format!("{path}: {err}"))
}

/// The name of a log file within its folder.
pub fn file_name(id: u64) -> String {
    format!("{id:010}.log")
}

impl LogFile {
    /// Makes a file that may grow to `capacity_bytes` and has room for `least_bytes` at once;
    /// durable, name included, when this returns. On failure nothing of it is left, as far as the disk permits.
    pub fn create(
        disk: &Arc<dyn Disk>,
        folder: &Path,
        header: FileHeader,
        capacity_bytes: u64,
        least_bytes: u64,
        failure: &Failure,
    ) -> io::Result<Self> {
        assert!(u32::try_from(capacity_bytes).is_ok(), "offsets fit in four bytes");
        assert!(least_bytes <= capacity_bytes, "room for what it is made for");
        let path = folder.join(file_name(header.file_id));
        let usual_bytes = (capacity_bytes / 1024).clamp(FIRST_BYTES_MIN, FIRST_BYTES_MAX);
        let first_bytes = usual_bytes.max(least_bytes).min(capacity_bytes);
        let written = Self::write_new(disk, folder, &path, header, first_bytes);
        let made = written.map(|(file, map)| {
            let own = Self::new(disk, &path, file, header, capacity_bytes, map, failure);
            own.allocated_bytes.store(first_bytes, Ordering::Release);
            own
        });
        if made.is_err() {
            // What cannot be removed is garbage that the next start removes.
            let _ = disk.remove_file(&path);
        }
        made
    }

    fn write_new(
        disk: &Arc<dyn Disk>,
        folder: &Path,
        path: &Path,
        header: FileHeader,
        first_bytes: u64,
    ) -> io::Result<(Box<dyn DiskFile>, Map)> {
        let file = disk.create(path)?;
        file.allocate(first_bytes)?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        disk.sync_dir(folder)?;
        let map = disk.map(path, first_bytes)?;
        Ok((file, map))
    }

    fn new(
        disk: &Arc<dyn Disk>,
        path: &Path,
        file: Box<dyn DiskFile>,
        header: FileHeader,
        capacity_bytes: u64,
        map: Map,
        failure: &Failure,
    ) -> Self {
        let seen_bytes = if map.is_live() { map.len() as u64 } else { FILE_HEADER_BYTES as u64 };
        Self {
            header,
            path: path.to_owned(),
            disk: Arc::clone(disk),
            file,
            capacity_bytes,
            allocated_bytes: AtomicU64::new(capacity_bytes),
            published_bytes: AtomicU64::new(FILE_HEADER_BYTES as u64),
            durable_bytes: AtomicU64::new(FILE_HEADER_BYTES as u64),
            map: Mutex::new((map, seen_bytes)),
            directory: RwLock::default(),
            is_torn: AtomicBool::new(false),
            failure: failure.clone(),
            syncing: Mutex::default(),
        }
    }

    /// Opens a file of an earlier run, to be scanned.
    pub fn open(
        disk: &Arc<dyn Disk>,
        folder: &Path,
        id: u64,
        failure: &Failure,
    ) -> Result<Self, QueryError> {
        let path = folder.join(file_name(id));
        let corrupt = |reason| QueryError::Corrupt { path: path.clone(), offset_bytes: 0, reason };
        let file = disk.open(&path)?;
        let capacity_bytes = file.len()?;
        if capacity_bytes > u64::from(u32::MAX) {
            return Err(corrupt("file is longer than a log file can be"));
        }
        let map = disk.map(&path, capacity_bytes)?;
        let header = FileHeader::decode(&map);
        map.check_read().map_err(unreadable(&path))?;
        let header = header.map_err(corrupt)?;
        if SEQUENCES_MAX <= header.first_sequence {
            return Err(corrupt("number of a commit is too large"));
        }
        if header.file_id != id {
            return Err(corrupt("file has the header of another one"));
        }
        Ok(Self::new(disk, &path, file, header, capacity_bytes, map, failure))
    }

    /// Its header.
    pub fn header(&self) -> FileHeader {
        self.header
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.header.file_id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it may become; of a file of an earlier run, how long it is.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Space reserved for it.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes.load(Ordering::Acquire)
    }

    /// Reserves space up to `end_bytes`, and some more. Called by the one writer. A full disk is no
    /// failure of the store.
    ///
    /// A frame in space that is reserved only makes its sync note in the file system's journal that
    /// the space is in use now. Zeros written beforehand would spare that, and were tried: two to
    /// twelve times as many bytes were written, and answers came no sooner.
    pub fn reserve(&self, end_bytes: u64) -> io::Result<()> {
        debug_assert!(end_bytes <= self.capacity_bytes);
        self.failure.check()?;
        let allocated_bytes = self.allocated_bytes();
        if allocated_bytes < end_bytes {
            let more_bytes = allocated_bytes.min(STEP_BYTES_MAX);
            let wanted_bytes = (allocated_bytes + more_bytes).clamp(end_bytes, self.capacity_bytes);
            self.file.allocate(wanted_bytes)?;
            self.allocated_bytes.store(wanted_bytes, Ordering::Release);
        }
        Ok(())
    }

    /// Gives back the space behind `end_bytes`, where the file ends for good. No harm is done
    /// when that fails: whoever reads the file knows where it ends.
    pub fn cut(&self, end_bytes: u64) {
        // Nobody makes a map by the old length meanwhile.
        let mut map = self.map.lock();
        let is_longer = self.file.len().is_ok_and(|bytes| end_bytes < bytes);
        if is_longer && self.file.set_len(end_bytes).is_ok() {
            self.allocated_bytes.store(end_bytes, Ordering::Release);
        }
        // A query may still read the file when its name is gone.
        if map.1 < end_bytes
            && let Ok(whole) = self.disk.map(&self.path, end_bytes)
        {
            *map = (whole, end_bytes);
        }
    }

    /// How far readers may look.
    pub fn published_bytes(&self) -> u64 {
        self.published_bytes.load(Ordering::Acquire)
    }

    /// Whether there is no commit in it.
    pub fn is_empty(&self) -> bool {
        self.published_bytes() <= FILE_HEADER_BYTES as u64
    }

    /// Writes at a position beyond what is published.
    pub fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        debug_assert!(offset_bytes >= self.published_bytes());
        self.failure.check()?;
        self.file
            .write_at(bytes, offset_bytes)
            .inspect_err(|err| self.failure.set("write to the log file failed", err))
    }

    /// Waits until what was published is on the device. Once it failed, it always does.
    pub fn sync(&self) -> io::Result<()> {
        let _syncing = self.syncing.lock();
        let published_bytes = self.published_bytes();
        self.failure.check()?;
        self.file.sync().inspect_err(|err| self.failure.set("sync of the log file failed", err))?;
        self.durable_bytes.fetch_max(published_bytes, Ordering::AcqRel);
        Ok(())
    }

    /// Bytes that are on the device for certain.
    pub fn durable_bytes(&self) -> u64 {
        self.durable_bytes.load(Ordering::Acquire)
    }

    /// A frame tells that everything before this position is on the device.
    pub fn note_durable(&self, durable_bytes: u64) {
        self.durable_bytes.fetch_max(durable_bytes, Ordering::AcqRel);
    }

    /// Brings the bytes before `end_bytes` to the device, those that are not known to be there by
    /// writing them again: after a failed sync the system may take them for written although they
    /// are not, and another sync would do nothing.
    pub fn write_again(&self, end_bytes: u64) -> io::Result<()> {
        let map = self.map(end_bytes)?;
        let mut at = self.durable_bytes();
        while at < end_bytes {
            let piece_bytes = (end_bytes - at).min(PIECE_BYTES);
            let piece = map.get(at as usize..(at + piece_bytes) as usize);
            let piece = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
            // Zeros in place of what the device did not give must not be written.
            map.check_read()?;
            self.file.write_at(piece, at)?;
            at += piece_bytes;
        }
        self.sync()
    }

    /// Where its samples are.
    pub fn directory(&self) -> &RwLock<Directory> {
        &self.directory
    }

    /// Lets readers see the bytes before `end_bytes`; their records are in the directory.
    pub fn publish(&self, end_bytes: u64) {
        self.published_bytes.store(end_bytes, Ordering::Release);
    }

    /// An error when what was read of the map may be zeros, because somebody cut the file.
    pub fn check_whole(&self, map: &Map) -> Result<(), QueryError> {
        if !map.is_torn() {
            return Ok(());
        }
        self.is_torn.store(true, Ordering::Release);
        let reason = "the file was cut while it was open";
        Err(QueryError::Corrupt { path: self.path.clone(), offset_bytes: 0, reason })
    }

    /// Whether a reader found that somebody cut it.
    pub fn is_torn(&self) -> bool {
        self.is_torn.load(Ordering::Acquire)
    }

    /// The file's bytes; at least the first `limit_bytes` are as they were published.
    pub fn map(&self, limit_bytes: u64) -> io::Result<Map> {
        let mut map = self.map.lock();
        if map.1 < limit_bytes {
            let published_bytes = self.published_bytes().max(limit_bytes);
            let new = self.disk.map(&self.path, published_bytes.max(self.allocated_bytes()))?;
            let seen_bytes = if new.is_live() { new.len() as u64 } else { published_bytes };
            *map = (new, seen_bytes);
        }
        Ok(map.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::SimDisk;

    #[test]
    fn after_a_failure_nothing_is_reserved_or_written() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let folder = Path::new("/wal");
        disk.create_dir_all(folder).unwrap();
        let header = FileHeader { file_id: 1, base_ms: 0, first_sequence: 1 };
        let failure = Failure::default();
        let log = LogFile::create(&disk, folder, header, 1 << 20, 5_000, &failure).unwrap();
        failure.set("a test's", &io::Error::other("failed"));
        assert!(log.reserve(50_000).is_err());
        assert!(log.write_at(&[1], 100).is_err());
        assert_eq!(log.allocated_bytes(), 5_000);
        assert_eq!(disk.len(log.path()).unwrap(), 5_000);
    }
}
