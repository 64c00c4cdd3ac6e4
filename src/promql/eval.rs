//! Evaluates expressions, series by series over all steps.
//!
//! Every operation yields columns: a series' labels and one value for each step (see `series`).
//!
//! Operations that treat series one by one *stream* them to whoever consumes them, so a fold over
//! a selector holds one block of samples and its groups. Operations that see several series at once
//! collect. Within an operation everything happens in the order of series, one after the other, so
//! that sums round as they do in Prometheus.

mod aggregate;
mod annotations;
mod binary;
mod blocks;
mod counts;
mod duration;
pub mod format;
mod functions;
mod kernels;
mod labels;
mod plan;
mod range;
mod selector;
mod series;
mod tables;

use std::time::Duration;

use foldhash::HashMap;

use crate::base::clock::Clock;
use crate::base::turns;
use crate::model::labels::Labels;
use crate::model::matcher::CompileAllowance;
use crate::storage::select::Select;

use super::ast::{Expr, ValueType};
use super::engine::{self, CancelFlag, QueryError, Value, VectorSample};
use annotations::Annotations;
pub(super) use blocks::Helpers;
use blocks::{Collect, Part};
use counts::{Aside, PerStep, SampleCounts};
use plan::{Kind, Node};
use series::{Histograms, Item, ItemLabels, Sample, Series, Sink, absent, is_absent};

/// Steps of one evaluation, subqueries included: a column of them takes 400 MB.
const STEPS_MAX: i64 = 50_000_000;

/// The moments a query asks for.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "a unit is part of the name")]
pub(super) struct TimeSpan {
    /// First moment.
    pub(super) start_ms: i64,
    /// No moment is later.
    pub(super) end_ms: i64,
    /// Between two moments; zero for an instant query.
    pub(super) step_ms: i64,
}

impl TimeSpan {
    fn range_ms(self) -> i64 {
        self.end_ms.saturating_sub(self.start_ms)
    }

    fn steps(self) -> Steps {
        Steps::between(self.start_ms, self.end_ms, self.step_ms.max(1))
    }
}

/// Equidistant moments.
#[derive(Clone, Copy, Debug)]
struct Steps {
    start_ms: i64,
    step_ms: i64,
    count: usize,
}

impl Steps {
    fn between(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        assert!(0 < step_ms, "steps go forward");
        let span_ms = end_ms.saturating_sub(start_ms);
        let count = if span_ms < 0 { 0 } else { span_ms / step_ms + 1 };
        Self { start_ms, step_ms, count: count.min(STEPS_MAX + 1) as usize }
    }

    fn time(self, step: usize) -> i64 {
        self.start_ms + step as i64 * self.step_ms
    }

    fn last_ms(self) -> i64 {
        self.time(self.count.saturating_sub(1))
    }

    fn first_only(self) -> Self {
        Self { count: self.count.min(1), ..self }
    }
}

/// What an evaluation needs from its surroundings.
#[derive(Clone, Copy)]
pub(super) struct Environment<'a> {
    pub(super) select: &'a dyn Select,
    pub(super) clock: &'a dyn Clock,
    pub(super) cancel: &'a CancelFlag,
    /// On the clock's monotonic time.
    pub(super) deadline: Duration,
    pub(super) lookback_ms: i64,
    pub(super) samples_max: u64,
    pub(super) bytes_max: u64,
    pub(super) delayed_name_removal: bool,
    pub(super) type_and_unit_labels: bool,
    pub(super) use_start_timestamps: bool,
    /// Whether samples are counted by step.
    pub(super) per_step: bool,
    /// Threads that may be borrowed.
    pub(super) helpers: &'a Helpers,
}

/// Work between two looks at the clock and the flag, in samples: some tenths of a millisecond.
const WORK_UNCHECKED_MAX: usize = 1 << 16;

impl Environment<'_> {
    /// Whether somebody wants the query to end, or its time has come.
    fn is_over(&self) -> bool {
        self.cancel.is_canceled() || self.deadline <= self.clock.monotonic()
    }
}

/// A query that is ready to be evaluated.
pub(super) struct Plan {
    root: Node,
    span: TimeSpan,
    /// How often each shared operand stands in it.
    uses: Vec<usize>,
}

