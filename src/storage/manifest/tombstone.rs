//! What the manifest tells of a deletion.

use super::super::log::format::{Cursor, push_sized, push_varint, push_zigzag};
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::sample::TimeRange;

/// A deletion: of what was committed before it, the samples in the range of all series that fulfil
/// one of the sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TombstoneEntry {
    /// Its number, from the same row as those of files: a later one is larger.
    pub id: u64,
    /// The last commit before it.
    pub sequence: u64,
    /// Which samples; inclusive.
    pub range: TimeRange,
    /// Which series: those that fulfil all matchers of any set.
    pub sets: Vec<Vec<Matcher>>,
}

impl TombstoneEntry {
    /// Appends its fields.
    pub fn push(&self, out: &mut Vec<u8>) {
        push_varint(out, self.id);
        push_varint(out, self.sequence);
        push_zigzag(out, self.range.min_ms);
        push_zigzag(out, self.range.max_ms);
        push_varint(out, self.sets.len() as u64);
        for set in &self.sets {
            push_varint(out, set.len() as u64);
            for matcher in set {
                out.push(match matcher.op() {
                    MatchOp::Equal => 0,
                    MatchOp::NotEqual => 1,
                    MatchOp::Regex => 2,
                    MatchOp::NotRegex => 3,
                });
                push_sized(out, matcher.name().as_bytes());
                push_sized(out, matcher.value().as_bytes());
            }
        }
    }

    /// Reads the fields.
    pub fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let (id, sequence) = (cursor.varint()?, cursor.varint()?);
        let range = TimeRange { min_ms: cursor.zigzag()?, max_ms: cursor.zigzag()? };
        let mut sets = Vec::new();
        for _ in 0..cursor.varint()? {
            let mut set = Vec::new();
            for _ in 0..cursor.varint()? {
                set.push(read_matcher(cursor)?);
            }
            sets.push(set);
        }
        Some(Self { id, sequence, range, sets })
    }
}

fn read_matcher(cursor: &mut Cursor<'_>) -> Option<Matcher> {
    let op = match cursor.u8()? {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        _ => return None,
    };
    let name = std::str::from_utf8(cursor.sized()?).ok()?;
    let value = std::str::from_utf8(cursor.sized()?).ok()?;
    Matcher::new(op, name, value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_read_as_written_and_never_beyond_its_end() {
        let new = |op, value| Matcher::new(op, "job", value).unwrap();
        let own = TombstoneEntry {
            id: 300,
            sequence: 7,
            range: TimeRange { min_ms: -5, max_ms: i64::MAX },
            sets: vec![
                vec![new(MatchOp::Equal, "a"), new(MatchOp::NotEqual, "")],
                vec![new(MatchOp::Regex, "x.*"), new(MatchOp::NotRegex, "xy|xz")],
                Vec::new(),
            ],
        };
        let mut bytes = Vec::new();
        own.push(&mut bytes);
        let read = |bytes: &[u8]| {
            let mut cursor = Cursor::new(bytes, 0, bytes.len())?;
            TombstoneEntry::read(&mut cursor).filter(|_| cursor.is_empty())
        };
        assert_eq!(read(&bytes), Some(own));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "cut at {end}");
        }
    }
}
