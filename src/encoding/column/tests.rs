//! Round trips by bits, hostile bytes, and sizes on data as it is found.

use proptest::prelude::*;

use super::integers::Unpacker;
use super::kernels::{from_order, to_order};
use super::*;
use crate::base::rng::{Rng as _, SimRng};
use crate::model::sample::STALE_NAN_BITS;

fn encoded(values: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_values(values, &mut bytes);
    bytes
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check_values(values: &[f64]) {
    for density in [Density::Fast, Density::Dense] {
        let mut bytes = Vec::new();
        encode_values_as(values, density, &mut bytes);
        assert!(bytes.len() <= values.len() * 8 + 1, "raw is the upper limit");
        let mut found = Vec::new();
        decode_values(&bytes, values.len(), &mut found).unwrap();
        assert_eq!(bits(&found), bits(values), "codec {}", bytes[0]);
    }
}

fn check_decoded(values: &[f64], decode: impl FnOnce(&mut [f64]) -> Result<(), ColumnError>) {
    let mut found = vec![7.0; values.len()];
    decode(&mut found).unwrap();
    assert_eq!(bits(&found), bits(values));
}

fn check_each_codec(values: &[f64]) {
    if let Some(bytes) = sparse::encode(values) {
        check_decoded(values, |out| sparse::decode(&bytes, out));
    }
    check_decoded(values, |out| xor::decode(&xor::encode(values), out));
    let encoders = [decimal::Encoder::new(values), decimal::Encoder::of_bits(values)];
    for encoder in encoders.iter().flatten() {
        for kernels in [Kernels::detect(), Kernels::plain()] {
            let bytes = encoder.packed();
            check_decoded(values, |out| decimal::decode(&bytes, Form::Packed, kernels, out));
            if let Some(bytes) = encoder.dense(usize::MAX) {
                check_decoded(values, |out| decimal::decode(&bytes, Form::Dense, kernels, out));
            }
        }
    }
}

/// Values as they occur, with odd ones in between.
fn value() -> impl Strategy<Value = f64> {
    const SPECIAL: [u64; 6] =
        [0, 1 << 63, STALE_NAN_BITS, 0x7ff8_0000_0000_0001, f64::INFINITY.to_bits(), 1];
    prop_oneof![
        4 => (-1_000_000..1_000_000_i64).prop_map(|n| n as f64),
        4 => (-100_000..100_000_i64).prop_map(|n| n as f64 / 1000.0),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => any::<i64>().prop_map(|n| n as f64),
        1 => proptest::sample::select(&SPECIAL[..]).prop_map(f64::from_bits),
    ]
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    let runs = prop::collection::vec((value(), 1..40_usize), 1..20);
    let runs = runs.prop_map(|runs| {
        runs.into_iter().flat_map(|(value, len)| std::iter::repeat_n(value, len)).collect()
    });
    let counter =
        (value(), prop::collection::vec(0..1000_u32, 1..400)).prop_map(|(first, steps)| {
            let mut sum = first;
            let add = |step| {
                sum += f64::from(step);
                sum
            };
            steps.into_iter().map(add).collect()
        });
    prop_oneof![prop::collection::vec(value(), 1..400), runs, counter]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn values_come_back_bit_for_bit(values in values()) {
        check_values(&values);
        check_each_codec(&values);
    }

    #[test]
    fn any_bits_come_back(bits in prop::collection::vec(any::<u64>(), 1..300)) {
        let values: Vec<_> = bits.into_iter().map(f64::from_bits).collect();
        check_values(&values);
        check_each_codec(&values);
    }

    #[test]
    fn any_timestamps_come_back(
        first: i64,
        steps in prop::collection::vec(prop_oneof![9 => 14_990..15_010_i64, 1 => any::<i64>()], 0..300),
    ) {
        check_timestamps(first, &steps);
    }

    #[test]
    fn any_integers_come_back(found in prop::collection::vec(any::<i64>(), 0..300), shift in 0..64) {
        let found: Vec<_> = found.into_iter().map(|integer| integer >> shift).collect();
        let mut bytes = Vec::new();
        integers::pack(&found, &mut bytes);
        let (mut input, mut back) = (Cursor::new(&bytes), vec![7; found.len()]);
        Unpacker::new(Kernels::detect()).integers(&mut input, &mut back).unwrap();
        input.end().unwrap();
        prop_assert_eq!(back, found);
    }

    #[test]
    fn integers_chosen_against_the_codecs_come_back(
        lengths in prop::collection::vec((0..=64_u32, any::<u64>()), 0..2000),
        rows_min in 64..200_usize,
        base: i64,
        is_middle: bool,
        every: bool,
    ) {
        let all = (0..=64).cycle().take(if every { rows_min.max(65) } else { rows_min });
        let lengths = lengths.into_iter().chain(all.map(|length| (length, u64::from(length) << 7)));
        let integers: Vec<_> = lengths
            .enumerate()
            .map(|(row, (length, bits))| of_length(base, is_middle, row, length, bits))
            .collect();
        check_integers(&integers);
        let order = to_order(f64::MIN)..=to_order(f64::MAX);
        let values = integers.iter().filter(|own| order.contains(own));
        let values: Vec<_> = values.map(|own| from_order(*own)).collect();
        if !values.is_empty() {
            check_values(&values);
            check_each_codec(&values);
        }
    }

    #[test]
    fn hostile_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0..8_u8) {
        let mut bytes = bytes;
        if let Some(own) = bytes.get_mut(2) {
            *own = tag;
        }
        fuzz(&bytes);
    }
}

