//! Since when counters are counted, in OpenMetrics: a sample `_created` behind the others of its
//! metric says so. The body is searched for these samples first, which then are no series.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher as _};
use std::ops::Range;

use memchr::{memchr, memmem, memrchr};

use crate::encoding::wire::entry::Entry;
use crate::encoding::wire::openmetrics::OpenMetricsParser;
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
    /// All starts of a body. Only lines that may be such samples are read, and the `# TYPE` lines
    /// before them; what is wrong with any other line is found when the body is read as a whole.
    pub fn read(body: &[u8], hasher: &impl BuildHasher) -> Self {
        let mut found = HashMap::new();
        let mut family: Option<(Cow<'_, str>, MetricType)> = None;
        let mut pairs = Vec::new();
        // The newline before what was not looked at yet.
        let mut seen = 0;
        for at in memmem::find_iter(body, SUFFIX) {
            if at < seen {
                continue;
            }
            let start = memrchr(b'\n', &body[..at]).map_or(0, |newline| newline + 1);
            let before = last_type(body, seen..start);
            seen = memchr(b'\n', &body[at..]).map_or(body.len(), |newline| at + newline);
            let line = entry_at(body, start);
            for entry in [&before, &line] {
                if let Some(Entry::Type { metric, metric_type, .. }) = entry {
                    family = Some((metric.clone(), *metric_type));
                }
            }
            let Some(Entry::Sample(own)) = line else { continue };
            let family = family.as_ref().map(|(name, kind)| (&**name, *kind));
            if series::parse(own.series, family, &mut pairs).is_ok()
                && let Some(metric) = MetricOf::find(hasher, family, &pairs)
                && metric.tells_start
            {
                found.insert(metric.key, (own.value * 1000.0) as i64);
            }
        }
        Self(found)
    }

    /// The start of a metric in milliseconds; 0: not known.
    pub fn start_ms(&self, key: u64) -> i64 {
        self.0.get(&key).copied().unwrap_or(0)
    }
}

fn entry_at(body: &[u8], start: usize) -> Option<Entry<'_>> {
    OpenMetricsParser::new(&body[start..]).next()?.ok()
}

/// The last `# TYPE` line of a part of the body, which begins with the body or with a newline.
fn last_type(body: &[u8], part: Range<usize>) -> Option<Entry<'_>> {
    let first = part.start;
    let start = match memmem::rfind(&body[part], b"\n# TYPE ") {
        Some(at) => first + at + 1,
        None if first == 0 && body.starts_with(b"# TYPE ") => 0,
        None => return None,
    };
    entry_at(body, start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by reading the whole body, up to the first error in it.
    fn read_all(body: &[u8], hasher: &impl BuildHasher) -> HashMap<u64, i64> {
        let mut found = HashMap::new();
        let mut family = None;
        for entry in OpenMetricsParser::new(body).map_while(Result::ok) {
            match entry {
                Entry::Type { metric, metric_type, .. } => family = Some((metric, metric_type)),
                Entry::Sample(own) => {
                    let family = family.as_ref().map(|(name, kind)| (&**name, *kind));
                    let mut pairs = Vec::new();
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
        found
    }

    const LINES: [&str; 14] = [
        "# TYPE a counter",
        "# TYPE b histogram",
        "# TYPE \"a_created\" counter",
        "# TYPE c gauge",
        "# HELP a the time a_created tells\\n# TYPE b counter",
        "a_total 1",
        "a_created 17.5",
        "a_created{x=\"1\"} 18 1000",
        "a_total{x=\"_created\\n# TYPE b\"} 2",
        "b_bucket{le=\"1\"} 3 # {t=\"b_created\"} 1",
        "b_created 19",
        "{\"a_created_created\",x=\"2\"} 20",
        "{\"a_created\",x=\"a_created\"} 21",
        "c_created 22",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn only_some_lines_need_be_read(picked in prop::collection::vec(0..LINES.len(), 0..20)) {
            let mut body: String = picked.iter().flat_map(|at| [LINES[*at], "\n"]).collect();
            body += "# EOF\n";
            let hasher = foldhash::fast::FixedState::default();
            let found = Created::read(body.as_bytes(), &hasher);
            prop_assert_eq!(found.0, read_all(body.as_bytes(), &hasher), "{}", body);
        }

        #[test]
        fn no_bytes_make_it_panic(
            picked in prop::collection::vec(0..LINES.len(), 0..6), cut in 0_usize..200,
            flip in (0_usize..200, any::<u8>()),
        ) {
            let body: String = picked.iter().flat_map(|at| [LINES[*at], "\n"]).collect();
            let mut body = body.into_bytes();
            body.truncate(cut);
            if let Some(byte) = body.get_mut(flip.0) {
                *byte = flip.1;
            }
            let _ = Created::read(&body, &foldhash::fast::FixedState::default());
        }
    }
}
