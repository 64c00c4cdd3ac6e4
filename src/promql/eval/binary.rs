//! Binary operators between vectors and scalars, and set operators.

mod element;
mod matching;

use crate::promql::ast::{BinaryOp, Span};
use crate::promql::engine::QueryError;

use super::labels::{Groups, Projection, merge_equal};
use super::plan::Binary;
use element::{Outcome, Remarks, combine};

use super::{Evaluator, Item, Sample, Series, Sink, Steps, absent, is_absent};

/// The outcome of a comparison; `None` when the operator is none.
pub(super) fn compare(op: BinaryOp, lhs: f64, rhs: f64) -> Option<bool> {
    Some(match op {
        BinaryOp::Equal => lhs == rhs,
        BinaryOp::NotEqual => lhs != rhs,
        BinaryOp::Less => lhs < rhs,
        BinaryOp::LessEqual => lhs <= rhs,
        BinaryOp::Greater => lhs > rhs,
        BinaryOp::GreaterEqual => lhs >= rhs,
        _ => return None,
    })
}

/// The result of an arithmetic operator; absent for operators on histograms.
pub(super) fn arithmetic(op: BinaryOp, lhs: f64, rhs: f64) -> f64 {
    match op {
        BinaryOp::Add => lhs + rhs,
        BinaryOp::Sub => lhs - rhs,
        BinaryOp::Mul => lhs * rhs,
        BinaryOp::Div => lhs / rhs,
        BinaryOp::Mod => lhs % rhs,
        BinaryOp::Pow => power(lhs, rhs),
        BinaryOp::Atan2 => lhs.atan2(rhs),
        _ => absent(),
    }
}

/// An operator on two scalars: comparisons are 0 or 1.
pub(super) fn scalar_element(op: BinaryOp, lhs: f64, rhs: f64) -> f64 {
    match compare(op, lhs, rhs) {
        Some(holds) => f64::from(u8::from(holds)),
        None => arithmetic(op, lhs, rhs),
    }
}

/// IEEE 754 `pow`, which Go follows too.
fn power(base: f64, exponent: f64) -> f64 {
    base.powf(exponent)
}

fn is_comparison(op: BinaryOp) -> bool {
    compare(op, 0.0, 0.0).is_some()
}

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

/// Whether the result measures something else than the operands.
fn changes_meaning(op: BinaryOp) -> bool {
    !is_comparison(op)
        && !is_trim(op)
        && !matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
}

/// Whether the result of a vector and a scalar loses its name.
pub(super) fn renames(binary: &Binary) -> bool {
    changes_meaning(binary.op) || binary.return_bool
}

/// One element of the result; absent when a comparison filters it out.
fn element(op: BinaryOp, return_bool: bool, lhs: f64, rhs: f64) -> f64 {
    match compare(op, lhs, rhs) {
        Some(holds) if return_bool => f64::from(u8::from(holds)),
        Some(true) => lhs,
        Some(false) => absent(),
        None => arithmetic(op, lhs, rhs),
    }
}

impl<'e> Evaluator<'e> {
    /// A vector and a scalar.
    pub(super) fn stream_vector_scalar(
        &mut self,
        binary: &Binary,
        span: Span,
        steps: Steps,
        sink: Sink<'_, 'e>,
    ) -> Result<(), QueryError> {
        let (op, return_bool) = (binary.op, binary.return_bool);
        let scalar_first = binary.lhs.is_scalar();
        let (scalar, vector) =
            if scalar_first { (&binary.lhs, &binary.rhs) } else { (&binary.rhs, &binary.lhs) };
        let scalars = self.scalar(scalar, steps)?;
        let renames = renames(binary);
        let mut remarks = Remarks::new();
        self.stream(vector, steps, &mut |own, item| {
            if !item.histograms.is_empty() || is_trim(op) {
                for (step, scalar) in scalars.iter().enumerate() {
                    let sample = Sample::at(item.values, item.histograms, step);
                    if matches!(sample, Sample::Absent) {
                        continue;
                    }
                    let scalar = Sample::Float(*scalar);
                    let (lhs, rhs) =
                        if scalar_first { (&scalar, &sample) } else { (&sample, &scalar) };
                    let Outcome { sample: result, remark } = combine(op, return_bool, lhs, rhs);
                    if let Some(remark) = remark {
                        remarks.set(step, steps.count, remark);
                    }
                    let mut result = result.unwrap_or(Sample::Absent);
                    let holds = !matches!(result, Sample::Absent);
                    if scalar_first && is_comparison(op) && !return_bool && holds {
                        result = sample;
                    }
                    result.put(item.values, item.histograms, step);
                }
                let drop_name = item.drop_name || renames;
                return sink(own, Item { drop_name, ..item });
            }
            for (value, scalar) in item.values.iter_mut().zip(&scalars) {
                if is_absent(*value) {
                    continue;
                }
                let (lhs, rhs) = if scalar_first { (*scalar, *value) } else { (*value, *scalar) };
                let kept = *value;
                *value = element(op, return_bool, lhs, rhs);
                if scalar_first && is_comparison(op) && !return_bool && !is_absent(*value) {
                    *value = kept;
                }
            }
            let drop_name = item.drop_name || renames;
            sink(own, Item { drop_name, ..item })
        })?;
        remarks.report(op, span, &mut self.notes);
        Ok(())
    }

