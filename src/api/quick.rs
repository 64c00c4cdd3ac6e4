//! Which requests are answered on the thread that read them.
//!
//! A request that needs a few microseconds costs more to hand to another thread, and its answer to
//! hand back, than to answer. Whether it is one of those is known from the last time: a table
//! remembers what was answered in less than [`QUICK_MAX`], about the same time and not long ago,
//! so that what it needs has been read, compiled and found. The async threads serve everybody else,
//! too: at most half of them answer at a time, what is broken off after [`PATIENCE`] is begun anew
//! on a thread of its own, and long texts are never tried.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use super::params::Params;
use crate::base::clock::Clock;
use crate::model::sample::TimeRange;

/// What takes less is quick: several times what two changes of threads take.
const QUICK_MAX: Duration = Duration::from_millis(1);
/// How long an attempt on an async thread may take where it can be broken off.
pub const PATIENCE: Duration = Duration::from_millis(4);
/// Bytes of all parameters of a request.
const TEXT_BYTES_MAX: usize = 2048;
/// How long ago, and how far from each other in the data, two requests may be that are alike.
const ALIKE: Duration = Duration::from_mins(10);
/// Requests that are remembered; a newer one takes the place of another.
const SLOTS: usize = 4096;

/// Stands for requests that take about as long as each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

/// Remembers quick requests.
pub struct Quick {
    clock: Arc<dyn Clock>,
    hasher: foldhash::fast::RandomState,
    /// Keys of requests that were quick, each in the place that it points to; 0: none.
    slots: Box<[AtomicU64]>,
    /// Requests that are being answered.
    busy: AtomicUsize,
    busy_max: usize,
}

/// Lets one request be answered here, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a AtomicUsize);

impl Quick {
    /// For the runtime that this is called in; nothing is quick where there is none, or one thread.
    pub fn of_runtime(clock: Arc<dyn Clock>) -> Self {
        let threads = Handle::try_current().map_or(0, |runtime| runtime.metrics().num_workers());
        Self::new(clock, threads / 2)
    }

    pub(super) fn new(clock: Arc<dyn Clock>, busy_max: usize) -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        let hasher = foldhash::fast::RandomState::default();
        Self { clock, hasher, slots, busy: AtomicUsize::new(0), busy_max }
    }

    /// The key of a request to this path about this range of time; nothing when it is not worth
    /// remembering.
    pub fn key(&self, path: &str, params: &Params, range: TimeRange) -> Option<Key> {
        if self.busy_max == 0 || TEXT_BYTES_MAX < path.len() + params.bytes() {
            return None;
        }
        let alike_ms = ALIKE.as_millis() as i64;
        let span = [range.min_ms, range.max_ms].map(|ms| ms.div_euclid(alike_ms));
        let others: Vec<_> =
            params.iter().filter(|(name, _)| !matches!(*name, "start" | "end" | "time")).collect();
        let period = self.clock.monotonic().as_secs() / ALIKE.as_secs();
        Some(Key(self.hasher.hash_one((path, span, others, period)).max(1)))
    }

    fn slot(&self, key: Key) -> &AtomicU64 {
        &self.slots[key.0 as usize % SLOTS]
    }

    fn is_quick(&self, key: Key) -> bool {
        self.slot(key).load(Ordering::Relaxed) == key.0
    }

    /// Whether this request may be answered here.
    pub fn turn(&self, key: Key) -> Option<Turn<'_>> {
        if !self.is_quick(key) {
            return None;
        }
        let turn = Turn(&self.busy);
        (self.busy.fetch_add(1, Ordering::Relaxed) < self.busy_max).then_some(turn)
    }

    /// Does it and remembers how long it took.
    pub fn timed<T>(&self, key: Key, work: impl FnOnce() -> T) -> T {
        let begun = self.clock.monotonic();
        let done = work();
        self.note(key, self.clock.monotonic().saturating_sub(begun));
        done
    }

    fn note(&self, key: Key, took: Duration) {
        match (took < QUICK_MAX, self.is_quick(key)) {
            (true, false) => self.slot(key).store(key.0, Ordering::Relaxed),
            (false, true) => self.slot(key).store(0, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SimClock;

    fn quick(busy_max: usize) -> (Arc<SimClock>, Quick) {
        let clock = Arc::new(SimClock::new(0));
        (clock.clone(), Quick::new(clock, busy_max))
    }

    fn key(quick: &Quick, params: &str, min_s: i64, max_s: i64) -> Option<Key> {
        let range = TimeRange { min_ms: min_s * 1000, max_ms: max_s * 1000 };
        quick.key("query", &Params::from_query(params), range)
    }

    #[test]
    fn requests_are_alike_by_text_and_about_the_same_time() {
        let (clock, quick) = quick(1);
        let key = |params: &str, min_s, max_s| key(&quick, params, min_s, max_s);
        let first = key("query=up&time=1200", 1200, 1200);
        assert!(first.is_some());
        assert_eq!(key("query=up&time=1260", 1260, 1260), first);
        assert_ne!(key("query=down&time=1200", 1200, 1200), first);
        assert_ne!(key("query=up&stats=all&time=1200", 1200, 1200), first);
        assert_ne!(key("query=up&time=1800", 1800, 1800), first);
        assert_ne!(key("query=up&time=1200", 1200, 1800), first);
        clock.advance_ms(ALIKE.as_millis() as i64);
        assert_ne!(key("query=up&time=1200", 1200, 1200), first);
        let long = format!("query={}", "x".repeat(TEXT_BYTES_MAX));
        assert_eq!(key(&long, 1200, 1200), None);
    }

    #[test]
    fn the_last_time_decides_and_turns_are_few() {
        let (clock, quick) = quick(1);
        let (up, down) = (Key(1), Key(2));
        assert!(quick.turn(up).is_none(), "never seen");
        quick.timed(up, || ());
        assert!(quick.turn(down).is_none());
        let turn = quick.turn(up);
        assert!(turn.is_some());
        assert!(quick.turn(up).is_none(), "another one is being answered");
        drop(turn);
        assert!(quick.turn(up).is_some());
        quick.timed(up, || clock.advance_ms(1));
        assert!(quick.turn(up).is_none());
    }

    #[test]
    fn a_slow_request_leaves_what_stands_in_its_place() {
        let (clock, quick) = quick(1);
        let (first, second) = (Key(7), Key(7 + SLOTS as u64));
        quick.timed(first, || ());
        quick.timed(second, || clock.advance_ms(1));
        assert!(quick.is_quick(first));
        quick.timed(second, || ());
        assert!(quick.is_quick(second) && !quick.is_quick(first));
    }
}
