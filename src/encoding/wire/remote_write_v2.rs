//! Remote write 2.0: the protobuf message `io.prometheus.write.v2.Request`, read without copies.
//!
//! Texts are symbols: the table is read first, wherever it stands, then the series one at a time.
//! Limits are those of version 1.0. Message numbers come from the Remote-Write 2.0 specification.

use super::protobuf::{Message, WireError, read_varints};
use super::remote_write::{DecodeError, ITEMS_MAX, LABEL_BYTES_MAX, LABELS_MAX, metric_type};
use crate::model::exemplar::{Exemplar, LABEL_LETTERS_MAX};
use crate::model::labels::Labels;
use crate::model::metadata::{MetricType, TEXT_BYTES_MAX};

/// An honest list of references is shorter.
const REFERENCE_BYTES_MAX: usize = 2 * LABELS_MAX * 10;

/// Bytes of the symbols that all series refer to, each time counted: a symbol that many share may be
/// long. Far more than honest requests have, and handled within a second.
pub const SYMBOLS_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 512 << 20 };

/// A sample with its start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartedSample {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Any bit pattern.
    pub value: f64,
    /// Since when it has counted; 0: not told.
    pub start_ms: i64,
}

/// References to symbols that make no labels; the texts are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// Names and values come in pairs.
    #[error("invalid labelRefs length {0}")]
    OddLength(usize),
    /// There is no such symbol.
    #[error("labelRefs {name} (name) = {value} (value) outside of symbols table (size {size})")]
    Beyond {
        /// Reference of the name.
        name: u64,
        /// Reference of the value.
        value: u64,
        /// Symbols in the table.
        size: usize,
    },
}

/// Why an exemplar is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExemplarError {
    /// It refers to symbols that do not exist, or to half a label.
    References,
    /// Its labels are longer than any that are kept.
    TooLong,
}

/// One series of a request.
#[derive(Debug, Default)]
pub struct Series<'a> {
    references: Vec<u64>,
    /// Labels in the order they were sent, if the references are good.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Samples in the order they were sent.
    pub samples: Vec<StartedSample>,
    /// Native histograms, for [`super::histogram::decode_remote`].
    pub histograms: Vec<&'a [u8]>,
    /// Exemplars, for [`Symbols::exemplar`].
    pub exemplars: Vec<&'a [u8]>,
    /// Type of the metric.
    pub metric_type: MetricType,
    /// Its help text.
    pub help: &'a str,
    /// Its unit.
    pub unit: &'a str,
}

impl Series<'_> {
    fn len(&self) -> usize {
        self.samples.len() + self.histograms.len() + self.exemplars.len()
    }

    fn symbols_bytes(&self) -> usize {
        bytes_of(&self.labels) + self.help.len() + self.unit.len()
    }
}

fn bytes_of(pairs: &[(&str, &str)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The table of symbols.
#[derive(Debug)]
pub struct Symbols<'a>(Vec<&'a str>);

impl<'a> Symbols<'a> {
    fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut symbols = Vec::new();
        let mut message = Message::new(body);
        while let Some((field, value)) = message.field()? {
            match field {
                4 if symbols.len() == ITEMS_MAX => return Err(DecodeError::TooManyItems),
                4 => symbols.push(value.text(field)?),
                _ => {}
            }
        }
        Ok(Self(symbols))
    }

    fn get(&self, reference: u64) -> Option<&'a str> {
        self.0.get(usize::try_from(reference).ok()?).copied()
    }

    /// Resolves references to names and values.
    fn pairs(
        &self,
        references: &[u64],
        pairs: &mut Vec<(&'a str, &'a str)>,
    ) -> Result<(), SymbolError> {
        pairs.clear();
        let (all, []) = references.as_chunks::<2>() else {
            return Err(SymbolError::OddLength(references.len()));
        };
        for [name, value] in all {
            let (Some(own_name), Some(own_value)) = (self.get(*name), self.get(*value)) else {
                let (name, value, size) = (*name, *value, self.0.len());
                return Err(SymbolError::Beyond { name, value, size });
            };
            pairs.push((own_name, own_value));
        }
        Ok(())
    }

    /// Decodes an exemplar, if it is one that may be kept.
    pub fn exemplar(&self, bytes: &[u8]) -> Result<Result<Exemplar, ExemplarError>, DecodeError> {
        if REFERENCE_BYTES_MAX < bytes.len() {
            return Err(DecodeError::TooManyLabels);
        }
        let mut exemplar = Exemplar { labels: Labels::empty(), value: 0.0, timestamp_ms: 0 };
        let (mut references, mut pairs) = (Vec::new(), Vec::new());
        let mut message = Message::new(bytes);
        while let Some((field, value)) = message.field()? {
            match field {
                1 => read_varints(value, field, &mut references)?,
                2 => exemplar.value = value.double(field)?,
                3 => exemplar.timestamp_ms = value.varint(field)? as i64,
                _ => {}
            }
        }
        if 2 * LABELS_MAX < references.len() {
            return Err(DecodeError::TooManyLabels);
        }
        if self.pairs(&references, &mut pairs).is_err() {
            return Ok(Err(ExemplarError::References));
        }
        // Asked before they are copied: a letter has at most four bytes.
        if LABEL_LETTERS_MAX * 4 < bytes_of(&pairs) {
            return Ok(Err(ExemplarError::TooLong));
        }
        exemplar.labels = Labels::from_pairs(pairs);
        Ok(Ok(exemplar))
    }
}

