//! Since when counters are counted, in OpenMetrics: a sample `_created` behind the others of its
//! metric says so. The body is read for these samples first, which then are no series.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher as _};

use memchr::memmem;

use crate::encoding::wire::entry::{Entry, ParseError};
use crate::encoding::wire::series::{self, Pair};
use crate::model::labels::METRIC_NAME;
use crate::model::metadata::MetricType;

/// What the name of the sample ends with.
const SUFFIX: &str = "_created";

/// Starts by metric.
#[derive(Default)]
pub(super) struct Created(HashMap<u64, i64>);

/// The metric that a sample is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetricOf {
    /// Stands for the name of the family and the labels that all of the metric have; never 0.
    pub key: u64,
    /// Whether the sample is the one that tells the start.
    pub tells_start: bool,
}

impl MetricOf {
    /// `family` is the last `# TYPE` line, `pairs` are the sample's name and labels; `None` when
    /// such a sample has no start.
    pub fn find(
        hasher: &impl BuildHasher,
        family: Option<(&str, MetricType)>,
        pairs: &[Pair<'_>],
    ) -> Option<Self> {
        let (family, metric_type) = family?;
        let counts = matches!(
            metric_type,
            MetricType::Counter | MetricType::Histogram | MetricType::Summary
        );
        let name = pairs.iter().find(|(name, _)| name == METRIC_NAME)?;
        let rest = name.1.strip_prefix(family).filter(|_| counts)?;
        let mut state = hasher.build_hasher();
        state.write(family.as_bytes());
        for (name, value) in pairs {
            if ![METRIC_NAME, "le", "quantile"].contains(&&**name) {
                for part in [name, value] {
                    state.write_u8(0xff);
                    state.write(part.as_bytes());
                }
            }
        }
        Some(Self { key: state.finish().max(1), tells_start: rest == SUFFIX })
    }
}

impl Created {
    /// All starts of a body, up to the first error in it.
    pub fn read<'a>(
        entries: impl Iterator<Item = Result<Entry<'a>, ParseError>>,
        hasher: &impl BuildHasher,
    ) -> Self {
        let mut found = HashMap::new();
        let mut family: Option<(String, MetricType)> = None;
        let mut pairs = Vec::new();
        for entry in entries.map_while(Result::ok) {
            match entry {
                Entry::Type { metric, metric_type, .. } => {
                    family = Some((metric.into_owned(), metric_type));
                }
                Entry::Sample(own) if memmem::find(own.series, SUFFIX.as_bytes()).is_some() => {
                    let family = family.as_ref().map(|(name, kind)| (&**name, *kind));
                    if series::parse(own.series, family, &mut pairs).is_ok()
                        && let Some(metric) = MetricOf::find(hasher, family, &pairs)
                        && metric.tells_start
                    {
                        found.insert(metric.key, (own.value * 1000.0) as i64);
                    }
                }
                _ => {}
            }
        }
        Self(found)
    }

    /// The start of a metric in milliseconds; 0: not known.
    pub fn start_ms(&self, key: u64) -> i64 {
        self.0.get(&key).copied().unwrap_or(0)
    }
}
