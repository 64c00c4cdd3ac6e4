//! Values that are integers over a power of ten: nearly all that people and programs write.
//!
//! A value counts as such when computing it from the integer gives back its very bits; the rest
//! (NaN of any kind, infinities, -0, odd doubles among decimals) is kept beside by its bits.
//! Programs compute seconds from milliseconds in several ways, which differ in the last bit; so
//! there are several conversions. The integers lose their common factor and are packed as they
//! are, as differences, or as differences of differences.
//!
//! Doubles in full precision go the same way: their bits, taken as integers, are in the order of
//! the doubles, and neighbours in time are mostly neighbours there.

use super::integers::{self, BLOCK, Unpacker};
use super::kernels::{Finish, Kernels, Scale, Sums, from_order, to_order};
use super::timestamps::differences;
use super::{ColumnError, Cursor, dense, varint};

const POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
const FRACTIONS: [f64; 10] = [1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9];
/// Integers up to this are doubles.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Differences of integers up to this are integers of 64 bits.
const INTEGER_MAX: f64 = 4_611_686_018_427_387_904.0;
/// With so many digits an integer beyond [`EXACT_MAX`] is a moment in nanoseconds or the like.
/// With more, it would be found for any double, and no fewer bits would be left.
const LONG_DIGITS_MAX: usize = 9;
/// Of so many rows one may be no decimal.
const ROWS_PER_ODD: usize = 8;
/// Values that a conversion is chosen by.
const PROBES: usize = 16;

/// Fewer rows are not worth a table of frequencies.
const DENSE_ROWS_MIN: usize = 100;

/// Packed as they are.
const MODE_PLAIN: u8 = 0;
/// Differences packed.
const MODE_STEPS: u8 = 1;
/// Differences of differences packed.
const MODE_CHANGES: u8 = 2;

/// How values come from integers: a number from 0 to 26, as in the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Conversion(u8);

/// Divided by 10^0 to 10^15.
const DIVISIONS: std::ops::Range<u8> = 0..16;
/// Multiplied by 10^-1 to 10^-9.
const MULTIPLICATIONS: std::ops::Range<u8> = 16..25;
/// Divided by 1000 twice.
const THOUSANDTHS_TWICE: std::ops::Range<u8> = 25..26;
/// The integers are the bits of doubles, in their order.
const BITS: Conversion = Conversion(26);

impl Conversion {
    fn digits(self) -> usize {
        match self.0 {
            16..25 => usize::from(self.0) - 15,
            25 => 6,
            digits => usize::from(digits),
        }
    }

    fn finish(self) -> Finish {
        match self.0 {
            0 => Finish::Whole,
            16..25 => Finish::Multiply(FRACTIONS[self.digits()]),
            25 => Finish::DivideTwice(1e3, 1e3),
            26 => Finish::Bits,
            _ => Finish::Divide(POWERS[self.digits()]),
        }
    }

    fn value(self, integer: i64) -> f64 {
        match self.finish() {
            Finish::Whole => integer as f64,
            Finish::Divide(by) => integer as f64 / by,
            Finish::Multiply(by) => integer as f64 * by,
            Finish::DivideTwice(by, then) => integer as f64 / by / then,
            Finish::Bits => from_order(integer),
        }
    }

    /// What a value is multiplied by.
    fn scale(self) -> f64 {
        POWERS[self.digits()]
    }

    /// The largest integer.
    fn max(self) -> f64 {
        if self.digits() <= LONG_DIGITS_MAX { INTEGER_MAX } else { EXACT_MAX }
    }

    /// The integer that gives the very bits of the value.
    fn integer(self, value: f64) -> Option<i64> {
        let scaled = value * self.scale();
        if scaled.is_nan() || self.max() < scaled.abs() {
            return None;
        }
        let integer = nearest(scaled);
        (self.value(integer).to_bits() == value.to_bits()).then_some(integer)
    }
}

/// The integer next to a number of at most [`INTEGER_MAX`].
#[inline]
fn nearest(scaled: f64) -> i64 {
    /// Adding and taking it away rounds to integers, where these fit into the mantissa beside it.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const ROUND_MAX: f64 = 2_251_799_813_685_248.0;
    if scaled.abs() < ROUND_MAX {
        ((scaled + ROUND) - ROUND) as i64
    } else if scaled.abs() < EXACT_MAX / 2.0 {
        (scaled + 0.5_f64.copysign(scaled)) as i64
    } else {
        scaled as i64
    }
}

/// The integers of all values, and the rows that have none with their bits.
struct Decimals {
    conversion: Conversion,
    integers: Vec<i64>,
    odd: Vec<(usize, u64)>,
}

