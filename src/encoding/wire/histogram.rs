//! Native histograms as protobuf messages: that of remote write (both versions) and that of the
//! exposition format. They differ in the numbers of their fields only.

use super::protobuf::{Message, WireError, WireValue, read_fixed64s, read_varints, zigzag};
use crate::encoding::column::histogram::ITEMS_MAX;
use crate::model::histogram::{
    Histogram, HistogramError, RESERVED_SCHEMA_MAX, ResetHint, SCHEMA_MAX, Span,
};

/// Packed numbers of more bytes are more than [`ITEMS_MAX`].
const PACKED_BYTES_MAX: usize = 10 * ITEMS_MAX;

/// A histogram that was decoded but not checked.
#[derive(Clone, Debug, Default)]
pub struct DecodedHistogram {
    /// Its content; counts are absolute.
    pub histogram: Histogram,
    /// Whether the sender counted in integers.
    pub is_whole: bool,
    /// Time of the sample (remote write).
    pub timestamp_ms: i64,
    /// Since when it has counted; 0: not told (remote write 2.0).
    pub start_ms: i64,
    /// Whether it has more spans, buckets or bounds than are kept.
    is_too_large: bool,
}

impl DecodedHistogram {
    /// The histogram, if it makes sense. Known schemas that are too fine become the finest one.
    pub fn into_checked(self) -> Result<Histogram, HistogramError> {
        if self.is_too_large {
            return Err(HistogramError::too_large(ITEMS_MAX));
        }
        let mut own = self.histogram;
        if (SCHEMA_MAX + 1..=RESERVED_SCHEMA_MAX).contains(&own.schema) {
            // Checked as if it were the finest one: only the schema itself is different.
            let schema = std::mem::replace(&mut own.schema, SCHEMA_MAX);
            own.check(self.is_whole)?;
            own.schema = schema;
            return Ok(own.reduced(SCHEMA_MAX));
        }
        own.check(self.is_whole)?;
        Ok(own)
    }
}

/// What a field says; numbers are those of either message.
#[derive(Clone, Copy)]
enum Field {
    Count,
    CountFloat,
    Sum,
    Schema,
    ZeroThreshold,
    ZeroCount,
    ZeroCountFloat,
    NegativeSpan,
    NegativeDelta,
    NegativeCount,
    PositiveSpan,
    PositiveDelta,
    PositiveCount,
    ResetHint,
    Timestamp,
    Bound,
    Start,
    Other,
}

/// Fields of remote write by their numbers.
const REMOTE: [Field; 18] = [
    Field::Other,
    Field::Count,
    Field::CountFloat,
    Field::Sum,
    Field::Schema,
    Field::ZeroThreshold,
    Field::ZeroCount,
    Field::ZeroCountFloat,
    Field::NegativeSpan,
    Field::NegativeDelta,
    Field::NegativeCount,
    Field::PositiveSpan,
    Field::PositiveDelta,
    Field::PositiveCount,
    Field::ResetHint,
    Field::Timestamp,
    Field::Bound,
    Field::Start,
];

/// Fields of the exposition format; those of classic histograms are left to its reader.
const EXPOSITION: [Field; 15] = [
    Field::Other,
    Field::Count,
    Field::Sum,
    Field::Other,
    Field::CountFloat,
    Field::Schema,
    Field::ZeroThreshold,
    Field::ZeroCount,
    Field::ZeroCountFloat,
    Field::NegativeSpan,
    Field::NegativeDelta,
    Field::NegativeCount,
    Field::PositiveSpan,
    Field::PositiveDelta,
    Field::PositiveCount,
];

/// Decodes a histogram of remote write. It counts in floats if its `count` does.
pub fn decode_remote(message: &[u8]) -> Result<DecodedHistogram, WireError> {
    let raw = Raw::read(message, &REMOTE)?;
    let is_whole = !raw.has_count_float;
    Ok(raw.finish(is_whole))
}

/// Decodes a histogram of the exposition format. It counts in floats if one of its counts is one.
pub(super) fn decode_exposition(message: &[u8]) -> Result<DecodedHistogram, WireError> {
    let raw = Raw::read(message, &EXPOSITION)?;
    let is_whole = !(raw.count_float > 0.0 || raw.zero_count_float > 0.0);
    Ok(raw.finish(is_whole))
}

#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    /// Still zigzag.
    deltas: Vec<u64>,
    /// Bits.
    counts: Vec<u64>,
}

impl Side {
    fn len_max(&self) -> usize {
        self.spans.len().max(self.deltas.len()).max(self.counts.len())
    }

    fn absolute(self, is_whole: bool) -> Vec<f64> {
        if !is_whole {
            return self.counts.into_iter().map(f64::from_bits).collect();
        }
        let mut count = 0_i64;
        let add = |delta: u64| {
            count = count.saturating_add(zigzag(delta));
            count as f64
        };
        self.deltas.into_iter().map(add).collect()
    }
}