/// An integer whose distance from a base has this length in bits: above the smallest integer, or on
/// both sides of the base.
fn of_length(base: i64, is_middle: bool, row: usize, length: u32, bits: u64) -> i64 {
    let highest = 1_u64.unbounded_shl(length) >> 1;
    let highest = if length == 64 { 1 << 63 } else { highest };
    let distance = highest | bits & highest.saturating_sub(1);
    if is_middle {
        // Most rows are near the base, so that it is in the middle.
        let near = if row.is_multiple_of(3) { distance } else { distance & 1 };
        base.wrapping_add(varint::unzigzag(near))
    } else {
        i64::MIN.wrapping_add(distance as i64)
    }
}

/// Packed and dense, whatever the codec of values would choose.
fn check_integers(integers: &[i64]) {
    for kernels in [Kernels::detect(), Kernels::plain()] {
        let (mut packed, mut found) = (Vec::new(), vec![7; integers.len()]);
        integers::pack(integers, &mut packed);
        Unpacker::new(kernels).integers(&mut Cursor::new(&packed), &mut found).unwrap();
        assert_eq!(found, integers);
        let mut dense = Vec::new();
        assert!(dense::Plan::of(integers).write(integers, &mut dense));
        let mut reader = dense::Reader::new(&mut Cursor::new(&dense), kernels).unwrap();
        for expected in integers.chunks(integers::BLOCK) {
            let mut block = [0; integers::BLOCK];
            reader.block(expected.len(), &mut block).unwrap();
            assert_eq!(&block[..expected.len()], expected);
        }
    }
}

#[test]
fn every_length_at_once_comes_back() {
    for rows in [65, 100, 130, 260, 455, 511, 512, 600, 2000] {
        for is_middle in [false, true] {
            let lengths = (0..=64).cycle().take(rows).enumerate();
            let integers: Vec<_> =
                lengths.map(|(row, own)| of_length(-3, is_middle, row, own, 0)).collect();
            check_integers(&integers);
        }
    }
}

