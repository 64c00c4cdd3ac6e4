//! From a syntax tree to what is evaluated: parentheses gone, durations and `@` resolved, constants
//! computed, step-invariant parts and repeated operands marked.

mod explain;
mod shared;

use std::cell::RefCell;
use std::sync::Arc;

use crate::model::labels::METRIC_NAME;
use crate::model::matcher::written::compile_all;
use crate::model::matcher::{CompileAllowance, MatchOp, Matcher};
use crate::promql::ast::{
    self, AggregateOp, AtModifier, BinaryOp, Boundary, Expr, ExprKind, Grouping, Span,
    TimeModifiers, UnaryOp, ValueType, VectorMatching, VectorSelector,
};
use crate::promql::engine::QueryError;
use crate::promql::functions::Function;

use super::binary::scalar_element;
use super::{TimeSpan, duration};
pub(super) use explain::explain;
pub(super) use shared::share;

/// Nesting of an expression: the evaluator recurses, and its caller's stack is finite.
const DEPTH_MAX: usize = 400;

/// One operation.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it stands in the query.
    pub(super) span: Span,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Number(f64),
    /// A text, and whether it was UTF-8 before it was made so.
    String(String, bool),
    Selector(Selector),
    Range(Range),
    Subquery(Subquery),
    Call {
        function: &'static Function,
        args: Vec<Node>,
    },
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negate(Box<Node>),
    /// Has the same value at each step; evaluated once.
    Invariant(Box<Node>),
    /// Stands in the query several times; evaluated once.
    Shared {
        id: usize,
        inner: Arc<Node>,
    },
}

/// Series, each at one moment.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub(super) matchers: Vec<Matcher>,
    pub(super) shift: Shift,
    pub(super) boundary: Boundary,
}

/// Far beyond any sample, and far enough from the limits that ranges can be added and taken away.
const MOMENT_MAX_MS: i64 = i64::MAX / 4;

/// `@` and `offset`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shift {
    pub(super) at_ms: Option<i64>,
    pub(super) offset_ms: i64,
}

impl Shift {
    /// The moment looked at when `now_ms` is evaluated.
    pub(super) fn apply(self, now_ms: i64) -> i64 {
        let moment_ms = self.at_ms.unwrap_or(now_ms).saturating_sub(self.offset_ms);
        moment_ms.clamp(-MOMENT_MAX_MS, MOMENT_MAX_MS)
    }
}

impl Selector {
    /// Whether all series bear the same metric name, so that dropping it makes no two equal.
    pub(super) fn has_fixed_name(&self) -> bool {
        self.fixed_name().is_some()
    }

    /// The metric name of all series, where a matcher says it.
    pub(super) fn fixed_name(&self) -> Option<&str> {
        let fixes = |matcher: &&Matcher| {
            matcher.name() == METRIC_NAME
                && matcher.op() == MatchOp::Equal
                && !matcher.value().is_empty()
        };
        self.matchers.iter().find(fixes).map(Matcher::value)
    }
}

/// Series, each over a span of time.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) selector: Selector,
    pub(super) range_ms: i64,
}

#[derive(Debug)]
pub(super) struct Subquery {
    pub(super) inner: Box<Node>,
    pub(super) range_ms: i64,
    pub(super) step_ms: i64,
    pub(super) shift: Shift,
}

#[derive(Debug)]
pub(super) struct Aggregate {
    pub(super) op: AggregateOp,
    pub(super) inner: Node,
    pub(super) param: Option<Node>,
    pub(super) grouping: Grouping,
}

#[derive(Debug)]
pub(super) struct Binary {
    pub(super) op: BinaryOp,
    pub(super) lhs: Node,
    pub(super) rhs: Node,
    pub(super) return_bool: bool,
    pub(super) matching: Option<VectorMatching>,
}

