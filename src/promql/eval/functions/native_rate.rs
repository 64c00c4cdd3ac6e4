//! What native histograms do within a range: rate, increase, delta and their kin.

use crate::model::histogram::{Histogram, Incompatible, Merged, ResetHint};
use crate::promql::ast::Boundary;

use super::super::annotations::{Operation, RangeNotice};
use super::super::series::Sample;
use super::native::{MixedWindow, Point, notice};
use super::over_range::RangeFunction;
use super::rate::Reach;

type Notices = Vec<RangeNotice>;

/// The result of an operation; `None`, with a notice, when buckets are of different kinds.
fn merged<E>(
    result: Result<(Histogram, Merged), E>,
    operation: Operation,
    notices: &mut Notices,
) -> Option<Histogram> {
    let Ok((histogram, merged)) = result else {
        notice(notices, RangeNotice::MixedSchemas);
        return None;
    };
    if merged.bounds_differ {
        notice(notices, RangeNotice::BoundsDiffer(operation));
    }
    Some(histogram)
}

fn plus(a: &Histogram, b: &Histogram, notices: &mut Notices) -> Option<Histogram> {
    merged(a.add(b), Operation::Addition, notices)
}

fn minus(a: &Histogram, b: &Histogram, notices: &mut Notices) -> Option<Histogram> {
    merged(a.subtract(b), Operation::Subtraction, notices)
}

/// Like `change`, but what was noticed before a failure is forgotten.
fn alone<T>(
    notices: &mut Notices,
    change: impl FnOnce(&mut Notices) -> Result<T, RangeNotice>,
) -> Option<T> {
    let mut own = Notices::new();
    let result = change(&mut own).map_err(|failure| own = vec![failure]).ok();
    for one in own {
        notice(notices, one);
    }
    result
}

/// `rate`, `increase` and `delta`, extrapolated to the borders of the range.
pub(super) fn extrapolated(
    window: &MixedWindow<'_>,
    function: RangeFunction,
    notices: &mut Notices,
) -> Option<Histogram> {
    let points = window.histograms;
    let counter = function != RangeFunction::Delta;
    let (first, last) = (points.first()?, points.last()?);
    let origin_ms = window.histogram_stamp(0).origin_after(window.start_ms);
    let origin_ms = origin_ms.filter(|_| counter);
    let mut total = Histogram::clone(&first.1);
    if 1 < points.len() {
        total = alone(notices, |own| change(window, counter, own))?;
        if origin_ms.is_some() {
            total = plus(&total, &first.1, notices)?;
        }
    } else if origin_ms.is_none() {
        return None;
    }
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1000.0;
    let reach = Reach {
        to_start: seconds(window.start_ms, first.0),
        to_end: seconds(last.0, window.end_ms),
        sampled: seconds(first.0, last.0),
        gaps: points.len() - 1,
        since_origin: origin_ms.map(|origin_ms| seconds(origin_ms, last.0)),
    };
    let mut factor = reach.factor(counter, first.1.count, total.count);
    if function == RangeFunction::Rate {
        factor /= seconds(window.start_ms, window.end_ms);
    }
    Some(total.scaled(factor))
}

/// What was added between the first and the last of at least two samples.
fn change(
    window: &MixedWindow<'_>,
    counter: bool,
    notices: &mut Notices,
) -> Result<Histogram, RangeNotice> {
    let points = window.histograms;
    let last = &points[points.len() - 1].1;
    let stamp = |at| window.histogram_stamp(at);
    let mut before: &Histogram = &points[0].1;
    let gauge = |one: &Histogram| one.reset_hint == ResetHint::Gauge;
    if counter && points.iter().any(|point| gauge(&point.1)) {
        notice(notices, RangeNotice::NotCounter);
    }
    if !(counter || gauge(before) && gauge(last)) {
        notice(notices, RangeNotice::NotGauge);
    }
    // After a reset the first sample does not count, whatever its buckets are.
    let nothing;
    let restarts = |at: usize| stamp(at).restarts_after(stamp(at - 1));
    if counter && (restarts(1) || points[1].1.is_reset_since(before)) {
        let second = &points[1].1;
        let custom_bounds = second.custom_bounds.clone();
        nothing = Histogram { schema: second.schema, custom_bounds, ..Histogram::default() };
        before = &nothing;
    }
    let custom = before.has_custom_buckets();
    let inner = if counter { &points[1..] } else { &points[points.len() - 1..] };
    if inner.iter().any(|point| point.1.has_custom_buckets() != custom) {
        return Err(RangeNotice::MixedSchemas);
    }
    let schemas = inner.iter().map(|point| point.1.schema).chain([before.schema]);
    let schema = schemas.min().unwrap_or(last.schema);
    let failed = RangeNotice::MixedSchemas;
    let mut change = minus(&last.reduced(schema), before, notices).ok_or(failed)?;
    if counter {
        if (1..points.len()).any(|at| stamp(at).overlaps(stamp(at - 1))) {
            notice(notices, RangeNotice::StartsOverlap);
        }
        for (at, point) in points.iter().enumerate().skip(1) {
            if restarts(at) || point.1.is_reset_since(before) {
                change = plus(&change, before, notices).ok_or(failed)?;
            }
            before = &point.1;
        }
    }
    change.reset_hint = ResetHint::Gauge;
    Ok(change.compacted())
}

