//! A syntax tree over several lines, in the layout of Prometheus' `format_query`: a node whose
//! text fits into a line stays on it, otherwise its parts go to lines of their own, deeper by two
//! spaces. Binary operators stand on a line between their operands.

use std::fmt::{self, Display, Write as _};

use super::{AggregateHead, Operator, SubqueryWindow};
use crate::promql::ast::{Expr, ExprKind};

/// Bytes of a line without its indentation, above which a node is split.
const LINE_BYTES_MAX: usize = 100;

/// The query over several lines.
pub fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    write_node(&mut out, expr, 0, true);
    out
}

/// Counts until the line is full, so that a look at a long node is short.
struct Room(usize);

impl fmt::Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

fn fits(expr: &Expr) -> bool {
    write!(Room(LINE_BYTES_MAX), "{expr}").is_ok()
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level));
}

fn append(out: &mut String, part: impl Display) {
    write!(out, "{part}").expect("a string takes all");
}

/// `leads`: the node starts its line and indents itself.
fn write_node(out: &mut String, expr: &Expr, level: usize, leads: bool) {
    match &expr.kind {
        // As Prometheus does: a subquery that fits is not indented.
        ExprKind::Subquery(_) if fits(expr) => return append(out, expr),
        ExprKind::Subquery(subquery) => {
            write_node(out, &subquery.expr, level, leads);
            return append(out, SubqueryWindow(subquery));
        }
        ExprKind::Binary(binary) if !fits(expr) => {
            write_node(out, &binary.lhs, level + 1, leads);
            out.push('\n');
            indent(out, level);
            append(out, Operator(binary));
            out.push('\n');
            return write_node(out, &binary.rhs, level + 1, true);
        }
        _ => {}
    }
    if leads {
        indent(out, level);
    }
    match &expr.kind {
        ExprKind::Unary { op, expr } => {
            out.push_str(op.as_str());
            write_node(out, expr, level, false);
        }
        _ if fits(expr) => append(out, expr),
        ExprKind::Aggregate(aggregate) => {
            append(out, AggregateHead(aggregate));
            let param = aggregate.param.as_deref();
            write_parts(out, param.into_iter().chain([&*aggregate.expr]), level);
        }
        ExprKind::Call { function, args } => {
            out.push_str(function.name);
            write_parts(out, args, level);
        }
        ExprKind::Paren(inner) => write_parts(out, [&**inner], level),
        _ => append(out, expr),
    }
}

/// In parentheses, each on its own line.
fn write_parts<'a>(out: &mut String, parts: impl IntoIterator<Item = &'a Expr>, level: usize) {
    out.push('(');
    for (index, part) in parts.into_iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        write_node(out, part, level + 1, true);
    }
    out.push('\n');
    indent(out, level);
    out.push(')');
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::promql::parser::{ParserOptions, parse};

    fn format(query: &str) -> String {
        pretty(&parse(query, &ParserOptions::ALL).unwrap())
    }

    #[test]
    fn what_fits_stays_on_its_line() {
        assert_eq!(format("sum  by(a)( rate( foo [5m] ) )"), "sum by (a) (rate(foo[5m]))");
        assert_eq!(format("foo # comment"), "foo");
    }

    #[test]
    fn long_queries_are_split_at_their_nodes() {
        assert_snapshot!(format(
            "histogram_quantile(0.9, sum by (le, job) (rate(http_request_duration_seconds_bucket{job='api',instance=~'.*'}[5m])))"
        ), @r#"
histogram_quantile(
  0.9,
  sum by (le, job) (rate(http_request_duration_seconds_bucket{instance=~".*",job="api"}[5m]))
)
"#);
        assert_snapshot!(format(
            "topk(5, (sum(http_requests_total{job='api-server', code=~'5..'}) + on(job) group_left() (http_requests_total_of_another_name)))"
        ), @r#"
topk(
  5,
  (
      sum(http_requests_total{code=~"5..",job="api-server"})
    + on (job) group_left ()
      (http_requests_total_of_another_name)
  )
)
"#);
        assert_snapshot!(format(
            "-max_over_time(abs(rate(http_requests_total_with_a_long_name{job='api-server', code=~'5..'}[5m]))[1h:1m] @ start())"
        ), @r#"
-max_over_time(
abs(rate(http_requests_total_with_a_long_name{code=~"5..",job="api-server"}[5m]))[1h:1m] @ start()
)
"#);
        assert_snapshot!(format("time()"), @"time()");
    }

    #[test]
    fn what_is_split_parses_to_the_same() {
        for query in [
            "-(-(sum without (instance) (http_requests_total_with_a_long_name{job='api-server', code=~'5..'})))",
            "a_rather_long_metric_name_that_stands_here_alone ^ -another_long_metric_name_that_stands_here ^ 2",
        ] {
            let parsed = parse(query, &ParserOptions::ALL).unwrap();
            let again = parse(&pretty(&parsed), &ParserOptions::ALL).unwrap();
            assert_eq!(again.to_string(), parsed.to_string());
        }
    }
}
