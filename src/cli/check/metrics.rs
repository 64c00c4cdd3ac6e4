//! `narthex check metrics`: whether an exposition follows the rules of naming, as promtool's linter
//! judges it, and which metrics have the most series.

use std::collections::{BTreeMap, BTreeSet};

use crate::encoding::wire::entry::Entry;
use crate::encoding::wire::series;
use crate::encoding::wire::text::TextParser;
use crate::model::labels::METRIC_NAME;
use crate::model::metadata::MetricType;

/// Units and what to measure in instead.
const UNITS: &[(&str, &str)] = &[
    ("amperes", "amperes"),
    ("bytes", "bytes"),
    ("celsius", "celsius"),
    ("grams", "grams"),
    ("joules", "joules"),
    ("kelvin", "kelvin"),
    ("meters", "meters"),
    ("metres", "metres"),
    ("seconds", "seconds"),
    ("volts", "volts"),
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvins", "kelvin"),
    ("fahrenheit", "celsius"),
    ("rankine", "celsius"),
    ("inches", "meters"),
    ("yards", "meters"),
    ("miles", "meters"),
    ("bits", "bytes"),
    ("calories", "joules"),
    ("pounds", "grams"),
    ("ounces", "grams"),
];

const PREFIXES: &[&str] = &[
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega",
    "mibi", "giga", "gibi", "tera", "tebi", "peta", "pebi",
];

