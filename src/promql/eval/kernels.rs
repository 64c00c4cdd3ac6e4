//! The inner loops over all steps of a series.
//!
//! Each is written once, without branches, and compiled twice: plainly, and with AVX2, which is
//! taken when the processor has it. Both do the same operations in the same order on each lane, so
//! they give the same bits.

pub(super) mod regular;

use std::ops::Range;

use crate::model::sample::STALE_NAN_BITS;

/// A loop.
trait Kernel {
    type Output;

    fn run(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
fn fastest<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx2")]
    fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run()
    }

    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "instructions that were asked for")]
        // SAFETY: the processor has AVX2.
        return unsafe { with_avx2(kernel) };
    }
    kernel.run()
}

#[cfg(not(target_arch = "x86_64"))]
fn fastest<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

struct HasAbsent<'a>(&'a [f64]);

impl Kernel for HasAbsent<'_> {
    type Output = bool;

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) -> bool {
        // In pieces, each without a branch.
        self.0.chunks(64).any(|values| {
            values.iter().fold(false, |any, value| any | (value.to_bits() == STALE_NAN_BITS))
        })
    }
}

/// Whether any value is the stale marker, which stands for absence.
pub(super) fn has_absent(values: &[f64]) -> bool {
    fastest(HasAbsent(values))
}

struct CountPresent<'a>(&'a [f64]);

impl Kernel for CountPresent<'_> {
    type Output = u64;

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) -> u64 {
        self.0.iter().map(|value| u64::from(value.to_bits() != STALE_NAN_BITS)).sum()
    }
}

/// How many values are there.
pub(super) fn count_present(values: &[f64]) -> u64 {
    fastest(CountPresent(values))
}

struct CountFalls<'a>(&'a [f64]);

impl Kernel for CountFalls<'_> {
    type Output = u64;

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) -> u64 {
        let Some(after) = self.0.get(1..) else { return 0 };
        self.0.iter().zip(after).map(|(before, after)| u64::from(after < before)).sum()
    }
}

/// How many values are less than the one before.
pub(super) fn count_falls(values: &[f64]) -> u64 {
    fastest(CountFalls(values))
}

struct Subtract<'a> {
    from: &'a [f64],
    what: &'a [f64],
    out: &'a mut [f64],
}

impl Kernel for Subtract<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) {
        for ((out, from), what) in self.out.iter_mut().zip(self.from).zip(self.what) {
            *out = from - what;
        }
    }
}

/// `out = from - what`.
pub(super) fn subtract(from: &[f64], what: &[f64], out: &mut [f64]) {
    fastest(Subtract { from, what, out });
}

/// Changes between samples that take the next ones' place with each step, stretched to stand for a
/// range.
pub(super) struct Slide<'a> {
    /// First and last sample of each step.
    pub(super) first: &'a [f64],
    pub(super) last: &'a [f64],
    /// By how much the change is stretched where counters could have been below zero.
    pub(super) factors: &'a [f64],
    /// The least of all seconds from the first to the last sample.
    pub(super) sampled_min: f64,
    /// The greatest of all seconds before the first one.
    pub(super) to_start_max: f64,
    pub(super) out: &'a mut [f64],
}

impl Kernel for Slide<'_> {
    type Output = bool;

    #[expect(clippy::needless_bitwise_bool, reason = "branches stand in the way of vectors")]
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) -> bool {
        let count = self.out.len();
        let (first, last) = (&self.first[..count], &self.last[..count]);
        let (factors, out) = (&self.factors[..count], self.out);
        let (sampled, to_start) = (self.sampled_min, self.to_start_max * (1.0 + 1e-9));
        let mut any = false;
        for at in 0..count {
            let (first, change) = (first[at], last[at] - first[at]);
            out[at] = change * factors[at];
            let (zero, start) = (sampled * first, to_start * change);
            any |= (0.0 < change) & !((start < zero) & (1e-200 < zero));
        }
        any
    }
}

/// The changes between first and last samples times factors; whether a counter may have been at
/// zero within the range of any step. As in [`Stretch::may_limit`] products are compared in place
/// of quotients; one that is beyond the greatest double is no matter, as the other is below it.
pub(super) fn slide(slide: Slide<'_>) -> bool {
    fastest(slide)
}

