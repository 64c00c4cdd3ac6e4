//! `topk`, `bottomk`, `limitk`, `limit_ratio`: some series of each group, as they are.

use std::cmp::Ordering;

use crate::model::labels::Labels;
use crate::promql::ast::{AggregateOp, Span};
use crate::promql::engine::QueryError;

use super::super::duration::{go_max, go_min};
use super::super::format::general;
use super::super::labels::{Groups, merge_equal};
use super::super::plan::Aggregate;
use super::super::{Evaluator, Series, Steps, absent, is_absent};
use super::projection;

/// A value and the series it belongs to.
type Entry = (f64, usize);

impl Evaluator<'_> {
    pub(super) fn choose(
        &mut self,
        whole: Span,
        aggregate: &Aggregate,
        steps: Steps,
    ) -> Result<Vec<Series>, QueryError> {
        let params = self.param(aggregate, steps)?;
        let series = self.vector(&aggregate.inner, steps)?;
        let span = aggregate.param.as_ref().map_or_else(Span::default, |param| param.span);
        if !self.is_anything_wanted(aggregate.op, &params, span)? {
            return Ok(Vec::new());
        }
        let projection = projection(&aggregate.grouping);
        let mut groups = Groups::default();
        let members: Vec<usize> =
            series.iter().map(|one| groups.of(&projection, one.labels.iter(), false).0).collect();
        let offsets: Vec<f64> = match aggregate.op {
            AggregateOp::LimitRatio => series.iter().map(|one| offset(&one.labels)).collect(),
            _ => Vec::new(),
        };
        let mut kept: Vec<Vec<f64>> = vec![Vec::new(); series.len()];
        let mut order: Vec<usize> = Vec::new();
        let mut chosen: Vec<Vec<Entry>> = vec![Vec::new(); groups.len()];
        for (step, param) in params.iter().enumerate() {
            if step % 64 == 0 {
                self.check()?;
            }
            chosen.iter_mut().for_each(Vec::clear);
            let choice = Choice::new(aggregate.op, *param, series.len());
            for (at, one) in
                series.iter().enumerate().filter(|(_, one)| !is_absent(one.values[step]))
            {
                if let Some(name) = choice.floats_only()
                    && one.histogram(step).is_some()
                {
                    self.notes.ignored_in_aggregation(name, whole);
                    continue;
                }
                let offset = offsets.get(at).copied().unwrap_or_default();
                choice.offer(&mut chosen[members[at]], (one.values[step], at), offset);
            }
            for group in &mut chosen {
                choice.finish(group);
                for (value, at) in group.iter() {
                    if kept[*at].is_empty() {
                        self.take_column::<f64>(steps)?;
                        kept[*at] = vec![absent(); steps.count];
                        order.push(*at);
                    }
                    kept[*at][step] = *value;
                }
            }
        }
        let take = |at: usize| Series {
            labels: series[at].labels.clone(),
            drop_name: series[at].drop_name,
            values: std::mem::take(&mut kept[at]),
            histograms: series[at].histograms.clone(),
        };
        merge_equal(order.into_iter().map(take).collect())
    }

    /// Checks the parameter over all steps; false when no step can choose anything.
    fn is_anything_wanted(
        &mut self,
        op: AggregateOp,
        params: &[f64],
        span: Span,
    ) -> Result<bool, QueryError> {
        let max = params.iter().copied().fold(f64::NEG_INFINITY, go_max);
        let min = params.iter().copied().fold(f64::INFINITY, go_min);
        let any_nan = params.iter().any(|param| param.is_nan());
        let fail = |text: String| Err(QueryError::Execution(text));
        if op == AggregateOp::LimitRatio {
            if max == 0.0 && min == 0.0 {
                return Ok(false);
            }
            if any_nan {
                return fail("Ratio value is NaN".to_owned());
            }
            if 1.0 < max {
                self.notes.invalid_ratio(max, 1.0, span);
            }
            if min < -1.0 {
                self.notes.invalid_ratio(min, -1.0, span);
            }
            return Ok(true);
        }
        if max < 1.0 {
            return Ok(false);
        }
        if any_nan {
            return fail("Parameter value is NaN".to_owned());
        }
        if min <= i64::MIN as f64 {
            return fail(format!("Scalar value {} underflows int64", general(min)));
        }
        if i64::MAX as f64 <= max {
            return fail(format!("Scalar value {} overflows int64", general(max)));
        }
        Ok(true)
    }
}

