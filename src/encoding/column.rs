//! Column chunks: runs of timestamps or values as compact, self-describing bytes.
//!
//! The first byte of a chunk is a tag that names the codec; the number of rows is kept by whoever
//! keeps the chunk. Every codec gives back the very bits it got. Decoders take any bytes: they
//! answer with an error or with some values, never with a panic, and the memory they take follows
//! from the number of rows. Drawn in `docs/formats/columns.md`.

pub mod histogram;
pub mod varint;

mod bits;
mod decimal;
mod dense;
mod integers;
mod kernels;
mod sparse;
mod starts;
mod timestamps;
mod xor;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use starts::{decode_starts, encode_starts};
pub use timestamps::{decode_timestamps, encode_timestamps};

use decimal::Form;
use kernels::Kernels;

/// Rows of one chunk: a year of one-minute samples, and 4 MiB decoded.
pub const CHUNK_ROWS_MAX: usize = 512 << 10;

const _: () = assert!(CHUNK_ROWS_MAX <= u32::MAX as usize); // positions are counted in four bytes

/// What is wrong with the bytes of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset_bytes} of the chunk: {reason}")]
pub struct ColumnError {
    /// Where, from the beginning of the chunk.
    pub offset_bytes: usize,
    /// What.
    pub reason: &'static str,
}

const TAG_RAW: u8 = 0;
const TAG_CONSTANT: u8 = 1;
const TAG_SPARSE: u8 = 2;
const TAG_XOR: u8 = 3;
const TAG_DECIMAL: u8 = 4;
const TAG_DENSE: u8 = 5;

/// What a chunk is encoded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Density {
    /// Fast to write and to read.
    Fast,
    /// For long-term storage: some 10 % smaller where there are many rows, but slower to read.
    Dense,
}

/// Dense and XOR chunks, which take several times longer to read, are worth their time if they are
/// smaller by one part in this many.
const SLOW_GAIN: usize = 20;
/// Dense chunks save at least a byte in so many rows: what is tiny anyway stays fast.
const ROWS_PER_BYTE: usize = 32;

/// Appends the smallest encoding of the values that we know.
pub fn encode_values(values: &[f64], out: &mut Vec<u8>) {
    encode_values_as(values, Density::Fast, out);
}

/// Appends the smallest encoding of the values for a purpose.
pub fn encode_values_as(values: &[f64], density: Density, out: &mut Vec<u8>) {
    assert!(values.len() <= CHUNK_ROWS_MAX, "a chunk has a limited number of rows");
    if let Some(bits) = constant(values) {
        out.push(TAG_CONSTANT);
        put_trimmed(bits, out);
        return;
    }
    // Until something smaller is found: the raw chunk.
    let mut best: Option<(u8, Vec<u8>)> = None;
    let mut best_len = values.len() * 8;
    let mut offer = |tag, bytes: Option<Vec<u8>>| {
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() < best_len) {
            best_len = bytes.len();
            best = Some((tag, bytes));
        }
        best_len
    };
    let mut len = offer(TAG_SPARSE, sparse::encode(values));
    let mut offer_integers = |integers: decimal::Encoder| {
        let mut len = offer(TAG_DECIMAL, Some(integers.packed()));
        if density == Density::Dense {
            let gain = (len / SLOW_GAIN).max(values.len() / ROWS_PER_BYTE);
            let dense = integers.dense(len.saturating_sub(gain));
            len = offer(TAG_DENSE, dense.filter(|bytes| gives_back(bytes, values)));
        }
        len
    };
    if let Some(decimals) = decimal::Encoder::new(values) {
        len = offer_integers(decimals);
    }
    // What packs well as decimals is never beaten by what takes doubles by their bits.
    if values.len() * 2 < len {
        if let Some(bits) = decimal::Encoder::of_bits(values) {
            len = len.min(offer_integers(bits));
        }
        let by_xor = xor::encode(values);
        if by_xor.len() <= len - len / SLOW_GAIN {
            offer(TAG_XOR, Some(by_xor));
        }
    }
    match best {
        Some((tag, bytes)) => {
            out.push(tag);
            out.extend_from_slice(&bytes);
        }
        None => {
            out.push(TAG_RAW);
            out.extend(values.iter().flat_map(|value| value.to_bits().to_le_bytes()));
        }
    }
}

/// Whether a dense chunk has the very bits of the values. It is asked before others are given up:
/// no other codec depends on how values are distributed.
fn gives_back(dense: &[u8], values: &[f64]) -> bool {
    let mut found = vec![0.0; values.len()];
    decimal::decode(dense, Form::Dense, Kernels::detect(), &mut found).is_ok()
        && found.iter().zip(values).all(|(found, own)| found.to_bits() == own.to_bits())
}