/// How a change between two samples is stretched to stand for a range; of each step.
pub(super) struct Stretch<'a> {
    /// Value of the first sample.
    pub(super) first: &'a [f64],
    /// Seconds from the first to the last sample.
    pub(super) sampled: &'a [f64],
    /// Seconds to be added before and after.
    pub(super) to_start: &'a [f64],
    pub(super) to_end: &'a [f64],
    /// By how much the change is stretched where counters could have been below zero.
    pub(super) factors: &'a [f64],
    /// All ones where the step has a result, else zero.
    pub(super) present: &'a [u64],
    /// Counters cannot have been below zero.
    pub(super) counter: bool,
    /// What the result is divided by.
    pub(super) seconds: Option<f64>,
    /// The change; becomes the result.
    pub(super) values: &'a mut [f64],
}

/// Steps for which it is decided together whether divisions are needed.
const STRETCHED_TOGETHER: usize = 32;

impl Stretch<'_> {
    /// Of some steps.
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn part(&mut self, steps: Range<usize>) -> Stretch<'_> {
        Stretch {
            first: &self.first[steps.clone()],
            sampled: &self.sampled[steps.clone()],
            to_start: &self.to_start[steps.clone()],
            to_end: &self.to_end[steps.clone()],
            factors: &self.factors[steps.clone()],
            present: &self.present[steps.clone()],
            counter: self.counter,
            seconds: self.seconds,
            values: &mut self.values[steps],
        }
    }

    /// Whether a counter may have been at zero within the range, found out without a division: only
    /// far from the borders of what a double can hold is a product sure to compare like a quotient.
    #[expect(clippy::needless_bitwise_bool, reason = "branches stand in the way of vectors")]
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn may_limit(&self) -> bool {
        let count = self.values.len();
        let (first, sampled) = (&self.first[..count], &self.sampled[..count]);
        let to_start = &self.to_start[..count];
        let mut any = false;
        for at in 0..count {
            let (change, first) = (self.values[at], first[at]);
            let (zero, start) = (sampled[at] * first, to_start[at] * change * (1.0 + 1e-9));
            let is_far = (start < zero) & (1e-200 < zero) & (zero < f64::INFINITY);
            any |= (0.0 < change) & (0.0 <= first) & !is_far;
        }
        any
    }

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn put(&mut self, at: usize, value: f64) {
        let present = self.present[at];
        let bits = (value.to_bits() & present) | (STALE_NAN_BITS & !present);
        self.values[at] = f64::from_bits(bits);
    }

    /// Where no counter can have been below zero.
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn unlimited(&mut self) {
        let count = self.values.len();
        (self.factors, self.present) = (&self.factors[..count], &self.present[..count]);
        for at in 0..count {
            self.put(at, self.values[at] * self.factors[at]);
        }
    }

    #[expect(clippy::needless_bitwise_bool, reason = "branches stand in the way of vectors")]
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn limited<const RATE: bool>(&mut self) {
        let seconds = self.seconds.unwrap_or(1.0);
        let count = self.values.len();
        let (first, sampled) = (&self.first[..count], &self.sampled[..count]);
        let (to_start, to_end) = (&self.to_start[..count], &self.to_end[..count]);
        self.present = &self.present[..count];
        for at in 0..count {
            let (change, first, sampled) = (self.values[at], first[at], sampled[at]);
            let to_zero = sampled * (first / change);
            let limits = (0.0 < change) & (0.0 <= first) & (to_zero < to_start[at]);
            let to_start = if limits { to_zero } else { to_start[at] };
            let factor = stretch_factor(sampled, to_start, to_end[at]);
            self.put(at, change * if RATE { factor / seconds } else { factor });
        }
    }
}

/// By how much a change within `sampled` seconds is stretched to what lies around it.
#[expect(clippy::inline_always, reason = "compiled into each of its forms")]
#[inline(always)]
pub(super) fn stretch_factor(sampled: f64, to_start: f64, to_end: f64) -> f64 {
    let factor = (sampled + to_start + to_end) / sampled;
    if sampled == 0.0 { 1.0 } else { factor }
}

