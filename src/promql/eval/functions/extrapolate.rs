//! The change between the first and the last sample of each window, extrapolated to the borders of
//! the range: what depends on the times alone once for all series that share them, the rest in
//! loops over all steps.

use std::borrow::Cow;

use super::super::absent;
use super::super::kernels::{self, Settle, Slide, Stretch};
use super::over_range::{RangeFunction, Windowed};
use super::rate::range_seconds;

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
    /// The least and the greatest of them.
    sampled_min: f64,
    to_start_max: f64,
}

impl Reaches {
    fn new(series: &Windowed<'_>) -> Self {
        let (times, frame) = (series.timestamps_ms, series.frame);
        let count = frame.steps.count;
        let mut own = Self {
            first: Vec::with_capacity(count),
            last: Vec::with_capacity(count),
            sampled: Vec::with_capacity(count),
            to_start: Vec::with_capacity(count),
            to_end: Vec::with_capacity(count),
            factors: vec![0.0; count],
            rate_factors: vec![0.0; count],
            present: Vec::with_capacity(count),
            sliding: None,
            sampled_min: f64::INFINITY,
            to_start_max: 0.0,
        };
        let mut gaps = Vec::with_capacity(count);
        for (step, (first, end)) in series.windows.first.iter().zip(&series.windows.end).enumerate()
        {
            let has_two = first + 2 <= *end;
            let (first, last) = if has_two { (*first, end - 1) } else { (0, 0) };
            let (first_ms, last_ms) = (times[first as usize], times[last as usize]);
            let end_ms = frame.end_ms(step);
            own.first.push(first);
            own.last.push(last);
            own.sampled.push((last_ms - first_ms) as f64);
            own.to_start.push((first_ms - (end_ms - frame.range_ms)) as f64);
            own.to_end.push((end_ms - last_ms) as f64);
            own.present.push(if has_two { u64::MAX } else { 0 });
            gaps.push(f64::from(last - first));
        }
        kernels::settle(Settle {
            gaps: &gaps,
            sampled: &mut own.sampled,
            to_start: &mut own.to_start,
            to_end: &mut own.to_end,
            factors: &mut own.factors,
            rate_factors: &mut own.rate_factors,
            seconds: range_seconds(series),
        });
        own.sampled_min = own.sampled.iter().copied().fold(f64::INFINITY, f64::min);
        own.to_start_max = own.to_start.iter().copied().fold(0.0, f64::max);
        let slides = |positions: &[u32]| positions.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        if !own.present.contains(&0) && slides(&own.first) && slides(&own.last) {
            let start = own.first.first().zip(own.last.first());
            own.sliding = start.map(|(first, last)| (*first as usize, *last as usize));
        }
        own
    }

    /// All of it in one go, where nothing but the times decides about the result; whether it was so.
    fn slide(&self, values: &[f64], counter: bool, factors: &[f64], out: &mut [f64]) -> bool {
        let Some((first, last)) = self.sliding else { return false };
        if counter && 0 < kernels::count_falls(values) {
            return false;
        }
        let is_near = kernels::slide(Slide {
            first: &values[first..],
            last: &values[last..],
            factors,
            sampled_min: self.sampled_min,
            to_start_max: self.to_start_max,
            out,
        });
        !(counter && is_near)
    }

    /// Puts the change between first and last sample of each step into `out`, and the value of the
    /// first one into what is returned.
    fn changes<'v>(&self, values: &'v [f64], out: &mut [f64]) -> Cow<'v, [f64]> {
        if let Some((first, last)) = self.sliding {
            let first = &values[first..][..out.len()];
            kernels::subtract(&values[last..][..out.len()], first, out);
            return Cow::Borrowed(first);
        }
        let firsts: Vec<f64> = self.first.iter().map(|at| values[*at as usize]).collect();
        for ((first, last), out) in firsts.iter().zip(&self.last).zip(out) {
            *out = values[*last as usize] - first;
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
    let is_rate = function == RangeFunction::Rate;
    let factors = if is_rate { &reaches.rate_factors } else { &reaches.factors };
    if reaches.slide(series.values, counter, factors, out) {
        return;
    }
    let first = reaches.changes(series.values, out);
    if counter {
        reaches.correct(series.values, out);
    }
    kernels::stretch(Stretch {
        factors,
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
