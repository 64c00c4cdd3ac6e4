//! The loop over all groups: a few threads, each of which takes the group that has been due for
//! longest. A slow group keeps one of them busy and no other group waiting.
//!
//! A group that is being evaluated is out of its [`Slot`], so nobody waits for it: what
//! [`Manager::apply`] wants of it is noted and done when it comes back. [`Manager::groups`] gives
//! what was published after each round. Lock order: the state, then what is published.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
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
/// Groups evaluated at the same time. They wait for the store and for each other's threads of
/// evaluation, so some more than there are processors.
const WORKERS: usize = 8;

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
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct State {
    options: Arc<Options>,
    /// In order of file and name.
    slots: Vec<Slot>,
    ended: Vec<Ended>,
    /// Whether groups were applied before; later ones have no earlier run to look for.
    is_applied: bool,
}

/// The place of a group.
struct Slot {
    /// What the group was made with.
    options: GroupOptions,
    /// Nothing while it is being evaluated.
    group: Option<Box<Group>>,
    /// Ends the round that is going on.
    cancel: CancelFlag,
    /// What a group that is being evaluated must become.
    successor: Option<Successor>,
}

enum Successor {
    Changed(GroupOptions),
    Removed,
}

impl Slot {
    fn new(options: &GroupOptions, group: Group) -> Self {
        Self {
            options: options.clone(),
            group: Some(Box::new(group)),
            cancel: CancelFlag::new(),
            successor: None,
        }
    }

    fn key(&self) -> (&str, &str) {
        (&self.options.file, &self.options.name)
    }

    fn is_removed(&self) -> bool {
        matches!(self.successor, Some(Successor::Removed))
    }

    /// The group as these options want it; at once, or after the round that is going on.
    fn change(&mut self, options: GroupOptions, external_url: &str, now_ms: i64) {
        if self.options == options {
            self.successor = None;
            return;
        }
        match self.group.take() {
            Some(group) => {
                let changed = changed(*group, options.clone(), external_url, now_ms);
                *self = Self::new(&options, changed);
            }
            None => {
                self.cancel.cancel();
                self.successor = Some(Successor::Changed(options));
            }
        }
    }
}

fn changed(old: Group, options: GroupOptions, external_url: &str, now_ms: i64) -> Group {
    let mut group = Group::new(options, external_url, false, now_ms);
    group.inherit(old);
    group
}

/// A group that is out to be evaluated.
struct Round {
    group: Box<Group>,
    due: Due,
    cancel: CancelFlag,
    options: Arc<Options>,
}

/// Series of a group that is gone. They are ended two intervals later, so that a renamed group
/// may take them over, and with the time at which the group went.
struct Ended {
    series: Vec<Labels>,
    sample_ms: i64,
    due_ms: i64,
}

impl Ended {
    fn new(group: Group, now_ms: i64) -> Self {
        let interval_ms = group.options.interval_ms;
        let end_ms = now_ms.max(group.schedule.after_last_ms());
        let sample_ms = end_ms - group.options.query_offset_ms;
        let due_ms = now_ms.saturating_add(interval_ms.saturating_mul(2));
        Self { series: group.into_series(), sample_ms, due_ms }
    }
}

impl Manager {
    /// A manager without groups; nothing runs before [`Manager::run`].
    pub fn new(
        stores: Stores,
        clock: Arc<dyn Clock>,
        metrics: &Registry,
        options: Options,
    ) -> Arc<Self> {
        let options = Arc::new(options);
        let state = State { options, slots: Vec::new(), ended: Vec::new(), is_applied: false };
        Arc::new(Self {
            stores,
            clock,
            metrics: Metrics::new(metrics),
            state: Mutex::new(state),
            changed: Condvar::new(),
            published: Mutex::default(),
            cancel: CancelFlag::new(),
            threads: Mutex::default(),
        })
    }