impl Plan {
    /// Resolves everything that depends on the query's bounds.
    pub(super) fn new(
        expr: &Expr,
        span: TimeSpan,
        default_subquery_step_ms: i64,
    ) -> Result<Self, QueryError> {
        let root = plan::lower(expr, span, default_subquery_step_ms.max(1))?;
        let returned = root.value_type();
        if span.step_ms != 0 && !matches!(returned, ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::Parse(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                returned.documented()
            )));
        }
        let (root, uses) = plan::share(root);
        Ok(Self { root, span, uses })
    }

    /// As lines of text.
    pub(super) fn explain(&self) -> Vec<String> {
        plan::explain(&self.root)
    }
}

/// The evaluation of one query.
pub(super) struct Evaluator<'e> {
    env: Environment<'e>,
    notes: Annotations,
    samples: SampleCounts,
    /// Samples by step, where they are counted.
    per_step: Option<PerStep>,
    /// For the regular expressions of functions.
    allowance: CompileAllowance,
    /// Since the last look at the clock.
    work: usize,
    /// In a fork: what of the chain it evaluates.
    part: Option<Part<'e>>,
    /// Values of operands that will be asked for again.
    shared: HashMap<SharedKey, SharedVector>,
    /// How often each of them stands in the query.
    uses: &'e [usize],
    /// The moments of the whole query.
    span: Option<TimeSpan>,
}

/// Number of the operand, first moment, step and number of steps.
type SharedKey = (usize, i64, i64, usize);

/// The value of an operand that is asked for again.
struct SharedVector {
    series: Vec<Series>,
    /// Samples that were looked at for it.
    aside: Aside,
    /// How often it will be asked for again.
    left: usize,
}

impl<'e> Evaluator<'e> {
    pub(super) fn new(env: Environment<'e>) -> Self {
        let (notes, samples) = (Annotations::default(), SampleCounts::default());
        Self {
            env,
            notes,
            samples,
            per_step: None,
            allowance: CompileAllowance::default(),
            work: 0,
            part: None,
            shared: HashMap::default(),
            uses: &[],
            span: None,
        }
    }

    /// Annotations so far, and what was held and read.
    pub(super) fn into_parts(self) -> (Annotations, engine::Stats) {
        let (start_ms, step_ms) = self.span.map_or((0, 0), |span| (span.start_ms, span.step_ms));
        let stats = self.stats(start_ms, step_ms);
        (self.notes, stats)
    }

    /// The value of the query; a matrix is not sorted yet.
    pub(super) fn run(&mut self, plan: &'e Plan) -> Result<Value, QueryError> {
        self.check()?;
        let value = self.value(plan)?;
        self.check()?;
        Ok(value)
    }

    fn value(&mut self, plan: &'e Plan) -> Result<Value, QueryError> {
        self.uses = &plan.uses;
        let (steps, root) = (plan.span.steps(), &plan.root);
        self.span = Some(plan.span);
        self.per_step = self.env.per_step.then(|| PerStep::new(steps.count));
        let timestamp_ms = plan.span.start_ms;
        let instant = plan.span.step_ms == 0;
        match root.value_type() {
            ValueType::String => {
                Ok(Value::String { timestamp_ms, value: text_of(root).to_owned() })
            }
            ValueType::Scalar => {
                let values = self.scalar(root, steps)?;
                if let (true, Some(value)) = (instant, values.first()) {
                    return Ok(Value::Scalar { timestamp_ms, value: *value });
                }
                let labels = Labels::empty();
                Ok(matrix(vec![Series::floats(labels, false, values)], steps))
            }
            ValueType::Matrix => self.matrix(root, steps),
            ValueType::Vector => {
                let mut series = self.vector(root, steps)?;
                if self.env.delayed_name_removal || !is_checked(root) {
                    series = without_names(series)?;
                }
                let (each, what) = result_bytes(&series, instant);
                self.take_bytes(each, what)?;
                if !instant {
                    // The columns are given up one after the other while the points are made.
                    let points: u64 = series.iter().map(Series::present_count).sum();
                    let columns: usize = series.iter().map(Series::bytes).sum();
                    let points = points as usize * size_of::<(i64, f64)>();
                    self.take_bytes(points.saturating_sub(columns), "the points of the result")?;
                    return Ok(matrix(series, steps));
                }
                let sample = |series: Series| {
                    let (value, histogram) = match Sample::at(&series.values, &series.histograms, 0)
                    {
                        Sample::Absent => return None,
                        Sample::Float(value) => (value, None),
                        Sample::Histogram(histogram) => (0.0, Some(histogram)),
                    };
                    Some(VectorSample { labels: series.labels, timestamp_ms, value, histogram })
                };
                Ok(Value::Vector(series.into_iter().filter_map(sample).collect()))
            }
        }
    }

