//! Floats as text, the way Go prints and Prometheus reads them.

/// Shortest text that reads back as the same float, without exponent
/// (`strconv.FormatFloat(v, 'f', -1, 64)`); `NaN`, `+Inf`, `-Inf`.
pub fn format_plain(value: f64) -> String {
    let mut out = String::new();
    push_plain(value, &mut out);
    out
}

fn push_plain(value: f64, out: &mut String) {
    let magnitude = value.abs();
    // Zero is left out for its sign.
    if (1.0..1e15).contains(&magnitude) && magnitude.fract() == 0.0 {
        out.push_str(itoa::Buffer::new().format(value as i64));
        return;
    }
    if !value.is_finite() {
        let sign = if value > 0.0 { "+Inf" } else { "-Inf" };
        out.push_str(if value.is_nan() { "NaN" } else { sign });
        return;
    }
    // Of two shortest texts that are equally near it takes the even one, as Go does.
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().unwrap_or(0)),
        None => (text, 0),
    };
    let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
    if exponent == 0 { out.push_str(mantissa) } else { push_shifted(mantissa, exponent, out) }
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

/// As Go's `%g` and `%v` print it: shortest text, with an exponent below 1e-4 and from 1e6 on where
/// that is shorter; `1e+06`, `123456`.
pub fn format_general(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return format_plain(value);
    }
    let text = format_exponent(value);
    let exponent = text.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    if exponent.is_some_and(|exponent| (-4..6).contains(&exponent)) {
        format_plain(value)
    } else {
        text
    }
}

/// As Prometheus' JSON API prints sample values: plain, but with exponent below 1e-6 and from
/// 1e21 on, where the exponent has no leading zero.
pub fn format_json(value: f64) -> String {
    let mut out = String::new();
    push_json(value, &mut out);
    out
}

/// The same, handed to `take`.
pub fn with_json<T>(value: f64, take: impl FnOnce(&str) -> T) -> T {
    if value.to_bits() == 0 {
        return take("0");
    }
    let magnitude = value.abs();
    if (1.0..1e15).contains(&magnitude) && value as i64 as f64 == value {
        return take(itoa::Buffer::new().format(value as i64));
    }
    // Those that are not whole are printed without exponent here.
    if (1e-5..1e15).contains(&magnitude) {
        return take(zmij::Buffer::new().format_finite(value));
    }
    let mut text = String::new();
    push_json(value, &mut text);
    take(&text)
}

fn push_json(value: f64, out: &mut String) {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        push_plain(value, out);
        return;
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} prints an exponent");
    out.push_str(mantissa);
    out.push_str(if magnitude < 1.0 { "e" } else { "e+" });
    out.push_str(exponent);
}

/// A number with its point moved; the mantissa has one digit before the point.
fn push_shifted(mantissa: &str, exponent: i32, out: &mut String) {
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    if digits.len() < mantissa.len() {
        out.push('-');
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let zeros = |out: &mut String, count: usize| out.extend(std::iter::repeat_n('0', count));
    let shift = exponent.unsigned_abs() as usize;
    if exponent < 0 {
        out.push_str("0.");
        zeros(out, shift - 1);
        out.push_str(whole);
        out.push_str(fraction);
        return;
    }
    out.push_str(whole);
    let (before, after) = fraction.split_at(fraction.len().min(shift));
    out.push_str(before);
    zeros(out, shift - before.len());
    if !after.is_empty() {
        out.push('.');
        out.push_str(after);
    }
}

/// Reads a float as the exposition formats and PromQL spell it: decimal or exponent form, `Inf`,
/// `+Inf`, `-inf`, `NaN` in any case, hexadecimal integers only where `PromQL` allows them (not here).
pub fn parse(text: &str) -> Option<f64> {
    // Rust's own parser takes `inf`, `infinity` and `nan` in any case, as Go's does, and no `_`.
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(format_json(-0.0), "-0");
        assert_eq!(format_json(-1.25e20), "-125000000000000000000");
        assert_eq!(format_json(563_199_693_118_487.0 + 0.25), "563199693118487.2");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn floats_are_printed_short_and_read_back(
            any in prop::num::f64::ANY,
            mantissa in -9_999_999_999_999_999_i64..10_000_000_000_000_000,
            exponent in -24..8,
            whole in -9_999_999..9_999_999_i64,
        ) {
            let near = format!("{mantissa}e{exponent}").parse().unwrap_or(0.0);
            for value in [any, near, near.trunc(), near.next_up(), near.next_down(), whole as f64] {
                if value.is_finite() {
                    let (json, plain) = (format_json(value), format_plain(value));
                    prop_assert_eq!(json.parse::<f64>().unwrap().to_bits(), value.to_bits());
                    prop_assert_eq!(plain.parse::<f64>().unwrap().to_bits(), value.to_bits());
                    prop_assert!(with_json(value, |text| text == json), "{}", json);
                    prop_assert_eq!(plain.len(), format!("{value}").len());
                    let plainly = (1e-6..1e21).contains(&value.abs()) || value == 0.0;
                    prop_assert_eq!(plainly, plain == json, "{}", json);
                }
            }
        }
    }
}