/// The choice at one step.
enum Choice {
    /// The greatest.
    Top(usize),
    /// The least.
    Bottom(usize),
    /// The first.
    Limit(usize),
    /// Those whose labels hash below this, or from one plus this on.
    Ratio(f64),
}

impl Choice {
    fn new(op: AggregateOp, param: f64, series_count: usize) -> Self {
        let count = (param as i64).clamp(0, series_count as i64) as usize;
        match op {
            AggregateOp::TopK => Self::Top(count),
            AggregateOp::BottomK => Self::Bottom(count),
            AggregateOp::LimitK => Self::Limit(count),
            _ => Self::Ratio(param.clamp(-1.0, 1.0)),
        }
    }

    /// The name of a choice that looks at values, unless it chooses nothing anyway.
    fn floats_only(&self) -> Option<&'static str> {
        match self {
            Self::Top(1..) => Some("topk"),
            Self::Bottom(1..) => Some("bottomk"),
            _ => None,
        }
    }

    /// Whether `a` is to leave before `b`; NaN leaves first.
    fn is_worse(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if matches!(self, Self::Bottom(_)) { a > b } else { a < b }
    }

    fn offer(&self, chosen: &mut Vec<Entry>, entry: Entry, offset: f64) {
        match self {
            Self::Top(count) | Self::Bottom(count) => {
                if chosen.len() < *count {
                    chosen.push(entry);
                    self.sift_up(chosen);
                } else if let Some(worst) = chosen.first_mut().filter(|worst| {
                    self.is_worse(worst.0, entry.0) && !(worst.0.is_nan() && entry.0.is_nan())
                }) {
                    *worst = entry;
                    self.sift_down(chosen);
                }
            }
            Self::Limit(count) => {
                if chosen.len() < *count {
                    chosen.push(entry);
                }
            }
            Self::Ratio(ratio) => {
                let below = 0.0 <= *ratio && offset < *ratio;
                if below || *ratio < 0.0 && 1.0 + *ratio <= offset {
                    chosen.push(entry);
                }
            }
        }
    }

    /// Restores the heap, the worst on top, after a push.
    fn sift_up(&self, heap: &mut [Entry]) {
        let mut at = heap.len() - 1;
        while 0 < at {
            let parent = (at - 1) / 2;
            if !self.is_worse(heap[at].0, heap[parent].0) {
                return;
            }
            heap.swap(at, parent);
            at = parent;
        }
    }

    /// Restores the heap after its top was replaced.
    fn sift_down(&self, heap: &mut [Entry]) {
        let mut at = 0;
        while 2 * at + 1 < heap.len() {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let right_is_worse = right < heap.len() && self.is_worse(heap[right].0, heap[left].0);
            let child = if right_is_worse { right } else { left };
            if !self.is_worse(heap[child].0, heap[at].0) {
                return;
            }
            heap.swap(at, child);
            at = child;
        }
    }

    /// Puts the best first.
    fn finish(&self, chosen: &mut [Entry]) {
        let better_first = |a: &Entry, b: &Entry| match (a.0.is_nan(), b.0.is_nan()) {
            (false, false) if matches!(self, Self::Bottom(_)) => a.0.partial_cmp(&b.0),
            (false, false) => b.0.partial_cmp(&a.0),
            (a, b) => Some(a.cmp(&b)),
        };
        if matches!(self, Self::Top(_) | Self::Bottom(_)) {
            chosen.sort_by(|a, b| better_first(a, b).unwrap_or(Ordering::Equal));
        }
    }
}

/// Where a label set lies between 0 and 1: xxHash64 of names and values, each with its length
/// before it, as in Prometheus, so that both choose the same series.
fn offset(labels: &Labels) -> f64 {
    let mut bytes = Vec::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        if text.len() < 255 {
            bytes.push(text.len() as u8);
        } else {
            bytes.push(255);
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxhash_rust::xxh64::xxh64(&bytes, 0) as f64 / u64::MAX as f64
}
