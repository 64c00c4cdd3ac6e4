//! One native histogram as bytes of a log file: complete in itself, so that any sample can be read
//! without those before it. Drawn in `docs/formats/log.md`. Equal histograms have equal bytes.

use super::format::{Cursor, push_varint, push_zigzag};
use crate::encoding::column::histogram::ITEMS_MAX;
use crate::model::histogram::{Histogram, ResetHint, Span};
use crate::model::sample::STALE_NAN_BITS;

/// Reset hints by their number on disk: two bits of the flags.
const HINTS: [ResetHint; 4] =
    [ResetHint::Unknown, ResetHint::CounterReset, ResetHint::NotCounterReset, ResetHint::Gauge];
/// Counts are whole numbers.
const WHOLE: u8 = 1 << 2;
/// There is a zero bucket.
const ZERO: u8 = 1 << 3;
/// There are buckets below zero.
const NEGATIVE: u8 = 1 << 4;
/// There are listed bounds.
const BOUNDS: u8 = 1 << 5;
const UNKNOWN_FLAGS: u8 = 0b1100_0000;

/// Whole numbers up to this are exact.
const WHOLE_MAX: f64 = (1_u64 << 53) as f64;

/// The histogram that ends a series: its sum is the stale marker, and nothing else is in it.
pub const STALE_HISTOGRAM: [u8; 13] = {
    let [a, b, c, d, e, f, g, h] = STALE_NAN_BITS.to_le_bytes();
    [WHOLE, 0, 0, a, b, c, d, e, f, g, h, 0, 0]
};

fn is_whole(count: f64) -> bool {
    (0.0..=WHOLE_MAX).contains(&count) && ((count as u64) as f64).to_bits() == count.to_bits()
}

/// Appends a histogram.
pub fn push_histogram(own: &Histogram, out: &mut Vec<u8>) {
    let counts = [own.count, own.zero_count];
    let mut all = counts.iter().chain(&own.positive_buckets).chain(&own.negative_buckets);
    let is_whole = all.all(|count| is_whole(*count));
    let has_zero = own.zero_threshold.to_bits() != 0 || own.zero_count.to_bits() != 0;
    let has_negative = !own.negative_spans.is_empty() || !own.negative_buckets.is_empty();
    let hint = HINTS.iter().position(|hint| *hint == own.reset_hint);
    let mut flags = hint.expect("every hint is in the table") as u8;
    let wanted = [
        (is_whole, WHOLE),
        (has_zero, ZERO),
        (has_negative, NEGATIVE),
        (!own.custom_bounds.is_empty(), BOUNDS),
    ];
    for (_, flag) in wanted.iter().filter(|(is_set, _)| *is_set) {
        flags |= flag;
    }
    out.push(flags);
    push_zigzag(out, i64::from(own.schema));
    push_count(own.count, is_whole, out);
    out.extend_from_slice(&own.sum.to_bits().to_le_bytes());
    if has_zero {
        out.extend_from_slice(&own.zero_threshold.to_bits().to_le_bytes());
        push_count(own.zero_count, is_whole, out);
    }
    push_side(&own.positive_spans, &own.positive_buckets, is_whole, out);
    if has_negative {
        push_side(&own.negative_spans, &own.negative_buckets, is_whole, out);
    }
    if !own.custom_bounds.is_empty() {
        push_varint(out, own.custom_bounds.len() as u64);
        for bound in &*own.custom_bounds {
            out.extend_from_slice(&bound.to_bits().to_le_bytes());
        }
    }
}

fn push_count(count: f64, is_whole: bool, out: &mut Vec<u8>) {
    if is_whole {
        push_varint(out, count as u64);
    } else {
        out.extend_from_slice(&count.to_bits().to_le_bytes());
    }
}

fn push_side(spans: &[Span], buckets: &[f64], is_whole: bool, out: &mut Vec<u8>) {
    push_varint(out, spans.len() as u64);
    for span in spans {
        push_zigzag(out, i64::from(span.offset));
        push_varint(out, u64::from(span.length));
    }
    push_varint(out, buckets.len() as u64);
    let mut last = 0;
    for count in buckets {
        if is_whole {
            push_zigzag(out, *count as i64 - last);
            last = *count as i64;
        } else {
            out.extend_from_slice(&count.to_bits().to_le_bytes());
        }
    }
}

