//! Chunks of a segment that say anything.

use std::sync::Arc;

use super::histogram::samples::{growing, same_bits};
use super::histogram::{decode_histograms, encode_histograms};
use super::{
    Density, decode_starts, decode_timestamps, decode_values, encode_starts, encode_timestamps,
    encode_values,
};
use crate::base::fuzz::run;

/// A count, then the chunk.
fn seed(count: usize, chunk: &[u8]) -> Vec<u8> {
    [&(count as u16).to_le_bytes(), chunk].concat()
}

fn split(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, chunk) = bytes.split_first_chunk()?;
    Some((usize::from(u16::from_le_bytes(*count)) % 2048, chunk))
}

#[test]
fn values_and_timestamps() {
    let mut seeds = Vec::new();
    let columns: [fn(i32) -> f64; 5] = [
        |_| 5.0,
        |row| f64::from(row * row),
        |row| f64::from(row) * 0.01,
        |row| f64::from(row).sqrt(),
        |row| if row == 70 { f64::NAN } else { f64::from(row / 50) },
    ];
    for value in columns {
        let mut out = Vec::new();
        encode_values(&(0..150).map(value).collect::<Vec<_>>(), &mut out);
        seeds.push(seed(150, &out));
    }
    let mut out = Vec::new();
    encode_timestamps(
        &(0..150).map(|row| row * 15_000 + row * row % 7).collect::<Vec<_>>(),
        &mut out,
    );
    seeds.push(seed(150, &out));
    let mut out = Vec::new();
    encode_starts(&(0..150).map(|row| 1_000 * (row / 40)).collect::<Vec<_>>(), &mut out);
    seeds.push(seed(150, &out));
    run("columns", 4_000, seeds, |bytes| {
        let Some((count, chunk)) = split(bytes) else { return false };
        let mut values = Vec::new();
        let are_values = decode_values(chunk, count, &mut values).is_ok();
        if are_values {
            assert_eq!(values.len(), count);
            let mut again = Vec::new();
            encode_values(&values, &mut again);
            let mut found = Vec::new();
            decode_values(&again, count, &mut found).unwrap();
            assert!(
                found.iter().map(|own| own.to_bits()).eq(values.iter().map(|own| own.to_bits()))
            );
        }
        let mut timestamps_ms = Vec::new();
        let are_timestamps = decode_timestamps(chunk, count, &mut timestamps_ms).is_ok();
        assert!(!are_timestamps || timestamps_ms.len() == count);
        let starts = decode_starts(chunk, count);
        assert!(starts.as_ref().is_ok_and(|own| own.len() == count) || starts.is_err());
        are_values || are_timestamps || starts.is_ok()
    });
}

#[test]
fn histograms() {
    let mut out = Vec::new();
    let mut rows = growing(40, 12);
    rows.extend(growing(20, 3));
    encode_histograms(&rows, Density::Fast, &mut out);
    run("histogram-columns", 2_000, vec![seed(rows.len(), &out)], |bytes| {
        let Some((count, chunk)) = split(bytes) else { return false };
        let mut rows = Vec::new();
        if decode_histograms(chunk, count, &mut rows).is_err() {
            assert!(rows.is_empty());
            return false;
        }
        assert_eq!(rows.len(), count);
        let (mut again, mut found) = (Vec::new(), Vec::new());
        encode_histograms(&rows, Density::Dense, &mut again);
        decode_histograms(&again, count, &mut found).unwrap();
        assert!(rows.iter().zip(&found).all(|(a, b): (&Arc<_>, &Arc<_>)| same_bits(a, b)));
        true
    });
}
