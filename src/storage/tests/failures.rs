//! Single operations of the disk that fail, one after the other, and what is told of it.

use super::*;
use crate::storage::append::{SyncError, Ticket};

/// What becomes of a ticket, without waiting for it.
struct Told(Arc<Mutex<Option<Result<(), SyncError>>>>);

impl Told {
    fn of(ticket: Ticket) -> Self {
        let told = Arc::new(Mutex::new(None));
        let result = Arc::clone(&told);
        ticket.on_settled(move |own| *result.lock() = Some(own));
        Self(told)
    }

    /// `None`: nothing yet.
    fn is_durable(&self) -> Option<bool> {
        self.0.lock().as_ref().map(Result::is_ok)
    }
}

/// Samples of a second.
fn samples(second: i64) -> Vec<(Labels, i64, f64)> {
    (0..40).map(|i| (labels("m", i), NOW_MS + second * 1_000, (second + i as i64) as f64)).collect()
}

/// Whatever operation of closing and sealing fails, and whoever syncs after it: what was told to be
/// durable is found after a power cut, and who still waits is told.
#[test]
fn a_sync_that_failed_elsewhere_does_not_acknowledge() {
    for seed in 0..4 {
        for operation in 0..40 {
            let machine = Machine::new(seed);
            let storage = machine.open();
            append(&storage, &samples(0));
            storage.seal_now().unwrap();
            let (_, ticket) = try_append(&storage, OnReject::Skip, &samples(1)).unwrap();
            let told = Told::of(ticket);
            machine.disk.fail_once_after(operation);
            let _ = storage.seal_now();
            // One that nobody syncs until all is over.
            let late = try_append(&storage, OnReject::Skip, &samples(2));
            storage.store.sync_once();
            let late = late.ok().map(|(_, ticket)| Told::of(ticket));
            storage.store.sync_once();
            let is_poisoned = storage.is_poisoned();
            machine.disk.crash();
            drop(storage);
            let found = read(&all(&machine.open()));
            let has = |second: i64| {
                let is = |own: &(i64, u64)| own.0 == NOW_MS + second * 1_000;
                found.iter().filter(|(_, samples)| samples.iter().any(is)).count()
            };
            let place = format!("seed {seed}, operation {operation}");
            for (told, second) in [told].iter().chain(&late).zip(1..) {
                let durable = told.is_durable();
                assert!(durable.is_some(), "{place}: second {second} waits for ever");
                assert!(durable != Some(true) || has(second) == 40, "{place}: lost {second}");
                assert!(is_poisoned || durable == Some(true), "{place}");
            }
        }
    }
}

fn file_in(machine: &Machine, folder: &str) -> PathBuf {
    let folder = machine.options.path.join(folder);
    machine.disk.paths().into_iter().rfind(|path| path.starts_with(&folder)).unwrap()
}

fn fails(machine: &Machine, expected: &[&str]) {
    let err = machine.try_open().err().expect("the store does not open").to_string();
    assert!(expected.iter().all(|part| err.contains(part)), "{err}");
}

/// What cannot be read at a start may be read at the next one: nothing is cut or left out.
#[test]
fn a_log_file_that_cannot_be_read_is_neither_cut_nor_left_out() {
    for from in [0, 20, 700, 1_000] {
        let machine = Machine::new(1);
        let storage = machine.open();
        (0..4).for_each(|second| drop(append(&storage, &samples(second))));
        storage.store.sync_once();
        machine.disk.kill();
        drop(storage);
        let path = file_in(&machine, "wal");
        machine.disk.set_unreadable(&path, Some(from));
        fails(&machine, &[&path.display().to_string(), &format!("bytes from {from} on")]);
        machine.disk.set_unreadable(&path, None);
        let found = read(&all(&machine.open()));
        assert!(found.iter().all(|(_, samples)| samples.len() == 4), "unreadable from {from}");
    }
}

#[test]
fn a_manifest_of_which_nobody_can_tell_whether_it_is_there_is_not_begun_anew() {
    let machine = Machine::new(1);
    append(&machine.open(), &samples(0));
    machine.disk.set_blind(true);
    fails(&machine, &["simulated read failure"]);
    machine.disk.set_blind(false);
    assert_eq!(read(&all(&machine.open())).len(), 40);
}

