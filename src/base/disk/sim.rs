//! A disk in memory that loses and tears what was not synced, and fails on request.
//!
//! Each file keeps the content that survives a crash for sure and the writes since. A crash keeps,
//! tears (a prefix, or any of its sectors) or drops each of these writes by the seed. Changes of
//! names since the last sync of their folder survive in order up to a random point, as a
//! journaling file system has it, or any of them without the others, as nothing forbids. What a
//! failed sync left behind may look written until the power goes. One seed is one history.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Bytes, Disk, DiskFile, Map};
use crate::base::rng::{Rng, SimRng};

/// Space of a new simulated disk.
const DEFAULT_SPACE_BYTES: u64 = 8 << 30;
/// What a device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A simulated disk. Clones share the content, as two handles of one device would.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    rng: SimRng,
    /// Names as running programs see them.
    names: BTreeMap<PathBuf, FileId>,
    /// Names that are sure to survive a crash.
    durable_names: BTreeMap<PathBuf, FileId>,
    /// Changes of names since their folder was synced, oldest first. Each happens as a whole.
    pending_names: Vec<NameChange>,
    files: BTreeMap<FileId, FileState>,
    folders: BTreeSet<PathBuf>,
    /// Those whose parent was not synced since they were made.
    unsynced_folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    next_id: FileId,
    /// Modifying operations until one fails; none: never.
    fail_after: Option<u64>,
    /// Whether only that one fails.
    fails_once: bool,
    /// One in so many reads and maps has a bit flipped; 0: none.
    flip_one_in: u64,
    /// Bytes of files from such a position on cannot be read.
    unreadable: BTreeMap<FileId, usize>,
    /// Whether nobody can tell if a file exists.
    is_blind: bool,
    space_bytes: u64,
    /// Which run of the program has the disk; files and locks of an earlier one are dead.
    run: u64,
}

type FileId = u64;
type NameChange = Vec<(PathBuf, Option<FileId>)>;

#[derive(Default)]
struct FileState {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Len(len) => content.resize(*len, 0),
            Self::Write { offset, bytes } => {
                if content.len() < offset + bytes.len() {
                    content.resize(offset + bytes.len(), 0);
                }
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// What a crash makes of it: all, nothing, a prefix, or some of the sectors.
    fn survive(self, rng: &SimRng, content: &mut Vec<u8>) {
        let below = |bound: usize| rng.next_u64() as usize % bound;
        match (below(5), self) {
            (0 | 1, change) => change.apply(content),
            (2, Self::Write { offset, mut bytes }) => {
                bytes.truncate(below(bytes.len() + 1));
                Self::Write { offset, bytes }.apply(content);
            }
            (3, Self::Write { offset, bytes }) => {
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
                    if below(2) == 0 {
                        let bytes = bytes[at..end].to_vec();
                        Self::Write { offset: offset + at, bytes }.apply(content);
                    }
                    at = end;
                }
            }
            _ => {}
        }
    }
}

