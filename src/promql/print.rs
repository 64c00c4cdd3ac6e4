//! A syntax tree back to text, as Prometheus prints it: one line, matchers in order of their text,
//! durations in their own notation. Parsing it again gives the same tree, apart from positions.

pub mod pretty;

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::ast::{
    Aggregate, AtModifier, Binary, BinaryOp, Boundary, Cardinality, DurationExpr, DurationKind,
    Expr, ExprKind, Subquery, TimeModifiers, UnaryOp, VectorMatching, VectorSelector,
};
use crate::model::float::{format_exponent, format_plain};
use crate::model::labels::{METRIC_NAME, is_legacy_label_name, quote};
use crate::model::matcher::MatchOp;
use crate::model::matcher::written::WrittenMatcher;
use crate::model::{self};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number { value, is_duration } => write_number(f, *value, *is_duration),
            ExprKind::String(bytes) => f.write_str(&quote_bytes(bytes)),
            ExprKind::VectorSelector(selector) => {
                write_metric(f, selector)?;
                write_at(f, &selector.time)?;
                write_boundary(f, selector.boundary)?;
                write_offset(f, &selector.time)
            }
            ExprKind::MatrixSelector { selector, range } => write_matrix(f, selector, range),
            ExprKind::Subquery(subquery) => {
                subquery.expr.fmt(f)?;
                SubqueryWindow(subquery).fmt(f)
            }
            ExprKind::Call { function, args } => {
                write!(f, "{}(", function.name)?;
                for (index, arg) in args.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    arg.fmt(f)?;
                }
                f.write_str(")")
            }
            ExprKind::Aggregate(aggregate) => {
                AggregateHead(aggregate).fmt(f)?;
                f.write_str("(")?;
                if let Some(param) = &aggregate.param {
                    param.fmt(f)?;
                    f.write_str(", ")?;
                }
                aggregate.expr.fmt(f)?;
                f.write_str(")")
            }
            ExprKind::Binary(binary) => {
                binary.lhs.fmt(f)?;
                write!(f, " {} ", Operator(binary))?;
                binary.rhs.fmt(f)
            }
            ExprKind::Unary { op, expr } => {
                f.write_str(op.as_str())?;
                expr.fmt(f)
            }
            ExprKind::Paren(expr) => {
                f.write_str("(")?;
                expr.fmt(f)?;
                f.write_str(")")
            }
        }
    }
}

impl UnaryOp {
    /// As written in PromQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }
}

fn write_number(f: &mut Formatter<'_>, value: f64, is_duration: bool) -> fmt::Result {
    if is_duration { write_seconds(f, value) } else { f.write_str(&format_plain(value)) }
}

fn is_whole_ms(seconds: f64) -> bool {
    const ROUNDING: f64 = 1e-6;
    let ms = seconds * 1000.0;
    (ms - ms.round()).abs() < ROUNDING && (1.0..).contains(&ms.round().abs())
}

/// Seconds in the notation of durations.
fn write_seconds(f: &mut Formatter<'_>, seconds: f64) -> fmt::Result {
    let nanos = (seconds.abs() * 1e9).round() as u64;
    let sign = if seconds < 0.0 { "-" } else { "" };
    write!(f, "{sign}{}", model::duration::format(Duration::from_nanos(nanos)))
}

fn write_metric(f: &mut Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    let names = |matcher: &WrittenMatcher| {
        matcher.name() == METRIC_NAME
            && matcher.op() == MatchOp::Equal
            && matcher.value() == selector.name
            && !selector.name.is_empty()
    };
    let matchers = selector.matchers.iter().filter(|matcher| !names(matcher));
    let mut matchers: Vec<_> = matchers.map(ToString::to_string).collect();
    f.write_str(&selector.name)?;
    if matchers.is_empty() {
        // A selector of nothing at all occurs as an argument of `info`.
        return f.write_str(if selector.name.is_empty() { "{}" } else { "" });
    }
    matchers.sort_unstable();
    write!(f, "{{{}}}", matchers.join(","))
}

fn write_at(f: &mut Formatter<'_>, time: &TimeModifiers) -> fmt::Result {
    match time.at {
        None => Ok(()),
        Some(AtModifier::Start) => f.write_str(" @ start()"),
        Some(AtModifier::End) => f.write_str(" @ end()"),
        Some(AtModifier::Timestamp(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let ms = ms.unsigned_abs();
            write!(f, " @ {sign}{}.{:03}", ms / 1000, ms % 1000)
        }
    }
}

fn write_boundary(f: &mut Formatter<'_>, boundary: Boundary) -> fmt::Result {
    f.write_str(match boundary {
        Boundary::Plain => "",
        Boundary::Anchored => " anchored",
        Boundary::Smoothed => " smoothed",
    })
}

fn write_offset(f: &mut Formatter<'_>, time: &TimeModifiers) -> fmt::Result {
    match &time.offset {
        None => Ok(()),
        Some(offset) => write!(f, " offset {}", Whole(offset)),
    }
}

fn write_matrix(f: &mut Formatter<'_>, selector: &Expr, range: &DurationExpr) -> fmt::Result {
    let ExprKind::VectorSelector(selector) = &selector.kind else {
        return write!(f, "{selector}[{}]", Whole(range));
    };
    write_metric(f, selector)?;
    write!(f, "[{}]", Whole(range))?;
    write_boundary(f, selector.boundary)?;
    write_at(f, &selector.time)?;
    write_offset(f, &selector.time)
}

/// The brackets of a subquery and its time modifiers.
pub(super) struct SubqueryWindow<'a>(pub(super) &'a Subquery);

