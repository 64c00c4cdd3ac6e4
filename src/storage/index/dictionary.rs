//! Label names and values of the head in order, each with its series.
//!
//! Most values of the costly labels (pod, uuid, path) belong to one series or to few: such a value
//! has no bitmap of its own.

use std::collections::BTreeMap;
use std::ops::Bound;

use roaring::RoaringBitmap;

use super::union::{IdSet as _, Union};

/// Series of a value that are kept as a list.
const FEW_MAX: usize = 16;
/// So many series are added one by one to those that have a label at all.
const ANY_FEW_MAX: usize = 1 << 10;

/// Label names and their values.
#[derive(Debug, Default)]
pub struct Dictionary(BTreeMap<Box<str>, Values>);

/// The values of one label.
#[derive(Debug, Default)]
pub struct Values {
    any: RoaringBitmap,
    by_value: BTreeMap<Box<str>, Postings>,
}

/// Series of one value; never empty.
#[derive(Debug)]
pub enum Postings {
    /// One series.
    One(u32),
    /// Up to [`FEW_MAX`], ascending.
    Few(Vec<u32>),
    /// Several, or what is left of them.
    Many(Box<RoaringBitmap>),
}

impl Dictionary {
    /// Notes that a series has a label.
    pub fn insert(&mut self, name: &str, value: &str, id: u32) {
        if let Some(values) = self.0.get_mut(name) {
            values.insert(value, id);
        } else {
            self.0.entry(name.into()).or_default().insert(value, id);
        }
    }

    /// Notes that series have a label: the values with their series, each in ascending order.
    pub fn insert_many<'a>(
        &mut self,
        name: &str,
        values: impl Iterator<Item = (&'a str, &'a [u32])>,
    ) {
        let own = self.0.entry(name.into()).or_default();
        let (mut any, mut few) = (Union::default(), Vec::new());
        for (value, ids) in values {
            own.insert_many(value, ids);
            if few.len() + ids.len() <= ANY_FEW_MAX {
                few.extend_from_slice(ids);
            } else {
                for id in ids {
                    any.insert(*id);
                }
            }
        }
        own.any |= any.finish();
        own.any.extend(few);
    }

    /// Forgets it again.
    pub fn remove(&mut self, name: &str, value: &str, id: u32) {
        let Some(values) = self.0.get_mut(name) else { return };
        values.remove(value, id);
        if values.by_value.is_empty() {
            self.0.remove(name);
        }
    }

    /// The values of a label.
    pub fn values(&self, name: &str) -> Option<&Values> {
        self.0.get(name)
    }

    /// All labels in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Values)> {
        self.0.iter().map(|(name, values)| (&**name, values))
    }
}

impl Values {
    fn insert(&mut self, value: &str, id: u32) {
        self.any.insert(id);
        match self.by_value.get_mut(value) {
            Some(postings) => postings.insert(id),
            None => {
                self.by_value.insert(value.into(), Postings::One(id));
            }
        }
    }

    fn insert_many(&mut self, value: &str, ids: &[u32]) {
        if let Some(postings) = self.by_value.get_mut(value) {
            postings.insert_many(ids);
        } else if let Some((first, others)) = ids.split_first() {
            let mut postings = Postings::One(*first);
            postings.insert_many(others);
            self.by_value.insert(value.into(), postings);
        }
    }

    fn remove(&mut self, value: &str, id: u32) {
        self.any.remove(id);
        if let Some(postings) = self.by_value.get_mut(value)
            && postings.remove(id)
        {
            self.by_value.remove(value);
        }
    }

    /// Number of distinct values; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a label without values is removed")]
    pub fn len(&self) -> usize {
        self.by_value.len()
    }

    /// The series that have the label.
    pub fn any(&self) -> &RoaringBitmap {
        &self.any
    }

    /// The series of a value.
    pub fn get(&self, value: &str) -> Option<&Postings> {
        self.by_value.get(value)
    }

    /// All values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Postings)> {
        self.with_prefix("")
    }

    /// The values that begin with `prefix`, in order.
    pub fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Postings)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let values = self.by_value.range::<str, _>(from).map(|(value, ids)| (&**value, ids));
        values.take_while(move |(value, _)| value.starts_with(prefix))
    }
}