impl Node {
    pub(super) fn value_type(&self) -> ValueType {
        match &self.kind {
            Kind::Number(_) => ValueType::Scalar,
            Kind::String(..) => ValueType::String,
            Kind::Selector(_) | Kind::Aggregate(_) => ValueType::Vector,
            Kind::Range(_) | Kind::Subquery(_) => ValueType::Matrix,
            Kind::Call { function, .. } => function.return_type,
            Kind::Negate(inner) | Kind::Invariant(inner) => inner.value_type(),
            Kind::Shared { inner, .. } => inner.value_type(),
            Kind::Binary(binary) => match (binary.lhs.value_type(), binary.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
        }
    }

    pub(super) fn is_scalar(&self) -> bool {
        self.value_type() == ValueType::Scalar
    }

    /// A string argument; the parser has checked that it is one.
    pub(super) fn text(&self) -> &str {
        match &self.kind {
            Kind::String(text, _) => text,
            _ => "",
        }
    }

    /// A string argument that may be the name of a label.
    pub(super) fn is_label_name(&self) -> bool {
        matches!(&self.kind, Kind::String(text, true) if !text.is_empty())
    }
}

/// A node and what is known about its steps.
struct Lowered {
    node: Node,
    /// The same at each step.
    invariant: bool,
    /// Worth evaluating once: not a literal, and not a range, which functions read directly.
    wrap: bool,
}

impl Lowered {
    fn wrapped(self) -> Node {
        if self.wrap { once(self.node) } else { self.node }
    }
}

fn once(node: Node) -> Node {
    Node { span: node.span, kind: Kind::Invariant(Box::new(node)) }
}

/// Makes a plan for the evaluation of `expr` over `span`.
pub(super) fn lower(expr: &Expr, span: TimeSpan, default_step_ms: i64) -> Result<Node, QueryError> {
    let allowance = RefCell::default();
    Ok(Planner { span, default_step_ms, allowance }.lower(expr, 0)?.wrapped())
}

struct Planner {
    span: TimeSpan,
    default_step_ms: i64,
    /// For all regular expressions of the query together.
    allowance: RefCell<CompileAllowance>,
}

impl Planner {
    fn lower(&self, expr: &Expr, depth: usize) -> Result<Lowered, QueryError> {
        if DEPTH_MAX < depth {
            return Err(QueryError::Parse("expression is nested too deeply".to_owned()));
        }
        let depth = depth + 1;
        let leaf = |kind, invariant, wrap| Lowered {
            node: Node { span: expr.span, kind },
            invariant,
            wrap,
        };
        Ok(match &expr.kind {
            ExprKind::Number { value, .. } => leaf(Kind::Number(*value), true, false),
            ExprKind::String(bytes) => {
                let (text, valid) =
                    (String::from_utf8_lossy(bytes), std::str::from_utf8(bytes).is_ok());
                leaf(Kind::String(text.into_owned(), valid), true, false)
            }
            ExprKind::Paren(inner) => self.lower(inner, depth)?,
            ExprKind::VectorSelector(selector) => {
                let selector = self.selector(selector)?;
                let fixed = selector.shift.at_ms.is_some();
                leaf(Kind::Selector(selector), fixed, fixed)
            }
            ExprKind::MatrixSelector { selector, range } => {
                let ExprKind::VectorSelector(selector) = &selector.kind else {
                    return Err(QueryError::Parse(
                        "ranges only allowed for vector selectors".into(),
                    ));
                };
                let selector = self.selector(selector)?;
                let range_ms =
                    duration::positive_ms(range, self.span).map_err(QueryError::Parse)?;
                let fixed = selector.shift.at_ms.is_some();
                leaf(Kind::Range(Range { selector, range_ms }), fixed, false)
            }
            ExprKind::Subquery(subquery) => {
                let subquery = self.subquery(subquery, depth)?;
                let fixed = subquery.shift.at_ms.is_some();
                leaf(Kind::Subquery(subquery), fixed, false)
            }
            ExprKind::Call { function, args } => self.call(expr, function, args, depth)?,
            ExprKind::Aggregate(aggregate) => {
                let inner = self.lower(&aggregate.expr, depth)?;
                let param = aggregate.param.as_ref().map(|param| self.lower(param, depth));
                let aggregate = Aggregate {
                    op: aggregate.op,
                    inner: inner.node,
                    param: param.transpose()?.map(Lowered::wrapped),
                    grouping: aggregate.grouping.clone(),
                };
                leaf(Kind::Aggregate(Box::new(aggregate)), inner.invariant, inner.wrap)
            }
            ExprKind::Binary(binary) => {
                let (binary, invariant) = self.binary(binary, depth)?;
                match constant(&binary) {
                    Some(value) => leaf(Kind::Number(value), true, false),
                    None => leaf(Kind::Binary(Box::new(binary)), invariant, invariant),
                }
            }
            ExprKind::Unary { op: UnaryOp::Plus, expr } => self.lower(expr, depth)?,
            ExprKind::Unary { op: UnaryOp::Minus, expr: inner } => {
                let Lowered { node, invariant, wrap } = self.lower(inner, depth)?;
                if let Kind::Number(value) = node.kind {
                    return Ok(leaf(Kind::Number(-value), true, false));
                }
                leaf(Kind::Negate(Box::new(node)), invariant, wrap)
            }
        })
    }

