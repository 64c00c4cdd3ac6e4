//! Native histograms as columns: what rarely changes (schema, spans, bounds) once for each run of
//! rows that share it, then a column of values for each count.
//!
//! Drawn in `docs/formats/columns.md`. Memory is bounded by [`CELLS_MAX`] whatever the bytes say.

use std::sync::Arc;

use super::{
    CHUNK_ROWS_MAX, ColumnError, Cursor, Density, decode_values, encode_values_as, varint,
};
use crate::model::histogram::{Histogram, ResetHint, Span};

/// Buckets of one side, spans of one side, or bounds that one histogram may have. An honest
/// exponential histogram has at most a few hundred buckets; this bounds what others cost.
pub const ITEMS_MAX: usize = 1 << 16;
/// Counts and spans of all rows of a chunk together, and bounds of all runs: 32 MiB decoded.
pub const CELLS_MAX: usize = 4 << 20;
/// Columns that every histogram has: hint, count, sum, count of the zero bucket.
const FIXED_COLUMNS: usize = 4;

const _: () = assert!(FIXED_COLUMNS + 5 * ITEMS_MAX <= CELLS_MAX, "a chunk has room for any row");

const TAG_RUNS: u8 = 0;

/// Reset hints by their number on disk.
const HINTS: [ResetHint; 4] =
    [ResetHint::Unknown, ResetHint::CounterReset, ResetHint::NotCounterReset, ResetHint::Gauge];

/// Counts and spans of a row.
fn cells(own: &Histogram) -> usize {
    FIXED_COLUMNS
        + own.positive_spans.len()
        + own.negative_spans.len()
        + own.positive_buckets.len()
        + own.negative_buckets.len()
}

/// Whether a histogram is small enough to be kept.
pub fn check_size(own: &Histogram) -> bool {
    let spans = own.positive_spans.len().max(own.negative_spans.len());
    let buckets = own.positive_buckets.len().max(own.negative_buckets.len());
    spans.max(buckets).max(own.custom_bounds.len()) <= ITEMS_MAX
}

/// How many of the rows fit in one chunk; at least one if there is any.
pub fn rows_that_fit(rows: &[Arc<Histogram>]) -> usize {
    let mut left = CELLS_MAX;
    for (at, own) in rows.iter().enumerate() {
        // Bounds are written once for each run of rows that have the same.
        let last = at.checked_sub(1).map(|last| &rows[last]);
        let bounds = own.custom_bounds.len();
        let are_new = 0 < bounds && !last.is_some_and(|last| same_layout(last, own));
        let cells = cells(own) + if are_new { bounds } else { 0 };
        if at == CHUNK_ROWS_MAX || (left < cells && 0 < at) {
            return at;
        }
        left = left.saturating_sub(cells);
    }
    rows.len()
}

/// Whether two rows share all that is not a count.
fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    let same_bounds = || {
        Arc::ptr_eq(&a.custom_bounds, &b.custom_bounds)
            || a.custom_bounds
                .iter()
                .map(|bound| bound.to_bits())
                .eq(b.custom_bounds.iter().map(|bound| bound.to_bits()))
    };
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.positive_buckets.len() == b.positive_buckets.len()
        && a.negative_buckets.len() == b.negative_buckets.len()
        && same_bounds()
}

/// Appends a chunk. Panics when the rows do not fit: see [`rows_that_fit`].
pub fn encode_histograms(rows: &[Arc<Histogram>], density: Density, out: &mut Vec<u8>) {
    assert_eq!(rows_that_fit(rows), rows.len(), "a chunk has a limited size");
    out.push(TAG_RUNS);
    let mut column = Vec::with_capacity(rows.len());
    let mut bytes = Vec::new();
    for run in rows.chunk_by(|a, b| same_layout(a, b)) {
        varint::put(run.len() as u64, out);
        let layout = &*run[0];
        put_layout(layout, out);
        let mut put = |value: &dyn Fn(&Histogram) -> f64| {
            column.clear();
            column.extend(run.iter().map(|own| value(own)));
            bytes.clear();
            encode_values_as(&column, density, &mut bytes);
            varint::put(bytes.len() as u64, out);
            out.extend_from_slice(&bytes);
        };
        put(&|own| hint_number(own.reset_hint));
        put(&|own| own.count);
        put(&|own| own.sum);
        put(&|own| own.zero_count);
        for bucket in 0..layout.positive_buckets.len() {
            put(&|own| own.positive_buckets[bucket]);
        }
        for bucket in 0..layout.negative_buckets.len() {
            put(&|own| own.negative_buckets[bucket]);
        }
    }
}

