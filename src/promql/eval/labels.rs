//! Label sets of results: dropping names, joining, finding equal ones.

use foldhash::{HashMap, HashMapExt as _};

use crate::model::labels::{Labels, METRIC_NAME};
use crate::promql::engine::QueryError;

use super::{Series, is_absent};

/// Labels that describe the metric, not the series; they go when the meaning of the value changes.
pub(super) fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// Without name, type and unit.
pub(super) fn without_metadata(labels: &Labels) -> Labels {
    if labels.iter().any(|(name, _)| is_metadata(name)) {
        labels.retain(|name| !is_metadata(name))
    } else {
        labels.clone()
    }
}

/// The error of two samples with equal labels at one moment.
pub(super) fn same_labelset() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Fails when two series have equal labels.
pub(super) fn assert_unique(series: Vec<Series>) -> Result<Vec<Series>, QueryError> {
    let mut seen = foldhash::HashSet::default();
    if series.iter().all(|series| seen.insert(&series.labels)) {
        return Ok(series);
    }
    Err(same_labelset())
}

/// Joins series with equal labels; fails when two of them have a value at the same step.
pub(super) fn merge_equal(series: Vec<Series>) -> Result<Vec<Series>, QueryError> {
    let mut places = HashMap::with_capacity(series.len());
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    for one in series {
        let place = *places.entry(one.labels.clone()).or_insert(out.len());
        let Some(into) = out.get_mut(place) else {
            out.push(one);
            continue;
        };
        for step in 0..one.values.len() {
            match (is_absent(into.values[step]), is_absent(one.values[step])) {
                (_, true) => {}
                (true, false) => into.take_step(&one, step),
                (false, false) => return Err(same_labelset()),
            }
        }
    }
    Ok(out)
}

/// The part of a label set that decides what belongs together.
#[derive(Debug)]
pub(super) struct Projection {
    /// Sorted.
    names: Vec<String>,
    keep: bool,
}

impl Projection {
    /// Only these labels.
    pub(super) fn keeping<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        Self::new(names, true)
    }

    /// All but these labels and the metric name.
    pub(super) fn dropping<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut projection = Self::new(names, false);
        projection.names.push(METRIC_NAME.to_owned());
        projection.names.sort_unstable();
        projection
    }

    fn new<'a>(names: impl IntoIterator<Item = &'a String>, keep: bool) -> Self {
        let mut names: Vec<_> = names.into_iter().cloned().collect();
        names.sort_unstable();
        Self { names, keep }
    }

    fn wants(&self, name: &str) -> bool {
        self.names.binary_search_by(|own| own.as_str().cmp(name)).is_ok() == self.keep
    }

    /// The labels that count; `drop_name`: of a series whose name, type and unit are dropped.
    pub(super) fn of<'l>(
        &self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        drop_name: bool,
    ) -> Labels {
        Labels::from_sorted(self.wanted(labels, drop_name))
    }

    fn wanted<'l>(
        &self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        drop_name: bool,
    ) -> impl Iterator<Item = (&'l str, &'l str)> {
        let wants = move |name: &str| self.wants(name) && !(drop_name && is_metadata(name));
        labels.into_iter().filter(move |(name, _)| wants(name))
    }

    /// The same as a key: equal exactly when [`Projection::of`] is.
    pub(super) fn key<'l>(
        &self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        drop_name: bool,
        key: &mut Vec<u8>,
    ) {
        key.clear();
        for (name, value) in self.wanted(labels, drop_name) {
            // No UTF-8 text has these bytes.
            key.extend_from_slice(name.as_bytes());
            key.push(0xff);
            key.extend_from_slice(value.as_bytes());
            key.push(0xfe);
        }
    }
}

/// Numbers things that have equal keys alike, in order of appearance.
#[derive(Debug, Default)]
pub(super) struct Groups {
    ordinals: HashMap<Box<[u8]>, usize>,
    key: Vec<u8>,
}

impl Groups {
    /// The group of a label set, and whether it is new.
    pub(super) fn of<'l>(
        &mut self,
        projection: &Projection,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        drop_name: bool,
    ) -> (usize, bool) {
        projection.key(labels, drop_name, &mut self.key);
        if let Some(ordinal) = self.ordinals.get(self.key.as_slice()) {
            return (*ordinal, false);
        }
        let ordinal = self.ordinals.len();
        self.ordinals.insert(self.key.as_slice().into(), ordinal);
        (ordinal, true)
    }

    pub(super) fn len(&self) -> usize {
        self.ordinals.len()
    }
}
