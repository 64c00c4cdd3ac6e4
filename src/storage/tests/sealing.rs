//! Sealing, retention, full disks, forgotten series, readers beside writers.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::base::clock::OsClock;
use crate::base::disk::OsDisk;

const MINUTE: i64 = 60_000;

fn fill(storage: &Storage, machine: &Machine, steps: i64) {
    for step in 0..steps {
        let now = machine.clock.now_ms();
        let mut samples: Vec<_> =
            (0..20).map(|i| (labels("m", i), now, (step + i as i64) as f64)).collect();
        samples.push((labels("lone", 0), now - step, 0.5));
        samples.push((labels("m", 3), now - 90_000, -1.0));
        append(storage, &samples);
        machine.clock.advance_ms(MINUTE);
    }
}

#[test]
fn sealed_samples_read_the_same_and_survive_a_restart() {
    let machine = Machine::new(1);
    let storage = machine.open();
    fill(&storage, &machine, 30);
    let before = dump(&all(&storage));
    let old = all(&storage);
    storage.seal_now().unwrap();
    assert_eq!(storage.store.version.load().segments.len(), 1);
    assert_eq!(dump(&all(&storage)), before);
    assert_eq!(dump(&old), before, "a query that began before");
    fill(&storage, &machine, 5);
    let more = dump(&all(&storage));
    drop(storage);
    let storage = machine.open();
    assert_eq!(dump(&all(&storage)), more);
    storage.seal_now().unwrap();
    assert_eq!(dump(&all(&storage)), more);
    let names = storage.label_values("__name__", &[], TimeRange::ALL).unwrap();
    assert_eq!(names, ["lone", "m"]);
    let set = [vec![Matcher::equal("__name__", "lone")]];
    assert_eq!(storage.label_values("i", &set, TimeRange::ALL).unwrap(), ["0"]);
    assert_eq!(storage.label_names(&[], TimeRange::ALL).unwrap(), ["__name__", "i"]);
    let range = TimeRange { min_ms: NOW_MS + 10 * MINUTE, max_ms: NOW_MS + 12 * MINUTE };
    let matchers = [Matcher::equal("i", "7")];
    let some = storage.select(&matchers, range, &SelectHints::default()).unwrap();
    assert_eq!(
        read(&some)[0].1.iter().map(|own| own.0).collect::<Vec<_>>(),
        [range.min_ms, range.min_ms + MINUTE, range.max_ms]
    );
}

#[test]
fn series_of_a_segment_share_their_timestamps() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for _ in 0..5 {
        let samples: Vec<_> =
            (0..8).map(|i| (labels("m", i), machine.clock.now_ms(), 1.0)).collect();
        append(&storage, &samples);
        machine.clock.advance_ms(MINUTE);
    }
    storage.seal_now().unwrap();
    let selection = all(&storage);
    let block = selection.block(0, 8).unwrap();
    let first = &block.series[0].runs[0].timestamps_ms;
    assert!(block.series.iter().all(|own| Arc::ptr_eq(&own.runs[0].timestamps_ms, first)));
}

#[test]
fn retention_drops_whole_segments_seen_from_the_newest_sample() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for _ in 0..3 {
        fill(&storage, &machine, 10);
        storage.seal_now().unwrap();
        machine.clock.advance_ms(60 * MINUTE);
    }
    storage.set_retention_ms(Some(100 * MINUTE));
    storage.store.apply_retention().unwrap();
    assert_eq!(storage.store.version.load().segments.len(), 2);
    let oldest = storage.min_time_ms().unwrap();
    drop(storage);
    let storage = machine.open();
    assert_eq!(storage.min_time_ms(), Some(oldest));
    assert_eq!(machine.disk.list(&machine.options.path.join("segments")).unwrap().len(), 2);
}

#[test]
fn series_without_samples_are_forgotten_and_their_numbers_used_again() {
    let machine = Machine::new(1);
    let storage = machine.open();
    for round in 0..8 {
        let name = format!("m{round}");
        let samples: Vec<_> =
            (0..10).map(|i| (labels(&name, i), machine.clock.now_ms(), 1.0)).collect();
        append(&storage, &samples);
        storage.seal_now().unwrap();
        machine.clock.advance_ms(90 * MINUTE);
    }
    assert!(storage.stats(1).num_series <= 30, "{}", storage.stats(1).num_series);
    assert!(storage.store.registry.read().bound_max() <= 40);
    assert_eq!(all(&storage).series().len(), 80);
    let before = dump(&all(&storage));
    append(&storage, &[(labels("m0", 0), machine.clock.now_ms(), 2.0)]);
    drop(storage);
    let storage = machine.open();
    assert_ne!(dump(&all(&storage)), before);
    assert_eq!(all(&storage).series().len(), 80);
}