const ABBREVIATIONS: &[&str] =
    &["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];

const TYPES: &[&str] = &["counter", "gauge", "summary", "histogram", "gauge_histogram"];

/// Metrics of one name.
#[derive(Debug, Default)]
struct Family {
    help: Option<String>,
    metric_type: MetricType,
    /// Names of labels that its samples have, bounds and quantiles of its own type left out.
    labels: BTreeSet<String>,
    series_count: usize,
}

/// What an exposition holds.
#[derive(Debug)]
pub struct Exposition(BTreeMap<String, Family>);

impl Exposition {
    /// Reads the text format.
    ///
    /// # Errors
    /// The first line that is not of the format.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut pairs = Vec::new();
        for entry in TextParser::new(body) {
            match entry.map_err(|err| format!("error while linting: {err}"))? {
                Entry::Type { metric, metric_type, .. } => {
                    families.entry(metric.into_owned()).or_default().metric_type = metric_type;
                }
                Entry::Help { metric, help, .. } => {
                    let family = families.entry(metric.into_owned()).or_default();
                    family.help = Some(help.into_owned());
                }
                Entry::Sample(sample) => {
                    series::parse(sample.series, None, &mut pairs)
                        .map_err(|err| err.to_string())?;
                    let name = pairs.iter().find(|pair| pair.0 == METRIC_NAME);
                    let name = name.map_or("", |pair| &pair.1);
                    let family = families.entry(family_of(name, &families)).or_default();
                    family.series_count += 1;
                    let own = match family.metric_type {
                        MetricType::Histogram => "le",
                        MetricType::Summary => "quantile",
                        _ => "",
                    };
                    let labels = pairs.iter().filter(|pair| pair.0 != METRIC_NAME && pair.0 != own);
                    family.labels.extend(labels.map(|pair| pair.0.to_string()));
                }
                Entry::Unit { .. } | Entry::Comment => {}
            }
        }
        Ok(Self(families))
    }

    /// What is wrong with names: metric and text, in order of names.
    pub fn problems(&self) -> Vec<(&str, String)> {
        let with_samples = self.0.iter().filter(|(_, family)| 0 < family.series_count);
        with_samples
            .flat_map(|(name, family)| {
                problems_of(name, family).into_iter().map(move |text| (name.as_str(), text))
            })
            .collect()
    }

    /// Series by metric, the most first.
    pub fn cardinality(&self) -> Vec<(&str, usize)> {
        let mut counts: Vec<_> =
            self.0.iter().map(|(name, family)| (name.as_str(), family.series_count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

/// Parts of histograms and summaries belong to the metric without the suffix.
fn family_of(name: &str, families: &BTreeMap<String, Family>) -> String {
    let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| {
        let base = name.strip_suffix(suffix)?;
        let found = families.get(base)?.metric_type;
        let fits = match found {
            MetricType::Histogram => true,
            MetricType::Summary => *suffix != "_bucket",
            _ => false,
        };
        fits.then(|| base.to_owned())
    });
    base.unwrap_or_else(|| name.to_owned())
}

fn has_word(name: &str, word: &str) -> bool {
    name.contains(&format!("_{word}_")) || name.ends_with(&format!("_{word}"))
}

fn is_camel_case(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.windows(2).any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
}

fn base_unit(word: &str) -> Option<&'static str> {
    let base = |word: &str| UNITS.iter().find(|(unit, _)| *unit == word).map(|(_, base)| *base);
    base(word).or_else(|| PREFIXES.iter().find_map(|prefix| base(word.strip_prefix(prefix)?)))
}

fn problems_of(name: &str, family: &Family) -> Vec<String> {
    let mut problems = Vec::new();
    let mut add = |text: &str| problems.push(text.to_owned());
    if family.help.as_deref().is_none_or(str::is_empty) {
        add("no help text");
    }
    if let Some((unit, base)) = name.split('_').find_map(|word| Some((word, base_unit(word)?)))
        && unit != base
    {
        add(&format!("use base unit {base:?} instead of {unit:?}"));
    }
    let is_known = family.metric_type != MetricType::Unknown;
    let is_counter = family.metric_type == MetricType::Counter;
    if is_counter && !name.ends_with("_total") {
        add("counter metrics should have \"_total\" suffix");
    }
    if is_known && !is_counter && name.ends_with("_total") {
        add("non-counter metrics should not have \"_total\" suffix");
    }
    if is_known {
        let is_histogram = family.metric_type == MetricType::Histogram;
        let is_summary = family.metric_type == MetricType::Summary;
        if !is_histogram && name.ends_with("_bucket") {
            add("non-histogram metrics should not have \"_bucket\" suffix");
        }
        for suffix in ["_count", "_sum"] {
            if !is_histogram && !is_summary && name.ends_with(suffix) {
                add(&format!(
                    "non-histogram and non-summary metrics should not have {suffix:?} suffix"
                ));
            }
        }
        if !is_histogram && family.labels.contains("le") {
            add("non-histogram metrics should not have \"le\" label");
        }
        if !is_summary && family.labels.contains("quantile") {
            add("non-summary metrics should not have \"quantile\" label");
        }
    }
    let lower = name.to_ascii_lowercase();
    for word in TYPES.iter().filter(|word| has_word(&lower, word)) {
        add(&format!("metric name should not include type '{word}'"));
    }
    if name.contains(':') {
        add("metric names should not contain ':'");
    }
    if is_camel_case(name) {
        add("metric names should be written in 'snake_case' not 'camelCase'");
    }
    if family.labels.iter().any(|label| is_camel_case(label)) {
        add("label names should be written in 'snake_case' not 'camelCase'");
    }
    if ABBREVIATIONS.iter().any(|word| has_word(&lower, word)) {
        add("metric names should not contain abbreviated units");
    }
    problems.sort();
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let read = Exposition::read(text.as_bytes()).unwrap();
        read.problems().into_iter().map(|(name, text)| format!("{name} {text}")).collect()
    }

    #[test]
    fn good_names_pass() {
        let good = "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
             http_requests_total{code=\"200\"} 3\n\
             # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n\
             wait_seconds_bucket{le=\"1\"} 1\nwait_seconds_bucket{le=\"+Inf\"} 2\n\
             wait_seconds_sum 3\nwait_seconds_count 2\n";
        assert_eq!(problems(good), [""; 0]);
        let read = Exposition::read(good.as_bytes()).unwrap();
        assert_eq!(read.cardinality(), [("wait_seconds", 4), ("http_requests_total", 1)]);
        assert!(Exposition::read(b"x{").unwrap_err().starts_with("error while linting"));
    }

    #[test]
    fn bad_names_are_told() {
        let bad = "# TYPE waitTime_milliseconds counter\nwaitTime_milliseconds{someLabel=\"a\"} 1\n\
             # HELP queue_gauge_total Q.\n# TYPE queue_gauge_total gauge\n\
             queue_gauge_total{le=\"1\",quantile=\"2\"} 1\n\
             # HELP a:b_count C.\n# TYPE a:b_count gauge\na:b_count 1\n\
             # HELP x_ms X.\n# TYPE x_ms gauge\nx_ms 1\n";
        assert_eq!(
            problems(bad),
            [
                "a:b_count metric names should not contain ':'",
                "a:b_count non-histogram and non-summary metrics should not have \"_count\" suffix",
                "queue_gauge_total metric name should not include type 'gauge'",
                "queue_gauge_total non-counter metrics should not have \"_total\" suffix",
                "queue_gauge_total non-histogram metrics should not have \"le\" label",
                "queue_gauge_total non-summary metrics should not have \"quantile\" label",
                "waitTime_milliseconds counter metrics should have \"_total\" suffix",
                "waitTime_milliseconds label names should be written in 'snake_case' not 'camelCase'",
                "waitTime_milliseconds metric names should be written in 'snake_case' not 'camelCase'",
                "waitTime_milliseconds no help text",
                "waitTime_milliseconds use base unit \"seconds\" instead of \"milliseconds\"",
                "x_ms metric names should not contain abbreviated units",
            ]
        );
    }
}
