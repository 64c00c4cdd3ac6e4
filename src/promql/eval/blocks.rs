//! Spreads chains of one-by-one operations over threads, block by block.
//!
//! A chain is a selector, or a function of a range, and what is applied to each of its series. It
//! treats a block of neighbouring series without knowledge of the others: a *fork* of the evaluator
//! makes something of each block, and what they made is merged in the order of blocks. So a result
//! depends neither on the number of threads nor on which of them was first; with one block it is
//! what it would be without any of this. The scalars of a chain are evaluated before it is forked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::model::sample::TimeRange;
use crate::promql::ast::ValueType;
use crate::promql::engine::QueryError;
use crate::storage::select::{BLOCK_SERIES_MAX, SelectHints, Selection};

use super::annotations::Annotations;
use super::counts::{PerStep, SampleCounts};
use super::functions::over_range::RangeFunction;
use super::plan::{Kind, Node, Selector};
use super::range::range_argument;
use super::selector::reach;
use super::tables::ChainTables;
use super::{Environment, Evaluator, Item, Steps, functions};

/// Units of work that may be finished before the one that is merged next, for each thread.
const AHEAD_MAX: usize = 4;
/// A chain is evaluated recursively, and it may be long.
const STACK_BYTES: usize = 16 << 20;

/// Threads that queries may use besides their own, all together.
#[derive(Debug)]
pub(in crate::promql) struct Helpers(AtomicUsize);

impl Helpers {
    /// So many; zero is fine.
    pub(in crate::promql) fn new(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    /// As many as are free, at most `wanted`.
    fn take(&self, wanted: usize) -> Taken<'_> {
        let mut count = 0;
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            count = free.min(wanted);
            Some(free - count)
        });
        Taken { helpers: self, count }
    }
}

/// Helpers that one query uses; they are free again when this is dropped.
struct Taken<'h> {
    helpers: &'h Helpers,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.helpers.0.fetch_add(self.count, Ordering::Relaxed);
    }
}

/// What a fork evaluates of a chain.
#[derive(Clone, Copy)]
pub(super) struct Part<'e> {
    selector: &'e Selector,
    selection: &'e Selection,
    /// Number of the block.
    block: usize,
    scalars: &'e ScalarValues,
    tables: &'e ChainTables,
}

/// Values of the scalars of a chain, by the address of their nodes.
#[derive(Default)]
pub(super) struct ScalarValues(Vec<(usize, Vec<f64>)>);

/// What is made of the series of each block.
pub(super) trait Collect: Sync {
    /// Of one block.
    type Part: Send;

    /// Told of the series of all blocks before any of them. What it keeps is counted in bytes.
    fn begin(&self, _: &Selection) -> Result<usize, QueryError> {
        Ok(0)
    }

    /// Of no series.
    fn empty(&self) -> Self::Part;

    /// Takes in one more series.
    fn add(
        &self,
        part: &mut Self::Part,
        own: &mut Evaluator<'_>,
        item: Item<'_>,
    ) -> Result<(), QueryError>;
}

/// What came out of one block.
struct Outcome<P> {
    part: P,
    notes: Annotations,
    samples: SampleCounts,
    per_step: Option<PerStep>,
}

/// Where a chain gets its series.
struct Leaf<'n> {
    selector: &'n Selector,
    range: TimeRange,
}

/// A chain that is ready to be evaluated in forks.
struct Chain<'c> {
    env: Environment<'c>,
    node: &'c Node,
    steps: Steps,
    selector: &'c Selector,
    selection: &'c Selection,
    scalars: &'c ScalarValues,
    tables: &'c ChainTables,
    /// What others hold.
    held: SampleCounts,
    /// Whether samples are counted by step.
    counts_steps: bool,
    /// Blocks that one thread evaluates one after the other.
    stride: usize,
    blocks: usize,
}