impl Decimals {
    /// `None` when too many values are no decimals.
    fn of(values: &[f64]) -> Option<Self> {
        let families = [DIVISIONS, MULTIPLICATIONS, THOUSANDTHS_TWICE];
        let mut probed: Vec<(Conversion, u8)> = families
            .into_iter()
            .filter_map(|family| Some((Self::probe(values, &family)?, family.end)))
            .collect();
        // Fewest digits first: with enough of them any double looks like a decimal.
        probed.sort_by_key(|(conversion, _)| conversion.digits());
        probed.into_iter().find_map(|(conversion, end)| {
            let integers = Vec::with_capacity(values.len());
            let mut all = Self { conversion, integers, odd: Vec::new() };
            while !all.convert(values, end)? {}
            Some(all)
        })
    }

    /// The conversion of a family that serves a few values; they tell most columns that are none.
    fn probe(values: &[f64], family: &std::ops::Range<u8>) -> Option<Conversion> {
        let (mut conversion, mut odd, mut probed) = (Conversion(family.start), 0, 0);
        let step = values.len().div_ceil(PROBES).max(1);
        for value in values.iter().step_by(step).filter(|value| value.is_finite()) {
            match serving(*value, conversion, family.end) {
                Some(own) => conversion = own,
                None => odd += 1,
            }
            probed += 1;
        }
        (odd <= 1 + probed / ROWS_PER_ODD).then_some(conversion)
    }

    /// Converts all values, or chooses a conversion with more digits and says that it did.
    /// `None` when too many values are no decimals.
    fn convert(&mut self, values: &[f64], end: u8) -> Option<bool> {
        // A loop for each kind, so that nothing is decided for each value.
        match self.conversion.finish() {
            Finish::Whole => self.convert_by(values, end, |float| float),
            Finish::Divide(by) => self.convert_by(values, end, |float| float / by),
            Finish::Multiply(by) => self.convert_by(values, end, |float| float * by),
            Finish::DivideTwice(by, then) => {
                self.convert_by(values, end, |float| float / by / then)
            }
            Finish::Bits => None,
        }
    }

    fn convert_by(
        &mut self,
        values: &[f64],
        end: u8,
        value_of: impl Fn(f64) -> f64,
    ) -> Option<bool> {
        let conversion = self.conversion;
        let (scale, max) = (conversion.scale(), conversion.max());
        let odd_max = values.len() / ROWS_PER_ODD + 1;
        self.integers.clear();
        self.odd.clear();
        // An odd value repeats its neighbour, which packs best.
        let mut last = None;
        for (row, value) in values.iter().enumerate() {
            let scaled = *value * scale;
            if scaled.abs() <= max {
                let integer = nearest(scaled);
                if value_of(integer as f64).to_bits() == value.to_bits() {
                    self.integers.push(integer);
                    last = Some(integer);
                    continue;
                }
            }
            if value.is_finite() && *value != 0.0 {
                // What was an integer over 10^e is one over 10^(e+1), unless it grows too large.
                if let Some(own) = serving(*value, conversion, end) {
                    self.conversion = own;
                    return Some(false);
                }
            }
            self.odd.push((row, value.to_bits()));
            if odd_max < self.odd.len() {
                return None;
            }
            if last.is_none() {
                last = values.iter().find_map(|value| conversion.integer(*value));
            }
            self.integers.push(last?);
        }
        Some(true)
    }
}

/// The first conversion from `first` on that serves a value.
fn serving(value: f64, first: Conversion, end: u8) -> Option<Conversion> {
    (first.0..end).map(Conversion).find(|own| own.integer(value).is_some())
}

/// Decimals without their common factor.
pub(super) struct Encoder {
    conversion: Conversion,
    first: i64,
    factor: i64,
    odd: Vec<(usize, u64)>,
    /// Counted from the first one.
    found: Vec<i64>,
}

impl Encoder {
    /// `None` when too many values are no decimals.
    pub(super) fn new(values: &[f64]) -> Option<Self> {
        let Decimals { conversion, integers, odd } = Decimals::of(values)?;
        Some(Self::counted(conversion, integers, odd))
    }

    /// Any doubles by their bits: how far they lie from each other in the order of all doubles.
    /// `None` when too many are no numbers.
    pub(super) fn of_bits(values: &[f64]) -> Option<Self> {
        let mut last = to_order(*values.iter().find(|value| value.is_finite())?);
        let (mut integers, mut odd) = (Vec::with_capacity(values.len()), Vec::new());
        for (row, value) in values.iter().enumerate() {
            if value.is_finite() {
                last = to_order(*value);
            } else {
                odd.push((row, value.to_bits()));
            }
            integers.push(last);
        }
        let odd_max = values.len() / ROWS_PER_ODD + 1;
        (odd.len() <= odd_max).then(|| Self::counted(BITS, integers, odd))
    }

