//! Integers for long-term storage: smaller than packed blocks, slower to read.
//!
//! Each integer, counted from a middle, falls into a class by its length in bits. Classes are
//! coded by how often they occur (tabled asymmetric numerals, four states in turn, so that four
//! look-ups run at a time); the bits below the highest one follow as they are.

use super::integers::BLOCK;
use super::kernels::Kernels;
use super::varint::{self, unzigzag, zigzag};
use super::{ColumnError, Cursor};

/// Classes are lengths in bits, from 0 to 64.
const CLASSES: usize = 65;
/// The table has two to the power of this many states: at least one for each class.
const TABLE_BITS_MIN: u32 = 7;
const TABLE_BITS_MAX: u32 = 9;
/// Tables of chunks in which not all classes occur may be smaller.
const TABLE_BITS_READ_MIN: u32 = 6;
/// States that take turns.
const STATES: usize = 4;
/// Beside the number of states: integers lie on both sides of the base.
const BOTH_SIDES: u8 = 0x80;

/// The widest class whose lower bits any eight bytes hold from the bit in the first on.
const NARROW_CLASS_MAX: usize = 58;
/// Bytes that hold the classes of a block, and those that hold the bits below the highest.
const CLASSES_WINDOW: usize = BLOCK * TABLE_BITS_MAX as usize / 8 + 16;
const BELOW_WINDOW: usize = BLOCK * (NARROW_CLASS_MAX - 1) / 8 + 16;

const _: () = assert!(CLASSES <= 1 << TABLE_BITS_MIN);
const _: () = assert!(BLOCK.is_multiple_of(STATES)); // every block begins with the first state
const _: () = assert!(TABLE_BITS_MAX as usize * STATES <= 56); // one load serves all states

/// What the integers are counted from.
#[derive(Clone, Copy)]
struct Base {
    base: i64,
    is_middle: bool,
}

impl Base {
    fn distance(self, integer: i64) -> u64 {
        let distance = integer.wrapping_sub(self.base);
        if self.is_middle { zigzag(distance) } else { distance as u64 }
    }
}

fn class(distance: u64) -> usize {
    64 - distance.leading_zeros() as usize
}

/// How to write integers, and how many bytes that will take, nearly.
pub(super) struct Plan {
    base: Base,
    counts: [u32; CLASSES],
    bytes: f64,
}

impl Plan {
    /// For at least one integer.
    pub(super) fn of(integers: &[i64]) -> Self {
        let mut sorted = integers.to_vec();
        let smallest = *sorted.iter().min().expect("an integer");
        let middle = sorted.len() / 2;
        let middle = *sorted.select_nth_unstable(middle).1;
        let up = Self::with_base(integers, Base { base: smallest, is_middle: false });
        let around = Self::with_base(integers, Base { base: middle, is_middle: true });
        if up.bytes < around.bytes { up } else { around }
    }

    fn with_base(integers: &[i64], base: Base) -> Self {
        let mut counts = [0_u32; CLASSES];
        for integer in integers {
            counts[class(base.distance(*integer))] += 1;
        }
        let all = integers.len() as f64;
        let mut bits = 0.0;
        for (class, count) in counts.iter().enumerate().filter(|(_, count)| 0 < **count) {
            let own = f64::from(*count);
            bits += own * (class.saturating_sub(1) as f64 + (all / own).log2()) + 4.0;
        }
        Self { base, counts, bytes: bits / 8.0 + 12.0 }
    }

    pub(super) fn bytes(&self) -> f64 {
        self.bytes
    }

