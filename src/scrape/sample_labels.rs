//! From the labels of a scraped series to those that are stored: target labels, metric
//! relabelling, limits.

use super::options::JobOptions;
use crate::encoding::wire::series::Pair;
use crate::model::labels::{Labels, LabelsBuilder, METRIC_NAME, quote};
use crate::model::relabel;

const EXPORTED_PREFIX: &str = "exported_";

/// A series that makes the whole scrape fail; the texts are Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LabelError {
    #[error("missing metric name (__name__ label)")]
    NoName,
    #[error("invalid metric name or label names: {0}")]
    InvalidNames(Labels),
    #[error(
        "label_limit exceeded (metric: {metric:.50}, number of labels: {count}, limit: {limit})"
    )]
    Count { metric: String, count: usize, limit: u64 },
    #[error(
        "label_name_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, length: {length}, limit: {limit})"
    )]
    NameLength { metric: String, name: String, length: usize, limit: u64 },
    #[error(
        "label_value_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, value: {}, length: {length}, limit: {limit})",
        quote(&value.chars().take(50).collect::<String>())
    )]
    ValueLength { metric: String, name: String, value: String, length: usize, limit: u64 },
}

impl LabelError {
    /// Whether a configured limit was exceeded.
    pub fn is_limit(&self) -> bool {
        !matches!(self, Self::NoName | Self::InvalidNames(_))
    }
}

/// The stored labels of a series; `None` when relabelling drops it. `pairs` may hold empty values.
pub(super) fn stored(
    job: &JobOptions,
    target: &Labels,
    pairs: &[Pair<'_>],
) -> Result<Option<Labels>, LabelError> {
    let mut labels = merge(job.honor_labels, target, pairs);
    if !relabel::process(&job.metric_relabel_rules, &mut labels) {
        return Ok(None);
    }
    let labels = labels.build();
    if labels.is_empty() {
        return Ok(None);
    }
    check(job, &labels)?;
    Ok(Some(labels))
}

fn merge(honor_labels: bool, target: &Labels, pairs: &[Pair<'_>]) -> LabelsBuilder {
    let mut labels = LabelsBuilder::default();
    for (name, value) in pairs {
        labels.set(name, value);
    }
    if honor_labels {
        for (name, value) in target.iter() {
            // An explicitly empty label counts as present and keeps the target's away.
            if !pairs.iter().any(|(own, _)| own == name) {
                labels.set(name, value);
            }
        }
        return labels;
    }
    let mut conflicts = Vec::new();
    for (name, value) in target.iter() {
        let scraped = labels.get(name);
        if !scraped.is_empty() {
            conflicts.push((name, scraped.to_owned()));
        }
        labels.set(name, value);
    }
    conflicts.sort_by_key(|(name, _)| name.len());
    for (name, value) in conflicts {
        let mut renamed = format!("{EXPORTED_PREFIX}{name}");
        while !labels.get(&renamed).is_empty() {
            renamed.insert_str(0, EXPORTED_PREFIX);
        }
        labels.set(&renamed, &value);
    }
    labels
}

fn check(job: &JobOptions, labels: &Labels) -> Result<(), LabelError> {
    let metric = labels.name();
    if metric.is_empty() {
        return Err(LabelError::NoName);
    }
    let valid = job.name_validation;
    let names_are_valid =
        labels.iter().all(|(name, _)| name == METRIC_NAME || valid.is_valid_label_name(name));
    if !names_are_valid || !valid.is_valid_metric_name(metric) {
        return Err(LabelError::InvalidNames(labels.clone()));
    }
    let over = |length: usize, limit: u64| limit > 0 && length as u64 > limit;
    if over(labels.len(), job.label_limit) {
        let (count, limit) = (labels.len(), job.label_limit);
        return Err(LabelError::Count { metric: metric.to_owned(), count, limit });
    }
    for (name, value) in labels.iter() {
        let (metric, name) = (metric.to_owned(), name.to_owned());
        if over(name.len(), job.label_name_length_limit) {
            let (length, limit) = (name.len(), job.label_name_length_limit);
            return Err(LabelError::NameLength { metric, name, length, limit });
        }
        if over(value.len(), job.label_value_length_limit) {
            let (length, limit) = (value.len(), job.label_value_length_limit);
            let value = value.to_owned();
            return Err(LabelError::ValueLength { metric, name, value, length, limit });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::wire::series;
    use crate::model::relabel::NameValidation;
    use crate::scrape::tests::job;

    fn check(job: &JobOptions, series: &str) -> String {
        let target = Labels::from_pairs([("instance", "i"), ("job", "j"), ("exported_job", "e")]);
        let mut pairs = Vec::new();
        series::parse(series.as_bytes(), None, &mut pairs).unwrap();
        match stored(job, &target, &pairs) {
            Ok(Some(labels)) => labels.to_string(),
            Ok(None) => "dropped".to_owned(),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn conflicts_are_renamed_or_honored() {
        let mut job = job("j");
        for (series, expected) in [
            ("m", r#"{__name__="m", exported_job="e", instance="i", job="j"}"#),
            (
                r#"m{job="own",exported_job="x",a=""}"#,
                r#"{__name__="m", exported_exported_exported_job="x", exported_exported_job="own", exported_job="e", instance="i", job="j"}"#,
            ),
        ] {
            assert_eq!(check(&job, series), expected);
        }
        job.honor_labels = true;
        let honored = check(&job, r#"m{job="own",instance=""}"#);
        assert_eq!(honored, r#"{__name__="m", exported_job="e", job="own"}"#);
    }

    #[test]
    fn limits_and_names_fail_the_scrape() {
        let with = |change: fn(&mut JobOptions)| {
            let mut job = job("j");
            change(&mut job);
            job
        };
        let long = with(|job| job.label_limit = 4);
        assert_eq!(
            check(&long, "m{a=\"b\"}"),
            "label_limit exceeded (metric: m, number of labels: 5, limit: 4)"
        );
        let name = with(|job| job.label_name_length_limit = 12);
        assert_eq!(
            check(&name, "m{abcdefghijklm=\"b\"}"),
            "label_name_length_limit exceeded (metric: m, label name: abcdefghijklm, length: 13, limit: 12)"
        );
        let value = with(|job| job.label_value_length_limit = 3);
        assert_eq!(
            check(&value, "m{a=\"b\\\"cd\"}"),
            r#"label_value_length_limit exceeded (metric: m, label name: a, value: "b\"cd", length: 4, limit: 3)"#
        );
        assert_eq!(check(&job("j"), "{\"\"}"), "missing metric name (__name__ label)");
        let legacy = with(|job| job.name_validation = NameValidation::Legacy);
        assert!(check(&legacy, "{\"a.b\"}").starts_with("invalid metric name or label names: {"));
    }
}
