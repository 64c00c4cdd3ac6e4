//! A plain evaluator of PromQL: step by step, sample by sample, without columns, plans or shared
//! tables. Slow and short, so that the engine can be held against it.
//!
//! It knows the part of the language that `promql_random` writes. Names are dropped at once.

mod binary;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use narthex::model::histogram::{Histogram, ResetHint};
use narthex::model::labels::Labels;
use narthex::model::matcher::CompileAllowance;
use narthex::model::matcher::written::WrittenMatcher;
use narthex::model::sample::is_stale_nan;
use narthex::promql::ast::{
    Aggregate, AggregateOp, AtModifier, DurationExpr, DurationKind, Expr, ExprKind, TimeModifiers,
    UnaryOp, VectorSelector,
};

/// What a sample holds.
#[derive(Clone, Debug)]
pub enum Value {
    Float(f64),
    Histogram(Arc<Histogram>),
}

impl Value {
    fn is_stale(&self) -> bool {
        match self {
            Self::Float(value) => is_stale_nan(*value),
            Self::Histogram(histogram) => histogram.is_stale(),
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Histogram(_) => None,
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<Histogram> for Value {
    fn from(histogram: Histogram) -> Self {
        Self::Histogram(Arc::new(histogram))
    }
}

/// Labels and values at one moment.
pub type Vector = Vec<(Labels, Value)>;

/// Samples by time, ascending.
pub type Samples = Vec<(i64, Value)>;

/// What an expression is at each of some moments.
#[derive(Debug)]
pub enum Output {
    Scalars(Vec<f64>),
    Vectors(Vec<Vector>),
}

/// The evaluator with its data.
pub struct Reference<'a> {
    /// In the order of labels.
    pub series: &'a [(Labels, Samples)],
    /// First and last moment of the query.
    pub bounds_ms: (i64, i64),
    pub lookback_ms: i64,
    pub subquery_step_ms: i64,
}

/// A range vector: series, how far back it looks, and which moment it looks at.
struct Ranges<'a> {
    series: Vec<(Labels, Samples)>,
    range_ms: i64,
    time: &'a TimeModifiers,
}

const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

type Fallible<T> = Result<T, String>;

fn milliseconds(duration: &DurationExpr) -> i64 {
    match &duration.kind {
        DurationKind::Literal { seconds, .. } => (seconds * 1000.0).round() as i64,
        DurationKind::Unary { op: UnaryOp::Minus, expr } => -milliseconds(expr),
        other => panic!("a duration that is not generated: {other:?}"),
    }
}

fn is_metadata(name: &str) -> bool {
    matches!(name, "__name__" | "__type__" | "__unit__")
}

fn nameless(vectors: Vec<Vector>) -> Fallible<Output> {
    let strip =
        |(labels, value): (Labels, Value)| (labels.retain(|name| !is_metadata(name)), value);
    unique(vectors.into_iter().map(|vector| vector.into_iter().map(strip).collect()).collect())
}

/// Fails when two samples of a moment have equal labels.
fn unique(vectors: Vec<Vector>) -> Fallible<Output> {
    for vector in &vectors {
        let mut labels: Vec<_> = vector.iter().map(|(labels, _)| labels).collect();
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(SAME_LABELS.to_owned());
        }
    }
    Ok(Output::Vectors(vectors))
}

