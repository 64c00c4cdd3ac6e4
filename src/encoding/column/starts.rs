//! Start timestamps: runs of equal ones, or codecs of timestamps where they change all the time.

use super::timestamps::{decode_timestamps, encode_timestamps};
use super::{CHUNK_ROWS_MAX, ColumnError, Cursor, varint};

const TAG_RUNS: u8 = 0;
const TAG_TIMESTAMPS: u8 = 1;

/// Appends start timestamps: any integers, small when they hardly ever change.
pub fn encode_starts(starts_ms: &[i64], out: &mut Vec<u8>) {
    assert!(starts_ms.len() <= CHUNK_ROWS_MAX, "a chunk has a limited number of rows");
    let mut runs = vec![TAG_RUNS];
    let mut last = 0;
    for run in starts_ms.chunk_by(|a, b| a == b) {
        varint::put(run.len() as u64, &mut runs);
        varint::put_signed(run[0].wrapping_sub(last), &mut runs);
        last = run[0];
    }
    let mut timestamps = vec![TAG_TIMESTAMPS];
    encode_timestamps(starts_ms, &mut timestamps);
    out.extend_from_slice(if runs.len() <= timestamps.len() { &runs } else { &timestamps });
}

/// The `count` start timestamps of a chunk.
pub fn decode_starts(bytes: &[u8], count: usize) -> Result<Vec<i64>, ColumnError> {
    let mut input = Cursor::new(bytes);
    if CHUNK_ROWS_MAX < count {
        return Err(input.error("more rows than a chunk may have"));
    }
    let mut found = Vec::with_capacity(count);
    match input.byte()? {
        TAG_RUNS => {
            let mut last = 0_i64;
            while found.len() < count {
                let rows = usize::try_from(input.unsigned()?).unwrap_or(usize::MAX);
                if rows == 0 || count - found.len() < rows {
                    return Err(input.error("run of no rows or too many"));
                }
                last = last.wrapping_add(input.signed()?);
                found.resize(found.len() + rows, last);
            }
            input.end()?;
        }
        TAG_TIMESTAMPS => {
            let inner = bytes.get(1..).unwrap_or_default();
            let at = |err: ColumnError| ColumnError { offset_bytes: err.offset_bytes + 1, ..err };
            decode_timestamps(inner, count, &mut found).map_err(at)?;
        }
        _ => return Err(ColumnError { offset_bytes: 0, reason: "unknown codec of starts" }),
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(starts_ms: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_starts(starts_ms, &mut out);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn starts_come_back(
            runs in prop::collection::vec((any::<i64>(), 1_usize..9), 1..40),
            step in any::<i16>(),
        ) {
            let runs = runs.iter().flat_map(|(start, rows)| std::iter::repeat_n(*start, *rows));
            let regular = (0..200).map(|row| 1_700_000_000_000 + row * i64::from(step) + row % 3);
            for starts in [runs.collect::<Vec<_>>(), regular.collect()] {
                let bytes = encoded(&starts);
                prop_assert_eq!(&decode_starts(&bytes, starts.len()).unwrap(), &starts);
                for cut in 0..bytes.len() {
                    prop_assert!(decode_starts(&bytes[..cut], starts.len()).is_err());
                }
            }
        }

        #[test]
        fn any_bytes_are_starts_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(found) = decode_starts(&bytes, 200) {
                prop_assert_eq!(decode_starts(&encoded(&found), 200).unwrap(), found);
            }
        }
    }

    #[test]
    fn starts_that_hardly_change_take_no_room() {
        let mut starts = vec![1_700_000_000_000; 480];
        assert!(encoded(&starts).len() <= 9, "{}", encoded(&starts).len());
        starts[300..].fill(1_700_003_600_000);
        assert!(encoded(&starts).len() <= 16, "{}", encoded(&starts).len());
        let each: Vec<i64> = (0..480).map(|row| 1_700_000_000_000 + row * 15_000).collect();
        assert!(encoded(&each).len() <= 16, "{}", encoded(&each).len());
    }
}