#[test]
fn a_new_data_directory_has_a_name_that_survives_a_power_cut() {
    let mut machine = Machine::new(1);
    machine.options.path = PathBuf::from("/srv/metrics/data");
    drop(machine.open());
    assert_eq!(machine.disk.unsynced_folders(), Vec::<PathBuf>::new());
}

/// A deletion is about what was committed before it, also when that is not there any more.
#[test]
fn what_is_committed_after_a_deletion_is_seen_whatever_was_lost_before_it() {
    let delete = |storage: &Storage| {
        storage.delete_series(&[vec![Matcher::equal("__name__", "m")]], TimeRange::ALL).unwrap();
    };
    let mut machine = Machine::new(1);
    let storage = machine.open();
    append(&storage, &samples(0));
    storage.seal_now().unwrap();
    (1..5).for_each(|second| drop(append(&storage, &samples(second))));
    delete(&storage);
    let name = storage.snapshot(false).unwrap();
    machine.disk.kill();
    drop(storage);
    let path = file_in(&machine, "wal");
    let logs: Vec<_> = machine.disk.paths();
    let closed = logs.iter().find(|own| own.parent() == path.parent()).unwrap();
    machine.disk.flip_bit(closed, 100, 1);
    let snapshot = machine.options.path.join("snapshots").join(name);
    for folder in [machine.options.path.clone(), snapshot] {
        machine.options.path = folder;
        let storage = machine.open();
        append(&storage, &samples(5));
        assert_eq!(read(&all(&storage)).len(), 40, "{}", machine.options.path.display());
        storage.seal_now().unwrap();
        assert_eq!(read(&all(&storage)).len(), 40);
    }
}

#[test]
fn a_start_on_a_full_disk_takes_the_reserve_for_its_edit() {
    let machine = Machine::new(1);
    let storage = machine.open();
    append(&storage, &samples(0));
    let (key, folder) = (storage.store.key, machine.options.path.clone());
    drop(storage);
    // As after it was written anew: not a byte behind its last edit.
    let state = manifest::read(&machine.disk, &folder).unwrap();
    manifest::write_new(&machine.disk, &folder, key, &state).unwrap();
    // As long as a new log file.
    machine.disk.set_free_bytes(1 << 10);
    let storage = machine.open();
    assert_eq!(read(&all(&storage)).len(), 40);
}

#[test]
fn who_waits_is_told_when_a_thread_panics() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let (_, ticket) = try_append(&storage, OnReject::Skip, &samples(0)).unwrap();
    let told = Told::of(ticket);
    let mut is_stopped = false;
    run_or_stop(&storage.store, |_| panic!("in a thread of the store"), || is_stopped = true);
    assert!(is_stopped && storage.is_poisoned());
    assert_eq!(told.is_durable(), Some(false));
    assert!(try_append(&storage, OnReject::Skip, &samples(1)).is_err());
}

/// A closed log file whose bytes are not what was written is used up to there, and what comes after
/// it is sealed all the same, without a restart.
#[test]
fn damage_in_a_closed_log_file_does_not_keep_later_ones_from_being_sealed() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for second in 0..6 {
        append(&storage, &samples(second));
    }
    let damaged = file_in(&machine, "wal");
    let bytes = storage.store.active.load().published_bytes() as usize;
    machine.disk.flip_bit(&damaged, bytes * 3 / 4, 1);
    storage.store.close_log().unwrap();
    append(&storage, &samples(6));
    storage.seal_now().unwrap();
    assert!(!storage.is_poisoned());
    assert_eq!(storage.segments().len(), 2);
    let check = |storage: &Storage| {
        for (_, samples) in read(&all(storage)) {
            let times: Vec<_> = samples.iter().map(|own| (own.0 - NOW_MS) / 1_000).collect();
            assert!(times.starts_with(&[0, 1]) && times.ends_with(&[6]), "{times:?}");
            assert!(times.len() < 7, "{times:?}");
        }
    };
    check(&storage);
    let kept = machine.options.path.join("quarantine").join(damaged.file_name().unwrap());
    assert!(machine.disk.exists(&kept));
    drop(storage);
    check(&machine.open());
}

