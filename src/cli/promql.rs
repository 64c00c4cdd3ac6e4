//! `narthex promql`: queries in their usual layout, and matchers added to or taken from them.

use anyhow::anyhow;
use clap::Subcommand;

use crate::model::matcher::MatchOp;
use crate::model::matcher::written::WrittenMatcher;
use crate::promql::ast::{Expr, ExprKind, Subquery, VectorSelector};
use crate::promql::parser::{ParserOptions, parse};
use crate::promql::print::pretty::pretty;

/// What to do with a query.
#[derive(Debug, Subcommand)]
pub enum PromqlCommand {
    /// Print a query in its usual layout.
    Format {
        /// PromQL expression.
        query: String,
    },
    /// Change the label matchers of all selectors in a query.
    #[command(subcommand)]
    LabelMatchers(LabelMatchers),
}

/// How to change matchers.
#[derive(Debug, Subcommand)]
pub enum LabelMatchers {
    /// Set a matcher, in place of others for the same label.
    Set {
        /// How the label is compared: =, !=, =~ or !~.
        #[arg(short = 't', long = "type", default_value = "=")]
        op: String,
        /// PromQL expression.
        query: String,
        /// Name of the label.
        name: String,
        /// Value of the label.
        value: String,
    },
    /// Delete all matchers of a label.
    Delete {
        /// PromQL expression.
        query: String,
        /// Name of the label.
        name: String,
    },
}

/// Prints the query.
pub fn run(command: PromqlCommand) -> anyhow::Result<()> {
    println!("{}", changed(command)?);
    Ok(())
}

fn changed(command: PromqlCommand) -> anyhow::Result<String> {
    let parsed = |query: &str| {
        parse(query, &ParserOptions::ALL).map_err(|err| anyhow!("parse error: {err}"))
    };
    match command {
        PromqlCommand::Format { query } => Ok(pretty(&parsed(&query)?)),
        PromqlCommand::LabelMatchers(LabelMatchers::Set { op, query, name, value }) => {
            let op = match op.as_str() {
                "=" => MatchOp::Equal,
                "!=" => MatchOp::NotEqual,
                "=~" => MatchOp::Regex,
                "!~" => MatchOp::NotRegex,
                other => return Err(anyhow!("invalid label match type: {other}")),
            };
            let matcher = WrittenMatcher::new(op, &name, &value)?;
            let mut expr = parsed(&query)?;
            for_each_selector(&mut expr, &mut |selector| {
                let mut is_set = false;
                for own in selector.matchers.iter_mut().filter(|own| own.name() == name) {
                    *own = matcher.clone();
                    is_set = true;
                }
                if !is_set {
                    selector.matchers.push(matcher.clone());
                }
            });
            Ok(pretty(&expr))
        }
        PromqlCommand::LabelMatchers(LabelMatchers::Delete { query, name }) => {
            let mut expr = parsed(&query)?;
            for_each_selector(&mut expr, &mut |selector| {
                selector.matchers.retain(|own| own.name() != name);
            });
            Ok(pretty(&expr))
        }
    }
}

/// Trees are at most `parser::DEPTH_MAX` levels high, so recursion is safe.
fn for_each_selector(expr: &mut Expr, change: &mut impl FnMut(&mut VectorSelector)) {
    match &mut expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) => {}
        ExprKind::VectorSelector(selector) => change(selector),
        ExprKind::MatrixSelector { selector: inner, .. }
        | ExprKind::Subquery(Subquery { expr: inner, .. })
        | ExprKind::Unary { expr: inner, .. }
        | ExprKind::Paren(inner) => for_each_selector(inner, change),
        ExprKind::Call { args, .. } => {
            for arg in args {
                for_each_selector(arg, change);
            }
        }
        ExprKind::Aggregate(aggregate) => {
            if let Some(param) = &mut aggregate.param {
                for_each_selector(param, change);
            }
            for_each_selector(&mut aggregate.expr, change);
        }
        ExprKind::Binary(binary) => {
            for_each_selector(&mut binary.lhs, change);
            for_each_selector(&mut binary.rhs, change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(op: &str, query: &str, name: &str, value: &str) -> String {
        let [op, query, name, value] = [op, query, name, value].map(str::to_owned);
        let command = LabelMatchers::Set { op, query, name, value };
        changed(PromqlCommand::LabelMatchers(command)).unwrap_or_else(|err| err.to_string())
    }

    #[test]
    fn queries_are_laid_out() {
        let format = |query: &str| changed(PromqlCommand::Format { query: query.to_owned() });
        assert_eq!(format("sum(  up) by(job)").unwrap(), "sum by (job) (up)");
        assert!(format("sum(").unwrap_err().to_string().starts_with("parse error: 1:5:"));
    }

    #[test]
    fn matchers_are_set_and_deleted_everywhere() {
        assert_eq!(
            set("=", "rate(a{job=\"x\",b=\"c\"}[5m]) / on () topk(1, d)", "job", "y"),
            "rate(a{b=\"c\",job=\"y\"}[5m]) / on () topk(1, d{job=\"y\"})"
        );
        assert_eq!(set("=~", "up", "job", "a|b"), "up{job=~\"a|b\"}");
        assert_eq!(set("~", "up", "job", "a"), "invalid label match type: ~");
        assert!(set("=~", "up", "job", "(").contains("missing closing )"));
        let delete = LabelMatchers::Delete {
            query: "max_over_time((a{job=\"x\",b=\"c\"} - -d{job!=\"y\"})[1h:])".to_owned(),
            name: "job".to_owned(),
        };
        assert_eq!(
            changed(PromqlCommand::LabelMatchers(delete)).unwrap(),
            "max_over_time((a{b=\"c\"} - -d)[1h:])"
        );
    }
}
