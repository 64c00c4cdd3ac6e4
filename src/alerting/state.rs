//! The log that makes alerts, silences and the notification log survive a crash.
//!
//! One file, `state.log`: eight bytes of magic, then frames. A frame is the length of its payload
//! (u32), a CRC32C over the rest of the frame (u32), the position up to which the file was known
//! to be synced when the frame was written (u64), all little-endian, and the payload: a JSON array
//! of changes. A frame is applied as a whole or not at all.
//!
//! After a crash a damaged end is cut off: nobody was told that it was written. Damage before a
//! position that a later frame names as synced is corruption: it is reported, the damaged file is
//! kept aside as `state.log.corrupt`, and all frames that can be read are used. The file is
//! rewritten as a whole when most of it is outdated; the rename makes that atomic.

mod format;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::alerting::pipeline::Change;
use crate::base::disk::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"NXALRT\0\x01";
/// Length, checksum and synced position.
const HEADER_BYTES: usize = 16;
/// Changes in one frame: keeps frames far below the limit.
const FRAME_CHANGES_MAX: usize = 1_000;
/// A smaller log is not worth rewriting.
const COMPACT_BYTES_MIN: u64 = 4 << 20;
/// Rewritten when it has grown by this factor since the last time.
const COMPACT_GROWTH: u64 = 4;

/// Why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An earlier write failed; what is on the disk is unknown until the next start.
    #[error("alert state log stopped by an earlier write or sync failure")]
    Poisoned,
    /// The file is none of ours, or of a later version.
    #[error("{}: not an alert state log of this version", .path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
}

/// Damage in the middle of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the damaged file was put aside.
    pub path: PathBuf,
    /// Where the first unreadable frame begins.
    pub offset_bytes: u64,
    /// How many bytes could not be read.
    pub lost_bytes: u64,
}

/// What was found at start.
#[derive(Debug)]
pub struct Recovered {
    /// Changes in the order they were made.
    pub changes: Vec<Change>,
    /// Set when some were lost.
    pub damage: Option<Damage>,
}

/// The log, open for appending.
pub struct StateLog {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    file: Box<dyn DiskFile>,
    end_bytes: u64,
    synced_bytes: u64,
    /// Length after the last rewrite.
    base_bytes: u64,
    poisoned: bool,
}

