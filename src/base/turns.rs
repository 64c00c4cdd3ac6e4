//! Turns: a few threads compute, the others wait until one of those has had its time.
//!
//! A thread of low priority that is interrupted while it holds a lock (of the store, of the
//! allocator, of the address space in the kernel) keeps everybody waiting who needs that lock, and
//! it goes on when all other threads of its priority have had their share. So there must be few of
//! them at a time. Code that computes for long calls [`pass`] now and then, code that waits for
//! others goes [`aside`]; on threads without a turn both do nothing. Neither may be called with a
//! lock that somebody with a turn may wait for: then nobody would go on.
#![expect(
    clippy::disallowed_methods,
    reason = "turns are short, and no simulation decides on them"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

thread_local! {
    static OWN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Has a fixed number of turns to give.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
    /// How long a thread computes before it lets the next one go on.
    length: Duration,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// In the order in which they came; empty while a turn is free. There is at most one of each
    /// thread.
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    has_turn: AtomicBool,
}

/// The turn of this thread.
#[derive(Debug)]
struct Turn {
    turns: Arc<Turns>,
    since: Instant,
}

impl Turns {
    /// So many (at least one) turns of this length.
    pub fn new(count: usize, length: Duration) -> Arc<Self> {
        assert!(0 < count, "nobody would ever compute");
        let state = State { free: count, waiting: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state), length })
    }

    /// Waits for a turn and keeps it while `work` runs, but for when that passes it on.
    pub fn take<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        self.begin();
        let _end = EndOnDrop;
        work()
    }

    fn begin(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.free == 0 {
            let waiter = state.wait();
            drop(state);
            waiter.park();
        } else {
            state.free -= 1;
        }
        let turn = Turn { turns: Arc::clone(self), since: Instant::now() };
        let before = OWN.replace(Some(turn));
        assert!(before.is_none(), "a thread has one turn");
    }

    fn end(&self) {
        let mut state = self.state.lock();
        match state.waiting.pop_front() {
            Some(next) => next.wake(),
            None => state.free += 1,
        }
    }

    /// Changes places with the thread that has waited for longest.
    fn pass(&self) {
        let mut state = self.state.lock();
        let Some(next) = state.waiting.pop_front() else { return };
        let waiter = state.wait();
        drop(state);
        next.wake();
        waiter.park();
    }
}

impl State {
    fn wait(&mut self) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter { thread: thread::current(), has_turn: false.into() });
        self.waiting.push_back(Arc::clone(&waiter));
        waiter
    }
}

impl Waiter {
    fn wake(&self) {
        self.has_turn.store(true, Ordering::Release);
        self.thread.unpark();
    }

    fn park(&self) {
        while !self.has_turn.load(Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Ends the turn of this thread, also after a panic.
struct EndOnDrop;

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // There is none when the work panicked while it was aside.
        if let Some(own) = OWN.take() {
            own.turns.end();
        }
    }
}

/// Lets the next thread compute when this one has done so for long enough, and waits for another
/// turn.
pub fn pass() {
    OWN.with_borrow_mut(|own| {
        if let Some(own) = own
            && own.turns.length <= own.since.elapsed()
        {
            own.turns.pass();
            own.since = Instant::now();
        }
    });
}

/// Runs something that waits for others, without a turn meanwhile.
pub fn aside<T>(wait: impl FnOnce() -> T) -> T {
    let Some(own) = OWN.take() else { return wait() };
    own.turns.end();
    let result = wait();
    own.turns.begin();
    result
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Until so many threads wait.
    fn wait_for(turns: &Turns, count: usize) {
        while turns.state.lock().waiting.len() < count {
            thread::yield_now();
        }
    }

    #[test]
    fn those_who_wait_go_on_in_their_order() {
        let turns = Turns::new(1, Duration::ZERO);
        let told = Mutex::new(Vec::new());
        thread::scope(|scope| {
            turns.take(|| {
                for (count, name) in [(1, "b"), (2, "c")] {
                    let (turns, told) = (&turns, &told);
                    scope.spawn(move || turns.take(|| told.lock().push(name)));
                    wait_for(turns, count);
                }
                told.lock().push("a");
                pass();
                told.lock().push("a again");
                pass();
            });
        });
        assert_eq!(*told.lock(), ["a", "b", "c", "a again"]);
        assert_eq!(turns.state.lock().free, 1);
    }

    #[test]
    fn whoever_is_aside_has_no_turn() {
        let turns = Turns::new(1, Duration::from_hours(1));
        let taken = turns.take(|| {
            // A turn that is not over is kept.
            pass();
            aside(|| thread::scope(|scope| scope.spawn(|| turns.take(|| 7)).join().unwrap()))
        });
        assert_eq!(taken, 7);
        let work = AssertUnwindSafe(|| turns.take(|| aside(|| panic!("as the test wants"))));
        let panicked: Result<(), _> = catch_unwind(work);
        assert!(panicked.is_err());
        assert_eq!(turns.state.lock().free, 1);
        // Threads without a turn do as they like.
        pass();
        assert_eq!(aside(|| 8), 8);
    }

    #[test]
    fn no_more_than_allowed_compute() {
        let (turns, running) = (Turns::new(2, Duration::ZERO), AtomicUsize::new(0));
        let step = || {
            assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
            thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    turns.take(|| {
                        for _ in 0..100 {
                            step();
                            pass();
                            step();
                            aside(thread::yield_now);
                        }
                    });
                });
            }
        });
        assert_eq!(turns.state.lock().free, 2);
    }
}
