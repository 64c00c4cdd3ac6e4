//! Writes expositions: our own metrics, and what federation selects.

use super::negotiate::{Escaping, Exposition, Format};
use crate::base::metrics::{Family, Kind};
use crate::model::float;
use crate::model::labels::{Labels, METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};

/// A sample that federation exposes, without type.
#[derive(Clone, Debug, PartialEq)]
pub struct FederatedSample {
    /// Labels with the metric name.
    pub labels: Labels,
    /// Value.
    pub value: f64,
    /// Timestamp.
    pub timestamp_ms: i64,
}

/// Writes families in the format asked for.
pub fn write_families(families: &[Family], exposition: Exposition) -> String {
    let mut writer = Writer { out: String::new(), exposition };
    for family in families {
        writer.family(family);
    }
    writer.finish()
}

/// Writes families in the text format 0.0.4.
pub fn write_text(families: &[Family]) -> String {
    write_families(families, Exposition::TEXT)
}

/// Writes families as OpenMetrics 1.0.
pub fn write_openmetrics(families: &[Family]) -> String {
    let exposition =
        Exposition { format: Format::OpenMetrics1_0_0, escaping: Escaping::Underscores };
    write_families(families, exposition)
}

/// Writes samples without type, with their timestamps. Samples of one metric stand side by side.
/// A sample with an empty `instance` gets that label explicitly, so that the reading side does not
/// put its own in place (`needs_instance`).
pub fn write_federation(samples: &[FederatedSample], exposition: Exposition) -> String {
    let mut writer = Writer { out: String::new(), exposition };
    let mut last = None;
    for sample in samples {
        let name = sample.labels.name();
        if last != Some(name) {
            let word = if exposition.is_openmetrics() { "unknown" } else { "untyped" };
            writer.comment("TYPE", name, word);
            last = Some(name);
        }
        let has_instance = sample.labels.get("instance").is_some();
        let pairs = sample
            .labels
            .iter()
            .filter(|(label, _)| *label != METRIC_NAME)
            .chain((!has_instance).then_some(("instance", "")));
        writer.sample(name, pairs, sample.value, Some(sample.timestamp_ms));
    }
    writer.finish()
}

struct Writer {
    out: String,
    exposition: Exposition,
}

impl Writer {
    fn family(&mut self, family: &Family) {
        let openmetrics = self.exposition.is_openmetrics();
        let is_counter = family.kind == Kind::Counter;
        // OpenMetrics names the family of a counter without `_total`, and has no other counters.
        let stem = family.name.strip_suffix("_total");
        let (name, kind) = match (openmetrics && is_counter, stem) {
            (true, Some(stem)) => (stem, "counter"),
            (true, None) => (family.name.as_str(), "unknown"),
            (false, _) => (family.name.as_str(), family.kind.as_str()),
        };
        self.comment("HELP", name, &escape(&family.help, openmetrics));
        self.comment("TYPE", name, kind);
        for sample in &family.samples {
            let full = format!("{}{}", family.name, sample.suffix);
            let pairs: Vec<(String, String)> = sample
                .labels
                .iter()
                .map(|(label, value)| {
                    let is_bound = matches!(label.as_str(), "le" | "quantile");
                    match value.parse() {
                        Ok(bound) if is_bound && openmetrics => {
                            (label.clone(), format_openmetrics(bound))
                        }
                        _ => (label.clone(), value.clone()),
                    }
                })
                .collect();
            let pairs = pairs.iter().map(|(label, value)| (label.as_str(), value.as_str()));
            self.sample(&full, pairs, sample.value, None);
        }
    }

    fn comment(&mut self, word: &str, name: &str, text: &str) {
        let name = self.exposition.escaping.apply(name);
        if is_legacy_metric_name(&name) {
            self.out.push_str(&format!("# {word} {name} {text}\n"));
        } else {
            self.out.push_str(&format!("# {word} \"{}\" {text}\n", escape(&name, true)));
        }
    }

    fn sample<'a>(
        &mut self,
        name: &str,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
        value: f64,
        timestamp_ms: Option<i64>,
    ) {
        let name = self.exposition.escaping.apply(name);
        let mut inside = Vec::new();
        if is_legacy_metric_name(&name) {
            self.out.push_str(&name);
        } else {
            inside.push(format!("\"{}\"", escape(&name, true)));
        }
        for (label, value) in pairs {
            let label = self.exposition.escaping.apply(label);
            let value = escape(value, true);
            if is_legacy_label_name(&label) {
                inside.push(format!("{label}=\"{value}\""));
            } else {
                inside.push(format!("\"{}\"=\"{value}\"", escape(&label, true)));
            }
        }
        if !inside.is_empty() {
            self.out.push_str(&format!("{{{}}}", inside.join(",")));
        }
        self.out.push(' ');
        let openmetrics = self.exposition.is_openmetrics();
        let number = if openmetrics { format_openmetrics(value) } else { format_general(value) };
        self.out.push_str(&number);
        if let Some(timestamp_ms) = timestamp_ms {
            self.out.push(' ');
            if openmetrics {
                self.out.push_str(&format_openmetrics(timestamp_seconds(timestamp_ms)));
            } else {
                self.out.push_str(itoa::Buffer::new().format(timestamp_ms));
            }
        }
        self.out.push('\n');
    }

    fn finish(mut self) -> String {
        if self.exposition.is_openmetrics() {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

fn timestamp_seconds(timestamp_ms: i64) -> f64 {
    timestamp_ms as f64 / 1000.0
}

fn escape(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(letter),
        }
    }
    out
}

