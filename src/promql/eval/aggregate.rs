//! Aggregations: many series to one for each group, or a choice among the series of a group.
//!
//! Folds take series as they are streamed and hold one cell for each group and step.

mod choose;
mod fold;
mod native;

use std::fmt::Write as _;

use foldhash::{HashMap, HashMapExt as _};

use crate::model::float::format_plain;
use crate::model::labels::{Labels, quote};
use crate::promql::ast::{AggregateOp, Grouping, Span};
use crate::promql::engine::QueryError;

use super::format::histogram_text;
use super::functions::numeric::quantile;
use super::labels::{Groups, Projection};
use super::plan::{Aggregate, Node};
use super::{Evaluator, Series, Steps, absent, is_absent};
use fold::{Average, Cell, Count, Group, Max, Min, OnHistogram, Stddev, Stdvar, Sum};
use native::Natives;

/// How an aggregation groups.
struct Grouped {
    projection: Projection,
    groups: Groups,
    /// Of each group.
    labels: Vec<Labels>,
    /// Whether any series of the group has lost its name.
    drop_name: Vec<bool>,
    delayed: bool,
}

impl Grouped {
    fn new(grouping: &Grouping, delayed: bool) -> Self {
        Self {
            projection: projection(grouping),
            groups: Groups::default(),
            labels: Vec::new(),
            drop_name: Vec::new(),
            delayed,
        }
    }

    fn of(&mut self, labels: &Labels, drop_name: bool) -> usize {
        let drop_now = drop_name && !self.delayed;
        let (group, new) = self.groups.of(&self.projection, labels, drop_now);
        if new {
            self.labels.push(self.projection.of(labels, drop_now));
            self.drop_name.push(false);
        }
        self.drop_name[group] |= drop_name && self.delayed;
        group
    }
}

fn projection(grouping: &Grouping) -> Projection {
    if grouping.without {
        Projection::dropping(&grouping.labels)
    } else {
        Projection::keeping(&grouping.labels)
    }
}