#[derive(Default)]
struct Raw {
    count: u64,
    count_float: f64,
    has_count_float: bool,
    zero_count: u64,
    zero_count_float: f64,
    positive: Side,
    negative: Side,
    /// Bits.
    bounds: Vec<u64>,
    own: DecodedHistogram,
}

impl Raw {
    fn read(message: &[u8], fields: &[Field]) -> Result<Self, WireError> {
        let mut raw = Self::default();
        let mut cursor = Message::new(message);
        while let Some((number, value)) = cursor.field()? {
            let known = usize::try_from(number).ok().and_then(|number| fields.get(number));
            raw.take(*known.unwrap_or(&Field::Other), number, value)?;
            if ITEMS_MAX < raw.len_max() {
                break;
            }
        }
        Ok(raw)
    }

    fn take(&mut self, field: Field, number: u64, value: WireValue<'_>) -> Result<(), WireError> {
        if value.bytes(number).is_ok_and(|packed| PACKED_BYTES_MAX < packed.len()) {
            self.own.is_too_large |= !matches!(field, Field::Other);
            return Ok(());
        }
        let own = &mut self.own.histogram;
        match field {
            Field::Count => {
                self.count = value.varint(number)?;
                self.has_count_float = false;
            }
            Field::CountFloat => {
                self.count_float = value.double(number)?;
                self.has_count_float = true;
            }
            Field::Sum => own.sum = value.double(number)?,
            Field::Schema => own.schema = clamped(value.zigzag(number)?),
            Field::ZeroThreshold => own.zero_threshold = value.double(number)?,
            Field::ZeroCount => self.zero_count = value.varint(number)?,
            Field::ZeroCountFloat => self.zero_count_float = value.double(number)?,
            Field::NegativeSpan => self.negative.spans.push(span(value.bytes(number)?)?),
            Field::PositiveSpan => self.positive.spans.push(span(value.bytes(number)?)?),
            Field::NegativeDelta => read_varints(value, number, &mut self.negative.deltas)?,
            Field::PositiveDelta => read_varints(value, number, &mut self.positive.deltas)?,
            Field::NegativeCount => read_fixed64s(value, number, &mut self.negative.counts)?,
            Field::PositiveCount => read_fixed64s(value, number, &mut self.positive.counts)?,
            Field::ResetHint => own.reset_hint = hint(value.varint(number)?),
            Field::Timestamp => self.own.timestamp_ms = value.varint(number)? as i64,
            Field::Bound => read_fixed64s(value, number, &mut self.bounds)?,
            Field::Start => self.own.start_ms = value.varint(number)? as i64,
            Field::Other => {}
        }
        Ok(())
    }

    fn len_max(&self) -> usize {
        self.positive.len_max().max(self.negative.len_max()).max(self.bounds.len())
    }

    fn finish(self, is_whole: bool) -> DecodedHistogram {
        let is_too_large = ITEMS_MAX < self.len_max();
        let mut out = self.own;
        out.is_too_large |= is_too_large;
        out.is_whole = is_whole;
        let own = &mut out.histogram;
        own.count = if is_whole { self.count as f64 } else { self.count_float };
        own.zero_count = if is_whole { self.zero_count as f64 } else { self.zero_count_float };
        let (mut positive, mut negative) = (self.positive, self.negative);
        own.positive_spans = std::mem::take(&mut positive.spans);
        own.negative_spans = std::mem::take(&mut negative.spans);
        own.positive_buckets = positive.absolute(is_whole);
        own.negative_buckets = negative.absolute(is_whole);
        own.custom_bounds = self.bounds.into_iter().map(f64::from_bits).collect();
        out
    }
}

fn clamped(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}

