//! The value of duration expressions: literals, arithmetic on them, `step()` and `range()`.

use crate::promql::ast::{BinaryOp, DurationExpr, DurationKind, UnaryOp};

use super::TimeSpan;

/// Longest duration in seconds: 2^63 ns.
const SECONDS_MAX: f64 = (1_u64 << 63) as f64 / 1e9;

/// A range or a subquery's step in milliseconds; must be positive.
pub(super) fn positive_ms(expr: &DurationExpr, span: TimeSpan) -> Result<i64, String> {
    milliseconds(expr, span, false)
}

/// An offset in milliseconds; may be negative.
pub(super) fn offset_ms(expr: &DurationExpr, span: TimeSpan) -> Result<i64, String> {
    milliseconds(expr, span, true)
}

fn milliseconds(expr: &DurationExpr, span: TimeSpan, negative: bool) -> Result<i64, String> {
    let fail = |what: &str| Err(format!("{}:{}: {what}", expr.span.start, expr.span.end));
    let seconds = seconds(expr, span)?;
    if !seconds.is_finite() {
        return fail("duration is NaN or infinite");
    }
    if seconds <= 0.0 && !negative {
        return fail("duration must be greater than 0");
    }
    if SECONDS_MAX < seconds.abs() {
        return fail("duration is out of range");
    }
    if let DurationKind::Literal { .. } = expr.kind {
        // Literals are kept in nanoseconds, so that 0.29 s does not lose a millisecond.
        return Ok((seconds * 1e9).round() as i64 / 1_000_000);
    }
    Ok((seconds * 1000.0) as i64)
}

fn seconds(expr: &DurationExpr, span: TimeSpan) -> Result<f64, String> {
    let fail = |what: &str| Err(format!("{}:{}: {what}", expr.span.start, expr.span.end));
    Ok(match &expr.kind {
        DurationKind::Literal { seconds, .. } => *seconds,
        DurationKind::Step => span.step_ms as f64 / 1000.0,
        DurationKind::Range => span.range_ms() as f64 / 1000.0,
        DurationKind::MinOf(a, b) => go_min(seconds(a, span)?, seconds(b, span)?),
        DurationKind::MaxOf(a, b) => go_max(seconds(a, span)?, seconds(b, span)?),
        DurationKind::Unary { op: UnaryOp::Plus, expr } => seconds(expr, span)?,
        DurationKind::Unary { op: UnaryOp::Minus, expr } => -seconds(expr, span)?,
        DurationKind::Paren(inner) => seconds(inner, span)?,
        DurationKind::Binary { op, lhs, rhs } => {
            let (lhs, rhs) = (seconds(lhs, span)?, seconds(rhs, span)?);
            match op {
                BinaryOp::Add => lhs + rhs,
                BinaryOp::Sub => lhs - rhs,
                BinaryOp::Mul => lhs * rhs,
                BinaryOp::Div if rhs == 0.0 => return fail("division by zero"),
                BinaryOp::Div => lhs / rhs,
                BinaryOp::Mod if rhs == 0.0 => return fail("modulo by zero"),
                BinaryOp::Mod => lhs % rhs,
                BinaryOp::Pow => lhs.powf(rhs),
                _ => return fail("unexpected duration expression operator"),
            }
        }
    })
}

/// The smaller one; NaN when either is, except beside -Inf.
pub(super) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && a == b {
        if a.is_sign_negative() { a } else { b }
    } else {
        a.min(b)
    }
}

/// The larger one; NaN when either is, except beside +Inf.
pub(super) fn go_max(a: f64, b: f64) -> f64 {
    -go_min(-a, -b)
}
