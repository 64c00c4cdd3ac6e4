//! Values that rarely change: the first one, then where it changes and by which bits.

use super::{ColumnError, Cursor, put_trimmed, take_trimmed, varint};

/// Of so many rows one may change; with more changes other codecs win.
const ROWS_PER_CHANGE: usize = 8;

/// `None` when the values change too often.
pub(super) fn encode(values: &[f64]) -> Option<Vec<u8>> {
    let changes = values.windows(2).filter(|pair| pair[0].to_bits() != pair[1].to_bits()).count();
    if values.len() < changes * ROWS_PER_CHANGE {
        return None;
    }
    let mut out = Vec::new();
    let (mut last, mut changed_at) = (0, 0);
    for (row, value) in values.iter().enumerate() {
        let xor = value.to_bits() ^ last;
        if xor == 0 && 0 < row {
            continue;
        }
        last = value.to_bits();
        if 0 < row {
            varint::put((row - changed_at) as u64, &mut out);
            changed_at = row;
        }
        put_xor(xor, &mut out);
    }
    Some(out)
}

pub(super) fn decode(bytes: &[u8], out: &mut [f64]) -> Result<(), ColumnError> {
    let mut input = Cursor::new(bytes);
    let mut last = take_xor(&mut input)?;
    let mut rows = out;
    while input.at < bytes.len() {
        let gap = input.unsigned()?;
        if gap == 0 || rows.len() as u64 <= gap {
            return Err(input.error("change outside of the rows"));
        }
        let (same, rest) = rows.split_at_mut(gap as usize);
        same.fill(f64::from_bits(last));
        rows = rest;
        last ^= take_xor(&mut input)?;
    }
    rows.fill(f64::from_bits(last));
    Ok(())
}

/// A byte with the numbers of leading zero bytes and of bytes that follow, and these.
fn put_xor(xor: u64, out: &mut Vec<u8>) {
    let leading = (xor.leading_zeros() / 8).min(7);
    let at = out.len();
    out.push(0);
    put_trimmed(xor << (leading * 8), out);
    let len = out.len() - at - 1;
    out[at] = (leading as u8) << 4 | len as u8;
}

fn take_xor(input: &mut Cursor<'_>) -> Result<u64, ColumnError> {
    let head = input.byte()?;
    let (leading, len) = (u32::from(head >> 4), usize::from(head & 15));
    if 8 < leading as usize + len {
        return Err(input.error("change wider than a value"));
    }
    Ok(take_trimmed(input.take(len)?)? >> (leading * 8).min(63))
}