    /// Ends the query when it must not go on.
    fn check(&self) -> Result<(), QueryError> {
        turns::pass();
        let place = || "expression evaluation".to_owned();
        if self.env.cancel.is_canceled() {
            return Err(QueryError::Canceled(place()));
        }
        if self.env.deadline <= self.env.clock.monotonic() {
            return Err(QueryError::Timeout(place()));
        }
        Ok(())
    }

    /// The same after some work, counted in samples.
    fn spend(&mut self, work: usize) -> Result<(), QueryError> {
        self.work = self.work.saturating_add(work);
        if self.work < WORK_UNCHECKED_MAX {
            return Ok(());
        }
        self.work = 0;
        self.check()
    }

    /// Ends the query also when a single column would be too much.
    fn check_steps(&mut self, steps: Steps) -> Result<(), QueryError> {
        self.check()?;
        if (STEPS_MAX as usize) < steps.count {
            return Err(too_many_samples());
        }
        self.touch(steps.count as u64)?;
        let bytes = self.samples.bytes;
        self.take_column::<f64>(steps)?;
        self.samples.bytes = bytes;
        Ok(())
    }

    /// Counts the bytes of a column of such values.
    fn take_column<T>(&mut self, steps: Steps) -> Result<(), QueryError> {
        self.take_bytes(steps.count.saturating_mul(size_of::<T>()), "a column")
    }

    /// Counts samples that are held from now on.
    fn hold(&mut self, count: u64) -> Result<(), QueryError> {
        self.samples.current += count;
        self.samples.peak = self.samples.peak.max(self.samples.current);
        if self.env.samples_max < self.samples.current {
            return Err(too_many_samples());
        }
        Ok(())
    }

    /// Counts bytes that are held from now on.
    fn take_bytes(&mut self, bytes: usize, what: &str) -> Result<(), QueryError> {
        let held = self.samples.bytes;
        self.samples.bytes = held.saturating_add(bytes as u64);
        if self.samples.bytes <= self.env.bytes_max {
            return Ok(());
        }
        let max = self.env.bytes_max;
        Err(QueryError::Execution(format!(
            "query would take more memory than it may: it holds {held} bytes and needs {bytes} more for {what}; the limit is {max} (--query.max-bytes)"
        )))
    }

    /// Counts samples that are held for a moment only.
    fn touch(&mut self, count: u64) -> Result<(), QueryError> {
        self.hold(count)?;
        self.samples.current -= count;
        Ok(())
    }

    /// A scalar at each step.
    fn scalar(&mut self, node: &Node, steps: Steps) -> Result<Vec<f64>, QueryError> {
        if let Some(values) = self.known_scalar(node) {
            return Ok(values);
        }
        self.check_steps(steps)?;
        let bytes = self.samples.bytes;
        let values = self.scalar_held(node, steps)?;
        self.samples.bytes = bytes;
        self.take_bytes(values.capacity() * size_of::<f64>(), "a scalar")?;
        Ok(values)
    }

    fn scalar_held(&mut self, node: &Node, steps: Steps) -> Result<Vec<f64>, QueryError> {
        match &node.kind {
            Kind::Number(value) => Ok(vec![*value; steps.count]),
            Kind::Invariant(inner) => {
                let first = steps.first_only();
                let (values, aside) = self.aside(first.count, |own| own.scalar(inner, first))?;
                self.count_invariant(&aside, steps.count);
                Ok(values.first().map_or_else(Vec::new, |value| vec![*value; steps.count]))
            }
            Kind::Negate(inner) => {
                let mut values = self.scalar(inner, steps)?;
                for value in &mut values {
                    *value = -*value;
                }
                Ok(values)
            }
            Kind::Binary(binary) => self.scalar_binary(binary, steps),
            Kind::Call { function, args } => self.scalar_call(function.name, args, steps),
            _ => unreachable!("not a scalar"),
        }
    }

    /// Whether the series of a node can be passed on one by one, without looking for equal ones.
    fn is_streamed(&self, node: &Node) -> bool {
        match &node.kind {
            Kind::Selector(_) => true,
            Kind::Negate(_) | Kind::Call { .. } | Kind::Binary(_) => {
                functions::is_one_by_one(node)
                    && (self.env.delayed_name_removal || is_unique_without_name(node))
            }
            _ => false,
        }
    }