#[test]
fn a_dense_chunk_that_gives_back_other_values_is_not_taken() {
    let values: Vec<f64> = (0..500).map(|row| f64::from(row * row % 977)).collect();
    let bytes = decimal::Encoder::new(&values).unwrap().dense(usize::MAX).unwrap();
    assert!(gives_back(&bytes, &values));
    for at in 0..values.len() {
        let mut others = values.clone();
        others[at] += 1.0;
        assert!(!gives_back(&bytes, &others), "row {at}");
    }
    assert!(!gives_back(&bytes[..bytes.len() / 2], &values));
}

fn check_timestamps(first: i64, steps: &[i64]) {
    let mut timestamps_ms = vec![first];
    let mut last = first;
    for step in steps {
        last = last.wrapping_add(*step);
        timestamps_ms.push(last);
    }
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    encode_timestamps(&timestamps_ms, &mut bytes);
    decode_timestamps(&bytes, timestamps_ms.len(), &mut found).unwrap();
    assert_eq!(found, timestamps_ms);
}

#[test]
fn empty_columns_are_columns_too() {
    check_values(&[]);
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    encode_timestamps(&[], &mut bytes);
    decode_timestamps(&bytes, 0, &mut found).unwrap();
    assert!(found.is_empty());
}

/// Gauges and counters as a node exporter has them.
fn realistic(seed: u64, rows: usize) -> Vec<(&'static str, Vec<f64>)> {
    let rng = SimRng::new(seed);
    let below = |limit: u64| (rng.next_u64() % limit) as f64;
    let mut sums = [1e6_f64, 1e4, 0.0, 5e9, 50.0];
    let mut sum = |which: usize, step: f64| {
        sums[which] += step;
        sums[which]
    };
    let column =
        |mut next: Box<dyn FnMut(usize) -> f64 + '_>| (0..rows).map(&mut *next).collect::<Vec<_>>();
    vec![
        ("constant", column(Box::new(|_| 4096.0))),
        (
            "flag that flips twice",
            column(Box::new(|row| f64::from(u8::from(60 < row && row < 150)))),
        ),
        ("counter, noisy", column(Box::new(|_| sum(0, 1000.0 + below(200))))),
        (
            "cpu seconds, hundredths",
            column(Box::new(|_| (sum(1, 14.0 + below(3) / 100.0) * 100.0).round() / 100.0)),
        ),
        (
            "idle counter",
            column(Box::new(|row| if row % 37 == 0 { sum(2, 1.0) } else { sum(2, 0.0) })),
        ),
        ("memory, pages", column(Box::new(|_| sum(3, 4096.0 * (below(64) - 32.0))))),
        ("gauge, three decimals", column(Box::new(|_| (20_000.0 + below(3000)).round() / 1000.0))),
        ("latency sum, full precision", column(Box::new(|_| sum(4, below(1 << 40) / 1e12)))),
        (
            "stale at the end",
            column(Box::new(move |row| {
                if row + 1 < rows { below(50) } else { f64::from_bits(STALE_NAN_BITS) }
            })),
        ),
    ]
}

