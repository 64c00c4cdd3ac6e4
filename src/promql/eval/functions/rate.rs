//! What counters and gauges do within a range: rate, increase, delta and their kin.

use std::cmp::Ordering;

use crate::promql::ast::Boundary;

use super::super::absent;
use super::super::kernels::settled;
use super::super::range::on_line;
use super::extrapolate;
use super::over_range::{RangeFunction, Window, Windowed};

/// `rate`, `increase` and `delta`: the change between the first and the last sample, extrapolated
/// to the borders of the range where samples come close to them.
pub(super) fn extrapolated(series: &Windowed<'_>, function: RangeFunction, out: &mut [f64]) {
    if series.starts_ms.is_empty() {
        return extrapolate::all(series, function, out);
    }
    let counter = function != RangeFunction::Delta;
    let resets = if counter { resets_of(series) } else { Vec::new() };
    let mut past = 0;
    for (step, out) in out.iter_mut().enumerate() {
        let (first, end) = series.bounds(step);
        let origin_ms = if counter && first < end { origin_of(series, step) } else { None };
        if end < first + 2 && origin_ms.is_none() {
            *out = absent();
            continue;
        }
        let mut change = series.values[end - 1] - series.values[first];
        while past < resets.len() && resets[past] as usize <= first {
            past += 1;
        }
        // In the order of the samples, so that the sum rounds as it always did.
        for reset in resets[past..].iter().take_while(|reset| (**reset as usize) < end) {
            change += series.values[*reset as usize - 1];
        }
        if origin_ms.is_some() {
            change += series.values[first];
        }
        let factor = extrapolation(series, step, counter, (change, origin_ms));
        let factor =
            if function == RangeFunction::Rate { factor / range_seconds(series) } else { factor };
        *out = change * factor;
    }
}

pub(super) fn range_seconds(series: &Windowed<'_>) -> f64 {
    series.frame.range_ms as f64 / 1000.0
}

/// Positions of samples before which counting started again.
fn resets_of(series: &Windowed<'_>) -> Vec<u32> {
    let positions = 1..series.values.len();
    positions.filter(|at| is_reset(series, *at)).map(|at| at as u32).collect()
}

/// Whether counting started again between a sample and the one before it.
pub(super) fn is_reset(series: &Windowed<'_>, at: usize) -> bool {
    series.values[at] < series.values[at - 1]
        || !series.starts_ms.is_empty() && series.stamp(at).restarts_after(series.stamp(at - 1))
}

/// When a sample was taken, and when its counting started: 0 where that is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    pub(super) start_ms: i64,
    pub(super) at_ms: i64,
}

impl Stamp {
    /// Whether the start lies between both samples. A start that is not before its own sample says
    /// nothing. One at the sample before is a delta's, unless that sample's own start is not known.
    pub(super) fn restarts_after(self, before: Self) -> bool {
        if self.start_ms == 0 || self.at_ms <= self.start_ms {
            return false;
        }
        match self.start_ms.cmp(&before.at_ms) {
            Ordering::Less => false,
            Ordering::Equal => before.start_ms != 0 && before.start_ms < before.at_ms,
            Ordering::Greater => true,
        }
    }

    /// Whether counting is said to have started before the sample before, but not with that one.
    pub(super) fn overlaps(self, before: Self) -> bool {
        self.start_ms != 0 && self.start_ms < before.at_ms && self.start_ms != before.start_ms
    }
}

impl Windowed<'_> {
    fn stamp(&self, at: usize) -> Stamp {
        let start_ms = self.starts_ms.get(at).copied().unwrap_or_default();
        Stamp { start_ms, at_ms: self.timestamps_ms[at] }
    }

    /// Of the windows that count, those with a sample that overlaps the one before it.
    pub(in super::super) fn overlapping(
        &self,
        function: RangeFunction,
        counts: impl Fn(usize) -> bool,
    ) -> usize {
        let looks = function.wants_counter() && self.frame.boundary == Boundary::Plain;
        if !looks || self.starts_ms.is_empty() {
            return 0;
        }
        let overlaps: Vec<usize> = (1..self.values.len())
            .filter(|at| self.stamp(*at).overlaps(self.stamp(at - 1)))
            .collect();
        let has_any = |step: &usize| {
            let (first, end) = self.bounds(*step);
            let next = overlaps.get(overlaps.partition_point(|at| *at <= first));
            next.is_some_and(|at| *at < end) && counts(*step)
        };
        (0..self.frame.steps.count).filter(has_any).count()
    }
}

/// When counting started, if that is within the range and before the first sample: the counter was
/// zero then.
fn origin_of(series: &Windowed<'_>, step: usize) -> Option<i64> {
    let range_end_ms = series.frame.end_ms(step);
    series.stamp(series.bounds(step).0).origin_after(range_end_ms - series.frame.range_ms)
}

impl Stamp {
    /// The start when it is known, after that moment and before the sample.
    pub(super) fn origin_after(self, range_start_ms: i64) -> Option<i64> {
        let Self { start_ms, at_ms } = self;
        (start_ms != 0 && range_start_ms < start_ms && start_ms < at_ms).then_some(start_ms)
    }
}

/// By how much the change between the samples is stretched to stand for the range.
fn extrapolation(
    series: &Windowed<'_>,
    step: usize,
    counter: bool,
    (change, origin_ms): (f64, Option<i64>),
) -> f64 {
    let (first, end) = series.bounds(step);
    let (first_ms, last_ms) = (series.timestamps_ms[first], series.timestamps_ms[end - 1]);
    let range_end_ms = series.frame.end_ms(step);
    let range_start_ms = range_end_ms - series.frame.range_ms;
    let reach = Reach {
        to_start: (first_ms - range_start_ms) as f64 / 1000.0,
        to_end: (range_end_ms - last_ms) as f64 / 1000.0,
        sampled: (last_ms - first_ms) as f64 / 1000.0,
        gaps: end - first - 1,
        since_origin: origin_ms.map(|origin_ms| (last_ms - origin_ms) as f64 / 1000.0),
    };
    reach.factor(counter, series.values[first], change)
}

