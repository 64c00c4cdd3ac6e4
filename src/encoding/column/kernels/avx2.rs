//! The loops of `kernels.rs` for AVX2.
//!
//! Integers are packed without gaps, so eight of them begin on a whole byte. Up to 25 bits each
//! lies within four bytes: two halves are loaded, bytes are moved so that each integer has a lane
//! of 32 bits, and the lanes are shifted by as much as their integers need. Up to 57 bits the same
//! goes with eight bytes and two integers in each half.
#![expect(unsafe_code, reason = "loads and stores of vectors")]

use std::arch::x86_64::{
    __m128i, __m256d, __m256i, _mm_cvtsi64_si128, _mm_loadu_si128, _mm256_add_epi64, _mm256_add_pd,
    _mm256_and_si256, _mm256_blend_epi32, _mm256_castsi256_pd, _mm256_castsi256_si128,
    _mm256_cmpgt_epi64, _mm256_cvtepu32_epi64, _mm256_div_pd, _mm256_extract_epi64,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_mul_epu32, _mm256_mul_pd,
    _mm256_permute4x64_epi64, _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_set1_pd, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sll_epi64, _mm256_slli_epi64,
    _mm256_slli_si256, _mm256_srli_epi64, _mm256_srlv_epi32, _mm256_srlv_epi64, _mm256_storeu_pd,
    _mm256_storeu_si256, _mm256_sub_pd, _mm256_xor_si256,
};

use super::{BOTH, Finish, HIGH, LOW, SLACK_BYTES, Scale, Sums};
use crate::encoding::column::integers::BLOCK;

/// Wider integers need more than eight bytes each.
pub(super) const UNPACK_WIDTH_MAX: u32 = 57;
/// Wider integers need more than four bytes each.
const NARROW_MAX: u32 = 25;

/// Where the bytes of four or eight integers of one width go.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Moves {
    shuffle: [u8; 32],
    shifts: [u8; 32],
}

/// By width: eight integers, four from the first half and four from the second.
static NARROW: [Moves; NARROW_MAX as usize + 1] = {
    let mut table = [Moves { shuffle: [0; 32], shifts: [0; 32] }; NARROW_MAX as usize + 1];
    let mut width = 0;
    while width < table.len() {
        let mut lane = 0;
        while lane < 8 {
            // The second half is loaded from the byte in which its first integer begins.
            let half_bit = lane / 4 * (width * 4 % 8);
            let bit = half_bit + lane % 4 * width;
            let mut byte = 0;
            while byte < 4 {
                table[width].shuffle[lane * 4 + byte] = (bit / 8 + byte) as u8;
                byte += 1;
            }
            table[width].shifts[lane * 4] = (bit % 8) as u8;
            lane += 1;
        }
        width += 1;
    }
    table
};

/// By width: the first four integers and the last four of eight, two from each half.
static WIDE: [[Moves; 2]; UNPACK_WIDTH_MAX as usize + 1] = {
    let none = Moves { shuffle: [0; 32], shifts: [0; 32] };
    let mut table = [[none; 2]; UNPACK_WIDTH_MAX as usize + 1];
    let mut width = 0;
    while width < table.len() {
        let mut lane = 0;
        while lane < 8 {
            let half_bit = lane / 2 * 2 * width % 8;
            let bit = half_bit + lane % 2 * width;
            let mut byte = 0;
            while byte < 8 {
                table[width][lane / 4].shuffle[lane % 4 * 8 + byte] = (bit / 8 + byte) as u8;
                byte += 1;
            }
            table[width][lane / 4].shifts[lane % 4 * 8] = (bit % 8) as u8;
            lane += 1;
        }
        width += 1;
    }
    table
};

