//! Aggregations: many series to one for each group, or a choice among the series of a group.
//!
//! Folds take series as they are streamed and hold one cell for each group and step.

mod assigned;
mod choose;
mod fold;
mod native;

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use foldhash::{HashMap, HashMapExt as _};

use crate::model::float::format_plain;
use crate::model::labels::{Labels, quote};
use crate::promql::ast::{AggregateOp, Grouping, Span};
use crate::promql::engine::QueryError;
use crate::storage::select::Selection;

use super::functions::numeric::quantile;
use super::labels::{Groups, Projection};
use super::plan::{Aggregate, Node};
use super::{Collect, Evaluator, Item, Series, Steps, absent, is_absent};
use assigned::{Assigned, InBlock};
use fold::{Average, Cells, Count, Group, Max, Min, OnHistogram, Stddev, Stdvar, Sums};
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
    /// Groups that are known already, in a block of a selection.
    assigned: Option<InBlock>,
}

impl Grouped {
    fn new(grouping: &Grouping, delayed: bool) -> Self {
        Self {
            projection: projection(grouping),
            groups: Groups::default(),
            labels: Vec::new(),
            drop_name: Vec::new(),
            delayed,
            assigned: None,
        }
    }

    /// The group that a group of the same grouping belongs to.
    fn absorb(&mut self, other: &Self, group: usize) -> usize {
        if let (Some(own), Some(theirs)) = (&mut self.assigned, &other.assigned) {
            let whole = theirs.whole[group];
            let (into, new) = own.merged_into(whole);
            if new {
                self.labels.push(other.labels[group].clone());
                self.drop_name.push(false);
            }
            self.drop_name[into] |= other.drop_name[group];
            return into;
        }
        let labels = &other.labels[group];
        let (into, new) = self.groups.of(&self.projection, labels.iter(), false);
        if new {
            self.labels.push(labels.clone());
            self.drop_name.push(false);
        }
        self.drop_name[into] |= other.drop_name[group];
        into
    }

    /// The group of a series of the block for which the groups were assigned.
    fn of_position(&mut self, position: u32, drop_name: bool) -> Option<usize> {
        let assigned = self.assigned.as_mut()?;
        let (group, new) = assigned.of(position)?;
        if new {
            let whole = assigned.whole[group] as usize;
            self.labels.push(assigned.all.labels[whole].clone());
            self.drop_name.push(false);
        }
        self.drop_name[group] |= drop_name && self.delayed;
        Some(group)
    }

