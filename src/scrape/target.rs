//! From what discovery found to what is scraped: labels, relabelling, URL.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::options::{HistogramOptions, JobOptions};
use super::timing;
use crate::model::duration;
use crate::model::labels::{Labels, LabelsBuilder, quote};
use crate::model::relabel;
use crate::model::target::TargetGroup;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const SCRAPE_INTERVAL: &str = "__scrape_interval__";
const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";
const SCRAPE_NATIVE_HISTOGRAMS: &str = "__scrape_native_histograms__";
const CONVERT_HISTOGRAMS: &str = "__convert_classic_histograms_to_nhcb__";
const ALWAYS_CLASSIC_HISTOGRAMS: &str = "__always_scrape_classic_histograms__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const RESERVED_PREFIX: &str = "__";

/// What a path may hold unescaped, as in Go.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// What a query may hold unescaped, as in Go; a blank becomes `+`.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// Why a discovered target cannot be scraped; the texts are Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Relabelling left no address.
    #[error("no address")]
    NoAddress,
    /// The address holds a path.
    #[error("{} is not a valid hostname", quote(.0))]
    Address(String),
    /// `__scrape_interval__` is no duration.
    #[error("error parsing scrape interval: {0}")]
    Interval(duration::DurationError),
    /// `__scrape_timeout__` is no duration.
    #[error("error parsing scrape timeout: {0}")]
    Timeout(duration::DurationError),
    /// The interval is zero.
    #[error("scrape interval cannot be 0")]
    ZeroInterval,
    /// The timeout is zero.
    #[error("scrape timeout cannot be 0")]
    ZeroTimeout,
    /// The timeout is longer than the interval.
    #[error("scrape timeout cannot be greater than scrape interval ({} > {})", quote(.0), quote(.1))]
    TimeoutAboveInterval(String, String),
    /// A label that switches something is neither true nor false.
    #[error("error parsing {0}: strconv.ParseBool: parsing {q}: invalid syntax", q = quote(.1))]
    Switch(&'static str, String),
    /// Scheme, address and path make no URL.
    #[error("invalid URL {}", quote(.0))]
    Url(String),
}

/// A target to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels that its series get.
    pub labels: Labels,
    /// Where.
    pub url: url::Url,
    /// How the URL is shown: as Go would print it.
    pub shown_url: String,
    /// What tells it apart within its pool: all labels but interval and timeout, and the URL.
    pub key: TargetKey,
    /// Fixes the phase; made of the key, so that a new timeout does not shift it.
    pub hash: u64,
    /// Time between scrapes.
    pub interval: Duration,
    /// Time limit of a scrape.
    pub timeout: Duration,
    /// What is done with histograms.
    pub histograms: HistogramOptions,
}

/// Identity of a target within its pool.
pub(super) type TargetKey = (Labels, String);

/// The labels of a target before relabelling: its own, its group's, and those that the job sets.
pub fn populate_discovered_labels(
    job: &JobOptions,
    target: &Labels,
    group: &Labels,
) -> LabelsBuilder {
    let mut labels = target.to_builder();
    for (name, value) in group.iter() {
        if target.get(name).is_none() {
            labels.set(name, value);
        }
    }
    let (interval, timeout) = (duration::format(job.interval), duration::format(job.timeout));
    for (name, value) in [
        ("job", job.job_name.as_str()),
        (SCRAPE_INTERVAL, &interval),
        (SCRAPE_TIMEOUT, &timeout),
        (METRICS_PATH, &job.metrics_path),
        (SCHEME, &job.scheme),
    ] {
        if labels.get(name).is_empty() {
            labels.set(name, value);
        }
    }
    for (name, values) in &job.params {
        let name = format!("{PARAM_PREFIX}{name}");
        if let Some(value) = values.first()
            && labels.get(&name).is_empty()
        {
            labels.set(&name, value);
        }
    }
    labels
}