/// About what a series and a step of it take, and what a thread should have to do, in nanoseconds:
/// starting it takes about a tenth of that.
const SERIES_NS: usize = 250;
const STEP_NS: usize = 6;
// Tests have little to do, but shall use threads.
const HELPER_NS: usize = if cfg!(debug_assertions) { 1 } else { 1_000_000 };

impl Chain<'_> {
    /// How many threads have enough to do.
    fn helpers_wanted(&self) -> usize {
        let series = self.selection.len();
        let step_ns = STEP_NS.saturating_mul(self.steps.count);
        series.saturating_mul(SERIES_NS.saturating_add(step_ns)) / HELPER_NS
    }

    fn units(&self) -> usize {
        self.blocks.div_ceil(self.stride)
    }

    fn evaluate<C: Collect>(
        &self,
        unit: usize,
        collect: &C,
    ) -> Result<Vec<Outcome<C::Part>>, QueryError> {
        let blocks = unit * self.stride..self.blocks.min((unit + 1) * self.stride);
        blocks.map(|block| self.evaluate_block(block, collect)).collect()
    }

    fn evaluate_block<C: Collect>(
        &self,
        block: usize,
        collect: &C,
    ) -> Result<Outcome<C::Part>, QueryError> {
        let Self { env, selector, selection, scalars, tables, .. } = *self;
        let held = self.held;
        let samples = SampleCounts { peak: held.current, total: 0, read: 0, ..held };
        let part = Part { selector, selection, block, scalars, tables };
        let per_step = self.counts_steps.then(|| PerStep::new(self.steps.count));
        let part = Some(part);
        let mut fork = Evaluator { samples, per_step, part, ..Evaluator::new(env) };
        let mut part = collect.empty();
        fork.stream_one_by_one(self.node, self.steps, &mut |own, item| {
            collect.add(&mut part, own, item)
        })?;
        Ok(Outcome { part, notes: fork.notes, samples: fork.samples, per_step: fork.per_step })
    }
}

impl<'e> Evaluator<'e> {
    /// The value of a scalar that was evaluated before the chain was forked.
    pub(super) fn known_scalar(&self, node: &Node) -> Option<Vec<f64>> {
        let part = self.part.as_ref()?;
        let address = std::ptr::from_ref(node).addr();
        let known = part.scalars.0.iter().find(|(own, _)| *own == address);
        known.map(|(_, values)| values.clone())
    }

    /// The selection of a selector and which of its blocks is wanted, in a fork.
    pub(super) fn known_selection(&self, selector: &Selector) -> Option<(&'e Selection, usize)> {
        let part = self.part.filter(|part| std::ptr::eq(part.selector, selector))?;
        Some((part.selection, part.block))
    }

