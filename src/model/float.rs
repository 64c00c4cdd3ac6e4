//! Floats as text, the way Go prints and Prometheus reads them.

/// Shortest text that reads back as the same float, without exponent
/// (`strconv.FormatFloat(v, 'f', -1, 64)`); `NaN`, `+Inf`, `-Inf`.
pub fn format_plain(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value}")
}

/// Shortest text with exponent (`strconv.FormatFloat(v, 'e', -1, 64)`): `1e+00`, `1.5e-07`.
pub fn format_exponent(value: f64) -> String {
    if !value.is_finite() {
        return format_plain(value);
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').expect("{:e} prints an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} prints a decimal exponent");
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// As Prometheus' JSON API prints sample values: plain, but with exponent below 1e-6 and from
/// 1e21 on, where the exponent has no leading zero.
pub fn format_json(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        return if magnitude >= 1.0 { text.replace('e', "e+") } else { text };
    }
    format_plain(value)
}

/// Reads a float as the exposition formats and PromQL spell it: decimal or exponent form, `Inf`,
/// `+Inf`, `-inf`, `NaN` in any case, hexadecimal integers only where `PromQL` allows them (not here).
pub fn parse(text: &str) -> Option<f64> {
    // Rust's own parser takes `inf`, `infinity` and `nan` in any case, as Go's does, and no `_`.
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_like_go() {
        assert_eq!(format_plain(1e21), "1000000000000000000000");
        assert_eq!(format_plain(-0.0), "-0");
        assert_eq!(format_exponent(1.0), "1e+00");
        assert_eq!(format_exponent(1.5e-7), "1.5e-07");
        assert_eq!(format_exponent(1e100), "1e+100");
        assert_eq!(format_json(1e21), "1e+21");
        assert_eq!(format_json(1.5e-7), "1.5e-7");
        assert_eq!(format_json(0.000_001), "0.000001");
        assert_eq!(format_json(f64::NEG_INFINITY), "-Inf");
        assert_eq!(format_json(0.0), "0");
    }
}
