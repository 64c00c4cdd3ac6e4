//! Runs queries: parses, waits for a place, evaluates, and hands out the result with its
//! annotations and statistics.
//!
//! An engine blocks its caller; async code calls it from a blocking thread. A query ends early
//! when its [`CancelFlag`] is raised or its deadline passes. What a query computes is in `eval`.

mod active;
mod gate;
mod metrics;
mod query_log;
mod stats;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::metrics::Registry;
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::storage::select::{self, Select};

use super::ast::{Expr, ValueType};
use super::eval::{Environment, Evaluator, Helpers, Plan, TimeSpan};
use super::parser::{self, ParserOptions};
use active::Active;
pub use active::ActiveQuery;
use gate::Gate;
use metrics::Metrics;
pub use query_log::{Origin, QueryLog};
pub use stats::{PerStep, Stats, Timings};

/// What an engine is made with; see Prometheus' flags `--query.*`.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How old a sample may be and still stand for its series.
    pub lookback_delta_ms: i64,
    /// Samples that one query may hold at a time.
    pub max_samples: u64,
    /// Bytes that one query may hold at a time.
    pub max_bytes: u64,
    /// Longest run of a query, waiting included.
    pub timeout: Duration,
    /// Queries that run at the same time; further ones wait.
    pub max_concurrency: usize,
    /// Threads that all queries together may use besides the one that each runs on.
    pub helper_threads: usize,
    /// Step of a subquery that names none: the global evaluation interval.
    pub default_subquery_step_ms: Arc<AtomicI64>,
    /// What the language offers.
    pub parser: ParserOptions,
    /// Keep metric names until the end of the evaluation (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Tell counters by their `__type__` label (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    /// See resets of counters in when samples say that counting started (`use-start-timestamps`).
    pub use_start_timestamps: bool,
}

/// Raised by whoever wants a query to end; polled by the query. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the query to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The query as written; positions in annotations refer to it.
    pub text: &'a str,
    /// Replaces the engine's lookback when positive.
    pub lookback_delta_ms: Option<i64>,
    /// Tightens the engine's timeout.
    pub timeout: Option<Duration>,
    /// Ends the query when raised.
    pub cancel: CancelFlag,
    /// Whether the samples of each step are counted, too.
    pub per_step: bool,
    /// Who asks.
    pub origin: Origin<'a>,
    /// How long the caller may be held, waiting included: else [`QueryError::Hurried`].
    pub patience: Option<Duration>,
}

impl<'a> Query<'a> {
    /// A query with the engine's own limits that nobody will cancel.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            lookback_delta_ms: None,
            timeout: None,
            cancel: CancelFlag::new(),
            per_step: false,
            origin: Origin::Unknown,
            patience: None,
        }
    }
}

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Its series.
    pub labels: Labels,
    /// The moment of the evaluation.
    pub timestamp_ms: i64,
    /// The value; 0 when it is a histogram.
    pub value: f64,
    /// The value, when it is a histogram.
    pub histogram: Option<Arc<Histogram>>,
}

/// One series of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Timestamps and values, ascending.
    pub points: Vec<(i64, f64)>,
    /// Timestamps and histograms, ascending; no timestamp is among the points, too.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

/// What a query evaluates to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Scalar {
        /// The moment of the evaluation.
        timestamp_ms: i64,
        /// The number.
        value: f64,
    },
    /// A text.
    String {
        /// The moment of the evaluation.
        timestamp_ms: i64,
        /// The text.
        value: String,
    },
    /// One sample for each series; in order of the expression (`sort`, `topk`).
    Vector(Vec<VectorSample>),
    /// Samples over time for each series; in order of labels.
    Matrix(Vec<Series>),
}

impl Value {
    /// The word of the API's `resultType`.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Scalar { .. } => ValueType::Scalar,
            Self::String { .. } => ValueType::String,
            Self::Vector(_) => ValueType::Vector,
            Self::Matrix(_) => ValueType::Matrix,
        }
    }
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryOutput {
    /// The value.
    pub value: Value,
    /// Annotations that begin with `PromQL warning: `.
    pub warnings: Vec<String>,
    /// Annotations that begin with `PromQL info: `.
    pub infos: Vec<String>,
    /// Statistics.
    pub stats: Stats,
}

