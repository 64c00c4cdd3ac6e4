//! Merging segments: nothing changes but the files.

use std::time::Duration;

use super::*;
use crate::base::clock::Clock;
use crate::storage::compact::plan::Urgency;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// Scrapes with late and doubled samples, a log file every half hour.
fn hours(machine: &Machine, storage: &Storage, count: i64) {
    for half in 0..2 * count {
        for step in 0..15 {
            let now = machine.clock.now_ms();
            let mut samples: Vec<_> =
                (0..9).map(|i| (labels("m", i), now, (half * step + i as i64) as f64)).collect();
            samples.push((labels("lone", 0), now - step * 1_000, 0.5));
            samples.push((labels("m", 3), now - 50 * MINUTE, -1.0));
            samples.push((labels("h", 0), now, histogram((half * 15 + step) as u64)));
            let mixed = if step % 4 == 0 { 0.25 } else { histogram(step as u64) };
            samples.push((labels("h", 1), now - step * 1_500, mixed));
            append(storage, &samples);
            machine.clock.advance_ms(2 * MINUTE);
        }
        storage.seal_now().unwrap();
    }
}

/// Level and hours since the beginning of each segment.
fn levels(storage: &Storage) -> Vec<String> {
    let hour = |ms: i64| (ms - NOW_MS).div_euclid(HOUR);
    let version = storage.store.version.load();
    let line = |own: &Arc<version::OpenSegment>| {
        let range = own.segment.time_range();
        format!("{}: {}..{}", own.entry.level, hour(range.min_ms), hour(range.max_ms) + 1)
    };
    version.segments.iter().map(line).collect()
}

fn files(machine: &Machine) -> usize {
    machine.disk.list(&machine.options.path.join("segments")).unwrap().len()
}

#[test]
fn segments_are_merged_into_windows_and_read_the_same() {
    let machine = Machine::new(1);
    let storage = machine.open();
    hours(&machine, &storage, 5);
    let before = dump(&all(&storage));
    let old = all(&storage);
    storage.store.compact(Urgency::Background).unwrap();
    // Log files are cut at two hours; where there are few pieces, they wait for more.
    let few = ["0: -1..0", "0: -1..0", "0: 4..5", "0: 4..5"];
    assert_eq!(levels(&storage), [&["1: 0..2", "1: 2..4"][..], &few].concat());
    assert_eq!(files(&machine), 6);
    assert_eq!(dump(&all(&storage)), before);
    assert_eq!(dump(&old), before, "a query that began before");
    // The rest of the day, and late data of its beginning.
    hours(&machine, &storage, 21);
    let before = dump(&all(&storage));
    storage.store.compact(Urgency::Background).unwrap();
    assert_eq!(levels(&storage)[0], "2: 0..24");
    assert_eq!(dump(&all(&storage)), before);
    storage.compact_now().unwrap();
    assert_eq!(levels(&storage), ["2: -1..0", "2: 0..24", "2: 24..26"]);
    assert_eq!(dump(&all(&storage)), before);
    let names = storage.label_values("__name__", &[], TimeRange::ALL).unwrap();
    assert_eq!(names, ["h", "lone", "m"]);
    drop(storage);
    let storage = machine.open();
    assert_eq!(dump(&all(&storage)), before);
    assert_eq!(files(&machine), 3);
    storage.compact_now().unwrap();
    assert_eq!(levels(&storage), ["2: -1..0", "2: 0..24", "2: 24..26"]);
}

#[test]
fn the_value_that_was_accepted_first_wins_on_every_way_down() {
    let machine = Machine::new(1).window(3 * 24 * HOUR);
    let storage = machine.open();
    let late = |value: f64| [(labels("m", 0), NOW_MS, value), (labels("m", 0), NOW_MS + 1, value)];
    append(&storage, &[(labels("m", 0), NOW_MS, 1.0)]);
    machine.clock.advance_ms(10 * HOUR - 1);
    append(&storage, &[(labels("m", 0), machine.clock.now_ms(), 1.0)]);
    machine.clock.advance_ms(40 * HOUR + 1);
    append(&storage, &[(labels("m", 0), machine.clock.now_ms(), 1.0)]);
    for value in [2.0, 3.0, 4.0] {
        append(&storage, &late(value));
        storage.seal_now().unwrap();
        if value < 4.0 {
            storage.store.compact(Urgency::Now).unwrap();
        }
    }
    for urgency in [Urgency::Background, Urgency::Now] {
        let samples = read(&all(&storage)).remove(0).1;
        assert_eq!(samples[0], (NOW_MS, 1_f64.to_bits()));
        assert_eq!(samples[1], (NOW_MS + 1, 2_f64.to_bits()));
        assert_eq!(samples.len(), 4);
        storage.store.compact(urgency).unwrap();
    }
    assert_eq!(levels(&storage), ["2: 0..10", "2: 50..51"]);
}