impl SimDisk {
    /// An empty disk whose faults follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: SimRng::new(seed),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            files: BTreeMap::new(),
            folders: BTreeSet::from([PathBuf::from("/"), PathBuf::new()]),
            unsynced_folders: BTreeSet::new(),
            locks: BTreeSet::new(),
            next_id: 1,
            fail_after: None,
            fails_once: false,
            flip_one_in: 0,
            unreadable: BTreeMap::new(),
            is_blind: false,
            space_bytes: DEFAULT_SPACE_BYTES,
            run: 0,
        })))
    }

    /// After this many more modifying operations, each one fails with an I/O error.
    pub fn fail_after(&self, operations: Option<u64>) {
        let mut state = self.0.lock();
        state.fail_after = operations;
        state.fails_once = false;
    }

    /// After this many more modifying operations, one fails with an I/O error.
    pub fn fail_once_after(&self, operations: u64) {
        let mut state = self.0.lock();
        state.fail_after = Some(operations);
        state.fails_once = true;
    }

    /// From now on one in so many reads and maps has one bit flipped, the file not; 0: none.
    pub fn flip_reads(&self, one_in: u64) {
        self.0.lock().flip_one_in = one_in;
    }

    /// From now on the bytes of a file from this position on cannot be read; `None`: all can.
    pub fn set_unreadable(&self, path: &Path, from: Option<usize>) {
        let mut state = self.0.lock();
        let id = state.names[path];
        match from {
            Some(from) => state.unreadable.insert(id, from),
            None => state.unreadable.remove(&id),
        };
    }

    /// Whether asking if a file exists fails.
    pub fn set_blind(&self, is_blind: bool) {
        self.0.lock().is_blind = is_blind;
    }

    /// Changes the size of the disk; writing beyond it fails with `StorageFull`.
    pub fn set_space_bytes(&self, bytes: u64) {
        self.0.lock().space_bytes = bytes;
    }

    /// Changes the size of the disk so that so many bytes are free.
    pub fn set_free_bytes(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.space_bytes = state.used_bytes().saturating_add(bytes);
    }

    /// Kills the running program: its open files and locks are dead, what it wrote stays.
    pub fn kill(&self) {
        let mut state = self.0.lock();
        state.run += 1;
        state.locks.clear();
        state.fail_after = None;
    }

    /// Cuts the power: unsynced writes are kept, torn or dropped, unsynced names likewise; locks
    /// are released and faults end.
    pub fn crash(&self) {
        self.kill();
        let mut state = self.0.lock();
        let state = &mut *state;
        let names = std::mem::take(&mut state.pending_names);
        let in_order = state.rng.next_u64().is_multiple_of(2);
        let kept = state.rng.next_u64() as usize % (names.len() + 1);
        for (index, change) in names.into_iter().enumerate() {
            let coin = state.rng.next_u64().is_multiple_of(2);
            if if in_order { index < kept } else { coin } {
                for (path, id) in change {
                    set_name(&mut state.durable_names, path, id);
                }
            }
        }
        state.names.clone_from(&state.durable_names);
        for file in state.files.values_mut() {
            let mut content = std::mem::take(&mut file.durable);
            for change in std::mem::take(&mut file.pending) {
                change.survive(&state.rng, &mut content);
            }
            file.content.clone_from(&content);
            file.durable = content;
        }
        let named: BTreeSet<FileId> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        state.flip_one_in = 0;
    }

    /// All files, by name.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// Folders that a power cut may take: their parents were not synced since they were made.
    pub fn unsynced_folders(&self) -> Vec<PathBuf> {
        self.0.lock().unsynced_folders.iter().cloned().collect()
    }

    /// Flips one bit of a file, in what is on the device and in what is read from now on.
    pub fn flip_bit(&self, path: &Path, offset_bytes: usize, bit: u8) {
        let mut state = self.0.lock();
        let id = state.names[path];
        let file = state.files.get_mut(&id).expect("a named file exists");
        for content in [&mut file.content, &mut file.durable] {
            if let Some(byte) = content.get_mut(offset_bytes) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}

impl State {
    /// Counts a modifying operation, or fails it.
    fn modify(&mut self) -> io::Result<()> {
        match &mut self.fail_after {
            Some(0) => {
                if self.fails_once {
                    self.fail_after = None;
                }
                Err(io::Error::other("simulated I/O failure"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What files with a name take up; one without is freed when its last handle goes.
    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<&FileId> = self.names.values().collect();
        named.iter().map(|id| self.files[*id].content.len() as u64).sum()
    }

    /// The content of an open file, unless the program that opened it has ended.
    fn open_file(&mut self, file: &SimFile) -> io::Result<&mut FileState> {
        if file.run != self.run {
            return Err(io::Error::other("the program that opened this file has ended"));
        }
        Ok(self.file(file.id))
    }

    fn file(&mut self, id: FileId) -> &mut FileState {
        self.files.get_mut(&id).expect("an open file exists")
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn name(&mut self, changes: NameChange) {
        for (path, id) in &changes {
            set_name(&mut self.names, path.clone(), *id);
        }
        self.pending_names.push(changes);
    }

    fn change(&mut self, id: FileId, change: Change) -> io::Result<()> {
        if let Err(err) = self.modify() {
            // The device took some of it.
            if let Change::Write { offset, mut bytes } = change {
                bytes.truncate(self.rng.next_u64() as usize % (bytes.len() + 1));
                let change = Change::Write { offset, bytes };
                let file = self.file(id);
                if offset <= file.content.len() {
                    change.apply(&mut file.content);
                    file.pending.push(change);
                }
            }
            return Err(err);
        }
        let old_bytes = self.file(id).content.len();
        let new_bytes = match &change {
            Change::Len(len) => *len,
            Change::Write { offset, bytes } => old_bytes.max(offset + bytes.len()),
        };
        let grown_bytes = new_bytes.saturating_sub(old_bytes) as u64;
        if grown_bytes > 0 && self.used_bytes() + grown_bytes > self.space_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.file(id);
        change.apply(&mut file.content);
        file.pending.push(change);
        Ok(())
    }

    /// What a read gives: mostly what is there.
    fn flipped(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.flip_one_in > 0
            && !bytes.is_empty()
            && self.rng.next_u64().is_multiple_of(self.flip_one_in)
        {
            let bit = self.rng.next_u64() as usize % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes
    }
}

fn unreadable() -> io::Error {
    io::Error::other("simulated read failure")
}

fn set_name(names: &mut BTreeMap<PathBuf, FileId>, path: PathBuf, id: Option<FileId>) {
    match id {
        Some(id) => names.insert(path, id),
        None => names.remove(&path),
    };
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        for folder in path.ancestors() {
            if state.folders.insert(folder.to_owned()) {
                state.unsynced_folders.insert(folder.to_owned());
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        if !state.folders.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = state.names.keys().chain(&state.folders);
        let inside = paths.filter(|child| child.parent() == Some(path));
        let names =
            inside.filter_map(|child| Some(child.file_name()?.to_string_lossy().into_owned()));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        state.unsynced_folders.retain(|folder| folder.parent() != Some(path));
        let pending = std::mem::take(&mut state.pending_names);
        for change in pending {
            let (synced, rest): (NameChange, NameChange) =
                change.into_iter().partition(|(name, _)| name.parent() == Some(path));
            for (name, id) in synced {
                set_name(&mut state.durable_names, name, id);
            }
            if !rest.is_empty() {
                state.pending_names.push(rest);
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.0.lock();
        let (id, run) = (state.id(path)?, state.run);
        Ok(Box::new(SimFile { disk: self.clone(), id, run }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        if !path.parent().is_some_and(|folder| state.folders.contains(folder)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let run = state.run;
        if let Ok(id) = state.id(path) {
            state.change(id, Change::Len(0))?;
            return Ok(Box::new(SimFile { disk: self.clone(), id, run }));
        }
        state.modify()?;
        let id = state.next_id;
        state.next_id += 1;
        state.files.insert(id, FileState::default());
        state.name(vec![(path.to_owned(), Some(id))]);
        Ok(Box::new(SimFile { disk: self.clone(), id, run }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock();
        let id = state.id(path)?;
        if state.unreadable.contains_key(&id) {
            return Err(unreadable());
        }
        let content = state.file(id).content.clone();
        Ok(state.flipped(content))
    }

    fn map(&self, path: &Path, len: u64) -> io::Result<Map> {
        let mut state = self.0.lock();
        let id = state.id(path)?;
        let bytes =
            state.file(id).content.get(..len as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = bytes.to_vec();
        if let Some(from) = state.unreadable.get(&id).filter(|from| **from < bytes.len()) {
            bytes[*from..].fill(0);
            return Ok(Map(Bytes::Torn(Arc::from(bytes), *from as u64)));
        }
        Ok(Map(Bytes::Heap(Arc::from(state.flipped(bytes)))))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.0.lock();
        let id = state.id(path)?;
        Ok(state.file(id).content.len() as u64)
    }

    fn try_exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.0.lock();
        if state.is_blind {
            return Err(unreadable());
        }
        Ok(state.names.contains_key(path) || state.folders.contains(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        let id = state.id(from)?;
        state.name(vec![(to.to_owned(), Some(id)), (from.to_owned(), None)]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        state.id(path)?;
        state.name(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        let names: Vec<_> = state.names.keys().filter(|n| n.starts_with(path)).cloned().collect();
        for name in names {
            state.name(vec![(name, None)]);
        }
        state.folders.retain(|folder| !folder.starts_with(path));
        state.unsynced_folders.retain(|folder| !folder.starts_with(path));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        let id = state.id(from)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.name(vec![(to.to_owned(), Some(id))]);
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.space_bytes.saturating_sub(state.used_bytes()))
    }

    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.0.lock().space_bytes)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.0.lock();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned(), run: state.run }))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    run: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.run == self.run {
            state.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    id: FileId,
    run: u64,
}

impl SimFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.open_file(self)?;
        state.change(self.id, change)
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.change(Change::Write { offset: offset_bytes as usize, bytes: bytes.to_vec() })
    }

    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let from = offset_bytes as usize;
        if state.unreadable.get(&self.id).is_some_and(|bad| *bad < from + bytes.len()) {
            return Err(unreadable());
        }
        let content = &state.open_file(self)?.content;
        let found = content.get(from..from + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let found = found.to_vec();
        bytes.copy_from_slice(&state.flipped(found));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = self.len()?.max(len);
        self.change(Change::Len(len as usize))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len as usize))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let state = &mut *state;
        state.open_file(self)?;
        if let Err(err) = state.modify() {
            // Some writes are given up, although they can still be read: a second sync would
            // succeed without them.
            let rng = &state.rng;
            let file = state.files.get_mut(&self.id).expect("an open file exists");
            file.pending.retain(|_| rng.next_u64().is_multiple_of(2));
            return Err(err);
        }
        let file = state.file(self.id);
        for change in std::mem::take(&mut file.pending) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().open_file(self)?.content.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> &'static Path {
        Path::new("/data/file")
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.create_dir_all(Path::new("/data")).unwrap();
            let file = disk.create(path()).unwrap();
            file.write_at(b"kept", 0).unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/data")).unwrap();
            file.write_at(b"maybe", 4).unwrap();
            disk.crash();
            let found = disk.read(path()).unwrap();
            assert!(found.starts_with(b"kept"), "seed {seed}");
            assert!(b"keptmaybe".starts_with(&found[..]), "seed {seed}: {found:?}");
        }
    }

    #[test]
    fn unsynced_names_are_lost_by_some_crash_and_faults_fail_writes() {
        let lost = (0..50).any(|seed| {
            let disk = SimDisk::new(seed);
            disk.create_dir_all(Path::new("/data")).unwrap();
            disk.create(path()).unwrap();
            disk.crash();
            !disk.exists(path())
        });
        assert!(lost);
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let file = disk.create(path()).unwrap();
        disk.fail_after(Some(1));
        file.write_at(b"a", 0).unwrap();
        assert!(file.write_at(b"b", 1).is_err());
        disk.fail_after(None);
        disk.set_space_bytes(1);
        let full = file.write_at(b"bc", 1).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn one_operation_fails_or_one_bit_is_read_wrong() {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let file = disk.create(path()).unwrap();
        disk.fail_once_after(0);
        assert!(file.write_at(b"a", 0).is_err());
        file.write_at(&[0; 9], 0).unwrap();
        disk.flip_reads(1);
        let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(ones(&disk.read(path()).unwrap()), 1);
        assert_eq!(ones(&disk.map(path(), 9).unwrap()), 1);
        disk.flip_reads(0);
        assert_eq!(disk.read(path()).unwrap(), [0; 9]);
    }

    /// The second sync succeeds, and yet some crash shows that the first write is gone.
    #[test]
    fn what_a_failed_sync_gave_up_is_not_saved_by_the_next_one() {
        let lost = (0..50).any(|seed| {
            let disk = SimDisk::new(seed);
            disk.create_dir_all(Path::new("/data")).unwrap();
            let file = disk.create(path()).unwrap();
            disk.sync_dir(Path::new("/data")).unwrap();
            file.write_at(b"lost", 0).unwrap();
            disk.fail_once_after(0);
            assert!(file.sync().is_err());
            file.sync().unwrap();
            assert_eq!(disk.read(path()).unwrap(), b"lost");
            disk.crash();
            disk.read(path()).unwrap() != b"lost"
        });
        assert!(lost);
    }

    #[test]
    fn a_rename_happens_whole_and_removed_files_free_their_space() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.create_dir_all(Path::new("/data")).unwrap();
            disk.set_space_bytes(10);
            let file = disk.create(path()).unwrap();
            file.write_at(&[1; 8], 0).unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/data")).unwrap();
            let other = Path::new("/data/other");
            disk.rename(path(), other).unwrap();
            disk.crash();
            assert_ne!(disk.exists(path()), disk.exists(other), "seed {seed}");
            let left = disk.paths().remove(0);
            disk.remove_file(&left).unwrap();
            disk.create(path()).unwrap().write_at(&[1; 8], 0).unwrap();
        }
    }

    #[test]
    fn both_disks_replace_files_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let sim = SimDisk::new(3);
        sim.create_dir_all(folder.path()).unwrap();
        for disk in [&sim as &dyn Disk, &super::super::OsDisk] {
            let target = folder.path().join("state");
            disk.replace(&target, b"one").unwrap();
            disk.replace(&target, b"two").unwrap();
            assert_eq!(disk.read(&target).unwrap(), b"two");
            assert_eq!(disk.list(folder.path()).unwrap(), ["state"]);
            assert_eq!(&disk.map(&target, 3).unwrap()[..], b"two");
            let lock = disk.lock(&folder.path().join("lock")).unwrap();
            assert!(disk.lock(&folder.path().join("lock")).is_err());
            drop(lock);
        }
    }
}