fn hint_number(hint: ResetHint) -> f64 {
    HINTS.iter().position(|own| *own == hint).expect("every hint is in the table") as f64
}

fn put_layout(own: &Histogram, out: &mut Vec<u8>) {
    varint::put_signed(i64::from(own.schema), out);
    out.extend_from_slice(&own.zero_threshold.to_bits().to_le_bytes());
    for (spans, buckets) in
        [(&own.positive_spans, &own.positive_buckets), (&own.negative_spans, &own.negative_buckets)]
    {
        varint::put(spans.len() as u64, out);
        for span in spans {
            varint::put_signed(i64::from(span.offset), out);
            varint::put(u64::from(span.length), out);
        }
        varint::put(buckets.len() as u64, out);
    }
    varint::put(own.custom_bounds.len() as u64, out);
    out.extend(own.custom_bounds.iter().flat_map(|bound| bound.to_bits().to_le_bytes()));
}

/// Appends the `count` histograms of a chunk.
pub fn decode_histograms(
    bytes: &[u8],
    count: usize,
    out: &mut Vec<Arc<Histogram>>,
) -> Result<(), ColumnError> {
    let mut input = Cursor::new(bytes);
    if count > CHUNK_ROWS_MAX {
        return Err(input.error("more rows than a chunk may have"));
    }
    if input.byte()? != TAG_RUNS {
        return Err(input.error("unknown codec of histograms"));
    }
    let start = out.len();
    let (mut left, mut cells_left) = (count, CELLS_MAX);
    let decoded = loop {
        if left == 0 {
            break input.end();
        }
        match decode_run(&mut input, left, &mut cells_left) {
            Ok(rows) => {
                left -= rows.len();
                out.extend(rows.into_iter().map(Arc::new));
            }
            Err(err) => break Err(err),
        }
    };
    if decoded.is_err() {
        out.truncate(start);
    }
    decoded
}

/// Rows of one layout.
fn decode_run(
    input: &mut Cursor<'_>,
    rows_left: usize,
    cells_left: &mut usize,
) -> Result<Vec<Histogram>, ColumnError> {
    let count = usize::try_from(input.unsigned()?).unwrap_or(usize::MAX);
    if count == 0 || count > rows_left {
        return Err(input.error("run outside of the rows"));
    }
    let layout = take_layout(input)?;
    let all_cells = cells(&layout)
        .checked_mul(count)
        .and_then(|cells| cells.checked_add(layout.custom_bounds.len()));
    match all_cells.filter(|cells| *cells <= *cells_left) {
        Some(cells) => *cells_left -= cells,
        None => return Err(input.error("histograms are too large")),
    }
    let (positive, negative) = (layout.positive_buckets.len(), layout.negative_buckets.len());
    let mut rows = vec![layout; count];
    let mut column = Vec::new();
    let mut take = |set: &mut dyn FnMut(&mut Histogram, f64) -> Option<()>| {
        let len = usize::try_from(input.unsigned()?).unwrap_or(usize::MAX);
        let at = input.at;
        column.clear();
        decode_values(input.take(len)?, count, &mut column)
            .map_err(|err| ColumnError { offset_bytes: at + err.offset_bytes, ..err })?;
        for (row, value) in rows.iter_mut().zip(&column) {
            set(row, *value).ok_or_else(|| input.error("unknown reset hint"))?;
        }
        Ok(())
    };
    take(&mut |own, value| {
        let number = HINTS.iter().position(|hint| hint_number(*hint).to_bits() == value.to_bits());
        own.reset_hint = HINTS[number?];
        Some(())
    })?;
    take(&mut |own, value| {
        own.count = value;
        Some(())
    })?;
    take(&mut |own, value| {
        own.sum = value;
        Some(())
    })?;
    take(&mut |own, value| {
        own.zero_count = value;
        Some(())
    })?;
    for bucket in 0..positive {
        take(&mut |own, value| {
            own.positive_buckets[bucket] = value;
            Some(())
        })?;
    }
    for bucket in 0..negative {
        take(&mut |own, value| {
            own.negative_buckets[bucket] = value;
            Some(())
        })?;
    }
    Ok(rows)
}

/// A histogram whose counts are to be filled in.
fn take_layout(input: &mut Cursor<'_>) -> Result<Histogram, ColumnError> {
    let schema = i32::try_from(input.signed()?).map_err(|_| input.error("schema does not fit"))?;
    let zero_threshold = take_f64(input)?;
    let (positive_spans, positive_buckets) = take_side(input)?;
    let (negative_spans, negative_buckets) = take_side(input)?;
    let bound_count = take_len(input)?;
    let bounds: Result<Vec<f64>, _> = (0..bound_count).map(|_| take_f64(input)).collect();
    Ok(Histogram {
        schema,
        zero_threshold,
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_bounds: bounds?.into(),
        ..Histogram::default()
    })
}

