//! The functions of PromQL by how they are evaluated: series by series (`elementwise`,
//! `over_range`), or on whole vectors.

mod elementwise;
pub(super) mod extrapolate;
mod histogram;
mod info;
mod label;
pub(super) mod native;
mod native_rate;
pub(super) mod numeric;
pub(super) mod over_range;
mod rate;
mod sort;
pub(super) mod time;

use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME};
use crate::model::matcher::MatchOp;
use crate::promql::ast::{BinaryOp, Span, ValueType};
use crate::promql::engine::QueryError;

use super::duration::{go_max, go_min};
use super::plan::{Kind, Node};
use super::selector::Sampled;
use super::{Evaluator, Item, Series, Sink, Steps, absent, is_absent};
use elementwise::Elementwise;
use over_range::RangeFunction;

/// Whether a node's series come from its operand's series one by one.
pub(super) fn is_one_by_one(node: &Node) -> bool {
    match &node.kind {
        Kind::Selector(_) => true,
        Kind::Negate(inner) => !inner.is_scalar(),
        Kind::Call { function, args } => {
            RangeFunction::named(function.name).is_some()
                || Elementwise::exists(function.name) && !args.is_empty()
                || matches!(function.name, "timestamp" | "start_timestamp")
        }
        Kind::Binary(binary) => binary.lhs.is_scalar() != binary.rhs.is_scalar(),
        _ => false,
    }
}

/// Whether the series of a node that treats series one by one come without their names.
pub(super) fn drops_names(node: &Node) -> bool {
    match &node.kind {
        Kind::Negate(_) => true,
        Kind::Call { function, .. } => {
            RangeFunction::named(function.name).is_none_or(|function| !function.keeps_name())
        }
        Kind::Binary(binary) => {
            super::binary::renames(binary)
                || [&binary.lhs, &binary.rhs]
                    .iter()
                    .any(|side| !side.is_scalar() && drops_names(side))
        }
        _ => false,
    }
}

/// Whether a node is a function of a range vector.
pub(super) fn reads_range(node: &Node) -> bool {
    matches!(&node.kind, Kind::Call { function, .. } if RangeFunction::named(function.name).is_some())
}

