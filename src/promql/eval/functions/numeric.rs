//! Quantiles.

/// Ascending, NaN first, zeros by their signs.
fn rank(value: f64) -> u64 {
    if value.is_nan() {
        return 0;
    }
    let bits = value.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The quantile of some values, weighted between neighbours; changes their order.
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
    let place = quantile * (values.len() - 1) as f64;
    let weight = place - place.floor();
    let at = place.floor() as usize;
    let (_, lower, above) = values.select_nth_unstable_by_key(at, |value| rank(*value));
    let upper = above.iter().copied().min_by_key(|value| rank(*value)).unwrap_or(*lower);
    *lower * (1.0 - weight) + upper * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascending(a: f64, b: f64) -> std::cmp::Ordering {
        b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal))
    }

    #[test]
    fn quantiles_lie_between_sorted_neighbours() {
        let odd = [f64::NAN, -f64::NAN, f64::NEG_INFINITY, f64::INFINITY, -1e-310, 0.5, -2.0];
        for count in 1..60_usize {
            let all: Vec<f64> = (0..count).map(|at| ((at * 37 % 60) as f64).sin()).collect();
            let mixed = all.iter().chain(&odd).copied().collect();
            for values in [all, mixed] {
                let mut sorted = values.clone();
                sorted.sort_by(|a, b| ascending(*a, *b));
                for share in [0.0, 0.1, 0.25, 0.5, 0.95, 1.0] {
                    let place = share * (sorted.len() - 1) as f64;
                    let lower = sorted[place as usize];
                    let upper = sorted.get(place as usize + 1).copied().unwrap_or(lower);
                    let expected = lower * (1.0 - place.fract()) + upper * place.fract();
                    let found = quantile(share, &mut values.clone());
                    let is_same = found == expected || found.is_nan() && expected.is_nan();
                    assert!(is_same, "{share} of {count}: {found} {expected}");
                }
            }
        }
    }
}
