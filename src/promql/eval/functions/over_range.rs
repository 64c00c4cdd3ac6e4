//! Functions of a range vector: from the samples of a window to one value.

use crate::model::kahan::Kahan;
use crate::promql::ast::Boundary;
use crate::promql::engine::QueryError;

use super::super::absent;
use super::super::kernels::regular::{self, Regular};
use super::super::range::{Frame, Windows};
use super::numeric::quantile;
use super::rate;

/// The functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum RangeFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Changes,
    Resets,
    Deriv,
    PredictLinear,
    DoubleExponentialSmoothing,
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Stddev,
    Stdvar,
    Last,
    First,
    Present,
    Quantile,
    Mad,
    TsOfFirst,
    TsOfLast,
    TsOfMin,
    TsOfMax,
}

impl RangeFunction {
    /// The function of this name.
    pub(in super::super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "changes" => Self::Changes,
            "resets" => Self::Resets,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" => Self::DoubleExponentialSmoothing,
            "avg_over_time" => Self::Avg,
            "min_over_time" => Self::Min,
            "max_over_time" => Self::Max,
            "sum_over_time" => Self::Sum,
            "count_over_time" => Self::Count,
            "stddev_over_time" => Self::Stddev,
            "stdvar_over_time" => Self::Stdvar,
            "last_over_time" => Self::Last,
            "first_over_time" => Self::First,
            "present_over_time" => Self::Present,
            "quantile_over_time" => Self::Quantile,
            "mad_over_time" => Self::Mad,
            "ts_of_first_over_time" => Self::TsOfFirst,
            "ts_of_last_over_time" => Self::TsOfLast,
            "ts_of_min_over_time" => Self::TsOfMin,
            "ts_of_max_over_time" => Self::TsOfMax,
            _ => return None,
        })
    }

    /// Whether the result is a sample of the series as it was.
    pub(in super::super) fn keeps_name(self) -> bool {
        matches!(self, Self::Last | Self::First)
    }

    /// Whether only counters make sense.
    pub(in super::super) fn wants_counter(self) -> bool {
        matches!(self, Self::Rate | Self::Increase)
    }

    /// Fails when the function cannot be used with `anchored` or `smoothed`.
    pub(in super::super) fn assert_allows(self, boundary: Boundary) -> Result<(), QueryError> {
        let smoothable = matches!(self, Self::Rate | Self::Increase | Self::Delta);
        let anchorable = smoothable || matches!(self, Self::Changes | Self::Resets);
        let (word, functions) = match boundary {
            Boundary::Anchored if !anchorable => {
                ("anchored", "changes, delta, increase, rate, resets")
            }
            Boundary::Smoothed if !smoothable => ("smoothed", "delta, increase, rate"),
            _ => return Ok(()),
        };
        let name = self.name();
        Err(QueryError::Execution(format!(
            "{word} modifier can only be used with: {functions} - not with {name}"
        )))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Increase => "increase",
            Self::Delta => "delta",
            Self::Irate => "irate",
            Self::Idelta => "idelta",
            Self::Changes => "changes",
            Self::Resets => "resets",
            Self::Deriv => "deriv",
            Self::PredictLinear => "predict_linear",
            Self::DoubleExponentialSmoothing => "double_exponential_smoothing",
            Self::Avg => "avg_over_time",
            Self::Min => "min_over_time",
            Self::Max => "max_over_time",
            Self::Sum => "sum_over_time",
            Self::Count => "count_over_time",
            Self::Stddev => "stddev_over_time",
            Self::Stdvar => "stdvar_over_time",
            Self::Last => "last_over_time",
            Self::First => "first_over_time",
            Self::Present => "present_over_time",
            Self::Quantile => "quantile_over_time",
            Self::Mad => "mad_over_time",
            Self::TsOfFirst => "ts_of_first_over_time",
            Self::TsOfLast => "ts_of_last_over_time",
            Self::TsOfMin => "ts_of_min_over_time",
            Self::TsOfMax => "ts_of_max_over_time",
        }
    }
}

/// Samples between two looks whether the query is to end: less than a millisecond's work.
const POLL_SAMPLES: usize = 1 << 16;

/// One series and its windows.
pub(in super::super) struct Windowed<'a> {
    pub(in super::super) timestamps_ms: &'a [i64],
    /// When counting started, 0 where that is not known; empty where it is nowhere.
    pub(in super::super) starts_ms: &'a [i64],
    pub(in super::super) values: &'a [f64],
    pub(in super::super) windows: &'a Windows,
    pub(in super::super) frame: &'a Frame,
    /// Scalar arguments at each step.
    pub(in super::super) params: &'a [Vec<f64>],
    /// Whether the query is to end; then what is left need not be computed.
    pub(in super::super) is_over: &'a dyn Fn() -> bool,
}

/// The samples of one window: never none.
pub(super) struct Window<'a> {
    pub(super) step: usize,
    pub(super) timestamps_ms: &'a [i64],
    /// As many, or none.
    pub(super) starts_ms: &'a [i64],
    pub(super) values: &'a [f64],
}

