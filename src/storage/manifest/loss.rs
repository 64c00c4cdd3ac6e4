//! What the manifest tells of samples that were damaged on disk.

use super::super::log::format::{Cursor, push_sized, push_varint, push_zigzag};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use crate::storage::append::SeriesKey;
use crate::storage::fingerprint::{parse_canonical, push_canonical};

/// Samples of one series that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRun {
    /// The series.
    pub labels: Labels,
    /// Between which times they were; inclusive.
    pub range: TimeRange,
    /// Where the damage is in the file.
    pub offset_bytes: u64,
}

/// What was lost with a part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossEntry {
    /// Number of the segment. Its file is kept for people to look at.
    pub id: u64,
    /// All that was lost.
    pub runs: Vec<LostRun>,
}

impl LossEntry {
    /// What is left after a deletion of series that fulfil all matchers of any set.
    pub fn without(&self, sets: &[Vec<Matcher>], range: TimeRange) -> Self {
        let mut runs = Vec::new();
        for own in &self.runs {
            if !own.range.overlaps(range) || !sets.iter().any(|set| own.fulfils(set)) {
                runs.push(own.clone());
                continue;
            }
            let TimeRange { min_ms, max_ms } = own.range;
            if min_ms < range.min_ms {
                let range = TimeRange { min_ms, max_ms: range.min_ms - 1 };
                runs.push(LostRun { range, ..own.clone() });
            }
            if range.max_ms < max_ms {
                let range = TimeRange { min_ms: range.max_ms + 1, max_ms };
                runs.push(LostRun { range, ..own.clone() });
            }
        }
        Self { id: self.id, runs }
    }

    /// Appends its fields.
    pub fn push(&self, out: &mut Vec<u8>) {
        push_varint(out, self.id);
        push_varint(out, self.runs.len() as u64);
        let mut canonical = Vec::new();
        for own in &self.runs {
            canonical.clear();
            push_canonical(SeriesKey::Labels(&own.labels), &mut canonical);
            push_sized(out, &canonical);
            push_zigzag(out, own.range.min_ms);
            push_zigzag(out, own.range.max_ms);
            push_varint(out, own.offset_bytes);
        }
    }

    /// Reads the fields.
    pub fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let id = cursor.varint()?;
        let mut runs = Vec::new();
        for _ in 0..cursor.varint()? {
            let labels = parse_canonical(cursor.sized()?)?;
            let range = TimeRange { min_ms: cursor.zigzag()?, max_ms: cursor.zigzag()? };
            runs.push(LostRun { labels, range, offset_bytes: cursor.varint()? });
        }
        Some(Self { id, runs })
    }
}

impl LostRun {
    /// Whether its series fulfils all matchers.
    pub fn fulfils(&self, matchers: &[Matcher]) -> bool {
        matchers.iter().all(|own| own.matches(self.labels.get(own.name()).unwrap_or("")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(series: &str, min_ms: i64, max_ms: i64) -> LostRun {
        let labels = Labels::from_pairs([("__name__", "m"), ("i", series)]);
        LostRun { labels, range: TimeRange { min_ms, max_ms }, offset_bytes: 32_768 }
    }

    #[test]
    fn a_loss_is_read_as_written_and_never_beyond_its_end() {
        let own = LossEntry { id: 7, runs: vec![run("1", -5, 5), run("2", 0, i64::MAX)] };
        let mut bytes = Vec::new();
        own.push(&mut bytes);
        let read = |bytes: &[u8]| {
            let mut cursor = Cursor::new(bytes, 0, bytes.len())?;
            LossEntry::read(&mut cursor).filter(|_| cursor.is_empty())
        };
        assert_eq!(read(&bytes), Some(own));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn a_deletion_takes_its_part_of_a_loss() {
        let own = LossEntry { id: 7, runs: vec![run("1", 0, 9), run("2", 0, 9)] };
        let of_one = [vec![Matcher::equal("i", "3")], vec![Matcher::equal("i", "1")]];
        for (min_ms, max_ms, expected) in [
            (10, 20, vec![run("1", 0, 9)]),
            (4, 6, vec![run("1", 0, 3), run("1", 7, 9)]),
            (-4, 6, vec![run("1", 7, 9)]),
            (0, 9, vec![]),
        ] {
            let left = own.without(&of_one, TimeRange { min_ms, max_ms });
            let expected: Vec<_> = expected.into_iter().chain([run("2", 0, 9)]).collect();
            assert_eq!(left.runs, expected, "{min_ms} to {max_ms}");
        }
    }
}