/// Walks an uncompressed body and calls `visit` for each series; stops at its first error.
pub fn decode<'a, E: From<DecodeError> + From<WireError>>(
    body: &'a [u8],
    mut visit: impl FnMut(&Series<'a>, Result<(), SymbolError>, &Symbols<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let symbols = Symbols::read(body)?;
    let mut series = Series::default();
    let (mut items, mut symbols_bytes) = (0, 0);
    let mut message = Message::new(body);
    while let Some((field, value)) = message.field()? {
        if field != 5 {
            continue;
        }
        let bytes = value.bytes(field)?;
        let labels = read_series(bytes, &symbols, &mut series)?;
        items += series.len();
        if items > ITEMS_MAX {
            return Err(DecodeError::TooManyItems.into());
        }
        symbols_bytes += series.symbols_bytes();
        if symbols_bytes > SYMBOLS_BYTES_MAX {
            return Err(DecodeError::TooManyBytes.into());
        }
        visit(&series, labels, &symbols)?;
    }
    Ok(())
}

fn read_series<'a>(
    bytes: &'a [u8],
    symbols: &Symbols<'a>,
    series: &mut Series<'a>,
) -> Result<Result<(), SymbolError>, DecodeError> {
    series.references.clear();
    series.samples.clear();
    series.histograms.clear();
    series.exemplars.clear();
    (series.metric_type, series.help, series.unit) = (MetricType::Unknown, "", "");
    let mut message = Message::new(bytes);
    while let Some((field, value)) = message.field()? {
        match field {
            1 => {
                if value.bytes(field).is_ok_and(|packed| REFERENCE_BYTES_MAX < packed.len()) {
                    return Err(DecodeError::TooManyLabels);
                }
                read_varints(value, field, &mut series.references)?;
                if 2 * LABELS_MAX < series.references.len() {
                    return Err(DecodeError::TooManyLabels);
                }
            }
            2..=4 if series.len() == ITEMS_MAX => return Err(DecodeError::TooManyItems),
            2 => series.samples.push(read_sample(value.bytes(field)?)?),
            3 => series.histograms.push(value.bytes(field)?),
            4 => series.exemplars.push(value.bytes(field)?),
            5 => read_metadata(value.bytes(field)?, symbols, series)?,
            _ => {}
        }
    }
    let resolved = symbols.pairs(&series.references, &mut series.labels);
    if LABEL_BYTES_MAX < bytes_of(&series.labels) {
        return Err(DecodeError::LabelsTooLong);
    }
    Ok(resolved)
}

fn read_sample(bytes: &[u8]) -> Result<StartedSample, DecodeError> {
    let mut sample = StartedSample { timestamp_ms: 0, value: 0.0, start_ms: 0 };
    let mut message = Message::new(bytes);
    while let Some((field, value)) = message.field()? {
        match field {
            1 => sample.value = value.double(field)?,
            2 => sample.timestamp_ms = value.varint(field)? as i64,
            3 => sample.start_ms = value.varint(field)? as i64,
            _ => {}
        }
    }
    Ok(sample)
}

fn read_metadata<'a>(
    bytes: &'a [u8],
    symbols: &Symbols<'a>,
    series: &mut Series<'a>,
) -> Result<(), DecodeError> {
    let text = |number| symbols.get(number).filter(|text| text.len() <= TEXT_BYTES_MAX);
    let mut message = Message::new(bytes);
    while let Some((field, value)) = message.field()? {
        let number = value.varint(field);
        match field {
            1 => series.metric_type = metric_type(number?),
            3 => series.help = text(number?).unwrap_or(""),
            4 => series.unit = text(number?).unwrap_or(""),
            _ => {}
        }
    }
    Ok(())
}

/// Writes requests, for tests of what reads them.
#[cfg(test)]
pub mod testing {
    use super::super::protobuf::testing::{bytes, double, number, varint};

    /// Symbols and series.
    pub fn request(symbols: &[&str], series: &[Vec<u8>]) -> Vec<u8> {
        let symbols = symbols.iter().flat_map(|own| bytes(4, own));
        symbols.chain(series.iter().flat_map(|own| bytes(5, own))).collect()
    }

