//! What a power cut may leave of real writes: a store with its threads works on real files, all
//! that it asks of the disk is recorded, and disks are made of beginnings of the record, on which
//! pages that were not synced stand as they were at any time since.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::concurrency::{DELETER, WRITERS, expected, read_writer, row};
use super::*;
use crate::base::disk::{Disk, DiskFile, Map, OsDisk};
use crate::base::rng::Rng as _;

const PAGE_BYTES: usize = 4096;
/// Rows of each writer before the restart and after it.
const ROWS: u64 = 40;
/// More than there are rows to be deleted between two starts.
const ROUND_ROWS: u64 = 1_000_000;
/// Disks that are made of the record.
const IMAGES: usize = 250;

enum Event {
    Folder(PathBuf),
    Write {
        file: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Len {
        file: u64,
        len: usize,
        may_shrink: bool,
    },
    /// A sync ended that began when there were so many events.
    Synced {
        file: u64,
        covers: usize,
    },
    Names(Vec<(PathBuf, Option<u64>)>),
    SyncedFolder {
        folder: PathBuf,
        covers: usize,
    },
    /// A writer is about to commit its `n`-th row.
    Begun(usize, u64),
    /// It was told that so many are safe.
    Safe(usize, u64),
    /// Rows up to this of one more writer were deleted.
    Deleted(u64),
    /// There is a snapshot, which was begun when there were so many events.
    Snapshot {
        path: PathBuf,
        begun: usize,
    },
}

#[derive(Default)]
struct Tape {
    events: Vec<Event>,
    names: BTreeMap<PathBuf, u64>,
    files: u64,
}

impl Tape {
    fn name(&mut self, changes: Vec<(PathBuf, Option<u64>)>) {
        for (path, file) in &changes {
            match file {
                Some(file) => self.names.insert(path.clone(), *file),
                None => self.names.remove(path),
            };
        }
        self.events.push(Event::Names(changes));
    }
}

/// Real files, and a record of what changes them. Writes are made with the record locked, so that
/// both have one order; syncs are not.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Tape>>);

impl Recorder {
    fn note(&self, event: Event) {
        self.0.lock().events.push(event);
    }
}

impl Disk for Recorder {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.note(Event::Folder(path.to_owned()));
        OsDisk.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let covers = self.0.lock().events.len();
        OsDisk.sync_dir(path)?;
        self.note(Event::SyncedFolder { folder: path.to_owned(), covers });
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let real = OsDisk.open(path)?;
        let file = self.0.lock().names[path];
        Ok(Box::new(RecordedFile { recorder: self.clone(), file, real }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut tape = self.0.lock();
        let real = OsDisk.create(path)?;
        let known = tape.names.get(path).copied();
        let file = if let Some(file) = known {
            tape.events.push(Event::Len { file, len: 0, may_shrink: true });
            file
        } else {
            tape.files += 1;
            let file = tape.files;
            tape.name(vec![(path.to_owned(), Some(file))]);
            file
        };
        Ok(Box::new(RecordedFile { recorder: self.clone(), file, real }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        OsDisk.read(path)
    }

    fn map(&self, path: &Path, len: u64) -> io::Result<Map> {
        OsDisk.map(path, len)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        OsDisk.len(path)
    }

    fn try_exists(&self, path: &Path) -> io::Result<bool> {
        OsDisk.try_exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tape = self.0.lock();
        OsDisk.rename(from, to)?;
        let file = tape.names[from];
        tape.name(vec![(to.to_owned(), Some(file)), (from.to_owned(), None)]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut tape = self.0.lock();
        OsDisk.remove_file(path)?;
        tape.name(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tape = self.0.lock();
        OsDisk.remove_dir_all(path)?;
        let inside: Vec<_> = tape.names.keys().filter(|own| own.starts_with(path)).collect();
        let gone = inside.into_iter().map(|own| (own.clone(), None)).collect();
        tape.name(gone);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tape = self.0.lock();
        OsDisk.link(from, to)?;
        let file = tape.names[from];
        tape.name(vec![(to.to_owned(), Some(file))]);
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(path)
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.total_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsDisk.lock(path)
    }
}

struct RecordedFile {
    recorder: Recorder,
    file: u64,
    real: Box<dyn DiskFile>,
}

impl RecordedFile {
    fn set(&self, len: u64, may_shrink: bool) -> io::Result<()> {
        let mut tape = self.recorder.0.lock();
        if may_shrink {
            self.real.set_len(len)?;
        } else {
            self.real.allocate(len)?;
        }
        tape.events.push(Event::Len { file: self.file, len: len as usize, may_shrink });
        Ok(())
    }
}

impl DiskFile for RecordedFile {
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let mut tape = self.recorder.0.lock();
        self.real.write_at(bytes, offset_bytes)?;
        let (file, offset, bytes) = (self.file, offset_bytes as usize, bytes.to_vec());
        tape.events.push(Event::Write { file, offset, bytes });
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        self.real.read_at(bytes, offset_bytes)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set(len, false)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set(len, true)
    }

    fn sync(&self) -> io::Result<()> {
        let covers = self.recorder.0.lock().events.len();
        self.real.sync()?;
        self.recorder.note(Event::Synced { file: self.file, covers });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
}

/// What is durable of a part of the record, and what is not; positions of events.
#[derive(Default)]
struct Cut<'a> {
    contents: BTreeMap<u64, Vec<u8>>,
    pending: BTreeMap<u64, Vec<(usize, &'a Event)>>,
    names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<(usize, PathBuf, Option<u64>)>,
    folders: Vec<PathBuf>,
}

fn apply(event: &Event, content: &mut Vec<u8>) {
    match event {
        Event::Write { offset, bytes, .. } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
        Event::Len { len, may_shrink, .. } => {
            content.resize(if *may_shrink { *len } else { content.len().max(*len) }, 0);
        }
        _ => unreachable!("only these change contents"),
    }
}

impl<'a> Cut<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut cut = Self::default();
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Folder(path) => cut.folders.push(path.clone()),
                Event::Write { file, .. } | Event::Len { file, .. } => {
                    cut.pending.entry(*file).or_default().push((at, event));
                }
                Event::Synced { file, covers } => {
                    let content = cut.contents.entry(*file).or_default();
                    let pending = cut.pending.entry(*file).or_default();
                    let covered = pending.partition_point(|(at, _)| at < covers);
                    pending.drain(..covered).for_each(|(_, event)| apply(event, content));
                }
                Event::Names(changes) => {
                    let changes = changes.iter().cloned();
                    cut.pending_names.extend(changes.map(|(path, file)| (at, path, file)));
                }
                Event::SyncedFolder { folder, covers } => {
                    let is_durable = |own: &mut (usize, PathBuf, Option<u64>)| {
                        own.0 < *covers && own.1.parent() == Some(folder)
                    };
                    for (_, path, file) in cut.pending_names.extract_if(.., is_durable) {
                        set(&mut cut.names, path, file);
                    }
                }
                Event::Begun(..) | Event::Safe(..) | Event::Deleted(_) | Event::Snapshot { .. } => {
                }
            }
        }
        cut
    }

    /// A disk that has what is durable, and of the rest what `rng` says.
    fn disk(mut self, rng: &SimRng) -> SimDisk {
        let below = |bound: usize| rng.next_u64() as usize % bound;
        let (in_order, kept) = (below(2) == 0, below(self.pending_names.len() + 1));
        for (index, (_, path, file)) in self.pending_names.drain(..).enumerate() {
            if if in_order { index < kept } else { below(2) == 0 } {
                set(&mut self.names, path, file);
            }
        }
        let disk = SimDisk::new(rng.next_u64());
        for folder in &self.folders {
            disk.create_dir_all(folder).unwrap();
        }
        let by_page = below(3) > 0;
        for (path, id) in &self.names {
            let durable = self.contents.get(id).cloned().unwrap_or_default();
            let pending = self.pending.get(id).map_or(&[][..], Vec::as_slice);
            let content = survivor(durable, pending, by_page, rng);
            let file = disk.create(path).unwrap();
            file.write_at(&content, 0).unwrap();
            file.sync().unwrap();
            disk.sync_dir(path.parent().unwrap()).unwrap();
        }
        disk
    }
}

fn set(names: &mut BTreeMap<PathBuf, u64>, path: PathBuf, file: Option<u64>) {
    match file {
        Some(file) => names.insert(path, file),
        None => names.remove(&path),
    };
}

/// Each page, and the length, as they were after any of the events that were not synced; all after
/// the same one unless `by_page`.
fn survivor(
    mut content: Vec<u8>,
    pending: &[(usize, &Event)],
    by_page: bool,
    rng: &SimRng,
) -> Vec<u8> {
    let moment = || rng.next_u64() as usize % (pending.len() + 1);
    let common = moment();
    let of_len = if by_page { moment() } else { common };
    let (mut moments, mut pages, mut len) = (Vec::new(), Vec::new(), 0);
    for now in 0..=pending.len() {
        if 0 < now {
            apply(pending[now - 1].1, &mut content);
        }
        if now == of_len {
            len = content.len();
        }
        pages.resize(pages.len().max(content.len()), 0);
        for (index, page) in content.chunks(PAGE_BYTES).enumerate() {
            if moments.len() <= index {
                moments.push(if by_page { moment() } else { common });
            }
            if moments[index] == now {
                pages[index * PAGE_BYTES..][..page.len()].copy_from_slice(page);
            }
        }
    }
    pages.resize(len, 0);
    pages
}

/// Seals, merges, writes and deletes rows until the writers are done; makes one snapshot.
fn keep_busy(storage: &Storage, recorder: &Recorder, round: u64, is_over: &AtomicBool) {
    let deleter = [vec![Matcher::equal("__name__", &format!("w{DELETER}"))]];
    for number in round * ROUND_ROWS.. {
        storage.compact_now().unwrap();
        append(storage, &row(DELETER, number, NOW_MS - 3_600_000));
        storage.delete_series(&deleter, TimeRange::ALL).unwrap();
        recorder.note(Event::Deleted(number));
        if number == round * ROUND_ROWS {
            let begun = recorder.0.lock().events.len();
            let name = storage.snapshot(true).unwrap();
            let path = storage.store.options.path.join("snapshots").join(name);
            recorder.note(Event::Snapshot { path, begun });
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
}

/// Writers that wait until their rows are safe, while all kinds of upkeep go on; then all that
/// again after a restart.
fn record(folder: &Path) -> (Recorder, Options) {
    let recorder = Recorder::default();
    let mut options = Machine::new(1).options;
    options.path = folder.to_owned();
    options.log_file_bytes_max = 24 << 10;
    for round in 0..2 {
        let (clock, rng) = (Arc::new(SimClock::new(NOW_MS)), Arc::new(SimRng::new(1)));
        let disk = Arc::new(recorder.clone());
        let storage = Storage::open(disk, clock, rng, &Registry::new(), options.clone()).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (storage, recorder, is_over) = (&*storage, &recorder, &is_over);
            let upkeep = scope.spawn(move || keep_busy(storage, recorder, round, is_over));
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        for number in round * ROWS..(round + 1) * ROWS {
                            recorder.note(Event::Begun(writer, number + 1));
                            let samples = row(writer, number, NOW_MS - 3_600_000);
                            let (_, ticket) =
                                try_append(storage, OnReject::Abort, &samples).unwrap();
                            ticket.wait().unwrap();
                            recorder.note(Event::Safe(writer, number + 1));
                        }
                    })
                })
                .collect();
            let ended: Vec<_> =
                writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            is_over.store(true, Ordering::Relaxed);
            upkeep.join().unwrap();
            for writer in ended {
                writer.unwrap();
            }
        });
        storage.close();
    }
    (recorder, options)
}

