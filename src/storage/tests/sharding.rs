//! Senders cut the same data into requests in many ways; the answers must not show it.

use super::*;
use crate::base::rng::Rng as _;
use crate::model::sample::STALE_NAN_BITS;

const TARGETS: usize = 5;
const SERIES_PER_TARGET: usize = 20;
const SCRAPES: i64 = 30;

type Sample = (Labels, i64, f64);

/// What one series of a target has at one scrape, if anything.
fn sample(target: usize, series: usize, scrape: i64) -> Option<Sample> {
    let is_absent = (scrape as usize + series).is_multiple_of(11);
    let timestamp_ms = NOW_MS - 600_000 + scrape * 15_000 + target as i64 * 137;
    let number = (scrape as usize * series) % 7;
    let value = if series % 5 == 4 { histogram(number as u64) } else { number as f64 };
    let labels = labels(&format!("m{target}"), series);
    (!is_absent).then_some((labels, timestamp_ms, value))
}

/// The queue of a shard: samples in order of time.
fn queue(shard: usize, shards: usize, scrapes: std::ops::Range<i64>) -> Vec<Sample> {
    let mut queue = Vec::new();
    for scrape in scrapes {
        for target in 0..TARGETS {
            let series = (0..SERIES_PER_TARGET)
                .filter(|series| (target * 31 + series * 17) % shards == shard);
            queue.extend(series.filter_map(|series| sample(target, series, scrape)));
        }
    }
    queue
}

/// Sends requests of up to `samples_max` samples from all shards, in any order between shards.
fn send(
    storage: &Storage,
    rng: &SimRng,
    shards: usize,
    scrapes: std::ops::Range<i64>,
    (samples_max, times): (usize, usize),
) {
    let queues: Vec<_> = (0..shards).map(|own| queue(own, shards, scrapes.clone())).collect();
    let mut requests: Vec<Vec<&[Sample]>> =
        queues.iter().map(|queue| queue.chunks(samples_max).rev().collect()).collect();
    while !requests.is_empty() {
        let at = rng.next_u64() as usize % requests.len();
        let Some(request) = requests[at].pop() else {
            requests.swap_remove(at);
            continue;
        };
        for _ in 0..times {
            let taken = try_append(storage, OnReject::Abort, request);
            assert_eq!(taken.unwrap().0.sample_count, request.len() as u64);
        }
    }
}

fn check(storage: Arc<Storage>, machine: &Machine, expected: &str, case: &str) {
    assert_eq!(dump(&all(&storage)), expected, "{case}");
    storage.seal_now().unwrap();
    assert_eq!(dump(&all(&storage)), expected, "{case}, sealed");
    drop(storage);
    assert_eq!(dump(&all(&machine.open())), expected, "{case}, after a restart");
}

#[test]
fn shards_and_repeated_requests_do_not_show() {
    let rng = SimRng::new(7);
    let machine = Machine::new(1);
    let storage = machine.open();
    send(&storage, &rng, 1, 0..SCRAPES, (1_000, 1));
    let expected = dump(&all(&storage));
    assert_eq!(expected.lines().count(), TARGETS * SERIES_PER_TARGET);
    for (samples_max, times) in [(7, 1), (100, 1), (2_000, 2)] {
        for (before, after) in [(1, 1), (7, 7), (50, 50), (3, 50), (50, 2)] {
            let machine = Machine::new(1);
            let storage = machine.open();
            let cut = (samples_max, times);
            send(&storage, &rng, before, 0..SCRAPES / 2, cut);
            send(&storage, &rng, after, SCRAPES / 2..SCRAPES, cut);
            let case = format!("{before} then {after} shards, {samples_max} samples {times} times");
            check(storage, &machine, &expected, &case);
        }
    }
}

