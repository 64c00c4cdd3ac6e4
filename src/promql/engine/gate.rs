//! Lets a bounded number of queries run; the others wait their turn, as long as their deadline allows.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::base::turns;

/// Queries that wait: each holds a thread, and others need some too.
pub(super) const WAITING_MAX: usize = 256;
/// How often a waiting query looks whether it was canceled.
const POLL: Duration = Duration::from_millis(50);

/// Counts running queries.
#[derive(Debug)]
pub(super) struct Gate {
    limit: usize,
    counts: Mutex<Counts>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    running: usize,
    waiting: usize,
}

/// A place in the gate; leaves when dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Gate);

impl Gate {
    /// A gate for `limit` (at least one) queries at a time.
    pub(super) fn new(limit: usize) -> Self {
        assert!(0 < limit, "a gate that lets nobody in");
        Self { limit, counts: Mutex::default(), left: Condvar::new() }
    }

    /// Waits for a place until `give_up` says why not to wait any longer, or does not when too many
    /// wait: then `full` says so.
    pub(super) fn enter<E>(
        &self,
        give_up: impl Fn() -> Result<(), E>,
        full: impl FnOnce() -> E,
    ) -> Result<Place<'_>, E> {
        let mut counts = self.counts.lock();
        give_up()?;
        if counts.running < self.limit {
            counts.running += 1;
            return Ok(Place(self));
        }
        if counts.waiting == WAITING_MAX {
            return Err(full());
        }
        counts.waiting += 1;
        drop(counts);
        turns::aside(|| self.wait(give_up))
    }

    fn wait<E>(&self, give_up: impl Fn() -> Result<(), E>) -> Result<Place<'_>, E> {
        let mut counts = self.counts.lock();
        while self.limit <= counts.running {
            self.left.wait_for(&mut counts, POLL);
            if let Err(err) = give_up() {
                counts.waiting -= 1;
                // Whoever was woken in vain wakes the next one.
                self.left.notify_one();
                return Err(err);
            }
        }
        counts.waiting -= 1;
        counts.running += 1;
        Ok(Place(self))
    }

    /// A place when there is one and nobody waits for it.
    pub(super) fn enter_at_once(&self) -> Option<Place<'_>> {
        let mut counts = self.counts.lock();
        let is_free = counts.running < self.limit && counts.waiting == 0;
        is_free.then(|| {
            counts.running += 1;
            Place(self)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.counts.lock().running -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let gate = Gate::new(1);
        let enter = |give_up: Result<(), &'static str>| gate.enter(move || give_up, || "full");
        let first = enter(Ok(())).unwrap();
        assert_eq!(gate.counts.lock().running, 1);
        assert!(gate.enter_at_once().is_none());
        assert_eq!(enter(Err("deadline")).unwrap_err(), "deadline");
        gate.counts.lock().waiting = WAITING_MAX;
        assert_eq!(enter(Ok(())).unwrap_err(), "full");
        drop(first);
        assert!(enter(Ok(())).is_ok(), "nobody has to wait");
        assert!(gate.enter_at_once().is_none(), "others wait");
        gate.counts.lock().waiting = 0;
        assert!(gate.enter_at_once().is_some());
        assert_eq!(gate.counts.lock().running, 0);
    }
}