#[target_feature(enable = "avx2")]
#[inline]
fn load_32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 16 bytes from `at` on.
#[target_feature(enable = "avx2")]
#[inline]
fn load_16(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: 16 bytes are there; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store_floats(floats: &mut [f64; 4], vector: __m256d) {
    // SAFETY: four doubles are 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_pd(floats.as_mut_ptr(), vector) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_4(integers: &[i64; 4]) -> __m256i {
    // SAFETY: four integers are 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(integers.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store_4(integers: &mut [i64; 4], vector: __m256i) {
    // SAFETY: four integers are 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(integers.as_mut_ptr().cast(), vector) }
}

/// As [`super::Kernels::unpack`], for widths of at most [`UNPACK_WIDTH_MAX`].
#[target_feature(enable = "avx2")]
pub(super) fn unpack(bytes: &[u8], width: u32, base: i64, out: &mut [i64; BLOCK]) {
    let bases = _mm256_set1_epi64x(base);
    let (groups, _) = out.as_chunks_mut::<8>();
    let len = width as usize;
    // Bounds are checked once: what the loop loads lies within.
    let bytes = &bytes[..BLOCK / 8 * len + SLACK_BYTES];
    if width <= NARROW_MAX {
        let moves = &NARROW[len];
        let (shuffle, shifts) = (load_32(&moves.shuffle), load_32(&moves.shifts));
        let mask = _mm256_set1_epi32(((1_u64 << width) - 1) as i32);
        for (group, integers) in groups.iter_mut().enumerate() {
            let at = group * len;
            let halves = _mm256_set_m128i(load_16(bytes, at + len / 2), load_16(bytes, at));
            let moved = _mm256_shuffle_epi8(halves, shuffle);
            let found = _mm256_and_si256(_mm256_srlv_epi32(moved, shifts), mask);
            let low = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(found));
            let high = _mm256_cvtepu32_epi64(_mm256_extracti128_si256::<1>(found));
            let (quarters, _) = integers.as_chunks_mut::<4>();
            store_4(&mut quarters[0], _mm256_add_epi64(low, bases));
            store_4(&mut quarters[1], _mm256_add_epi64(high, bases));
        }
    } else {
        let mask = _mm256_set1_epi64x(((1_u64 << width) - 1) as i64);
        for (group, integers) in groups.iter_mut().enumerate() {
            let (quarters, _) = integers.as_chunks_mut::<4>();
            for (part, integers) in quarters.iter_mut().enumerate() {
                let moves = &WIDE[len][part];
                let at = |pair: usize| group * len + pair * 2 * len / 8;
                let halves = _mm256_set_m128i(
                    load_16(bytes, at(part * 2 + 1)),
                    load_16(bytes, at(part * 2)),
                );
                let moved = _mm256_shuffle_epi8(halves, load_32(&moves.shuffle));
                let found = _mm256_srlv_epi64(moved, load_32(&moves.shifts));
                let found = _mm256_and_si256(found, mask);
                store_4(integers, _mm256_add_epi64(found, bases));
            }
        }
    }
}