    fn of(&mut self, labels: &Labels, drop_name: bool) -> usize {
        let drop_now = drop_name && !self.delayed;
        let (group, new) = self.groups.of(&self.projection, labels.iter(), drop_now);
        if new {
            self.labels.push(self.projection.of(labels.iter(), drop_now));
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

/// Folds series into one for each group.
struct Folding<'f, C> {
    grouping: &'f Grouping,
    delayed: bool,
    steps: Steps,
    span: Span,
    /// Whether names are dropped before series are grouped.
    drop_now: bool,
    /// The groups of the selected series, once these are known.
    assigned: OnceLock<Arc<Assigned>>,
    cells: PhantomData<fn() -> C>,
}

/// Series that were folded.
struct Folded<C> {
    grouped: Grouped,
    cells: C,
    natives: Natives,
}

impl<C: Cells> Folded<C> {
    /// Takes in what was folded after this.
    fn merge(
        &mut self,
        other: &Self,
        steps: Steps,
        own: &mut Evaluator<'_>,
    ) -> Result<(), QueryError> {
        for group in 0..other.grouped.labels.len() {
            let into = self.grouped.absorb(&other.grouped, group);
            let wanted = self.grouped.labels.len() * steps.count;
            if self.cells.len() < wanted {
                own.hold(steps.count as u64)?;
                own.take_bytes(steps.count * C::BYTES, "groups of an aggregation")?;
                self.cells.grow(wanted);
            }
            let (place, from) = (into * steps.count, group * steps.count);
            self.cells.merge(place, &other.cells, from, steps.count);
        }
        Ok(())
    }
}

impl<C: Cells> Collect for Folding<'_, C> {
    type Part = Folded<C>;

    fn begin(&self, selection: &Selection) -> Result<usize, QueryError> {
        let make = || Assigned::new(selection, &projection(self.grouping), self.drop_now);
        let Grouping { labels, without, .. } = self.grouping;
        let key = format!("{without} {} {labels:?}", self.drop_now);
        let assigned = selection.memo().get(&key, Assigned::is_small, make)?;
        let bytes = assigned.bytes();
        let _ = self.assigned.set(assigned);
        Ok(bytes)
    }

    fn empty(&self) -> Folded<C> {
        Folded {
            grouped: Grouped::new(self.grouping, self.delayed),
            cells: C::default(),
            natives: Natives::new(C::ON_HISTOGRAM == OnHistogram::Mean),
        }
    }

    fn add(
        &self,
        part: &mut Folded<C>,
        own: &mut Evaluator<'_>,
        mut item: Item<'_>,
    ) -> Result<(), QueryError> {
        let group = self.group(part, own, &item)?;
        if let OnHistogram::Ignore(name) = C::ON_HISTOGRAM
            && item.drop_histograms()
        {
            own.notes.ignored_in_aggregation(name, self.span);
        }
        let wanted = part.grouped.labels.len() * self.steps.count;
        if part.cells.len() < wanted {
            own.hold(self.steps.count as u64)?;
            own.take_bytes(self.steps.count * C::BYTES, "groups of an aggregation")?;
            part.cells.grow(wanted);
        }
        let place = group * self.steps.count;
        let merges = matches!(C::ON_HISTOGRAM, OnHistogram::Sum | OnHistogram::Mean);
        if merges && (!item.histograms.is_empty() || !part.natives.is_empty()) {
            let Folded { cells, natives, .. } = part;
            return own.fold_histograms(&item, cells, natives, place, self.span);
        }
        part.cells.add(place, item.values);
        Ok(())
    }
}

impl<C: Cells> Folding<'_, C> {
    /// The group of a series: by its position where that is known to decide.
    fn group(
        &self,
        part: &mut Folded<C>,
        own: &Evaluator<'_>,
        item: &Item<'_>,
    ) -> Result<usize, QueryError> {
        let known = self.assigned.get().zip(own.block());
        if let Some((all, block)) = known {
            debug_assert_eq!(item.drop_name && !self.delayed, self.drop_now);
            if part.grouped.assigned.is_none() {
                part.grouped.assigned = Some(InBlock::new(Arc::clone(all), block));
            }
            if let Some(group) = part.grouped.of_position(item.position, item.drop_name) {
                return Ok(group);
            }
        }
        Ok(part.grouped.of(item.labels.get()?, item.drop_name))
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
            AggregateOp::Sum => self.fold::<Sums>(grouping, inner, steps),
            AggregateOp::Avg => self.fold::<Vec<Average>>(grouping, inner, steps),
            AggregateOp::Count => self.fold::<Vec<Count>>(grouping, inner, steps),
            AggregateOp::Min => self.fold::<Vec<Min>>(grouping, inner, steps),
            AggregateOp::Max => self.fold::<Vec<Max>>(grouping, inner, steps),
            AggregateOp::Group => self.fold::<Vec<Group>>(grouping, inner, steps),
            AggregateOp::Stddev => self.fold::<Vec<Stddev>>(grouping, inner, steps),
            AggregateOp::Stdvar => self.fold::<Vec<Stdvar>>(grouping, inner, steps),
            AggregateOp::CountValues => self.count_values(aggregate, steps),
            AggregateOp::Quantile => self.quantile(aggregate, steps),
            AggregateOp::TopK
            | AggregateOp::BottomK
            | AggregateOp::LimitK
            | AggregateOp::LimitRatio => self.choose(span, aggregate, steps),
        }
    }

    fn fold<C: Cells>(
        &mut self,
        grouping: &Grouping,
        inner: &Node,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let delayed = self.env.delayed_name_removal;
        let folding = Folding::<C> {
            grouping,
            delayed,
            steps,
            span: inner.span,
            drop_now: !delayed && super::functions::drops_names(inner),
            assigned: OnceLock::new(),
            cells: PhantomData,
        };
        let mut folded: Option<Folded<C>> = None;
        if self.is_streamed(inner) {
            let before = self.samples;
            let mut has_natives = false;
            let split = self.each_block(inner, steps, &folding, &mut |own, part| {
                let Some(total) = &mut folded else {
                    own.hold(part.cells.len() as u64)?;
                    folded = Some(part);
                    return Ok(());
                };
                has_natives = !total.natives.is_empty() || !part.natives.is_empty();
                if has_natives {
                    // Their sums are not merged, so they are taken one after the other after all.
                    return Err(super::too_many_samples());
                }
                total.merge(&part, steps, own)
            });
            if has_natives {
                self.samples = before;
                folded = None;
            } else {
                split?;
            }
        }
        let mut folded = match folded {
            Some(folded) => folded,
            None => {
                let mut folded = folding.empty();
                self.stream(inner, steps, &mut |own, item| folding.add(&mut folded, own, item))?;
                folded
            }
        };
        let cells = std::mem::take(&mut folded.cells);
        let finish = |(group, labels): (usize, Labels)| {
            let places = group * steps.count..(group + 1) * steps.count;
            let values = places.map(|place| cells.finish(place)).collect();
            Series::floats(labels, folded.grouped.drop_name[group], values)
        };
        let labels = std::mem::take(&mut folded.grouped.labels);
        let mut out: Vec<_> = labels.into_iter().enumerate().map(finish).collect();
        folded.natives.finish(&mut out, steps.count, inner.span, &mut self.notes);
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
            let group = grouped.of(item.labels.get()?, item.drop_name);
            columns.resize_with(grouped.labels.len(), Vec::new);
            own.hold(steps.count as u64)?;
            own.take_bytes(size_of_val(&*item.values), "values of a quantile")?;
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
                        let shown =
                            histogram.map_or_else(|| format_plain(*value), ToString::to_string);
                        let _ = write!(text, "{shown}");
                        let mut builder = item.labels.get()?.to_builder();
                        builder.set(&label, &text);
                        let labels = projection.of(builder.iter(), item.drop_name && !delayed);
                        let place = *places.entry(labels.clone()).or_insert(out.len());
                        if place == out.len() {
                            own.hold(steps.count as u64)?;
                            let values = vec![absent(); steps.count];
                            own.take_bytes(size_of_val(&*values), "counted values")?;
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
