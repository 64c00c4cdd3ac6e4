//! Sums that keep what rounding loses, and quantiles.

/// A Kahan-Neumaier sum.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Kahan {
    /// The rounded sum.
    pub(in super::super) sum: f64,
    /// What it lacks.
    pub(in super::super) compensation: f64,
}

impl From<f64> for Kahan {
    fn from(sum: f64) -> Self {
        Self { sum, compensation: 0.0 }
    }
}

impl Kahan {
    /// Adds `value`.
    #[inline]
    pub(in super::super) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.compensation = 0.0;
        } else if value.abs() <= self.sum.abs() {
            self.compensation += (self.sum - total) + value;
        } else {
            self.compensation += (value - total) + self.sum;
        }
        self.sum = total;
    }

    /// The sum with what it lacks, unless it is infinite.
    pub(in super::super) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.compensation }
    }

    /// Both parts divided.
    pub(in super::super) fn divided(self, by: f64) -> Self {
        Self { sum: self.sum / by, compensation: self.compensation / by }
    }

    /// Both parts multiplied.
    pub(in super::super) fn scaled(self, by: f64) -> Self {
        Self { sum: by * self.sum, compensation: by * self.compensation }
    }
}

/// Ascending, NaN first.
pub(in super::super) fn ascending(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
        (a, b) => b.cmp(&a),
    }
}

/// The quantile of some values, weighted between neighbours; sorts them.
pub(in super::super) fn quantile(quantile: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || quantile.is_nan() {
        return f64::NAN;
    }
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if 1.0 < quantile {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| ascending(*a, *b));
    let last = (values.len() - 1) as f64;
    let rank = quantile * last;
    let lower = rank.floor().max(0.0);
    let upper = last.min(lower + 1.0);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}