#[test]
fn realistic_columns_are_small() {
    let sizes = realistic(7, 240).into_iter().map(|(name, values)| {
        check_values(&values);
        let bytes = encoded(&values);
        let xor = xor::encode(&values).len();
        let per_row = |len: usize| len as f64 / values.len() as f64;
        format!(
            "{name}: codec {}, {:.2} B/value (xor {:.2})",
            bytes[0],
            per_row(bytes.len()),
            per_row(xor)
        )
    });
    insta::assert_snapshot!(sizes.collect::<Vec<_>>().join("\n"), @r"
    constant: codec 1, 0.01 B/value (xor 0.16)
    flag that flips twice: codec 2, 0.04 B/value (xor 0.17)
    counter, noisy: codec 4, 1.07 B/value (xor 2.50)
    cpu seconds, hundredths: codec 4, 0.33 B/value (xor 5.07)
    idle counter: codec 2, 0.10 B/value (xor 0.20)
    memory, pages: codec 4, 0.82 B/value (xor 1.63)
    gauge, three decimals: codec 4, 1.58 B/value (xor 6.50)
    latency sum, full precision: codec 4, 5.99 B/value (xor 6.74)
    stale at the end: codec 4, 0.85 B/value (xor 1.54)
    ");
}

#[test]
fn dense_columns_are_smaller() {
    let sizes = realistic(7, 2880).into_iter().map(|(name, values)| {
        check_values(&values);
        let mut bytes = Vec::new();
        encode_values_as(&values, Density::Dense, &mut bytes);
        let per_row = |len: usize| len as f64 / values.len() as f64;
        let (own, fast) = (per_row(bytes.len()), per_row(encoded(&values).len()));
        format!("{name}: codec {}, {own:.3} B/value (fast {fast:.3})", bytes[0])
    });
    insta::assert_snapshot!(sizes.collect::<Vec<_>>().join("\n"), @r"
    constant: codec 1, 0.001 B/value (fast 0.001)
    flag that flips twice: codec 2, 0.003 B/value (fast 0.003)
    counter, noisy: codec 4, 1.049 B/value (fast 1.049)
    cpu seconds, hundredths: codec 5, 0.248 B/value (fast 0.299)
    idle counter: codec 5, 0.028 B/value (fast 0.089)
    memory, pages: codec 4, 0.785 B/value (fast 0.785)
    gauge, three decimals: codec 4, 1.549 B/value (fast 1.549)
    latency sum, full precision: codec 4, 5.615 B/value (fast 5.615)
    stale at the end: codec 4, 0.786 B/value (fast 0.786)
    ");
}

#[test]
fn damaged_columns_do_no_harm() {
    let rng = SimRng::new(1);
    for (_, values) in realistic(3, 240) {
        let mut timestamps = Vec::new();
        let moments: Vec<_> = (0..240).map(|row| row * 15_000 + (row * row) % 7).collect();
        encode_timestamps(&moments, &mut timestamps);
        let mut dense = Vec::new();
        encode_values_as(&values, Density::Dense, &mut dense);
        let xor = [&[TAG_XOR][..], &xor::encode(&values)].concat();
        let codecs = [encoded(&values), dense, xor, timestamps];
        for chunk in codecs {
            for _ in 0..400 {
                let mut bytes = [&240_u16.to_le_bytes()[..], &chunk].concat();
                for _ in 0..=rng.next_u64() % 3 {
                    let at = 2 + rng.next_u64() as usize % (bytes.len() - 2);
                    bytes[at] = rng.next_u64() as u8;
                }
                if rng.next_u64().is_multiple_of(4) {
                    bytes.truncate(rng.next_u64() as usize % bytes.len());
                }
                fuzz(&bytes);
            }
        }
    }
}

#[test]
fn errors_say_where_and_what() {
    let check = |bytes: &[u8], count| decode_values(bytes, count, &mut Vec::new()).unwrap_err();
    let cases: [(&[u8], usize); 7] = [
        (&[], 1),
        (&[99], 1),
        (&[TAG_RAW, 1, 2], 1),
        (&[TAG_CONSTANT; 10], 1),
        (&[TAG_XOR, 0, 0], 3),
        (&[TAG_DECIMAL, 0, 0, 1, 0, 0, 65], 3),
        (&[TAG_RAW], usize::MAX),
    ];
    let errors = cases.map(|(bytes, count)| check(bytes, count).to_string()).join("\n");
    insta::assert_snapshot!(errors, @r"
    byte 0 of the chunk: empty chunk
    byte 0 of the chunk: unknown codec of values
    byte 1 of the chunk: raw values of another length
    byte 9 of the chunk: bytes after a constant
    byte 1 of the chunk: chunk ends too early
    byte 7 of the chunk: integers wider than 64 bits
    byte 0 of the chunk: more rows than a chunk may have
    ");
}
