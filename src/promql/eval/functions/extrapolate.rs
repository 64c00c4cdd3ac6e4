//! The change between the first and the last sample of each window, extrapolated to the borders of
//! the range: what depends on the times alone once for all series that share them, the rest in
//! loops over all steps.

use std::borrow::Cow;

use super::super::absent;
use super::super::kernels::{self, Stretch, stretch_factor};
use super::over_range::{RangeFunction, Windowed};
use super::rate::{Reach, range_seconds};

/// What the times alone say about the extrapolation, of each step.
#[derive(Debug)]
pub(in super::super) struct Reaches {
    /// Positions of the first and the last sample; where there are not two, the first one's.
    first: Vec<u32>,
    last: Vec<u32>,
    sampled: Vec<f64>,
    to_start: Vec<f64>,
    to_end: Vec<f64>,
    /// How far a change is stretched where nothing else limits that; of a rate also divided by the
    /// range.
    factors: Vec<f64>,
    rate_factors: Vec<f64>,
    /// All ones where there are two samples, else zero.
    present: Vec<u64>,
    /// First and last sample of the first step, when with each step the next ones take their place.
    sliding: Option<(usize, usize)>,
}

impl Reaches {
    fn new(series: &Windowed<'_>) -> Self {
        let count = series.frame.steps.count;
        let column = || Vec::with_capacity(count);
        let mut own = Self {
            first: Vec::with_capacity(count),
            last: Vec::with_capacity(count),
            sampled: column(),
            to_start: column(),
            to_end: column(),
            factors: column(),
            rate_factors: column(),
            present: Vec::with_capacity(count),
            sliding: None,
        };
        for step in 0..count {
            let (first, end) = series.bounds(step);
            let has_two = first + 2 <= end;
            let (first, last) = if has_two { (first, end - 1) } else { (0, 0) };
            let (first_ms, last_ms) = (series.timestamps_ms[first], series.timestamps_ms[last]);
            let range_end_ms = series.frame.end_ms(step);
            let range_start_ms = range_end_ms - series.frame.range_ms;
            let reach = Reach {
                to_start: (first_ms - range_start_ms) as f64 / 1000.0,
                to_end: (range_end_ms - last_ms) as f64 / 1000.0,
                sampled: (last_ms - first_ms) as f64 / 1000.0,
                gaps: last - first,
                since_origin: None,
            };
            let reach = reach.settled();
            own.first.push(first as u32);
            own.last.push(last as u32);
            own.sampled.push(reach.sampled);
            own.to_start.push(reach.to_start);
            own.to_end.push(reach.to_end);
            let factor = stretch_factor(reach.sampled, reach.to_start, reach.to_end);
            own.factors.push(factor);
            own.rate_factors.push(factor / range_seconds(series));
            own.present.push(if has_two { u64::MAX } else { 0 });
        }
        let slides = |positions: &[u32]| positions.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        if !own.present.contains(&0) && slides(&own.first) && slides(&own.last) {
            let start = own.first.first().zip(own.last.first());
            own.sliding = start.map(|(first, last)| (*first as usize, *last as usize));
        }
        own
    }

    /// Puts the change between first and last sample of each step into `out`, and the value of the
    /// first one into what is returned.
    fn changes<'v>(&self, values: &'v [f64], out: &mut [f64]) -> Cow<'v, [f64]> {
        if let Some((first, last)) = self.sliding {
            let first = &values[first..][..out.len()];
            kernels::subtract(&values[last..][..out.len()], first, out);
            return Cow::Borrowed(first);
        }
        let mut firsts = Vec::with_capacity(out.len());
        for ((first, last), out) in self.first.iter().zip(&self.last).zip(out) {
            let first = values[*first as usize];
            *out = values[*last as usize] - first;
            firsts.push(first);
        }
        Cow::Owned(firsts)
    }

    /// Adds what was lost in resets.
    fn correct(&self, values: &[f64], changes: &mut [f64]) {
        if kernels::count_falls(values) == 0 {
            return;
        }
        let falls = values.windows(2).enumerate().filter(|(_, pair)| pair[1] < pair[0]);
        let resets: Vec<u32> = falls.map(|(at, _)| at as u32 + 1).collect();
        let mut past = 0;
        for (step, change) in changes.iter_mut().enumerate() {
            let (first, last) = (self.first[step], self.last[step]);
            if first == last {
                continue;
            }
            while past < resets.len() && resets[past] <= first {
                past += 1;
            }
            // In the order of the samples, so that the sum rounds as it always did.
            for reset in resets[past..].iter().take_while(|reset| **reset <= last) {
                *change += values[*reset as usize - 1];
            }
        }
    }
}

/// `rate`, `increase` and `delta` of samples that do not say when counting started.
pub(super) fn all(series: &Windowed<'_>, function: RangeFunction, out: &mut [f64]) {
    if series.values.is_empty() {
        out.fill(absent());
        return;
    }
    let counter = function != RangeFunction::Delta;
    let reaches = series.windows.reaches.get_or_init(|| Reaches::new(series));
    let first = reaches.changes(series.values, out);
    if counter {
        reaches.correct(series.values, out);
    }
    let is_rate = function == RangeFunction::Rate;
    kernels::stretch(Stretch {
        factors: if is_rate { &reaches.rate_factors } else { &reaches.factors },
        first: &first,
        sampled: &reaches.sampled,
        to_start: &reaches.to_start,
        to_end: &reaches.to_end,
        present: &reaches.present,
        counter,
        seconds: is_rate.then(|| range_seconds(series)),
        values: out,
    });
}
