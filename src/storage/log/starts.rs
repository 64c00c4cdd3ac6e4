//! Start timestamps as bytes of a log file. Drawn in `docs/formats/log.md`.

use super::format::{Cursor, GROUP_SLOTS_MAX, push_varint, push_zigzag};

/// Appends: what is written of these series from here on began to be counted then.
pub fn push_starts(out: &mut Vec<u8>, base_ms: i64, start_ms: i64, series: &[u32]) {
    assert!(series.len() <= GROUP_SLOTS_MAX);
    push_zigzag(out, start_ms.wrapping_sub(base_ms));
    push_varint(out, series.len() as u64);
    let mut last = 0;
    for series in series {
        push_zigzag(out, i64::from(*series) - last);
        last = i64::from(*series);
    }
}

/// The start and the series at the cursor.
pub fn read_starts(cursor: &mut Cursor<'_>, base_ms: i64) -> Option<(i64, Vec<u32>)> {
    let start_ms = base_ms.wrapping_add(cursor.zigzag()?);
    Some((start_ms, read_series_list(cursor)?))
}

/// A count and the differences of so many series' numbers.
pub fn read_series_list(cursor: &mut Cursor<'_>) -> Option<Vec<u32>> {
    let count = usize::try_from(cursor.varint()?).ok()?;
    if count > GROUP_SLOTS_MAX {
        return None;
    }
    let mut last = 0_i64;
    let mut series = Vec::with_capacity(count);
    for _ in 0..count {
        last = last.checked_add(cursor.zigzag()?)?;
        series.push(u32::try_from(last).ok()?);
    }
    Some(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_read_as_written_and_not_when_they_are_cut() {
        let read = |bytes: &[u8]| {
            let mut cursor = Cursor::new(bytes, 0, bytes.len())?;
            read_starts(&mut cursor, 1_000).filter(|_| cursor.is_empty())
        };
        for start_ms in [0, 1, -1, 999, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            push_starts(&mut bytes, 1_000, start_ms, &[7, 8, 9, 4]);
            assert_eq!(read(&bytes), Some((start_ms, vec![7, 8, 9, 4])));
            assert!((0..bytes.len()).all(|cut| read(&bytes[..cut]).is_none()));
        }
        let mut bytes = Vec::new();
        push_starts(&mut bytes, 1_000, 990, &(100..600).collect::<Vec<_>>());
        assert!(bytes.len() < 510, "a byte for each of neighbouring series");
    }
}
