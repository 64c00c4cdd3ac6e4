//! Label names and values, of all series or of those that matchers select.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::{Snapshot, head_series};
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::storage::index::postings::HeadIndex;
use crate::storage::registry::Registry;
use crate::storage::select::QueryError;
use crate::storage::store::Store;

impl Store {
    /// See [`crate::storage::select::Select::label_names`].
    pub fn label_names(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        self.labels_by(sets, range, |index, within| index.label_names(Some(within)))
    }

    /// See [`crate::storage::select::Select::label_values`].
    pub fn label_values(
        &self,
        name: &str,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        self.labels_by(sets, range, |index, within| index.label_values(name, Some(within)))
    }

    fn labels_by(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        head: impl Fn(&HeadIndex, &RoaringBitmap) -> Vec<String>,
    ) -> Result<Vec<String>, QueryError> {
        let look = |registry: &Registry, snapshot: &Snapshot| {
            let within = any_of(sets, |set| head_series(registry, snapshot, set, range));
            head(registry.index(), &within)
        };
        let (_, found) = self.snapshot(look);
        let all: BTreeSet<String> = found.into_iter().collect();
        Ok(all.into_iter().collect())
    }
}

/// What any of the sets selects; no set: what the empty one does.
fn any_of(sets: &[Vec<Matcher>], select: impl Fn(&[Matcher]) -> RoaringBitmap) -> RoaringBitmap {
    if sets.is_empty() {
        return select(&[]);
    }
    sets.iter().map(|set| select(set)).fold(RoaringBitmap::new(), |all, own| all | own)
}
