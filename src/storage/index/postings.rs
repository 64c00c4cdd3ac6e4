//! The head's label index: in memory, changed series by series. The caller brings the lock.

use std::collections::BTreeMap;
use std::convert::Infallible;

use roaring::RoaringBitmap;

use super::LabelIndex;
use super::dictionary::{Dictionary, Values, extend_sorted};
use super::union::Union;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::Matcher;
use crate::storage::stats::NamedCount;

/// Which series of the head have which labels.
#[derive(Debug, Default)]
pub struct HeadIndex {
    all: RoaringBitmap,
    names: Dictionary,
    changes: u64,
}

/// What `/api/v1/status/tsdb` tells of the head; each list in descending order, limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Series in the index.
    pub series_count: u64,
    /// Distinct `name=value` pairs.
    pub pair_count: u64,
    /// Series by metric name.
    pub series_by_metric: Vec<NamedCount>,
    /// Distinct values by label name.
    pub values_by_name: Vec<NamedCount>,
    /// Bytes of the values of all series by label name.
    pub bytes_by_name: Vec<NamedCount>,
    /// Series by `name=value`.
    pub series_by_pair: Vec<NamedCount>,
}

impl HeadIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of series.
    pub fn series_count(&self) -> u64 {
        self.all.len()
    }

    /// Counts insertions and removals: as long as it is the same, so are all answers.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The ids of all series.
    pub fn ids(&self) -> &RoaringBitmap {
        &self.all
    }

    /// Adds a series. Its id must be free.
    pub fn insert(&mut self, id: u32, labels: &Labels) {
        let new = self.all.insert(id);
        debug_assert!(new, "an id belongs to one series");
        self.changes += 1;
        for (name, value) in labels.iter() {
            self.names.insert(name, value, id);
        }
    }

    /// Adds series, in ascending order, whose ids are free. Their labels follow by
    /// [`HeadIndex::insert_label`].
    pub fn insert_many(&mut self, ids: &[u32]) {
        extend_sorted(&mut self.all, ids);
        self.changes += ids.len() as u64;
    }

    /// Notes that series have a label: its values with their series, each in ascending order.
    pub fn insert_label<'a>(
        &mut self,
        name: &str,
        values: impl Iterator<Item = (&'a str, &'a [u32])>,
    ) {
        self.names.insert_many(name, values);
    }

    /// Removes a series; the labels are those it was inserted with.
    pub fn remove(&mut self, id: u32, labels: &Labels) {
        if !self.all.remove(id) {
            return;
        }
        self.changes += 1;
        for (name, value) in labels.iter() {
            self.names.remove(name, value, id);
        }
    }

    /// The series that fulfil all matchers.
    pub fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        match super::matchers::select(self, matchers) {
            Ok(found) => found,
        }
    }

    /// Sorted label names, of some series or of all.
    pub fn label_names(&self, within: Option<&RoaringBitmap>) -> Vec<String> {
        let wanted =
            |values: &Values| within.is_none_or(|within| !values.any().is_disjoint(within));
        let names = self.names.iter().filter(|(_, values)| wanted(values));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// Sorted values of a label, of some series or of all.
    pub fn label_values(&self, name: &str, within: Option<&RoaringBitmap>) -> Vec<String> {
        let Some(values) = self.names.values(name) else { return Vec::new() };
        let wanted = values.iter().filter(|(_, ids)| within.is_none_or(|set| ids.intersects(set)));
        wanted.map(|(value, _)| value.to_owned()).collect()
    }

    /// Counts for the status page, each list cut to `limit` entries.
    pub fn stats(&self, limit: usize) -> IndexStats {
        let mut stats = IndexStats { series_count: self.all.len(), ..IndexStats::default() };
        let (mut metrics, mut names) = (Top::new(limit), Top::new(limit));
        let (mut bytes, mut pairs) = (Top::new(limit), Top::new(limit));
        for (name, values) in self.names.iter() {
            stats.pair_count += values.len() as u64;
            names.offer(values.len() as u64, || name.to_owned());
            let mut value_bytes = 0;
            for (value, ids) in values.iter() {
                let count = ids.len();
                if name == METRIC_NAME {
                    metrics.offer(count, || value.to_owned());
                }
                pairs.offer(count, || format!("{name}={value}"));
                value_bytes += value.len() as u64 * count;
            }
            bytes.offer(value_bytes, || name.to_owned());
        }
        stats.series_by_metric = metrics.into_sorted();
        stats.values_by_name = names.into_sorted();
        stats.bytes_by_name = bytes.into_sorted();
        stats.series_by_pair = pairs.into_sorted();
        stats
    }
}

impl LabelIndex for HeadIndex {
    type Error = Infallible;

    fn all(&self) -> Result<RoaringBitmap, Infallible> {
        Ok(self.all.clone())
    }

    fn add_name(&self, name: &str, into: &mut RoaringBitmap) -> Result<(), Infallible> {
        if let Some(values) = self.names.values(name) {
            *into |= values.any();
        }
        Ok(())
    }

    fn add_value(
        &self,
        name: &str,
        value: &str,
        into: &mut RoaringBitmap,
    ) -> Result<(), Infallible> {
        if let Some(ids) = self.names.values(name).and_then(|values| values.get(value)) {
            ids.add_to(into);
        }
        Ok(())
    }

