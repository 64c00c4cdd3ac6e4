//! The union of many small sets of series, as a scan of a label's values finds them.

use roaring::RoaringBitmap;

/// Takes in sets of ids.
pub trait IdSet {
    /// Adds all ids between these two, inclusive.
    fn add_range(&mut self, first: u32, last: u32);

    /// Adds a set.
    fn add_set(&mut self, set: &RoaringBitmap);
}

impl IdSet for RoaringBitmap {
    fn add_range(&mut self, first: u32, last: u32) {
        self.insert_range(first..=last);
    }

    fn add_set(&mut self, set: &RoaringBitmap) {
        *self |= set;
    }
}

/// Sets of more ids are joined as they are.
const SMALL_MAX: u64 = 1 << 12;

/// A union in the making: a bit for each id up to the greatest, so that adding one costs next to
/// nothing however many there are already.
#[derive(Debug, Default)]
pub struct Union {
    bits: Vec<u8>,
    large: RoaringBitmap,
}

impl Union {
    /// Adds one id.
    #[inline]
    pub fn insert(&mut self, id: u32) {
        let at = id as usize / 8;
        if self.bits.len() <= at {
            self.bits.resize(at + 1, 0);
        }
        self.bits[at] |= 1 << (id % 8);
    }

    /// The union.
    pub fn finish(self) -> RoaringBitmap {
        RoaringBitmap::from_lsb0_bytes(0, &self.bits) | self.large
    }
}

impl IdSet for Union {
    fn add_range(&mut self, first: u32, last: u32) {
        if u64::from(last - first) < SMALL_MAX {
            (first..=last).for_each(|id| self.insert(id));
        } else {
            self.large.insert_range(first..=last);
        }
    }

    fn add_set(&mut self, set: &RoaringBitmap) {
        if set.len() < SMALL_MAX {
            set.iter().for_each(|id| self.insert(id));
        } else {
            self.large |= set;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn unions_are_unions(
            sets in prop::collection::vec(prop::collection::vec(0_u32..200_000, 0..40), 0..20),
            ranges in prop::collection::vec((0_u32..200_000, 0_u32..10_000), 0..6),
        ) {
            let (mut union, mut expected) = (Union::default(), RoaringBitmap::new());
            for set in sets {
                let set: RoaringBitmap = set.into_iter().collect();
                union.add_set(&set);
                expected.add_set(&set);
            }
            for (first, more) in ranges {
                union.add_range(first, first + more);
                expected.add_range(first, first + more);
                let set: RoaringBitmap = (first..first + more).step_by(2).collect();
                union.add_set(&set);
                expected.add_set(&set);
            }
            // Id by id: a set of 4,096 ids made of bits is not `==` to the same set made otherwise.
            prop_assert!(union.finish().iter().eq(expected.iter()));
        }
    }
}