#[test]
fn series_by_series_is_the_same_as_scrape_by_scrape() {
    let machine = Machine::new(1);
    let storage = machine.open();
    send(&storage, &SimRng::new(7), 1, 0..SCRAPES, (1_000, 1));
    let expected = dump(&all(&storage));
    for window_ms in [0, 7_200_000] {
        let machine = Machine::new(1).window(window_ms);
        let storage = machine.open();
        for target in 0..TARGETS {
            for series in 0..SERIES_PER_TARGET {
                let own: Vec<_> =
                    (0..SCRAPES).filter_map(|at| sample(target, series, at)).collect();
                let (taken, _) = try_append(&storage, OnReject::Abort, &own).unwrap();
                assert_eq!(taken.sample_count, own.len() as u64);
            }
        }
        check(storage, &machine, &expected, &format!("window {window_ms}"));
    }
}

/// Without an out-of-order window a request that is sent again at once is taken as often as
/// Prometheus takes it: when it has one sample of each series.
#[test]
fn without_a_window_the_same_request_can_be_sent_twice_at_once() {
    let machine = Machine::new(1).window(0);
    let storage = machine.open();
    for scrape in 0..SCRAPES {
        for target in 0..TARGETS {
            let request: Vec<_> = (0..SERIES_PER_TARGET)
                .filter_map(|series| sample(target, series, scrape))
                .collect();
            for _ in 0..2 {
                let (taken, _) = try_append(&storage, OnReject::Abort, &request).unwrap();
                assert_eq!(taken.sample_count, request.len() as u64);
            }
        }
    }
    let found = read(&all(&storage));
    let count: usize = found.iter().map(|own| own.1.len()).sum();
    let all: usize = (0..TARGETS * SERIES_PER_TARGET)
        .map(|at| (0..SCRAPES).filter_map(|scrape| sample(0, at % 20, scrape)).count())
        .sum();
    assert_eq!(count, all);
}

/// Series live on at another target. The markers of the one that vanished come late, and must not
/// end them; those that come before the first sample of the new home must not outlive it.
#[test]
fn stale_markers_of_a_vanished_target_do_not_hide_living_series() {
    let stale = f64::from_bits(STALE_NAN_BITS);
    for window_ms in [0, 7_200_000] {
        let machine = Machine::new(1).window(window_ms);
        let storage = machine.open();
        let scrape = |at_ms: i64, value: f64| {
            let samples: Vec<_> = (0..10).map(|i| (labels("moved", i), at_ms, value)).collect();
            append(&storage, &samples).sample_count
        };
        let markers = |at_ms: i64| {
            let mut batch = storage.appender(OnReject::Skip);
            batch.reject_out_of_order(true);
            for i in 0..10 {
                batch.float(SeriesKey::Labels(&labels("moved", i)), at_ms, stale);
            }
            batch.commit().unwrap().0.sample_count
        };
        assert_eq!(scrape(NOW_MS, 1.0), 10);
        assert_eq!(scrape(NOW_MS + 15_000, 2.0), 10);
        // The new target is first.
        assert_eq!(scrape(NOW_MS + 30_000, 3.0), 10);
        assert_eq!(markers(NOW_MS + 25_000), 0);
        assert_eq!(markers(NOW_MS + 30_000), 0, "another value at the same time");
        // The old target's markers are first.
        assert_eq!(markers(NOW_MS + 40_000), 10);
        assert_eq!(scrape(NOW_MS + 45_000, 4.0), 10);
        let times = [0, 15_000, 30_000, 40_000, 45_000].map(|own| NOW_MS + own);
        let bits = [1.0, 2.0, 3.0, stale, 4.0].map(f64::to_bits);
        let expected: Vec<_> = times.into_iter().zip(bits).collect();
        let check = |storage: &Storage| {
            let found = read(&all(storage));
            assert_eq!(found.len(), 10);
            for (labels, samples) in found {
                assert_eq!(samples, expected, "{labels}, window {window_ms}");
            }
        };
        check(&storage);
        storage.seal_now().unwrap();
        check(&storage);
        drop(storage);
        check(&machine.open());
    }
}