fn take_f64(input: &mut Cursor<'_>) -> Result<f64, ColumnError> {
    let bytes = input.take(8)?;
    Ok(f64::from_bits(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))))
}

fn take_len(input: &mut Cursor<'_>) -> Result<usize, ColumnError> {
    let len = usize::try_from(input.unsigned()?).unwrap_or(usize::MAX);
    if len > ITEMS_MAX { Err(input.error("histogram is too large")) } else { Ok(len) }
}

fn take_side(input: &mut Cursor<'_>) -> Result<(Vec<Span>, Vec<f64>), ColumnError> {
    let span_count = take_len(input)?;
    let mut spans = Vec::new();
    for _ in 0..span_count {
        let (offset, length) = (input.signed()?, input.unsigned()?);
        match (i32::try_from(offset), u32::try_from(length)) {
            (Ok(offset), Ok(length)) => spans.push(Span { offset, length }),
            _ => return Err(input.error("span does not fit")),
        }
    }
    // The buckets' columns follow, each of at least two bytes.
    let bucket_count = take_len(input)?;
    if bucket_count > input.bytes.len() - input.at {
        return Err(input.error("chunk ends too early"));
    }
    Ok((spans, vec![0.0; bucket_count]))
}

/// Histograms for tests of whatever keeps them.
#[cfg(test)]
pub mod samples {
    use super::*;
    use crate::model::sample::stale_nan;
    use proptest::prelude::*;

    /// Equality by bits.
    pub fn same_bits(a: &Histogram, b: &Histogram) -> bool {
        let bits = |own: &Histogram| {
            let counts = [own.count, own.sum, own.zero_count].map(f64::to_bits);
            let buckets = own.positive_buckets.iter().chain(&own.negative_buckets);
            (own.reset_hint, counts, buckets.map(|count| count.to_bits()).collect::<Vec<_>>())
        };
        same_layout(a, b) && bits(a) == bits(b)
    }

    /// Rows of a counter with so many buckets.
    pub fn growing(rows: u64, buckets: u32) -> Vec<Arc<Histogram>> {
        let row = |row: u64| {
            let counts: Vec<f64> =
                (0..u64::from(buckets)).map(|own| ((row + 1) * (own % 5 + 1)) as f64).collect();
            Arc::new(Histogram {
                schema: 3,
                zero_threshold: 2.938_735_877_055_719e-39,
                count: counts.iter().sum(),
                sum: row as f64 * 0.25,
                positive_spans: vec![Span { offset: -2, length: buckets }],
                positive_buckets: counts,
                ..Histogram::default()
            })
        };
        (0..rows).map(row).collect()
    }

    fn any_bits() -> impl Strategy<Value = f64> {
        prop_oneof![
            (0_u32..2_000).prop_map(f64::from),
            any::<u64>().prop_map(f64::from_bits),
            Just(stale_nan()),
            Just(-0.0),
        ]
    }

    fn any_side() -> impl Strategy<Value = (Vec<Span>, Vec<f64>)> {
        let spans = prop::collection::vec((any::<i32>(), 0_u32..4), 0..4);
        let any_kind = prop_oneof![(0_u32..2_000).prop_map(f64::from).boxed(), any_bits().boxed()];
        (spans, prop::collection::vec(any_kind, 0..8)).prop_map(|(spans, buckets)| {
            let spans = spans.into_iter();
            (spans.map(|(offset, length)| Span { offset, length }).collect(), buckets)
        })
    }