/// How the samples of a window lie in its range, in seconds.
pub(super) struct Reach {
    /// From the left border to the first sample.
    pub(super) to_start: f64,
    /// From the last sample to the right border.
    pub(super) to_end: f64,
    /// From the first to the last sample.
    pub(super) sampled: f64,
    /// Intervals between samples.
    pub(super) gaps: usize,
    /// From the moment within the range at which the counter was zero to the last sample.
    pub(super) since_origin: Option<f64>,
}

impl Reach {
    /// How far the change is extrapolated: all the way where a sample is close to the border.
    pub(super) fn settled(self) -> Self {
        let gap = if self.gaps == 0 { 0.0 } else { self.sampled / self.gaps as f64 };
        let (to_start, to_end) = (settled(self.to_start, gap), settled(self.to_end, gap));
        Self { to_start, to_end, ..self }
    }

    /// By how much a change from the first value on is stretched to stand for the range.
    pub(super) fn factor(self, counter: bool, first: f64, change: f64) -> f64 {
        let Self { mut to_start, to_end, mut sampled, since_origin, .. } = self.settled();
        if let Some(since_origin) = since_origin {
            (sampled, to_start) = (since_origin, 0.0);
        } else if counter && 0.0 < change && 0.0 <= first {
            // A counter cannot have been below zero.
            let to_zero = sampled * (first / change);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled }
    }
}

/// `anchored` and `smoothed`: values at the very borders of the range, no extrapolation.
pub(super) fn extended(series: &Windowed<'_>, function: RangeFunction, out: &mut [f64]) {
    let counter = function != RangeFunction::Delta;
    series.each(out, |window| {
        let change = change_between_borders(series, &window, counter);
        if function == RangeFunction::Rate && !super::super::is_absent(change) {
            change / range_seconds(series)
        } else {
            change
        }
    });
}

fn change_between_borders(series: &Windowed<'_>, window: &Window<'_>, counter: bool) -> f64 {
    let smoothed = series.frame.boundary == Boundary::Smoothed;
    let end_ms = series.frame.end_ms(window.step);
    let start_ms = end_ms - series.frame.range_ms;
    let times = window.timestamps_ms;
    let point = |at: usize| (times[at], window.values[at]);
    let mut last = times.len() - 1;
    let mut first = times[..last].partition_point(|time| *time <= start_ms).saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|time| *time < end_ms);
    }
    if times[last] <= start_ms || smoothed && end_ms < times[first] {
        return absent();
    }
    let left = if smoothed && times[first] < start_ms {
        on_line(point(first), point(first + 1), start_ms, counter)
    } else {
        window.values[first]
    };
    let right = if smoothed && 0 < last && end_ms < times[last] {
        on_line(point(last - 1), point(last), end_ms, counter)
    } else {
        window.values[last]
    };
    if !counter {
        return right - left;
    }
    if times[first] <= start_ms {
        first += 1;
    }
    let inner_end = if end_ms <= times[last] { last } else { last + 1 };
    let inner = window.values.get(first..inner_end).unwrap_or_default();
    (right - left) + correction(left, right, inner)
}

/// What is lost in resets between the borders.
fn correction(left: f64, right: f64, inner: &[f64]) -> f64 {
    let (mut sum, mut before) = (0.0, left);
    for value in inner.iter().chain([&right]) {
        if *value < before {
            sum += before;
        }
        before = *value;
    }
    sum
}

/// `irate` and `idelta`: between the last two samples.
pub(super) fn last_two(window: &Window<'_>, is_rate: bool) -> f64 {
    let ([.., before, last], [.., before_ms, last_ms]) = (window.values, window.timestamps_ms)
    else {
        return absent();
    };
    let restarts = || match window.starts_ms {
        [.., before_start_ms, start_ms] => {
            let before = Stamp { start_ms: *before_start_ms, at_ms: *before_ms };
            Stamp { start_ms: *start_ms, at_ms: *last_ms }.restarts_after(before)
        }
        _ => false,
    };
    let reset = is_rate && (last < before || restarts());
    let change = if reset { *last } else { last - before };
    if is_rate { change / ((last_ms - before_ms) as f64 / 1000.0) } else { change }
}

/// `changes` and `resets`: positions for which, with the one before, `counts` holds.
pub(super) fn transitions(series: &Windowed<'_>, out: &mut [f64], counts: impl Fn(usize) -> bool) {
    let mut total = 0_u32;
    let mut upto = Vec::with_capacity(series.values.len());
    for at in 0..series.values.len() {
        if 0 < at && counts(at) {
            total += 1;
        }
        upto.push(total);
    }
    for (step, out) in out.iter_mut().enumerate() {
        let (mut first, end) = series.bounds(step);
        if series.frame.boundary == Boundary::Anchored {
            let start_ms = series.frame.end_ms(step) - series.frame.range_ms;
            let times = &series.timestamps_ms[first..end];
            let inside = times.partition_point(|time| *time <= start_ms);
            if inside == times.len() {
                *out = absent();
                continue;
            }
            first += inside.saturating_sub(1);
        }
        *out = if first < end { f64::from(upto[end - 1] - upto[first]) } else { absent() };
    }
}
