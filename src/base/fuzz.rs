//! Bytes from outside that nobody expects: seeds, and random changes of them.
//!
//! Whatever reads such bytes has a target: a closure that must not panic, and says whether it took
//! the bytes. What is taken is changed further. `FUZZ_FACTOR=1000` runs so many times longer with
//! another seed for the changes (`FUZZ_SEED`); `FUZZ_INPUT=file` runs one input alone. An input
//! that causes a panic is kept under `target/fuzz`, and after the mending belongs to the seeds in
//! `fuzz/corpus`.
#![expect(clippy::disallowed_methods, reason = "reads the seeds beside the sources")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::rng::{Rng, SimRng};

/// Inputs that are changed further.
const POOL_MAX: usize = 256;
/// Longer inputs teach nothing.
const INPUT_BYTES_MAX: usize = 32 << 10;
/// Bytes that mean something in one format or another.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\"'`{}[]()\\\n\r\t =,:;.#@_-+*09aeExN";
const EXTREMES: [u64; 8] =
    [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The inputs in `fuzz/corpus/<target>`, in order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs `check` over `seeds`, all of which it must take, over the corpus, and over `runs` changes
/// of both.
pub fn run(target: &str, runs: u64, seeds: Vec<Vec<u8>>, check: impl Fn(&[u8]) -> bool) {
    let guarded = |input: &[u8]| {
        catch_unwind(AssertUnwindSafe(|| check(input))).unwrap_or_else(|_| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz").join(target);
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join(format!("{:08x}", crc32c::crc32c(input)));
            fs::write(&path, input).unwrap();
            panic!("{target}: a panic, see above; run again with FUZZ_INPUT={}", path.display());
        })
    };
    if let Ok(path) = std::env::var("FUZZ_INPUT") {
        println!("taken: {}", check(&fs::read(path).unwrap()));
        return;
    }
    for seed in &seeds {
        assert!(guarded(seed), "{target} does not take its own seed {}", seed.escape_ascii());
    }
    let mut pool = seeds;
    pool.extend(corpus(target));
    assert!(!pool.is_empty(), "{target} has seeds");
    for input in &pool {
        guarded(input);
    }
    let rng = SimRng::new(number("FUZZ_SEED").unwrap_or(1));
    let kept = pool.len();
    for _ in 0..runs.saturating_mul(number("FUZZ_FACTOR").unwrap_or(1)) {
        // Half of them from the seeds.
        let among = if rng.next_u64().is_multiple_of(2) { &pool[..kept] } else { &pool };
        let input = mutated(among, &rng);
        if guarded(&input) {
            if pool.len() < POOL_MAX {
                pool.push(input);
            } else {
                let at = kept + rng.next_u64() as usize % (POOL_MAX - kept).max(1);
                if let Some(old) = pool.get_mut(at) {
                    *old = input;
                }
            }
        }
    }
}

/// One of the pool with a few changes.
fn mutated(pool: &[Vec<u8>], rng: &SimRng) -> Vec<u8> {
    let mut input = pool[rng.next_u64() as usize % pool.len()].clone();
    for _ in 0..=rng.next_u64() % 4 {
        change(&mut input, pool, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &SimRng) {
    let below = |bound: usize| rng.next_u64() as usize % bound.max(1);
    let at = below(input.len() + 1);
    let count = below(input.len() - at + 1).min(below(64));
    match below(11) {
        0 if at < input.len() => input[at] ^= 1 << below(8),
        1 if at < input.len() => input[at] = rng.next_u64() as u8,
        2 if at < input.len() => input[at] = TELLING[below(TELLING.len())],
        3 => input.insert(at, TELLING[below(TELLING.len())]),
        4 => drop(input.drain(at..at + count)),
        5 => {
            let copy = input[at..at + count].to_vec();
            let to = below(input.len() + 1);
            input.splice(to..to, copy);
        }
        6 if below(8) == 0 => input.truncate(at),
        7 => {
            let bytes = EXTREMES[below(EXTREMES.len())].to_le_bytes();
            let width = [2, 4, 8][below(3)];
            for (place, byte) in input.iter_mut().skip(at).zip(&bytes[..width]) {
                *place = *byte;
            }
        }
        8 => {
            let own: Vec<u8> =
                std::iter::repeat_n(0xff, below(10)).chain([below(128) as u8]).collect();
            let end = (at + own.len() * below(2)).min(input.len());
            input.splice(at..end, own);
        }
        9 => {
            let other = &pool[below(pool.len())];
            let from = below(other.len() + 1);
            let to = from + below(other.len() - from + 1);
            input.splice(at..at + count, other[from..to].iter().copied());
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add([1, 0xff][below(2)]);
            }
        }
    }
}

/// A target that panics rarely is caught, and what it panicked at is kept.
#[test]
fn a_panic_is_found_and_its_input_kept() {
    let check = |input: &[u8]| {
        assert!(!input.ends_with(b"!") || !input.starts_with(b"?"), "found");
        input.len() < 8
    };
    let found = catch_unwind(|| run("self", 20_000, vec![b"?a!b".to_vec()], check)).unwrap_err();
    let text = found.downcast_ref::<String>().unwrap();
    let (_, path) = text.split_once("FUZZ_INPUT=").unwrap();
    assert!(catch_unwind(|| check(&fs::read(path).unwrap())).is_err());
    fs::remove_file(path).unwrap();
}
