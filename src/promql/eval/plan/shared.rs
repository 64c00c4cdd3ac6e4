//! Operands that a query has more than once are evaluated once.
//!
//! Only operands of operators between vectors are shared, which is where people write the same
//! thing again: `sum(rate(a)) / (sum(rate(a)) + sum(rate(b)))`. Of equal operands the last one
//! stands for all, as the place of the last one is shown by annotations.

use std::fmt::Write as _;
use std::sync::Arc;

use foldhash::HashMap;

use super::{Binary, Kind, Node, Selector};
use crate::promql::ast::ValueType;

/// Larger trees are left alone: every operand is described, and descriptions contain each other.
const NODES_MAX: usize = 500;

/// A tree without repetitions, and how often each shared operand stands in it.
pub(in super::super) fn share(mut node: Node) -> (Node, Vec<usize>) {
    if NODES_MAX < count(&node) {
        return (node, Vec::new());
    }
    let mut sharing = Sharing::default();
    sharing.count(&node, "");
    sharing.replace(&mut node, "");
    (node, sharing.uses)
}

fn count(node: &Node) -> usize {
    1 + children(node).into_iter().map(count).sum::<usize>()
}

pub(super) fn children(node: &Node) -> Vec<&Node> {
    match &node.kind {
        Kind::Number(_) | Kind::String(..) | Kind::Selector(_) | Kind::Range(_) => Vec::new(),
        Kind::Subquery(subquery) => vec![&subquery.inner],
        Kind::Call { args, .. } => args.iter().collect(),
        Kind::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.inner]).collect(),
        Kind::Binary(binary) => vec![&binary.lhs, &binary.rhs],
        Kind::Negate(inner) | Kind::Invariant(inner) => vec![inner],
        Kind::Shared { inner, .. } => vec![inner],
    }
}

#[derive(Default)]
struct Sharing {
    /// How often an operand occurs, by where it is evaluated and what it is.
    counts: HashMap<String, usize>,
    shared: HashMap<String, (usize, Arc<Node>)>,
    uses: Vec<usize>,
}

/// The operands that may be shared.
fn operands(binary: &Binary) -> Option<[&Node; 2]> {
    let both = [&binary.lhs, &binary.rhs];
    both.iter().all(|side| side.value_type() == ValueType::Vector).then_some(both)
}

/// What is evaluated at other moments than the rest.
fn context(node: &Node, outer: &str) -> String {
    match &node.kind {
        Kind::Subquery(own) => {
            format!("{outer}[{} {} {:?}]", own.range_ms, own.step_ms, own.shift)
        }
        Kind::Invariant(_) => format!("{outer}once "),
        _ => outer.to_owned(),
    }
}

fn key(node: &Node, context: &str) -> Option<String> {
    let mut text = context.to_owned();
    describe(node, &mut text).then_some(text)
}

/// What a node is, wherever it stands; false when its annotations count how often it is evaluated.
fn describe(node: &Node, out: &mut String) -> bool {
    let selector = |selector: &Selector, out: &mut String| {
        let Selector { matchers, shift, boundary } = selector;
        let _ = write!(out, "{matchers:?} {shift:?} {boundary:?}");
    };
    match &node.kind {
        Kind::Number(value) => {
            let _ = write!(out, "{:x}", value.to_bits());
        }
        Kind::String(text, _) => {
            let _ = write!(out, "{text:?}");
        }
        Kind::Selector(own) => selector(own, out),
        Kind::Range(range) => {
            selector(&range.selector, out);
            let _ = write!(out, "[{}]", range.range_ms);
        }
        Kind::Subquery(own) => {
            let _ = write!(out, "[{} {} {:?}]", own.range_ms, own.step_ms, own.shift);
        }
        Kind::Call { function, .. } => out.push_str(function.name),
        Kind::Aggregate(own) => {
            let _ = write!(out, "{:?} {:?}", own.op, own.grouping);
        }
        Kind::Binary(own) => {
            let _ = write!(out, "{:?} {} {:?}", own.op, own.return_bool, own.matching);
        }
        Kind::Negate(_) => out.push('-'),
        Kind::Invariant(_) => out.push_str("once"),
        Kind::Shared { .. } => {}
    }
    if matches!(&node.kind, Kind::Call { function, .. } if function.name.starts_with("histogram_quantile"))
    {
        return false;
    }
    children(node).into_iter().all(|child| {
        out.push('(');
        let known = describe(child, out);
        out.push(')');
        known
    })
}

impl Sharing {
    fn count(&mut self, node: &Node, outer: &str) {
        if let Kind::Binary(binary) = &node.kind {
            for operand in operands(binary).into_iter().flatten() {
                if let Some(key) = key(operand, outer) {
                    *self.counts.entry(key).or_default() += 1;
                }
            }
        }
        let context = context(node, outer);
        for child in children(node) {
            self.count(child, &context);
        }
    }

    /// From the last operand to the first.
    fn replace(&mut self, node: &mut Node, outer: &str) {
        let context = context(node, outer);
        match &mut node.kind {
            Kind::Binary(binary) => {
                let may_share = operands(binary).is_some();
                for side in [&mut binary.rhs, &mut binary.lhs] {
                    if may_share {
                        self.replace_operand(side, outer);
                    } else {
                        self.replace(side, outer);
                    }
                }
            }
            Kind::Subquery(subquery) => self.replace(&mut subquery.inner, &context),
            Kind::Call { args, .. } => {
                args.iter_mut().rev().for_each(|arg| self.replace(arg, &context));
            }
            Kind::Aggregate(aggregate) => {
                self.replace(&mut aggregate.inner, &context);
                if let Some(param) = &mut aggregate.param {
                    self.replace(param, &context);
                }
            }
            Kind::Negate(inner) | Kind::Invariant(inner) => self.replace(inner, &context),
            Kind::Number(_)
            | Kind::String(..)
            | Kind::Selector(_)
            | Kind::Range(_)
            | Kind::Shared { .. } => {}
        }
    }

    fn replace_operand(&mut self, node: &mut Node, context: &str) {
        let key = key(node, context).filter(|key| 1 < self.counts.get(key).copied().unwrap_or(0));
        let Some(key) = key else { return self.replace(node, context) };
        if !self.shared.contains_key(&key) {
            self.replace(node, context);
            let taken = Node { span: node.span, kind: Kind::Number(0.0) };
            let inner = Arc::new(std::mem::replace(node, taken));
            self.shared.insert(key.clone(), (self.uses.len(), inner));
            self.uses.push(0);
        }
        let (id, inner) = &self.shared[&key];
        self.uses[*id] += 1;
        *node = Node { span: inner.span, kind: Kind::Shared { id: *id, inner: Arc::clone(inner) } };
    }
}
