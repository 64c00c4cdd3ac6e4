//! Functions of windows that all have the same number of samples and lie at equal distances: a few
//! of them at a time, sample by sample, so that what one window waits for is done for the others.
//!
//! Each window gets what a loop over its samples alone gives, bit for bit.

use super::{Kernel, fastest};

/// Windows that are worked at side by side.
pub(in super::super) const LANES: usize = 8;

/// Where the windows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Regular {
    /// Position of the first sample of the first window.
    pub(in super::super) first: usize,
    /// Samples of each window: at least one.
    pub(in super::super) width: usize,
    /// From the first sample of a window to that of the next one.
    pub(in super::super) stride: usize,
}

impl Regular {
    /// The regularity of windows from `first` to before `end`, if they have any.
    pub(in super::super) fn of(first: &[u32], end: &[u32]) -> Option<Self> {
        let (start, stop) = (*first.first()?, *end.first()?);
        let stride = first.get(1).map_or(1, |next| next - start);
        let is_regular = |positions: &[u32]| {
            positions.windows(2).all(|pair| pair[0].checked_add(stride) == Some(pair[1]))
        };
        let width = stop.checked_sub(start).filter(|width| 0 < *width)?;
        (is_regular(first) && is_regular(end)).then_some(Self {
            first: start as usize,
            width: width as usize,
            stride: stride as usize,
        })
    }
}

/// What is done with each sample.
trait Fold: Copy {
    /// Before the first sample.
    fn start(first: f64) -> Self;

    fn add(&mut self, value: f64);

    fn finish(self, width: f64) -> f64;
}

/// A sum with what rounding lost; see [`crate::model::kahan::Kahan`].
#[derive(Clone, Copy)]
struct Total {
    sum: f64,
    compensation: f64,
}

impl Total {
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn plus(&mut self, value: f64) {
        let Self { sum, compensation } = *self;
        let total = sum + value;
        let of_value = (sum - total) + value;
        let of_sum = (value - total) + sum;
        let lost = if value.abs() <= sum.abs() { of_value } else { of_sum };
        let infinite = total.abs() == f64::INFINITY;
        self.compensation = if infinite { 0.0 } else { compensation + lost };
        self.sum = total;
    }
}

#[derive(Clone, Copy)]
struct Sum(Total);

#[expect(clippy::inline_always, reason = "compiled into each of its forms")]
impl Fold for Sum {
    #[inline(always)]
    fn start(_: f64) -> Self {
        Self(Total { sum: 0.0, compensation: 0.0 })
    }

    #[inline(always)]
    fn add(&mut self, value: f64) {
        self.0.plus(value);
    }

    #[inline(always)]
    fn finish(self, _: f64) -> f64 {
        let Total { sum, compensation } = self.0;
        if sum.abs() == f64::INFINITY { sum } else { sum + compensation }
    }
}

/// The mean, where the sum does not overflow; else something that is not finite.
#[derive(Clone, Copy)]
struct Mean(Total);

#[expect(clippy::inline_always, reason = "compiled into each of its forms")]
impl Fold for Mean {
    #[inline(always)]
    fn start(_: f64) -> Self {
        // Nothing changes when anything is added to -0.
        Self(Total { sum: -0.0, compensation: 0.0 })
    }

    #[inline(always)]
    fn add(&mut self, value: f64) {
        self.0.plus(value);
    }

    #[inline(always)]
    fn finish(self, width: f64) -> f64 {
        self.0.sum / width + self.0.compensation / width
    }
}

/// The first of the least values, or with `GREATEST` of the greatest; NaN only among NaNs.
#[derive(Clone, Copy)]
struct Extreme<const GREATEST: bool>(f64);

#[expect(clippy::inline_always, reason = "compiled into each of its forms")]
impl<const GREATEST: bool> Fold for Extreme<GREATEST> {
    #[inline(always)]
    fn start(first: f64) -> Self {
        Self(first)
    }

    #[inline(always)]
    fn add(&mut self, value: f64) {
        let better = if GREATEST { self.0 < value } else { value < self.0 };
        self.0 = if better | self.0.is_nan() { value } else { self.0 };
    }

    #[inline(always)]
    fn finish(self, _: f64) -> f64 {
        self.0
    }
}

struct Each<'a, F> {
    windows: Regular,
    values: &'a [f64],
    out: &'a mut [f64],
    fold: std::marker::PhantomData<F>,
}

