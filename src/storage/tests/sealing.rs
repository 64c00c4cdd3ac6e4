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
    // The late ones are older than a multiple of two hours.
    assert_eq!(storage.store.version.load().segments.len(), 2);
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
    storage.set_retention(Retention::of_time_ms(Some(100 * MINUTE)));
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
    assert_eq!(all(&storage).len(), 80);
    let before = dump(&all(&storage));
    append(&storage, &[(labels("m0", 0), machine.clock.now_ms(), 2.0)]);
    drop(storage);
    let storage = machine.open();
    assert_ne!(dump(&all(&storage)), before);
    assert_eq!(all(&storage).len(), 80);
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
    assert_eq!(all(&machine.open()).len(), 221);
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
    // Nor does one of a clock that went back stay until that has caught up.
    machine.clock.advance_ms(-40 * MINUTE);
    append(&storage, &[(labels("m", 1), machine.clock.now_ms(), 1.0)]);
    storage.store.close_old_log().unwrap();
    assert_eq!(storage.store.version.load().logs.len(), 2);
}

/// A later log file names series that only a damaged one defined.
#[test]
fn samples_without_the_name_of_their_series_are_left_out_and_given_to_no_other() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let scrape = |storage: &Storage, name: &str, value: f64| {
        machine.clock.advance_ms(1_000);
        let now = machine.clock.now_ms();
        let samples: Vec<_> = (0..5).map(|i| (labels(name, i), now, value)).collect();
        append(storage, &samples);
    };
    scrape(&storage, "m", 1.0);
    let mut writer = storage.store.writer.lock();
    storage.store.rotate(&mut writer, 0).unwrap();
    drop(writer);
    let path = storage.store.version.load().logs[0].path().to_owned();
    scrape(&storage, "m", 2.0);
    scrape(&storage, "n", 3.0);
    append(&storage, &[(labels("m", 2), machine.clock.now_ms() - 10, 4.0)]);
    drop(storage);
    // The frame that defines the five.
    machine.disk.flip_bit(&path, 100, 1);
    let storage = machine.open();
    let n = r#"{__name__="n", i="4"}"#;
    let found = dump(&all(&storage));
    assert!(found.contains(n) && !found.contains("\"m\""), "{found}");
    // New series must not get numbers with old samples.
    scrape(&storage, "o", 5.0);
    let with_new = dump(&all(&storage));
    assert_eq!(with_new.lines().count(), 10);
    assert!(!with_new.contains("=2"), "{with_new}");
    storage.seal_now().unwrap();
    assert_eq!(dump(&all(&storage)), with_new);
    scrape(&storage, "m", 6.0);
    let with_old = dump(&all(&storage));
    assert_eq!(with_old.lines().count(), 15);
    drop(storage);
    assert_eq!(dump(&all(&machine.open())), with_old);
}

#[test]
fn a_failed_sync_while_a_log_file_is_closed_ends_the_store() {
    let machine = Machine::new(1);
    let storage = machine.open();
    fill(&storage, &machine, 2);
    let before = dump(&all(&storage));
    machine.disk.fail_after(Some(0));
    assert!(storage.store.close_log().is_err());
    assert!(storage.is_poisoned());
    machine.disk.fail_after(None);
    let samples = [(labels("m", 0), machine.clock.now_ms(), 5.0)];
    assert!(try_append(&storage, OnReject::Skip, &samples).is_err());
    assert!(matches!(storage.store.close_log(), Err(SealError::Poisoned)));
    assert_eq!(dump(&all(&storage)), before);
}

#[test]
fn a_series_that_is_forgotten_between_staging_and_commit_keeps_its_number() {
    let machine = Machine::new(1);
    let storage = machine.open();
    append(&storage, &[(labels("m", 0), machine.clock.now_ms(), 1.0)]);
    machine.clock.advance_ms(180 * MINUTE);
    append(&storage, &[(labels("n", 0), machine.clock.now_ms(), 1.0)]);
    storage.seal_now().unwrap();
    assert!(!storage.store.registry.read().retired().is_empty());
    let key = labels("m", 0);
    let mut batch = storage.appender(OnReject::Skip);
    stage(&mut *batch, SeriesKey::Labels(&key), machine.clock.now_ms(), 2.0_f64.to_bits());
    let (appended, _) = batch.commit().unwrap();
    assert_eq!((appended.sample_count, appended.new_series_count), (1, 0));
    assert!(storage.store.registry.read().retired().is_empty());
    assert_eq!(storage.stats(1).num_series, 2);
    drop(storage);
    let samples = read(&all(&machine.open())).remove(0).1;
    assert_eq!(samples.len(), 2);
}

#[test]
fn a_segment_of_another_version_is_neither_opened_nor_dropped() {
    let machine = Machine::new(1);
    let storage = machine.open();
    fill(&storage, &machine, 2);
    storage.seal_now().unwrap();
    let path = storage.store.version.load().segments[0].segment.path().to_owned();
    drop(storage);
    machine.disk.flip_bit(&path, 8, 6);
    let Err(refused) = machine.try_open() else { panic!("opened") };
    assert!(refused.to_string().contains("unknown version of segments"), "{refused}");
    machine.disk.flip_bit(&path, 8, 6);
    assert_eq!(all(&machine.open()).len(), 21);
}

#[test]
fn log_files_grow_with_what_is_in_them() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let bytes = |at: usize| {
        let path = storage.store.version.load().logs[at].path().to_owned();
        machine.disk.len(&path).unwrap()
    };
    assert_eq!(bytes(0), 1 << 10);
    fill(&storage, &machine, 10);
    let end_bytes = storage.store.active.load().published_bytes();
    assert!(end_bytes <= bytes(0) && bytes(0) < machine.options.log_file_bytes_max);
    let before = dump(&all(&storage));
    storage.store.close_log().unwrap();
    assert_eq!((bytes(0), bytes(1)), (end_bytes, 1 << 10));
    fill(&storage, &machine, 1);
    storage.store.sync_once();
    let end_bytes = storage.store.active.load().published_bytes();
    let path = storage.store.active.load().path().to_owned();
    drop(storage);
    let storage = machine.open();
    assert_eq!(machine.disk.len(&path).unwrap(), end_bytes);
    assert!(dump(&all(&storage)).len() > before.len());
    assert_eq!(storage.store.version.load().logs.len(), 3);
}
