//! The inner loops of decoding, for a block of integers at a time.
//!
//! Each has a plain form here and one for AVX2 in `avx2.rs`, which is taken when the processor has
//! it; both give the same bits.

use super::integers::BLOCK;

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Bytes that [`Kernels::unpack`] may look at beyond the packed integers.
pub(super) const SLACK_BYTES: usize = 32;

/// How an integer becomes a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finish {
    /// As it is.
    Whole,
    /// Divided by a number.
    Divide(f64),
    /// Multiplied by a number.
    Multiply(f64),
    /// Divided by one number and then by another.
    DivideTwice(f64, f64),
    /// The bits of a double: see [`to_order`].
    Bits,
}

/// What became of the integers before a block when they were summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// The sum of integers, when they are summed up twice.
    pub(super) inner: i64,
    /// The last sum.
    pub(super) outer: i64,
}

/// Integer `k` stands for `first + factor * k`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) first: i64,
    pub(super) factor: i64,
}

/// The loops that this processor runs best.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    avx2: bool,
    bmi2: bool,
}

impl Kernels {
    /// Asks the processor.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let (avx2, bmi2) = (
            std::arch::is_x86_feature_detected!("avx2"),
            std::arch::is_x86_feature_detected!("bmi1")
                && std::arch::is_x86_feature_detected!("bmi2"),
        );
        #[cfg(not(target_arch = "x86_64"))]
        let (avx2, bmi2) = (false, false);
        Self { avx2, bmi2 }
    }

    /// The plain form, which every processor runs.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { avx2: false, bmi2: false }
    }

    /// Whether code compiled for BMI1 and BMI2 may run.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_bmi2(self) -> bool {
        self.bmi2
    }

    /// A block of integers of `width` bits (at most 64) above `base`. There are bytes for a whole
    /// block and [`SLACK_BYTES`] behind them.
    pub(super) fn unpack(self, bytes: &[u8], width: u32, base: i64, out: &mut [i64; BLOCK]) {
        assert!(width <= 64 && BLOCK / 8 * width as usize + SLACK_BYTES <= bytes.len());
        #[cfg(target_arch = "x86_64")]
        if self.avx2 && width <= avx2::UNPACK_WIDTH_MAX {
            #[expect(unsafe_code, reason = "instructions that were asked for")]
            // SAFETY: `avx2` is true only if the processor has AVX2; the length was asserted.
            unsafe {
                avx2::unpack(bytes, width, base, out);
            }
            return;
        }
        unpack(bytes, width, base, out);
    }

    /// The values of a block of integers, after these were summed up `SUMS` times.
    pub(super) fn finish<const SUMS: u8>(
        self,
        block: &mut [i64; BLOCK],
        sums: &mut Sums,
        scale: Scale,
        finish: Finish,
        out: &mut [f64; BLOCK],
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            #[expect(unsafe_code, reason = "instructions that were asked for")]
            // SAFETY: `avx2` is true only if the processor has AVX2.
            unsafe {
                avx2::finish::<SUMS>(block, sums, scale, finish, out);
            }
            return;
        }
        if 1 < SUMS {
            add_up(&mut sums.inner, block);
        }
        if 0 < SUMS {
            add_up(&mut sums.outer, block);
        }
        match finish {
            Finish::Whole => map(block, scale, out, to_float),
            Finish::Divide(by) => map(block, scale, out, |own| to_float(own) / by),
            Finish::Multiply(by) => map(block, scale, out, |own| to_float(own) * by),
            Finish::DivideTwice(by, then) => {
                map(block, scale, out, |own| to_float(own) / by / then);
            }
            Finish::Bits => map(block, scale, out, from_order),
        }
    }
}

fn unpack(bytes: &[u8], width: u32, base: i64, out: &mut [i64; BLOCK]) {
    let width = width as usize;
    if width == 0 {
        out.fill(base);
    } else if width <= 56 {
        let mask = (1_u64 << width) - 1;
        for (at, slot) in out.iter_mut().enumerate() {
            let bit = at * width;
            let word = bytes[bit / 8..].first_chunk::<8>().map_or(0, |w| u64::from_le_bytes(*w));
            *slot = base.wrapping_add((word >> (bit % 8) & mask) as i64);
        }
    } else {
        let mask = u64::MAX >> (64 - width);
        for (at, slot) in out.iter_mut().enumerate() {
            let bit = at * width;
            let word = bytes[bit / 8..].first_chunk::<16>().map_or(0, |w| u128::from_le_bytes(*w));
            *slot = base.wrapping_add(((word >> (bit % 8)) as u64 & mask) as i64);
        }
    }
}

