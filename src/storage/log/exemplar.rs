//! Bytes of an exemplar, in frames of the log and in checkpoints. Drawn in `docs/formats/log.md`.

use super::format::{Cursor, push_sized, push_zigzag};
use crate::model::exemplar::Exemplar;
use crate::storage::append::SeriesKey;
use crate::storage::fingerprint::{parse_canonical, push_canonical};

/// At most so many bytes are due to an exemplar besides labels.
pub const EXEMPLAR_BYTES_MAX: usize = 40;

/// Appends an exemplar of the series with these labels.
pub fn push_exemplar(out: &mut Vec<u8>, base_ms: i64, canonical: &[u8], exemplar: &Exemplar) {
    push_sized(out, canonical);
    push_zigzag(out, exemplar.timestamp_ms.wrapping_sub(base_ms));
    out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
    let mut labels = Vec::new();
    push_canonical(SeriesKey::Labels(&exemplar.labels), &mut labels);
    push_sized(out, &labels);
}

/// Labels of the series in canonical form, and the exemplar at the cursor.
pub fn read_exemplar<'a>(cursor: &mut Cursor<'a>, base_ms: i64) -> Option<(&'a [u8], Exemplar)> {
    let canonical = cursor.sized()?;
    let timestamp_ms = base_ms.wrapping_add(cursor.zigzag()?);
    let value = f64::from_bits(cursor.u64()?);
    let labels = parse_canonical(cursor.sized()?)?;
    Some((canonical, Exemplar { labels, value, timestamp_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;

    #[test]
    fn an_exemplar_is_read_as_written_and_not_when_it_is_cut() {
        let labels = Labels::from_pairs([("span", "ü"), ("trace_id", "1")]);
        let own = Exemplar { labels, value: -0.0, timestamp_ms: 1_000 };
        let mut bytes = Vec::new();
        push_exemplar(&mut bytes, 1_500, b"a\xffb\xff", &own);
        let read = |bytes: &[u8]| {
            let mut cursor = Cursor::new(bytes, 0, bytes.len())?;
            let (canonical, found) = read_exemplar(&mut cursor, 1_500)?;
            Some((canonical.to_vec(), found))
        };
        let (canonical, found) = read(&bytes).unwrap();
        assert_eq!((canonical.as_slice(), &found), (&b"a\xffb\xff"[..], &own));
        assert_eq!(found.value.to_bits(), own.value.to_bits());
        assert!((0..bytes.len()).all(|cut| read(&bytes[..cut]).is_none()));
    }
}
