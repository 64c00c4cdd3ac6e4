//! Sums that keep what rounding loses.

/// A Kahan-Neumaier sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kahan {
    /// The rounded sum.
    pub sum: f64,
    /// What it lacks.
    pub compensation: f64,
}

impl From<f64> for Kahan {
    fn from(sum: f64) -> Self {
        Self { sum, compensation: 0.0 }
    }
}

impl Kahan {
    /// Nothing added yet.
    pub const ZERO: Self = Self { sum: 0.0, compensation: 0.0 };

    /// Adds `value`.
    #[inline]
    pub fn add(&mut self, value: f64) {
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

    /// Adds another sum with what it lacks.
    pub fn merge(&mut self, other: Self) {
        self.add(other.sum);
        if other.compensation != 0.0 {
            self.add(other.compensation);
        }
    }

    /// The sum with what it lacks, unless it is infinite.
    pub fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.compensation }
    }

    /// Both parts divided.
    #[must_use]
    pub fn divided(self, by: f64) -> Self {
        Self { sum: self.sum / by, compensation: self.compensation / by }
    }

    /// Both parts multiplied.
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self { sum: by * self.sum, compensation: by * self.compensation }
    }
}