fn hint(number: u64) -> ResetHint {
    match number {
        1 => ResetHint::CounterReset,
        2 => ResetHint::NotCounterReset,
        3 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

fn span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span { offset: 0, length: 0 };
    let mut cursor = Message::new(message);
    while let Some((number, value)) = cursor.field()? {
        match number {
            1 => span.offset = clamped(value.zigzag(number)?),
            2 => span.length = u32::try_from(value.varint(number)?).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    Ok(span)
}

/// Writes histograms, for tests of what reads them.
#[cfg(test)]
pub mod testing {
    use super::super::protobuf::testing::{bytes, double, number, signed, varint};
    use super::*;

    fn spans(field: u64, spans: &[Span]) -> Vec<u8> {
        let one = |own: &Span| {
            let parts = [signed(1, i64::from(own.offset)), number(2, u64::from(own.length))];
            bytes(field, parts.concat())
        };
        spans.iter().flat_map(one).collect()
    }

    fn deltas(field: u64, counts: &[f64]) -> Vec<u8> {
        let mut last = 0;
        let mut packed = Vec::new();
        for count in counts {
            let delta = *count as i64 - last;
            packed.extend(varint((delta << 1 ^ delta >> 63) as u64));
            last = *count as i64;
        }
        if counts.is_empty() { Vec::new() } else { bytes(field, packed) }
    }

    fn doubles(field: u64, values: &[f64]) -> Vec<u8> {
        values.iter().flat_map(|value| double(field, *value)).collect()
    }

    /// As remote write sends it.
    pub fn remote(own: &Histogram, is_whole: bool, timestamp_ms: i64) -> Vec<u8> {
        let hint = match own.reset_hint {
            ResetHint::Unknown => 0,
            ResetHint::CounterReset => 1,
            ResetHint::NotCounterReset => 2,
            ResetHint::Gauge => 3,
        };
        let counts = if is_whole {
            [
                number(1, own.count as u64),
                number(6, own.zero_count as u64),
                deltas(9, &own.negative_buckets),
                deltas(12, &own.positive_buckets),
            ]
        } else {
            [
                double(2, own.count),
                double(7, own.zero_count),
                doubles(10, &own.negative_buckets),
                doubles(13, &own.positive_buckets),
            ]
        };
        [
            counts.concat(),
            double(3, own.sum),
            signed(4, i64::from(own.schema)),
            double(5, own.zero_threshold),
            spans(8, &own.negative_spans),
            spans(11, &own.positive_spans),
            number(14, hint),
            number(15, timestamp_ms as u64),
            doubles(16, &own.custom_bounds),
        ]
        .concat()
    }

    /// As a target exposes it.
    pub fn exposition(own: &Histogram, is_whole: bool) -> Vec<u8> {
        let counts = if is_whole {
            [
                number(1, own.count as u64),
                number(7, own.zero_count as u64),
                deltas(10, &own.negative_buckets),
                deltas(13, &own.positive_buckets),
            ]
        } else {
            [
                double(4, own.count),
                double(8, own.zero_count),
                doubles(11, &own.negative_buckets),
                doubles(14, &own.positive_buckets),
            ]
        };
        [
            counts.concat(),
            double(2, own.sum),
            signed(5, i64::from(own.schema)),
            double(6, own.zero_threshold),
            spans(9, &own.negative_spans),
            spans(12, &own.positive_spans),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_side() -> impl Strategy<Value = (Vec<Span>, Vec<f64>)> {
        prop::collection::vec((0_i32..9, prop::collection::vec(0_u32..900, 1..4)), 0..4).prop_map(
            |spans| {
                let counts = spans.iter().flat_map(|own| &own.1).map(|own| f64::from(*own));
                let span = |(offset, counts): &(i32, Vec<u32>)| Span {
                    offset: *offset,
                    length: counts.len() as u32,
                };
                (spans.iter().map(span).collect(), counts.collect())
            },
        )
    }

    fn any_valid() -> impl Strategy<Value = Histogram> {
        (any_side(), any_side(), -4_i32..=8, 0_u32..50, any::<i32>(), 0_usize..4).prop_map(
            |(positive, negative, schema, zero, sum, hint)| {
                let count: f64 = positive.1.iter().chain(&negative.1).sum();
                let hints = [
                    ResetHint::Unknown,
                    ResetHint::CounterReset,
                    ResetHint::NotCounterReset,
                    ResetHint::Gauge,
                ];
                Histogram {
                    reset_hint: hints[hint],
                    schema,
                    zero_threshold: 0.001,
                    zero_count: f64::from(zero),
                    count: count + f64::from(zero),
                    sum: f64::from(sum) / 8.0,
                    positive_spans: positive.0,
                    positive_buckets: positive.1,
                    negative_spans: negative.0,
                    negative_buckets: negative.1,
                    custom_bounds: [].into(),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_is_read(own in any_valid(), is_whole: bool, ms in 0_i64..1 << 50) {
            let decoded = decode_remote(&testing::remote(&own, is_whole, ms)).unwrap();
            prop_assert_eq!((decoded.is_whole, decoded.timestamp_ms), (is_whole, ms));
            prop_assert_eq!(decoded.into_checked().unwrap(), own.clone());
            let decoded = decode_exposition(&testing::exposition(&own, is_whole)).unwrap();
            let expected = Histogram { reset_hint: ResetHint::Unknown, ..own };
            prop_assert_eq!(decoded.into_checked().unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for decoded in [decode_remote(&bytes), decode_exposition(&bytes)].into_iter().flatten() {
                let _ = decoded.into_checked();
            }
        }
    }

    #[test]
    fn schemas_that_are_too_fine_are_reduced_and_large_ones_refused() {
        let own = Histogram {
            schema: 9,
            count: 3.0,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            ..Histogram::default()
        };
        let decoded = decode_remote(&testing::remote(&own, true, 5)).unwrap().into_checked();
        let decoded = decoded.unwrap();
        assert_eq!((decoded.schema, decoded.positive_buckets), (8, vec![3.0]));
        let schema = Histogram { schema: 53, ..own.clone() };
        let decoded = decode_remote(&testing::remote(&schema, true, 5)).unwrap().into_checked();
        assert!(decoded.unwrap_err().to_string().ends_with("got schema 53"));
        let large = Histogram { positive_buckets: vec![1.0; ITEMS_MAX + 1], ..own };
        let decoded = decode_remote(&testing::remote(&large, false, 5)).unwrap().into_checked();
        assert!(decoded.unwrap_err().to_string().contains("65536"));
    }
}