impl Kernel for Stretch<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(mut self) {
        if !self.counter {
            return self.unlimited();
        }
        let count = self.values.len();
        for start in (0..count).step_by(STRETCHED_TOGETHER) {
            let mut part = self.part(start..count.min(start + STRETCHED_TOGETHER));
            if !part.may_limit() {
                part.unlimited();
            } else if part.seconds.is_some() {
                part.limited::<true>();
            } else {
                part.limited::<false>();
            }
        }
    }
}

/// Turns changes into results.
pub(super) fn stretch(stretch: Stretch<'_>) {
    fastest(stretch);
}

/// How far the samples of each step reach, and how far a change between them is stretched where
/// nothing else limits that.
pub(super) struct Settle<'a> {
    /// Intervals between the samples.
    pub(super) gaps: &'a [f64],
    /// Milliseconds from the first to the last sample, from the border of the range to the first one
    /// and from the last one to the other border; become the seconds that count.
    pub(super) sampled: &'a mut [f64],
    pub(super) to_start: &'a mut [f64],
    pub(super) to_end: &'a mut [f64],
    /// The result; of rates, divided by the seconds of the range.
    pub(super) factors: &'a mut [f64],
    pub(super) rate_factors: &'a mut [f64],
    pub(super) seconds: f64,
}

/// All the way to the border where a sample is close to it, else half an interval.
#[expect(clippy::inline_always, reason = "compiled into each form of its kernels")]
#[inline(always)]
pub(super) fn settled(way: f64, gap: f64) -> f64 {
    if gap * 1.1 <= way { gap / 2.0 } else { way }
}

impl Kernel for Settle<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) {
        let count = self.gaps.len();
        let (sampled, factors) = (&mut self.sampled[..count], &mut self.factors[..count]);
        let (to_start, to_end) = (&mut self.to_start[..count], &mut self.to_end[..count]);
        let rate_factors = &mut self.rate_factors[..count];
        for at in 0..count {
            let seconds = sampled[at] / 1000.0;
            let gap = seconds / self.gaps[at];
            let gap = if self.gaps[at] == 0.0 { 0.0 } else { gap };
            sampled[at] = seconds;
            to_start[at] = settled(to_start[at] / 1000.0, gap);
            to_end[at] = settled(to_end[at] / 1000.0, gap);
            factors[at] = stretch_factor(seconds, to_start[at], to_end[at]);
            rate_factors[at] = factors[at] / self.seconds;
        }
    }
}

/// Settles how far each step reaches.
pub(super) fn settle(settle: Settle<'_>) {
    fastest(settle);
}

/// Sums with what rounding lost; see [`crate::model::kahan::Kahan`].
pub(super) struct AddColumn<'a> {
    /// -0 as long as nothing was added.
    pub(super) sums: &'a mut [f64],
    pub(super) compensations: &'a mut [f64],
    /// All ones where something was added.
    pub(super) seen: &'a mut [u64],
    pub(super) values: &'a [f64],
}

impl AddColumn<'_> {
    /// Where no value may be absent unless `SOME_ABSENT`.
    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn add<const SOME_ABSENT: bool>(self) {
        let count = self.values.len();
        let (sums, compensations) = (&mut self.sums[..count], &mut self.compensations[..count]);
        let seen = &mut self.seen[..count];
        for at in 0..count {
            let (value, sum, compensation) = (self.values[at], sums[at], compensations[at]);
            let total = sum + value;
            let of_value = (sum - total) + value;
            let of_sum = (value - total) + sum;
            let lost = if value.abs() <= sum.abs() { of_value } else { of_sum };
            let infinite = total.abs() == f64::INFINITY;
            let compensated = if infinite { 0.0 } else { compensation + lost };
            if SOME_ABSENT {
                let present = value.to_bits() != STALE_NAN_BITS;
                sums[at] = if present { total } else { sum };
                compensations[at] = if present { compensated } else { compensation };
                seen[at] |= if present { u64::MAX } else { 0 };
            } else {
                sums[at] = total;
                compensations[at] = compensated;
                seen[at] = u64::MAX;
            }
        }
    }
}