/// Why a query has no answer. The texts are Prometheus'.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query cannot be run as it is written (API: `bad_data`).
    #[error("{0}")]
    Parse(String),
    /// The evaluation failed (API: `execution`).
    #[error("{0}")]
    Execution(String),
    /// The deadline passed; where (API: `timeout`).
    #[error("query timed out in {0}")]
    Timeout(String),
    /// The flag was raised; where (API: `canceled`).
    #[error("query was canceled in {0}")]
    Canceled(String),
    /// So many queries wait already (API: `unavailable`).
    #[error("too many queries are waiting: {0}")]
    Busy(usize),
    /// It takes longer than the caller's patience lasts; nothing is wrong with it.
    #[error("query takes longer than it may here")]
    Hurried,
    /// The store could not read (API: `internal`).
    #[error("{0}")]
    Storage(#[from] select::QueryError),
}

/// Evaluates queries against one store.
pub struct Engine {
    select: Arc<dyn Select>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    options: EngineOptions,
    gate: Gate,
    active: Active,
    helpers: Helpers,
    log: Option<Arc<QueryLog>>,
}

/// What is to be evaluated: a text that must be parsed first, or a tree.
#[derive(Clone, Copy)]
enum Source<'a> {
    Text,
    Tree(&'a Expr),
}

impl Engine {
    /// An engine that reads from `select` and reports to `metrics`.
    pub fn new(
        select: Arc<dyn Select>,
        clock: Arc<dyn Clock>,
        metrics: &Registry,
        options: EngineOptions,
    ) -> Self {
        let gate = Gate::new(options.max_concurrency.max(1));
        let metrics = Metrics::new(metrics, options.max_concurrency);
        let helpers = Helpers::new(options.helper_threads);
        let active = Active::default();
        Self { select, clock, metrics, options, gate, active, helpers, log: None }
    }

    /// The same engine, which tells a log of each query.
    pub fn with_log(self, log: Arc<QueryLog>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// What would be done to evaluate a query, as lines of text; `step_ms` is 0 for one moment.
    pub fn explain(
        &self,
        query: &Query<'_>,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Vec<String>, QueryError> {
        let expr = parse(query.text, &self.options.parser)?;
        let default_step_ms = self.options.default_subquery_step_ms.load(Ordering::Relaxed);
        Ok(Plan::new(&expr, TimeSpan { start_ms, end_ms, step_ms }, default_step_ms)?.explain())
    }

    /// Queries that run or wait, oldest first.
    pub fn active_queries(&self) -> Vec<ActiveQuery> {
        self.active.list(self.clock.monotonic())
    }

    /// Asks a query to end; false when none of this number runs or waits.
    pub fn cancel_query(&self, id: u64) -> bool {
        self.active.cancel(id)
    }

    /// Asks all queries to end.
    pub fn cancel_queries(&self) {
        self.active.cancel_all();
    }

    /// Evaluates at one moment.
    pub fn instant(&self, query: &Query<'_>, at_ms: i64) -> Result<QueryOutput, QueryError> {
        self.run(query, Source::Text, instant(at_ms))
    }

    /// Evaluates at `start_ms` and each `step_ms` (positive) after it until `end_ms`, inclusive.
    pub fn range(
        &self,
        query: &Query<'_>,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<QueryOutput, QueryError> {
        self.run(query, Source::Text, TimeSpan { start_ms, end_ms, step_ms: step_ms.max(1) })
    }

    /// As [`Engine::instant`], for a tree parsed before; `query.text` is what it was parsed from.
    pub fn instant_expr(
        &self,
        expr: &Expr,
        query: &Query<'_>,
        at_ms: i64,
    ) -> Result<QueryOutput, QueryError> {
        self.run(query, Source::Tree(expr), instant(at_ms))
    }

    /// As [`Engine::range`], for a tree parsed before.
    pub fn range_expr(
        &self,
        expr: &Expr,
        query: &Query<'_>,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<QueryOutput, QueryError> {
        self.run(query, Source::Tree(expr), TimeSpan { start_ms, end_ms, step_ms: step_ms.max(1) })
    }
}

fn parse(text: &str, options: &ParserOptions) -> Result<Expr, QueryError> {
    parser::parse(text, options).map_err(|errors| QueryError::Parse(errors.to_string()))
}

fn instant(at_ms: i64) -> TimeSpan {
    TimeSpan { start_ms: at_ms, end_ms: at_ms, step_ms: 0 }
}

impl Engine {
    fn run(
        &self,
        query: &Query<'_>,
        source: Source<'_>,
        span: TimeSpan,
    ) -> Result<QueryOutput, QueryError> {
        // Its log blocks on a file.
        if query.patience.is_some() && self.log.as_ref().is_some_and(|log| log.is_on()) {
            return Err(QueryError::Hurried);
        }
        self.metrics.queries.add(1.0);
        let output = self.run_counted(query, source, span);
        self.metrics.queries.add(-1.0);
        match output {
            Err(QueryError::Timeout(_)) if query.patience.is_some() => Err(QueryError::Hurried),
            Ok(output) => {
                self.metrics.observe(&output.stats);
                Ok(output)
            }
            err => err,
        }
    }

