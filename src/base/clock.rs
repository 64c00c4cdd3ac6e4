//! Wall-clock and monotonic time, real and simulated.
//!
//! Pure code takes `now_ms` as an argument; only loops own a [`Clock`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z. May jump when the wall clock is set.
    fn now_ms(&self) -> i64;
    /// Time since an arbitrary fixed point; never goes backwards. For measuring durations.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Debug)]
pub struct OsClock {
    origin: Instant,
}

impl OsClock {
    /// A clock whose monotonic time starts at zero now.
    #[expect(clippy::new_without_default, reason = "constructing it reads the clock: say so")]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the OS clock")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for OsClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the OS clock")]
    fn now_ms(&self) -> i64 {
        // A clock before 1970 is a broken machine; zero keeps arithmetic sane.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the name")]
pub struct SimClock {
    start_ms: i64,
    now_ms: AtomicI64,
    /// How far the wall clock is wrong.
    error_ms: AtomicI64,
}

impl SimClock {
    /// A clock that shows `start_ms`.
    pub fn new(start_ms: i64) -> Self {
        Self { start_ms, now_ms: AtomicI64::new(start_ms), error_ms: AtomicI64::new(0) }
    }

    /// From now on the wall clock is wrong by so much; the monotonic one is not.
    pub fn set_error_ms(&self, error_ms: i64) {
        self.error_ms.store(error_ms, Ordering::SeqCst);
    }

    /// Moves the clock forward by `delta_ms`.
    pub fn advance_ms(&self, delta_ms: i64) {
        self.now_ms.fetch_add(delta_ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst) + self.error_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis((self.now_ms.load(Ordering::SeqCst) - self.start_ms).max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_clock_moves_only_when_told() {
        let clock = SimClock::new(5_000);
        assert_eq!(clock.now_ms(), 5_000);
        clock.advance_ms(250);
        assert_eq!(clock.now_ms(), 5_250);
        assert_eq!(clock.monotonic(), Duration::from_millis(250));
        clock.set_error_ms(1_000);
        assert_eq!(clock.now_ms(), 6_250);
        assert_eq!(clock.monotonic(), Duration::from_millis(250));
    }
}
