//! A plan as lines of text, for people who wonder what a query does.

use std::time::Duration;

use super::shared::children;
use super::{Kind, Node, Range, Selector, Shift};
use crate::model::duration;
use crate::promql::ast::Boundary;

/// One line for each operation, indented below what uses it.
pub(in super::super) fn explain(root: &Node) -> Vec<String> {
    let mut explaining = Explaining::default();
    explaining.node(root, 0);
    explaining.lines
}

#[derive(Default)]
struct Explaining {
    lines: Vec<String>,
    /// Shared operands that were shown.
    shown: Vec<usize>,
}

impl Explaining {
    fn node(&mut self, node: &Node, depth: usize) {
        let is_shown = match &node.kind {
            Kind::Shared { id, .. } => {
                let is_shown = self.shown.contains(id);
                self.shown.push(*id);
                is_shown
            }
            _ => false,
        };
        let what = if is_shown { format!("{}, see above", line(node)) } else { line(node) };
        self.lines.push(format!("{}{what}", "  ".repeat(depth)));
        if !is_shown {
            for child in children(node) {
                self.node(child, depth + 1);
            }
        }
    }
}

fn line(node: &Node) -> String {
    match &node.kind {
        Kind::Number(value) => format!("number {value}"),
        Kind::String(text, _) => format!("text {text:?}"),
        Kind::Selector(selector) => format!("newest samples of {}", series(selector)),
        Kind::Range(Range { selector, range_ms }) => {
            format!("samples of {} within {}", series(selector), format_ms(*range_ms))
        }
        Kind::Subquery(own) => {
            let (range, step) = (format_ms(own.range_ms), format_ms(own.step_ms));
            format!("within {range}, every {step}{}", shift(own.shift))
        }
        Kind::Call { function, .. } => format!("{}()", function.name),
        Kind::Aggregate(own) => {
            let labels = own.grouping.labels.join(", ");
            let word = if own.grouping.without { "without" } else { "by" };
            format!("{} {word} ({labels})", own.op.as_str())
        }
        Kind::Binary(own) => format!("operator {}", own.op.as_str()),
        Kind::Negate(_) => "operator -".to_owned(),
        Kind::Invariant(_) => "once for all steps".to_owned(),
        Kind::Shared { id, .. } => format!("shared #{}", id + 1),
    }
}

fn format_ms(ms: i64) -> String {
    duration::format(Duration::from_millis(ms.unsigned_abs()))
}

fn series(selector: &Selector) -> String {
    let matchers: Vec<_> = selector.matchers.iter().map(ToString::to_string).collect();
    let boundary = match selector.boundary {
        Boundary::Plain => "",
        Boundary::Anchored => " anchored",
        Boundary::Smoothed => " smoothed",
    };
    format!("{{{}}}{boundary}{}", matchers.join(","), shift(selector.shift))
}

fn shift(shift: Shift) -> String {
    let at = shift.at_ms.map(|at_ms| format!(" @ {}", at_ms as f64 / 1000.0));
    let offset = match shift.offset_ms {
        0 => String::new(),
        ms if ms < 0 => format!(" offset -{}", format_ms(ms)),
        ms => format!(" offset {}", format_ms(ms)),
    };
    at.unwrap_or_default() + &offset
}

#[cfg(test)]
mod tests {
    use super::super::super::{Plan, TimeSpan};
    use crate::promql::parser::{ParserOptions, parse};

    fn explain(text: &str) -> Vec<String> {
        let expr = parse(text, &ParserOptions::ALL).unwrap();
        let span = TimeSpan { start_ms: 0, end_ms: 600_000, step_ms: 60_000 };
        Plan::new(&expr, span, 60_000).unwrap().explain()
    }

    #[test]
    fn plans_show_what_is_computed_how_often() {
        let plans: [(&str, &[&str]); 7] = [
            ("-(1 + 2) * 2 ^ 3", &["number -24"]),
            ("pi()", &["number 3.141592653589793"]),
            (
                "up offset 5m > 1 + 1",
                &["operator >", r#"  newest samples of {__name__="up"} offset 5m"#, "  number 2"],
            ),
            (
                "sum(rate(a[5m] @ end()))",
                &[
                    "once for all steps",
                    "  sum by ()",
                    "    rate()",
                    r#"      samples of {__name__="a"} @ 600 within 5m"#,
                ],
            ),
            (
                "sum(a) / (sum(a) + sum(b))",
                &[
                    "operator /",
                    "  shared #1",
                    "    sum by ()",
                    r#"      newest samples of {__name__="a"}"#,
                    "  operator +",
                    "    shared #1, see above",
                    "    sum by ()",
                    r#"      newest samples of {__name__="b"}"#,
                ],
            ),
            (
                "max_over_time((a / a)[5m:1m])",
                &[
                    "max_over_time()",
                    "  within 5m, every 1m",
                    "    operator /",
                    "      shared #1",
                    r#"        newest samples of {__name__="a"}"#,
                    "      shared #1, see above",
                ],
            ),
            (
                "a + a offset 1m",
                &[
                    "operator +",
                    r#"  newest samples of {__name__="a"}"#,
                    r#"  newest samples of {__name__="a"} offset 1m"#,
                ],
            ),
        ];
        for (text, expected) in plans {
            assert_eq!(explain(text), expected, "{text}");
        }
    }
}
