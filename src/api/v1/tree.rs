//! `/parse_query`: the syntax tree as Prometheus' front end reads it. Trees are at most
//! `parser::DEPTH_MAX` levels high, so recursion is safe.

use serde_json::{Value, json};

use crate::model::float::format_plain;
use crate::model::matcher::written::WrittenMatcher;
use crate::promql::ast::{
    AtModifier, Binary, Boundary, Cardinality, DurationExpr, DurationKind, Expr, ExprKind,
    Subquery, TimeModifiers, UnaryOp, VectorSelector,
};

/// A node with all below it.
pub(super) fn tree(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number { value, .. } => {
            json!({ "type": "numberLiteral", "val": format_plain(*value) })
        }
        ExprKind::String(bytes) => {
            json!({ "type": "stringLiteral", "val": String::from_utf8_lossy(bytes) })
        }
        ExprKind::VectorSelector(selector) => selector_tree("vectorSelector", selector),
        ExprKind::MatrixSelector { selector, range } => match &selector.kind {
            ExprKind::VectorSelector(selector) => {
                let mut node = selector_tree("matrixSelector", selector);
                add_duration(&mut node, "range", Some(range));
                node
            }
            _ => Value::Null,
        },
        ExprKind::Subquery(Subquery { expr, range, step, time }) => {
            let mut node = json!({ "type": "subquery", "expr": tree(expr) });
            add_duration(&mut node, "range", Some(range));
            add_duration(&mut node, "step", step.as_ref());
            add_time(&mut node, time);
            node
        }
        ExprKind::Call { function, args } => {
            let shown: Vec<_> = function.arg_types.iter().map(|kind| kind.as_str()).collect();
            json!({
                "type": "call",
                "func": {
                    "name": function.name,
                    "argTypes": shown,
                    "variadic": function.variadic,
                    "returnType": function.return_type.as_str(),
                },
                "args": args.iter().map(tree).collect::<Vec<_>>(),
            })
        }
        ExprKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.as_str(),
            "expr": tree(&aggregate.expr),
            "param": aggregate.param.as_deref().map(tree),
            "grouping": aggregate.grouping.labels,
            "without": aggregate.grouping.without,
        }),
        ExprKind::Binary(binary) => binary_tree(binary),
        ExprKind::Unary { op, expr } => {
            json!({ "type": "unaryExpr", "op": op.as_str(), "expr": tree(expr) })
        }
        ExprKind::Paren(inner) => json!({ "type": "parenExpr", "expr": tree(inner) }),
    }
}

fn binary_tree(binary: &Binary) -> Value {
    let matching = binary.matching.as_ref().map(|matching| {
        let card = match matching.card {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        };
        json!({
            "card": card,
            "labels": matching.labels,
            "on": matching.on,
            "include": matching.include,
            "fillValues": {
                "lhs": matching.fill_left.map(number),
                "rhs": matching.fill_right.map(number),
            },
        })
    });
    json!({
        "type": "binaryExpr",
        "op": binary.op.as_str(),
        "lhs": tree(&binary.lhs),
        "rhs": tree(&binary.rhs),
        "matching": matching,
        "bool": binary.return_bool,
    })
}

/// Whole numbers are written without a fraction.
fn number(value: f64) -> Value {
    let is_whole = value.fract() == 0.0 && value.abs() < (1_u64 << 53) as f64;
    if is_whole { json!(value as i64) } else { json!(value) }
}

fn selector_tree(kind: &str, selector: &VectorSelector) -> Value {
    let matcher = |matcher: &WrittenMatcher| {
        let op = matcher.op().as_str();
        json!({ "name": matcher.name(), "value": matcher.value(), "type": op })
    };
    let mut node = json!({
        "type": kind,
        "name": selector.name,
        "matchers": selector.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "anchored": selector.boundary == Boundary::Anchored,
        "smoothed": selector.boundary == Boundary::Smoothed,
    });
    add_time(&mut node, &selector.time);
    node
}

fn add_time(node: &mut Value, time: &TimeModifiers) {
    add_duration(node, "offset", time.offset.as_ref());
    let (timestamp, start_or_end) = match time.at {
        None => (None, None),
        Some(AtModifier::Timestamp(timestamp_ms)) => (Some(timestamp_ms), None),
        Some(AtModifier::Start) => (None, Some("start")),
        Some(AtModifier::End) => (None, Some("end")),
    };
    node["timestamp"] = json!(timestamp);
    node["startOrEnd"] = json!(start_or_end);
}