    /// Takes the first integer and the common factor out of at least one.
    fn counted(conversion: Conversion, integers: Vec<i64>, odd: Vec<(usize, u64)>) -> Self {
        let mut found = integers;
        let (first, factor) = (found[0], common_factor(&found));
        if factor == 1 {
            for integer in &mut found {
                *integer = integer.wrapping_sub(first);
            }
        } else {
            for integer in &mut found {
                *integer = (*integer - first) / factor;
            }
        }
        Self { conversion, first, factor, odd, found }
    }

    /// In packed blocks.
    pub(super) fn packed(&self) -> Vec<u8> {
        let mode = smallest_mode(&self.found);
        let mut out = Vec::with_capacity(self.found.len() * 2 + 16);
        let left = self.begin(mode, &mut out);
        integers::pack(&left, &mut out);
        out
    }

    /// By frequency. `None` when there are too few rows for that, or it takes more than
    /// `len_max` bytes.
    pub(super) fn dense(&self, len_max: usize) -> Option<Vec<u8>> {
        if self.found.len() < DENSE_ROWS_MIN {
            return None;
        }
        let mut best: Option<(f64, Vec<u8>)> = None;
        for mode in [MODE_PLAIN, MODE_STEPS, MODE_CHANGES] {
            let mut out = Vec::new();
            let left = self.begin(mode, &mut out);
            let plan = dense::Plan::of(&left);
            let bytes = plan.bytes() + out.len() as f64;
            let bytes_max = best.as_ref().map_or(len_max as f64, |best| best.0);
            if bytes < bytes_max && plan.write(&left, &mut out) {
                best = Some((bytes, out));
            }
        }
        best.map(|best| best.1).filter(|bytes| bytes.len() <= len_max)
    }

    /// Writes what stands before the integers, and gives these.
    fn begin(&self, mode: u8, out: &mut Vec<u8>) -> Vec<i64> {
        out.push(self.conversion.0 << 2 | mode);
        varint::put_signed(self.first, out);
        varint::put(self.factor as u64, out);
        varint::put(self.odd.len() as u64, out);
        let mut last_row = 0;
        for (row, bits) in &self.odd {
            varint::put((row - last_row) as u64, out);
            out.extend_from_slice(&bits.to_le_bytes());
            last_row = *row;
        }
        if mode == MODE_PLAIN {
            return self.found.clone();
        }
        let steps = differences(&self.found);
        if mode == MODE_STEPS {
            return steps;
        }
        varint::put_signed(steps[0], out);
        differences(&steps)
    }
}

/// How integers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// By [`Encoder::packed`].
    Packed,
    /// By [`Encoder::dense`].
    Dense,
}

pub(super) fn decode(
    bytes: &[u8],
    form: Form,
    kernels: Kernels,
    out: &mut [f64],
) -> Result<(), ColumnError> {
    let mut input = Cursor::new(bytes);
    let head = input.byte()?;
    let (conversion, mode) = (Conversion(head >> 2), head & 3);
    if BITS.0 < conversion.0 || MODE_CHANGES < mode {
        return Err(input.error("unknown kind of decimals"));
    }
    let first = input.signed()?;
    let factor = input.unsigned()? as i64;
    let odd_count = input.unsigned()?;
    let odd_start = input.at;
    if out.len() as u64 <= odd_count {
        return Err(input.error("more odd values than rows"));
    }
    for _ in 0..odd_count {
        input.unsigned()?;
        input.take(8)?;
    }
    // The first integer is zero, as all are counted from it.
    let (mut sums, scale) = (Sums::default(), Scale { first, factor });
    let mut rest = &mut *out;
    if mode != MODE_PLAIN {
        rest = put_first(rest, conversion.value(first)).ok_or(input.error("no rows"))?;
    }
    if mode == MODE_CHANGES {
        let step = input.signed()?;
        sums = Sums { inner: step, outer: step };
        let second = first.wrapping_add(step.wrapping_mul(factor));
        rest = put_first(rest, conversion.value(second)).ok_or(input.error("too few rows"))?;
    }
    let finish = conversion.finish();
    match form {
        Form::Packed => {
            let unpacker = Unpacker::new(kernels);
            let next = |len, out: &mut _| unpacker.block(&mut input, len, out);
            decode_integers(mode, next, kernels, sums, scale, finish, rest)?;
        }
        Form::Dense => {
            let mut reader = dense::Reader::new(&mut input, kernels)?;
            let next = |len, out: &mut _| reader.block(len, out);
            decode_integers(mode, next, kernels, sums, scale, finish, rest)?;
        }
    }
    input.end()?;
    let mut odd = Cursor { bytes, at: odd_start };
    let mut row = 0_u64;
    for _ in 0..odd_count {
        row = row.saturating_add(odd.unsigned()?);
        let bits = odd.take(8)?.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        let slot = usize::try_from(row).ok().and_then(|row| out.get_mut(row));
        *slot.ok_or_else(|| odd.error("odd value outside of the rows"))? = f64::from_bits(bits);
    }
    Ok(())
}

