//! Making commits durable: one sync at a time, each for all commits that were written before it.
//!
//! A sync starts when somebody waits for a ticket and none is running, and at the latest a second
//! after a commit. After a failed sync every ticket fails and nothing is tried again.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::append::{SyncError, Ticket};
use super::failure::Failure;
use super::options::WalSync;

/// The store's commits as seen from the disk.
pub struct Syncer {
    policy: WalSync,
    shared: Arc<Shared>,
    failure: Failure,
    on_wanted: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// The last commit that was written.
    written: u64,
    /// The last commit that is on disk for certain.
    durable: u64,
    /// Tickets by commit, oldest first.
    tickets: Vec<(u64, Ticket)>,
    /// Whether somebody waits.
    is_wanted: bool,
    is_stopped: bool,
}

impl Shared {
    /// Nothing that is not yet durable ever will be.
    fn fail(&self) {
        let tickets = std::mem::take(&mut self.state.lock().tickets);
        for (_, ticket) in tickets {
            ticket.settle(Err(SyncError));
        }
    }
}

impl Syncer {
    /// For a store whose commits up to `sequence` are on disk. It is told when the store fails.
    pub fn new(policy: WalSync, sequence: u64, failure: &Failure) -> Self {
        let shared = Arc::new(Shared::default());
        let failing = Arc::clone(&shared);
        failure.on_set(move || failing.fail());
        *shared.state.lock() = State { written: sequence, durable: sequence, ..State::default() };
        let woken = Arc::clone(&shared);
        let on_wanted = Arc::new(move || {
            woken.state.lock().is_wanted = true;
            woken.wake.notify_all();
        });
        Self { policy, shared, failure: failure.clone(), on_wanted }
    }

    /// The policy.
    pub fn policy(&self) -> WalSync {
        self.policy
    }

    /// The commit `sequence` was written.
    pub fn written(&self, sequence: u64) -> Ticket {
        self.shared.state.lock().written = sequence;
        self.newest()
    }

    /// The ticket of the last commit that was written.
    pub fn newest(&self) -> Ticket {
        let mut state = self.shared.state.lock();
        // Asked with the tickets locked: whatever is added is there before all of them fail.
        if self.failure.is_set() {
            return Ticket::settled(Err(SyncError));
        }
        if state.durable >= state.written || self.policy != WalSync::Batch {
            return Ticket::settled(Ok(()));
        }
        if let Some((sequence, ticket)) = state.tickets.last()
            && *sequence == state.written
        {
            return ticket.clone();
        }
        let ticket = Ticket::lazy(Arc::clone(&self.on_wanted));
        let written = state.written;
        state.tickets.push((written, ticket.clone()));
        ticket
    }

    /// What a sync that starts now covers; `None` when there is nothing to do or no use in it.
    pub fn begin(&self) -> Option<u64> {
        let mut state = self.shared.state.lock();
        state.is_wanted = false;
        (state.written > state.durable && !self.failure.is_set()).then_some(state.written)
    }

    /// A sync that covers the commits up to `sequence` has ended well.
    pub fn end(&self, sequence: u64) {
        let mut state = self.shared.state.lock();
        if self.failure.is_set() {
            // Whoever set it fails all tickets, or has.
            return;
        }
        state.durable = state.durable.max(sequence);
        let durable = state.durable;
        let covered = state.tickets.partition_point(|(written, _)| *written <= durable);
        let settled: Vec<_> = state.tickets.drain(..covered).collect();
        drop(state);
        for (_, ticket) in settled {
            ticket.settle(Ok(()));
        }
    }

    /// Waits until a sync is due; false when the store is closing.
    pub fn wait(&self) -> bool {
        let mut state = self.shared.state.lock();
        let is_idle = |state: &mut State| !state.is_wanted && !state.is_stopped;
        let second = std::time::Duration::from_secs(1);
        self.shared.wake.wait_while_for(&mut state, is_idle, second);
        !state.is_stopped
    }

    /// Ends [`Syncer::wait`] for good.
    pub fn stop(&self) {
        self.shared.state.lock().is_stopped = true;
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_covers_what_was_written_before_it_began() {
        let failure = Failure::default();
        let syncer = Syncer::new(WalSync::Batch, 5, &failure);
        assert!(syncer.newest().wait().is_ok());
        let first = syncer.written(6);
        let again = syncer.newest();
        assert_eq!(syncer.begin(), Some(6));
        let second = syncer.written(7);
        syncer.end(6);
        assert!(first.wait().is_ok() && again.wait().is_ok());
        assert_eq!(syncer.begin(), Some(7));
        failure.set("test", &std::io::Error::other("test"));
        syncer.end(7);
        assert!(second.wait().is_err());
        assert!(syncer.newest().wait().is_err());
        assert_eq!(syncer.begin(), None);
    }

    #[test]
    fn other_policies_settle_at_once() {
        let syncer = Syncer::new(WalSync::Interval, 0, &Failure::default());
        assert!(syncer.written(1).wait().is_ok());
        assert_eq!(syncer.begin(), Some(1));
    }
}