    /// Replaces the groups. Unchanged ones run on undisturbed; a changed one keeps what its rules
    /// of the same name and labels remember. Waits for no evaluation: rounds of groups that
    /// changed or are gone are canceled, and what comes of them is dealt with when they end.
    pub fn apply(&self, external_labels: Labels, groups: Vec<GroupOptions>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let now_ms = self.clock.now_ms();
        state.options = Arc::new(Options { external_labels, ..Options::clone(&state.options) });
        let restore = !state.is_applied;
        state.is_applied = true;
        let external_url = &state.options.external_url;
        let mut old = std::mem::take(&mut state.slots);
        for options in groups {
            self.metrics.begin(&options);
            let is_same = |slot: &Slot| slot.key() == (&options.file, &options.name);
            let slot = match old.iter().position(is_same).map(|at| old.swap_remove(at)) {
                Some(mut slot) => {
                    slot.change(options, external_url, now_ms);
                    slot
                }
                None => {
                    let group = Group::new(options.clone(), external_url, restore, now_ms);
                    Slot::new(&options, group)
                }
            };
            state.slots.push(slot);
        }
        for mut slot in old {
            self.metrics.end(&slot.options.key());
            if let Some(group) = slot.group.take() {
                state.ended.push(Ended::new(*group, now_ms));
            } else {
                slot.cancel.cancel();
                slot.successor = Some(Successor::Removed);
                state.slots.push(slot);
            }
        }
        state.slots.sort_by(|a, b| a.key().cmp(&b.key()));
        self.publish_all(state);
        drop(guard);
        self.changed.notify_all();
    }

    /// Starts the threads. Call it once, when the store is ready.
    pub fn run(self: &Arc<Self>) -> std::io::Result<()> {
        info!("Rule manager started.");
        let mut threads = self.threads.lock();
        for number in 0..WORKERS {
            let manager = Arc::clone(self);
            let thread = std::thread::Builder::new().name(format!("rules-{number}"));
            threads.push(thread.stack_size(STACK_BYTES).spawn(move || {
                while !manager.cancel.is_canceled() {
                    manager.evaluate_due();
                    manager.sleep();
                }
            })?);
        }
        Ok(())
    }

