//! Sorts label sets in canonical form: many that begin alike, which comparing one with another
//! would read again and again.
//!
//! What a part of them has in common is skipped, and the next eight letters of each decide; those
//! that have the same letters there are a part of their own.

use std::cmp::Ordering;

use crate::storage::fingerprint::{END, compare_canonical};

/// A label set and the number of its series.
pub type Numbered<'a> = (&'a [u8], u32);

/// Fewer are compared with each other.
const PART_MIN: usize = 24;

/// Letters that decide together.
const LETTERS: usize = size_of::<u64>();

struct Keyed<'a> {
    letters: u64,
    own: Numbered<'a>,
}

fn compare(a: &Numbered<'_>, b: &Numbered<'_>) -> Ordering {
    compare_canonical(a.0, b.0).then(a.1.cmp(&b.1))
}

/// Sorts by labels, equal ones by number.
pub fn sort(all: Vec<Numbered<'_>>) -> Vec<Numbered<'_>> {
    if all.is_sorted_by(|a, b| compare(a, b) != Ordering::Greater) {
        return all;
    }
    let mut all: Vec<_> = all.into_iter().map(|own| Keyed { letters: 0, own }).collect();
    // Parts that begin with so many equal bytes.
    let mut parts = vec![(0..all.len(), 0)];
    while let Some((range, depth)) = parts.pop() {
        let part = &mut all[range.clone()];
        let depth = depth + common(part, depth);
        if part.len() < PART_MIN || part.iter().any(|one| one.own.0.len() <= depth) {
            part.sort_unstable_by(|a, b| compare(&a.own, &b.own));
            continue;
        }
        for one in part.iter_mut() {
            one.letters = letters(&one.own.0[depth..]);
        }
        part.sort_unstable_by_key(|one| one.letters);
        let mut start = range.start;
        for equal in part.chunk_by(|a, b| a.letters == b.letters) {
            if 1 < equal.len() {
                parts.push((start..start + equal.len(), depth + LETTERS));
            }
            start += equal.len();
        }
    }
    all.into_iter().map(|one| one.own).collect()
}

/// How many bytes after the first `depth` all have in common.
fn common(part: &[Keyed<'_>], depth: usize) -> usize {
    let mut rests = part.iter().map(|one| one.own.0.get(depth..).unwrap_or_default());
    let Some(mut same) = rests.next() else { return 0 };
    for rest in rests {
        let equal = same.iter().zip(rest).take_while(|(a, b)| a == b).count();
        same = &same[..equal];
        if same.is_empty() {
            break;
        }
    }
    same.len()
}

/// The first letters such that labels are in order when these are: the end of a text comes before
/// any letter, and the end of all before that.
fn letters(text: &[u8]) -> u64 {
    if let Some(eight) = text.first_chunk::<LETTERS>() {
        return u64::from_be_bytes(eight.map(rank));
    }
    let mut last = [0; LETTERS];
    for (rank_of, byte) in last.iter_mut().zip(text) {
        *rank_of = rank(*byte);
    }
    u64::from_be_bytes(last)
}

fn rank(byte: u8) -> u8 {
    byte.wrapping_sub(END)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::labels::Labels;
    use crate::storage::append::SeriesKey;
    use crate::storage::fingerprint::push_canonical;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn sorted_like_labels(
            sets in prop::collection::vec(
                prop::collection::btree_map("[ab]{1,2}(__name__){0,2}", "[aé]{1,9}[bc]{0,3}", 0..4),
                0..200,
            ),
        ) {
            let sets: Vec<Labels> = sets.iter().map(Labels::from_pairs).collect();
            let canonical = |labels: &Labels| {
                let mut out = Vec::new();
                push_canonical(SeriesKey::Labels(labels), &mut out);
                out
            };
            let all: Vec<Vec<u8>> = sets.iter().map(canonical).collect();
            let numbered = (0..).zip(&all).map(|(at, own)| (own.as_slice(), at)).collect();
            let found: Vec<u32> = sort(numbered).into_iter().map(|(_, at)| at).collect();
            let mut expected: Vec<u32> = (0..sets.len() as u32).collect();
            expected.sort_by_key(|at| &sets[*at as usize]);
            prop_assert_eq!(found, expected);
        }
    }
}