/// How many rows of a writer must be found after these events, and how many may be.
fn bounds(events: &[Event], writer: usize) -> (u64, u64) {
    let (mut safe, mut begun) = (0, 0);
    for event in events {
        match event {
            Event::Safe(own, rows) if *own == writer => safe = *rows,
            Event::Begun(own, rows) if *own == writer => begun = *rows,
            _ => {}
        }
    }
    (safe, begun)
}

fn check(storage: &Storage, events: &[Event], case: &str) {
    check_rows(storage, (events, events), case);
    let deleted = events.iter().rev().find_map(|own| match own {
        Event::Deleted(number) => Some(*number as f64),
        _ => None,
    });
    for (_, samples) in read_writer(storage, DELETER) {
        for (_, bits) in samples {
            let number = f64::from_bits(bits).abs();
            assert!(deleted.is_none_or(|last| last < number), "deleted row {number}, {case}");
        }
    }
}

/// All that was safe after the earlier events, and nothing that was not begun in the later ones.
fn check_rows(storage: &Storage, (earlier, later): (&[Event], &[Event]), case: &str) {
    for writer in 0..WRITERS {
        let (safe, begun) = (bounds(earlier, writer).0, bounds(later, writer).1);
        let found = read_writer(storage, writer);
        let rows = found.first().map_or(0, |own| own.1.len() as u64 / 2);
        assert!((safe..=begun).contains(&rows), "{rows} rows, not {safe} to {begun}, {case}");
        let expected = expected(rows, NOW_MS - 3_600_000);
        for (labels, samples) in &found {
            assert_eq!(*samples, expected, "{labels}, {case}");
        }
    }
}

