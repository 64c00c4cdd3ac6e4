//! The newest samples in the rows of one log file, group by group: a row concerns hundreds of
//! series that lie side by side here, and not in the tables by number.

use crate::storage::head::judge::NO_SAMPLE;
use crate::storage::log::format::{Bits, Row};
use crate::storage::registry::SeriesRef;

/// The groups of a log file, by number.
#[derive(Debug, Default)]
pub struct NewestRows(Vec<Group>);

/// The newest sample of each slot.
#[derive(Debug, Default)]
struct Group {
    members: Vec<SeriesRef>,
    /// [`NO_SAMPLE`]: none in a row that was applied.
    ms: Vec<i64>,
    bits: Vec<u64>,
}

impl NewestRows {
    /// Gives a group more slots. A row may leave out values as unchanged: `bits_of` tells what
    /// those of each series are before the first row.
    pub fn add_members(
        &mut self,
        group: u32,
        series: &[SeriesRef],
        bits_of: impl Fn(SeriesRef) -> u64,
    ) -> Result<(), &'static str> {
        let at = group as usize;
        if at == self.0.len() {
            self.0.push(Group::default());
        }
        let group = self.0.get_mut(at).ok_or("group number out of order")?;
        group.members.extend_from_slice(series);
        group.ms.resize(group.members.len(), NO_SAMPLE);
        group.bits.extend(series.iter().map(|series| bits_of(*series)));
        Ok(())
    }

    /// Applies the next row of a group.
    pub fn apply(&mut self, group: u32, row: &Row<'_>) -> Result<(), &'static str> {
        let group = self.0.get_mut(group as usize).ok_or("row of an unknown group")?;
        let all = group.ms.get_mut(..row.slot_count).zip(group.bits.get_mut(..row.slot_count));
        let (ms, bits) = all.ok_or("row has more slots than its group")?;
        if let Bits::All(_) = row.present {
            ms.fill(row.timestamp_ms);
        } else {
            for_each(row.present, row.slot_count, |slot| ms[slot] = row.timestamp_ms);
        }
        let mut values = row.values();
        if let Bits::All(_) = row.changed {
            bits.iter_mut().zip(values).for_each(|(bits, value)| *bits = value);
        } else {
            for_each(row.changed, row.slot_count, |slot| {
                bits[slot] = values.next().unwrap_or(bits[slot]);
            });
        }
        Ok(())
    }

    /// The newest sample of each slot that had one, with its series.
    pub fn samples(&self) -> impl Iterator<Item = (SeriesRef, i64, u64)> {
        let samples = self.0.iter().flat_map(|group| {
            let values = group.ms.iter().zip(&group.bits);
            group.members.iter().zip(values).map(|(series, (ms, bits))| (*series, *ms, *bits))
        });
        samples.filter(|(_, ms, _)| *ms != NO_SAMPLE)
    }
}

/// Calls `visit` with each slot below `slot_count` that is set.
fn for_each(bits: Bits<'_>, slot_count: usize, mut visit: impl FnMut(usize)) {
    for word in 0..slot_count.div_ceil(64) {
        let mut rest = bits.word(word);
        while rest != 0 {
            let slot = word * 64 + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if slot < slot_count {
                visit(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::format::{Cursor, push_row};

    fn row(timestamp_ms: i64, slots: usize, present: u64, changed: u64, values: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        push_row(&mut out, timestamp_ms, slots, &[present], &[changed], values);
        out
    }

    #[test]
    fn each_slot_has_its_newest_sample() {
        let mut rows = NewestRows::default();
        rows.add_members(0, &[7, 3], |series| u64::from(series) * 100).unwrap();
        assert_eq!(rows.samples().count(), 0);
        let mut apply = |bytes: Vec<u8>| {
            let mut cursor = Cursor::new(&bytes, 0, bytes.len()).unwrap();
            let row = Row::read(&mut cursor, 1_000).unwrap();
            let applied = rows.apply(0, &row).map(|()| rows.samples().collect::<Vec<_>>());
            if row.timestamp_ms == 1_002 {
                rows.add_members(0, &[5], |_| 50).unwrap();
            }
            applied
        };
        // Unchanged: what it was before the file.
        assert_eq!(apply(row(1, 2, 0b10, 0, &[])), Ok(vec![(3, 1_001, 300)]));
        assert_eq!(apply(row(2, 2, 0b11, 0b01, &[9])), Ok(vec![(7, 1_002, 9), (3, 1_002, 300)]));
        let all = [(7, 1_003, 1), (3, 1_003, 2), (5, 1_003, 3)];
        assert_eq!(apply(row(3, 3, 0b111, 0b111, &[1, 2, 3])), Ok(all.to_vec()));
        let some = [(7, 1_003, 1), (3, 1_003, 2), (5, 1_004, 4)];
        assert_eq!(apply(row(4, 3, 0b100, 0b100, &[4])), Ok(some.to_vec()));
        assert!(apply(row(5, 4, 0b1000, 0, &[])).is_err(), "more slots than members");
        let bytes = row(1, 1, 1, 0, &[]);
        let row = Row::read(&mut Cursor::new(&bytes, 0, bytes.len()).unwrap(), 0).unwrap();
        assert!(rows.apply(1, &row).is_err() && rows.add_members(2, &[1], |_| 0).is_err());
    }
}
