//! A disk in memory that loses and tears what was not synced, and fails on request.
//!
//! Each file keeps the content that survives a crash for sure and the writes since. A crash keeps,
//! tears or drops each of these writes by the seed; changes of names survive in order up to a
//! random point after the last sync of their folder. So one seed is one reproducible history.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Bytes, Disk, DiskFile, Map};
use crate::base::rng::{Rng, SimRng};

/// Space of a new simulated disk.
const DEFAULT_SPACE_BYTES: u64 = 8 << 30;

/// A simulated disk. Clones share the content, as two handles of one device would.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    rng: SimRng,
    /// Names as running programs see them.
    names: BTreeMap<PathBuf, FileId>,
    /// Names that are sure to survive a crash.
    durable_names: BTreeMap<PathBuf, FileId>,
    /// Changes of names since their folder was synced, oldest first.
    pending_names: Vec<(PathBuf, Option<FileId>)>,
    files: BTreeMap<FileId, FileState>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    next_id: FileId,
    /// Modifying operations until everything fails; none: never.
    fail_after: Option<u64>,
    space_bytes: u64,
}

type FileId = u64;

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
    fn apply(&self, content: &mut Vec<u8>, keep_bytes: usize) {
        match self {
            Self::Len(len) => content.resize(*len, 0),
            Self::Write { offset, bytes } => {
                let bytes = &bytes[..keep_bytes.min(bytes.len())];
                if content.len() < offset + bytes.len() {
                    content.resize(offset + bytes.len(), 0);
                }
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
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
            locks: BTreeSet::new(),
            next_id: 1,
            fail_after: None,
            space_bytes: DEFAULT_SPACE_BYTES,
        })))
    }

    /// After this many more modifying operations, each one fails with an I/O error.
    pub fn fail_after(&self, operations: Option<u64>) {
        self.0.lock().fail_after = operations;
    }

    /// Changes the size of the disk; writing beyond it fails with `StorageFull`.
    pub fn set_space_bytes(&self, bytes: u64) {
        self.0.lock().space_bytes = bytes;
    }

    /// Cuts the power: unsynced writes are kept, torn or dropped, unsynced names likewise; locks
    /// are released and faults end.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let kept = state.rng.next_u64() as usize % (state.pending_names.len() + 1);
        for (path, id) in std::mem::take(&mut state.pending_names).into_iter().take(kept) {
            set_name(&mut state.durable_names, path, id);
        }
        state.names.clone_from(&state.durable_names);
        for file in state.files.values_mut() {
            let mut content = std::mem::take(&mut file.durable);
            for change in std::mem::take(&mut file.pending) {
                match (state.rng.next_u64() % 3, &change) {
                    (0, _) => {}
                    (1, Change::Write { bytes, .. }) => {
                        let keep = state.rng.next_u64() as usize % (bytes.len() + 1);
                        change.apply(&mut content, keep);
                    }
                    _ => change.apply(&mut content, usize::MAX),
                }
            }
            file.content.clone_from(&content);
            file.durable = content;
        }
        state.locks.clear();
        state.fail_after = None;
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
            Some(0) => Err(io::Error::other("simulated I/O failure")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.content.len() as u64).sum()
    }

    fn file(&mut self, id: FileId) -> &mut FileState {
        self.files.get_mut(&id).expect("an open file exists")
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn name(&mut self, path: &Path, id: Option<FileId>) {
        set_name(&mut self.names, path.to_owned(), id);
        self.pending_names.push((path.to_owned(), id));
    }

    fn change(&mut self, id: FileId, change: Change) -> io::Result<()> {
        self.modify()?;
        let old_bytes = self.file(id).content.len();
        let new_bytes = match &change {
            Change::Len(len) => *len,
            Change::Write { offset, bytes } => old_bytes.max(offset + bytes.len()),
        };
        if self.used_bytes() + new_bytes.saturating_sub(old_bytes) as u64 > self.space_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.file(id);
        change.apply(&mut file.content, usize::MAX);
        file.pending.push(change);
        Ok(())
    }
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
            state.folders.insert(folder.to_owned());
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
        let pending = std::mem::take(&mut state.pending_names);
        let (synced, rest) = pending.into_iter().partition(|(name, _)| name.parent() == Some(path));
        state.pending_names = rest;
        let synced: Vec<_> = synced;
        for (name, id) in synced {
            set_name(&mut state.durable_names, name, id);
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let id = self.0.lock().id(path)?;
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        if !path.parent().is_some_and(|folder| state.folders.contains(folder)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Ok(id) = state.id(path) {
            state.change(id, Change::Len(0))?;
            return Ok(Box::new(SimFile { disk: self.clone(), id }));
        }
        state.modify()?;
        let id = state.next_id;
        state.next_id += 1;
        state.files.insert(id, FileState::default());
        state.name(path, Some(id));
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock();
        let id = state.id(path)?;
        Ok(state.file(id).content.clone())
    }

    fn map(&self, path: &Path, len: u64) -> io::Result<Map> {
        let mut state = self.0.lock();
        let id = state.id(path)?;
        let bytes =
            state.file(id).content.get(..len as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Map(Bytes::Heap(Arc::from(bytes))))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.0.lock();
        let id = state.id(path)?;
        Ok(state.file(id).content.len() as u64)
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.0.lock();
        state.names.contains_key(path) || state.folders.contains(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        let id = state.id(from)?;
        state.name(to, Some(id));
        state.name(from, None);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        state.id(path)?;
        state.name(path, None);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        let names: Vec<_> = state.names.keys().filter(|n| n.starts_with(path)).cloned().collect();
        for name in names {
            state.name(&name, None);
        }
        state.folders.retain(|folder| !folder.starts_with(path));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.modify()?;
        let id = state.id(from)?;
        state.name(to, Some(id));
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.space_bytes.saturating_sub(state.used_bytes()))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.0.lock().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.0.lock().locks.remove(&self.path);
    }
}

struct SimFile {
    disk: SimDisk,
    id: FileId,
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let change = Change::Write { offset: offset_bytes as usize, bytes: bytes.to_vec() };
        self.disk.0.lock().change(self.id, change)
    }

    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let from = offset_bytes as usize;
        let content = &state.file(self.id).content;
        let found = content.get(from..from + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let len = state.file(self.id).content.len().max(len as usize);
        state.change(self.id, Change::Len(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.0.lock().change(self.id, Change::Len(len as usize))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.modify()?;
        let file = state.file(self.id);
        for change in std::mem::take(&mut file.pending) {
            change.apply(&mut file.durable, usize::MAX);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().file(self.id).content.len() as u64)
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
