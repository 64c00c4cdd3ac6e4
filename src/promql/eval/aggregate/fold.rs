//! What is kept for each group and step while series are folded into it.

use crate::model::kahan::Kahan;

use super::super::kernels::{self, AddColumn};
use super::super::{absent, is_absent};

/// What an aggregation does with a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnHistogram {
    /// It counts as a value like any other.
    Count,
    /// It is left out; the name of the aggregation.
    Ignore(&'static str),
    Sum,
    Mean,
}

/// Values of the result in the making, by group and step.
pub(super) trait Cells: Default + Send {
    /// What is done with a histogram.
    const ON_HISTOGRAM: OnHistogram;

    /// What one takes in memory.
    const BYTES: usize;

    fn len(&self) -> usize;

    /// Adds empty ones.
    fn grow(&mut self, count: usize);

    /// Takes in the values that are there, from a place on.
    fn add(&mut self, place: usize, values: &[f64]);

    /// Takes in what `other` has taken in at `from` and after it.
    fn merge(&mut self, place: usize, other: &Self, from: usize, count: usize);

    /// The result; absent when nothing was added.
    fn finish(&self, place: usize) -> f64;
}

/// One value of the result in the making.
pub(super) trait Cell: Copy + Send {
    /// Nothing added yet.
    const EMPTY: Self;

    /// What is done with a histogram.
    const ON_HISTOGRAM: OnHistogram;

    /// Takes in one value.
    fn add(&mut self, value: f64);

    /// Takes in what another, not empty one has taken in after this.
    fn merge(&mut self, other: &Self);

    /// The result; absent when nothing was added.
    fn finish(&self) -> f64;
}

impl<C: Cell> Cells for Vec<C> {
    const ON_HISTOGRAM: OnHistogram = C::ON_HISTOGRAM;
    const BYTES: usize = size_of::<C>();

    fn len(&self) -> usize {
        self.len()
    }

    fn grow(&mut self, count: usize) {
        self.resize(count, C::EMPTY);
    }

    fn add(&mut self, place: usize, values: &[f64]) {
        for (cell, value) in self[place..].iter_mut().zip(values) {
            if !is_absent(*value) {
                cell.add(*value);
            }
        }
    }

    fn merge(&mut self, place: usize, other: &Self, from: usize, count: usize) {
        let others = &other[from..from + count];
        for (cell, other) in self[place..].iter_mut().zip(others) {
            if !is_absent(other.finish()) {
                cell.merge(other);
            }
        }
    }

    fn finish(&self, place: usize) -> f64 {
        self[place].finish()
    }
}

/// Sums, as columns: their loop is the innermost one of most queries.
#[derive(Default)]
pub(super) struct Sums {
    totals: Vec<f64>,
    compensations: Vec<f64>,
    seen: Vec<u64>,
}

impl Sums {
    fn kahan(&self, place: usize) -> Option<Kahan> {
        let (sum, compensation) = (self.totals[place], self.compensations[place]);
        (self.seen[place] != 0).then_some(Kahan { sum, compensation })
    }
}

impl Cells for Sums {
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Sum;
    const BYTES: usize = 3 * size_of::<f64>();

    fn len(&self) -> usize {
        self.totals.len()
    }

    fn grow(&mut self, count: usize) {
        // Nothing changes when anything is added to -0.
        self.totals.resize(count, -0.0);
        self.compensations.resize(count, 0.0);
        self.seen.resize(count, 0);
    }

    fn add(&mut self, place: usize, values: &[f64]) {
        kernels::add_column(AddColumn {
            sums: &mut self.totals[place..],
            compensations: &mut self.compensations[place..],
            seen: &mut self.seen[place..],
            values,
        });
    }

    fn merge(&mut self, place: usize, other: &Self, from: usize, count: usize) {
        for (at, from) in (place..).zip(from..from + count) {
            let Some(other) = other.kahan(from) else { continue };
            let sum = match self.kahan(at) {
                Some(mut sum) => {
                    sum.merge(other);
                    sum
                }
                None => other,
            };
            self.totals[at] = sum.sum;
            self.compensations[at] = sum.compensation;
            self.seen[at] = u64::MAX;
        }
    }

    fn finish(&self, place: usize) -> f64 {
        self.kahan(place).map_or_else(absent, |sum| sum.sum + sum.compensation)
    }
}