    /// Passes the series of a vector on, one by one.
    fn stream(&mut self, node: &Node, steps: Steps, sink: Sink<'_, 'e>) -> Result<(), QueryError> {
        if self.is_streamed(node) {
            return self.stream_one_by_one(node, steps, sink);
        }
        for mut series in self.vector(node, steps)? {
            let item = Item {
                labels: ItemLabels::Known(&series.labels),
                position: 0,
                drop_name: series.drop_name,
                values: &mut series.values,
                histograms: &mut series.histograms,
            };
            sink(self, item)?;
        }
        Ok(())
    }

    fn stream_one_by_one(
        &mut self,
        node: &Node,
        steps: Steps,
        sink: Sink<'_, 'e>,
    ) -> Result<(), QueryError> {
        match &node.kind {
            Kind::Selector(selector) => {
                let sampled = selector::Sampled::Value;
                self.stream_selector(selector, steps, sampled, node.span, sink)
            }
            Kind::Negate(inner) => self.stream(inner, steps, &mut |own, mut item| {
                item.negate();
                sink(own, Item { drop_name: true, ..item })
            }),
            Kind::Call { function, args } => {
                self.stream_call(node.span, function.name, args, steps, sink)
            }
            Kind::Binary(binary) => self.stream_vector_scalar(binary, node.span, steps, sink),
            _ => unreachable!("not treated one by one"),
        }
    }

    /// A vector at each step. Series without any value may be left out.
    fn vector(&mut self, node: &Node, steps: Steps) -> Result<Vec<Series>, QueryError> {
        self.check_steps(steps)?;
        if steps.count == 0 {
            return Ok(Vec::new());
        }
        let (before, bytes) = (self.samples.current, self.samples.bytes);
        let series = self.vector_held(node, steps)?;
        (self.samples.current, self.samples.bytes) = (before, bytes);
        self.hold(series.iter().map(Series::held_count).sum())?;
        self.take_bytes(series.iter().map(Series::bytes).sum(), "a vector")?;
        Ok(series)
    }

    fn vector_held(&mut self, node: &Node, steps: Steps) -> Result<Vec<Series>, QueryError> {
        match &node.kind {
            Kind::Invariant(inner) => {
                let first = steps.first_only();
                let (mut series, aside) =
                    self.aside(first.count, |own| own.vector(inner, first))?;
                self.count_invariant(&aside, steps.count);
                for one in &mut series {
                    let value = one.values.first().copied().unwrap_or_else(absent);
                    one.values.resize(steps.count, value);
                    if let Some(histogram) = one.histograms.pop() {
                        one.histograms.resize(steps.count, histogram);
                    }
                }
                Ok(series)
            }
            Kind::Shared { id, inner } => self.shared_vector(*id, inner, steps),
            Kind::Aggregate(aggregate) => self.aggregate(node.span, aggregate, steps),
            Kind::Selector(_) => self.collect(node, steps),
            _ if functions::is_one_by_one(node) => {
                let series = self.collect(node, steps)?;
                if self.env.delayed_name_removal || is_unique_without_name(node) {
                    return Ok(series);
                }
                if functions::reads_range(node) {
                    labels::assert_unique(series)
                } else {
                    labels::merge_equal(series)
                }
            }
            Kind::Binary(binary) => self.vector_binary(binary, node.span, steps),
            Kind::Call { function, args } => {
                self.vector_call(node.span, function.name, args, steps)
            }
            _ => unreachable!("not a vector"),
        }
    }

    /// The value of an operand that stands in the query several times.
    fn shared_vector(
        &mut self,
        id: usize,
        node: &Node,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let key = (id, steps.start_ms, steps.step_ms, steps.count);
        if let Some(known) = self.shared.get_mut(&key) {
            known.left -= 1;
            let aside = known.aside.clone();
            let series = if 0 < known.left {
                known.series.clone()
            } else {
                self.shared.remove(&key).map(|known| known.series).unwrap_or_default()
            };
            self.count_aside(&aside);
            return Ok(series);
        }
        let (series, aside) = self.aside(steps.count, |own| own.vector(node, steps))?;
        self.count_aside(&aside);
        let left = self.uses.get(id).map_or(0, |uses| uses - 1);
        if 0 < left {
            self.shared.insert(key, SharedVector { series: series.clone(), aside, left });
        }
        Ok(series)
    }

    fn collect(&mut self, node: &Node, steps: Steps) -> Result<Vec<Series>, QueryError> {
        let mut out = Vec::new();
        self.each_block(node, steps, &Whole, &mut |own, series| {
            own.hold(series.iter().map(Series::held_count).sum())?;
            own.take_bytes(series.iter().map(Series::bytes).sum(), "series of a vector")?;
            out.extend(series);
            Ok(())
        })?;
        Ok(out)
    }
}

