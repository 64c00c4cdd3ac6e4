//! Functions of the samples in a window.

use narthex::model::histogram::{Histogram, ResetHint};

use super::{Samples, Value};

/// The samples of a series in one range.
pub struct Window {
    pub samples: Samples,
    /// Exclusive.
    pub start_ms: i64,
    pub end_ms: i64,
    /// The moment of the evaluation.
    pub now_ms: i64,
    /// The scalar argument, if there is one.
    pub param: f64,
}

impl Window {
    /// The value of a function.
    pub fn value(&self, name: &str) -> Option<Value> {
        let floats: Vec<f64> = self.samples.iter().filter_map(|(_, value)| value.float()).collect();
        let (first, last) = (self.samples.first()?, self.samples.last()?);
        let number = |value: Option<f64>| value.map(Value::Float);
        match name {
            "rate" | "increase" | "delta" => self.change(name),
            "irate" | "idelta" => self.last_change(name == "irate"),
            "changes" => Some(self.pairs(differ).into()),
            "resets" => Some(self.pairs(is_reset).into()),
            "count_over_time" => Some((self.samples.len() as f64).into()),
            "present_over_time" | "absent_over_time" => Some(1.0.into()),
            "first_over_time" => Some(first.1.clone()),
            "last_over_time" => Some(last.1.clone()),
            "ts_of_first_over_time" => Some((first.0 as f64 / 1000.0).into()),
            "ts_of_last_over_time" => Some((last.0 as f64 / 1000.0).into()),
            "sum_over_time" => sum(&self.samples),
            "avg_over_time" => average(&self.samples),
            "min_over_time" => number(extreme(&floats, |new, old| new < old)),
            "max_over_time" => number(extreme(&floats, |new, old| new > old)),
            "stdvar_over_time" => number(variance(&floats)),
            "stddev_over_time" => number(variance(&floats).map(f64::sqrt)),
            "quantile_over_time" => number(quantile(self.param, &floats)),
            "deriv" => number(self.line(None).map(|(slope, _)| slope)),
            "predict_linear" => {
                let line = self.line(Some(self.now_ms));
                number(line.map(|(slope, now)| slope * self.param + now))
            }
            other => panic!("not generated: {other}"),
        }
    }

    fn pairs(&self, counts: impl Fn(&Value, &Value) -> bool) -> f64 {
        self.samples.windows(2).filter(|pair| counts(&pair[0].1, &pair[1].1)).count() as f64
    }

    fn is_mixed(&self) -> bool {
        let floats = self.samples.iter().filter(|(_, value)| value.float().is_some()).count();
        0 < floats && floats < self.samples.len()
    }

    /// What was added, stretched to the borders of the range.
    fn change(&self, name: &str) -> Option<Value> {
        let counter = name != "delta";
        let [first, .., last] = &self.samples[..] else { return None };
        if self.is_mixed() {
            return None;
        }
        let (change, first_count, total) = match (&first.1, &last.1) {
            (Value::Float(first), Value::Float(last)) => {
                let mut change = last - first;
                for pair in self.samples.windows(2).filter(|_| counter) {
                    if is_reset(&pair[0].1, &pair[1].1) {
                        change += pair[0].1.float()?;
                    }
                }
                (Value::Float(change), *first, change)
            }
            (Value::Histogram(first), _) => {
                let change = self.histogram_change(counter)?;
                (Value::from(change.clone()), first.count, change.count)
            }
            _ => return None,
        };
        let seconds = |from: i64, to: i64| (to - from) as f64 / 1000.0;
        let sampled = seconds(first.0, last.0);
        let gap = sampled / (self.samples.len() - 1) as f64;
        let reach = |distance: f64| if distance < gap * 1.1 { distance } else { gap / 2.0 };
        let mut before = reach(seconds(self.start_ms, first.0));
        if counter && 0.0 < total && 0.0 <= first_count {
            before = before.min(sampled * (first_count / total));
        }
        let after = reach(seconds(last.0, self.end_ms));
        let mut factor = (sampled + before + after) / sampled;
        if name == "rate" {
            factor /= seconds(self.start_ms, self.end_ms);
        }
        Some(match change {
            Value::Float(change) => (change * factor).into(),
            Value::Histogram(change) => change.scaled(factor).into(),
        })
    }

    fn histogram_change(&self, counter: bool) -> Option<Histogram> {
        let all: Vec<&Histogram> =
            self.samples.iter().filter_map(|(_, one)| histogram(one)).collect();
        let last = *all.last()?;
        let mut first = all[0].clone();
        if counter && all[1].is_reset_since(&first) {
            let schema = all[1].schema;
            let custom_bounds = all[1].custom_bounds.clone();
            first = Histogram { schema, custom_bounds, ..Histogram::default() };
        }
        let kind = first.has_custom_buckets();
        let relevant = if counter { &all[1..] } else { &all[all.len() - 1..] };
        if relevant.iter().any(|one| one.has_custom_buckets() != kind) {
            return None;
        }
        let mut change = last.subtract(&first).ok()?.0;
        let mut before = &first;
        for one in all[1..].iter().filter(|_| counter) {
            if one.is_reset_since(before) {
                change = change.add(before).ok()?.0;
            }
            before = one;
        }
        change.reset_hint = ResetHint::Gauge;
        Some(change)
    }