    /// False: some class would have no state, and nothing was written.
    pub(super) fn write(&self, integers: &[i64], out: &mut Vec<u8>) -> bool {
        let table_bits = table_bits(integers.len());
        let shares = shares(&self.counts);
        let Some(weights) = weights(&shares, table_bits) else { return false };
        let has_state = |(count, weight): (&u32, &u32)| *count == 0 || 0 < *weight;
        if !self.counts.iter().zip(&weights).all(has_state) {
            return false;
        }
        let both_sides = if self.base.is_middle { BOTH_SIDES } else { 0 };
        out.push(table_bits as u8 | both_sides);
        varint::put_signed(self.base.base, out);
        let lowest = shares.iter().position(|share| 0 < *share).unwrap_or(0);
        let highest = shares.iter().rposition(|share| 0 < *share).unwrap_or(0);
        out.extend([lowest as u8, highest as u8]);
        for pair in shares[lowest..=highest].chunks(2) {
            out.push(pair[0] | pair.get(1).unwrap_or(&0) << 4);
        }
        let (classes, below) = self.bits(integers, &weights, table_bits);
        varint::put(classes.len() as u64, out);
        out.extend_from_slice(&classes);
        out.extend_from_slice(&below);
        true
    }

    /// The states and steps that give the classes, and the bits below the highest.
    fn bits(
        &self,
        integers: &[i64],
        weights: &[u32; CLASSES],
        table_bits: u32,
    ) -> (Vec<u8>, Vec<u8>) {
        let places = places(weights, table_bits);
        let mut starts = [0_u32; CLASSES];
        let mut sum = 0;
        for (start, weight) in starts.iter_mut().zip(weights) {
            *start = sum;
            sum += weight;
        }
        let size = 1_u32 << table_bits;
        let mut states = [size; STATES];
        let mut steps = vec![(0_u32, 0_u32); integers.len()];
        // Backwards: the reader then goes forward.
        for (at, integer) in integers.iter().enumerate().rev() {
            let class = class(self.base.distance(*integer));
            let (state, weight) = (&mut states[at % STATES], weights[class]);
            let mut bits = weight.leading_zeros() - state.leading_zeros();
            if *state >> bits < weight {
                bits -= 1;
            }
            steps[at] = (*state & ((1 << bits) - 1), bits);
            let place = starts[class] + (*state >> bits) - weight;
            *state = size + u32::from(places[place as usize]);
        }
        let (mut classes, mut below) = (Bits::default(), Bits::default());
        for state in states {
            classes.put(u64::from(state - size), table_bits);
        }
        for (bits, count) in steps {
            classes.put(u64::from(bits), count);
        }
        for integer in integers {
            let distance = self.base.distance(*integer);
            let count = class(distance).saturating_sub(1) as u32;
            below.put(distance & ((1 << count) - 1), count);
        }
        (classes.finish(), below.finish())
    }
}

/// A table is built for each chunk, so it is smaller than the chunk has rows.
fn table_bits(rows: usize) -> u32 {
    let fitting = usize::BITS - (rows / 8).leading_zeros();
    fitting.clamp(TABLE_BITS_MIN, TABLE_BITS_MAX)
}

/// How often a class occurs, in four bits: by the square root of two more with each.
const SHARES: [u32; 16] = [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181];

fn shares(counts: &[u32; CLASSES]) -> [u8; CLASSES] {
    let most = f64::from(*counts.iter().max().expect("classes"));
    let largest = f64::from(SHARES[15]);
    counts.map(|count| {
        let share = f64::from(count) / most * largest;
        let nearest = |own: &&(u8, f64)| (own.1.ln() - share.ln()).abs();
        let known: Vec<_> = (1..).zip(SHARES[1..].iter().map(|own| f64::from(*own))).collect();
        let best = known.iter().min_by(|a, b| nearest(a).total_cmp(&nearest(b)));
        if count == 0 { 0 } else { best.map_or(1, |own| own.0) }
    })
}