impl Kernel for AddColumn<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "compiled into each of its forms")]
    #[inline(always)]
    fn run(self) {
        // What is stored only where a value is there takes twice as long.
        if HasAbsent(self.values).run() { self.add::<true>() } else { self.add::<false>() }
    }
}

/// Adds the values that are there to the sums of their steps.
pub(super) fn add_column(add: AddColumn<'_>) {
    fastest(add);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::kahan::Kahan;
    use crate::model::sample::stale_nan;

    fn value() -> impl Strategy<Value = f64> {
        let odd = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e300, -1e300, 0.1];
        prop_oneof![
            3 => -1e6..1e6,
            1 => prop::num::f64::ANY.prop_map(|value| f64::from_bits(value.to_bits())),
            1 => prop::sample::select(odd.to_vec()),
            1 => Just(stale_nan()),
        ]
    }

    fn column() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(value(), 37)
    }

    /// NaNs are one value: which of two operands a NaN is taken from is up to the compiler.
    fn bits(values: &[f64]) -> Vec<u64> {
        let one = |value: &f64| if value.is_nan() { 0 } else { value.to_bits() };
        values.iter().map(one).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn all_forms_count_alike(values in column()) {
            let absent = values.iter().filter(|value| value.to_bits() == STALE_NAN_BITS).count();
            prop_assert_eq!(has_absent(&values), 0 < absent);
            prop_assert_eq!(HasAbsent(&values).run(), 0 < absent);
            let present = (values.len() - absent) as u64;
            prop_assert_eq!(count_present(&values), present);
            prop_assert_eq!(CountPresent(&values).run(), present);
            let falls = values.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
            prop_assert_eq!(count_falls(&values), falls);
            prop_assert_eq!(CountFalls(&values).run(), falls);
        }

        #[test]
        fn all_forms_stretch_alike(
            columns in prop::collection::vec(column(), 5),
            counter: bool,
            seconds in prop::option::of(1.0..1e4),
            mask: u64,
        ) {
            let present: Vec<u64> =
                (0..37).map(|at| if mask >> at & 1 == 1 { u64::MAX } else { 0 }).collect();
            let [first, sampled, to_start, to_end, change] = &columns[..] else { unreachable!() };
            let sampled: Vec<f64> = sampled.iter().map(|value| value.abs()).collect();
            let divided = |factor: f64| seconds.map_or(factor, |seconds| factor / seconds);
            let factor = |at: usize| divided(stretch_factor(sampled[at], to_start[at], to_end[at]));
            let factors: Vec<f64> = (0..37).map(factor).collect();
            let results = [true, false].map(|fast| {
                let mut values = change.clone();
                let work = Stretch {
                    first,
                    sampled: &sampled,
                    to_start,
                    to_end,
                    factors: &factors,
                    present: &present,
                    counter,
                    seconds,
                    values: &mut values,
                };
                if fast { stretch(work) } else { work.run() }
                values
            });
            prop_assert_eq!(bits(&results[0]), bits(&results[1]));
            let one = |at: usize| {
                let (change, first) = (change[at], first[at]);
                let to_zero = sampled[at] * (first / change);
                let limits = counter && 0.0 < change && 0.0 <= first && to_zero < to_start[at];
                let to_start = if limits { to_zero } else { to_start[at] };
                let value = change * divided(stretch_factor(sampled[at], to_start, to_end[at]));
                if present[at] == 0 { stale_nan() } else { value }
            };
            let expected: Vec<f64> = (0..37).map(one).collect();
            prop_assert_eq!(bits(&results[0]), bits(&expected));
        }

        #[test]
        fn all_forms_settle_alike(
            ways in prop::collection::vec((0..9000_u32, 0..9000_u32, 0..9000_u32, 0..5_u8), 37),
        ) {
            let column = |of: fn(&(u32, u32, u32, u8)) -> u32| -> Vec<f64> {
                ways.iter().map(|own| f64::from(of(own))).collect()
            };
            let gaps: Vec<f64> = ways.iter().map(|own| f64::from(own.3)).collect();
            let results = [true, false].map(|fast| {
                let mut columns = [column(|own| own.0), column(|own| own.1), column(|own| own.2)];
                let (mut factors, mut rate_factors) = (vec![0.0; 37], vec![0.0; 37]);
                let [sampled, to_start, to_end] = &mut columns;
                let work = Settle {
                    gaps: &gaps,
                    sampled,
                    to_start,
                    to_end,
                    factors: &mut factors,
                    rate_factors: &mut rate_factors,
                    seconds: 300.0,
                };
                if fast { settle(work) } else { work.run() }
                [&columns.concat()[..], &factors, &rate_factors].concat()
            });
            prop_assert_eq!(bits(&results[0]), bits(&results[1]));
            for (at, (sampled, to_start, to_end, gaps)) in ways.into_iter().enumerate() {
                let seconds = |ms: u32| f64::from(ms) / 1000.0;
                let gap = if gaps == 0 { 0.0 } else { seconds(sampled) / f64::from(gaps) };
                let (start, end) = (settled(seconds(to_start), gap), settled(seconds(to_end), gap));
                let factor = stretch_factor(seconds(sampled), start, end);
                let own = [seconds(sampled), start, end, factor, factor / 300.0];
                let found: Vec<f64> = results[0].iter().skip(at).step_by(37).copied().collect();
                prop_assert_eq!(bits(&found), bits(&own));
            }
        }

        #[test]
        fn what_slides_far_from_zero_is_what_is_stretched(
            samples in prop_oneof![
                prop::collection::vec(value(), 45),
                prop::collection::vec(1e3..2e3, 45),
                prop::collection::vec(0.0..2e3, 45),
                prop::collection::vec(1e307..1e308, 45),
                prop::collection::vec(0.0..1e-197, 45),
            ],
            (sampled, to_start, to_end) in (1.0..1e4, 0.0..1e2, 0.0..1e2),
        ) {
            let (first, last) = (&samples[..37], &samples[8..]);
            let factors = [stretch_factor(sampled, to_start, to_end); 37];
            let results = [true, false].map(|fast| {
                let mut out = vec![0.0; 37];
                let work = Slide {
                    first,
                    last,
                    factors: &factors,
                    sampled_min: sampled,
                    to_start_max: to_start,
                    out: &mut out,
                };
                let near = if fast { slide(work) } else { work.run() };
                (near, bits(&out))
            });
            prop_assert_eq!(&results[0], &results[1]);
            if !results[0].0 {
                let mut values: Vec<f64> = first.iter().zip(last).map(|(a, b)| b - a).collect();
                stretch(Stretch {
                    first,
                    sampled: &[sampled; 37],
                    to_start: &[to_start; 37],
                    to_end: &[to_end; 37],
                    factors: &factors,
                    present: &[u64::MAX; 37],
                    counter: true,
                    seconds: None,
                    values: &mut values,
                });
                prop_assert_eq!(&results[0].1, &bits(&values));
            }
        }

        #[test]
        fn sums_of_columns_are_sums_of_values(columns in prop::collection::vec(column(), 0..6)) {
            let results = [true, false].map(|fast| {
                let (mut sums, mut compensations) = (vec![-0.0; 37], vec![0.0; 37]);
                let mut seen = vec![0; 37];
                for values in &columns {
                    let work = AddColumn {
                        sums: &mut sums,
                        compensations: &mut compensations,
                        seen: &mut seen,
                        values,
                    };
                    if fast { add_column(work) } else { work.run() }
                }
                (sums, compensations, seen)
            });
            for step in 0..37 {
                let mut expected: Option<Kahan> = None;
                for value in columns.iter().map(|values| values[step]) {
                    match &mut expected {
                        _ if value.to_bits() == STALE_NAN_BITS => {}
                        Some(sum) => sum.add(value),
                        None => expected = Some(value.into()),
                    }
                }
                for (sums, compensations, seen) in &results {
                    prop_assert_eq!(seen[step] == u64::MAX, expected.is_some());
                    let Some(expected) = expected else { continue };
                    let found = sums[step] + compensations[step];
                    let expected = expected.sum + expected.compensation;
                    prop_assert_eq!(bits(&[found]), bits(&[expected]));
                }
            }
        }
    }
}