#[test]
fn a_full_disk_refuses_samples_until_there_is_space() {
    let machine = Machine::new(1);
    let storage = machine.open();
    fill(&storage, &machine, 5);
    let before = dump(&all(&storage));
    machine.disk.set_space_bytes(0);
    let batch = |i: i64| {
        let big = |at: usize| (labels(&"x".repeat(300), at), machine.clock.now_ms() + i, 1.0);
        (0..200).map(big).collect::<Vec<_>>()
    };
    let refused = try_append(&storage, OnReject::Skip, &batch(0)).unwrap_err();
    assert!(matches!(refused, append::AppendError::DiskFull), "{refused}");
    assert!(matches!(storage.seal_now(), Err(SealError::DiskFull)));
    assert_eq!(dump(&all(&storage)), before);
    machine.disk.set_space_bytes(1 << 30);
    assert_eq!(append(&storage, &batch(1)).sample_count, 200);
    storage.seal_now().unwrap();
    drop(storage);
    assert_eq!(all(&machine.open()).series().len(), 221);
}

#[test]
fn after_a_failed_sync_nothing_is_taken_until_a_restart() {
    let machine = Machine::new(1);
    let storage = machine.open();
    fill(&storage, &machine, 2);
    let samples = [(labels("m", 0), machine.clock.now_ms(), 5.0)];
    let (_, ticket) = try_append(&storage, OnReject::Skip, &samples).unwrap();
    machine.disk.fail_after(Some(0));
    storage.store.sync_once();
    assert!(ticket.wait().is_err());
    assert!(storage.is_poisoned());
    machine.disk.fail_after(None);
    let refused = try_append(&storage, OnReject::Skip, &samples).unwrap_err();
    assert!(matches!(refused, append::AppendError::Poisoned));
    assert!(matches!(storage.seal_now(), Err(SealError::Poisoned)));
    drop(storage);
    assert!(!machine.open().is_poisoned());
}

#[test]
fn a_damaged_log_file_is_used_up_to_the_damage_and_kept() {
    let machine = Machine::new(1);
    let storage = machine.open();
    fill(&storage, &machine, 5);
    storage.store.sync_once();
    let end = storage.store.active.load().published_bytes() as usize;
    fill(&storage, &machine, 5);
    storage.store.sync_once();
    let path = storage.store.active.load().path().to_owned();
    drop(storage);
    machine.disk.flip_bit(&path, end - 5, 1);
    let storage = machine.open();
    let found = read(&all(&storage));
    assert!(found.iter().all(|(_, samples)| !samples.is_empty() && samples.len() < 10));
    assert_eq!(storage.store.metrics.wal_corruptions.get(), 1.0);
    assert_eq!(machine.disk.list(&machine.options.path.join("quarantine")).unwrap().len(), 1);
    drop(storage);
    let storage = machine.open();
    assert_eq!(read(&all(&storage)), found);
    assert_eq!(storage.store.metrics.wal_corruptions.get(), 0.0);
}

#[test]
fn a_missing_file_is_an_error() {
    let machine = Machine::new(1);
    let storage = machine.open();
    fill(&storage, &machine, 5);
    storage.seal_now().unwrap();
    fill(&storage, &machine, 5);
    let version = storage.store.version.load_full();
    let paths = [version.segments[0].segment.path(), version.logs[0].path()];
    drop(storage);
    for path in paths {
        machine.disk.rename(path, std::path::Path::new("/data/away")).unwrap();
        assert!(matches!(machine.try_open(), Err(OpenError::Missing(_))));
        machine.disk.rename(std::path::Path::new("/data/away"), path).unwrap();
    }
    machine.open();
}

/// Each commit writes one value to all series; a reader must see it in all of them or in none,
/// whatever is sealed meanwhile.
#[test]
fn readers_see_whole_commits_while_writers_and_sealing_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Machine::new(1).options;
    options.path = folder.path().to_owned();
    let clock = Arc::new(OsClock::new());
    let now_ms = clock.now_ms() - 3_600_000;
    let storage =
        Storage::open(Arc::new(OsDisk), clock, Arc::new(SimRng::new(1)), &Registry::new(), options)
            .unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = || {
            let mut last = 0;
            while !is_done.load(Ordering::Relaxed) {
                let found = read(&all(&storage));
                let lengths: Vec<_> = found.iter().map(|own| own.1.len()).collect();
                assert!(lengths.iter().all(|own| *own == lengths[0]), "{lengths:?}");
                assert!(found.is_empty() || found.len() == 12, "{}", found.len());
                let length = lengths.first().copied().unwrap_or(0);
                assert!(last <= length, "{length} after {last}");
                last = length;
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for step in 0..400 {
            let samples: Vec<_> =
                (0..12).map(|i| (labels("m", i), now_ms + step, (step % 7) as f64)).collect();
            append(&storage, &samples);
            if step % 50 == 49 {
                storage.seal_now().unwrap();
            }
        }
        is_done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert!(read(&all(&storage)).iter().all(|own| own.1.len() == 400));
}

#[test]
fn a_log_file_is_closed_when_it_is_old() {
    let machine = Machine::new(1);
    let storage = machine.open();
    machine.clock.advance_ms(60 * MINUTE);
    storage.store.close_old_log().unwrap();
    append(&storage, &[(labels("m", 0), machine.clock.now_ms(), 1.0)]);
    assert_eq!(storage.store.version.load().logs.len(), 1);
    storage.store.close_old_log().unwrap();
    assert_eq!(storage.store.version.load().logs.len(), 2);
    storage.store.seal_closed().unwrap();
    assert_eq!(storage.store.version.load().segments.len(), 1);
}
