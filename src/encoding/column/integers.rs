//! Integers in blocks of 64: a base, then what each adds to it in few bits, then exceptions.
//!
//! The base need not be the smallest number: what lies below or far above is an exception, so that
//! one spike does not widen a block.

use super::kernels::{Kernels, SLACK_BYTES};
use super::{ColumnError, Cursor, varint};

/// Integers of a block. Short blocks follow bursts; eight integers of any width end on a byte.
pub(super) const BLOCK: usize = 64;
/// Set in a width when exceptions follow.
const HAS_EXCEPTIONS: u8 = 0x80;
/// More exceptions than this never pay.
const EXCEPTIONS_MAX: usize = BLOCK / 3;
/// The smallest integers of a block that are looked at as bases.
const SMALLEST: usize = 8;

/// Appends the integers; their number is not kept.
pub(super) fn pack(integers: &[i64], out: &mut Vec<u8>) {
    for block in integers.chunks(BLOCK) {
        Plan::of(block).write(block, out);
    }
}

/// The bytes that a block takes, at most [`BLOCK`] integers.
pub(super) fn packed_bytes(block: &[i64]) -> usize {
    Plan::of(block).len_bytes
}

/// Reads blocks of integers.
pub(super) struct Unpacker {
    kernels: Kernels,
}

/// Blocks up to this width take less room where they stand alone.
const NARROW_MAX: usize = 16;

impl Unpacker {
    pub(super) fn new(kernels: Kernels) -> Self {
        Self { kernels }
    }

    /// Reads the next `len` integers, at most a block; what stands behind them is anything.
    pub(super) fn block(
        &self,
        input: &mut Cursor<'_>,
        len: usize,
        out: &mut [i64; BLOCK],
    ) -> Result<(), ColumnError> {
        let base = input.signed()?;
        let head = input.byte()?;
        let width = u32::from(head & !HAS_EXCEPTIONS);
        if 64 < width {
            return Err(input.error("integers wider than 64 bits"));
        }
        let exceptions = if head & HAS_EXCEPTIONS == 0 { 0 } else { input.byte()? };
        let start = input.at;
        let packed = input.take((len * width as usize).div_ceil(8))?;
        let needed = BLOCK / 8 * width as usize + SLACK_BYTES;
        // The end of a chunk with room behind it.
        let (mut narrow, mut wide);
        let bytes = match input.bytes.get(start..start + needed) {
            Some(bytes) => bytes,
            None if width as usize <= NARROW_MAX => {
                narrow = [0; BLOCK / 8 * NARROW_MAX + SLACK_BYTES];
                narrow[..packed.len()].copy_from_slice(packed);
                &narrow[..]
            }
            None => {
                wide = [0; BLOCK * 8 + SLACK_BYTES];
                wide[..packed.len()].copy_from_slice(packed);
                &wide[..]
            }
        };
        self.kernels.unpack(bytes, width, base, out);
        for _ in 0..exceptions {
            let at = usize::from(input.byte()?);
            let high = (input.signed()? as u64).unbounded_shl(width);
            match out.get_mut(at) {
                Some(slot) => *slot = slot.wrapping_add(high as i64),
                None => return Err(input.error("exception outside of its block")),
            }
        }
        Ok(())
    }