/// The table's states, by class: at least one for each class that occurs. `None` when there are
/// more of these than states.
fn weights(shares: &[u8; CLASSES], table_bits: u32) -> Option<[u32; CLASSES]> {
    if 1 << table_bits < shares.iter().filter(|share| 0 < **share).count() {
        return None;
    }
    let shares = shares.map(|share| SHARES[usize::from(share & 15)]);
    let all: u32 = shares.iter().sum();
    let size = 1_u32 << table_bits;
    let mut weights = shares.map(|share| if share == 0 { 0 } else { (share * size / all).max(1) });
    let mut sum: u32 = weights.iter().sum();
    // What rounding left over goes to the class that has most; what it took too much is taken
    // from there, one by one.
    while sum != size {
        let largest = weights.iter_mut().max().expect("classes");
        if sum < size {
            *largest += size - sum;
            sum = size;
        } else {
            *largest -= 1;
            sum -= 1;
        }
    }
    Some(weights)
}

/// The class of each state: those of one class lie far apart.
fn spread(weights: &[u32; CLASSES], table_bits: u32) -> [u8; 1 << TABLE_BITS_MAX] {
    let mut classes = [0; 1 << TABLE_BITS_MAX];
    let size = 1_usize << table_bits;
    // Odd, so that every state is met once.
    let step = size / 2 + size / 8 + 3;
    let mut at = 0;
    for (class, weight) in weights.iter().enumerate() {
        for _ in 0..*weight {
            classes[at] = class as u8;
            at = (at + step) & (size - 1);
        }
    }
    classes
}

/// The states of each class in order, class by class.
fn places(weights: &[u32; CLASSES], table_bits: u32) -> [u16; 1 << TABLE_BITS_MAX] {
    let classes = spread(weights, table_bits);
    let mut next = [0_u32; CLASSES];
    let mut sum = 0;
    for (next, weight) in next.iter_mut().zip(weights) {
        *next = sum;
        sum += weight;
    }
    let mut places = [0; 1 << TABLE_BITS_MAX];
    for (state, class) in classes[..1 << table_bits].iter().enumerate() {
        let next = &mut next[usize::from(*class)];
        places[*next as usize] = state as u16;
        *next += 1;
    }
    places
}

/// What a state says: a class, and how the next state is found.
#[derive(Clone, Copy, Default)]
struct Entry {
    class: u8,
    /// Bits to read.
    bits: u8,
    /// To which they are added.
    next: u16,
}

/// Reads integers block by block.
pub(super) struct Reader<'a> {
    table: [Entry; 1 << TABLE_BITS_MAX],
    states: [u16; STATES],
    base: Base,
    is_wide: bool,
    kernels: Kernels,
    bytes: &'a [u8],
    /// Position of the classes, in bits, and where they end.
    classes_at: usize,
    classes_end: usize,
    /// Position of the bits below the highest; they end with the bytes.
    below_at: usize,
}

impl<'a> Reader<'a> {
    /// Reads what stands before the integers. They end with the input.
    pub(super) fn new(input: &mut Cursor<'a>, kernels: Kernels) -> Result<Self, ColumnError> {
        let head = input.byte()?;
        let table_bits = u32::from(head & !BOTH_SIDES);
        if !(TABLE_BITS_READ_MIN..=TABLE_BITS_MAX).contains(&table_bits) {
            return Err(input.error("table of another size"));
        }
        let base = Base { base: input.signed()?, is_middle: head & BOTH_SIDES != 0 };
        let (lowest, highest) = (usize::from(input.byte()?), usize::from(input.byte()?));
        if CLASSES <= highest || highest < lowest {
            return Err(input.error("integers wider than 64 bits"));
        }
        let mut shares = [0; CLASSES];
        for pair in shares[lowest..=highest].chunks_mut(2) {
            let both = input.byte()?;
            pair[0] = both & 15;
            if let Some(second) = pair.get_mut(1) {
                *second = both >> 4;
            }
        }
        if shares.iter().all(|share| *share == 0) {
            return Err(input.error("no class occurs"));
        }
        let weights =
            weights(&shares, table_bits).ok_or_else(|| input.error("more classes than states"))?;
        let classes_bytes = usize::try_from(input.unsigned()?).unwrap_or(usize::MAX);
        let start = input.at;
        input.take(classes_bytes)?;
        let mut reader = Self {
            table: Self::table(&weights, table_bits),
            states: [0; STATES],
            base,
            is_wide: NARROW_CLASS_MAX < highest,
            kernels,
            bytes: input.bytes,
            classes_at: start * 8,
            classes_end: input.at * 8,
            below_at: input.at * 8,
        };
        input.at = input.bytes.len();
        let window = word(&window::<8>(reader.bytes, start), 0);
        for (state, at) in reader.states.iter_mut().zip(0..) {
            *state = (window >> (at * table_bits)) as u16 & ((1 << table_bits) - 1);
        }
        reader.classes_at += STATES * table_bits as usize;
        Ok(reader)
    }

