//! Lets a bounded number of queries run; the others wait their turn, as long as their deadline allows.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How often a waiting query looks whether it was canceled.
const POLL: Duration = Duration::from_millis(50);

/// Counts running queries.
#[derive(Debug)]
pub(super) struct Gate {
    limit: usize,
    running: Mutex<usize>,
    left: Condvar,
}

/// A place in the gate; leaves when dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Gate);

impl Gate {
    /// A gate for `limit` (at least one) queries at a time.
    pub(super) fn new(limit: usize) -> Self {
        assert!(0 < limit, "a gate that lets nobody in");
        Self { limit, running: Mutex::new(0), left: Condvar::new() }
    }

    /// Waits for a place until `give_up` says why not to wait any longer.
    pub(super) fn enter<E>(&self, give_up: impl Fn() -> Result<(), E>) -> Result<Place<'_>, E> {
        let mut running = self.running.lock();
        loop {
            give_up()?;
            if *running < self.limit {
                *running += 1;
                return Ok(Place(self));
            }
            self.left.wait_for(&mut running, POLL);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let gate = Gate::new(1);
        let first = gate.enter(|| Ok::<_, ()>(())).unwrap();
        assert_eq!(*gate.running.lock(), 1);
        assert!(gate.enter(|| Err::<(), _>("deadline")).is_err());
        drop(first);
        assert!(gate.enter(|| Ok::<_, ()>(())).is_ok());
        assert_eq!(*gate.running.lock(), 0);
    }
}