#[test]
fn a_merge_that_fails_leaves_everything_as_it_was() {
    for operations in 0..60 {
        let machine = Machine::new(operations);
        let storage = machine.open();
        hours(&machine, &storage, 2);
        storage.store.sync_once();
        let before = dump(&all(&storage));
        machine.disk.fail_after(Some(operations));
        let compacted = storage.store.compact(Urgency::Now);
        assert_eq!(dump(&all(&storage)), before);
        if operations % 2 == 0 {
            machine.disk.crash();
        }
        machine.disk.fail_after(None);
        drop(storage);
        let storage = machine.open();
        assert_eq!(dump(&all(&storage)), before, "after {operations} operations");
        assert_eq!(files(&machine), storage.store.version.load().segments.len());
        storage.compact_now().unwrap();
        assert_eq!(dump(&all(&storage)), before);
        if compacted.is_ok() {
            return;
        }
    }
    panic!("a merge needs fewer operations");
}

#[test]
fn a_merge_needs_no_more_space_than_what_it_writes() {
    let machine = Machine::new(1);
    let storage = machine.open();
    hours(&machine, &storage, 2);
    let before = dump(&all(&storage));
    machine.disk.set_free_bytes(100);
    assert!(matches!(storage.store.compact(Urgency::Now), Err(SealError::DiskFull)));
    assert!(!storage.is_poisoned());
    let inputs: u64 =
        storage.store.version.load().segments.iter().map(|own| own.segment.bytes()).sum();
    // A merge of segments is not longer than they are.
    machine.disk.set_free_bytes(inputs);
    storage.store.compact(Urgency::Now).unwrap();
    assert_eq!(dump(&all(&storage)), before);
}

/// For edits of the manifest.
const MARGIN_BYTES: u64 = 4_096;

#[test]
fn merging_many_windows_needs_room_for_one_segment_at_a_time() {
    for (urgency, count) in [(Urgency::Background, 9), (Urgency::Now, 33)] {
        let machines = [Machine::new(1), Machine::new(1)];
        let stores = machines.each_ref().map(|machine| {
            let storage = machine.open();
            hours(machine, &storage, count);
            storage
        });
        let [twin, storage] = &stores;
        let old: Vec<u64> = twin.segments().iter().map(|own| own.id).collect();
        twin.store.compact(urgency).unwrap();
        let merged = twin.segments().into_iter().filter(|own| !old.contains(&own.id));
        let merged: Vec<u64> = merged.map(|own| own.bytes).collect();
        let (largest, total) = (merged.iter().max().unwrap(), merged.iter().sum::<u64>());
        assert!(largest + MARGIN_BYTES < total, "{urgency:?}: {merged:?}");
        let before = dump(&all(storage));
        // In the background what is merged at once must have room, beside what comes in meanwhile.
        let options = &machines[1].options;
        let free_bytes = match urgency {
            Urgency::Now => largest + MARGIN_BYTES,
            Urgency::Background => {
                let all: u64 = storage.segments().iter().map(|own| own.bytes).sum();
                options.log_file_bytes_max + options.reserve_bytes_max + all / 2
            }
        };
        machines[1].disk.set_free_bytes(free_bytes);
        storage.store.compact(urgency).unwrap();
        assert_eq!(levels(storage), levels(twin));
        assert_eq!(dump(&all(storage)), before);
    }
}

/// A clock by which everything takes long.
struct SlowClock(AtomicI64);

impl Clock for SlowClock {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(3_600 * self.0.fetch_add(1, Ordering::Relaxed) as u64)
    }
}

/// A merge in the background works half of the time only; here each of its breaks is an hour.
#[test]
fn who_waits_for_a_merge_in_the_background_makes_it_hurry() {
    let Machine { disk, options, .. } = Machine::new(1);
    let clock = Arc::new(SlowClock(AtomicI64::new(0)));
    let (registry, rng) = (Registry::new(), SimRng::new(7));
    let storage = Storage::open_quiet(Arc::new(disk), clock, &rng, &registry, options).unwrap();
    for minute in 0..4 {
        let samples: Vec<_> =
            (0..600).map(|i| (labels("m", i), NOW_MS + minute * MINUTE, i as f64)).collect();
        append(&storage, &samples);
        storage.seal_now().unwrap();
    }
    let before = dump(&all(&storage));
    std::thread::scope(|scope| {
        let merging = scope.spawn(|| storage.store.compact(Urgency::Background));
        while !storage.store.compaction.is_locked() && !merging.is_finished() {
            std::thread::yield_now();
        }
        assert!(!merging.is_finished(), "it takes a break");
        storage.compact_now().unwrap();
        merging.join().unwrap().unwrap();
    });
    assert_eq!(levels(&storage), ["2: 0..1"]);
    assert_eq!(dump(&all(&storage)), before);
}