    fn call(
        &self,
        expr: &Expr,
        function: &'static Function,
        args: &[Expr],
        depth: usize,
    ) -> Result<Lowered, QueryError> {
        let span = expr.span;
        if let Some(value) = self.constant(function.name) {
            let node = Node { span, kind: Kind::Number(value) };
            return Ok(Lowered { node, invariant: true, wrap: false });
        }
        let args: Vec<_> =
            args.iter().map(|arg| self.lower(arg, depth)).collect::<Result<_, _>>()?;
        let fixed = args.iter().all(|arg| arg.invariant);
        let fixed_selectors =
            args.iter().all(|arg| arg.invariant && matches!(arg.node.kind, Kind::Selector(_)));
        let invariant = fixed && !depends_on_time(function.name)
            || function.name == "timestamp" && fixed_selectors;
        let arg = |arg: Lowered| if invariant { arg.node } else { arg.wrapped() };
        let args = args.into_iter().map(arg).collect();
        let node = Node { span, kind: Kind::Call { function, args } };
        Ok(Lowered { node, invariant, wrap: invariant })
    }

    /// And whether it is the same at each step.
    fn binary(&self, binary: &ast::Binary, depth: usize) -> Result<(Binary, bool), QueryError> {
        let (lhs, rhs) = (self.lower(&binary.lhs, depth)?, self.lower(&binary.rhs, depth)?);
        let invariant = lhs.invariant && rhs.invariant;
        let side = |side: Lowered| if invariant { side.node } else { side.wrapped() };
        let binary = Binary {
            op: binary.op,
            lhs: side(lhs),
            rhs: side(rhs),
            return_bool: binary.return_bool,
            matching: binary.matching.clone(),
        };
        Ok((binary, invariant))
    }

    fn subquery(&self, subquery: &ast::Subquery, depth: usize) -> Result<Subquery, QueryError> {
        let inner = self.lower(&subquery.expr, depth)?;
        let positive = |expr| duration::positive_ms(expr, self.span).map_err(QueryError::Parse);
        let step_ms = subquery.step.as_ref().map_or(Ok(self.default_step_ms), positive)?;
        let range_ms = positive(&subquery.range)?;
        let shift = self.shift(&subquery.time)?;
        let inner = if inner.invariant { once(inner.node) } else { inner.node };
        Ok(Subquery { inner: Box::new(inner), range_ms, step_ms, shift })
    }

    /// Functions of the query's own bounds.
    fn constant(&self, function: &str) -> Option<f64> {
        let ms = match function {
            "start" => self.span.start_ms,
            "end" => self.span.end_ms,
            "range" => self.span.range_ms(),
            "step" if self.span.range_ms() == 0 => 0,
            "step" => self.span.step_ms,
            "pi" => return Some(std::f64::consts::PI),
            _ => return None,
        };
        Some(ms as f64 / 1000.0)
    }

    fn selector(&self, selector: &VectorSelector) -> Result<Selector, QueryError> {
        let shift = self.shift(&selector.time)?;
        let compiled = compile_all(&selector.matchers, &mut self.allowance.borrow_mut());
        let matchers = compiled.map_err(|err| QueryError::Parse(err.to_string()))?;
        Ok(Selector { matchers, shift, boundary: selector.boundary })
    }

    fn shift(&self, time: &TimeModifiers) -> Result<Shift, QueryError> {
        let offset = |expr| duration::offset_ms(expr, self.span).map_err(QueryError::Parse);
        let offset_ms = time.offset.as_ref().map_or(Ok(0), offset)?;
        let at_ms = time.at.map(|at| match at {
            AtModifier::Timestamp(at_ms) => at_ms,
            AtModifier::Start => self.span.start_ms,
            AtModifier::End => self.span.end_ms,
        });
        Ok(Shift { at_ms, offset_ms })
    }
}

/// The result of an operator on two numbers.
fn constant(binary: &Binary) -> Option<f64> {
    let (Kind::Number(lhs), Kind::Number(rhs)) = (&binary.lhs.kind, &binary.rhs.kind) else {
        return None;
    };
    Some(scalar_element(binary.op, *lhs, *rhs))
}

/// Functions whose result may differ between steps though their arguments do not.
fn depends_on_time(function: &str) -> bool {
    matches!(
        function,
        "days_in_month"
            | "day_of_month"
            | "day_of_week"
            | "day_of_year"
            | "hour"
            | "minute"
            | "month"
            | "year"
            | "predict_linear"
            | "time"
            | "timestamp"
    )
}
