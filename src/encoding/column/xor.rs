//! Gorilla's XOR of neighbouring values: the codec that always works.
//!
//! The first value takes 64 bits. Then for each value: `0` when it has the bits of the one before;
//! `10` and the meaningful bits, when they lie within the window of the last time; `11`, five bits
//! for the leading zeros (at most 31), six for the number of meaningful bits less one, and these.

use super::ColumnError;
use super::bits::{BitReader, BitWriter};

const LEADING_MAX: u32 = 31;

/// At least one value.
pub(super) fn encode(values: &[f64]) -> Vec<u8> {
    let mut out = BitWriter::default();
    let mut last = values.first().map_or(0, |value| value.to_bits());
    out.put(last, 64);
    // A window of no bits: nothing fits into it.
    let (mut leading, mut meaningful) = (0, 0);
    for value in values.iter().skip(1) {
        let xor = value.to_bits() ^ last;
        last = value.to_bits();
        if xor == 0 {
            out.put(0, 1);
            continue;
        }
        let trailing = 64 - leading - meaningful;
        let fits =
            0 < meaningful && leading <= xor.leading_zeros() && trailing <= xor.trailing_zeros();
        let own_leading = xor.leading_zeros().min(LEADING_MAX);
        let own_meaningful = 64 - own_leading - xor.trailing_zeros();
        // A new window costs eleven bits more; a much narrower one earns them back soon.
        if fits && meaningful <= own_meaningful + 11 {
            out.put(0b10, 2);
            out.put(xor >> trailing, meaningful);
        } else {
            (leading, meaningful) = (own_leading, own_meaningful);
            out.put(0b11, 2);
            out.put(u64::from(leading), 5);
            out.put(u64::from(meaningful - 1), 6);
            out.put(xor >> (64 - leading - meaningful), meaningful);
        }
    }
    out.finish()
}

pub(super) fn decode(bytes: &[u8], out: &mut [f64]) -> Result<(), ColumnError> {
    let mut bits = BitReader::new(bytes);
    let Some((first, rest)) = out.split_first_mut() else {
        return Err(bits.error("no rows"));
    };
    let mut last = bits.take(64)?;
    *first = f64::from_bits(last);
    let (mut leading, mut meaningful) = (0, 0);
    for slot in rest {
        match bits.ones(2)? {
            0 => {}
            1 => {
                if meaningful == 0 {
                    return Err(bits.error("no window yet"));
                }
                last ^= bits.take(meaningful)? << (64 - leading - meaningful);
            }
            _ => {
                leading = bits.take(5)? as u32;
                meaningful = bits.take(6)? as u32 + 1;
                if 64 < leading + meaningful {
                    return Err(bits.error("window wider than a value"));
                }
                last ^= bits.take(meaningful)? << (64 - leading - meaningful);
            }
        }
        *slot = f64::from_bits(last);
    }
    bits.end()
}
