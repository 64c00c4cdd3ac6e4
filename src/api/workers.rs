//! Threads for what clients ask: queries, lists of series, remote reads.
//!
//! They have a lower priority than everything else here, so that scrapes and rules begin in time
//! however much is asked, and take turns, so that few are interrupted while they hold a lock. The
//! runtime's own blocking threads serve writes; a thread that has given up its priority cannot have
//! it back. Threads are made when they are needed and end when they have been idle for a while. Those
//! that a query makes itself inherit the priority.

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::base::turns::Turns;
use crate::promql::parser::STACK_BYTES;

/// Most threads. Clients that wait hold one each; `--web.max-connections` is 512 unless it is set.
const THREADS_MAX: usize = 512;
/// Most jobs that wait for a thread.
const WAITING_MAX: usize = 1024;
/// How long a thread waits for something to do.
const IDLE: Duration = Duration::from_secs(10);
/// Steps down: the scheduler gives such a thread about a ninth of the time of another one, and
/// nothing while that wakes up.
const NICE: i32 = 10;

/// Threads that compute at a time, for each processor: some of them wait for the disk.
const TURNS_PER_PROCESSOR: usize = 2;
/// How long a thread computes while others wait for their turn.
const TURN: Duration = Duration::from_millis(10);

type Job = Box<dyn FnOnce() + Send>;

/// Why a job gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// So many wait already, or the system gives no more threads.
    #[error("too many requests are waiting")]
    Full,
    /// It panicked; the log has the rest.
    #[error("unexpected error: panic")]
    Panic,
}

/// Runs jobs on threads of low priority.
#[derive(Clone, Default)]
pub struct Workers(Arc<Shared>);

struct Shared {
    turns: Arc<Turns>,
    state: Mutex<State>,
    /// Signalled for each job.
    added: Condvar,
}

impl Default for Shared {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let turns = Turns::new(processors * TURNS_PER_PROCESSOR, TURN);
        Self { turns, state: Mutex::default(), added: Condvar::new() }
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait; those that were woken and did not run yet are among them.
    idle: usize,
}

impl Workers {
    /// Runs something that blocks or computes for long.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let (sender, done) = oneshot::channel();
        // Whoever asked may be gone.
        self.start(move || drop(sender.send(work())))?;
        done.await.map_err(|_| JobError::Panic)
    }

    /// Starts something that nobody waits for.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn start(&self, work: impl FnOnce() + Send + 'static) -> Result<(), JobError> {
        let mut state = self.0.state.lock();
        if WAITING_MAX <= state.jobs.len() {
            return Err(JobError::Full);
        }
        state.jobs.push_back(Box::new(work));
        if state.idle < state.jobs.len() && state.threads < THREADS_MAX {
            let shared = Arc::clone(&self.0);
            let builder =
                std::thread::Builder::new().name("request".to_owned()).stack_size(STACK_BYTES);
            if builder.spawn(move || shared.serve()).is_ok() {
                state.threads += 1;
            } else if state.threads == 0 {
                state.jobs.clear();
                return Err(JobError::Full);
            }
        }
        self.0.added.notify_one();
        Ok(())
    }
}

impl Shared {
    fn serve(&self) {
        // Without it everything works, only less evenly.
        let _ = rustix::process::nice(NICE);
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // The hook of the process has logged a panic.
                let _ = catch_unwind(AssertUnwindSafe(|| self.turns.take(job)));
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.added.wait_for(&mut state, IDLE);
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_beside_each_other_below_normal_priority() {
        let workers = Workers::default();
        let normal = rustix::process::getpriority_process(None).unwrap();
        // Each waits for the other.
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let job = || {
            let barrier = Arc::clone(&barrier);
            move || {
                barrier.wait();
                rustix::process::getpriority_process(None).unwrap()
            }
        };
        let (one, other) = tokio::join!(workers.run(job()), workers.run(job()));
        let lowered = (normal + NICE).min(19);
        assert_eq!((one, other), (Ok(lowered), Ok(lowered)));
        let panicked = workers.run(|| -> u8 { panic!("as the test wants") }).await;
        assert_eq!(panicked, Err(JobError::Panic));
        assert_eq!(workers.run(|| 7).await, Ok(7), "the threads are still there");
        assert!(workers.0.state.lock().threads <= 4, "one for each job at most");
    }

    #[tokio::test]
    async fn too_many_jobs_are_refused() {
        let workers = Workers::default();
        workers.0.state.lock().threads = THREADS_MAX;
        for _ in 0..WAITING_MAX {
            workers.start(|| ()).unwrap();
        }
        assert_eq!(workers.run(|| ()).await, Err(JobError::Full));
    }
}