    fn run_counted(
        &self,
        query: &Query<'_>,
        source: Source<'_>,
        span: TimeSpan,
    ) -> Result<QueryOutput, QueryError> {
        let started = self.clock.monotonic();
        let timeouts = [query.timeout, query.patience].into_iter().flatten();
        let deadline = started.saturating_add(timeouts.fold(self.options.timeout, Duration::min));
        let since = (self.clock.now_ms(), started);
        let registered = self.active.register(query.text, since, &query.cancel);
        let full = || QueryError::Busy(gate::WAITING_MAX);
        let _place = match query.patience {
            Some(_) => self.gate.enter_at_once().ok_or(QueryError::Hurried)?,
            None => self.gate.enter(|| self.may_wait(&query.cancel, deadline), full)?,
        };
        registered.set_running();
        let queued = self.clock.monotonic();
        let expr = match source {
            Source::Tree(expr) => Cow::Borrowed(expr),
            Source::Text => Cow::Owned(parse(query.text, &self.options.parser)?),
        };
        let default_step_ms = self.options.default_subquery_step_ms.load(Ordering::Relaxed);
        let plan = Plan::new(&expr, span, default_step_ms)?;
        let prepared = self.clock.monotonic();
        let mut evaluator = self.evaluator(query, deadline);
        let mut value = evaluator.run(&plan);
        let evaluated = self.clock.monotonic();
        if let Ok(Value::Matrix(series)) = &mut value {
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        let sorted = self.clock.monotonic();
        let (annotations, mut stats) = evaluator.into_parts();
        stats.timings = Timings {
            exec_queue: queued.saturating_sub(started),
            query_preparation: prepared.saturating_sub(queued),
            inner_eval: evaluated.saturating_sub(prepared),
            result_sort: sorted.saturating_sub(evaluated),
            eval_total: sorted.saturating_sub(queued),
            exec_total: sorted.saturating_sub(started),
        };
        self.tell_log(query, span, &stats, value.as_ref().err());
        let (warnings, infos) = annotations.finish(query.text);
        Ok(QueryOutput { value: value?, warnings, infos, stats })
    }

    fn evaluator<'e>(&'e self, query: &'e Query<'_>, deadline: Duration) -> Evaluator<'e> {
        let lookback_ms = query.lookback_delta_ms.filter(|own| 0 < *own);
        Evaluator::new(Environment {
            select: &*self.select,
            clock: &*self.clock,
            cancel: &query.cancel,
            deadline,
            lookback_ms: lookback_ms.unwrap_or(self.options.lookback_delta_ms),
            samples_max: self.options.max_samples,
            bytes_max: self.options.max_bytes,
            delayed_name_removal: self.options.delayed_name_removal,
            type_and_unit_labels: self.options.type_and_unit_labels,
            use_start_timestamps: self.options.use_start_timestamps,
            per_step: query.per_step,
            helpers: &self.helpers,
        })
    }