    /// References to names and values, packed.
    pub fn references(all: &[u64]) -> Vec<u8> {
        bytes(1, all.iter().flat_map(|own| varint(*own)).collect::<Vec<u8>>())
    }

    /// A sample with a start.
    pub fn sample(value: f64, timestamp_ms: u64, start_ms: u64) -> Vec<u8> {
        bytes(2, [double(1, value), number(2, timestamp_ms), number(3, start_ms)].concat())
    }

    /// An exemplar.
    pub fn exemplar(labels: &[u64], value: f64, timestamp_ms: u64) -> Vec<u8> {
        bytes(4, [references(labels), double(2, value), number(3, timestamp_ms)].concat())
    }

    /// Metadata of a series.
    pub fn metadata(metric_type: u64, help: u64, unit: u64) -> Vec<u8> {
        bytes(5, [number(1, metric_type), number(3, help), number(4, unit)].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{exemplar, metadata, references, request, sample};
    use super::*;
    use proptest::prelude::*;

    fn shown(body: &[u8]) -> Result<Vec<String>, DecodeError> {
        let mut out = Vec::new();
        decode(body, |series, labels, symbols| {
            let exemplars: Result<Vec<_>, _> =
                series.exemplars.iter().map(|own| symbols.exemplar(own)).collect();
            let exemplars = exemplars?.into_iter().flatten().map(|own| own.labels);
            out.push(format!(
                "{:?} {:?} {:?} {:?} {} {:?} {:?}",
                labels.map_err(|err| err.to_string()).map(|()| &series.labels),
                series
                    .samples
                    .iter()
                    .map(|s| (s.timestamp_ms, s.value, s.start_ms))
                    .collect::<Vec<_>>(),
                exemplars.collect::<Vec<_>>(),
                series.histograms.len(),
                series.metric_type.as_str(),
                series.help,
                series.unit,
            ));
            Ok::<(), DecodeError>(())
        })?;
        Ok(out)
    }

    #[test]
    fn symbols_are_resolved_wherever_they_stand() {
        let one = [
            references(&[1, 2, 3, 4]),
            sample(1.5, 7, 3),
            exemplar(&[5, 4], 2.0, 6),
            metadata(1, 5, 6),
        ]
        .concat();
        let (odd, beyond) = (references(&[1]), references(&[1, 2, 3, 99]));
        let symbols = ["", "__name__", "up", "job", "j", "trace", "s"];
        let series = [one, odd, beyond];
        let (mut body, table) = (request(&[], &series), request(&symbols, &[]));
        body.extend(table);
        insta::assert_snapshot!(shown(&body).unwrap().join("\n"), @r#"
        Ok([("__name__", "up"), ("job", "j")]) [(7, 1.5, 3)] [{trace="j"}] 0 counter "trace" "s"
        Err("invalid labelRefs length 1") [] [] 0 unknown "" ""
        Err("labelRefs 3 (name) = 99 (value) outside of symbols table (size 7)") [] [] 0 unknown "" ""
        "#);
        let cut = &body[..body.len() - 1];
        assert_eq!(shown(cut), Err(DecodeError::Wire(WireError::Truncated)));
    }

    #[test]
    fn what_a_small_body_can_ask_for_is_bounded() {
        let long = "x".repeat(1 << 10);
        let series = references(&[0, 1].repeat(100));
        let body = request(&["a", &long], &[series]);
        assert_eq!(shown(&body), Err(DecodeError::LabelsTooLong));
        let many = [references(&[0, 1]), sample(1.0, 7, 0)].concat();
        let body = request(&["a", &long], &vec![many; SYMBOLS_BYTES_MAX / 1024]);
        assert_eq!(shown(&body), Err(DecodeError::TooManyBytes));
        let help = "h".repeat(TEXT_BYTES_MAX);
        let helped = |help: &str| {
            let series = [references(&[0, 1]), sample(1.0, 7, 0), metadata(1, 2, 2)].concat();
            shown(&request(&["a", "b", help], &vec![series; 40]))
        };
        assert_eq!(helped(&help), Err(DecodeError::TooManyBytes));
        assert!(helped(&(help + "h")).unwrap()[0].ends_with(r#"counter "" """#));
        // An exemplar whose labels would be copied each time.
        let labels = [references(&[0, 1]), exemplar(&[0, 1].repeat(1000), 2.0, 6)].concat();
        let body = request(&["a", &long], &[labels]);
        decode(&body, |series, _, symbols| {
            assert_eq!(symbols.exemplar(series.exemplars[0]), Ok(Err(ExemplarError::TooLong)));
            Ok::<(), DecodeError>(())
        })
        .unwrap();
        let body = request(&["a"], &[references(&vec![0; 2 * LABELS_MAX + 2])]);
        assert_eq!(shown(&body), Err(DecodeError::TooManyLabels));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = shown(&bytes);
            let body = request(&["", "a", "b"], &[bytes]);
            let _ = shown(&body);
        }
    }
}
