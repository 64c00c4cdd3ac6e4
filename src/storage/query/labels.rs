//! Label names and values, of all series or of those that matchers select.

use roaring::RoaringBitmap;

use super::Snapshot;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::storage::index::postings::HeadIndex;
use crate::storage::registry::Registry;
use crate::storage::segment::Segment;
use crate::storage::select::QueryError;
use crate::storage::store::Store;

impl Store {
    /// See [`crate::storage::select::Select::label_names`].
    pub fn label_names(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        self.labels_by(sets, range, HeadIndex::label_names, Segment::label_names)
    }

    /// See [`crate::storage::select::Select::label_values`].
    pub fn label_values(
        &self,
        name: &str,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError> {
        let head =
            |index: &HeadIndex, within: Option<&RoaringBitmap>| index.label_values(name, within);
        self.labels_by(sets, range, head, |segment, within| segment.label_values(name, within))
    }

    fn labels_by(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        head: impl Fn(&HeadIndex, Option<&RoaringBitmap>) -> Vec<String>,
        sealed: impl Fn(&Segment, Option<&RoaringBitmap>) -> Result<Vec<String>, QueryError>,
    ) -> Result<Vec<String>, QueryError> {
        let look = |registry: &Registry, snapshot: &Snapshot| {
            let select = |set: &[Matcher]| Ok(self.head_series(registry, snapshot, set, range));
            let within = match any_of(sets, |set| select(set))? {
                Some(within) => within,
                None => select(&[])?,
            };
            let index = registry.index();
            let is_all = within.len() == index.series_count();
            Ok::<_, QueryError>(head(index, (!is_all).then_some(&within)))
        };
        let (snapshot, found) = self.snapshot(look);
        let mut all = found?;
        for (_, own) in snapshot.segments(range) {
            let mut within = any_of(sets, |set| own.segment.select(set))?;
            if !own.hidden.is_empty() {
                let all = within.unwrap_or_else(|| (0..own.segment.series_count()).collect());
                let shown = all.into_iter().filter(|ordinal| own.shows(range, *ordinal));
                within = Some(shown.collect());
            }
            all.extend(sealed(&own.segment, within.as_ref())?);
        }
        snapshot.check_whole(range)?;
        // Each list is in order, which this sort makes use of.
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// What any of the sets selects; `None` when there is no set, which means everything.
fn any_of(
    sets: &[Vec<Matcher>],
    select: impl Fn(&Vec<Matcher>) -> Result<RoaringBitmap, QueryError>,
) -> Result<Option<RoaringBitmap>, QueryError> {
    let mut all: Option<RoaringBitmap> = None;
    for set in sets {
        *all.get_or_insert_default() |= select(set)?;
    }
    Ok(all)
}
