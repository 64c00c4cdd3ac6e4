//! From a series as it stands in an exposition to its labels.

use std::borrow::Cow;

use super::exposition::format_openmetrics;
use super::scan::{Scanner, name_text};
use crate::model::float;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::metadata::MetricType;

/// Name and value of a label; borrowed from the body unless it had escapes.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The text is no series, or names a label twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// Should have been found by the format's parser.
    #[error("malformed series")]
    Malformed,
    /// As the store of Prometheus reports it.
    #[error("label name {0:?} is not unique: invalid sample")]
    Duplicate(String),
}

/// Reads the series text of a [`super::entry::Sample`] into `pairs`, sorted by name, empty values
/// included. `family` is the name and type of the last `# TYPE` line: bounds and quantiles of its
/// series are brought to their canonical form (`1` becomes `1.0`).
pub fn parse<'a>(
    series: &'a [u8],
    family: Option<(&str, MetricType)>,
    pairs: &mut Vec<Pair<'a>>,
) -> Result<(), SeriesError> {
    pairs.clear();
    let mut scan = Scanner::new(series, true);
    let name = scan.metric_name();
    if !name.is_empty() {
        let name = std::str::from_utf8(name).map_err(|_| SeriesError::Malformed)?;
        pairs.push((Cow::Borrowed(METRIC_NAME), Cow::Borrowed(name)));
    }
    scan.skip_blanks();
    if scan.peek() == Some(b'{') {
        scan.pos += 1;
        labels(&mut scan, pairs).ok_or(SeriesError::Malformed)?;
    }
    if scan.pos != series.len() {
        return Err(SeriesError::Malformed);
    }
    if let Some((family, metric_type)) = family {
        normalise(family, metric_type, pairs);
    }
    check_unique(pairs)
}

/// Sorts pairs by name; an error when a name occurs twice.
pub fn check_unique(pairs: &mut [Pair<'_>]) -> Result<(), SeriesError> {
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    for [one, other] in pairs.array_windows() {
        if one.0 == other.0 {
            return Err(SeriesError::Duplicate(one.0.clone().into_owned()));
        }
    }
    Ok(())
}

/// The labels of an exemplar, braces included; `None` when they are none.
pub fn parse_exemplar_labels(text: &[u8]) -> Option<Labels> {
    let mut scan = Scanner::new(text, true);
    if scan.peek()? != b'{' {
        return None;
    }
    scan.pos += 1;
    let mut pairs = Vec::new();
    labels(&mut scan, &mut pairs)?;
    (scan.pos == text.len()).then(|| Labels::from_pairs(pairs))
}

fn labels<'a>(scan: &mut Scanner<'a>, pairs: &mut Vec<Pair<'a>>) -> Option<()> {
    loop {
        scan.skip_blanks();
        let name = match scan.peek()? {
            b'}' => {
                scan.pos += 1;
                return Some(());
            }
            b'"' => scan.quoted()?,
            _ => scan.metric_name(),
        };
        if name.is_empty() {
            return None;
        }
        let name = name_text(name)?;
        scan.skip_blanks();
        if scan.peek()? == b'=' {
            scan.pos += 1;
            scan.skip_blanks();
            if scan.peek()? != b'"' {
                return None;
            }
            let value = name_text(scan.quoted()?)?;
            pairs.push((name, value));
            scan.skip_blanks();
        } else {
            pairs.push((Cow::Borrowed(METRIC_NAME), name));
        }
        match scan.peek()? {
            b',' => scan.pos += 1,
            b'}' => {}
            _ => return None,
        }
    }
}

fn normalise(family: &str, metric_type: MetricType, pairs: &mut [Pair<'_>]) {
    let wanted = match metric_type {
        MetricType::Histogram => "le",
        MetricType::Summary => "quantile",
        _ => return,
    };
    let of_family =
        pairs.iter().any(|(name, value)| name == METRIC_NAME && value.starts_with(family));
    if !of_family {
        return;
    }
    for (name, value) in pairs {
        if name == wanted
            && let Some(bound) = float::parse(value)
        {
            *value = Cow::Owned(format_openmetrics(bound));
        }
    }
}