impl Display for SubqueryWindow<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Subquery { range, step, time, .. } = self.0;
        write!(f, "[{}:", Whole(range))?;
        if let Some(step) = step {
            Whole(step).fmt(f)?;
        }
        f.write_str("]")?;
        write_at(f, time)?;
        write_offset(f, time)
    }
}

/// An aggregation up to its parentheses.
pub(super) struct AggregateHead<'a>(pub(super) &'a Aggregate);

impl Display for AggregateHead<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Aggregate { op, grouping, .. } = self.0;
        f.write_str(op.as_str())?;
        match (grouping.without, grouping.labels.is_empty()) {
            (true, _) => write!(f, " without ({}) ", LabelList(&grouping.labels)),
            (false, false) => write!(f, " by ({}) ", LabelList(&grouping.labels)),
            (false, true) => Ok(()),
        }
    }
}

/// A binary operator with its modifiers.
pub(super) struct Operator<'a>(pub(super) &'a Binary);

impl Display for Operator<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Binary { op, return_bool, matching, .. } = self.0;
        f.write_str(op.as_str())?;
        f.write_str(if *return_bool { " bool" } else { "" })?;
        matching.as_ref().map_or(Ok(()), |matching| write_matching(f, matching))
    }
}

fn write_matching(f: &mut Formatter<'_>, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.card {
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        let clause = if matching.on { "on" } else { "ignoring" };
        write!(f, " {clause} ({})", LabelList(&matching.labels))?;
    }
    if let Some(group) = group {
        write!(f, " {group} ({})", LabelList(&matching.include))?;
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => write!(f, " fill ({})", format_general(left)),
        (left, right) => {
            if let Some(left) = left {
                write!(f, " fill_left ({})", format_general(left))?;
            }
            if let Some(right) = right {
                write!(f, " fill_right ({})", format_general(right))?;
            }
            Ok(())
        }
    }
}

struct LabelList<'a>(&'a [String]);

impl Display for LabelList<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, label) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            if is_legacy_label_name(label) {
                f.write_str(label)?;
            } else {
                f.write_str(&quote(label))?;
            }
        }
        Ok(())
    }
}

/// The duration of a range, step or offset. A lone number is printed as duration there, and inside
/// of an expression as the number it is.
struct Whole<'a>(&'a DurationExpr);

impl Display for Whole<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            // What has no such notation would not parse again.
            DurationKind::Literal { seconds, .. } if is_whole_ms(seconds) => {
                write_seconds(f, seconds)
            }
            _ => self.0.fmt(f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let call = |f: &mut Formatter<'_>, name: &str, lhs: &Self, rhs: &Self| {
            write!(f, "{name}(")?;
            lhs.fmt(f)?;
            f.write_str(", ")?;
            rhs.fmt(f)?;
            f.write_str(")")
        };
        match &self.kind {
            DurationKind::Literal { seconds, is_duration } => {
                write_number(f, *seconds, *is_duration)
            }
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::MinOf(lhs, rhs) => call(f, "min_of", lhs, rhs),
            DurationKind::MaxOf(lhs, rhs) => call(f, "max_of", lhs, rhs),
            DurationKind::Binary { op, lhs, rhs } => write_duration_binary(f, *op, lhs, rhs),
            DurationKind::Unary { op, expr } => {
                f.write_str(if *op == UnaryOp::Minus { "-" } else { "" })?;
                expr.fmt(f)
            }
            DurationKind::Paren(expr) => {
                f.write_str("(")?;
                expr.fmt(f)?;
                f.write_str(")")
            }
        }
    }
}

fn write_duration_binary(
    f: &mut Formatter<'_>,
    op: BinaryOp,
    lhs: &DurationExpr,
    rhs: &DurationExpr,
) -> fmt::Result {
    lhs.fmt(f)?;
    write!(f, " {} ", op.as_str())?;
    rhs.fmt(f)
}

/// Go's `%v` of a float.
fn format_general(value: f64) -> String {
    let plain = value == 0.0 || !value.is_finite() || (1e-4..1e21).contains(&value.abs());
    if plain { format_plain(value) } else { format_exponent(value) }
}

/// Quotes like Go's `strconv.Quote`; bytes that are not UTF-8 become `\xff`.
pub fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        let quoted = quote(chunk.valid());
        out.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}