    /// Fills the slice.
    pub(super) fn integers(
        &self,
        input: &mut Cursor<'_>,
        out: &mut [i64],
    ) -> Result<(), ColumnError> {
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        for block in blocks {
            self.block(input, BLOCK, block)?;
        }
        if !rest.is_empty() {
            let mut block = [0; BLOCK];
            self.block(input, rest.len(), &mut block)?;
            rest.copy_from_slice(&block[..rest.len()]);
        }
        Ok(())
    }
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
        let (smallest, count) = smallest(block);
        let mut best = Self::with_base(smallest[0], block);
        // A few outliers below the base: leaving them out pays when that halves the range.
        for skip in [1, 2, 4, SMALLEST - 1] {
            if count <= skip || best.width == 0 {
                break;
            }
            let distance = smallest[skip].wrapping_sub(best.base) as u64;
            if 1 << (best.width - 1) <= distance {
                let plan = Self::with_base(smallest[skip], block);
                if plan.len_bytes < best.len_bytes {
                    best = plan;
                }
            }
        }
        best
    }

    /// The cheapest width for a base.
    fn with_base(base: i64, block: &[i64]) -> Self {
        // By width that would hold it: how many above the base, and how many below.
        let (mut above, mut below) = ([0_u8; 65], [0_u8; 65]);
        let mut widest = 0;
        for integer in block {
            let distance = integer.wrapping_sub(base);
            if base <= *integer {
                let bits = 64 - (distance as u64).leading_zeros() as usize;
                above[bits] += 1;
                widest = widest.max(bits);
            } else {
                below[64 - (!distance as u64).leading_zeros() as usize] += 1;
            }
        }
        let below_count: usize = below.iter().map(|count| usize::from(*count)).sum();
        let fixed = varint::len(varint::zigzag(base)) + 1;
        let mut best = Self { base, width: 64, exceptions: below_count, len_bytes: usize::MAX };
        let mut above_count = 0;
        for width in (0..=widest).rev() {
            let exceptions = above_count + below_count;
            if EXCEPTIONS_MAX < exceptions {
                break;
            }
            let mut len_bytes = fixed + (block.len() * width).div_ceil(8);
            if 0 < exceptions {
                len_bytes += 1 + exception_bytes(&above[width + 1..], 1);
                if 0 < below_count {
                    let (near, far) = below.split_at(width + 1);
                    let near: usize = near.iter().map(|count| usize::from(*count)).sum();
                    len_bytes += 2 * near + exception_bytes(far, 1);
                }
            }
            if len_bytes < best.len_bytes {
                best = Self { base, width: width as u32, exceptions, len_bytes };
            }
            above_count += usize::from(above[width]);
        }
        best
    }

    fn write(self, block: &[i64], out: &mut Vec<u8>) {
        varint::put_signed(self.base, out);
        let has_exceptions = if self.exceptions == 0 { 0 } else { HAS_EXCEPTIONS };
        out.push(self.width as u8 | has_exceptions);
        if 0 < self.exceptions {
            out.push(self.exceptions as u8);
        }
        let mask = u64::MAX.unbounded_shr(64 - self.width);
        let (mut pending, mut pending_bits) = (0_u128, 0);
        for integer in block {
            let distance = integer.wrapping_sub(self.base) as u64;
            pending |= u128::from(distance & mask) << pending_bits;
            pending_bits += self.width;
            if 64 <= pending_bits {
                out.extend_from_slice(&(pending as u64).to_le_bytes());
                pending >>= 64;
                pending_bits -= 64;
            }
        }
        let rest = pending_bits.div_ceil(8) as usize;
        out.extend_from_slice(&(pending as u64).to_le_bytes()[..rest]);
        if 0 < self.exceptions {
            for (at, integer) in block.iter().enumerate() {
                let distance = integer.wrapping_sub(self.base);
                // Where the base is at most the integer, the distance has no sign.
                let high = if self.base <= *integer {
                    (distance as u64).unbounded_shr(self.width) as i64
                } else {
                    distance.unbounded_shr(self.width)
                };
                if *integer < self.base || high != 0 {
                    out.push(at as u8);
                    varint::put_signed(high, out);
                }
            }
        }
    }
}

/// Bytes of exceptions, given how many have 1, 2, … bits beyond the width (less one).
fn exception_bytes(by_bits: &[u8], first_bits: usize) -> usize {
    let bytes = |(more, count): (usize, &u8)| {
        // A position, and a number with a bit for the sign.
        let bits = first_bits + more + 1;
        usize::from(*count) * (1 + bits.div_ceil(7))
    };
    by_bits.iter().enumerate().map(bytes).sum()
}

/// The smallest integers in order, and how many there are.
fn smallest(block: &[i64]) -> ([i64; SMALLEST], usize) {
    let mut found = [i64::MAX; SMALLEST];
    for integer in block {
        if *integer < found[SMALLEST - 1] {
            let mut at = SMALLEST - 1;
            while 0 < at && *integer < found[at - 1] {
                found[at] = found[at - 1];
                at -= 1;
            }
            found[at] = *integer;
        }
    }
    (found, block.len().min(SMALLEST))
}