/// `irate` and `idelta`: between the last two samples, whatever they are.
pub(super) fn last_two(
    window: &MixedWindow<'_>,
    function: RangeFunction,
    notices: &mut Notices,
) -> Sample {
    let is_rate = function == RangeFunction::Irate;
    let samples = window.samples();
    let [.., (earlier, before), (later, last)] = samples.as_slice() else {
        return Sample::Absent;
    };
    let seconds = (later.at_ms - earlier.at_ms) as f64 / 1000.0;
    let restarts = later.restarts_after(*earlier);
    let (before, last) = match (before, last) {
        (Sample::Float(before), Sample::Float(last)) => {
            let reset = is_rate && (last < before || restarts);
            let change = if reset { *last } else { last - before };
            return Sample::Float(if is_rate { change / seconds } else { change });
        }
        (Sample::Histogram(before), Sample::Histogram(last)) => (before, last),
        _ => {
            notice(notices, RangeNotice::MixedTypes);
            return Sample::Absent;
        }
    };
    let gauges = [before, last].map(|one| one.reset_hint == ResetHint::Gauge);
    if is_rate && gauges.contains(&true) {
        notice(notices, RangeNotice::NotCounter);
    }
    if !is_rate && gauges.contains(&false) {
        notice(notices, RangeNotice::NotGauge);
    }
    let mut change = if is_rate && (restarts || last.is_reset_since(before)) {
        Histogram::clone(last)
    } else {
        let Some(change) = minus(last, before, notices) else { return Sample::Absent };
        change
    };
    change.reset_hint = ResetHint::Gauge;
    let change = change.compacted();
    Sample::Histogram(if is_rate { change.divided(seconds) } else { change }.into())
}

/// The histogram at `now_ms` on the line through two samples; a counter that was reset started
/// from nothing.
pub(in super::super) fn on_line(
    before: (i64, &Histogram),
    after: (i64, &Histogram),
    now_ms: i64,
    counter: bool,
    notices: &mut Notices,
) -> Option<Histogram> {
    if now_ms == before.0 {
        return Some(before.1.clone());
    }
    if now_ms == after.0 {
        return Some(after.1.clone());
    }
    let share = (now_ms - before.0) as f64 / (after.0 - before.0) as f64;
    if counter && after.1.is_reset_since(before.1) {
        return Some(after.1.scaled(share));
    }
    let change = minus(after.1, before.1, notices)?;
    plus(&change.scaled(share), before.1, notices)
}

/// `anchored` and `smoothed`: histograms at the very borders of the range, no extrapolation.
pub(super) fn extended(
    window: &MixedWindow<'_>,
    function: RangeFunction,
    notices: &mut Notices,
) -> Option<Histogram> {
    let points = window.histograms;
    let counter = function != RangeFunction::Delta;
    let smoothed = window.boundary == Boundary::Smoothed;
    let (start_ms, end_ms) = (window.start_ms, window.end_ms);
    let mut last = points.len().checked_sub(1)?;
    let first = points[..last].partition_point(|point| point.0 <= start_ms).saturating_sub(1);
    if smoothed {
        last = points[..last].partition_point(|point| point.0 < end_ms);
    }
    if points[last].0 <= start_ms || smoothed && end_ms < points[first].0 {
        return None;
    }
    let inside = points.get(first..=last)?;
    let custom = inside[0].1.has_custom_buckets();
    if inside.iter().any(|point| point.1.has_custom_buckets() != custom) {
        notice(notices, RangeNotice::MixedSchemas);
        return None;
    }
    let gauge = |one: &Histogram| one.reset_hint == ResetHint::Gauge;
    if counter && inside.iter().any(|point| gauge(&point.1)) {
        notice(notices, RangeNotice::NotCounter);
    }
    let point = |at: usize| (points[at].0, &*points[at].1);
    let left = if smoothed && points[first].0 < start_ms {
        on_line(point(first), point(first + 1), start_ms, counter, notices)?
    } else {
        point(first).1.clone()
    };
    let right = if smoothed && 0 < last && end_ms < points[last].0 {
        on_line(point(last - 1), point(last), end_ms, counter, notices)?
    } else {
        point(last).1.clone()
    };
    if !(counter || gauge(&left) && gauge(&right)) {
        notice(notices, RangeNotice::NotGauge);
    }
    let mut change = minus(&right, &left, notices)?;
    if counter {
        let is_interpolated = smoothed && points[first].0 < start_ms;
        if let Some(lost) =
            lost_in_resets(inside, (&left, &right), is_interpolated, notices).ok()?
        {
            change = plus(&change, &lost, notices)?;
        }
    }
    if function == RangeFunction::Rate {
        change = change.divided((end_ms - start_ms) as f64 / 1000.0);
    }
    change.reset_hint = ResetHint::Gauge;
    Some(change.compacted())
}

/// The sum of what resets between the borders wiped out; an error when histograms do not fit
/// together. The last sample is left out: the right border stands for it.
fn lost_in_resets(
    inside: &[Point],
    (left, right): (&Histogram, &Histogram),
    is_interpolated: bool,
    notices: &mut Notices,
) -> Result<Option<Histogram>, Incompatible> {
    let (mut before, mut next) = (left, 1);
    if is_interpolated && inside.get(1).is_some_and(|one| one.1.is_reset_since(&inside[0].1)) {
        // The interpolation has taken this reset into account.
        before = &inside[1].1;
        next = 2;
    }
    if inside.len() <= next {
        return Ok(None);
    }
    let between = inside.get(next..inside.len() - 1).unwrap_or_default();
    let mut lost: Option<Histogram> = None;
    for one in between.iter().map(|point| &*point.1).chain([right]) {
        if one.is_reset_since(before) {
            lost = Some(match &lost {
                None => before.clone(),
                Some(lost) => plus(lost, before, notices).ok_or(Incompatible)?,
            });
        }
        before = one;
    }
    Ok(lost)
}