    /// Two vectors.
    pub(super) fn vector_binary(
        &mut self,
        binary: &Binary,
        span: Span,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let lhs = self.vector(&binary.lhs, steps)?;
        let rhs = self.vector(&binary.rhs, steps)?;
        let matching = binary.matching.clone().unwrap_or_default();
        let projection = if matching.on {
            Projection::keeping(&matching.labels)
        } else {
            Projection::dropping(&matching.labels)
        };
        // Set operators look at each group at each step; all others more than once.
        let (met, meeting) = if binary.op == BinaryOp::Or { (&lhs, &rhs) } else { (&rhs, &lhs) };
        let cells = (met.len() + meeting.len()).saturating_mul(steps.count);
        self.take_bytes(cells, "matching of vectors")?;
        self.spend(cells)?;
        match binary.op {
            BinaryOp::And | BinaryOp::Unless => {
                Ok(filter(lhs, &rhs, &projection, binary.op == BinaryOp::And, steps))
            }
            BinaryOp::Or => union(lhs, rhs, &projection, steps),
            _ => self.matched(binary, &matching, &projection, (lhs, rhs), span, steps),
        }
    }
}

/// By group and step: whether any series has a value.
struct Presence {
    steps: usize,
    cells: Vec<bool>,
}

impl Presence {
    fn of(series: &[Series], groups: &mut Groups, projection: &Projection, steps: Steps) -> Self {
        let mut presence = Self { steps: steps.count, cells: Vec::new() };
        for one in series {
            let (group, new) = groups.of(projection, one.labels.iter(), false);
            if new {
                presence.cells.resize(groups.len() * steps.count, false);
            }
            let cells = &mut presence.cells[group * steps.count..][..steps.count];
            for (cell, value) in cells.iter_mut().zip(&one.values) {
                *cell |= !is_absent(*value);
            }
        }
        presence
    }

    /// The steps of a group; a group that came later is nowhere.
    fn group(&self, group: usize) -> &[bool] {
        self.cells.get(group * self.steps..(group + 1) * self.steps).unwrap_or_default()
    }
}

/// Removes the values that are (or are not) met by the other side.
fn mask(series: &mut Series, present: &[bool], keep: bool) {
    for (step, value) in series.values.iter_mut().enumerate() {
        if present.get(step).copied().unwrap_or(false) != keep {
            *value = absent();
        }
    }
}

/// `and` (`keep`) and `unless`.
fn filter(
    mut lhs: Vec<Series>,
    rhs: &[Series],
    projection: &Projection,
    keep: bool,
    steps: Steps,
) -> Vec<Series> {
    let mut groups = Groups::default();
    let presence = Presence::of(rhs, &mut groups, projection, steps);
    for one in &mut lhs {
        let (group, _) = groups.of(projection, one.labels.iter(), false);
        mask(one, presence.group(group), keep);
    }
    lhs.retain(|series| 0 < series.present_count());
    lhs
}

/// `or`
fn union(
    mut lhs: Vec<Series>,
    mut rhs: Vec<Series>,
    projection: &Projection,
    steps: Steps,
) -> Result<Vec<Series>, QueryError> {
    let mut groups = Groups::default();
    let presence = Presence::of(&lhs, &mut groups, projection, steps);
    for one in &mut rhs {
        let (group, _) = groups.of(projection, one.labels.iter(), false);
        mask(one, presence.group(group), false);
    }
    rhs.retain(|series| 0 < series.present_count());
    lhs.append(&mut rhs);
    merge_equal(lhs)
}
