//! Making commits durable: one sync at a time, each for all commits that were written before it.
//!
//! A sync starts when somebody waits for a ticket and none is running, and at the latest a second
//! after a commit. After a failed sync every ticket fails and nothing is tried again.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::append::{SyncError, Ticket};
use super::options::WalSync;

/// The store's commits as seen from the disk.
pub struct Syncer {
    policy: WalSync,
    shared: Arc<Shared>,
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
    has_failed: bool,
    is_stopped: bool,
}

impl Syncer {
    /// For a store whose commits up to `sequence` are on disk.
    pub fn new(policy: WalSync, sequence: u64) -> Self {
        let shared = Arc::new(Shared::default());
        *shared.state.lock() = State { written: sequence, durable: sequence, ..State::default() };
        let woken = Arc::clone(&shared);
        let on_wanted = Arc::new(move || {
            woken.state.lock().is_wanted = true;
            woken.wake.notify_all();
        });
        Self { policy, shared, on_wanted }
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
        if state.has_failed {
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
        (state.written > state.durable && !state.has_failed).then_some(state.written)
    }

    /// A sync that covers the commits up to `sequence` has ended.
    pub fn end(&self, sequence: u64, result: Result<(), SyncError>) {
        let mut state = self.shared.state.lock();
        let covered = match result {
            Ok(()) => {
                state.durable = state.durable.max(sequence);
                let durable = state.durable;
                state.tickets.partition_point(|(written, _)| *written <= durable)
            }
            Err(SyncError) => {
                state.has_failed = true;
                state.tickets.len()
            }
        };
        let settled: Vec<_> = state.tickets.drain(..covered).collect();
        drop(state);
        for (_, ticket) in settled {
            ticket.settle(result.clone());
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
        let syncer = Syncer::new(WalSync::Batch, 5);
        assert!(syncer.newest().wait().is_ok());
        let first = syncer.written(6);
        let again = syncer.newest();
        assert_eq!(syncer.begin(), Some(6));
        let second = syncer.written(7);
        syncer.end(6, Ok(()));
        assert!(first.wait().is_ok() && again.wait().is_ok());
        assert_eq!(syncer.begin(), Some(7));
        syncer.end(7, Err(SyncError));
        assert!(second.wait().is_err());
        assert!(syncer.newest().wait().is_err());
        assert_eq!(syncer.begin(), None);
    }

    #[test]
    fn other_policies_settle_at_once() {
        let syncer = Syncer::new(WalSync::Interval, 0);
        assert!(syncer.written(1).wait().is_ok());
        assert_eq!(syncer.begin(), Some(1));
    }
}
