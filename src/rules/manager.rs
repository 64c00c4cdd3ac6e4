//! The loop over all groups: one thread that evaluates what is due, in order of time.
//!
//! The thread holds the lock of the groups while it evaluates one; [`Manager::apply`] waits for
//! that. Readers never do: [`Manager::groups`] gives what was published after each round.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::{error, info};

use crate::base::clock::Clock;
use crate::base::metrics::Registry;
use crate::model::labels::Labels;
use crate::promql::engine::CancelFlag;
use crate::promql::parser::STACK_BYTES;
use crate::storage::append::Appender;
use crate::storage::select::Select;

use super::group::{Context, Due, Group, end_series};
use super::metrics::Metrics;
use super::{AlertSink, Evaluate, GroupOptions, GroupStatus, Options};

/// Longest sleep between two looks at the clock, since the wall clock may be set.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Where the rules read from and write to.
pub struct Stores {
    /// Evaluates expressions. Give it an engine of its own, so that rules never queue behind API
    /// queries.
    pub engine: Arc<dyn Evaluate>,
    /// For the state of an earlier run.
    pub select: Arc<dyn Select>,
    /// Takes results.
    pub appender: Arc<dyn Appender>,
    /// Takes alerts.
    pub sink: Arc<dyn AlertSink>,
}

/// Evaluates rule groups until it is shut down. Share it by `Arc`.
pub struct Manager {
    stores: Stores,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    state: Mutex<State>,
    /// Signalled when groups change or the manager stops.
    changed: Condvar,
    published: Mutex<Vec<Arc<GroupStatus>>>,
    cancel: CancelFlag,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    options: Options,
    groups: Vec<Group>,
    ended: Vec<Ended>,
    /// Whether groups were applied before; later ones have no earlier run to look for.
    is_applied: bool,
}

/// Series of a group that is gone. They are ended two intervals later, so that a renamed group
/// may take them over, and with the time at which the group went.
struct Ended {
    series: Vec<Labels>,
    sample_ms: i64,
    due_ms: i64,
}

impl Manager {
    /// A manager without groups; nothing runs before [`Manager::run`].
    pub fn new(
        stores: Stores,
        clock: Arc<dyn Clock>,
        metrics: &Registry,
        options: Options,
    ) -> Arc<Self> {
        let state = State { options, groups: Vec::new(), ended: Vec::new(), is_applied: false };
        Arc::new(Self {
            stores,
            clock,
            metrics: Metrics::new(metrics),
            state: Mutex::new(state),
            changed: Condvar::new(),
            published: Mutex::default(),
            cancel: CancelFlag::new(),
            thread: Mutex::new(None),
        })
    }

    /// Replaces the groups. Unchanged ones run on undisturbed; a changed one keeps what its rules
    /// of the same name and labels remember. Blocks while a group is being evaluated.
    pub fn apply(&self, external_labels: Labels, groups: Vec<GroupOptions>) {
        let mut state = self.state.lock();
        let now_ms = self.clock.now_ms();
        state.options.external_labels = external_labels;
        let restore = !state.is_applied;
        state.is_applied = true;
        let mut old = std::mem::take(&mut state.groups);
        for options in groups {
            let is_same = |group: &Group| {
                (&group.options.file, &group.options.name) == (&options.file, &options.name)
            };
            let found = old.iter().position(is_same).map(|at| old.swap_remove(at));
            self.metrics.begin(&options);
            let group = match found {
                Some(group) if group.options == options => group,
                found => {
                    let mut group =
                        Group::new(options, &state.options.external_url, restore, now_ms);
                    if let Some(found) = found {
                        group.inherit(found);
                    }
                    group
                }
            };
            state.groups.push(group);
        }
        for group in old {
            self.metrics.end(&group.options.key());
            let interval_ms = group.options.interval_ms;
            let end_ms = now_ms.max(group.schedule.after_last_ms());
            let sample_ms = end_ms - group.options.query_offset_ms;
            let due_ms = now_ms.saturating_add(interval_ms.saturating_mul(2));
            state.ended.push(Ended { series: group.into_series(), sample_ms, due_ms });
        }
        let key = |group: &Group| (group.options.file.clone(), group.options.name.clone());
        state.groups.sort_by_cached_key(key);
        *self.published.lock() =
            state.groups.iter().map(|group| Arc::new(group.status())).collect();
        MutexGuard::unlock_fair(state);
        self.changed.notify_all();
    }

