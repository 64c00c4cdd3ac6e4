//! Operators between two values of which either may be a histogram.

use std::sync::Arc;

use crate::model::histogram::{Histogram, Incompatible, Merged, ResetHint};
use crate::promql::ast::{BinaryOp, Span};

use super::super::annotations::{Annotations, Operation};
use super::super::series::{Sample, is_absent};
use super::{element, is_trim};

/// Why values do not go together, or what had to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// An operator that these kinds of values do not have.
    Kinds(&'static str, &'static str),
    /// Exponential and custom buckets.
    Layout,
    HintsCollide(Operation),
    BoundsDiffer(Operation),
}

/// What an operator makes of two values.
pub(super) struct Outcome {
    /// `None`: the values do not go together, as if they had not met.
    pub(super) sample: Option<Sample>,
    pub(super) remark: Option<Remark>,
}

impl Outcome {
    fn fails(remark: Remark) -> Self {
        Self { sample: None, remark: Some(remark) }
    }
}

impl From<Sample> for Outcome {
    fn from(sample: Sample) -> Self {
        Self { sample: Some(sample), remark: None }
    }
}

impl From<Histogram> for Sample {
    fn from(histogram: Histogram) -> Self {
        Self::Histogram(Arc::new(histogram))
    }
}

/// Two values that are there. A comparison that does not hold yields absence, or with `bool` 0.
pub(super) fn combine(op: BinaryOp, return_bool: bool, lhs: &Sample, rhs: &Sample) -> Outcome {
    use BinaryOp as Op;
    match (op, lhs, rhs) {
        (_, Sample::Float(lhs), Sample::Float(rhs)) if !is_trim(op) => {
            let value = element(op, return_bool, *lhs, *rhs);
            (if is_absent(value) { Sample::Absent } else { Sample::Float(value) }).into()
        }
        (Op::Mul, Sample::Float(factor), Sample::Histogram(one))
        | (Op::Mul, Sample::Histogram(one), Sample::Float(factor)) => {
            Sample::from(one.scaled(*factor).compacted()).into()
        }
        (Op::Div, Sample::Histogram(one), Sample::Float(by)) => {
            Sample::from(one.divided(*by).compacted()).into()
        }
        (Op::TrimUpper, Sample::Histogram(one), Sample::Float(bound)) => {
            Sample::from(one.trimmed_above(*bound)).into()
        }
        (Op::TrimLower, Sample::Histogram(one), Sample::Float(bound)) => {
            Sample::from(one.trimmed_below(*bound)).into()
        }
        (Op::Add, Sample::Histogram(lhs), Sample::Histogram(rhs)) => {
            merged(lhs.add(rhs), Operation::Addition)
        }
        (Op::Sub, Sample::Histogram(lhs), Sample::Histogram(rhs)) => {
            merged(lhs.subtract(rhs), Operation::Subtraction)
        }
        (Op::Equal | Op::NotEqual, Sample::Histogram(lhs), Sample::Histogram(rhs)) => {
            let holds = lhs.has_same_values(rhs) == (op == Op::Equal);
            if return_bool {
                Sample::Float(f64::from(u8::from(holds))).into()
            } else if holds {
                Sample::Histogram(Arc::clone(lhs)).into()
            } else {
                Sample::Absent.into()
            }
        }
        _ => Outcome::fails(Remark::Kinds(kind(lhs), kind(rhs))),
    }
}

fn kind(sample: &Sample) -> &'static str {
    if matches!(sample, Sample::Histogram(_)) { "histogram" } else { "float" }
}

fn merged(result: Result<(Histogram, Merged), Incompatible>, operation: Operation) -> Outcome {
    let Ok((mut histogram, merged)) = result else { return Outcome::fails(Remark::Layout) };
    if merged.hints_collide {
        return Outcome::fails(Remark::HintsCollide(operation));
    }
    if operation == Operation::Subtraction {
        histogram.reset_hint = ResetHint::Gauge;
    }
    let remark = merged.bounds_differ.then_some(Remark::BoundsDiffer(operation));
    Outcome { sample: Some(histogram.into()), remark }
}

/// The last remark of each step: the only one that is reported.
pub(super) struct Remarks(Vec<Option<Remark>>);

impl Remarks {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Replaces what was remarked about a step.
    pub(super) fn set(&mut self, step: usize, steps: usize, remark: Remark) {
        self.0.resize(steps, None);
        self.0[step] = Some(remark);
    }

    /// Reports what is left.
    pub(super) fn report(self, op: BinaryOp, span: Span, notes: &mut Annotations) {
        let mut reported: Vec<Remark> = Vec::new();
        for remark in self.0.into_iter().flatten() {
            if reported.contains(&remark) {
                continue;
            }
            reported.push(remark);
            let op = op.as_str();
            match remark {
                Remark::Kinds(lhs, rhs) => {
                    let what = "incompatible sample types encountered for binary operator";
                    notes.info(&format!("{what} \"{op}\": {lhs} {op} {rhs}"), span);
                }
                Remark::Layout => {
                    let what = "incompatible bucket layout encountered for binary operator";
                    notes.warn(&format!("{what} {op}"), span);
                }
                Remark::HintsCollide(operation) => notes.hints_collide(operation, span),
                Remark::BoundsDiffer(operation) => notes.bounds_differ(operation, span),
            }
        }
    }
}
