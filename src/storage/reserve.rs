//! A file that gives way when the disk is full, so that what frees space can go on.
//!
//! Deleting and retention write an edit, a log file's header, perhaps a segment without what is
//! gone. When there is no space for these, the reserve is removed, and until it is there again no
//! sample is taken that needs new space. It has no content, and a length that follows the data;
//! a start finds it or makes it anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tracing::{error, info, warn};

use super::manifest::is_full;
use super::options::SealError;
use super::store::Store;
use crate::base::disk::Disk;

/// Its name in the data directory.
const FILE_NAME: &str = "reserve";

/// It has this part of the data's length, as a power of two.
const PART: u64 = 64;
/// But not less: enough for a log file or a manifest to begin.
const BYTES_MIN: u64 = 64 << 10;

/// How long it should be beside so much data, at most `bytes_max`.
fn target_bytes(data_bytes: u64, bytes_max: u64) -> u64 {
    let part = (data_bytes / PART).max(BYTES_MIN);
    (1 << part.ilog2()).min(bytes_max)
}

/// Where it is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE_NAME)
}

/// Does something that needs space; if there is none, once more after the reserve has given way.
pub fn or_give_way<T>(
    disk: &dyn Disk,
    folder: &Path,
    mut work: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    match work() {
        Err(err) if is_full(&err) && disk.remove_file(&path(folder)).is_ok() => work(),
        done => done,
    }
}

impl Store {
    /// Makes the reserve as long as it should be, when there is space for twice as much. Where a
    /// longer one has no room the one that is there stays; false when there is none and no room.
    pub fn keep_reserve(&self) -> bool {
        let segments = &self.version.load().segments;
        let data_bytes = segments.iter().map(|own| own.segment.info().bytes).sum();
        let wanted_bytes = target_bytes(data_bytes, self.options.reserve_bytes_max);
        if self.reserve_bytes.load(Ordering::Acquire) == wanted_bytes {
            return true;
        }
        let path = path(&self.options.path);
        let has_bytes = self.disk.len(&path).unwrap_or(0);
        let set = self.set_reserve(&path, has_bytes, wanted_bytes);
        let is_full = set.as_ref().is_err_and(is_full);
        let kept_bytes = match set {
            Ok(()) => wanted_bytes,
            Err(_) if is_full => has_bytes,
            Err(_) => 0,
        };
        if kept_bytes == 0 {
            let _ = self.disk.remove_file(&path);
        }
        self.reserve_bytes.store(kept_bytes, Ordering::Release);
        if kept_bytes > 0 && self.gave_way.swap(false, Ordering::AcqRel) {
            info!("There is space on the disk again.");
        }
        kept_bytes > 0 || !is_full
    }

    /// Gives the reserve another length. On a full disk it has the one that it had.
    fn set_reserve(&self, path: &Path, has_bytes: u64, wanted_bytes: u64) -> io::Result<()> {
        if has_bytes == wanted_bytes {
            return Ok(());
        }
        if wanted_bytes < has_bytes {
            return self.disk.open(path)?.set_len(wanted_bytes);
        }
        let room_bytes = self.disk.free_bytes(&self.options.path)?.saturating_add(has_bytes);
        if room_bytes / 2 < wanted_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = if has_bytes == 0 { self.disk.create(path) } else { self.disk.open(path) }?;
        let grown = file.allocate(wanted_bytes);
        if grown.is_err() {
            // Some file systems keep what they found before they were full.
            file.set_len(has_bytes)?;
        }
        grown
    }

    /// Does something that frees space in the end; if it finds none to begin with, once more after
    /// the reserve has given way.
    pub fn with_reserve<T>(&self, work: impl Fn() -> Result<T, SealError>) -> Result<T, SealError> {
        match work() {
            Err(SealError::DiskFull) if self.reserve_bytes.swap(0, Ordering::AcqRel) != 0 => {
                self.gave_way.store(true, Ordering::Release);
                warn!("The disk is full: the reserve is used to free space.");
                if self.disk.remove_file(&path(&self.options.path)).is_err() {
                    return Err(SealError::DiskFull);
                }
                work()
            }
            done => done,
        }
    }

    /// Whether samples may use new space.
    pub fn may_grow(&self) -> bool {
        // A disk that fails otherwise is not full: whatever needs the space meets the failure.
        !self.gave_way.load(Ordering::Acquire) || self.keep_reserve()
    }

    /// Tells people once when samples are refused for want of space, and when no longer.
    pub fn note_space(&self, is_full: bool) {
        if self.is_full.load(Ordering::Relaxed) == is_full {
            return;
        }
        self.is_full.store(is_full, Ordering::Relaxed);
        if is_full {
            error!("The disk is full: samples are refused until there is space. Queries go on.");
        } else {
            info!("Samples are taken again after the disk was full.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_follows_the_data() {
        for (data_bytes, bytes_max, expected) in [
            (0, 64 << 20, 64 << 10),
            (4_300_000, 64 << 20, 64 << 10),
            (1 << 30, 64 << 20, 16 << 20),
            (u64::MAX, 64 << 20, 64 << 20),
            (1 << 30, 16 << 10, 16 << 10),
            (1 << 30, 0, 0),
        ] {
            assert_eq!(target_bytes(data_bytes, bytes_max), expected, "{data_bytes}");
        }
    }
}
