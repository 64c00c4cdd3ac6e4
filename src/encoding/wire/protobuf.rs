//! Protobuf's wire format: a cursor over the fields of a message, and fields appended to a buffer.
//!
//! Messages are few and small here, so each is spelled out by its module with the numbers of its
//! specification; unknown fields are skipped.

/// Why bytes are not the message that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("unexpected end of message")]
    Truncated,
    /// A number has more than ten bytes.
    #[error("varint overflows 64 bits")]
    VarintOverflow,
    /// A field has a type that its number does not allow.
    #[error("wrong wire type {wire_type} for field {field}")]
    WireType {
        /// Field number.
        field: u64,
        /// Wire type found.
        wire_type: u8,
    },
    /// A text is not UTF-8.
    #[error("string field contains invalid UTF-8")]
    InvalidUtf8,
}

/// A value of unknown meaning.
#[derive(Clone, Copy, Debug)]
pub(super) enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> WireValue<'a> {
    fn wire_type(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        }
    }

    /// A nested message, or bytes.
    pub(super) fn bytes(self, field: u64) -> Result<&'a [u8], WireError> {
        let Self::Bytes(bytes) = self else { return Err(self.wrong(field)) };
        Ok(bytes)
    }

    /// A nested message.
    pub(super) fn message(self, field: u64) -> Result<Message<'a>, WireError> {
        Ok(Message::new(self.bytes(field)?))
    }

    pub(super) fn text(self, field: u64) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| WireError::InvalidUtf8)
    }

    pub(super) fn varint(self, field: u64) -> Result<u64, WireError> {
        let Self::Varint(number) = self else { return Err(self.wrong(field)) };
        Ok(number)
    }

    /// `sint32`, `sint64`
    pub(super) fn zigzag(self, field: u64) -> Result<i64, WireError> {
        Ok(zigzag(self.varint(field)?))
    }

    pub(super) fn fixed64(self, field: u64) -> Result<u64, WireError> {
        let Self::Fixed64(number) = self else { return Err(self.wrong(field)) };
        Ok(number)
    }

    pub(super) fn double(self, field: u64) -> Result<f64, WireError> {
        self.fixed64(field).map(f64::from_bits)
    }

    fn wrong(self, field: u64) -> WireError {
        WireError::WireType { field, wire_type: self.wire_type() }
    }
}

/// Appends a repeated `fixed64` or `double` field, whether it is packed or not.
pub(super) fn read_fixed64s(
    value: WireValue<'_>,
    field: u64,
    out: &mut Vec<u64>,
) -> Result<(), WireError> {
    let WireValue::Bytes(bytes) = value else {
        out.push(value.fixed64(field)?);
        return Ok(());
    };
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError::Truncated);
    }
    out.extend(numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)));
    Ok(())
}

/// Appends a repeated `uint64`, `sint64` (still zigzag) or enum field, packed or not.
pub(super) fn read_varints(
    value: WireValue<'_>,
    field: u64,
    out: &mut Vec<u64>,
) -> Result<(), WireError> {
    let WireValue::Bytes(bytes) = value else {
        out.push(value.varint(field)?);
        return Ok(());
    };
    let mut message = Message::new(bytes);
    while !message.rest.is_empty() {
        out.push(message.varint()?);
    }
    Ok(())
}

/// Undoes the encoding of signed numbers.
pub(super) fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// What is left of a message.
#[derive(Clone, Debug)]
pub(super) struct Message<'a> {
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and value; `None` at the end.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<(u64, WireValue<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (field, wire_type) = (key >> 3, (key & 7) as u8);
        let value = match wire_type {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => WireValue::Bytes(self.sized()?),
            5 => {
                self.array::<4>()?;
                WireValue::Fixed32
            }
            _ => return Err(WireError::WireType { field, wire_type }),
        };
        Ok(Some((field, value)))
    }

    /// Bytes with their length before them.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        self.take(len)
    }

    /// The next bytes, if they are the field with this one-byte key, whose length takes one byte.
    #[inline]
    pub(super) fn short_bytes(&mut self, key: u8) -> Option<&'a [u8]> {
        let [own, len, rest @ ..] = self.rest else { return None };
        if *own != key || *len >= 0x80 {
            return None;
        }
        let (taken, rest) = rest.split_at_checked(usize::from(*len))?;
        self.rest = rest;
        Some(taken)
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        if let [byte, rest @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0_u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if index == 9 && *byte > 1 {
                    return Err(WireError::VarintOverflow);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(number);
            }
        }
        let overflows = self.rest.len() >= 10;
        Err(if overflows { WireError::VarintOverflow } else { WireError::Truncated })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// A number in groups of seven bits, the lowest first.
pub(super) fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn push_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    push_varint(out, (field << 3) | wire_type);
}

/// A number; zero is what is left out.
pub(super) fn put_uint(out: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        push_key(out, field, 0);
        push_varint(out, number);
    }
}

/// `int64`
pub(super) fn put_int(out: &mut Vec<u8>, field: u64, number: i64) {
    put_uint(out, field, number as u64);
}

/// `sint32`, `sint64`
pub(super) fn put_zigzag(out: &mut Vec<u8>, field: u64, number: i64) {
    put_uint(out, field, ((number << 1) ^ (number >> 63)) as u64);
}

/// A float that stands even when it is zero.
pub(super) fn put_double_always(out: &mut Vec<u8>, field: u64, value: f64) {
    push_key(out, field, 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// A float; positive zero is what is left out.
pub(super) fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    if value.to_bits() != 0 {
        put_double_always(out, field, value);
    }
}

/// Packed floats; none is what is left out.
pub(super) fn put_doubles(out: &mut Vec<u8>, field: u64, values: &[f64]) {
    if !values.is_empty() {
        push_key(out, field, 2);
        push_varint(out, 8 * values.len() as u64);
        out.extend(values.iter().flat_map(|value| value.to_bits().to_le_bytes()));
    }
}

/// Bytes or a text; none is what is left out.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        push_key(out, field, 2);
        push_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// A nested message, also an empty one.
pub(super) fn put_message(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    push_key(out, field, 2);
    let start = out.len();
    write(out);
    let mut length = Vec::with_capacity(10);
    push_varint(&mut length, (out.len() - start) as u64);
    out.splice(start..start, length);
}

/// Writes messages, for tests of what reads them.
#[cfg(test)]
pub mod testing {
    /// A number without a field.
    pub fn varint(mut number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
        out
    }

    /// A number as a field.
    pub fn number(field: u64, number: u64) -> Vec<u8> {
        [varint(field << 3), varint(number)].concat()
    }

    /// A signed number as a field.
    pub fn signed(field: u64, value: i64) -> Vec<u8> {
        number(field, (value << 1 ^ value >> 63) as u64)
    }

    /// A double as a field.
    pub fn double(field: u64, value: f64) -> Vec<u8> {
        [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
    }

    /// A text or a message as a field.
    pub fn bytes(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
    }
}