    fn add_values(
        &self,
        name: &str,
        prefix: &str,
        accept: &mut dyn FnMut(&str) -> bool,
        into: &mut RoaringBitmap,
    ) -> Result<(), Infallible> {
        let Some(values) = self.names.values(name) else { return Ok(()) };
        let mut union = Union::default();
        for (_, ids) in values.with_prefix(prefix).filter(|(value, _)| accept(value)) {
            ids.join(&mut union);
        }
        *into |= union.finish();
        Ok(())
    }
}

/// The largest counts seen; of equal counts the first seen.
struct Top {
    limit: usize,
    /// By count; the names of one count in the order they came.
    entries: BTreeMap<u64, Vec<String>>,
    len: usize,
}

impl Top {
    fn new(limit: usize) -> Self {
        Self { limit, entries: BTreeMap::new(), len: 0 }
    }

    fn offer(&mut self, count: u64, name: impl FnOnce() -> String) {
        let least = self.entries.first_key_value().map_or(0, |(least, _)| *least);
        if self.limit == 0 || (self.len == self.limit && count <= least) {
            return;
        }
        self.entries.entry(count).or_default().push(name());
        self.len += 1;
        if self.len > self.limit
            && let Some(mut entry) = self.entries.first_entry()
        {
            entry.get_mut().pop();
            if entry.get().is_empty() {
                entry.remove();
            }
            self.len -= 1;
        }
    }

    fn into_sorted(self) -> Vec<NamedCount> {
        let entries = self.entries.into_iter().rev();
        entries
            .flat_map(|(count, names)| {
                names.into_iter().map(move |name| NamedCount { name, value: count })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matcher::MatchOp;

    fn index(series: &[&[(&str, &str)]]) -> (HeadIndex, Vec<Labels>) {
        let mut index = HeadIndex::new();
        let labels: Vec<_> =
            series.iter().map(|pairs| Labels::from_pairs(pairs.iter().copied())).collect();
        for (id, labels) in labels.iter().enumerate() {
            index.insert(id as u32, labels);
        }
        (index, labels)
    }

    const SERIES: &[&[(&str, &str)]] = &[
        &[("__name__", "up"), ("job", "api")],
        &[("__name__", "up"), ("job", "db"), ("zone", "a")],
        &[("__name__", "load"), ("job", "api"), ("zone", "b")],
        &[("__name__", "load")],
    ];

    #[test]
    fn matchers_find_what_they_match() {
        let (index, _) = index(SERIES);
        let check = |matchers: &[(MatchOp, &str, &str)]| {
            let matchers: Vec<_> =
                matchers.iter().map(|(op, n, v)| Matcher::new(*op, n, v).unwrap()).collect();
            index.select(&matchers).iter().collect::<Vec<_>>()
        };
        use MatchOp::{Equal, NotEqual, NotRegex, Regex};
        assert_eq!(check(&[]), [0, 1, 2, 3]);
        assert_eq!(check(&[(Equal, "__name__", "up")]), [0, 1]);
        assert_eq!(check(&[(Equal, "zone", "")]), [0, 3]);
        assert_eq!(check(&[(NotEqual, "zone", "")]), [1, 2]);
        assert_eq!(check(&[(Regex, "zone", "a|")]), [0, 1, 3]);
        assert_eq!(check(&[(NotRegex, "zone", "a|")]), [2]);
        assert_eq!(check(&[(Regex, "zone", ".*")]), [0, 1, 2, 3]);
        assert_eq!(check(&[(NotRegex, "zone", ".*")]), [] as [u32; 0]);
        assert_eq!(check(&[(Regex, "zone", ".+")]), [1, 2]);
        assert_eq!(check(&[(NotRegex, "zone", ".+")]), [0, 3]);
        assert_eq!(check(&[(Regex, "job", "a.*"), (NotEqual, "__name__", "up")]), [2]);
        assert_eq!(check(&[(Equal, "nope", "x")]), [] as [u32; 0]);
        assert_eq!(check(&[(NotEqual, "nope", "x")]), [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_removed_is_gone_and_its_names_too() {
        let (mut index, labels) = index(SERIES);
        index.remove(1, &labels[1]);
        index.remove(2, &labels[2]);
        assert_eq!(index.label_names(None), ["__name__", "job"]);
        assert_eq!(index.label_values("job", None), ["api"]);
        assert_eq!(index.select(&[Matcher::equal("job", "db")]).len(), 0);
        assert_eq!(index.series_count(), 2);
    }

    #[test]
    fn names_and_values_can_be_those_of_some_series() {
        let (index, _) = index(SERIES);
        let some = RoaringBitmap::from([0, 3]);
        assert_eq!(index.label_names(Some(&some)), ["__name__", "job"]);
        assert_eq!(index.label_values("__name__", Some(&some)), ["load", "up"]);
        assert_eq!(index.label_values("job", Some(&some)), ["api"]);
    }

    #[test]
    fn statistics_count_series_values_and_bytes() {
        let (index, _) = index(SERIES);
        let stats = index.stats(2);
        let show = |counts: &[NamedCount]| {
            let texts: Vec<_> = counts.iter().map(|c| format!("{}:{}", c.name, c.value)).collect();
            texts.join(" ")
        };
        assert_eq!((stats.series_count, stats.pair_count), (4, 6));
        assert_eq!(show(&stats.series_by_metric), "load:2 up:2");
        assert_eq!(show(&stats.values_by_name), "__name__:2 job:2");
        assert_eq!(show(&stats.bytes_by_name), "__name__:12 job:8");
        assert_eq!(show(&stats.series_by_pair), "__name__=load:2 __name__=up:2");
    }
}
