//! Files and directories, real ([`OsDisk`]) and simulated ([`SimDisk`]).
//!
//! The trait offers just what a store needs to be crash-safe: positioned writes, syncs of files
//! and of directories, atomic rename, and read-only maps. What is written but not synced may be
//! lost or torn by a crash; a created or renamed file is only sure to keep its name after
//! [`Disk::sync_dir`] on its folder.

mod fault;
mod os;
mod sim;

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use os::OsDisk;
pub use sim::SimDisk;

/// A file system. Every method may block on the device.
pub trait Disk: Send + Sync + 'static {
    /// Creates `path` and its missing parents; an existing folder is fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder (files and folders, without `.` and `..`), sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals in this folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Creates an empty file for reading and writing; an existing one is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Maps the first `len` bytes for reading. `len` must not exceed the file's length.
    fn map(&self, path: &Path, len: u64) -> io::Result<Map>;
    /// Length in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;
    /// Whether a file or folder of this name exists; an error when nobody can tell.
    fn try_exists(&self, path: &Path) -> io::Result<bool>;
    /// Atomically gives a file a new name, replacing what bore it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a second name (hard link).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Bytes that may still be written to the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Size of the file system that holds `path`.
    fn total_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes an advisory exclusive lock that lasts until the returned guard is dropped or the
    /// process ends. `WouldBlock` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Whether a file or folder of this name can be seen to exist. Not for decisions that lose
    /// data when a failing device gives the answer.
    fn exists(&self, path: &Path) -> bool {
        self.try_exists(path).unwrap_or(false)
    }

    /// Replaces a small file as a whole: afterwards it has the old content or the new, durably.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = self.write_beside(path, content)?;
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// The first half of [`Disk::replace`]: the new content under another name, which is told. On
    /// failure nothing of it is left, as far as the disk permits, and `path` is as it was.
    fn write_beside(&self, path: &Path, content: &[u8]) -> io::Result<PathBuf> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let temporary = path.with_file_name(format!("{name}.tmp"));
        let write = || {
            let file = self.create(&temporary)?;
            file.write_at(content, 0)?;
            file.sync()
        };
        if let Err(err) = write() {
            let _ = self.remove_file(&temporary);
            return Err(err);
        }
        Ok(temporary)
    }
}

#[expect(clippy::len_without_is_empty, reason = "the length asks the device")]
/// An open file. Reads and writes are positioned, so a file can be shared by threads.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset_bytes`.
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()>;
    /// Fills `bytes` from `offset_bytes`; `UnexpectedEof` when the file is shorter.
    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()>;
    /// Reserves space up to `len` bytes and makes the file that long, zero-filled: later writes
    /// within it cannot meet a full disk.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Waits until data (and the length) are on the device.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// A read-only view of the beginning of a file.
#[derive(Clone, Debug)]
pub struct Map(Bytes);

#[derive(Clone, Debug)]
enum Bytes {
    Os(Arc<fault::Guarded>),
    Heap(Arc<[u8]>),
    /// A copy of which the bytes from a position on could not be read.
    Torn(Arc<[u8]>, u64),
}

impl Map {
    /// Whether bytes written to the file later (within the mapped length) show up here. A heap
    /// copy, as the simulated disk gives, must be mapped anew instead.
    pub fn is_live(&self) -> bool {
        matches!(self.0, Bytes::Os(_))
    }

    /// Whether bytes that could not be read were taken for zeros: the device failed, or somebody
    /// cut the file. To be asked after reading and before trusting what was read.
    pub fn is_torn(&self) -> bool {
        self.torn_at().is_some()
    }

    /// From which position on bytes could not be read.
    pub fn torn_at(&self) -> Option<u64> {
        match &self.0 {
            Bytes::Os(map) => map.torn_at(),
            Bytes::Heap(_) => None,
            Bytes::Torn(_, at) => Some(*at),
        }
    }

    /// An error when bytes could not be read.
    pub fn check_read(&self) -> io::Result<()> {
        match self.torn_at() {
            Some(at) => Err(io::Error::other(format!("bytes from {at} on cannot be read"))),
            None => Ok(()),
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Os(map) => map,
            Bytes::Heap(bytes) | Bytes::Torn(bytes, _) => bytes,
        }
    }
}
