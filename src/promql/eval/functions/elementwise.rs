//! Functions from one value to one value: mathematics, rounding, parts of dates.

use super::super::duration::{go_max, go_min};
use super::super::{Steps, absent, is_absent};
use super::time;

/// A function with its scalar arguments at each step.
pub(super) enum Elementwise {
    Plain(fn(f64) -> f64),
    /// To the nearest multiple of this.
    Round(Vec<f64>),
    /// Between these two.
    Clamp(Vec<f64>, Vec<f64>),
    /// The moment of the evaluation, whatever the value.
    Now(Steps),
}

impl Elementwise {
    /// Whether there is such a function.
    pub(super) fn exists(name: &str) -> bool {
        plain(name).is_some() || matches!(name, "round" | "clamp" | "clamp_min" | "clamp_max")
    }

    /// The function of this name.
    pub(super) fn named(name: &str, params: Vec<Vec<f64>>, steps: Steps) -> Option<Self> {
        let mut params = params.into_iter();
        let constant = |value| vec![value; steps.count];
        Some(match name {
            "timestamp" => Self::Now(steps),
            "round" => Self::Round(params.next().unwrap_or_else(|| constant(1.0))),
            "clamp" => Self::Clamp(params.next()?, params.next()?),
            "clamp_min" => Self::Clamp(params.next()?, constant(f64::INFINITY)),
            "clamp_max" => Self::Clamp(constant(f64::NEG_INFINITY), params.next()?),
            _ => Self::Plain(plain(name)?),
        })
    }

    /// Replaces each value that is there.
    pub(super) fn apply(&self, values: &mut [f64]) {
        let present = values.iter_mut().enumerate().filter(|(_, value)| !is_absent(**value));
        match self {
            Self::Plain(function) => present.for_each(|(_, value)| *value = function(*value)),
            Self::Round(nearest) => present.for_each(|(step, value)| {
                let inverse = 1.0 / nearest[step];
                *value = (*value * inverse + 0.5).floor() / inverse;
            }),
            Self::Clamp(low, high) => present.for_each(|(step, value)| {
                let (low, high) = (low[step], high[step]);
                *value = if high < low { absent() } else { go_max(low, go_min(high, *value)) };
            }),
            Self::Now(steps) => {
                present.for_each(|(step, value)| *value = steps.time(step) as f64 / 1000.0);
            }
        }
    }
}

fn plain(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        // A NaN without its sign may be the marker of absence.
        "abs" => |value| if value.is_nan() { value } else { value.abs() },
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "sgn" => |value| {
            if value < 0.0 {
                -1.0
            } else if 0.0 < value {
                1.0
            } else {
                value
            }
        },
        _ => return time::part(name),
    })
}
