//! A stream of bits, most significant first.

use super::ColumnError;

/// Collects bits.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// The bits not yet in `bytes`, at the upper end.
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits, at most 64.
    pub(super) fn put(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 64 && (count == 64 || value >> count == 0));
        if count == 0 {
            return;
        }
        let free = 64 - self.pending_bits;
        if count < free {
            self.pending |= value << (free - count);
            self.pending_bits += count;
            return;
        }
        self.pending |= value >> (count - free);
        self.bytes.extend_from_slice(&self.pending.to_be_bytes());
        self.pending_bits = count - free;
        self.pending = if self.pending_bits == 0 { 0 } else { value << (64 - self.pending_bits) };
    }

    /// All bits, filled up to whole bytes with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let rest = self.pending_bits.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.pending.to_be_bytes()[..rest]);
        self.bytes
    }
}

/// Gives bits back.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next 64 bits, zeros behind the end.
    fn window(&self) -> u64 {
        let (byte, bit) = (self.at / 8, self.at % 8);
        let window = load(self.bytes, byte) << bit;
        (window >> 64) as u64
    }

    /// Up to 64 bits.
    pub(super) fn take(&mut self, count: u32) -> Result<u64, ColumnError> {
        debug_assert!(count <= 64);
        let end = self.at + count as usize;
        if self.bytes.len() * 8 < end {
            return Err(self.error("chunk ends too early"));
        }
        let value = if count == 0 { 0 } else { self.window() >> (64 - count) };
        self.at = end;
        Ok(value)
    }

    /// The number of one-bits before the next zero-bit or `max`, which ever comes first; both are
    /// consumed.
    pub(super) fn ones(&mut self, max: u32) -> Result<u32, ColumnError> {
        let ones = self.window().leading_ones().min(max);
        self.take(if ones == max { max } else { ones + 1 })?;
        Ok(ones)
    }

    /// Less than a byte is left, and it is zero.
    pub(super) fn end(&mut self) -> Result<(), ColumnError> {
        let left = self.bytes.len() * 8 - self.at;
        if 8 <= left || self.window() != 0 {
            return Err(self.error("bits after the end"));
        }
        Ok(())
    }

    pub(super) fn error(&self, reason: &'static str) -> ColumnError {
        ColumnError { offset_bytes: self.at / 8, reason }
    }
}

/// 16 bytes from `at` on, big-endian, zeros behind the end.
fn load(bytes: &[u8], at: usize) -> u128 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<16>() {
        return u128::from_be_bytes(*word);
    }
    let mut word = [0; 16];
    word[..rest.len()].copy_from_slice(rest);
    u128::from_be_bytes(word)
}
