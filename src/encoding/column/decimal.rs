//! Values that are integers over a power of ten: nearly all that people and programs write.
//!
//! A value counts as such when dividing the integer by the power gives back its very bits; the
//! rest (NaN of any kind, infinities, -0, odd doubles among decimals) is kept beside by its bits.
//! The integers lose their common factor and are packed as they are, as differences, or as
//! differences of differences, whichever is smallest.

use super::timestamps::{add_up, differences};
use super::{ColumnError, Cursor, integers, varint};

/// The powers by which a double is divided exactly: 10^22 is the last that is a double.
const POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
/// Integers up to this are doubles.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
/// Of so many rows one may be no decimal.
const ROWS_PER_ODD: usize = 8;

/// Packed as they are.
const MODE_PLAIN: u8 = 0;
/// Differences packed.
const MODE_STEPS: u8 = 1;
/// Differences of differences packed.
const MODE_CHANGES: u8 = 2;

/// `None` when too many values are no decimals.
pub(super) fn encode(values: &[f64]) -> Option<Vec<u8>> {
    let odd_max = values.len() / ROWS_PER_ODD + 1;
    let exponent = exponent(values, odd_max)?;
    let (mut found, mut odd) = (Vec::with_capacity(values.len()), Vec::new());
    // An odd value repeats its neighbour, which packs best.
    let mut last = values.iter().find_map(|value| to_integer(*value, exponent))?;
    for (row, value) in values.iter().enumerate() {
        match to_integer(*value, exponent) {
            Some(integer) => last = integer,
            None => odd.push((row, value.to_bits())),
        }
        found.push(last);
    }
    if odd_max < odd.len() {
        return None;
    }
    let first = found[0];
    let factor = common_factor(&found);
    for integer in &mut found {
        *integer = (*integer - first) / factor;
    }
    let mut out = Vec::new();
    let at = out.len();
    out.push(0);
    varint::put_signed(first, &mut out);
    varint::put(factor as u64, &mut out);
    varint::put(odd.len() as u64, &mut out);
    let mut last_row = 0;
    for (row, bits) in odd {
        varint::put((row - last_row) as u64, &mut out);
        out.extend_from_slice(&bits.to_le_bytes());
        last_row = row;
    }
    let (mode, packed) = pack_smallest(&found);
    out[at] = (exponent as u8) << 4 | mode;
    out.extend_from_slice(&packed);
    Some(out)
}

pub(super) fn decode(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), ColumnError> {
    let mut input = Cursor::new(bytes);
    let head = input.byte()?;
    let (power, mode) = (POWERS[usize::from(head >> 4)], head & 15);
    let first = input.signed()?;
    let factor = input.unsigned()? as i64;
    let odd_count = input.unsigned()?;
    let odd_start = input.at;
    if count as u64 <= odd_count {
        return Err(input.error("more odd values than rows"));
    }
    for _ in 0..odd_count {
        input.unsigned()?;
        input.take(8)?;
    }
    let packed_rows = count.saturating_sub(usize::from(mode));
    let mut found = Vec::with_capacity(count);
    // The first integer is zero, as all are counted from it.
    match mode {
        MODE_PLAIN => {}
        MODE_STEPS => found.push(0),
        MODE_CHANGES if 1 < count => found.extend([0, input.signed()?]),
        _ => return Err(input.error("unknown mode of decimals")),
    }
    integers::unpack(&mut input, packed_rows, &mut found)?;
    input.end()?;
    match mode {
        MODE_STEPS => add_up(&mut found),
        MODE_CHANGES => {
            add_up(&mut found[1..]);
            add_up(&mut found);
        }
        _ => {}
    }
    let start = out.len();
    let value = |integer: i64| first.wrapping_add(integer.wrapping_mul(factor)) as f64;
    if head >> 4 == 0 {
        out.extend(found.into_iter().map(value));
    } else {
        out.extend(found.into_iter().map(|integer| value(integer) / power));
    }
    let mut odd = Cursor { bytes, at: odd_start };
    let mut row = 0_u64;
    for _ in 0..odd_count {
        row = row.saturating_add(odd.unsigned()?);
        let bits = odd.take(8)?.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        let slot = usize::try_from(row).ok().and_then(|row| out.get_mut(start.checked_add(row)?));
        *slot.ok_or_else(|| odd.error("odd value outside of the rows"))? = f64::from_bits(bits);
    }
    Ok(())
}

/// The smallest exponent under which all but a few values are integers.
fn exponent(values: &[f64], odd_max: usize) -> Option<usize> {
    let (mut exponent, mut odd) = (0, 0);
    for value in values {
        match (exponent..POWERS.len()).find(|own| to_integer(*value, *own).is_some()) {
            // An exponent that serves one value need not be tried for those before it again:
            // what was an integer over 10^e is one over 10^(e+1), unless it grows too large.
            Some(own) => exponent = own,
            None => odd += 1,
        }
        if odd_max < odd {
            return None;
        }
    }
    Some(exponent)
}

/// The integer that gives the very bits of the value when divided by the power.
fn to_integer(value: f64, exponent: usize) -> Option<i64> {
    let power = POWERS[exponent];
    let scaled = (value * power).round_ties_even();
    if scaled.is_nan() || INTEGER_MAX < scaled.abs() {
        return None;
    }
    let integer = scaled as i64;
    ((integer as f64 / power).to_bits() == value.to_bits()).then_some(integer)
}

/// The largest number that divides all differences; 1 when there are none.
fn common_factor(integers: &[i64]) -> i64 {
    let mut factor = 0_u64;
    for pair in integers.windows(2) {
        let mut rest = pair[1].abs_diff(pair[0]);
        while rest != 0 {
            (factor, rest) = (rest, factor % rest);
        }
        if factor == 1 {
            break;
        }
    }
    factor.max(1) as i64
}

fn pack_smallest(found: &[i64]) -> (u8, Vec<u8>) {
    let mut best = (MODE_PLAIN, Vec::new());
    integers::pack(found, &mut best.1);
    let steps = differences(found);
    let mut packed = Vec::new();
    integers::pack(&steps, &mut packed);
    if packed.len() < best.1.len() {
        best = (MODE_STEPS, packed);
    }
    if let Some(step) = steps.first() {
        let mut packed = Vec::new();
        varint::put_signed(*step, &mut packed);
        integers::pack(&differences(&steps), &mut packed);
        if packed.len() < best.1.len() {
            best = (MODE_CHANGES, packed);
        }
    }
    best
}
