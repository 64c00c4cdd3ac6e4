//! From which moment ages are counted, although the clock may be wrong for a while.
//!
//! Ages of samples are seen from the newest one. A clock that leaps ahead lets the next scrape have
//! a time by which everything else is old, and what retention drops does not come back when the
//! clock does. So samples count only as far as the clock is believed, and a leap of it, compared
//! with the monotonic clock or with what was stored when the store was opened, is believed only
//! after it has lasted. (A machine that slept, or was off, leaps rightly: then this keeps samples
//! a little longer.)

use std::time::Duration;

/// A clock that is set forward by no more than this is believed at once.
const LEAP_MS: i64 = 3_600_000;
/// A longer leap is believed when it has lasted so long. (Prometheus counts from its newest block,
/// which it writes about as long after the samples.)
const BELIEVED_AFTER: Duration = Duration::from_hours(2);

/// What the clock is believed to have shown.
#[derive(Debug, Default)]
pub struct Moment {
    /// A time, and the reading of the monotonic clock then.
    known: Option<(i64, Duration)>,
    /// When the clock was first seen to be ahead of that.
    leapt: Option<Duration>,
    is_told: bool,
}

impl Moment {
    /// The time that is believed when the clocks show these.
    pub fn believe(&mut self, now_ms: i64, monotonic: Duration) -> i64 {
        let expected_ms = self.known.map_or(now_ms, |(known_ms, then)| {
            let elapsed = monotonic.saturating_sub(then).as_millis();
            known_ms.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
        });
        if expected_ms.saturating_add(LEAP_MS) < now_ms {
            let since = *self.leapt.get_or_insert(monotonic);
            if monotonic.saturating_sub(since) < BELIEVED_AFTER {
                return expected_ms;
            }
        }
        *self = Self { known: Some((now_ms, monotonic)), ..Self::default() };
        now_ms
    }

    /// Whether people were told of this leap before; from now on they were.
    pub fn set_told(&mut self) -> bool {
        std::mem::replace(&mut self.is_told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_is_believed_when_it_lasts() {
        const HOUR: i64 = 3_600_000;
        let mut moment = Moment::default();
        for (hours, now_ms, expected) in [
            (0, 100 * HOUR, 100 * HOUR),
            (1, 101 * HOUR, 101 * HOUR),
            // A little wrong, either way.
            (2, 103 * HOUR, 103 * HOUR),
            (3, 90 * HOUR, 90 * HOUR),
            // Far ahead, and back.
            (4, 1_000 * HOUR, 91 * HOUR),
            (5, 1_001 * HOUR, 92 * HOUR),
            (6, 93 * HOUR, 93 * HOUR),
            // Far ahead, further, and no way back.
            (7, 1_000 * HOUR, 94 * HOUR),
            (8, 2_000 * HOUR, 95 * HOUR),
            (9, 2_001 * HOUR, 2_001 * HOUR),
            (10, 2_002 * HOUR, 2_002 * HOUR),
        ] {
            let monotonic = Duration::from_hours(hours);
            assert_eq!(moment.believe(now_ms, monotonic), expected, "after {hours} hours");
        }
        assert!(!moment.set_told() && moment.set_told());
    }
}
