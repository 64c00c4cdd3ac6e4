//! Timestamps: regular ones as a start and a step, others by their steps or by how these change.

use super::integers::Unpacker;
use super::kernels::Kernels;
use super::{CHUNK_ROWS_MAX, ColumnError, Cursor, integers, varint};

const TAG_REGULAR: u8 = 0;
const TAG_STEPS: u8 = 1;
const TAG_CHANGES: u8 = 2;

/// Appends timestamps: any integers, small when they ascend steadily.
pub fn encode_timestamps(timestamps_ms: &[i64], out: &mut Vec<u8>) {
    assert!(timestamps_ms.len() <= CHUNK_ROWS_MAX, "a chunk has a limited number of rows");
    let first = timestamps_ms.first().copied().unwrap_or(0);
    let steps = differences(timestamps_ms);
    let step = steps.first().copied().unwrap_or(0);
    if steps.iter().all(|own| *own == step) {
        out.push(TAG_REGULAR);
        varint::put_signed(first, out);
        varint::put_signed(step, out);
        return;
    }
    let (mut by_steps, mut by_changes) = (Vec::new(), Vec::new());
    varint::put_signed(first, &mut by_steps);
    integers::pack(&steps, &mut by_steps);
    varint::put_signed(first, &mut by_changes);
    varint::put_signed(step, &mut by_changes);
    integers::pack(&differences(&steps), &mut by_changes);
    if by_changes.len() < by_steps.len() {
        out.push(TAG_CHANGES);
        out.extend_from_slice(&by_changes);
    } else {
        out.push(TAG_STEPS);
        out.extend_from_slice(&by_steps);
    }
}

/// Appends the `count` timestamps of a chunk. Whether they ascend is not checked.
pub fn decode_timestamps(
    bytes: &[u8],
    count: usize,
    out: &mut Vec<i64>,
) -> Result<(), ColumnError> {
    let start = out.len();
    let decoded = decode(bytes, count, out);
    if decoded.is_err() {
        out.truncate(start);
    }
    decoded
}

fn decode(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), ColumnError> {
    let mut input = Cursor::new(bytes);
    if CHUNK_ROWS_MAX < count {
        return Err(input.error("more rows than a chunk may have"));
    }
    out.reserve(count);
    let start = out.len();
    let tag = input.byte()?;
    let first = input.signed()?;
    let unpacker = Unpacker::new(Kernels::detect());
    match tag {
        TAG_REGULAR => {
            let step = input.signed()?;
            let rows = (0..count as i64).map(|row| first.wrapping_add(step.wrapping_mul(row)));
            out.extend(rows);
            return input.end();
        }
        TAG_STEPS if 0 < count => {
            out.resize(start + count, first);
            unpacker.integers(&mut input, &mut out[start + 1..])?;
        }
        TAG_CHANGES if 1 < count => {
            let step = input.signed()?;
            out.extend([first, step]);
            out.resize(start + count, 0);
            unpacker.integers(&mut input, &mut out[start + 2..])?;
            add_up(&mut out[start + 1..]);
        }
        TAG_STEPS | TAG_CHANGES => return Err(input.error("too few rows")),
        _ => return Err(ColumnError { offset_bytes: 0, reason: "unknown codec of timestamps" }),
    }
    add_up(&mut out[start..]);
    input.end()
}

/// What each adds to the one before; one less than there are.
pub(super) fn differences(integers: &[i64]) -> Vec<i64> {
    integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

/// Undoes [`differences`], the first integer standing at the front.
pub(super) fn add_up(integers: &mut [i64]) {
    let mut sum = 0_i64;
    for integer in integers {
        sum = sum.wrapping_add(*integer);
        *integer = sum;
    }
}