/// As Go's `strconv.FormatFloat(v, 'g', -1, 64)`: shortest digits, with exponent below 1e-4 and
/// from 1e6 on (`1e+06`, `1.234567e+06`).
pub fn format_general(value: f64) -> String {
    let plain = value == 0.0 || (1e-4..1e6).contains(&value.abs());
    if plain { float::format_plain(value) } else { float::format_exponent(value) }
}

/// As [`format_general`], with `.0` where it would look like an integer.
pub fn format_openmetrics(value: f64) -> String {
    let mut text = format_general(value);
    if value.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::base::metrics::Registry;

    fn registry() -> Registry {
        let registry = Registry::new();
        registry.counters("hits_total", "Hits\\ \"now\".", &["path"]).with(&["/a\n\"b\""]).add(3.0);
        registry.counter("odd", "No suffix.").inc();
        registry.histogram("size_bytes", "Sizes.", &[1.0, 2e6]).observe(2.0);
        registry.summary("wait_seconds", "Waits.", &[0.5]).observe(0.25);
        registry
    }

    #[test]
    fn our_metrics_as_text() {
        assert_snapshot!(write_text(&registry().gather()), @r#"
        # HELP hits_total Hits\\ "now".
        # TYPE hits_total counter
        hits_total{path="/a\n\"b\""} 3
        # HELP odd No suffix.
        # TYPE odd counter
        odd 1
        # HELP size_bytes Sizes.
        # TYPE size_bytes histogram
        size_bytes_bucket{le="1"} 0
        size_bytes_bucket{le="2000000"} 1
        size_bytes_bucket{le="+Inf"} 1
        size_bytes_sum 2
        size_bytes_count 1
        # HELP wait_seconds Waits.
        # TYPE wait_seconds summary
        wait_seconds{quantile="0.5"} 0.25
        wait_seconds_sum 0.25
        wait_seconds_count 1
        "#);
    }

    #[test]
    fn our_metrics_as_openmetrics() {
        assert_snapshot!(write_openmetrics(&registry().gather()), @r#"
        # HELP hits Hits\\ \"now\".
        # TYPE hits counter
        hits_total{path="/a\n\"b\""} 3.0
        # HELP odd No suffix.
        # TYPE odd unknown
        odd 1.0
        # HELP size_bytes Sizes.
        # TYPE size_bytes histogram
        size_bytes_bucket{le="1.0"} 0.0
        size_bytes_bucket{le="2e+06"} 1.0
        size_bytes_bucket{le="+Inf"} 1.0
        size_bytes_sum 2.0
        size_bytes_count 1.0
        # HELP wait_seconds Waits.
        # TYPE wait_seconds summary
        wait_seconds{quantile="0.5"} 0.25
        wait_seconds_sum 0.25
        wait_seconds_count 1.0
        # EOF
        "#);
    }

    #[test]
    fn federation_is_untyped_and_names_an_instance() {
        let sample = |pairs: &[(&str, &str)], value| FederatedSample {
            labels: Labels::from_pairs(pairs.iter().copied()),
            value,
            timestamp_ms: 1_520_879_607_789,
        };
        let samples = [
            sample(&[("__name__", "a"), ("instance", "i")], 1.0),
            sample(&[("__name__", "a"), ("x", "y")], 1e9),
            sample(&[("__name__", "b.c"), ("instance", "i"), ("l.m", "n")], f64::NEG_INFINITY),
        ];
        assert_snapshot!(write_federation(&samples, Exposition::TEXT), @r#"
        # TYPE a untyped
        a{instance="i"} 1 1520879607789
        a{x="y",instance=""} 1e+09 1520879607789
        # TYPE b_c untyped
        b_c{instance="i",l_m="n"} -Inf 1520879607789
        "#);
        let exposition =
            Exposition { format: Format::OpenMetrics1_0_0, escaping: Escaping::AllowUtf8 };
        assert_snapshot!(write_federation(&samples, exposition), @r#"
        # TYPE a unknown
        a{instance="i"} 1.0 1.520879607789e+09
        a{x="y",instance=""} 1e+09 1.520879607789e+09
        # TYPE "b.c" unknown
        {"b.c",instance="i","l.m"="n"} -Inf 1.520879607789e+09
        # EOF
        "#);
    }
}