    fn tell_log(
        &self,
        query: &Query<'_>,
        span: TimeSpan,
        stats: &Stats,
        error: Option<&QueryError>,
    ) {
        let Some(log) = &self.log else { return };
        let entry = query_log::Entry {
            text: query.text,
            origin: query.origin,
            start_ms: span.start_ms,
            end_ms: span.end_ms,
            step_ms: span.step_ms,
            stats,
            error: error.map(ToString::to_string),
        };
        log.write(&entry, self.clock.now_ms());
    }

    fn may_wait(&self, cancel: &CancelFlag, deadline: Duration) -> Result<(), QueryError> {
        let place = || "query queue".to_owned();
        if cancel.is_canceled() {
            return Err(QueryError::Canceled(place()));
        }
        if deadline <= self.clock.monotonic() {
            return Err(QueryError::Timeout(place()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SimClock;
    use crate::model::matcher::Matcher;
    use crate::model::metadata::Metadata;
    use crate::model::sample::TimeRange;
    use crate::storage::select::{SelectHints, Selection};

    /// A store without series that takes its time.
    struct Slow(Arc<SimClock>, i64);

    impl Select for Slow {
        fn select(
            &self,
            _: &[Matcher],
            _: TimeRange,
            _: &SelectHints,
        ) -> Result<Selection, select::QueryError> {
            self.0.advance_ms(self.1);
            Ok(Selection::empty())
        }

        fn label_names(
            &self,
            _: &[Vec<Matcher>],
            _: TimeRange,
        ) -> Result<Vec<String>, select::QueryError> {
            Ok(Vec::new())
        }

        fn label_values(
            &self,
            _: &str,
            _: &[Vec<Matcher>],
            _: TimeRange,
        ) -> Result<Vec<String>, select::QueryError> {
            Ok(Vec::new())
        }

        fn metadata(&self, _: Option<&str>) -> Vec<(String, Metadata)> {
            Vec::new()
        }
    }

    fn engine(select_ms: i64) -> (Engine, Arc<QueryLog>) {
        let options = EngineOptions {
            lookback_delta_ms: 300_000,
            max_samples: 1000,
            max_bytes: 1 << 20,
            timeout: Duration::from_mins(2),
            max_concurrency: 1,
            helper_threads: 0,
            default_subquery_step_ms: Arc::new(AtomicI64::new(60_000)),
            parser: ParserOptions::ALL,
            delayed_name_removal: false,
            type_and_unit_labels: false,
            use_start_timestamps: false,
        };
        let (clock, registry) = (Arc::new(SimClock::new(0)), Registry::new());
        let select = Arc::new(Slow(clock.clone(), select_ms));
        let log = Arc::new(QueryLog::new(&registry));
        (Engine::new(select, clock, &registry, options).with_log(log.clone()), log)
    }

    #[test]
    fn a_hurried_query_waits_for_nothing() {
        let query = Query::new("up + 1");
        let brief = Query { patience: Some(Duration::from_millis(2)), ..query.clone() };
        let hurried = |engine: &Engine| {
            matches!(engine.instant(&brief, 0), Err(QueryError::Hurried))
                && engine.instant(&query, 0).is_ok()
        };
        let (quick, log) = engine(1);
        let value = |query| quick.instant(query, 0).unwrap().value;
        assert_eq!(value(&brief), value(&query));
        log.set(Some(Box::new(std::io::sink())));
        assert!(hurried(&quick), "the log is written to a file");
        log.set(None);
        let place = quick.gate.enter_at_once();
        assert!(matches!(quick.instant(&brief, 0), Err(QueryError::Hurried)), "no place is free");
        drop(place);
        assert!(hurried(&engine(2).0), "the time was over");
        brief.cancel.cancel();
        assert!(matches!(quick.instant(&brief, 0), Err(QueryError::Canceled(_))));
        assert!(quick.active_queries().is_empty());
    }
}