/// As [`super::Kernels::finish`].
#[target_feature(enable = "avx2")]
pub(super) fn finish<const SUMS: u8>(
    block: &[i64; BLOCK],
    sums: &mut Sums,
    scale: Scale,
    finish: Finish,
    out: &mut [f64; BLOCK],
) {
    match finish {
        Finish::Whole => scaled::<SUMS>(block, sums, scale, out, |own| to_floats(own)),
        Finish::Divide(by) => {
            let by = _mm256_set1_pd(by);
            scaled::<SUMS>(block, sums, scale, out, |own| _mm256_div_pd(to_floats(own), by));
        }
        Finish::Multiply(by) => {
            let by = _mm256_set1_pd(by);
            scaled::<SUMS>(block, sums, scale, out, |own| _mm256_mul_pd(to_floats(own), by));
        }
        Finish::DivideTwice(by, then) => {
            let (by, then) = (_mm256_set1_pd(by), _mm256_set1_pd(then));
            let divide = |own| _mm256_div_pd(_mm256_div_pd(to_floats(own), by), then);
            scaled::<SUMS>(block, sums, scale, out, divide);
        }
        Finish::Bits => scaled::<SUMS>(block, sums, scale, out, |own| from_order(own)),
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn scaled<const SUMS: u8>(
    block: &[i64; BLOCK],
    sums: &mut Sums,
    scale: Scale,
    out: &mut [f64; BLOCK],
    value: impl Fn(__m256i) -> __m256d,
) {
    let first = _mm256_set1_epi64x(scale.first);
    if scale.factor == 1 {
        let add = |own| value(_mm256_add_epi64(own, first));
        summed::<SUMS>(block, sums, out, add);
    } else if (scale.factor as u64).is_power_of_two() {
        let shift = _mm_cvtsi64_si128(i64::from(scale.factor.trailing_zeros()));
        let add = |own| value(_mm256_add_epi64(_mm256_sll_epi64(own, shift), first));
        summed::<SUMS>(block, sums, out, add);
    } else {
        let factor = _mm256_set1_epi64x(scale.factor);
        let add = |own| value(_mm256_add_epi64(multiply(own, factor), first));
        summed::<SUMS>(block, sums, out, add);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn summed<const SUMS: u8>(
    block: &[i64; BLOCK],
    sums: &mut Sums,
    out: &mut [f64; BLOCK],
    value: impl Fn(__m256i) -> __m256d,
) {
    let mut inner = _mm256_set1_epi64x(sums.inner);
    let mut outer = _mm256_set1_epi64x(sums.outer);
    for (integers, out) in block.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<4>().0) {
        let mut own = load_4(integers);
        if 1 < SUMS {
            own = add_up(own, &mut inner);
        }
        if 0 < SUMS {
            own = add_up(own, &mut outer);
        }
        store_floats(out, value(own));
    }
    sums.inner = _mm256_extract_epi64::<0>(inner);
    sums.outer = _mm256_extract_epi64::<0>(outer);
}

/// The sums of each integer, all before it and `before`; which becomes the last one, four times.
#[target_feature(enable = "avx2")]
#[inline]
fn add_up(own: __m256i, before: &mut __m256i) -> __m256i {
    // Sums within each half, then the first half's sum for the second half. What goes from one
    // four to the next is a single addition.
    let pairs = _mm256_add_epi64(own, _mm256_slli_si256::<8>(own));
    let first = _mm256_permute4x64_epi64::<0b01_01_01_01>(pairs);
    let first = _mm256_blend_epi32::<0b1111_0000>(_mm256_setzero_si256(), first);
    let sums = _mm256_add_epi64(pairs, first);
    let found = _mm256_add_epi64(sums, *before);
    *before = _mm256_add_epi64(*before, _mm256_permute4x64_epi64::<0b11_11_11_11>(sums));
    found
}

/// The lower 64 bits of products.
#[target_feature(enable = "avx2")]
#[inline]
fn multiply(one: __m256i, other: __m256i) -> __m256i {
    let low = _mm256_mul_epu32(one, other);
    let first = _mm256_mul_epu32(_mm256_srli_epi64::<32>(one), other);
    let second = _mm256_mul_epu32(one, _mm256_srli_epi64::<32>(other));
    let crossed = _mm256_slli_epi64::<32>(_mm256_add_epi64(first, second));
    _mm256_add_epi64(low, crossed)
}

/// As [`super::to_float`].
#[target_feature(enable = "avx2")]
#[inline]
fn to_floats(integers: __m256i) -> __m256d {
    let low = _mm256_set1_epi64x(LOW as i64);
    let high = _mm256_set1_epi64x(HIGH as i64);
    let both = _mm256_castsi256_pd(_mm256_set1_epi64x(BOTH as i64));
    let low = _mm256_castsi256_pd(_mm256_blend_epi32::<0b1010_1010>(integers, low));
    let high = _mm256_castsi256_pd(_mm256_xor_si256(_mm256_srli_epi64::<32>(integers), high));
    _mm256_add_pd(_mm256_sub_pd(high, both), low)
}

/// As [`super::from_order`].
#[target_feature(enable = "avx2")]
#[inline]
fn from_order(integers: __m256i) -> __m256d {
    let negative = _mm256_cmpgt_epi64(_mm256_setzero_si256(), integers);
    let flipped = _mm256_srli_epi64::<1>(negative);
    _mm256_castsi256_pd(_mm256_xor_si256(integers, flipped))
}