    /// Starts the thread. Call it once, when the store is ready.
    pub fn run(self: &Arc<Self>) -> std::io::Result<()> {
        let manager = Arc::clone(self);
        let thread = std::thread::Builder::new().name("rules".to_owned()).stack_size(STACK_BYTES);
        let handle = thread.spawn(move || {
            info!("Rule manager started.");
            while !manager.cancel.is_canceled() {
                manager.evaluate_due();
                manager.sleep();
            }
        })?;
        *self.thread.lock() = Some(handle);
        Ok(())
    }

    /// Ends the thread, cancelling the query that runs. Blocks until it has ended. Series get no
    /// stale markers: another run may continue them.
    pub fn shutdown(&self) {
        self.cancel.cancel();
        self.changed.notify_all();
        let thread = self.thread.lock().take();
        if let Some(handle) = thread
            && handle.join().is_err()
        {
            error!("Rule manager thread panicked.");
        }
    }

    /// Evaluates all groups that are due by now, earliest first. The thread does nothing else.
    pub fn evaluate_due(&self) {
        while !self.cancel.is_canceled() && self.evaluate_next() {}
        let mut state = self.state.lock();
        let now_ms = self.clock.now_ms();
        let State { options, ended, .. } = &mut *state;
        let ctx = self.context(options);
        ended
            .retain(|gone| gone.due_ms > now_ms || !end_series(&gone.series, gone.sample_ms, &ctx));
    }

    /// Evaluates all groups once for this moment, whatever their schedule says, in order of the
    /// rank of their names: for unit tests of rules.
    pub fn evaluate_all_at(&self, ts_ms: i64, rank: impl Fn(&str) -> usize) {
        let mut state = self.state.lock();
        let State { options, groups, .. } = &mut *state;
        let mut order: Vec<&mut Group> = groups.iter_mut().collect();
        order.sort_by_key(|group| rank(&group.options.name));
        for group in order {
            self.evaluate_guarded(group, Due { ts_ms, missed_count: 0 }, options);
            self.publish(group);
        }
    }

    /// Shows the group as it is now.
    fn publish(&self, group: &Group) {
        let status = Arc::new(group.status());
        let mut published = self.published.lock();
        let same =
            |old: &&mut Arc<GroupStatus>| (&old.file, &old.name) == (&status.file, &status.name);
        if let Some(old) = published.iter_mut().find(same) {
            *old = status;
        }
    }

    /// Evaluates the group that has been due for longest; `false` when none is.
    fn evaluate_next(&self) -> bool {
        let mut state = self.state.lock();
        let now_ms = self.clock.now_ms();
        let State { options, groups, .. } = &mut *state;
        let Some(group) = groups.iter_mut().min_by_key(|group| group.schedule.next_ms()) else {
            return false;
        };
        let Some(due) = group.schedule.take_due(now_ms) else { return false };
        self.evaluate_guarded(group, due, options);
        self.publish(group);
        MutexGuard::unlock_fair(state);
        true
    }

    /// A panic in one group must not silence all the others.
    fn evaluate_guarded(&self, group: &mut Group, due: Due, options: &Options) {
        let ctx = self.context(options);
        if catch_unwind(AssertUnwindSafe(|| group.run(due, &ctx))).is_err() {
            let (file, name) = (&group.options.file, &group.options.name);
            error!(%file, group = %name, "Evaluating rule group panicked.");
        }
    }

    fn context<'a>(&'a self, options: &'a Options) -> Context<'a> {
        Context {
            engine: &*self.stores.engine,
            select: &*self.stores.select,
            appender: &*self.stores.appender,
            sink: &*self.stores.sink,
            clock: &*self.clock,
            metrics: &self.metrics,
            options,
            cancel: &self.cancel,
        }
    }

    /// Until the next group is due or something changes.
    fn sleep(&self) {
        let mut state = self.state.lock();
        if self.cancel.is_canceled() {
            return;
        }
        let next_ms = state.groups.iter().map(|group| group.schedule.next_ms()).min();
        let wait_ms = next_ms.map(|next_ms| (next_ms - self.clock.now_ms()).max(0) as u64);
        let wait = wait_ms.map_or(SLEEP_MAX, Duration::from_millis).min(SLEEP_MAX);
        if !wait.is_zero() {
            self.changed.wait_for(&mut state, wait);
        }
    }

    /// When the next round is due.
    #[cfg(test)]
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.state.lock().groups.iter().map(|group| group.schedule.next_ms()).min()
    }

    /// All groups in order of file and name, as they were after their last round. Never blocks on
    /// an evaluation.
    pub fn groups(&self) -> Vec<Arc<GroupStatus>> {
        self.published.lock().clone()
    }
}
