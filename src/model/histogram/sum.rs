//! Sums of histograms, with what rounding loses beside each count.
//!
//! Buckets are kept by index here, without spans, so that two of them meet in one walk.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::kahan::Kahan;

use super::bounds::{coarser, in_spans, indexed, upper};
use super::{Histogram, ResetHint, Span};

/// Exponential and custom buckets cannot be brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("incompatible schemas of histograms")]
pub struct Incompatible;

/// What had to be done so that two histograms could be merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// One said that counting started again, the other that it did not.
    pub hints_collide: bool,
    /// Custom bounds differed; those that both have were kept.
    pub bounds_differ: bool,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    index: i32,
    count: Kahan,
}

/// A sum in the making.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    reset_hint: ResetHint,
    schema: i32,
    zero_threshold: f64,
    zero_count: Kahan,
    count: Kahan,
    sum: Kahan,
    /// Ascending indexes.
    positive: Vec<Cell>,
    negative: Vec<Cell>,
    /// Only of custom buckets.
    custom_bounds: Option<Arc<[f64]>>,
}

fn cells(spans: &[Span], counts: &[f64]) -> Vec<Cell> {
    indexed(spans, counts).map(|(index, count)| Cell { index, count: count.into() }).collect()
}

impl HistogramSum {
    /// A sum of one.
    pub fn of(histogram: &Histogram) -> Self {
        Self {
            reset_hint: histogram.reset_hint,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            zero_count: histogram.zero_count.into(),
            count: histogram.count.into(),
            sum: histogram.sum.into(),
            positive: cells(&histogram.positive_spans, &histogram.positive_buckets),
            negative: cells(&histogram.negative_spans, &histogram.negative_buckets),
            custom_bounds: histogram.has_custom_buckets().then(|| histogram.custom_bounds.clone()),
        }
    }

    /// Adds one more. Nothing changes when that is impossible.
    pub fn add(&mut self, other: &Histogram) -> Result<Merged, Incompatible> {
        self.merge(other, 1.0)
    }

    /// Takes one away.
    pub fn subtract(&mut self, other: &Histogram) -> Result<Merged, Incompatible> {
        self.merge(other, -1.0)
    }

    fn merge(&mut self, other: &Histogram, sign: f64) -> Result<Merged, Incompatible> {
        if self.custom_bounds.is_some() != other.has_custom_buckets() {
            return Err(Incompatible);
        }
        let hints_collide = self.merge_hint(other.reset_hint);
        let bounds_differ =
            self.custom_bounds.as_ref().is_some_and(|own| **own != *other.custom_bounds);
        let alike = self.schema == other.schema && self.zero_threshold == other.zero_threshold;
        self.count.add(sign * other.count);
        self.sum.add(sign * other.sum);
        if alike && !bounds_differ {
            self.zero_count.add(sign * other.zero_count);
            let counts = |(index, count): (i32, f64)| (index, Kahan::from(sign * count));
            add_cells(&mut self.positive, other.positive_counts().map(counts));
            add_cells(&mut self.negative, other.negative_counts().map(counts));
        } else {
            let mut other = Self::of(other);
            self.reconcile(&mut other);
            let counts = |cell: &Cell| (cell.index, cell.count.scaled(sign));
            self.zero_count.merge(other.zero_count.scaled(sign));
            add_cells(&mut self.positive, other.positive.iter().map(counts));
            add_cells(&mut self.negative, other.negative.iter().map(counts));
        }
        Ok(Merged { hints_collide, bounds_differ })
    }