    /// What the blocks of a chain share, in a fork.
    pub(super) fn chain_tables(&self) -> Option<&'e ChainTables> {
        self.part.map(|part| part.tables)
    }

    /// Number of the block that a fork evaluates.
    pub(super) fn block(&self) -> Option<usize> {
        self.part.map(|part| part.block)
    }

    /// Evaluates a node, whose series come from its operands one by one, block by block, and
    /// passes what `collect` makes of each block to `merge`, in order. A node that cannot be split
    /// is one block.
    pub(super) fn each_block<C: Collect>(
        &mut self,
        node: &Node,
        steps: Steps,
        collect: &C,
        merge: &mut dyn FnMut(&mut Self, C::Part) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let leaf = if self.part.is_none() { self.leaf(node, steps) } else { None };
        let Some(leaf) = leaf.filter(|_| 0 < steps.count) else {
            let mut part = collect.empty();
            self.stream_one_by_one(node, steps, &mut |own, item| {
                collect.add(&mut part, own, item)
            })?;
            return merge(self, part);
        };
        let mut scalars = ScalarValues::default();
        self.chain_scalars(node, steps, &mut scalars)?;
        let selection =
            self.env.select.select(&leaf.selector.matchers, leaf.range, &SelectHints::default())?;
        self.take_bytes(selection.bytes(), "selected series")?;
        self.take_bytes(collect.begin(&selection)?, "groups of selected series")?;
        let chain = Chain {
            env: self.env,
            node,
            steps,
            selector: leaf.selector,
            selection: &selection,
            scalars: &scalars,
            tables: &ChainTables::default(),
            held: self.samples,
            counts_steps: self.per_step.is_some(),
            stride: (selection.stride() / BLOCK_SERIES_MAX).max(1),
            blocks: selection.len().div_ceil(BLOCK_SERIES_MAX).max(1),
        };
        let mut take = |outcomes: Vec<Outcome<C::Part>>| {
            for outcome in outcomes {
                self.notes.merge(outcome.notes);
                self.samples.total += outcome.samples.total;
                self.samples.read += outcome.samples.read;
                if let (Some(own), Some(other)) = (&mut self.per_step, &outcome.per_step) {
                    own.add(other);
                }
                self.samples.peak = self.samples.peak.max(outcome.samples.peak);
                merge(self, outcome.part)?;
            }
            Ok(())
        };
        let units = chain.units();
        let helpers = chain.env.helpers.take(chain.helpers_wanted().min(units - 1));
        if helpers.count == 0 {
            return (0..units).try_for_each(|unit| take(chain.evaluate(unit, collect)?));
        }
        spread(units, helpers.count, &|unit| chain.evaluate(unit, collect), &mut take)
    }

    /// The selector at the end of a chain.
    fn leaf<'n>(&self, node: &'n Node, steps: Steps) -> Option<Leaf<'n>> {
        let inner = |inner: &'n Node| {
            if self.is_streamed(inner) { self.leaf(inner, steps) } else { None }
        };
        match &node.kind {
            Kind::Selector(selector) => {
                let range = reach(selector, steps, self.env.lookback_ms);
                Some(Leaf { selector, range })
            }
            Kind::Negate(operand) => inner(operand),
            Kind::Binary(binary) if functions::is_one_by_one(node) => {
                inner(if binary.lhs.is_scalar() { &binary.rhs } else { &binary.lhs })
            }
            Kind::Call { function, args } if functions::is_one_by_one(node) => {
                if RangeFunction::named(function.name).is_some() {
                    let (range, _) = range_argument(args)?;
                    let Kind::Range(inner) = &range.kind else { return None };
                    let range = self.frame(range, steps).time_range();
                    return Some(Leaf { selector: &inner.selector, range });
                }
                inner(args.iter().find(|arg| arg.value_type() == ValueType::Vector)?)
            }
            _ => None,
        }
    }

    /// Evaluates the scalars that a chain uses.
    fn chain_scalars(
        &mut self,
        node: &Node,
        steps: Steps,
        scalars: &mut ScalarValues,
    ) -> Result<(), QueryError> {
        let operands: Vec<&Node> = match &node.kind {
            Kind::Negate(operand) => vec![operand],
            Kind::Binary(binary) => vec![&binary.lhs, &binary.rhs],
            Kind::Call { args, .. } => args.iter().collect(),
            _ => Vec::new(),
        };
        for operand in operands {
            match operand.value_type() {
                ValueType::Scalar => {
                    let values = self.scalar(operand, steps)?;
                    scalars.0.push((std::ptr::from_ref(operand).addr(), values));
                }
                ValueType::Vector => self.chain_scalars(operand, steps, scalars)?,
                ValueType::Matrix | ValueType::String => {}
            }
        }
        Ok(())
    }
}

/// Evaluates units on this thread and some helpers; `take` gets their results in order.
fn spread<T: Send>(
    units: usize,
    helpers: usize,
    evaluate: &(impl Fn(usize) -> Result<T, QueryError> + Sync),
    take: &mut dyn FnMut(T) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let state = State { next: 0, merged: 0, done: BTreeMap::new(), stopped: false };
    let board = Board {
        state: Mutex::new(state),
        changed: Condvar::new(),
        units,
        ahead: (helpers + 1) * AHEAD_MAX,
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            let builder =
                std::thread::Builder::new().name("query".to_owned()).stack_size(STACK_BYTES);
            // Where the system has no thread left it takes longer, that is all.
            let _ = builder.spawn_scoped(scope, || board.help(evaluate));
        }
        let _stop = Stop(&board);
        board.lead(evaluate, take)
    })
}

