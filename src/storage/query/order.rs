//! Sorts label sets: many that begin alike, which comparing one with another would read again and
//! again.
//!
//! Of those in canonical form, what a part of them has in common is skipped, and the next eight
//! letters of each decide; those that have the same letters there are a part of their own. Of those
//! that are numbers of labels only the labels are sorted so, each once; then their ranks decide.

use std::cmp::Ordering;

use crate::storage::fingerprint::{END, compare_canonical};
use crate::storage::registry::sets::{LabelRef, List, Sets, Span};

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

/// Fewer sets are compared with each other.
const RANKED_MIN: usize = 64;

/// The rest of a label set, and the number of its series.
struct Ranked<'a> {
    /// Of the label before the rest; 0 when there was none any more.
    rank: u32,
    number: u32,
    rest: List<'a>,
}

/// Numbers series from 0 on, and sorts these numbers by labels, equal ones by number.
pub fn sort_sets(sets: &Sets, all: impl Iterator<Item = Span>) -> Vec<u32> {
    let ranked = |(number, set)| Ranked { rank: 0, number, rest: sets.list(set) };
    let mut all: Vec<_> = (0..).zip(all).map(ranked).collect();
    if all.len() < RANKED_MIN {
        all.sort_unstable_by(|a, b| {
            sets.compare(a.rest.clone(), b.rest.clone()).then(a.number.cmp(&b.number))
        });
    } else {
        let ranks = ranks(sets, all.iter().flat_map(|one| one.rest.clone()));
        sort_ranked(&mut all, &ranks);
    }
    all.into_iter().map(|one| one.number).collect()
}

fn sort_ranked(all: &mut [Ranked<'_>], ranks: &[u32]) {
    // Parts that begin with equal labels.
    let mut parts = Vec::from([(0, all.len())]);
    while let Some((start, end)) = parts.pop() {
        let part = &mut all[start..end];
        for one in part.iter_mut() {
            one.rank = one.rest.next().map_or(0, |label| ranks[label as usize]);
        }
        part.sort_unstable_by_key(|one| (one.rank, one.number));
        let mut start = start;
        for equal in part.chunk_by(|a, b| a.rank == b.rank) {
            let end = start + equal.len();
            if 1 < equal.len() && equal[0].rank != 0 {
                parts.push((start, end));
            }
            start = end;
        }
    }
}

/// By label, from 1 on in their order; of those that are there.
fn ranks(sets: &Sets, labels: impl Iterator<Item = LabelRef>) -> Vec<u32> {
    let mut ranks = vec![0; sets.label_count()];
    for label in labels {
        ranks[label as usize] = 1;
    }
    let there = (0..).zip(&ranks).filter(|(_, mark)| **mark != 0);
    let texts = there.map(|(label, _)| (sets.text(label), label)).collect();
    for (rank, (_, label)) in (1..).zip(sort(texts)) {
        ranks[label as usize] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::labels::Labels;
    use crate::storage::fingerprint::canonical;
    use crate::storage::registry::sets::LabelSets;

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
            let all: Vec<Vec<u8>> = sets.iter().map(canonical).collect();
            let numbered = (0..).zip(&all).map(|(at, own)| (own.as_slice(), at)).collect();
            let found: Vec<u32> = sort(numbered).into_iter().map(|(_, at)| at).collect();
            let mut expected: Vec<u32> = (0..sets.len() as u32).collect();
            expected.sort_by_key(|at| &sets[*at as usize]);
            prop_assert_eq!(&found, &expected);

            let mut kept = LabelSets::default();
            let keep = |own: &Vec<u8>| {
                kept.read(own).unwrap();
                kept.push_last_read()
            };
            let spans: Vec<Span> = all.iter().map(keep).collect();
            for count in [spans.len(), spans.len().min(RANKED_MIN - 1)] {
                expected.retain(|at| (*at as usize) < count);
                let found = sort_sets(kept.sets(), spans[..count].iter().copied());
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