    /// Any histogram at all, sensible or not.
    pub fn any_histogram() -> impl Strategy<Value = Histogram> {
        let counts = (any_bits(), any_bits(), any_bits(), any_bits());
        let bounds = prop::collection::vec(any_bits(), 0..3);
        (0_usize..4, -53..9, counts, any_side(), any_side(), bounds).prop_map(
            |(hint, schema, counts, positive, negative, bounds)| Histogram {
                reset_hint: HINTS[hint],
                schema,
                zero_threshold: counts.0,
                zero_count: counts.1,
                count: counts.2,
                sum: counts.3,
                positive_spans: positive.0,
                negative_spans: negative.0,
                positive_buckets: positive.1,
                negative_buckets: negative.1,
                custom_bounds: bounds.into(),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{any_histogram, growing, same_bits};
    use super::*;
    use crate::model::sample::stale_nan;
    use proptest::prelude::*;

    fn round_trip(rows: &[Arc<Histogram>]) -> usize {
        let mut bytes = Vec::new();
        encode_histograms(rows, Density::Dense, &mut bytes);
        let mut found = Vec::new();
        decode_histograms(&bytes, rows.len(), &mut found).unwrap();
        assert_eq!(found.len(), rows.len());
        assert!(rows.iter().zip(&found).all(|(a, b)| same_bits(a, b)), "{rows:?}");
        for cut in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
            assert!(decode_histograms(&bytes[..cut], rows.len(), &mut found).is_err());
        }
        assert_eq!(found.len(), rows.len(), "a failure leaves nothing behind");
        bytes.len()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn columns_come_back_bit_for_bit(
            rows in prop::collection::vec((any_histogram(), 1_usize..4), 0..6)
        ) {
            let repeated = rows.into_iter().flat_map(|(own, times)| {
                std::iter::repeat_n(Arc::new(own), times)
            });
            round_trip(&repeated.collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_histograms_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..120), count in 0_usize..40,
        ) {
            let mut found = Vec::new();
            let tagged = [&[TAG_RUNS][..], &bytes].concat();
            if decode_histograms(&tagged, count, &mut found).is_ok() {
                assert_eq!(found.len(), count);
            }
        }

        #[test]
        fn changed_bytes_never_panic(at in 0_usize..4_000, byte: u8) {
            let rows = growing(20, 12);
            let mut bytes = Vec::new();
            encode_histograms(&rows, Density::Fast, &mut bytes);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode_histograms(&bytes, rows.len(), &mut Vec::new());
        }
    }

    #[test]
    fn every_change_of_layout_begins_a_run_and_is_kept() {
        let base = Histogram::clone(&growing(1, 3)[0]);
        let mut rows = vec![Arc::new(base.clone())];
        let mut add = |change: &dyn Fn(&mut Histogram)| {
            let mut own = base.clone();
            change(&mut own);
            rows.push(Arc::new(own));
        };
        add(&|own| own.schema = -53);
        add(&|own| own.zero_threshold = 1.0);
        add(&|own| own.custom_bounds = [0.5, 1.0].into());
        add(&|own| own.positive_spans[0].offset = 7);
        add(&|own| own.positive_spans.push(Span { offset: 1, length: 0 }));
        add(&|own| own.positive_buckets.push(1.0));
        add(&|own| own.negative_buckets.push(2.0));
        add(&|own| own.negative_spans.push(Span { offset: 0, length: 1 }));
        add(&|own| own.reset_hint = ResetHint::Gauge);
        add(&|own| *own = Histogram { sum: stale_nan(), ..Histogram::default() });
        for (at, row) in rows.iter().enumerate() {
            assert!(rows[at + 1..].iter().all(|other| !same_bits(row, other)), "row {at}");
        }
        round_trip(&rows);
    }

    #[test]
    fn a_counter_of_many_buckets_is_small() {
        let rows = growing(240, 40);
        let bytes = round_trip(&rows);
        // Straight lines: a few bytes for each block of each column.
        assert!(bytes < 240 * 4, "{bytes}");
    }

    #[test]
    fn chunks_are_cut_before_they_are_too_large() {
        let wide = growing(200, 60_000);
        let fits = rows_that_fit(&wide);
        assert!((1..wide.len()).contains(&fits), "{fits}");
        assert_eq!(rows_that_fit(&wide[..3]), 3);
        assert_eq!(rows_that_fit(&[]), 0);
        // The same bounds count once, others each time.
        let with_bounds = |first: u32| {
            let bounds = (0..50_000).map(|own| f64::from(first + own)).collect();
            Arc::new(Histogram { schema: -53, custom_bounds: bounds, ..Histogram::default() })
        };
        let same = vec![with_bounds(0); 200];
        assert_eq!(rows_that_fit(&same), 200);
        let other: Vec<_> = (0..200).map(with_bounds).collect();
        let fits = rows_that_fit(&other);
        assert!((80..84).contains(&fits), "{fits}");
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        encode_histograms(&other[..fits], Density::Fast, &mut bytes);
        assert!(bytes.len() <= CELLS_MAX * 9);
        decode_histograms(&bytes, fits, &mut found).unwrap();
        assert!(other[..fits].iter().zip(&found).all(|(a, b)| same_bits(a, b)));
        // One row of few bytes that claims many.
        let mut bytes = vec![TAG_RUNS];
        varint::put(400_000, &mut bytes);
        bytes.extend([0; 9]);
        bytes.push(0);
        varint::put(60_000, &mut bytes);
        bytes.resize(70_000, 0);
        let err = decode_histograms(&bytes, 400_000, &mut Vec::new()).unwrap_err();
        assert_eq!(err.reason, "histograms are too large");
    }
}