impl Reference<'_> {
    /// The value of an expression at each of these moments.
    pub fn evaluate(&self, expr: &Expr, times_ms: &[i64]) -> Fallible<Output> {
        match &expr.kind {
            ExprKind::Number { value, .. } => Ok(Output::Scalars(vec![*value; times_ms.len()])),
            ExprKind::Paren(inner) | ExprKind::Unary { op: UnaryOp::Plus, expr: inner } => {
                self.evaluate(inner, times_ms)
            }
            ExprKind::Unary { op: UnaryOp::Minus, expr } => match self.evaluate(expr, times_ms)? {
                Output::Scalars(values) => {
                    Ok(Output::Scalars(values.into_iter().map(|value| -value).collect()))
                }
                Output::Vectors(vectors) => nameless(each(vectors, |value| match value {
                    Value::Float(value) => Some((-value).into()),
                    Value::Histogram(one) => Some(one.scaled(-1.0).into()),
                })),
            },
            ExprKind::VectorSelector(selector) => {
                let at = |time_ms: &i64| self.newest(selector, *time_ms);
                Ok(Output::Vectors(times_ms.iter().map(at).collect()))
            }
            ExprKind::Call { function, args } => self.call(function.name, args, times_ms),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, times_ms),
            ExprKind::Binary(binary) => {
                let lhs = self.evaluate(&binary.lhs, times_ms)?;
                let rhs = self.evaluate(&binary.rhs, times_ms)?;
                binary::evaluate(binary, lhs, rhs)
            }
            other => panic!("not generated: {other:?}"),
        }
    }

    fn vectors(&self, expr: &Expr, times_ms: &[i64]) -> Fallible<Vec<Vector>> {
        match self.evaluate(expr, times_ms)? {
            Output::Vectors(vectors) => Ok(vectors),
            Output::Scalars(values) => {
                Ok(values.into_iter().map(|value| vec![(Labels::empty(), value.into())]).collect())
            }
        }
    }

    fn scalars(&self, expr: &Expr, times_ms: &[i64]) -> Fallible<Vec<f64>> {
        match self.evaluate(expr, times_ms)? {
            Output::Scalars(values) => Ok(values),
            Output::Vectors(_) => panic!("not a scalar: {expr:?}"),
        }
    }

    /// The moment that is looked at.
    fn moment(&self, time: &TimeModifiers, now_ms: i64) -> i64 {
        let at_ms = match time.at {
            None => now_ms,
            Some(AtModifier::Timestamp(at_ms)) => at_ms,
            Some(AtModifier::Start) => self.bounds_ms.0,
            Some(AtModifier::End) => self.bounds_ms.1,
        };
        at_ms - time.offset.as_ref().map_or(0, milliseconds)
    }

    fn matching(&self, selector: &VectorSelector) -> impl Iterator<Item = &(Labels, Samples)> {
        self.series.iter().filter(|(labels, _)| {
            let value = |name| labels.get(name).unwrap_or("");
            let compile = |matcher: &WrittenMatcher| {
                matcher.compile(&mut CompileAllowance::default()).expect("small expressions")
            };
            selector.matchers.iter().all(|own| compile(own).matches(value(own.name())))
        })
    }

    fn newest(&self, selector: &VectorSelector, now_ms: i64) -> Vector {
        let newest = self.newest_with_time(selector, now_ms);
        newest.into_iter().map(|(labels, (_, value))| (labels, value)).collect()
    }

    fn newest_with_time(
        &self,
        selector: &VectorSelector,
        now_ms: i64,
    ) -> Vec<(Labels, (i64, Value))> {
        let moment_ms = self.moment(&selector.time, now_ms);
        let mut out = Vec::new();
        for (labels, samples) in self.matching(selector) {
            let newest = samples.iter().rfind(|(at_ms, _)| *at_ms <= moment_ms);
            let Some((at_ms, value)) = newest else { continue };
            if moment_ms - self.lookback_ms < *at_ms && !value.is_stale() {
                out.push((labels.clone(), (*at_ms, value.clone())));
            }
        }
        out
    }

    fn ranges<'e>(&self, expr: &'e Expr, times_ms: &[i64]) -> Fallible<Ranges<'e>> {
        match &expr.kind {
            ExprKind::MatrixSelector { selector, range } => {
                let ExprKind::VectorSelector(selector) = &selector.kind else {
                    panic!("not a selector")
                };
                let mut series: Vec<_> = self.matching(selector).cloned().collect();
                for (_, samples) in &mut series {
                    samples.retain(|(_, value)| !value.is_stale());
                }
                Ok(Ranges { series, range_ms: milliseconds(range), time: &selector.time })
            }
            ExprKind::Subquery(subquery) => {
                let range_ms = milliseconds(&subquery.range);
                let step_ms = subquery.step.as_ref().map_or(self.subquery_step_ms, milliseconds);
                let moments = times_ms.iter().map(|time_ms| self.moment(&subquery.time, *time_ms));
                let (first, last) = (moments.clone().min(), moments.max());
                let first = first.unwrap_or(0) - range_ms;
                let first = (first.div_euclid(step_ms) + 1) * step_ms;
                let last = last.unwrap_or(0);
                let inner: Vec<i64> =
                    (first..=last).step_by(step_ms.unsigned_abs() as usize).collect();
                let mut series: BTreeMap<Labels, Samples> = BTreeMap::new();
                for (at_ms, vector) in inner.iter().zip(self.vectors(&subquery.expr, &inner)?) {
                    for (labels, value) in vector {
                        series.entry(labels).or_default().push((*at_ms, without_hint(value)));
                    }
                }
                let series = series.into_iter().collect();
                Ok(Ranges { series, range_ms, time: &subquery.time })
            }
            other => panic!("not a range: {other:?}"),
        }
    }

    fn call(&self, name: &str, args: &[Expr], times_ms: &[i64]) -> Fallible<Output> {
        let is_range = |arg: &Expr| {
            matches!(arg.kind, ExprKind::MatrixSelector { .. } | ExprKind::Subquery(_))
        };
        if let Some(range) = args.iter().find(|arg| is_range(arg)) {
            return self.over_range(name, args, range, times_ms);
        }
        match (name, args) {
            ("time", []) => {
                Ok(Output::Scalars(times_ms.iter().map(|at_ms| *at_ms as f64 / 1000.0).collect()))
            }
            ("vector", [arg]) => Ok(Output::Vectors(self.vectors(arg, times_ms)?)),
            ("scalar", [arg]) => {
                let only = |vector: Vector| {
                    let floats: Vec<f64> =
                        vector.iter().filter_map(|(_, value)| value.float()).collect();
                    if let [value] = floats[..] { value } else { f64::NAN }
                };
                Ok(Output::Scalars(self.vectors(arg, times_ms)?.into_iter().map(only).collect()))
            }
            ("timestamp", [Expr { kind: ExprKind::VectorSelector(selector), .. }]) => {
                let at = |time_ms: &i64| {
                    let newest = self.newest_with_time(selector, *time_ms).into_iter();
                    newest.map(|(labels, (at_ms, _))| (labels, (at_ms as f64 / 1e3).into()))
                };
                nameless(times_ms.iter().map(|time_ms| at(time_ms).collect()).collect())
            }
            ("absent", [arg]) => {
                let absent = |vector: Vector| {
                    if vector.is_empty() { vec![(Labels::empty(), 1.0.into())] } else { vec![] }
                };
                Ok(Output::Vectors(self.vectors(arg, times_ms)?.into_iter().map(absent).collect()))
            }
            _ => self.elementwise(name, args, times_ms),
        }
    }

    fn elementwise(&self, name: &str, args: &[Expr], times_ms: &[i64]) -> Fallible<Output> {
        let params: Vec<Vec<f64>> =
            args[1..].iter().map(|arg| self.scalars(arg, times_ms)).collect::<Result<_, _>>()?;
        let vectors = self.vectors(&args[0], times_ms)?;
        let apply = |step: usize, value: &Value| -> Option<Value> {
            Some(match (name, value) {
                ("histogram_count", Value::Histogram(one)) => one.count.into(),
                ("histogram_sum", Value::Histogram(one)) => one.sum.into(),
                ("histogram_avg", Value::Histogram(one)) => (one.sum / one.count).into(),
                ("abs", Value::Float(value)) => value.abs().into(),
                ("sqrt", Value::Float(value)) => value.sqrt().into(),
                ("sgn", Value::Float(value)) => {
                    (if *value == 0.0 || value.is_nan() { *value } else { value.signum() }).into()
                }
                ("clamp_max", Value::Float(value)) => {
                    let limit = params[0][step];
                    // Go's minimum: -Inf even beside NaN, which wins over every number.
                    let is_nan = value.is_nan() || limit.is_nan();
                    let is_least = [*value, limit].contains(&f64::NEG_INFINITY);
                    (if is_nan && !is_least { f64::NAN } else { value.min(limit) }).into()
                }
                _ => return None,
            })
        };
        let vectors = vectors.into_iter().enumerate().map(|(step, vector)| {
            let kept = |(labels, value)| Some((labels, apply(step, &value)?));
            vector.into_iter().filter_map(kept).collect()
        });
        nameless(vectors.collect())
    }

    /// A function of windows. Its result must not have two series of equal labels at all, even
    /// when they never meet at a moment.
    fn over_range(
        &self,
        name: &str,
        args: &[Expr],
        range: &Expr,
        times_ms: &[i64],
    ) -> Fallible<Output> {
        let is_scalar = |arg: &&Expr| matches!(arg.kind, ExprKind::Number { .. });
        let params: Vec<f64> = args
            .iter()
            .filter(is_scalar)
            .map(|arg| if let ExprKind::Number { value, .. } = arg.kind { value } else { 0.0 })
            .collect();
        let ranges = self.ranges(range, times_ms)?;
        let mut vectors: Vec<Vector> = vec![Vec::new(); times_ms.len()];
        let mut seen: Vec<Labels> = Vec::new();
        for (labels, samples) in &ranges.series {
            let kept = matches!(name, "last_over_time" | "first_over_time");
            let labels = labels.retain(|name| kept || !is_metadata(name));
            let mut any = false;
            for (vector, time_ms) in vectors.iter_mut().zip(times_ms) {
                let end_ms = self.moment(ranges.time, *time_ms);
                let start_ms = end_ms - ranges.range_ms;
                let inside = |(at_ms, _): &&(i64, Value)| start_ms < *at_ms && *at_ms <= end_ms;
                let window = window::Window {
                    samples: samples.iter().filter(inside).cloned().collect(),
                    start_ms,
                    end_ms,
                    now_ms: *time_ms,
                    param: params.first().copied().unwrap_or_default(),
                };
                if let Some(value) = window.value(name) {
                    vector.push((labels.clone(), value));
                    any = true;
                }
            }
            if any && seen.contains(&labels) {
                return Err(SAME_LABELS.to_owned());
            }
            seen.extend(any.then_some(labels));
        }
        if name == "absent_over_time" {
            for vector in &mut vectors {
                *vector =
                    if vector.is_empty() { vec![(Labels::empty(), 1.0.into())] } else { vec![] };
            }
        }
        Ok(Output::Vectors(vectors))
    }

    fn aggregate(&self, aggregate: &Aggregate, times_ms: &[i64]) -> Fallible<Output> {
        let params = match &aggregate.param {
            Some(param) => self.scalars(param, times_ms)?,
            None => vec![0.0; times_ms.len()],
        };
        let listed = |name: &str| aggregate.grouping.labels.iter().any(|own| own == name);
        let project = |labels: &Labels| {
            if aggregate.grouping.without {
                labels.retain(|name| name != "__name__" && !listed(name))
            } else {
                labels.retain(listed)
            }
        };
        let vectors = self.vectors(&aggregate.expr, times_ms)?;
        let mut out = Vec::new();
        for (vector, param) in vectors.into_iter().zip(params) {
            let mut groups: BTreeMap<Labels, Vector> = BTreeMap::new();
            for (labels, value) in vector {
                groups.entry(project(&labels)).or_default().push((labels, value));
            }
            let mut folded = Vec::new();
            for (labels, members) in groups {
                match aggregate.op {
                    AggregateOp::TopK | AggregateOp::BottomK => {
                        folded.extend(extremes(aggregate.op, param, members));
                    }
                    op => folded.extend(fold(op, param, &members).map(|value| (labels, value))),
                }
            }
            out.push(folded);
        }
        Ok(Output::Vectors(out))
    }
}