impl Postings {
    fn insert(&mut self, id: u32) {
        match self {
            Self::One(own) if *own == id => {}
            Self::One(own) => *self = Self::Few(vec![id.min(*own), id.max(*own)]),
            Self::Few(ids) => {
                let Err(at) = ids.binary_search(&id) else { return };
                ids.insert(at, id);
                if FEW_MAX < ids.len() {
                    *self = Self::Many(Box::new(ids.iter().copied().collect()));
                }
            }
            Self::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    fn insert_many(&mut self, ids: &[u32]) {
        if let Self::Many(own) = self {
            extend_sorted(own, ids);
        } else if self.len() + ids.len() as u64 <= FEW_MAX as u64 {
            for id in ids {
                self.insert(*id);
            }
        } else {
            let mut all = RoaringBitmap::new();
            self.add_to(&mut all);
            extend_sorted(&mut all, ids);
            *self = Self::Many(Box::new(all));
        }
    }

    /// Whether nothing is left.
    fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::One(own) => *own == id,
            Self::Few(ids) => {
                ids.retain(|own| *own != id);
                ids.is_empty()
            }
            Self::Many(ids) => {
                ids.remove(id);
                ids.is_empty()
            }
        }
    }

    /// Number of series; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a value without series is removed")]
    pub fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(ids) => ids.len() as u64,
            Self::Many(ids) => ids.len(),
        }
    }

    /// Adds the series to a set.
    pub fn add_to(&self, into: &mut RoaringBitmap) {
        match self {
            Self::One(id) => {
                into.insert(*id);
            }
            Self::Few(ids) => into.extend(ids),
            Self::Many(ids) => *into |= &**ids,
        }
    }

    /// Adds the series to a union of many.
    pub fn join(&self, into: &mut Union) {
        match self {
            Self::One(id) => into.insert(*id),
            Self::Few(ids) => ids.iter().for_each(|id| into.insert(*id)),
            Self::Many(ids) => into.add_set(ids),
        }
    }

    /// Whether any series is in the set.
    pub fn intersects(&self, set: &RoaringBitmap) -> bool {
        match self {
            Self::One(id) => set.contains(*id),
            Self::Few(ids) => ids.iter().any(|id| set.contains(*id)),
            Self::Many(ids) => !ids.is_disjoint(set),
        }
    }
}

/// Adds ids in strictly ascending order.
pub fn extend_sorted(set: &mut RoaringBitmap, ids: &[u32]) {
    debug_assert!(ids.is_sorted_by(|a, b| a < b));
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return };
    if (last - first) as usize == ids.len() - 1 {
        set.insert_range(*first..=*last);
    } else if ids.len() < BULK_MIN {
        set.extend(ids);
    } else {
        *set |= of_sorted(ids);
    }
}

/// Fewer ids are added one by one.
const BULK_MIN: usize = 32;
/// More ids of the same upper half are kept as bits.
const ARRAY_MAX: usize = 4096;

/// The set of ids in strictly ascending order. They are put down as a set is serialized
/// (<https://github.com/RoaringBitmap/RoaringFormatSpec>), because adding one by one takes several
/// times as long.
fn of_sorted(ids: &[u32]) -> RoaringBitmap {
    const COOKIE: u32 = 12_346;
    let parts = || ids.chunk_by(|a, b| a >> 16 == b >> 16);
    let count = parts().count();
    let mut out = Vec::with_capacity(8 + 8 * count + size_of::<u16>() * ids.len());
    out.extend_from_slice(&COOKIE.to_le_bytes());
    out.extend_from_slice(&(count as u32).to_le_bytes());
    for part in parts() {
        out.extend_from_slice(&((part[0] >> 16) as u16).to_le_bytes());
        out.extend_from_slice(&((part.len() - 1) as u16).to_le_bytes());
    }
    // Positions, which readers of the whole pass over.
    out.resize(out.len() + size_of::<u32>() * count, 0);
    for part in parts() {
        if part.len() <= ARRAY_MAX {
            out.extend(part.iter().flat_map(|id| (*id as u16).to_le_bytes()));
        } else {
            let start = out.len();
            out.resize(start + (1 << 16) / 8, 0);
            let bits = &mut out[start..];
            for id in part {
                bits[*id as u16 as usize / 8] |= 1 << (id % 8);
            }
        }
    }
    RoaringBitmap::deserialize_unchecked_from(&*out).expect("it was serialized by the book")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_ids_are_added_however_many_there_are_and_wherever() {
        let sets: [Vec<u32>; 8] = [
            vec![],
            vec![7],
            (5..40_000).collect(),
            (0..400_000).step_by(3).collect(),
            (65_000..2_000_000).step_by(997).collect(),
            (0..BULK_MIN as u32).map(|id| id * 65_536).collect(),
            (0..=2 * ARRAY_MAX as u32).step_by(2).collect(),
            (0..2 * ARRAY_MAX as u32).step_by(2).chain([u32::MAX]).collect(),
        ];
        for (before, ids) in sets.iter().flat_map(|a| sets.iter().map(move |b| (a, b))) {
            let mut set: RoaringBitmap = before.iter().collect();
            extend_sorted(&mut set, ids);
            let expected: RoaringBitmap = before.iter().chain(ids).collect();
            assert_eq!(set.len(), expected.len());
            assert!(set.iter().eq(expected.iter()));
        }
    }
}