/// The histogram that the bytes are; `None` for any others.
pub fn read_histogram(bytes: &[u8]) -> Option<Histogram> {
    let mut cursor = Cursor::new(bytes, 0, bytes.len())?;
    let flags = cursor.u8()?;
    if flags & UNKNOWN_FLAGS != 0 {
        return None;
    }
    let is_whole = flags & WHOLE != 0;
    let mut own = Histogram {
        reset_hint: HINTS[usize::from(flags & 3)],
        schema: i32::try_from(cursor.zigzag()?).ok()?,
        count: read_count(&mut cursor, is_whole)?,
        sum: read_f64(&mut cursor)?,
        ..Histogram::default()
    };
    if flags & ZERO != 0 {
        own.zero_threshold = read_f64(&mut cursor)?;
        own.zero_count = read_count(&mut cursor, is_whole)?;
    }
    (own.positive_spans, own.positive_buckets) = read_side(&mut cursor, is_whole)?;
    if flags & NEGATIVE != 0 {
        (own.negative_spans, own.negative_buckets) = read_side(&mut cursor, is_whole)?;
    }
    if flags & BOUNDS != 0 {
        let count = read_len(&mut cursor)?;
        let bounds: Option<Vec<f64>> = (0..count).map(|_| read_f64(&mut cursor)).collect();
        own.custom_bounds = bounds?.into();
    }
    cursor.is_empty().then_some(own)
}

fn read_f64(cursor: &mut Cursor<'_>) -> Option<f64> {
    cursor.u64().map(f64::from_bits)
}

fn read_count(cursor: &mut Cursor<'_>, is_whole: bool) -> Option<f64> {
    if is_whole { Some(cursor.varint()? as f64) } else { read_f64(cursor) }
}

fn read_len(cursor: &mut Cursor<'_>) -> Option<usize> {
    usize::try_from(cursor.varint()?).ok().filter(|len| *len <= ITEMS_MAX)
}

fn read_side(cursor: &mut Cursor<'_>, is_whole: bool) -> Option<(Vec<Span>, Vec<f64>)> {
    let span_count = read_len(cursor)?;
    let mut spans = Vec::new();
    for _ in 0..span_count {
        let offset = i32::try_from(cursor.zigzag()?).ok()?;
        spans.push(Span { offset, length: cursor.varint_u32()? });
    }
    let bucket_count = read_len(cursor)?;
    let mut buckets = Vec::new();
    let mut last = 0_i64;
    for _ in 0..bucket_count {
        if is_whole {
            last = last.checked_add(cursor.zigzag()?)?;
            buckets.push(last as f64);
        } else {
            buckets.push(read_f64(cursor)?);
        }
    }
    Some((spans, buckets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::column::histogram::samples;
    use proptest::prelude::*;

    fn encoded(own: &Histogram) -> Vec<u8> {
        let mut out = Vec::new();
        push_histogram(own, &mut out);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn histograms_come_back_bit_for_bit(own in samples::any_histogram()) {
            let bytes = encoded(&own);
            let found = read_histogram(&bytes).unwrap();
            prop_assert!(samples::same_bits(&own, &found), "{own:?} {found:?}");
            prop_assert_eq!(encoded(&found), bytes.clone());
            for cut in 0..bytes.len() {
                prop_assert!(read_histogram(&bytes[..cut]).is_none());
            }
        }

        #[test]
        fn any_bytes_are_a_histogram_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read_histogram(&bytes);
        }
    }

    #[test]
    fn the_histogram_that_ends_a_series_is_known_by_its_bytes() {
        let own = Histogram { sum: f64::from_bits(STALE_NAN_BITS), ..Histogram::default() };
        assert_eq!(encoded(&own), STALE_HISTOGRAM);
        assert!(read_histogram(&STALE_HISTOGRAM).unwrap().is_stale());
    }

    #[test]
    fn whole_counts_are_small() {
        let own = samples::growing(1, 8)[0].clone();
        assert!(encoded(&own).len() < 50, "{}", encoded(&own).len());
    }
}