fn each(vectors: Vec<Vector>, change: impl Fn(Value) -> Option<Value>) -> Vec<Vector> {
    let kept = |(labels, value)| Some((labels, change(value)?));
    vectors.into_iter().map(|vector| vector.into_iter().filter_map(kept).collect()).collect()
}

fn without_hint(value: Value) -> Value {
    match value {
        Value::Histogram(one) if one.reset_hint != ResetHint::Gauge => {
            Histogram { reset_hint: ResetHint::Unknown, ..Histogram::clone(&one) }.into()
        }
        value => value,
    }
}

/// The `k` greatest or least; NaN is worse than any number.
fn extremes(op: AggregateOp, k: f64, members: Vector) -> Vector {
    let mut floats: Vec<_> =
        members.into_iter().filter_map(|(labels, value)| Some((labels, value.float()?))).collect();
    floats.sort_by(|(_, a), (_, b)| match (a.is_nan(), b.is_nan()) {
        (false, false) if op == AggregateOp::TopK => b.total_cmp(a),
        (false, false) => a.total_cmp(b),
        (a, b) => a.cmp(&b),
    });
    floats.truncate(k as usize);
    floats.into_iter().map(|(labels, value)| (labels, value.into())).collect()
}

/// The value of a group.
fn fold(op: AggregateOp, param: f64, members: &Vector) -> Option<Value> {
    let floats: Vec<f64> = members.iter().filter_map(|(_, value)| value.float()).collect();
    let samples: Samples = members.iter().map(|(_, value)| (0, value.clone())).collect();
    match op {
        AggregateOp::Count => Some((members.len() as f64).into()),
        AggregateOp::Group => Some(1.0.into()),
        AggregateOp::Sum => window::sum(&samples),
        AggregateOp::Avg => window::average(&samples),
        AggregateOp::Min => window::extreme(&floats, |new, old| new < old).map(Value::Float),
        AggregateOp::Max => window::extreme(&floats, |new, old| new > old).map(Value::Float),
        AggregateOp::Stdvar => window::variance(&floats).map(Value::Float),
        AggregateOp::Stddev => window::variance(&floats).map(|value| value.sqrt().into()),
        AggregateOp::Quantile => window::quantile(param, &floats).map(Value::Float),
        other => panic!("not generated: {other:?}"),
    }
}
