//! Chunks in Prometheus' own encodings, as streamed answers to remote reads carry them: XOR for
//! floats, and float histograms.

use crate::model::histogram::{Histogram, Span};

/// Samples of one chunk of floats, as Prometheus cuts them.
pub const CHUNK_SAMPLES: usize = 120;

/// Which encoding a chunk has, by Prometheus' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkEncoding {
    /// Floats.
    Xor = 1,
    /// Float histograms.
    FloatHistogram = 3,
}

/// Bits, the highest of each byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are still free.
    free: u32,
}

impl Bits {
    fn after(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), free: 0 }
    }

    /// The lowest `count` bits.
    fn push(&mut self, bits: u64, mut count: u32) {
        while count > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = count.min(self.free);
            count -= taken;
            self.free -= taken;
            let part = (bits >> count) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part << self.free) as u8;
            }
        }
    }

    fn push_float(&mut self, value: f64) {
        self.push(value.to_bits(), 64);
    }

    fn push_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number | 0x80, 8);
            number >>= 7;
        }
        self.push(number, 8);
    }

    /// In as few bits as its size needs, behind a prefix that tells how many.
    fn push_varbit(&mut self, bits: u64, fits: impl Fn(u32) -> bool) {
        if bits == 0 {
            return self.push(0, 1);
        }
        let sizes = [3_u32, 6, 9, 12, 18, 25, 56];
        for (index, size) in (1..).zip(sizes) {
            if fits(size) {
                self.push((1 << (index + 1)) - 2, index + 1);
                return self.push(bits, size);
            }
        }
        self.push(0xff, 8);
        self.push(bits, 64);
    }

    fn push_varbit_int(&mut self, number: i64) {
        self.push_varbit(number as u64, |bits| fits(number, bits));
    }

    fn push_varbit_uint(&mut self, number: u64) {
        self.push_varbit(number, |bits| number >> bits == 0);
    }
}

/// Whether a signed number is read back from so many bits. The range is shifted up by one.
fn fits(number: i64, bits: u32) -> bool {
    let half = 1_i64 << (bits - 1);
    (1 - half..=half).contains(&number)
}

/// Floats with their timestamps, at most [`CHUNK_SAMPLES`], as an XOR chunk.
pub fn xor(samples: impl ExactSizeIterator<Item = (i64, f64)>) -> Vec<u8> {
    debug_assert!(samples.len() <= CHUNK_SAMPLES);
    let mut bits = Bits::after(&(samples.len() as u16).to_be_bytes());
    let (mut last_ms, mut last_delta, mut last_value) = (0_i64, 0_i64, 0.0_f64);
    let mut window = None;
    for (index, (timestamp_ms, value)) in samples.enumerate() {
        let delta = timestamp_ms.wrapping_sub(last_ms);
        match index {
            0 => {
                bits.push_varint(((timestamp_ms << 1) ^ (timestamp_ms >> 63)) as u64);
                bits.push_float(value);
            }
            1 => bits.push_varint(delta as u64),
            _ => push_delta_of_delta(&mut bits, delta.wrapping_sub(last_delta)),
        }
        if index > 0 {
            push_xor(&mut bits, value.to_bits() ^ last_value.to_bits(), &mut window);
            last_delta = delta;
        }
        (last_ms, last_value) = (timestamp_ms, value);
    }
    bits.bytes
}

fn push_delta_of_delta(bits: &mut Bits, change: i64) {
    match change {
        0 => bits.push(0, 1),
        _ if fits(change, 14) => {
            bits.push(0b10, 2);
            bits.push(change as u64, 14);
        }
        _ if fits(change, 17) => {
            bits.push(0b110, 3);
            bits.push(change as u64, 17);
        }
        _ if fits(change, 20) => {
            bits.push(0b1110, 4);
            bits.push(change as u64, 20);
        }
        _ => {
            bits.push(0b1111, 4);
            bits.push(change as u64, 64);
        }
    }
}

/// The bits that changed; `window` is the leading and trailing zeros that were told last.
fn push_xor(bits: &mut Bits, changed: u64, window: &mut Option<(u32, u32)>) {
    if changed == 0 {
        return bits.push(0, 1);
    }
    bits.push(1, 1);
    // Five bits tell the leading zeros.
    let (leading, trailing) = (changed.leading_zeros().min(31), changed.trailing_zeros());
    if let Some((old_leading, old_trailing)) = *window
        && old_leading <= leading
        && old_trailing <= trailing
    {
        bits.push(0, 1);
        return bits.push(changed >> old_trailing, 64 - old_leading - old_trailing);
    }
    *window = Some((leading, trailing));
    let count = 64 - leading - trailing;
    bits.push(1, 1);
    bits.push(u64::from(leading), 5);
    // Six bits tell the count; 64 is told as 0.
    bits.push(u64::from(count), 6);
    bits.push(changed >> trailing, count);
}