/// Relabels and completes a target's labels, `__*` ones included; `None` when it is dropped.
pub fn populate_labels(
    job: &JobOptions,
    mut labels: LabelsBuilder,
) -> Result<Option<Labels>, TargetError> {
    if !relabel::process(&job.relabel_rules, &mut labels) {
        return Ok(None);
    }
    let address = labels.get(ADDRESS).to_owned();
    if address.is_empty() {
        return Err(TargetError::NoAddress);
    }
    if address.contains('/') {
        return Err(TargetError::Address(address));
    }
    let (interval, timeout) = (labels.get(SCRAPE_INTERVAL), labels.get(SCRAPE_TIMEOUT));
    let interval_length = duration::parse(interval).map_err(TargetError::Interval)?;
    if interval_length.is_zero() {
        return Err(TargetError::ZeroInterval);
    }
    let timeout_length = duration::parse(timeout).map_err(TargetError::Timeout)?;
    if timeout_length.is_zero() {
        return Err(TargetError::ZeroTimeout);
    }
    if timeout_length > interval_length {
        return Err(TargetError::TimeoutAboveInterval(timeout.to_owned(), interval.to_owned()));
    }
    if labels.get("instance").is_empty() {
        labels.set("instance", &address);
    }
    Ok(Some(labels.build().retain(|name| !name.starts_with(META_PREFIX))))
}

/// The targets of a group and the labels of those that relabelling drops.
pub(super) fn targets_of(
    job: &JobOptions,
    group: &TargetGroup,
    mut found: impl FnMut(Result<Target, Labels>),
    mut failed: impl FnMut(usize, TargetError),
) {
    for (index, target) in group.targets.iter().enumerate() {
        let builder = populate_discovered_labels(job, target, &group.labels);
        let discovered_labels = builder.build();
        match populate_labels(job, builder) {
            Ok(None) => found(Err(discovered_labels)),
            Ok(Some(labels)) => match build(job, discovered_labels, &labels) {
                Ok(target) => found(Ok(target)),
                Err(err) => failed(index, err),
            },
            Err(err) => failed(index, err),
        }
    }
}

/// Those of the job, unless a label says otherwise.
fn histogram_options(job: &JobOptions, all: &Labels) -> Result<HistogramOptions, TargetError> {
    let mut options = job.histograms;
    for (name, switch) in [
        (SCRAPE_NATIVE_HISTOGRAMS, &mut options.native),
        (CONVERT_HISTOGRAMS, &mut options.convert),
        (ALWAYS_CLASSIC_HISTOGRAMS, &mut options.always_classic),
    ] {
        let Some(text) = all.get(name) else { continue };
        *switch = match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return Err(TargetError::Switch(name, text.to_owned())),
        };
    }
    Ok(options)
}

fn build(job: &JobOptions, discovered_labels: Labels, all: &Labels) -> Result<Target, TargetError> {
    let shown_url = url_of(job, all);
    let url = url::Url::parse(&shown_url).map_err(|_| TargetError::Url(shown_url.clone()))?;
    let length = |name| duration::parse(all.get(name).unwrap_or(""));
    let identity = all.retain(|name| name != SCRAPE_INTERVAL && name != SCRAPE_TIMEOUT);
    Ok(Target {
        discovered_labels,
        labels: all.retain(|name| !name.starts_with(RESERVED_PREFIX)),
        hash: timing::target_hash(&identity, &shown_url),
        key: (identity, shown_url.clone()),
        url,
        shown_url,
        interval: length(SCRAPE_INTERVAL).map_err(TargetError::Interval)?,
        timeout: length(SCRAPE_TIMEOUT).map_err(TargetError::Timeout)?,
        histograms: histogram_options(job, all)?,
    })
}

