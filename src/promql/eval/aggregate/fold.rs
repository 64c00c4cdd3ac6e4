//! What is kept for each group and step while series are folded into it.

use crate::model::kahan::Kahan;

use super::super::absent;

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

/// One value of the result in the making.
pub(super) trait Cell: Copy {
    /// Nothing added yet.
    const EMPTY: Self;

    /// What is done with a histogram.
    const ON_HISTOGRAM: OnHistogram;

    /// Takes in one value.
    fn add(&mut self, value: f64);

    /// The result; absent when nothing was added.
    fn finish(&self) -> f64;
}

#[derive(Clone, Copy)]
pub(super) struct Sum {
    sum: Kahan,
    seen: bool,
}

impl Cell for Sum {
    const EMPTY: Self = Self { sum: Kahan::ZERO, seen: false };
    const ON_HISTOGRAM: OnHistogram = OnHistogram::Sum;

    fn add(&mut self, value: f64) {
        if self.seen {
            self.sum.add(value);
        } else {
            *self = Self { sum: value.into(), seen: true };
        }
    }

    fn finish(&self) -> f64 {
        if self.seen { self.sum.sum + self.sum.compensation } else { absent() }
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

    fn finish(&self) -> f64 {
        if self.0.count == 0.0 { absent() } else { self.0.finish().sqrt() }
    }
}
