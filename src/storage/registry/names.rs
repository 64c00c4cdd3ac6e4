//! What senders call a series: a hash of the bytes that named it in a request, so that a known
//! series needs no decoding of labels.
//!
//! The hash only saves work: whatever it does not know is found by its labels. But what it does
//! know is taken for the series, so bytes of a hostile sender must not collide. It is NH of UMAC
//! twice over 64-bit words, the second time with the key shifted by a pair of words (Toeplitz), and
//! each sum folded to 64 bits by strongly universal hashing; the chance that two given names
//! collide is about 2^-126 for who does not know the key. The key comes from the data directory's.

use hashbrown::HashTable;

use super::SeriesRef;
use crate::storage::fingerprint::HashKey;

/// Longer names are always decoded.
pub const NAME_BYTES_MAX: usize = 2048;
/// Pairs of key words: one for each 16 bytes, and one more for the shift.
const PAIRS: usize = NAME_BYTES_MAX / 16 + 1;

/// Hash of a name; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireName(u128);

/// The keyed hash.
pub struct NameHash {
    pairs: Box<[[u64; 2]; PAIRS]>,
    /// For the length, in each sum.
    lengths: [[u64; 2]; 2],
    folds: [[u128; 3]; 2],
}

impl std::fmt::Debug for NameHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameHash")
    }
}

impl NameHash {
    /// Derives its key.
    pub fn new(key: HashKey) -> Self {
        let mut counter = 0_u64;
        let mut next = || {
            counter += 1;
            key.fingerprint(&[&b"wire name"[..], &counter.to_le_bytes()].concat())
        };
        let halves = |word: u128| [word as u64, (word >> 64) as u64];
        let mut pairs = Box::new([[0; 2]; PAIRS]);
        pairs.fill_with(|| halves(next()));
        let lengths = [halves(next()), halves(next())];
        let folds = [[next(), next(), next()], [next(), next(), next()]];
        Self { pairs, lengths, folds }
    }

    /// The hash of a name; `None` when it is too long.
    #[inline]
    pub fn hash(&self, name: &[u8]) -> Option<WireName> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut sums = self.lengths.map(|key| product(key, [name.len() as u64, 0]));
        let mut add = |keys: &[[u64; 2]], block: &[u8; 16]| {
            let words = halves(block);
            if let [first, second] = keys {
                sums[0] = sums[0].wrapping_add(product(*first, words));
                sums[1] = sums[1].wrapping_add(product(*second, words));
            }
        };
        let (blocks, tail) = name.as_chunks::<16>();
        let mut keys = self.pairs.windows(2);
        for (block, keys) in blocks.iter().zip(&mut keys) {
            add(keys, block);
        }
        if !tail.is_empty() {
            let mut block = [0; 16];
            block[..tail.len()].copy_from_slice(tail);
            let at = blocks.len();
            add(&self.pairs[at..at + 2], &block);
        }
        let [low, high] = [0, 1].map(|at| u128::from(fold(&self.folds[at], sums[at])));
        Some(WireName((high << 64 | low).max(1)))
    }
}

#[inline]
fn halves(block: &[u8; 16]) -> [u64; 2] {
    let word = u128::from_le_bytes(*block);
    [word as u64, (word >> 64) as u64]
}

#[inline]
fn product(key: [u64; 2], words: [u64; 2]) -> u128 {
    u128::from(key[0].wrapping_add(words[0])) * u128::from(key[1].wrapping_add(words[1]))
}

#[inline]
fn fold(key: &[u128; 3], sum: u128) -> u64 {
    let low = key[1].wrapping_mul(u128::from(sum as u64));
    let high = key[2].wrapping_mul(sum >> 64);
    (key[0].wrapping_add(low).wrapping_add(high) >> 64) as u64
}

/// The name by which each series came last, and the way back.
#[derive(Debug, Default)]
pub struct Names {
    /// By number; 0: none.
    names: Vec<u128>,
    table: HashTable<SeriesRef>,
}

impl Names {
    /// Whether the series came by this name.
    #[inline]
    pub fn is(&self, series: SeriesRef, name: WireName) -> bool {
        self.names.get(series as usize) == Some(&name.0)
    }

    /// The series that came by this name.
    pub fn find(&self, name: WireName) -> Option<SeriesRef> {
        self.table.find(name.0 as u64, |series| self.is(*series, name)).copied()
    }

    /// From now on the series is known by this name, and no longer by another one.
    pub fn set(&mut self, series: SeriesRef, name: WireName) {
        if self.find(name).is_some() {
            return;
        }
        self.forget(series);
        if self.names.len() <= series as usize {
            self.names.resize(series as usize + 1, 0);
        }
        self.names[series as usize] = name.0;
        let names = &self.names;
        let hash = |series: &SeriesRef| names[*series as usize] as u64;
        self.table.insert_unique(name.0 as u64, series, hash);
    }

    /// The number will be another series'.
    pub fn forget(&mut self, series: SeriesRef) {
        let Some(name) = self.names.get_mut(series as usize).map(std::mem::take) else { return };
        if let Ok(entry) = self.table.find_entry(name as u64, |other| *other == series) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn plainly(hash: &NameHash, name: &[u8]) -> u128 {
        let mut padded = name.to_vec();
        padded.resize(name.len().next_multiple_of(16), 0);
        let sum = |shift: usize| {
            let mut sum = product(hash.lengths[shift], [name.len() as u64, 0]);
            for (at, block) in padded.as_chunks::<16>().0.iter().enumerate() {
                sum = sum.wrapping_add(product(hash.pairs[at + shift], halves(block)));
            }
            u128::from(fold(&hash.folds[shift], sum))
        };
        sum(1) << 64 | sum(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn each_bit_and_each_length_counts(
            name in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, bit in 0_u8..8,
        ) {
            let hash = NameHash::new(HashKey(1, 2));
            let own = hash.hash(&name).unwrap();
            prop_assert_eq!(own.0, plainly(&hash, &name));
            let mut other = name.clone();
            other[at.index(name.len())] ^= 1 << bit;
            prop_assert_ne!(hash.hash(&other), Some(own));
            let longer = [&name[..], &[0]].concat();
            prop_assert_ne!(hash.hash(&longer), Some(own));
            prop_assert_ne!(NameHash::new(HashKey(1, 3)).hash(&name), Some(own));
        }
    }

    #[test]
    fn the_longest_name_is_hashed_and_a_longer_one_is_not() {
        let hash = NameHash::new(HashKey(1, 2));
        for len in [0, 16, NAME_BYTES_MAX - 1, NAME_BYTES_MAX] {
            let name = vec![7; len];
            assert_eq!(hash.hash(&name).unwrap().0, plainly(&hash, &name));
        }
        assert_eq!(hash.hash(&[7; NAME_BYTES_MAX + 1]), None);
    }

    #[test]
    fn a_series_is_found_by_its_last_name_only() {
        let (mut names, name) = (Names::default(), |own: u128| WireName(own));
        names.set(5, name(50));
        names.set(6, name(60));
        names.set(5, name(51));
        assert_eq!(names.find(name(50)), None);
        assert_eq!((names.find(name(51)), names.find(name(60))), (Some(5), Some(6)));
        names.set(7, name(60));
        assert_eq!(names.find(name(60)), Some(6), "the name of another series");
        names.forget(6);
        names.forget(900);
        assert_eq!((names.find(name(60)), names.is(6, name(60))), (None, false));
        assert!(names.is(5, name(51)));
    }
}