    /// Begins no more rounds and asks the queries that run to end.
    pub fn cancel(&self) {
        self.cancel.cancel();
        let state = self.state.lock();
        state.slots.iter().for_each(|slot| slot.cancel.cancel());
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the threads, canceling the queries that run. Blocks until they have ended. Series get
    /// no stale markers: another run may continue them.
    pub fn shutdown(&self) {
        self.cancel();
        let threads = std::mem::take(&mut *self.threads.lock());
        for handle in threads {
            if handle.join().is_err() {
                error!("A thread of the rule manager panicked.");
            }
        }
    }

    /// Evaluates groups that are due by now and not being evaluated, earliest first, until there
    /// is none. The threads do nothing else.
    pub fn evaluate_due(&self) {
        while let Some(mut round) = self.take_next() {
            self.evaluate_guarded(&mut round);
            self.give_back(round.group);
        }
        self.end_gone();
    }

    /// Evaluates all groups once for this moment, whatever their schedule says, in order of the
    /// rank of their names: for unit tests of rules.
    pub fn evaluate_all_at(&self, ts_ms: i64, rank: impl Fn(&str) -> usize) {
        let mut state = self.state.lock();
        let take = |slot: &mut Slot| Some((slot.group.take()?, slot.cancel.clone()));
        let mut out: Vec<_> = state.slots.iter_mut().filter_map(take).collect();
        let options = Arc::clone(&state.options);
        drop(state);
        out.sort_by_key(|(group, _)| rank(&group.options.name));
        for (group, cancel) in out {
            let due = Due { ts_ms, missed_count: 0 };
            let mut round = Round { group, due, cancel, options: Arc::clone(&options) };
            self.evaluate_guarded(&mut round);
            self.give_back(round.group);
        }
    }

    /// Shows the groups as they are now; those that are being evaluated as they were.
    fn publish_all(&self, state: &State) {
        let mut published = self.published.lock();
        let shown = |slot: &Slot| match &slot.group {
            Some(group) => Some(Arc::new(group.status())),
            None => published.iter().find(|old| (&*old.file, &*old.name) == slot.key()).cloned(),
        };
        let all = state.slots.iter().filter(|slot| !slot.is_removed()).filter_map(shown).collect();
        *published = all;
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

    /// Takes the group that has been due for longest out of its slot.
    fn take_next(&self) -> Option<Round> {
        let mut state = self.state.lock();
        if self.cancel.is_canceled() {
            return None;
        }
        let (now_ms, options) = (self.clock.now_ms(), Arc::clone(&state.options));
        let next_ms = |slot: &&mut Slot| slot.group.as_ref().map(|group| group.schedule.next_ms());
        let present = state.slots.iter_mut().filter(|slot| slot.group.is_some());
        let slot = present.min_by_key(next_ms)?;
        let due = slot.group.as_mut()?.schedule.take_due(now_ms)?;
        slot.cancel = CancelFlag::new();
        Some(Round { group: slot.group.take()?, due, cancel: slot.cancel.clone(), options })
    }

    /// Puts a group back into its slot, or does what was asked for meanwhile.
    fn give_back(&self, group: Box<Group>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let now_ms = self.clock.now_ms();
        let key = (&*group.options.file, &*group.options.name);
        let Some(at) = state.slots.iter().position(|slot| slot.key() == key) else {
            unreachable!("the slot of a group that is out stays");
        };
        let slot = &mut state.slots[at];
        match slot.successor.take() {
            None => slot.group = Some(group),
            Some(Successor::Changed(options)) => {
                let external_url = &state.options.external_url;
                let group = changed(*group, options.clone(), external_url, now_ms);
                *slot = Slot::new(&options, group);
            }
            Some(Successor::Removed) => {
                self.metrics.end(&group.options.key());
                state.ended.push(Ended::new(*group, now_ms));
                state.slots.remove(at);
                return;
            }
        }
        if let Some(group) = &slot.group {
            self.publish(group);
        }
    }

    /// Ends the series of groups that have been gone for long enough.
    fn end_gone(&self) {
        let mut state = self.state.lock();
        let (now_ms, options) = (self.clock.now_ms(), Arc::clone(&state.options));
        let due: Vec<Ended> = state.ended.extract_if(.., |gone| gone.due_ms <= now_ms).collect();
        drop(state);
        let ctx = self.context(&options, &self.cancel);
        let failed = |gone: &Ended| !end_series(&gone.series, gone.sample_ms, &ctx);
        let again: Vec<Ended> = due.into_iter().filter(failed).collect();
        if !again.is_empty() {
            self.state.lock().ended.extend(again);
        }
    }

    /// A panic in one group must not silence all the others.
    fn evaluate_guarded(&self, round: &mut Round) {
        let Round { group, due, cancel, options } = round;
        let ctx = self.context(options, cancel);
        if catch_unwind(AssertUnwindSafe(|| group.run(*due, &ctx))).is_err() {
            let (file, name) = (&group.options.file, &group.options.name);
            error!(%file, group = %name, "Evaluating rule group panicked.");
        }
    }

    fn context<'a>(&'a self, options: &'a Options, cancel: &'a CancelFlag) -> Context<'a> {
        Context {
            engine: &*self.stores.engine,
            select: &*self.stores.select,
            appender: &*self.stores.appender,
            sink: &*self.stores.sink,
            clock: &*self.clock,
            metrics: &self.metrics,
            options,
            cancel,
        }
    }

    /// Until the next group is due or something changes.
    fn sleep(&self) {
        let mut state = self.state.lock();
        if self.cancel.is_canceled() {
            return;
        }
        let wait_ms = state.next_ms().map(|next_ms| (next_ms - self.clock.now_ms()).max(0) as u64);
        let wait = wait_ms.map_or(SLEEP_MAX, Duration::from_millis).min(SLEEP_MAX);
        if !wait.is_zero() {
            self.changed.wait_for(&mut state, wait);
        }
    }

    /// When the next round is due.
    #[cfg(test)]
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.state.lock().next_ms()
    }

    /// All groups in order of file and name, as they were after their last round. Never blocks on
    /// an evaluation.
    pub fn groups(&self) -> Vec<Arc<GroupStatus>> {
        self.published.lock().clone()
    }
}

impl State {
    /// When the next round is due of a group that is not being evaluated.
    fn next_ms(&self) -> Option<i64> {
        let groups = self.slots.iter().filter_map(|slot| slot.group.as_ref());
        groups.map(|group| group.schedule.next_ms()).min()
    }
}