/// Who does what next.
struct Board<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    units: usize,
    /// Units that may be finished before they are merged.
    ahead: usize,
}

struct State<T> {
    /// The next unit that nobody works at.
    next: usize,
    /// The next unit to be merged.
    merged: usize,
    done: BTreeMap<usize, Result<T, QueryError>>,
    stopped: bool,
}

/// Sends the helpers home, whatever happens.
struct Stop<'b, T>(&'b Board<T>);

impl<T> Drop for Stop<'_, T> {
    fn drop(&mut self) {
        self.0.state.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

impl<T> Board<T> {
    fn claim(&self, state: &mut State<T>) -> Option<usize> {
        let free = state.next < self.units && state.next < state.merged + self.ahead;
        free.then(|| {
            state.next += 1;
            state.next - 1
        })
    }

    fn put(&self, unit: usize, outcome: Result<T, QueryError>) {
        self.state.lock().done.insert(unit, outcome);
        self.changed.notify_all();
    }

    fn help(&self, evaluate: &impl Fn(usize) -> Result<T, QueryError>) {
        // Whoever waits for a helper that has panicked would wait for ever.
        let stop = Stop(self);
        loop {
            let mut state = self.state.lock();
            let unit = loop {
                if state.stopped || state.next == self.units {
                    std::mem::forget(stop);
                    return;
                }
                match self.claim(&mut state) {
                    Some(unit) => break unit,
                    None => self.changed.wait(&mut state),
                }
            };
            drop(state);
            self.put(unit, evaluate(unit));
        }
    }

    fn lead(
        &self,
        evaluate: &impl Fn(usize) -> Result<T, QueryError>,
        take: &mut dyn FnMut(T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let mut state = self.state.lock();
        while state.merged < self.units {
            let merged = state.merged;
            if let Some(outcome) = state.done.remove(&merged) {
                drop(state);
                take(outcome?)?;
                state = self.state.lock();
                state.merged += 1;
                self.changed.notify_all();
            } else if let Some(unit) = self.claim(&mut state) {
                drop(state);
                self.put(unit, evaluate(unit));
                state = self.state.lock();
            } else if state.stopped {
                // The panic of the helper goes on where it is joined.
                return Err(QueryError::Execution("a thread of the query has panicked".to_owned()));
            } else {
                self.changed.wait(&mut state);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whoever_was_first() {
        for (units, helpers) in [(1, 0), (1, 3), (7, 1), (100, 1), (100, 7)] {
            let mut seen = Vec::new();
            let evaluate = |unit: usize| Ok(unit * unit);
            spread(units, helpers, &evaluate, &mut |square| {
                seen.push(square);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, (0..units).map(|unit| unit * unit).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_in_order_ends_the_work() {
        let evaluate = |unit: usize| match unit {
            5 | 40 => Err(QueryError::Execution(format!("unit {unit}"))),
            _ => Ok(unit),
        };
        for helpers in [0, 1, 7] {
            let mut seen = Vec::new();
            let found = spread(1000, helpers, &evaluate, &mut |unit| {
                seen.push(unit);
                Ok(())
            });
            assert_eq!(found.unwrap_err().to_string(), "unit 5");
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn helpers_are_lent_and_given_back() {
        let helpers = Helpers::new(3);
        let two = helpers.take(2);
        assert_eq!(two.count, 2);
        let one = helpers.take(2);
        assert_eq!((one.count, helpers.take(9).count), (1, 0));
        drop((one, two));
        assert_eq!(helpers.take(9).count, 3);
    }
}