impl StateLog {
    /// Opens the log in `folder`, which is created if need be.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Result<(Self, Recovered), StateError> {
        let path = folder.join("state.log");
        let io = |source| StateError::Io { path: path.clone(), source };
        disk.create_dir_all(folder).map_err(io)?;
        if let Some(parent) = folder.parent() {
            disk.sync_dir(parent).map_err(io)?;
        }
        if !disk.exists(&path) {
            disk.replace(&path, MAGIC).map_err(io)?;
        }
        let bytes = disk.read(&path).map_err(io)?;
        let Some(frames) = bytes.strip_prefix(MAGIC) else {
            return Err(StateError::Unknown { path });
        };
        let scan = scan(frames);
        let mut damage = None;
        if let Some((offset_bytes, lost_bytes)) = scan.damage {
            let aside = folder.join("state.log.corrupt");
            disk.replace(&aside, &bytes).map_err(io)?;
            damage = Some(Damage { path: aside, offset_bytes, lost_bytes });
            let kept = frames_of(&scan.changes, 0);
            disk.replace(&path, &[MAGIC, &kept[..]].concat()).map_err(io)?;
        }
        let file = disk.open(&path).map_err(io)?;
        if damage.is_none() {
            file.set_len(MAGIC.len() as u64 + scan.valid_bytes).map_err(io)?;
        }
        file.sync().map_err(io)?;
        let end_bytes = file.len().map_err(io)?;
        let log = Self {
            disk,
            folder: folder.to_owned(),
            file,
            end_bytes,
            synced_bytes: end_bytes,
            base_bytes: end_bytes,
            poisoned: false,
        };
        Ok((log, Recovered { changes: scan.changes, damage }))
    }

    /// Writes changes and waits until they are on the device.
    pub fn append(&mut self, changes: &[Change]) -> Result<(), StateError> {
        if self.poisoned {
            return Err(StateError::Poisoned);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let frames = frames_of(changes, self.synced_bytes);
        let written = self.file.write_at(&frames, self.end_bytes).and_then(|()| self.file.sync());
        if let Err(source) = written {
            self.poisoned = true;
            return Err(StateError::Io { path: self.folder.join("state.log"), source });
        }
        self.end_bytes += frames.len() as u64;
        self.synced_bytes = self.end_bytes;
        Ok(())
    }

    /// Length of the file in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end_bytes
    }

    /// Whether most of the file is outdated.
    pub fn wants_compaction(&self) -> bool {
        !self.poisoned && self.end_bytes > COMPACT_BYTES_MIN.max(self.base_bytes * COMPACT_GROWTH)
    }

    /// Replaces the file by one that holds just `snapshot`.
    pub fn compact(&mut self, snapshot: &[Change]) -> Result<(), StateError> {
        if self.poisoned {
            return Err(StateError::Poisoned);
        }
        let path = self.folder.join("state.log");
        let content = [MAGIC, &frames_of(snapshot, 0)[..]].concat();
        let replaced = self.disk.replace(&path, &content).and_then(|()| self.disk.open(&path));
        match replaced {
            Ok(file) => {
                self.file = file;
                self.end_bytes = content.len() as u64;
                self.synced_bytes = self.end_bytes;
                self.base_bytes = self.end_bytes;
                Ok(())
            }
            Err(source) => {
                // Whether the name now leads to the old or the new file is unknown.
                self.poisoned = true;
                Err(StateError::Io { path, source })
            }
        }
    }
}

fn frames_of(changes: &[Change], synced_bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for part in changes.chunks(FRAME_CHANGES_MAX) {
        let payload = format::encode(part);
        let len = u32::try_from(payload.len()).expect("request bodies are far below 4 GiB");
        let synced = synced_bytes.to_le_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&synced), &payload);
        out.extend(len.to_le_bytes());
        out.extend(crc.to_le_bytes());
        out.extend(synced);
        out.extend(payload);
    }
    out
}

struct Scan {
    changes: Vec<Change>,
    /// Bytes up to the end of the last good frame, the magic not counted.
    valid_bytes: u64,
    /// Offset in the file and length of what could not be read before synced frames.
    damage: Option<(u64, u64)>,
}

/// A frame at the beginning of `bytes`: synced position, changes, length.
fn frame(bytes: &[u8]) -> Option<(u64, Vec<Change>, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let len = u32::from_le_bytes(header.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?);
    let synced = u64::from_le_bytes(header.get(8..16)?.try_into().ok()?);
    let payload = rest.get(..len)?;
    if crc32c::crc32c_append(crc32c::crc32c(header.get(8..16)?), payload) != crc {
        return None;
    }
    Some((synced, format::decode(payload)?, HEADER_BYTES + len))
}