/// Scheme, address, path and parameters as Go prints them.
fn url_of(job: &JobOptions, all: &Labels) -> String {
    let get = |name| all.get(name).unwrap_or("");
    let mut params = job.params.clone();
    for (name, value) in all.iter() {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else { continue };
        let known = params.iter_mut().find(|(own, values)| own == name && !values.is_empty());
        match known.and_then(|(_, values)| values.first_mut()) {
            Some(first) => value.clone_into(first),
            None => params.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    params.sort();
    let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string().replace(' ', "+");
    let pairs = params.iter().flat_map(|(name, values)| {
        values.iter().map(move |value| format!("{}={}", encode(name), encode(value)))
    });
    let query = pairs.collect::<Vec<_>>().join("&");
    let path = utf8_percent_encode(get(METRICS_PATH), PATH).to_string();
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}://{}{slash}{path}{mark}{query}", get(SCHEME), get(ADDRESS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrape::tests::job;

    fn check(job: &JobOptions, target: &[(&str, &str)]) -> String {
        let group = TargetGroup {
            source: "0".to_owned(),
            targets: vec![Labels::from_pairs(target.iter().copied())],
            labels: Labels::from_pairs([("__meta_x", "m"), ("zone", "z")]),
        };
        let out = std::cell::RefCell::new(String::new());
        targets_of(
            job,
            &group,
            |target| {
                *out.borrow_mut() = match target {
                    Ok(target) => format!("{} {}", target.labels, target.shown_url),
                    Err(labels) => format!("dropped {labels}"),
                }
            },
            |_, err| *out.borrow_mut() = format!("error: {err}"),
        );
        out.into_inner()
    }

    #[test]
    fn labels_and_urls_follow_prometheus() {
        let mut job = job("j");
        job.params = vec![("b".to_owned(), vec!["1 &".to_owned(), "2".to_owned()])];
        for (target, expected) in [
            (
                vec![("__address__", "h:1")],
                r#"{instance="h:1", job="j", zone="z"} http://h:1/metrics?b=1+%26&b=2"#,
            ),
            (
                vec![
                    ("__address__", "h"),
                    ("instance", "i"),
                    ("job", "k"),
                    ("zone", "own"),
                    ("__param_b", "x"),
                    ("__param_a", "y"),
                ],
                r#"{instance="i", job="k", zone="own"} http://h/metrics?a=y&b=x&b=2"#,
            ),
            (
                vec![("__address__", "h"), ("__metrics_path__", "a b/ü"), ("__scheme__", "https")],
                r#"{instance="h", job="j", zone="z"} https://h/a%20b/%C3%BC?b=1+%26&b=2"#,
            ),
            (
                vec![("__address__", "h"), ("__scrape_native_histograms__", "yes")],
                r#"error: error parsing __scrape_native_histograms__: strconv.ParseBool: parsing "yes": invalid syntax"#,
            ),
            (vec![("x", "y")], "error: no address"),
            (vec![("__address__", "h/p")], r#"error: "h/p" is not a valid hostname"#),
            (
                vec![("__address__", "h"), ("__scrape_interval__", "x")],
                r#"error: error parsing scrape interval: not a valid duration string: "x""#,
            ),
            (
                vec![("__address__", "h"), ("__scrape_interval__", "0s")],
                "error: scrape interval cannot be 0",
            ),
            (
                vec![("__address__", "h"), ("__scrape_timeout__", "2h")],
                r#"error: scrape timeout cannot be greater than scrape interval ("2h" > "15s")"#,
            ),
        ] {
            assert_eq!(check(&job, &target), expected);
        }
    }

    #[test]
    fn relabelling_sees_all_labels_and_may_drop() {
        use crate::model::matcher::AnchoredRegex;
        use crate::model::relabel::{Action, NameValidation, Rule};
        let rule = |action, source: &str, target: &str| Rule {
            source_labels: vec![source.to_owned()],
            separator: ";".to_owned(),
            target_label: target.to_owned(),
            regex: AnchoredRegex::new("(.+)").unwrap(),
            modulus: 0,
            replacement: "$1".to_owned(),
            action,
            name_validation: NameValidation::Utf8,
        };
        let mut job = job("j");
        job.relabel_rules =
            vec![rule(Action::Replace, "__meta_x", "m"), rule(Action::Keep, "keep", "")];
        let kept = check(&job, &[("__address__", "h"), ("keep", "1")]);
        assert_eq!(kept, r#"{instance="h", job="j", keep="1", m="m", zone="z"} http://h/metrics"#);
        let dropped = check(&job, &[("__address__", "h")]);
        assert!(dropped.starts_with(r#"dropped {__address__="h", __meta_x="m""#), "{dropped}");
    }
}
