//! A query with `@` on every selector has the same value at any other moment.

use crate::promql::ast::{AtModifier, Expr, ExprKind, TimeModifiers};
use crate::promql::parser::{ParserOptions, parse};

/// Functions whose value depends on the moment although their arguments do not.
const OF_THE_MOMENT: &[&str] = &[
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
];

/// The query with every selector fixed to that moment; `None` when it depends on more than that.
pub fn pinned(query: &str, at_ms: i64) -> Result<Option<String>, String> {
    let mut expr = parse(query, &ParserOptions::ALL).map_err(|err| err.to_string())?;
    let mut depends = false;
    expr.walk(&mut |expr| {
        depends |= matches!(&expr.kind, ExprKind::Call { function, .. }
            if OF_THE_MOMENT.contains(&function.name));
    });
    pin(&mut expr, at_ms);
    Ok((!depends).then(|| expr.to_string()))
}

fn pin(expr: &mut Expr, at_ms: i64) {
    let fix = |time: &mut TimeModifiers| {
        time.at.get_or_insert(AtModifier::Timestamp(at_ms));
    };
    match &mut expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) => {}
        ExprKind::VectorSelector(selector) => fix(&mut selector.time),
        ExprKind::MatrixSelector { selector, .. } => pin(selector, at_ms),
        // What is inside follows the subquery.
        ExprKind::Subquery(subquery) => fix(&mut subquery.time),
        ExprKind::Call { args, .. } => args.iter_mut().for_each(|arg| pin(arg, at_ms)),
        ExprKind::Aggregate(aggregate) => {
            pin(&mut aggregate.expr, at_ms);
            if let Some(param) = &mut aggregate.param {
                pin(param, at_ms);
            }
        }
        ExprKind::Binary(binary) => {
            pin(&mut binary.lhs, at_ms);
            pin(&mut binary.rhs, at_ms);
        }
        ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => pin(expr, at_ms),
    }
}

/// Other moments at which to evaluate a query that is fixed to one.
pub fn other_moments(at_ms: i64) -> Vec<i64> {
    if at_ms == 0 { vec![-1_000, 1_000] } else { vec![-10 * at_ms, 0, at_ms / 5, 10 * at_ms] }
}
