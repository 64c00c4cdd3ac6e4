//! Speed and size of the column codecs on columns as they are found.
//!
//! `cargo bench --bench codecs [filter] [--rows N] [--dense]` prints for each kind of column (coded
//! as for segments of less than a day, or of more with `--dense`): nanoseconds to encode a row, rows decoded in a second by one core, bytes per row. The best of several rounds
//! counts, as the machine may have other work.
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use narthex::encoding::column::{
    Density, decode_timestamps, decode_values_into, encode_timestamps, encode_values_as,
};

/// Rows of a chunk: two hours of samples every 15 s.
const ROWS: usize = 480;
/// Chunks of each kind: too many for branch predictors to learn by heart.
const CHUNKS: u64 = 64;
/// Short rounds, so that some are undisturbed.
const ROUND: Duration = Duration::from_millis(2);
const ROUNDS: u32 = 100;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut filter, mut rows, mut density) = (String::new(), ROWS, Density::Fast);
    while let Some(arg) = args.next() {
        if arg == "--dense" {
            density = Density::Dense;
        } else if arg == "--rows" {
            rows = args.next().and_then(|rows| rows.parse().ok()).unwrap_or(ROWS);
        } else {
            filter = arg;
        }
    }
    println!("{:32} {:>12} {:>12} {:>10} codecs", "", "encode ns", "decode G/s", "bytes");
    for (name, shape) in SHAPES.iter().filter(|(name, _)| name.contains(&filter)) {
        let chunks: Vec<_> = (0..CHUNKS).map(|seed| shape(&mut Random::new(seed), rows)).collect();
        values(name, density, &chunks);
    }
    for (name, shape) in TIMESTAMPS.iter().filter(|(name, _)| name.contains(&filter)) {
        let chunks: Vec<_> = (0..CHUNKS).map(|seed| shape(&mut Random::new(seed), rows)).collect();
        timestamps(name, &chunks);
    }
}

fn values(name: &str, density: Density, chunks: &[Vec<f64>]) {
    let mut bytes = Vec::new();
    let encode_ns = best_ns(chunks, |chunk| {
        bytes.clear();
        encode_values_as(black_box(chunk), density, &mut bytes);
        black_box(&bytes);
        chunk.len()
    });
    let encoded: Vec<_> =
        chunks.iter().map(|chunk| (encoded_values(chunk, density), chunk.len())).collect();
    let mut found = vec![0.0; chunks.iter().map(Vec::len).max().unwrap_or(0)];
    let decode_ns = best_ns(&encoded, |(bytes, rows)| {
        decode_values_into(black_box(bytes), &mut found[..*rows]).expect("own bytes");
        black_box(&found);
        *rows
    });
    // The first byte of a chunk names its codec.
    let mut tags: Vec<_> = encoded.iter().map(|(bytes, _)| bytes[0]).collect();
    tags.sort_unstable();
    tags.dedup();
    let bytes = encoded.iter().map(|(bytes, _)| bytes.len()).sum();
    print(name, encode_ns, decode_ns, bytes, chunks.iter().map(Vec::len).sum(), &tags);
}

fn encoded_values(chunk: &[f64], density: Density) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_values_as(chunk, density, &mut bytes);
    bytes
}

fn timestamps(name: &str, chunks: &[Vec<i64>]) {
    let mut bytes = Vec::new();
    let encode_ns = best_ns(chunks, |chunk| {
        bytes.clear();
        encode_timestamps(black_box(chunk), &mut bytes);
        black_box(&bytes);
        chunk.len()
    });
    let encoded = |chunk: &Vec<i64>| {
        let mut bytes = Vec::new();
        encode_timestamps(chunk, &mut bytes);
        (bytes, chunk.len())
    };
    let encoded: Vec<_> = chunks.iter().map(encoded).collect();
    let mut found = Vec::new();
    let decode_ns = best_ns(&encoded, |(bytes, rows)| {
        found.clear();
        decode_timestamps(black_box(bytes), *rows, &mut found).expect("own bytes");
        black_box(&found);
        *rows
    });
    let bytes = encoded.iter().map(|(bytes, _)| bytes.len()).sum();
    print(name, encode_ns, decode_ns, bytes, chunks.iter().map(Vec::len).sum(), &[]);
}

