//! For tests: how often this thread looked at a byte or a token, as a measure of time that does not
//! depend on the machine.

use std::cell::Cell;

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// One more.
pub fn count() {
    STEPS.set(STEPS.get() + 1);
}

/// How many something takes, and what it gives.
pub fn of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = STEPS.get();
    let done = work();
    (done, STEPS.get() - before)
}