impl<'e> Evaluator<'e> {
    /// Functions from scalars to a scalar, and `scalar()`.
    pub(super) fn scalar_call(
        &mut self,
        name: &str,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<f64>, QueryError> {
        match (name, args) {
            ("time", _) => {
                Ok((0..steps.count).map(|step| steps.time(step) as f64 / 1000.0).collect())
            }
            ("pi", _) => Ok(vec![std::f64::consts::PI; steps.count]),
            ("scalar", [arg]) => self.only_value(arg, steps),
            ("min_of" | "max_of", [a, b]) => {
                let choose = if name == "min_of" { go_min } else { go_max };
                let (a, b) = (self.scalar(a, steps)?, self.scalar(b, steps)?);
                Ok(a.into_iter().zip(b).map(|(a, b)| choose(a, b)).collect())
            }
            _ => Err(unknown(name)),
        }
    }

    /// `scalar()`: the value where there is exactly one, else NaN.
    fn only_value(&mut self, arg: &Node, steps: Steps) -> Result<Vec<f64>, QueryError> {
        self.take_column::<f64>(steps)?;
        self.take_column::<u8>(steps)?;
        let mut out = vec![f64::NAN; steps.count];
        let mut seen = vec![0_u8; steps.count];
        self.stream(arg, steps, &mut |_, mut item| {
            item.drop_histograms();
            for ((out, seen), value) in out.iter_mut().zip(&mut seen).zip(item.values) {
                if !is_absent(*value) {
                    *out = if *seen == 0 { *value } else { f64::NAN };
                    *seen = 1;
                }
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Functions that treat series one by one.
    pub(super) fn stream_call(
        &mut self,
        span: Span,
        name: &str,
        args: &[Node],
        steps: Steps,
        sink: Sink<'_, 'e>,
    ) -> Result<(), QueryError> {
        if let Some(function) = RangeFunction::named(name) {
            return self.stream_range_function(function, args, steps, sink);
        }
        let Some(vector) = args.iter().find(|arg| arg.value_type() == ValueType::Vector) else {
            unreachable!("{name} at {span:?} has a vector argument")
        };
        let sampled = match name {
            "timestamp" => Some(Sampled::Seconds),
            "start_timestamp" if self.env.use_start_timestamps => Some(Sampled::StartSeconds),
            _ => None,
        };
        if let (Some(sampled), Kind::Selector(selector)) = (sampled, &vector.kind) {
            return self.stream_selector(selector, steps, sampled, span, &mut |own, item| {
                sink(own, Item { drop_name: true, ..item })
            });
        }
        if name == "start_timestamp" {
            // What was computed has no start.
            return self.stream(vector, steps, &mut |_, _| Ok(()));
        }
        let params = self.scalar_arguments(args, steps)?;
        let function = Elementwise::named(name, params, steps).ok_or_else(|| unknown(name))?;
        // Histograms have a time, but no other value.
        let keeps_histograms = name == "timestamp";
        self.stream(vector, steps, &mut |own, mut item| {
            if keeps_histograms {
                item.histograms.clear();
            } else {
                item.drop_histograms();
            }
            function.apply(item.values);
            sink(own, Item { drop_name: true, ..item })
        })
    }

    /// All other functions that return a vector.
    pub(super) fn vector_call(
        &mut self,
        span: Span,
        name: &str,
        args: &[Node],
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let unlabelled = |values| vec![Series::floats(Labels::empty(), false, values)];
        match (name, args) {
            ("vector", [arg]) => Ok(unlabelled(self.scalar(arg, steps)?)),
            ("absent", [arg]) => self.absent(arg, steps),
            ("absent_over_time", args) => self.absent_over_time(args, steps),
            ("label_replace", args) => self.label_replace(args, steps),
            ("label_join", args) => self.label_join(args, steps),
            ("sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc", args) => {
                self.sort(name, span, args, steps)
            }
            ("histogram_quantile" | "histogram_quantiles" | "histogram_fraction", args) => {
                self.histogram_shape(name, args, steps)
            }
            ("info", args) => self.info(args, steps),
            (
                "histogram_count" | "histogram_sum" | "histogram_avg" | "histogram_stddev"
                | "histogram_stdvar",
                [arg],
            ) => self.of_histograms(name, arg, steps),
            (name, []) => {
                let dates = (0..steps.count).map(|step| steps.time(step).div_euclid(1000) as f64);
                let mut values: Vec<f64> = dates.collect();
                Elementwise::named(name, Vec::new(), steps)
                    .ok_or_else(|| unknown(name))?
                    .apply(&mut values);
                Ok(unlabelled(values))
            }
            _ => Err(unknown(name)),
        }
    }

    fn absent(&mut self, arg: &Node, steps: Steps) -> Result<Vec<Series>, QueryError> {
        self.take_column::<f64>(steps)?;
        let mut values = vec![1.0; steps.count];
        self.stream(arg, steps, &mut |_, item| {
            for (out, value) in values.iter_mut().zip(item.values) {
                if !is_absent(*value) {
                    *out = absent();
                }
            }
            Ok(())
        })?;
        Ok(vec![Series::floats(absent_labels(arg), false, values)])
    }

    /// Operations on two scalars.
    pub(super) fn scalar_binary(
        &mut self,
        binary: &super::plan::Binary,
        steps: Steps,
    ) -> Result<Vec<f64>, QueryError> {
        let (lhs, rhs) = (self.scalar(&binary.lhs, steps)?, self.scalar(&binary.rhs, steps)?);
        let apply = |(lhs, rhs)| super::binary::scalar_element(binary.op, lhs, rhs);
        debug_assert!(!matches!(binary.op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless));
        Ok(lhs.into_iter().zip(rhs).map(apply).collect())
    }
}

fn unknown(name: &str) -> QueryError {
    QueryError::Execution(format!("unknown function with name \"{name}\""))
}

/// The labels that a selector fixes: those of its equality matchers, each label matched once.
pub(super) fn absent_labels(node: &Node) -> Labels {
    let matchers = match &node.kind {
        Kind::Selector(selector) => &selector.matchers,
        Kind::Range(range) => &range.selector.matchers,
        _ => return Labels::empty(),
    };
    let mut labels = LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            labels.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            labels.remove(matcher.name());
        }
    }
    labels.build()
}