fn add_up(sum: &mut i64, block: &mut [i64; BLOCK]) {
    for integer in block {
        *sum = sum.wrapping_add(*integer);
        *integer = *sum;
    }
}

fn map(block: &[i64; BLOCK], scale: Scale, out: &mut [f64; BLOCK], value: impl Fn(i64) -> f64) {
    for (slot, integer) in out.iter_mut().zip(block) {
        *slot = value(scale.first.wrapping_add(integer.wrapping_mul(scale.factor)));
    }
}

/// The bits of a double as an integer that is in order as doubles are: next to each other are
/// doubles with nothing between them.
pub(super) fn to_order(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Undoes [`to_order`].
pub(super) fn from_order(integer: i64) -> f64 {
    f64::from_bits((integer ^ ((integer >> 63) as u64 >> 1) as i64) as u64)
}

const LOW: u64 = 0x4330_0000_0000_0000;
const HIGH: u64 = 0x4530_0000_8000_0000;
const BOTH: u64 = 0x4530_0000_8010_0000;

/// `integer as f64` in steps that exist for vectors: the halves are put below the mantissas of
/// 2^84 and 2^52, and only the last addition rounds.
fn to_float(integer: i64) -> f64 {
    let bits = integer as u64;
    let low = f64::from_bits(LOW | bits & 0xffff_ffff);
    let high = f64::from_bits(HIGH ^ bits >> 32);
    (high - f64::from_bits(BOTH)) + low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::{Rng as _, SimRng};

    fn random_block(rng: &SimRng, bits: u32) -> [i64; BLOCK] {
        std::array::from_fn(|_| rng.next_u64().unbounded_shr(64 - bits) as i64)
    }

    #[test]
    fn floats_are_those_of_the_language() {
        let rng = SimRng::new(1);
        let edges = [0, 1, -1, i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1];
        let random = (0..20_000).map(|at| rng.next_u64() as i64 >> (at % 64));
        for integer in edges.into_iter().chain(random) {
            assert_eq!(to_float(integer).to_bits(), (integer as f64).to_bits(), "{integer}");
        }
    }

    #[test]
    fn kernels_of_this_processor_agree_with_the_plain_ones() {
        let rng = SimRng::new(2);
        let (best, plain) = (Kernels::detect(), Kernels::plain());
        for round in 0..650_u32 {
            let width = round % 65;
            let bytes: Vec<u8> = (0..BLOCK / 8 * width as usize + SLACK_BYTES)
                .map(|_| rng.next_u64() as u8)
                .collect();
            let base = rng.next_u64() as i64 >> (round % 50);
            let (mut own, mut other) = ([0; BLOCK], [0; BLOCK]);
            best.unpack(&bytes, width, base, &mut own);
            plain.unpack(&bytes, width, base, &mut other);
            assert_eq!(own, other, "width {width}");

            let first = rng.next_u64() as i64;
            let factor = match round % 3 {
                0 => 1,
                1 => 1 << (round % 64),
                _ => rng.next_u64() as i64 >> (round % 60),
            };
            let scale = Scale { first, factor };
            for finish in [
                Finish::Whole,
                Finish::Divide(1e3),
                Finish::Multiply(1e-3),
                Finish::DivideTwice(1e3, 1e3),
                Finish::Bits,
            ] {
                let block = random_block(&rng, width);
                check_finish::<0>(&block, scale, finish);
                check_finish::<1>(&block, scale, finish);
                check_finish::<2>(&block, scale, finish);
            }
        }
    }

    fn check_finish<const SUMS: u8>(block: &[i64; BLOCK], scale: Scale, finish: Finish) {
        let run = |kernels: Kernels| {
            let (mut sums, mut out) = (Sums { inner: 5, outer: -77 }, [0.0; BLOCK]);
            kernels.finish::<SUMS>(&mut block.clone(), &mut sums, scale, finish, &mut out);
            (sums, out.map(f64::to_bits))
        };
        assert_eq!(run(Kernels::detect()), run(Kernels::plain()), "{finish:?}");
    }
}