fn decode_integers(
    mode: u8,
    next: impl FnMut(usize, &mut [i64; BLOCK]) -> Result<(), ColumnError>,
    kernels: Kernels,
    sums: Sums,
    scale: Scale,
    finish: Finish,
    out: &mut [f64],
) -> Result<(), ColumnError> {
    match mode {
        MODE_PLAIN => decode_blocks::<0>(next, kernels, sums, scale, finish, out),
        MODE_STEPS => decode_blocks::<1>(next, kernels, sums, scale, finish, out),
        _ => decode_blocks::<2>(next, kernels, sums, scale, finish, out),
    }
}

/// `next` reads so many integers.
fn decode_blocks<const SUMS: u8>(
    mut next: impl FnMut(usize, &mut [i64; BLOCK]) -> Result<(), ColumnError>,
    kernels: Kernels,
    mut sums: Sums,
    scale: Scale,
    finish: Finish,
    out: &mut [f64],
) -> Result<(), ColumnError> {
    let mut block = [0; BLOCK];
    let (whole, last) = out.as_chunks_mut::<BLOCK>();
    for values in whole {
        next(BLOCK, &mut block)?;
        kernels.finish::<SUMS>(&mut block, &mut sums, scale, finish, values);
    }
    if !last.is_empty() {
        next(last.len(), &mut block)?;
        let mut values = [0.0; BLOCK];
        kernels.finish::<SUMS>(&mut block, &mut sums, scale, finish, &mut values);
        last.copy_from_slice(&values[..last.len()]);
    }
    Ok(())
}

/// Sets the first row and gives the others.
fn put_first(rows: &mut [f64], value: f64) -> Option<&mut [f64]> {
    let (first, rest) = rows.split_first_mut()?;
    *first = value;
    Some(rest)
}

/// The largest number that divides all differences; 1 when there are none, or some are too large.
fn common_factor(integers: &[i64]) -> i64 {
    let range = integers.iter().min().zip(integers.iter().max());
    if range.is_none_or(|(least, most)| most.checked_sub(*least).is_none()) {
        return 1;
    }
    let mut factor = 0_u64;
    for pair in integers.windows(2) {
        let mut rest = pair[1].abs_diff(pair[0]);
        if factor != 0 && rest % factor == 0 {
            continue;
        }
        while rest != 0 {
            (factor, rest) = (rest, factor % rest);
        }
        if factor == 1 {
            break;
        }
    }
    factor.max(1) as i64
}

/// The mode that packs a few blocks of the integers best.
fn smallest_mode(found: &[i64]) -> u8 {
    let blocks = found.len().div_ceil(BLOCK);
    let mut bytes = [0, 0, 0];
    let mut sampled = [0, blocks / 2, blocks.saturating_sub(1)].into_iter().collect::<Vec<_>>();
    sampled.dedup();
    for block in sampled {
        // Two more integers, so that all modes have as many to pack.
        let start = (block * BLOCK).min(found.len().saturating_sub(BLOCK + 2));
        let own = &found[start..found.len().min(start + BLOCK + 2)];
        if own.len() < 3 {
            return if own.len() == 2 { MODE_STEPS } else { MODE_PLAIN };
        }
        let steps = differences(own);
        let changes = differences(&steps);
        let len = changes.len();
        bytes[0] += integers::packed_bytes(&own[2..]);
        bytes[1] += integers::packed_bytes(&steps[1..]);
        bytes[2] += integers::packed_bytes(&changes[..len]);
    }
    let best = (0..3).min_by_key(|mode| bytes[*mode as usize]);
    best.unwrap_or(MODE_PLAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ways in which programs compute seconds, and the conversion that gives them back.
    #[test]
    fn seconds_are_decimals_however_they_were_computed() {
        let check = |name: &str, conversion: u8, value: fn(i64) -> f64| {
            let values: Vec<f64> = (0..500).map(|row| value(123_456_789 + row * row)).collect();
            let found = Decimals::of(&values).expect(name);
            assert!(found.odd.is_empty(), "{name}");
            assert_eq!(found.conversion, Conversion(conversion), "{name}");
        };
        check("divided", 3, |ms| ms as f64 / 1e3);
        check("multiplied", 18, |ms| ms as f64 * 0.001);
        check("divided twice", 25, |us| us as f64 / 1e3 / 1e3);
        check("a moment of nanoseconds", 7, |ns| {
            (ns * 1000 + 1_700_000_000_000_000_000) as f64 / 1e9
        });
    }

    #[test]
    fn full_doubles_are_not_decimals() {
        let values: Vec<f64> = (1..500).map(|row| f64::from(row).sqrt()).collect();
        assert!(Decimals::of(&values).is_none());
    }
}