impl Windowed<'_> {
    /// The borders of a step's window as positions.
    pub(super) fn bounds(&self, step: usize) -> (usize, usize) {
        (self.windows.first[step] as usize, self.windows.end[step] as usize)
    }

    fn param(&self, index: usize, step: usize) -> f64 {
        self.params[index][step]
    }

    /// Calls `function` for each window that has samples, until the query must end.
    pub(super) fn each(&self, out: &mut [f64], mut function: impl FnMut(Window<'_>) -> f64) {
        let mut left = POLL_SAMPLES;
        for (step, out) in out.iter_mut().enumerate() {
            let (first, end) = self.bounds(step);
            left = left.saturating_sub(end - first);
            if left == 0 {
                if (self.is_over)() {
                    return;
                }
                left = POLL_SAMPLES;
            }
            *out = if first < end {
                let timestamps_ms = &self.timestamps_ms[first..end];
                let starts_ms = self.starts_ms.get(first..end).unwrap_or_default();
                let values = &self.values[first..end];
                function(Window { step, timestamps_ms, starts_ms, values })
            } else {
                absent()
            };
        }
    }

    /// Evaluates all steps.
    pub(in super::super) fn evaluate(
        &self,
        function: RangeFunction,
        out: &mut [f64],
    ) -> Result<(), QueryError> {
        use RangeFunction as F;
        match function {
            F::Rate | F::Increase | F::Delta if self.frame.boundary != Boundary::Plain => {
                rate::extended(self, function, out);
            }
            F::Rate | F::Increase | F::Delta => rate::extrapolated(self, function, out),
            F::Irate => self.each(out, |window| rate::last_two(&window, true)),
            F::Idelta => self.each(out, |window| rate::last_two(&window, false)),
            F::Changes => rate::transitions(self, out, |at| {
                let (before, after) = (self.values[at - 1], self.values[at]);
                after != before && !(after.is_nan() && before.is_nan())
            }),
            F::Resets => rate::transitions(self, out, |at| rate::is_reset(self, at)),
            F::Deriv => self.each(out, |window| match window.timestamps_ms {
                [first, _, ..] => linear_regression(&window, *first).0,
                _ => absent(),
            }),
            F::PredictLinear => self.each(out, |window| {
                if window.values.len() < 2 {
                    return absent();
                }
                let now_ms = self.frame.steps.time(window.step);
                let (slope, intercept) = linear_regression(&window, now_ms);
                slope * self.param(0, window.step) + intercept
            }),
            F::DoubleExponentialSmoothing => return self.smooth(out),
            F::Quantile => {
                let mut sorted = Vec::new();
                self.each(out, |window| {
                    sorted.clear();
                    sorted.extend_from_slice(window.values);
                    quantile(self.param(0, window.step), &mut sorted)
                });
            }
            F::Mad => {
                let mut sorted = Vec::new();
                self.each(out, |window| median_deviation(window.values, &mut sorted));
            }
            _ => self.aggregate(function, out),
        }
        Ok(())
    }

    /// Evaluates several steps at a time where windows are alike, until the query must end.
    fn aggregate_regular(&self, function: RangeFunction, out: &mut [f64]) -> bool {
        use RangeFunction as F;
        // A single one has nobody beside it.
        let Some(windows) = self.windows.regular().filter(|_| 1 < out.len()) else { return false };
        let piece: fn(Regular, &[f64], &mut [f64]) = match function {
            F::Sum => regular::sums,
            F::Min => regular::least,
            F::Max => regular::greatest,
            F::Avg => regular::means,
            _ => return false,
        };
        let count = (POLL_SAMPLES / windows.width).max(regular::LANES);
        for (number, out) in out.chunks_mut(count).enumerate() {
            if 0 < number && (self.is_over)() {
                return true;
            }
            let first = windows.first + number * count * windows.stride;
            piece(Regular { first, ..windows }, self.values, out);
        }
        if function == F::Avg {
            // There the sum may have been too large.
            for (step, out) in out.iter_mut().enumerate().filter(|(_, out)| !out.is_finite()) {
                let (first, end) = self.bounds(step);
                *out = average(&self.values[first..end]);
            }
        }
        true
    }

    fn aggregate(&self, function: RangeFunction, out: &mut [f64]) {
        use RangeFunction as F;
        if self.aggregate_regular(function, out) {
            return;
        }
        match function {
            F::Avg => self.each(out, |window| average(window.values)),
            F::Sum => self.each(out, |window| sum(window.values)),
            F::Count => self.each(out, |window| window.values.len() as f64),
            F::Present => self.each(out, |_| 1.0),
            F::Min => self.each(out, |window| extreme(&window, |new, old| new < old).1),
            F::Max => self.each(out, |window| extreme(&window, |new, old| new > old).1),
            F::TsOfMin => {
                self.each(out, |window| seconds(extreme(&window, |new, old| new <= old).0));
            }
            F::TsOfMax => {
                self.each(out, |window| seconds(extreme(&window, |new, old| new >= old).0));
            }
            F::First => self.each(out, |window| window.values[0]),
            F::Last => self.each(out, |window| window.values[window.values.len() - 1]),
            F::TsOfFirst => self.each(out, |window| seconds(window.timestamps_ms[0])),
            F::TsOfLast => {
                self.each(out, |window| seconds(window.timestamps_ms[window.values.len() - 1]));
            }
            F::Stdvar => self.each(out, |window| variance(window.values)),
            F::Stddev => self.each(out, |window| variance(window.values).sqrt()),
            _ => unreachable!("evaluated elsewhere"),
        }
    }

    fn smooth(&self, out: &mut [f64]) -> Result<(), QueryError> {
        let mut failure = None;
        self.each(out, |window| {
            let (smoothing, trend) = (self.param(0, window.step), self.param(1, window.step));
            let fail = |what: &str, short: &str, got: f64| {
                let got = if got.is_finite() {
                    format!("{got:.6}")
                } else {
                    super::super::format::general(got)
                };
                format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {got}")
            };
            if smoothing <= 0.0 || 1.0 <= smoothing {
                failure.get_or_insert_with(|| fail("smoothing", "sf", smoothing));
            } else if trend <= 0.0 || 1.0 <= trend {
                failure.get_or_insert_with(|| fail("trend", "tf", trend));
            }
            double_exponential(window.values, smoothing, trend)
        });
        failure.map_or(Ok(()), |text| Err(QueryError::Execution(text)))
    }
}

