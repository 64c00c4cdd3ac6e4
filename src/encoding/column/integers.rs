//! Integers in blocks of 128: a base, then what each adds to it in few bits, then exceptions.
//!
//! The base need not be the smallest number: what lies below or far above is an exception, so that
//! one spike does not widen a block.

use super::{ColumnError, Cursor, varint};

/// Integers of a block: positions of exceptions fit into a byte.
const BLOCK: usize = 128;

/// Appends the integers; their number is not kept.
pub(super) fn pack(integers: &[i64], out: &mut Vec<u8>) {
    for block in integers.chunks(BLOCK) {
        let plan = Plan::of(block);
        plan.write(block, out);
    }
}

/// Appends `count` integers.
pub(super) fn unpack(
    input: &mut Cursor<'_>,
    count: usize,
    out: &mut Vec<i64>,
) -> Result<(), ColumnError> {
    let mut left = count;
    while 0 < left {
        let len = left.min(BLOCK);
        unpack_block(input, len, out)?;
        left -= len;
    }
    Ok(())
}

/// How to write a block.
#[derive(Clone, Copy)]
struct Plan {
    base: i64,
    width: u32,
    exceptions: usize,
    len_bytes: usize,
}

impl Plan {
    fn of(block: &[i64]) -> Self {
        let mut sorted = [0_i64; BLOCK];
        let sorted = &mut sorted[..block.len()];
        sorted.copy_from_slice(block);
        sorted.sort_unstable();
        let mut best = Self::with_base(sorted[0], block);
        // A few outliers below the base are worth a try; without width there is nothing to gain.
        for skip in [1, 2, 4, 8] {
            if best.width == 0 && best.exceptions == 0 {
                break;
            }
            let Some(base) = sorted.get(skip).copied().filter(|base| sorted[0] < *base) else {
                continue;
            };
            let plan = Self::with_base(base, block);
            if plan.len_bytes < best.len_bytes {
                best = plan;
            }
        }
        best
    }

    /// The cheapest width for a base.
    fn with_base(base: i64, block: &[i64]) -> Self {
        // By width that would hold it: how many, and their bytes as exceptions.
        let (mut counts, mut costs) = ([0_usize; 65], [0_usize; 65]);
        for integer in block {
            let above = integer.wrapping_sub(base);
            let bits = if *integer < base { 64 } else { 64 - above.leading_zeros() as usize };
            counts[bits] += 1;
            costs[bits] += 1 + varint::len(varint::zigzag(above));
        }
        let fixed = varint::len(varint::zigzag(base)) + 2;
        let mut best = Self { base, width: 64, exceptions: 0, len_bytes: usize::MAX };
        let (mut exceptions, mut cost) = (0, 0);
        for width in (0..=64).rev() {
            // All that are below the base have width 64 and are never held by a packed slot.
            let packed_bytes = (block.len() * width).div_ceil(8);
            let len_bytes = fixed + packed_bytes + cost;
            if len_bytes < best.len_bytes && (width < 64 || !block.iter().any(|own| *own < base)) {
                best = Self { base, width: width as u32, exceptions, len_bytes };
            }
            exceptions += counts[width];
            cost += costs[width];
        }
        best
    }

    fn write(self, block: &[i64], out: &mut Vec<u8>) {
        let start = out.len();
        varint::put_signed(self.base, out);
        out.push(self.width as u8);
        out.push(self.exceptions as u8);
        let mut exceptions = Vec::new();
        let (mut pending, mut pending_bits) = (0_u128, 0);
        for (at, integer) in block.iter().enumerate() {
            let above = integer.wrapping_sub(self.base) as u64;
            let fits = self.base <= *integer && 64 - above.leading_zeros() <= self.width;
            if !fits {
                exceptions.push(at as u8);
                varint::put_signed(above as i64, &mut exceptions);
            }
            pending |= u128::from(if fits { above } else { 0 }) << pending_bits;
            pending_bits += self.width;
            while 8 <= pending_bits {
                out.push(pending as u8);
                pending >>= 8;
                pending_bits -= 8;
            }
        }
        if 0 < pending_bits {
            out.push(pending as u8);
        }
        out.extend_from_slice(&exceptions);
        debug_assert_eq!(out.len() - start, self.len_bytes);
    }
}

fn unpack_block(input: &mut Cursor<'_>, len: usize, out: &mut Vec<i64>) -> Result<(), ColumnError> {
    let base = input.signed()?;
    let width = u32::from(input.byte()?);
    if 64 < width {
        return Err(input.error("integers wider than 64 bits"));
    }
    let exceptions = input.byte()?;
    let packed = input.take((len * width as usize).div_ceil(8))?;
    let start = out.len();
    if width == 0 {
        out.resize(start + len, base);
    } else {
        unpack_bits(packed, width, base, len, out);
    }
    for _ in 0..exceptions {
        let at = usize::from(input.byte()?);
        let above = input.signed()?;
        match out.get_mut(start + at) {
            Some(slot) => *slot = base.wrapping_add(above),
            None => return Err(input.error("exception outside of its block")),
        }
    }
    Ok(())
}

/// `packed` has the bytes for `len` integers.
fn unpack_bits(packed: &[u8], width: u32, base: i64, len: usize, out: &mut Vec<i64>) {
    // Room behind the end, so that each integer is one load.
    let mut padded = [0_u8; BLOCK * 8 + 16];
    padded[..packed.len()].copy_from_slice(packed);
    let width = width as usize;
    if width <= 56 {
        let mask = (1_u64 << width) - 1;
        out.extend((0..len).map(|at| {
            let bit = at * width;
            let word = padded[bit / 8..].first_chunk::<8>().map_or(0, |w| u64::from_le_bytes(*w));
            base.wrapping_add((word >> (bit % 8) & mask) as i64)
        }));
    } else {
        let mask = u64::MAX >> (64 - width);
        out.extend((0..len).map(|at| {
            let bit = at * width;
            let word = padded[bit / 8..].first_chunk::<16>().map_or(0, |w| u128::from_le_bytes(*w));
            base.wrapping_add(((word >> (bit % 8)) as u64 & mask) as i64)
        }));
    }
}