fn print(name: &str, encode_ns: f64, decode_ns: f64, bytes: usize, rows: usize, tags: &[u8]) {
    let per_row = bytes as f64 / rows as f64;
    let decode = 1.0 / decode_ns;
    println!("{name:32} {encode_ns:12.2} {decode:12.3} {per_row:10.3} {tags:?}");
}

/// Nanoseconds for a row, in the best round. `work` answers with the rows it did.
fn best_ns<T>(items: &[T], mut work: impl FnMut(&T) -> usize) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (started, mut rows) = (Instant::now(), 0);
        while started.elapsed() < ROUND {
            rows += items.iter().map(&mut work).sum::<usize>();
        }
        best = best.min(started.elapsed().as_nanos() as f64 / rows as f64);
    }
    best
}

/// The same numbers in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> f64 {
        (self.next() % limit) as f64
    }

    /// From 0 to 1, in full precision.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

type Shape<T> = fn(&mut Random, usize) -> Vec<T>;

const SHAPES: &[(&str, Shape<f64>)] = &[
    ("constant", |random, rows| vec![random.below(1 << 40); rows]),
    ("sparse changes", |random, rows| {
        let mut value = 0.0;
        let mut next = || {
            value += if random.below(40) == 0.0 { random.below(9) + 1.0 } else { 0.0 };
            value
        };
        (0..rows).map(|_| next()).collect()
    }),
    ("counter, jitter", |random, rows| {
        sums(random, rows, 1e6, |random| 15_000.0 + random.below(400))
    }),
    ("counter, bursts", |random, rows| {
        sums(random, rows, 0.0, |random| match random.next() % 16 {
            0 => random.below(100_000),
            1..8 => random.below(200),
            _ => 0.0,
        })
    }),
    ("counter, idle", |random, rows| sums(random, rows, 9e3, |random| random.below(12) % 3.0)),
    ("cpu seconds, hundredths", |random, rows| {
        let sums = sums(random, rows, 1e7, |random| 1400.0 + random.below(50));
        sums.into_iter().map(|own| own / 100.0).collect()
    }),
    ("gauge, two decimals", |random, rows| {
        let walk = sums(random, rows, 4321.0, |random| random.below(41) - 20.0);
        walk.into_iter().map(|own| own / 100.0).collect()
    }),
    ("gauge, three decimals, noise", |random, rows| {
        (0..rows).map(|_| (20_000.0 + random.below(3000)) / 1000.0).collect()
    }),
    ("duration, nine decimals", |random, rows| {
        (0..rows).map(|_| (20_000.0 + random.below(900_000)) / 1e9).collect()
    }),
    ("memory, pages", |random, rows| {
        sums(random, rows, 5e9, |random| 4096.0 * (random.below(256) - 128.0))
    }),
    ("nanoseconds", |random, rows| sums(random, rows, 4e15, |random| 15e9 + random.below(1 << 20))),
    ("sum of latencies", |random, rows| sums(random, rows, 50.0, |random| random.unit() * 3.0)),
    ("random walk", |random, rows| {
        let mut at = 50.0_f64;
        let mut next = || {
            at = (at + random.unit() * 2.0 - 1.0).clamp(0.0, 100.0);
            at
        };
        (0..rows).map(|_| next()).collect()
    }),
    ("ratio of integers", |random, rows| {
        (0..rows).map(|_| (900.0 + random.below(100)) / (1000.0 + random.below(99))).collect()
    }),
    ("random doubles", |random, rows| (0..rows).map(|_| random.unit()).collect()),
];

const TIMESTAMPS: &[(&str, Shape<i64>)] = &[
    ("timestamps, regular", |random, rows| {
        let start = 1_700_000_000_000 + random.below(15_000) as i64;
        (0..rows as i64).map(|row| start + row * 15_000).collect()
    }),
    ("timestamps, jitter of 2 ms", |random, rows| jittered(random, rows, 3)),
    ("timestamps, jitter of 50 ms", |random, rows| jittered(random, rows, 51)),
];

fn sums(
    random: &mut Random,
    rows: usize,
    first: f64,
    step: impl Fn(&mut Random) -> f64,
) -> Vec<f64> {
    let mut sum = first + random.below(1000);
    let mut next = || {
        sum += step(random);
        sum
    };
    (0..rows).map(|_| next()).collect()
}

fn jittered(random: &mut Random, rows: usize, limit: u64) -> Vec<i64> {
    let row = |row: i64| 1_700_000_000_000 + row * 15_000 + random.below(limit) as i64;
    (0..rows as i64).map(row).collect()
}