fn seconds(timestamp_ms: i64) -> f64 {
    timestamp_ms as f64 / 1000.0
}

fn sum(values: &[f64]) -> f64 {
    let mut sum = Kahan::default();
    for value in values {
        sum.add(*value);
    }
    sum.total()
}

/// The mean, from the sum as long as that does not overflow.
fn average(values: &[f64]) -> f64 {
    let mut sum = Kahan::from(values[0]);
    let mut mean: Option<Kahan> = None;
    let mut count = 1.0;
    for value in &values[1..] {
        count += 1.0;
        if mean.is_none() {
            let mut next = sum;
            next.add(*value);
            if !next.sum.is_infinite() {
                sum = next;
                continue;
            }
        }
        let running = mean.get_or_insert(sum.divided(count - 1.0));
        *running = running.scaled((count - 1.0) / count);
        running.add(value / count);
    }
    match mean {
        Some(mean) => mean.sum + mean.compensation,
        None => sum.sum / count + sum.compensation / count,
    }
}

/// The first (or with a comparison that admits equals, the last) extreme and its timestamp.
fn extreme(window: &Window<'_>, better: impl Fn(f64, f64) -> bool) -> (i64, f64) {
    let mut best = (window.timestamps_ms[0], window.values[0]);
    for (timestamp_ms, value) in window.timestamps_ms.iter().zip(window.values) {
        if better(*value, best.1) || best.1.is_nan() {
            best = (*timestamp_ms, *value);
        }
    }
    best
}

fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (Kahan::default(), Kahan::default());
    let mut count = 0.0;
    for value in values {
        count += 1.0;
        let delta = value - (mean.sum + mean.compensation);
        mean.add(delta / count);
        squares.add(delta * (value - (mean.sum + mean.compensation)));
    }
    (squares.sum + squares.compensation) / count
}

/// Median of the distances from the median.
fn median_deviation(values: &[f64], sorted: &mut Vec<f64>) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    sorted.clear();
    sorted.extend_from_slice(values);
    let median = quantile(0.5, sorted);
    for value in sorted.iter_mut() {
        *value = (*value - median).abs();
    }
    quantile(0.5, sorted)
}

fn double_exponential(values: &[f64], smoothing: f64, trend: f64) -> f64 {
    let [first, second, ..] = values else { return absent() };
    let (mut before, mut level) = (0.0, *first);
    let mut slope = second - first;
    for (index, value) in values.iter().enumerate().skip(1) {
        let scaled = smoothing * value;
        if 1 < index {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let carried = (1.0 - smoothing) * (level + slope);
        (before, level) = (level, scaled + carried);
    }
    level
}

/// Slope and the value at `intercept_ms` of the least-squares line.
fn linear_regression(window: &Window<'_>, intercept_ms: i64) -> (f64, f64) {
    let first = window.values[0];
    if window.values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut x_sum, mut y_sum) = (Kahan::default(), Kahan::default());
    let (mut xy_sum, mut xx_sum) = (Kahan::default(), Kahan::default());
    let mut count = 0.0;
    for (timestamp_ms, y) in window.timestamps_ms.iter().zip(window.values) {
        count += 1.0;
        let x = (timestamp_ms - intercept_ms) as f64 / 1e3;
        x_sum.add(x);
        y_sum.add(*y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let total = |kahan: Kahan| kahan.sum + kahan.compensation;
    let (x, y, xy, xx) = (total(x_sum), total(y_sum), total(xy_sum), total(xx_sum));
    let covariance = xy - x * y / count;
    let variance = xx - x * x / count;
    let slope = covariance / variance;
    (slope, y / count - slope * x / count)
}