/// The mean: of the sum, or from the value on that would make the sum overflow, incremental.
#[derive(Clone, Copy)]
pub(super) struct Average {
    /// The sum, or the mean so far.
    value: Kahan,
    count: f64,
    incremental: bool,
}

impl Average {
    fn mean(&self) -> Kahan {
        if self.incremental { self.value } else { self.value.divided(self.count) }
    }
}

impl Cell for Average {
    const EMPTY: Self = Self { value: Kahan::ZERO, count: 0.0, incremental: false };
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Mean;

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.value = value.into();
            return;
        }
        if !self.incremental {
            let mut next = self.value;
            next.add(value);
            if !next.sum.is_infinite() {
                self.value = next;
                return;
            }
            self.incremental = true;
            self.value = self.value.divided(self.count - 1.0);
        }
        self.value = self.value.scaled((self.count - 1.0) / self.count);
        self.value.add(value / self.count);
    }

    fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        if self.count == 0.0 {
            *self = *other;
            return;
        }
        if !self.incremental && !other.incremental {
            let mut sum = self.value;
            sum.merge(other.value);
            if !sum.sum.is_infinite() {
                *self = Self { value: sum, count, incremental: false };
                return;
            }
        }
        let mut mean = self.mean().scaled(self.count / count);
        mean.merge(other.mean().scaled(other.count / count));
        *self = Self { value: mean, count, incremental: true };
    }

    fn finish(&self) -> f64 {
        if self.count == 0.0 {
            absent()
        } else if self.incremental {
            self.value.sum + self.value.compensation
        } else {
            self.value.sum / self.count + self.value.compensation / self.count
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Count(u32);

impl Cell for Count {
    const EMPTY: Self = Self(0);
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Count;

    fn add(&mut self, _: f64) {
        self.0 += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.0 += other.0;
    }

    fn finish(&self) -> f64 {
        if self.0 == 0 { absent() } else { f64::from(self.0) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Group(bool);

impl Cell for Group {
    const EMPTY: Self = Self(false);
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Count;

    fn add(&mut self, _: f64) {
        self.0 = true;
    }

    fn merge(&mut self, other: &Self) {
        self.0 |= other.0;
    }

    fn finish(&self) -> f64 {
        if self.0 { 1.0 } else { absent() }
    }
}

/// The least value; NaN only when there is nothing else.
#[derive(Clone, Copy)]
pub(super) struct Min(Option<f64>);

impl Cell for Min {
    const EMPTY: Self = Self(None);
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Ignore("min");

    fn add(&mut self, value: f64) {
        if self.0.is_none_or(|least| value < least || least.is_nan()) {
            self.0 = Some(value);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.add(other.finish());
    }

    fn finish(&self) -> f64 {
        self.0.unwrap_or_else(absent)
    }
}

/// The greatest value; NaN only when there is nothing else.
#[derive(Clone, Copy)]
pub(super) struct Max(Option<f64>);

impl Cell for Max {
    const EMPTY: Self = Self(None);
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Ignore("max");

    fn add(&mut self, value: f64) {
        if self.0.is_none_or(|greatest| value > greatest || greatest.is_nan()) {
            self.0 = Some(value);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.add(other.finish());
    }

    fn finish(&self) -> f64 {
        self.0.unwrap_or_else(absent)
    }
}

/// Population variance, by Welford.
#[derive(Clone, Copy)]
pub(super) struct Stdvar {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Cell for Stdvar {
    const EMPTY: Self = Self { count: 0.0, mean: 0.0, squares: 0.0 };
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Ignore("stdvar");

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = value;
            self.squares = if value.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn merge(&mut self, other: &Self) {
        if self.count == 0.0 {
            *self = *other;
            return;
        }
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        self.squares += other.squares + delta * delta * (self.count * other.count / count);
        self.mean += delta * (other.count / count);
        self.count = count;
    }

    fn finish(&self) -> f64 {
        if self.count == 0.0 { absent() } else { self.squares / self.count }
    }
}

/// Population standard deviation.
#[derive(Clone, Copy)]
pub(super) struct Stddev(Stdvar);

impl Cell for Stddev {
    const EMPTY: Self = Self(Stdvar::EMPTY);
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Ignore("stddev");

    fn add(&mut self, value: f64) {
        self.0.add(value);
    }

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn finish(&self) -> f64 {
        if self.0.count == 0.0 { absent() } else { self.0.finish().sqrt() }
    }
}