fn scan(frames: &[u8]) -> Scan {
    let mut scan = Scan { changes: Vec::new(), valid_bytes: 0, damage: None };
    let mut at = 0;
    while let Some((_, changes, len)) = frames.get(at..).and_then(frame) {
        scan.changes.extend(changes);
        at += len;
    }
    scan.valid_bytes = at as u64;
    // Only when a later frame knows of a synced position beyond here was something lost.
    let (first_bad, mut bad_since) = (at, at);
    let mut lost_bytes = 0;
    let mut proven = false;
    let mut later = Vec::new();
    while at < frames.len() {
        match frames.get(at..).and_then(frame) {
            Some((synced, changes, len)) => {
                proven |= synced > (MAGIC.len() + first_bad) as u64;
                lost_bytes += (at - bad_since) as u64;
                later.extend(changes);
                at += len;
                bad_since = at;
            }
            None => at += 1,
        }
    }
    if proven {
        scan.changes.extend(later);
        scan.damage = Some(((MAGIC.len() + first_bad) as u64, lost_bytes));
    }
    scan
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::alerting::notification_log::{LogEntry, LogKey};
    use crate::base::disk::SimDisk;
    use crate::base::rng::{Rng, SimRng};

    fn change(number: u64) -> Change {
        let entry = LogEntry {
            timestamp_ms: number as i64,
            expires_at_ms: 9,
            firing: BTreeSet::from([number]),
            resolved: BTreeSet::new(),
            store: BTreeMap::new(),
        };
        let key = LogKey { group_key: format!("g{number}"), integration: "r/slack/0".to_owned() };
        Change::Notified(key, entry)
    }

    fn open(disk: &SimDisk) -> (StateLog, Recovered) {
        StateLog::open(Arc::new(disk.clone()), Path::new("/data/alerting")).unwrap()
    }

    #[test]
    fn acknowledged_changes_survive_crashes() {
        for seed in 0..300 {
            let (disk, rng) = (SimDisk::new(seed), SimRng::new(seed));
            let (mut log, _) = open(&disk);
            disk.sync_dir(Path::new("/data")).unwrap();
            let (mut acknowledged, mut submitted) = (Vec::new(), Vec::new());
            disk.fail_after(Some(rng.next_u64() % 40));
            for number in 0..20 {
                let batch: Vec<_> =
                    (0..=rng.next_u64() % 3).map(|part| change(number * 10 + part)).collect();
                submitted.extend(batch.clone());
                if log.append(&batch).is_err() {
                    assert!(matches!(log.append(&batch), Err(StateError::Poisoned)));
                    break;
                }
                acknowledged.extend(batch);
                if number == 10 && log.compact(&acknowledged).is_err() {
                    break;
                }
            }
            disk.crash();
            let (mut log, recovered) = open(&disk);
            assert_eq!(recovered.damage, None, "seed {seed}");
            assert!(recovered.changes.starts_with(&acknowledged), "lost changes, seed {seed}");
            assert!(submitted.starts_with(&recovered.changes), "invented changes, seed {seed}");
            log.append(&[change(999)]).unwrap();
            assert_eq!(open(&disk).1.changes.last(), Some(&change(999)));
        }
    }

    #[test]
    fn damage_before_the_synced_position_is_reported() {
        let disk = SimDisk::new(1);
        let (mut log, _) = open(&disk);
        for number in 0..3 {
            log.append(&[change(number)]).unwrap();
        }
        let frame_bytes = (log.len_bytes() as usize - MAGIC.len()) / 3;
        let path = Path::new("/data/alerting/state.log");
        disk.flip_bit(path, MAGIC.len() + frame_bytes + 20, 3);
        let (_, recovered) = open(&disk);
        assert_eq!(recovered.changes, [change(0), change(2)]);
        let damage = recovered.damage.unwrap();
        assert_eq!(damage.offset_bytes as usize, MAGIC.len() + frame_bytes);
        assert_eq!(damage.lost_bytes as usize, frame_bytes);
        assert!(disk.exists(&damage.path));
        assert_eq!(open(&disk).1.damage, None, "the rewritten log is sound");
    }

    #[test]
    fn a_damaged_last_frame_is_a_torn_tail() {
        let disk = SimDisk::new(1);
        let (mut log, _) = open(&disk);
        log.append(&[change(0)]).unwrap();
        let whole = log.len_bytes() as usize;
        log.append(&[change(1)]).unwrap();
        disk.flip_bit(Path::new("/data/alerting/state.log"), whole + 20, 3);
        let (log, recovered) = open(&disk);
        assert_eq!((recovered.changes, recovered.damage), (vec![change(0)], None));
        assert_eq!(log.len_bytes() as usize, whole);
    }
}