/// A segment that the device does not give is not damaged: the store waits for people instead of
/// going on without it.
#[test]
fn a_segment_that_cannot_be_read_at_a_start_is_not_left_out() {
    let machine = Machine::new(1);
    let storage = machine.open();
    append(&storage, &samples(0));
    storage.seal_now().unwrap();
    drop(storage);
    let path = file_in(&machine, "segments");
    for from in [0, 100] {
        machine.disk.set_unreadable(&path, Some(from));
        fails(&machine, &[&path.display().to_string(), &format!("bytes from {from} on")]);
    }
    machine.disk.set_unreadable(&path, None);
    assert_eq!(read(&all(&machine.open())).len(), 40);
}

/// After it was closed another process may have the directory.
#[test]
fn nothing_is_written_after_the_store_was_closed() {
    let machine = Machine::new(1);
    let storage = machine.open();
    (0..3).for_each(|second| {
        append(&storage, &samples(second));
        storage.store.close_log().unwrap();
    });
    storage.close();
    machine.disk.fail_after(Some(0));
    let paths = machine.disk.paths();
    let everything = vec![vec![Matcher::equal("__name__", "m")]];
    assert!(matches!(storage.store.seal_closed(), Err(SealError::Closing)));
    assert!(matches!(storage.store.compact(Urgency::Now), Err(SealError::Closing)));
    assert!(storage.clean_tombstones().is_err());
    assert!(matches!(storage.delete_series(&everything, TimeRange::ALL), Err(SealError::Poisoned)));
    assert!(matches!(storage.store.apply_retention(), Err(SealError::Closing)));
    assert_eq!(machine.disk.paths(), paths);
    assert!(!storage.is_poisoned(), "nothing was tried");
}

/// What is in segments can be read whatever else is damaged, and what comes is taken.
#[test]
fn a_damaged_checkpoint_or_log_header_keeps_nothing_else_from_being_read() {
    for (folder, at) in [("registry", 12), ("registry", 40), ("wal", 3), ("wal", 20), ("wal", 33)] {
        let machine = Machine::new(1);
        let storage = machine.open();
        append(&storage, &samples(0));
        storage.seal_now().unwrap();
        append(&storage, &samples(1));
        storage.store.sync_once();
        machine.disk.kill();
        drop(storage);
        let path = file_in(&machine, folder);
        machine.disk.set_unreadable(&path, Some(0));
        fails(&machine, &[&path.display().to_string()]);
        machine.disk.set_unreadable(&path, None);
        machine.disk.flip_bit(&path, at, 0);
        for second in [2, 3] {
            let storage = machine.open();
            append(&storage, &samples(second));
            let found = read(&all(&storage));
            assert_eq!(found.len(), 40, "{folder} {at}");
            for (_, samples) in found {
                let times: Vec<_> = samples.iter().map(|own| (own.0 - NOW_MS) / 1_000).collect();
                assert_eq!(times[0], 0);
                assert_eq!(*times.last().unwrap(), second, "{folder} {at}");
            }
            storage.seal_now().unwrap();
        }
        let kept = machine.options.path.join("quarantine").join(path.file_name().unwrap());
        assert!(machine.disk.exists(&kept), "{folder} {at}");
    }
}

/// A merge that would fill the disk is not begun again and again: samples need the space.
#[test]
fn merges_wait_for_space() {
    let mut machine = Machine::new(1);
    machine.options.log_file_bytes_max = 8 << 10;
    let storage = machine.open();
    for second in 0..6 {
        append(&storage, &samples(second));
        storage.seal_now().unwrap();
    }
    let bytes: u64 = storage.segments().iter().map(|own| own.bytes).sum();
    let others = machine.options.log_file_bytes_max + machine.options.reserve_bytes_max;
    machine.disk.set_free_bytes(others + bytes - 1);
    let paths = machine.disk.paths();
    storage.store.compact(Urgency::Background).unwrap();
    assert!(storage.store.merges_wait.load(Ordering::Relaxed));
    assert_eq!(machine.disk.paths(), paths);
    append(&storage, &samples(7));
    machine.disk.set_free_bytes(others + bytes);
    storage.store.compact(Urgency::Background).unwrap();
    assert!(!storage.store.merges_wait.load(Ordering::Relaxed));
    assert_eq!(storage.segments().len(), 1);
}