/// Milliseconds where a literal says them; what must be computed stands beside, as `…Expr`.
fn add_duration(node: &mut Value, name: &str, duration: Option<&DurationExpr>) {
    let (ms, computed) = match duration.map(|duration| (&duration.kind, duration)) {
        None => (0, Value::Null),
        // Whole nanoseconds first, as Prometheus counts them.
        Some((DurationKind::Literal { seconds, .. }, _)) => {
            ((seconds * 1e9).round() as i64 / 1_000_000, Value::Null)
        }
        Some((_, expr)) => (0, duration_tree(expr)),
    };
    node[name] = json!(ms);
    node[format!("{name}Expr")] = computed;
}

fn duration_tree(duration: &DurationExpr) -> Value {
    let node = |op: &str, lhs: Value, rhs: Value| json!({ "type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": false });
    match &duration.kind {
        DurationKind::Literal { seconds, is_duration } => json!({
            "type": "numberLiteral",
            "val": format_plain(*seconds),
            "duration": is_duration,
        }),
        DurationKind::Step => node("step", Value::Null, Value::Null),
        DurationKind::Range => node("range", Value::Null, Value::Null),
        DurationKind::MinOf(a, b) => node("min_of", duration_tree(a), duration_tree(b)),
        DurationKind::MaxOf(a, b) => node("max_of", duration_tree(a), duration_tree(b)),
        DurationKind::Binary { op, lhs, rhs } => {
            node(op.as_str(), duration_tree(lhs), duration_tree(rhs))
        }
        DurationKind::Unary { op, expr } => node(op.as_str(), Value::Null, duration_tree(expr)),
        DurationKind::Paren(inner) => {
            // Prometheus has no node for parentheses: a literal in them gets a plus to bear them.
            let mut wrapped = match &inner.kind {
                DurationKind::Literal { .. } => {
                    node(UnaryOp::Plus.as_str(), Value::Null, duration_tree(inner))
                }
                _ => duration_tree(inner),
            };
            wrapped["wrapped"] = json!(true);
            wrapped
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::promql::parser::{ParserOptions, parse};

    fn shown(query: &str) -> String {
        tree(&parse(query, &ParserOptions::ALL).unwrap()).to_string()
    }

    #[test]
    fn selectors_are_spelled_as_the_front_end_reads_them() {
        assert_snapshot!(shown("up{job!~'a'} offset -5m @ 1.5"), @r#"{"anchored":false,"matchers":[{"name":"job","type":"!~","value":"a"},{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":-300000,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":1500,"type":"vectorSelector"}"#);
        assert_snapshot!(shown("x[5m] @ end()"), @r#"{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"x"}],"name":"x","offset":0,"offsetExpr":null,"range":300000,"rangeExpr":null,"smoothed":false,"startOrEnd":"end","timestamp":null,"type":"matrixSelector"}"#);
        assert_snapshot!(shown("x[(5m) * step()]"), @r#"{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"x"}],"name":"x","offset":0,"offsetExpr":null,"range":0,"rangeExpr":{"lhs":{"lhs":null,"op":"+","rhs":{"duration":true,"type":"numberLiteral","val":"300"},"type":"durationExpr","wrapped":true},"op":"*","rhs":{"lhs":null,"op":"step","rhs":null,"type":"durationExpr","wrapped":false},"type":"durationExpr","wrapped":false},"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"matrixSelector"}"#);
        assert_snapshot!(shown("vector(1)[1h:]"), @r#"{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"offset":0,"offsetExpr":null,"range":3600000,"rangeExpr":null,"startOrEnd":null,"step":0,"stepExpr":null,"timestamp":null,"type":"subquery"}"#);
    }

    #[test]
    fn operators_show_how_vectors_are_matched() {
        assert_snapshot!(shown("-topk(2, a) * on (x) group_left (y) fill_right (0) (b)"), @r#"{"bool":false,"lhs":{"expr":{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"a"}],"name":"a","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"grouping":[],"op":"topk","param":{"type":"numberLiteral","val":"2"},"type":"aggregation","without":false},"op":"-","type":"unaryExpr"},"matching":{"card":"many-to-one","fillValues":{"lhs":null,"rhs":0},"include":["y"],"labels":["x"],"on":true},"op":"*","rhs":{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"b"}],"name":"b","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"type":"parenExpr"},"type":"binaryExpr"}"#);
        assert_snapshot!(shown("1 > bool 2"), @r#"{"bool":true,"lhs":{"type":"numberLiteral","val":"1"},"matching":null,"op":">","rhs":{"type":"numberLiteral","val":"2"},"type":"binaryExpr"}"#);
        assert_snapshot!(shown("\"a\\n\""), @r#"{"type":"stringLiteral","val":"a\n"}"#);
    }
}