    /// Merges what is known about resets; true when that contradicts itself.
    fn merge_hint(&mut self, other: ResetHint) -> bool {
        let (merged, collide) = match (self.reset_hint, other) {
            (own, other) if own == other => (own, false),
            (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => (ResetHint::Gauge, false),
            (ResetHint::Unknown, _) | (_, ResetHint::Unknown) => (ResetHint::Unknown, false),
            _ => (ResetHint::Unknown, true),
        };
        self.reset_hint = merged;
        collide
    }

    /// Brings both to the same zero bucket, schema and bounds.
    fn reconcile(&mut self, other: &mut Self) {
        if let (Some(own), Some(others)) = (&self.custom_bounds, &other.custom_bounds) {
            let common = common_bounds(own, others);
            self.rebound(&common);
            other.rebound(&common);
            return;
        }
        while let Some(order) = self.zero_threshold.partial_cmp(&other.zero_threshold) {
            match order {
                Ordering::Less => self.widen_zero_bucket(other.zero_threshold),
                Ordering::Greater => other.widen_zero_bucket(self.zero_threshold),
                Ordering::Equal => break,
            }
        }
        self.reduce(other.schema);
        other.reduce(self.schema);
    }

    /// Makes the zero bucket at least as wide as that, so that it cuts no populated bucket.
    pub(super) fn widen_zero_bucket(&mut self, threshold: f64) {
        let schema = self.schema;
        let mut threshold = threshold;
        loop {
            let cut = |cell: &&Cell| {
                cell.count.sum != 0.0
                    && upper(cell.index.wrapping_sub(1), schema, None) < threshold
                    && threshold < upper(cell.index, schema, None)
            };
            let Some(cell) = self.positive.iter().chain(&self.negative).find(cut) else { break };
            threshold = upper(cell.index, schema, None);
        }
        for side in [&mut self.positive, &mut self.negative] {
            let inside = |cell: &Cell| upper(cell.index.wrapping_sub(1), schema, None) < threshold;
            let count = side.partition_point(inside);
            side.drain(..count).for_each(|cell| self.zero_count.merge(cell.count));
        }
        self.zero_threshold = threshold;
    }

    /// Merges buckets to those of a coarser schema; nothing happens when it is not coarser.
    pub(super) fn reduce(&mut self, schema: i32) {
        if self.custom_bounds.is_some() || self.schema <= schema {
            return;
        }
        let steps = self.schema.abs_diff(schema);
        for side in [&mut self.positive, &mut self.negative] {
            for cell in side.iter_mut() {
                cell.index = coarser(cell.index, steps);
            }
            merge_neighbours(side);
        }
        self.schema = schema;
    }

    /// Merges custom buckets to those of fewer bounds.
    fn rebound(&mut self, common: &Arc<[f64]>) {
        let Some(own) = self.custom_bounds.replace(Arc::clone(common)) else { return };
        for cell in &mut self.positive {
            let bound = upper(cell.index, 0, Some(&own));
            cell.index = common.partition_point(|candidate| *candidate < bound) as i32;
        }
        merge_neighbours(&mut self.positive);
    }

    /// Multiplies everything.
    pub fn scale(&mut self, by: f64) {
        self.each(|value| *value = value.scaled(by));
    }

    /// Divides everything.
    pub fn divide(&mut self, by: f64) {
        self.each(|value| *value = value.divided(by));
    }

    fn each(&mut self, change: impl FnMut(&mut Kahan)) {
        let buckets =
            self.positive.iter_mut().chain(&mut self.negative).map(|cell| &mut cell.count);
        buckets.chain([&mut self.zero_count, &mut self.count, &mut self.sum]).for_each(change);
    }

    /// Whether anything is infinite.
    pub fn has_overflow(&self) -> bool {
        let mut values = [self.zero_count, self.count, self.sum].into_iter();
        let mut cells = self.positive.iter().chain(&self.negative);
        values.any(|value| value.sum.is_infinite())
            || cells.any(|cell| cell.count.sum.is_infinite())
    }

    /// The sum with what rounding lost.
    pub fn total(&self) -> Histogram {
        self.finished(Kahan::total)
    }

    /// The sum as plain additions round it.
    pub(super) fn rounded(&self) -> Histogram {
        self.finished(|value| value.sum)
    }

    fn finished(&self, value: impl Fn(Kahan) -> f64) -> Histogram {
        let counts = |cell: &Cell| (cell.index, value(cell.count));
        let kept = |(_, count): &(i32, f64)| *count != 0.0;
        let side = |cells: &[Cell]| in_spans(cells.iter().map(counts).filter(kept));
        let (positive_spans, positive_buckets) = side(&self.positive);
        let (negative_spans, negative_buckets) = side(&self.negative);
        Histogram {
            reset_hint: self.reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: value(self.zero_count),
            count: value(self.count),
            sum: value(self.sum),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_bounds: self.custom_bounds.clone().unwrap_or_default(),
        }
    }
}

/// Adds counts in order of index.
fn add_cells(own: &mut Vec<Cell>, other: impl Iterator<Item = (i32, Kahan)>) {
    let mut at = 0;
    let mut new: Vec<Cell> = Vec::new();
    for (index, count) in other {
        at += own[at..].partition_point(|cell| cell.index < index);
        match own.get_mut(at) {
            Some(cell) if cell.index == index => cell.count.merge(count),
            _ => new.push(Cell { index, count }),
        }
    }
    if !new.is_empty() {
        own.extend(new);
        // Two ascending runs: the sort merges them.
        own.sort_by_key(|cell| cell.index);
    }
}

fn merge_neighbours(cells: &mut Vec<Cell>) {
    cells.dedup_by(|next, last| {
        let same = next.index == last.index;
        if same {
            last.count.merge(next.count);
        }
        same
    });
}

/// The bounds that both have.
pub(super) fn common_bounds(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    let mut rest = b;
    let mut is_common = |bound: &&f64| {
        rest = &rest[rest.partition_point(|other| other < *bound)..];
        rest.first() == Some(*bound)
    };
    let common: Vec<f64> = a.iter().filter(|bound| is_common(bound)).copied().collect();
    common.into()
}

/// A mean in the making: of the sum as long as that does not overflow, from then on incremental.
#[derive(Clone, Debug)]
pub struct HistogramMean {
    /// The sum, or the mean so far.
    value: HistogramSum,
    count: f64,
    incremental: bool,
}

impl HistogramMean {
    /// The mean of one.
    pub fn of(histogram: &Histogram) -> Self {
        Self { value: HistogramSum::of(histogram), count: 1.0, incremental: false }
    }

    /// Takes in one more.
    pub fn add(&mut self, other: &Histogram) -> Result<Merged, Incompatible> {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.value.clone();
            let merged = next.add(other)?;
            if !next.has_overflow() {
                self.value = next;
                return Ok(merged);
            }
            self.incremental = true;
            self.value.divide(self.count - 1.0);
        }
        self.value.scale((self.count - 1.0) / self.count);
        self.value.add(&other.divided(self.count))
    }

    /// The mean.
    pub fn finish(mut self) -> Histogram {
        if !self.incremental {
            self.value.divide(self.count);
        }
        self.value.total()
    }
}