#[test]
fn recovery_of_any_beginning_and_any_order_of_pages_of_real_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, options) = record(folder.path());
    let tape = recorder.0.lock();
    let count = |is: fn(&Event) -> bool| tape.events.iter().filter(|own| is(own)).count();
    assert!(0 < count(|own| matches!(own, Event::Names(_))));
    let mut snapshots = 0;
    for image in 0..IMAGES {
        let rng = SimRng::new(image as u64);
        // The last one is whole.
        let end = match image + 1 {
            IMAGES => tape.events.len(),
            _ => rng.next_u64() as usize % tape.events.len(),
        };
        let events = &tape.events[..end];
        let disk = Arc::new(Cut::of(events).disk(&rng));
        let open_at = |path: &Path| {
            let clock = Arc::new(SimClock::new(NOW_MS));
            let options = Options { path: path.to_owned(), ..options.clone() };
            Storage::open_quiet(disk.clone(), clock, &rng, &Registry::new(), options)
        };
        let open = || open_at(&options.path);
        // Before the first manifest is durable there may be nothing to open.
        let case = format!("image {image} of {end} events");
        let storage = open().unwrap_or_else(|err| panic!("{err}, {case}"));
        check(&storage, events, &case);
        storage.compact_now().unwrap();
        check(&storage, events, &format!("{case}, compacted"));
        drop(storage);
        check(&open().unwrap(), events, &format!("{case}, opened again"));
        for (at, own) in events.iter().enumerate() {
            let Event::Snapshot { path, begun } = own else { continue };
            let copy = open_at(path).unwrap_or_else(|err| panic!("{err}, snapshot of {case}"));
            check_rows(&copy, (&events[..*begun], &events[..at]), &format!("snapshot of {case}"));
            let deleted = read_writer(&copy, DELETER);
            assert!(deleted.iter().all(|own| own.1.is_empty()), "deleted rows, snapshot of {case}");
            snapshots += 1;
        }
    }
    assert!(IMAGES / 10 < snapshots, "{snapshots} snapshots were opened");
}