/// One histogram as a chunk of its own: layouts differ from sample to sample, and readers of
/// streams take chunks of any length.
pub fn float_histogram(timestamp_ms: i64, histogram: &Histogram) -> Vec<u8> {
    let stale;
    let own = if histogram.is_stale() {
        stale = Histogram { sum: histogram.sum, ..Histogram::default() };
        &stale
    } else {
        histogram
    };
    // One sample, and nothing known about resets.
    let mut bits = Bits::after(&[0, 1, 0]);
    if own.zero_threshold == 0.0 {
        bits.push(0, 8);
    } else {
        bits.push(0xff, 8);
        bits.push_float(own.zero_threshold);
    }
    bits.push_varbit_int(i64::from(own.schema));
    for spans in [&own.positive_spans, &own.negative_spans] {
        bits.push_varbit_uint(spans.len() as u64);
        for Span { offset, length } in spans {
            bits.push_varbit_uint(u64::from(*length));
            bits.push_varbit_int(i64::from(*offset));
        }
    }
    if own.has_custom_buckets() {
        bits.push_varbit_uint(own.custom_bounds.len() as u64);
        for bound in own.custom_bounds.iter() {
            bits.push(0, 1);
            bits.push_float(*bound);
        }
    }
    bits.push_varbit_int(timestamp_ms);
    let buckets = own.positive_buckets.iter().chain(&own.negative_buckets);
    for value in [own.count, own.zero_count, own.sum].iter().chain(buckets) {
        bits.push_float(*value);
    }
    bits.bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads what [`Bits`] wrote.
    struct Reader<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Reader<'_> {
        fn bits(&mut self, count: u32) -> u64 {
            (0..count).fold(0, |bits, _| {
                let bit = (self.bytes[self.at / 8] >> (7 - self.at % 8)) & 1;
                self.at += 1;
                (bits << 1) | u64::from(bit)
            })
        }

        fn ones(&mut self, max: u32) -> u32 {
            (0..max).take_while(|_| self.bits(1) == 1).count() as u32
        }

        /// A number of `count` bits, whose range is shifted up by one.
        fn signed(&mut self, count: u32) -> i64 {
            let bits = self.bits(count);
            if count < 64 && bits > 1 << (count - 1) {
                return bits as i64 - (1 << count);
            }
            bits as i64
        }

        fn varint(&mut self) -> u64 {
            let (mut number, mut shift) = (0, 0);
            loop {
                let byte = self.bits(8);
                number |= (byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return number;
                }
            }
        }
    }

    fn decoded(bytes: &[u8]) -> Vec<(i64, u64)> {
        let mut reader = Reader { bytes, at: 0 };
        let count = reader.bits(16);
        let (mut samples, mut delta, mut window) = (Vec::new(), 0_i64, (0, 0));
        for index in 0..count {
            let &(last_ms, last_bits) = samples.last().unwrap_or(&(0, 0));
            if index == 0 {
                let zigzag = reader.varint();
                let timestamp_ms = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                samples.push((timestamp_ms, reader.bits(64)));
                continue;
            }
            if index == 1 {
                delta = reader.varint() as i64;
            } else {
                let size = [0, 14, 17, 20, 64][reader.ones(4) as usize];
                delta = delta.wrapping_add(if size == 0 { 0 } else { reader.signed(size) });
            }
            let mut bits = last_bits;
            if reader.bits(1) == 1 {
                if reader.bits(1) == 1 {
                    let leading = reader.bits(5) as u32;
                    let count = reader.bits(6) as u32;
                    let count = if count == 0 { 64 } else { count };
                    window = (leading, 64 - leading - count);
                }
                bits ^= reader.bits(64 - window.0 - window.1) << window.1;
            }
            samples.push((last_ms.wrapping_add(delta), bits));
        }
        samples
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_source_file(file!()))]

        #[test]
        fn xor_chunks_are_read_back(
            first in any::<i64>(),
            steps in prop::collection::vec(
                prop_oneof![Just(15_000_i64), 14_000_i64..16_000, 0_i64..3_000_000, 0..i64::MAX],
                0..CHUNK_SAMPLES,
            ),
            values in prop::collection::vec(
                prop_oneof![any::<f64>(), (0_u8..4).prop_map(f64::from)],
                CHUNK_SAMPLES,
            ),
        ) {
            let mut timestamp_ms = first;
            let mut samples = vec![(first, values[0])];
            for (step, value) in steps.iter().zip(&values[1..]) {
                timestamp_ms = timestamp_ms.wrapping_add(*step);
                samples.push((timestamp_ms, *value));
            }
            let expected: Vec<_> = samples.iter().map(|(t, value)| (*t, value.to_bits())).collect();
            prop_assert_eq!(decoded(&xor(samples.into_iter())), expected);
        }
    }

    #[test]
    fn histograms_are_chunks_of_one_sample() {
        let histogram = Histogram {
            schema: 3,
            zero_threshold: 0.0,
            zero_count: 1.0,
            count: 6.0,
            sum: 12.5,
            positive_spans: vec![Span { offset: -2, length: 2 }],
            positive_buckets: vec![2.0, 3.0],
            ..Histogram::default()
        };
        let bytes = float_histogram(5, &histogram);
        let mut reader = Reader { bytes: &bytes, at: 0 };
        assert_eq!((reader.bits(16), reader.bits(8), reader.bits(8)), (1, 0, 0));
        assert_eq!((reader.bits(2), reader.bits(3)), (0b10, 3), "schema");
        assert_eq!((reader.bits(2), reader.bits(3)), (0b10, 1), "one positive span");
        assert_eq!((reader.bits(2), reader.bits(3)), (0b10, 2), "of two buckets");
        assert_eq!((reader.bits(2), reader.signed(3)), (0b10, -2), "from -2 on");
        assert_eq!(reader.bits(1), 0, "no negative span");
        assert_eq!((reader.bits(3), reader.signed(6)), (0b110, 5), "timestamp");
        for value in [6.0_f64, 1.0, 12.5, 2.0, 3.0] {
            assert_eq!(f64::from_bits(reader.bits(64)), value);
        }
    }
}