impl Evaluator<'_> {
    /// The value of an aggregation.
    pub(super) fn aggregate(
        &mut self,
        span: Span,
        aggregate: &Aggregate,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let inner = &aggregate.inner;
        let grouping = &aggregate.grouping;
        match aggregate.op {
            AggregateOp::Sum => self.fold::<Sum>(grouping, inner, steps),
            AggregateOp::Avg => self.fold::<Average>(grouping, inner, steps),
            AggregateOp::Count => self.fold::<Count>(grouping, inner, steps),
            AggregateOp::Min => self.fold::<Min>(grouping, inner, steps),
            AggregateOp::Max => self.fold::<Max>(grouping, inner, steps),
            AggregateOp::Group => self.fold::<Group>(grouping, inner, steps),
            AggregateOp::Stddev => self.fold::<Stddev>(grouping, inner, steps),
            AggregateOp::Stdvar => self.fold::<Stdvar>(grouping, inner, steps),
            AggregateOp::CountValues => self.count_values(aggregate, steps),
            AggregateOp::Quantile => self.quantile(aggregate, steps),
            AggregateOp::TopK
            | AggregateOp::BottomK
            | AggregateOp::LimitK
            | AggregateOp::LimitRatio => self.choose(span, aggregate, steps),
        }
    }

    fn fold<C: Cell>(
        &mut self,
        grouping: &Grouping,
        inner: &Node,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let mut grouped = Grouped::new(grouping, self.env.delayed_name_removal);
        let mut cells: Vec<C> = Vec::new();
        let mut natives = Natives::new(C::ON_HISTOGRAM == OnHistogram::Mean);
        self.stream(inner, steps, &mut |own, mut item| {
            let group = grouped.of(item.labels, item.drop_name);
            if let OnHistogram::Ignore(name) = C::ON_HISTOGRAM
                && item.drop_histograms()
            {
                own.notes.ignored_in_aggregation(name, inner.span);
            }
            if cells.len() < grouped.labels.len() * steps.count {
                own.hold(steps.count as u64)?;
                cells.resize(grouped.labels.len() * steps.count, C::EMPTY);
            }
            let place = group * steps.count;
            let cells = &mut cells[place..][..steps.count];
            let merges = matches!(C::ON_HISTOGRAM, OnHistogram::Sum | OnHistogram::Mean);
            if merges && (!item.histograms.is_empty() || !natives.is_empty()) {
                return own.fold_histograms(&item, cells, &mut natives, place, inner.span);
            }
            for (cell, value) in cells.iter_mut().zip(item.values) {
                if !is_absent(*value) {
                    cell.add(*value);
                }
            }
            Ok(())
        })?;
        let finish = |(group, cells): (usize, &[C])| {
            let values = cells.iter().map(Cell::finish).collect();
            Series::floats(grouped.labels[group].clone(), grouped.drop_name[group], values)
        };
        let mut out: Vec<_> = cells.chunks(steps.count.max(1)).enumerate().map(finish).collect();
        natives.finish(&mut out, steps.count, inner.span, &mut self.notes);
        Ok(out)
    }

    /// The parameter at each step.
    fn param(&mut self, aggregate: &Aggregate, steps: Steps) -> Result<Vec<f64>, QueryError> {
        match &aggregate.param {
            Some(param) => self.scalar(param, steps),
            None => Ok(vec![0.0; steps.count]),
        }
    }

    fn quantile(&mut self, aggregate: &Aggregate, steps: Steps) -> Result<Vec<Series>, QueryError> {
        let quantiles = self.param(aggregate, steps)?;
        self.note_quantile_param(
            &quantiles,
            aggregate.param.as_ref().map_or_else(Span::default, |param| param.span),
        );
        let mut grouped = Grouped::new(&aggregate.grouping, self.env.delayed_name_removal);
        let mut columns: Vec<Vec<f64>> = Vec::new();
        self.stream(&aggregate.inner, steps, &mut |own, mut item| {
            if item.drop_histograms() {
                own.notes.ignored_in_aggregation("quantile", aggregate.inner.span);
            }
            let group = grouped.of(item.labels, item.drop_name);
            columns.resize_with(grouped.labels.len(), Vec::new);
            own.hold(steps.count as u64)?;
            columns[group].extend_from_slice(item.values);
            Ok(())
        })?;
        let mut sorted = Vec::new();
        let mut out = Vec::new();
        for (group, column) in columns.iter().enumerate() {
            let at = |step: usize| column.iter().skip(step).step_by(steps.count);
            let mut value = |(step, wanted): (usize, &f64)| {
                sorted.clear();
                sorted.extend(at(step).filter(|value| !is_absent(**value)));
                if sorted.is_empty() { absent() } else { quantile(*wanted, &mut sorted) }
            };
            let values = quantiles.iter().enumerate().map(&mut value).collect();
            let (labels, drop_name) = (grouped.labels[group].clone(), grouped.drop_name[group]);
            out.push(Series::floats(labels, drop_name, values));
        }
        Ok(out)
    }

    fn note_quantile_param(&mut self, quantiles: &[f64], span: Span) {
        if quantiles.iter().any(|quantile| quantile.is_nan()) {
            self.notes.invalid_quantile(f64::NAN, span);
        }
        let max = quantiles.iter().copied().fold(f64::NEG_INFINITY, super::duration::go_max);
        let min = quantiles.iter().copied().fold(f64::INFINITY, super::duration::go_min);
        if 1.0 < max && !quantiles.is_empty() {
            self.notes.invalid_quantile(max, span);
        }
        if min < 0.0 && !quantiles.is_empty() {
            self.notes.invalid_quantile(min, span);
        }
    }

    /// `count_values`: how many series of a group have each value.
    fn count_values(
        &mut self,
        aggregate: &Aggregate,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let label = aggregate.param.as_ref().map_or("", Node::text).to_owned();
        if !aggregate.param.as_ref().is_some_and(Node::is_label_name) {
            return Err(QueryError::Execution(format!("invalid label name {}", quote(&label))));
        }
        let mut grouping = aggregate.grouping.clone();
        if !grouping.without {
            grouping.labels.push(label.clone());
        }
        let projection = projection(&grouping);
        let delayed = self.env.delayed_name_removal;
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut out: Vec<Series> = Vec::new();
        let mut text = String::new();
        self.stream(&aggregate.inner, steps, &mut |own, item| {
            // Neighbouring steps mostly have the same value.
            let mut last: Option<(u64, usize)> = None;
            for (step, value) in item.values.iter().enumerate() {
                if is_absent(*value) {
                    continue;
                }
                let place = match last {
                    Some((bits, place))
                        if bits == value.to_bits() && item.histograms.is_empty() =>
                    {
                        place
                    }
                    _ => {
                        text.clear();
                        let histogram = item.histogram(step);
                        let shown = histogram
                            .map_or_else(|| format_plain(*value), |one| histogram_text(one));
                        let _ = write!(text, "{shown}");
                        let mut builder = item.labels.to_builder();
                        builder.set(&label, &text);
                        let labels = projection.of(&builder.build(), item.drop_name && !delayed);
                        let place = *places.entry(labels.clone()).or_insert(out.len());
                        if place == out.len() {
                            own.hold(steps.count as u64)?;
                            let values = vec![absent(); steps.count];
                            out.push(Series::floats(labels, false, values));
                        }
                        last = Some((value.to_bits(), place));
                        place
                    }
                };
                let count = &mut out[place].values[step];
                *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
            }
            Ok(())
        })?;
        Ok(out)
    }
}