impl<F: Fold> Each<'_, F> {
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn all<const NEIGHBOURS: bool>(self) {
        let Regular { first, width, stride } = self.windows;
        let stride = if NEIGHBOURS { 1 } else { stride };
        let mut values = &self.values[first..];
        let mut pieces = self.out.chunks_exact_mut(LANES);
        for out in &mut pieces {
            let mut lanes = [F::start(0.0); LANES];
            for (lane, own) in lanes.iter_mut().enumerate() {
                *own = F::start(values[lane * stride]);
            }
            for at in 0..width {
                if NEIGHBOURS {
                    let own: &[f64; LANES] = values[at..].first_chunk().expect("a full piece");
                    for (lane, value) in lanes.iter_mut().zip(own) {
                        lane.add(*value);
                    }
                } else {
                    let own = &values[at..=at + (LANES - 1) * stride];
                    for (lane, state) in lanes.iter_mut().enumerate() {
                        state.add(own[lane * stride]);
                    }
                }
            }
            for (out, lane) in out.iter_mut().zip(lanes) {
                *out = lane.finish(width as f64);
            }
            values = values.get(LANES * stride..).unwrap_or_default();
        }
        for (number, out) in pieces.into_remainder().iter_mut().enumerate() {
            let own = &values[number * stride..][..width];
            let mut lane = F::start(own[0]);
            for value in own {
                lane.add(*value);
            }
            *out = lane.finish(width as f64);
        }
    }
}

impl<F: Fold> Kernel for Each<'_, F> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) {
        if self.windows.stride == 1 { self.all::<true>() } else { self.all::<false>() }
    }
}

fn each<F: Fold>(windows: Regular, values: &[f64], out: &mut [f64]) {
    fastest(Each::<F> { windows, values, out, fold: std::marker::PhantomData });
}

/// The sum of each window.
pub(in super::super) fn sums(windows: Regular, values: &[f64], out: &mut [f64]) {
    each::<Sum>(windows, values, out);
}

/// The mean of each window; not finite also where only the sum is not.
pub(in super::super) fn means(windows: Regular, values: &[f64], out: &mut [f64]) {
    each::<Mean>(windows, values, out);
}

/// The least value of each window.
pub(in super::super) fn least(windows: Regular, values: &[f64], out: &mut [f64]) {
    each::<Extreme<false>>(windows, values, out);
}

/// The greatest value of each window.
pub(in super::super) fn greatest(windows: Regular, values: &[f64], out: &mut [f64]) {
    each::<Extreme<true>>(windows, values, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::kahan::Kahan;

    fn value() -> impl Strategy<Value = f64> {
        let odd = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e308, -1e308, 0.1];
        prop_oneof![4 => -1e6..1e6, 1 => prop::sample::select(odd.to_vec())]
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        let one = |value: &f64| if value.is_nan() { 0 } else { value.to_bits() };
        values.iter().map(one).collect()
    }

    fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
        let better = |best: f64, value: &f64| {
            if better(*value, best) || best.is_nan() { *value } else { best }
        };
        values.iter().fold(values[0], better)
    }

    fn total(values: &[f64]) -> Kahan {
        let mut sum = Kahan::default();
        for value in values {
            sum.add(*value);
        }
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn windows_side_by_side_are_windows_one_by_one(
            values in prop::collection::vec(value(), 200),
            (first, width, stride) in (0_usize..9, 1_usize..20, 0_usize..7),
            count in 1_usize..26,
        ) {
            let windows = Regular { first, width, stride };
            let all: Vec<&[f64]> =
                (0..count).map(|step| &values[first + step * stride..][..width]).collect();
            let check = |run: &dyn Fn(&mut [f64]), one: &dyn Fn(&[f64]) -> f64| {
                let mut out = vec![0.0; count];
                run(&mut out);
                let expected: Vec<f64> = all.iter().map(|own| one(own)).collect();
                (bits(&out), bits(&expected))
            };
            let (out, expected) =
                check(&|out| sums(windows, &values, out), &|own| total(own).total());
            prop_assert_eq!(out, expected);
            let (out, expected) = check(&|out| least(windows, &values, out), &|own| {
                extreme(own, |new, old| new < old)
            });
            prop_assert_eq!(out, expected);
            let (out, expected) = check(&|out| greatest(windows, &values, out), &|own| {
                extreme(own, |new, old| new > old)
            });
            prop_assert_eq!(out, expected);
            let mut out = vec![0.0; count];
            means(windows, &values, &mut out);
            for (out, own) in out.iter().zip(&all) {
                let mut sum = Kahan::from(own[0]);
                for value in &own[1..] {
                    sum.add(*value);
                }
                let count = own.len() as f64;
                if out.is_finite() {
                    let mean = sum.sum / count + sum.compensation / count;
                    prop_assert_eq!(out.to_bits(), mean.to_bits());
                } else {
                    prop_assert!(!sum.sum.is_finite());
                }
            }
        }
    }

    #[test]
    fn regularity_is_seen() {
        let found = |first: &[u32], end: &[u32]| {
            Regular::of(first, end).map(|own| (own.first, own.width, own.stride))
        };
        assert_eq!(found(&[3, 5, 7], &[7, 9, 11]), Some((3, 4, 2)));
        assert_eq!(found(&[3], &[4]), Some((3, 1, 1)));
        assert_eq!(found(&[3, 3], &[4, 4]), Some((3, 1, 0)));
        assert_eq!(found(&[3, 5, 7], &[7, 9, 12]), None);
        assert_eq!(found(&[3, 5, 8], &[7, 9, 11]), None);
        assert_eq!(found(&[3, 4], &[3, 4]), None, "no sample");
        assert_eq!(found(&[], &[]), None);
    }
}