/// Appends the `count` values of a chunk.
pub fn decode_values(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), ColumnError> {
    if count > CHUNK_ROWS_MAX {
        return Err(ColumnError { offset_bytes: 0, reason: "more rows than a chunk may have" });
    }
    let start = out.len();
    out.resize(start + count, 0.0);
    let decoded = decode_values_into(bytes, &mut out[start..]);
    if decoded.is_err() {
        out.truncate(start);
    }
    decoded
}

/// Fills the slice with the values of a chunk of as many rows. After an error it holds anything.
pub fn decode_values_into(bytes: &[u8], out: &mut [f64]) -> Result<(), ColumnError> {
    if out.len() > CHUNK_ROWS_MAX {
        return Err(ColumnError { offset_bytes: 0, reason: "more rows than a chunk may have" });
    }
    let Some((tag, payload)) = bytes.split_first() else {
        return Err(ColumnError { offset_bytes: 0, reason: "empty chunk" });
    };
    let decoded = match *tag {
        TAG_RAW => decode_raw(payload, out),
        TAG_CONSTANT => take_trimmed(payload).map(|bits| out.fill(f64::from_bits(bits))),
        TAG_SPARSE => sparse::decode(payload, out),
        TAG_XOR => xor::decode(payload, out),
        TAG_DECIMAL => decimal::decode(payload, Form::Packed, Kernels::detect(), out),
        TAG_DENSE => decimal::decode(payload, Form::Dense, Kernels::detect(), out),
        _ => return Err(ColumnError { offset_bytes: 0, reason: "unknown codec of values" }),
    };
    decoded.map_err(|err| ColumnError { offset_bytes: err.offset_bytes + 1, ..err })
}

fn decode_raw(payload: &[u8], out: &mut [f64]) -> Result<(), ColumnError> {
    if payload.len() != out.len() * 8 {
        return Err(ColumnError { offset_bytes: 0, reason: "raw values of another length" });
    }
    let (words, _) = payload.as_chunks::<8>();
    for (slot, word) in out.iter_mut().zip(words) {
        *slot = f64::from_bits(u64::from_le_bytes(*word));
    }
    Ok(())
}

/// The bits that all values share.
fn constant(values: &[f64]) -> Option<u64> {
    let first = values.first().map_or(0, |value| value.to_bits());
    values.iter().all(|value| value.to_bits() == first).then_some(first)
}

/// Most significant byte first, zero bytes at the end left out: 1 takes two bytes, 0 none.
fn put_trimmed(bits: u64, out: &mut Vec<u8>) {
    let len = 8 - bits.trailing_zeros() as usize / 8;
    out.extend_from_slice(&bits.to_be_bytes()[..len]);
}

fn take_trimmed(bytes: &[u8]) -> Result<u64, ColumnError> {
    let mut word = [0; 8];
    let Some(head) = word.get_mut(..bytes.len()) else {
        return Err(ColumnError { offset_bytes: 8, reason: "bytes after a constant" });
    };
    head.copy_from_slice(bytes);
    Ok(u64::from_be_bytes(word))
}

/// Bytes from outside, read from front to back.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn error(&self, reason: &'static str) -> ColumnError {
        ColumnError { offset_bytes: self.at, reason }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ColumnError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..len) else {
            return Err(self.error("chunk ends too early"));
        };
        self.at += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ColumnError> {
        Ok(self.take(1)?[0])
    }

    fn unsigned(&mut self) -> Result<u64, ColumnError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((value, len)) = varint::take(rest) else {
            return Err(self.error("bad variable-length integer"));
        };
        self.at += len;
        Ok(value)
    }

    fn signed(&mut self) -> Result<i64, ColumnError> {
        self.unsigned().map(varint::unzigzag)
    }

    fn end(&self) -> Result<(), ColumnError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.error("bytes after the end")) }
    }
}

/// Decodes any bytes as values and as timestamps: the entry for fuzzing.
#[cfg(test)]
pub fn fuzz(bytes: &[u8]) {
    let Some((count, chunk)) = bytes.split_at_checked(2) else { return };
    let count = usize::from(u16::from_le_bytes([count[0], count[1]]) % 2048);
    let mut values = Vec::new();
    if decode_values(chunk, count, &mut values).is_ok() {
        assert_eq!(values.len(), count);
    }
    let mut timestamps_ms = Vec::new();
    if decode_timestamps(chunk, count, &mut timestamps_ms).is_ok() {
        assert_eq!(timestamps_ms.len(), count);
    }
}