/// Keeps series as they are.
struct Whole;

impl Collect for Whole {
    type Part = Vec<Series>;

    fn empty(&self) -> Vec<Series> {
        Vec::new()
    }

    fn add(
        &self,
        part: &mut Vec<Series>,
        own: &mut Evaluator<'_>,
        item: Item<'_>,
    ) -> Result<(), QueryError> {
        let delayed = own.env.delayed_name_removal;
        let strip = item.drop_name && !delayed;
        let labels = item.labels.get()?;
        let labels = if strip { labels::without_metadata(labels) } else { labels.clone() };
        let drop_name = item.drop_name && delayed;
        let histograms = std::mem::take(item.histograms);
        let series = Series { labels, drop_name, values: item.values.to_vec(), histograms };
        let count = series.present_count();
        if 0 < count {
            own.hold(count)?;
            own.take_bytes(series.bytes(), "series of a vector")?;
            part.push(series);
        }
        Ok(())
    }
}

fn too_many_samples() -> QueryError {
    QueryError::Execution(
        "query processing would load too many samples into memory in query execution".to_owned(),
    )
}

/// Whether the series of a node are known to differ from each other.
fn is_checked(node: &Node) -> bool {
    match &node.kind {
        Kind::Selector(_) | Kind::Aggregate(_) => true,
        Kind::Invariant(inner) => is_checked(inner),
        Kind::Shared { inner, .. } => is_checked(inner),
        _ => functions::is_one_by_one(node),
    }
}

/// The end of delayed name removal.
fn without_names(mut series: Vec<Series>) -> Result<Vec<Series>, QueryError> {
    for one in series.iter_mut().filter(|series| series.drop_name) {
        one.labels = labels::without_metadata(&one.labels);
        one.drop_name = false;
    }
    labels::merge_equal(series)
}

fn text_of(node: &Node) -> &str {
    match &node.kind {
        Kind::Invariant(inner) => text_of(inner),
        _ => node.text(),
    }
}

/// Whether the labels of a node's series stay different from each other without metric names.
fn is_unique_without_name(node: &Node) -> bool {
    match &node.kind {
        Kind::Selector(selector) => selector.has_fixed_name(),
        Kind::Range(range) => range.selector.has_fixed_name(),
        Kind::Subquery(subquery) => is_unique_without_name(&subquery.inner),
        Kind::Negate(inner) | Kind::Invariant(inner) => is_unique_without_name(inner),
        Kind::Shared { inner, .. } => is_unique_without_name(inner),
        Kind::Call { args, .. } if functions::is_one_by_one(node) => args
            .iter()
            .filter(|arg| matches!(arg.value_type(), ValueType::Vector | ValueType::Matrix))
            .all(is_unique_without_name),
        Kind::Binary(binary) if functions::is_one_by_one(node) => [&binary.lhs, &binary.rhs]
            .iter()
            .all(|side| side.is_scalar() || is_unique_without_name(side)),
        _ => false,
    }
}

/// What the result takes beside its columns, and what that is.
fn result_bytes(series: &[Series], instant: bool) -> (usize, &'static str) {
    if instant {
        return (size_of_val(series), "samples of the result");
    }
    let points: u64 = series.iter().map(Series::present_count).sum();
    (size_of::<(i64, f64)>() * points as usize, "points of the result")
}

/// Columns as points.
fn matrix(series: Vec<Series>, steps: Steps) -> Value {
    let points = |series: Series| {
        let mut points = Vec::with_capacity(series.present_count() as usize);
        if series.histograms.is_empty() {
            let all = series.values.iter().enumerate().filter(|(_, value)| !is_absent(**value));
            points.extend(all.map(|(step, value)| (steps.time(step), *value)));
            let (labels, histograms) = (series.labels, Vec::new());
            return (!points.is_empty()).then_some(engine::Series { labels, points, histograms });
        }
        let mut histograms = Vec::new();
        for step in 0..series.values.len() {
            match Sample::at(&series.values, &series.histograms, step) {
                Sample::Absent => {}
                Sample::Float(value) => points.push((steps.time(step), value)),
                Sample::Histogram(histogram) => histograms.push((steps.time(step), histogram)),
            }
        }
        let any = !points.is_empty() || !histograms.is_empty();
        any.then_some(engine::Series { labels: series.labels, points, histograms })
    };
    Value::Matrix(series.into_iter().filter_map(points).collect())
}