    fn table(weights: &[u32; CLASSES], table_bits: u32) -> [Entry; 1 << TABLE_BITS_MAX] {
        let classes = spread(weights, table_bits);
        let mut next = *weights;
        let mut table = [Entry::default(); 1 << TABLE_BITS_MAX];
        for (entry, class) in table[..1 << table_bits].iter_mut().zip(classes) {
            let next = &mut next[usize::from(class)];
            let bits = table_bits - next.ilog2();
            let least = (*next << bits) - (1 << table_bits);
            *entry = Entry { class, bits: bits as u8, next: least as u16 };
            *next += 1;
        }
        table
    }

    /// Reads the next `len` integers; all but the last block are whole.
    pub(super) fn block(&mut self, len: usize, out: &mut [i64; BLOCK]) -> Result<(), ColumnError> {
        self.read(len, out);
        if self.classes_end < self.classes_at || self.bytes.len() * 8 < self.below_at {
            let offset_bytes = self.bytes.len();
            return Err(ColumnError { offset_bytes, reason: "chunk ends too early" });
        }
        Ok(())
    }

    #[cfg(target_arch = "x86_64")]
    fn read(&mut self, len: usize, out: &mut [i64; BLOCK]) {
        if self.kernels.has_bmi2() {
            #[expect(unsafe_code, reason = "instructions that were asked for")]
            // SAFETY: the processor has them.
            unsafe {
                self.read_bmi2(len, out);
            }
        } else {
            self.read_plain(len, out);
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn read(&mut self, len: usize, out: &mut [i64; BLOCK]) {
        self.read_plain(len, out);
    }

    /// The same, compiled for instructions that shift and mask in one.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "bmi1,bmi2")]
    fn read_bmi2(&mut self, len: usize, out: &mut [i64; BLOCK]) {
        self.read_plain(len, out);
    }

    #[expect(clippy::inline_always, reason = "compiled for several kinds of processors")]
    #[inline(always)]
    fn read_plain(&mut self, len: usize, out: &mut [i64; BLOCK]) {
        let mut classes = [0; BLOCK];
        self.classes(len, &mut classes);
        if self.is_wide {
            self.wide_integers(&classes, out);
        } else if self.base.is_middle {
            self.integers(&classes, out, unzigzag);
        } else {
            self.integers(&classes, out, |distance| distance as i64);
        }
    }

    /// The classes of the next integers; zeros behind them.
    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn classes(&mut self, len: usize, out: &mut [u8; BLOCK]) {
        let window = window::<CLASSES_WINDOW>(self.bytes, self.classes_at / 8);
        let mut at = self.classes_at % 8;
        let [mut a, mut b, mut c, mut d] = self.states;
        let (turns, _) = out.as_chunks_mut::<STATES>();
        for turn in &mut turns[..len / STATES] {
            let mut bits = word(&window, at);
            for (class, state) in turn.iter_mut().zip([&mut a, &mut b, &mut c, &mut d]) {
                let entry = self.table[usize::from(*state) % (1 << TABLE_BITS_MAX)];
                *class = entry.class;
                *state = entry.next + (bits & ((1 << entry.bits) - 1)) as u16;
                bits >>= entry.bits;
                at += usize::from(entry.bits);
            }
        }
        self.states = [a, b, c, d];
        // The last turn of all: what the states would become no longer matters.
        for (class, state) in
            turns.as_flattened_mut()[..len].iter_mut().skip(len / STATES * STATES).zip(self.states)
        {
            *class = self.table[usize::from(state) % (1 << TABLE_BITS_MAX)].class;
        }
        self.classes_at = self.classes_at / 8 * 8 + at;
    }

    /// The integers of classes up to [`NARROW_CLASS_MAX`].
    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn integers(
        &mut self,
        classes: &[u8; BLOCK],
        out: &mut [i64; BLOCK],
        signed: impl Fn(u64) -> i64,
    ) {
        let window = window::<BELOW_WINDOW>(self.bytes, self.below_at / 8);
        let mut at = self.below_at % 8;
        for (slot, class) in out.iter_mut().zip(classes) {
            let bits = word(&window, at);
            let highest = (1_u64 << (class % 64)) >> 1;
            let count = class.saturating_sub(1);
            let distance = highest | bits & ((1 << (count % 64)) - 1);
            *slot = self.base.base.wrapping_add(signed(distance));
            at += usize::from(count);
        }
        self.below_at = self.below_at / 8 * 8 + at;
    }

    fn wide_integers(&mut self, classes: &[u8; BLOCK], out: &mut [i64; BLOCK]) {
        for (slot, class) in out.iter_mut().zip(classes) {
            let count = usize::from(class.saturating_sub(1));
            let window = window::<16>(self.bytes, self.below_at / 8);
            let bits = (u128::from_le_bytes(*window) >> (self.below_at % 8)) as u64;
            let highest = if *class == 0 { 0 } else { 1_u64 << count };
            let distance = highest | bits & ((1 << count) - 1);
            let distance = if self.base.is_middle { unzigzag(distance) } else { distance as i64 };
            *slot = self.base.base.wrapping_add(distance);
            self.below_at += count;
        }
    }
}

/// Some bytes from a position on; zeros behind the end.
enum Window<'a, const N: usize> {
    Within(&'a [u8; N]),
    AtEnd([u8; N]),
}

impl<const N: usize> std::ops::Deref for Window<'_, N> {
    type Target = [u8; N];

    #[inline]
    fn deref(&self) -> &[u8; N] {
        match self {
            Self::Within(bytes) => bytes,
            Self::AtEnd(bytes) => bytes,
        }
    }
}

#[inline]
fn window<const N: usize>(bytes: &[u8], at: usize) -> Window<'_, N> {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(within) = rest.first_chunk() {
        return Window::Within(within);
    }
    let mut found = [0; N];
    found[..rest.len()].copy_from_slice(rest);
    Window::AtEnd(found)
}