    /// Between the last two samples.
    fn last_change(&self, is_rate: bool) -> Option<Value> {
        let [.., (before_ms, before), (last_ms, last)] = &self.samples[..] else { return None };
        let seconds = (last_ms - before_ms) as f64 / 1000.0;
        let reset = is_rate && is_reset(before, last);
        match (before, last) {
            (Value::Float(before), Value::Float(last)) => {
                let change = if reset { *last } else { last - before };
                Some((if is_rate { change / seconds } else { change }).into())
            }
            (Value::Histogram(before), Value::Histogram(last)) => {
                let mut change =
                    if reset { Histogram::clone(last) } else { last.subtract(before).ok()?.0 };
                change.reset_hint = ResetHint::Gauge;
                Some(if is_rate { change.divided(seconds) } else { change }.into())
            }
            _ => None,
        }
    }

    /// Slope of the least-squares line of the floats, and its value at a moment (or the first).
    fn line(&self, at_ms: Option<i64>) -> Option<(f64, f64)> {
        let floats =
            self.samples.iter().filter_map(|(at_ms, value)| Some((*at_ms, value.float()?)));
        let points: Vec<(i64, f64)> = floats.collect();
        let [first, _, ..] = points[..] else { return None };
        if points.iter().all(|point| point.1 == first.1) {
            return Some(if first.1.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first.1) });
        }
        let count = points.len() as f64;
        let origin_ms = at_ms.unwrap_or(first.0);
        let x = |point: &(i64, f64)| (point.0 - origin_ms) as f64 / 1000.0;
        if points.iter().any(|point| !point.1.is_finite()) {
            return Some(line_through_sums(&points, x));
        }
        let x_mean = points.iter().map(x).sum::<f64>() / count;
        let y_mean = points.iter().map(|point| point.1).sum::<f64>() / count;
        let both = points.iter().map(|point| (x(point) - x_mean) * (point.1 - y_mean)).sum::<f64>();
        let slope = both / points.iter().map(|point| (x(point) - x_mean).powi(2)).sum::<f64>();
        Some((slope, y_mean - slope * x_mean))
    }
}

/// The same from plain sums, as infinities make a difference there.
fn line_through_sums(points: &[(i64, f64)], x: impl Fn(&(i64, f64)) -> f64) -> (f64, f64) {
    let sum = |term: &dyn Fn(&(i64, f64)) -> f64| points.iter().map(term).sum::<f64>();
    let count = points.len() as f64;
    let (x_sum, y_sum) = (sum(&x), sum(&|point| point.1));
    let (products, squares) = (sum(&|point| x(point) * point.1), sum(&|point| x(point).powi(2)));
    let slope = (products - x_sum * y_sum / count) / (squares - x_sum * x_sum / count);
    (slope, y_sum / count - slope * x_sum / count)
}

fn histogram(value: &Value) -> Option<&Histogram> {
    if let Value::Histogram(one) = value { Some(one) } else { None }
}

fn is_reset(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Float(before), Value::Float(after)) => after < before,
        (Value::Histogram(before), Value::Histogram(after)) => after.is_reset_since(before),
        _ => true,
    }
}

fn differ(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Float(before), Value::Float(after)) => {
            before != after && !(before.is_nan() && after.is_nan())
        }
        (Value::Histogram(before), Value::Histogram(after)) => !before.has_same_values(after),
        _ => true,
    }
}

/// The sum of floats or of histograms; of both there is none.
pub fn sum(samples: &Samples) -> Option<Value> {
    let mut rest = samples.iter().map(|(_, value)| value.clone());
    let mut total = rest.next()?;
    for value in rest {
        total = match (total, value) {
            (Value::Float(a), Value::Float(b)) => (a + b).into(),
            (Value::Histogram(a), Value::Histogram(b)) => a.add(&b).ok()?.0.into(),
            _ => return None,
        };
    }
    Some(match total {
        Value::Histogram(one) => Histogram::clone(&one).compacted().into(),
        float @ Value::Float(_) => float,
    })
}

/// The mean, likewise.
pub fn average(samples: &Samples) -> Option<Value> {
    let count = samples.len() as f64;
    Some(match sum(samples)? {
        Value::Float(sum) => (sum / count).into(),
        Value::Histogram(sum) => sum.divided(count).into(),
    })
}

/// The best value; NaN only if there is nothing else.
pub fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> Option<f64> {
    let numbers = values.iter().copied().filter(|value| !value.is_nan());
    let best = numbers.reduce(|old, new| if better(new, old) { new } else { old });
    best.or(values.first().copied())
}

/// The population variance; of anything infinite there is none.
pub fn variance(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (!values.is_empty()).then(|| if mean.is_finite() { squares / count } else { f64::NAN })
}

/// The quantile, weighted between neighbours; NaN is less than any number.
pub fn quantile(quantile: f64, values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.total_cmp(b),
        (a, b) => b.cmp(&a),
    });
    let last = sorted.len().checked_sub(1)?;
    let rank = quantile * last as f64;
    let (below, weight) = (rank.floor() as usize, rank - rank.floor());
    Some(sorted[below] * (1.0 - weight) + sorted[last.min(below + 1)] * weight)
}
