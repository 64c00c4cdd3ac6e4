//! Quantiles, and the order of values.

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