/// The 57 bits or more that begin with bit `at`, which lies in all but the last eight bytes.
#[inline]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let start = (at / 8).min(N - 8);
    let word = bytes[start..start + 8].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    word >> (at % 8)
}

/// Collects bits, least significant first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u128,
    count: u32,
}

impl Bits {
    /// Appends the lowest `count` bits, at most 64; those above are zero.
    fn put(&mut self, bits: u64, count: u32) {
        self.pending |= u128::from(bits) << self.count;
        self.count += count;
        if 64 <= self.count {
            self.bytes.extend_from_slice(&(self.pending as u64).to_le_bytes());
            self.pending >>= 64;
            self.count -= 64;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let rest = self.count.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&(self.pending as u64).to_le_bytes()[..rest]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_state_for_each_class_or_is_none() {
        assert_eq!(weights(&[1; CLASSES], TABLE_BITS_READ_MIN), None);
        for table_bits in TABLE_BITS_MIN..=TABLE_BITS_MAX {
            for most in 1..16 {
                let mut shares = [1; CLASSES];
                shares[usize::from(most)] = most;
                let found = weights(&shares, table_bits).unwrap();
                assert!(found.iter().all(|weight| 0 < *weight), "{found:?}");
                assert_eq!(found.iter().sum::<u32>(), 1 << table_bits);
            }
        }
        assert!((0..5000).all(|rows| TABLE_BITS_MIN <= table_bits(rows)));
    }
}
