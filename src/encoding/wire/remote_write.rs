//! Remote write 1.0: the protobuf message `prometheus.WriteRequest`, read without copies.
//!
//! A cursor walks the message and hands out one series at a time, its labels and samples borrowed
//! from the body or kept in buffers that are used again. A series that holds nothing but labels and
//! floats need not be decoded by who knows it by the bytes of its labels. Unknown fields are skipped. Histograms
//! and exemplars are handed out as bytes, decoded by whoever wants them. Message numbers come from
//! the Remote-Write 1.0 specification. The tests hold the cursor equal to `prost`.

use super::protobuf::{Message, WireError};
use super::remote_write_v2::SYMBOLS_BYTES_MAX;
use crate::model::exemplar::Exemplar;
use crate::model::labels::Labels;
use crate::model::metadata::{Metadata, MetricType};
use crate::model::sample::Sample;

/// Labels of one series; more is refused.
pub const LABELS_MAX: usize = 1024;

/// Bytes of all names and values of one series; more is refused.
pub const LABEL_BYTES_MAX: usize = 64 << 10;
/// Samples and entries of metadata in one request. A body of the largest size that is filled with
/// honest samples has fewer; this bounds what empty ones (two bytes each) make us stage.
pub const ITEMS_MAX: usize = 3_000_000;

/// First bytes of fields: number and wire type.
const LABEL_KEY: u8 = 1 << 3 | 2;
const SAMPLE_KEY: u8 = 2 << 3 | 2;
const NAME_KEY: u8 = 1 << 3 | 2;
const TEXT_KEY: u8 = 2 << 3 | 2;
const VALUE_KEY: u8 = 1 << 3 | 1;
const TIMESTAMP_KEY: u8 = 2 << 3;

/// Why a body is no write request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// See [`LABELS_MAX`].
    #[error("series has more than {LABELS_MAX} labels")]
    TooManyLabels,
    /// See [`LABEL_BYTES_MAX`].
    #[error("labels of a series have more than {LABEL_BYTES_MAX} bytes")]
    LabelsTooLong,
    /// See [`ITEMS_MAX`].
    #[error("request has more than {ITEMS_MAX} samples")]
    TooManyItems,
    /// See [`super::remote_write_v2::SYMBOLS_BYTES_MAX`].
    #[error("series of the request refer to more than {SYMBOLS_BYTES_MAX} bytes of symbols")]
    TooManyBytes,
}

/// One series of a request.
#[derive(Debug, Default)]
pub struct Series<'a> {
    /// Labels in the order they were sent.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Samples in the order they were sent.
    pub samples: Vec<Sample>,
    /// Native histograms, for [`super::histogram::decode_remote`].
    pub histograms: Vec<&'a [u8]>,
    /// Exemplars, for [`decode_exemplar`].
    pub exemplars: Vec<&'a [u8]>,
}

impl Series<'_> {
    /// Samples of either kind and exemplars.
    pub fn item_count(&self) -> usize {
        self.samples.len() + self.histograms.len() + self.exemplars.len()
    }
}

/// A series as its bytes.
#[derive(Clone, Copy, Debug)]
pub struct RawSeries<'a> {
    bytes: &'a [u8],
    /// Length of the labels at the beginning.
    name_bytes: usize,
}

impl<'a> RawSeries<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut message = Message::new(bytes);
        while message.short_bytes(LABEL_KEY).is_some() {}
        Self { bytes, name_bytes: bytes.len() - message.len() }
    }

    /// The bytes of its labels, the same as long as a sender does not change them.
    pub fn name(&self) -> &'a [u8] {
        self.bytes.get(..self.name_bytes).unwrap_or_default()
    }

    /// Its samples, when there is nothing else besides the labels: else false, and it must be
    /// [read](Self::read).
    #[inline]
    pub fn floats(&self, samples: &mut Vec<Sample>) -> bool {
        samples.clear();
        let mut message = Message::new(self.bytes.get(self.name_bytes..).unwrap_or_default());
        while let Some(bytes) = message.short_bytes(SAMPLE_KEY) {
            match read_sample(bytes) {
                Ok(sample) => samples.push(sample),
                Err(_) => return false,
            }
        }
        message.len() == 0 && self.name_bytes > 0
    }

    /// Decodes it.
    pub fn read(&self, series: &mut Series<'a>) -> Result<(), DecodeError> {
        read_series(self.bytes, series)
    }
}

/// What a request holds, one piece at a time.
#[derive(Debug)]
pub enum Item<'a> {
    /// A series.
    Series(RawSeries<'a>),
    /// Metadata of a metric family.
    Metadata {
        /// The family's name.
        metric: &'a str,
        /// What is known of it.
        metadata: Metadata,
    },
}

/// Walks an uncompressed body and calls `visit` for each item; stops at its first error.
pub fn decode<'a, E: From<DecodeError> + From<WireError>>(
    body: &'a [u8],
    mut visit: impl FnMut(Item<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut message = Message::new(body);
    let mut metadata_count = 0;
    while let Some((field, value)) = message.field()? {
        match field {
            1 => visit(Item::Series(RawSeries::new(value.bytes(field)?)))?,
            3 => {
                let (metric, metadata) = read_metadata(value.bytes(field)?)?;
                metadata_count += 1;
                if metadata_count > ITEMS_MAX {
                    return Err(DecodeError::TooManyItems.into());
                }
                visit(Item::Metadata { metric, metadata })?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_series<'a>(bytes: &'a [u8], series: &mut Series<'a>) -> Result<(), DecodeError> {
    series.labels.clear();
    series.samples.clear();
    series.histograms.clear();
    series.exemplars.clear();
    let name = RawSeries::new(bytes).name();
    let mut rest = bytes;
    if name.len() <= LABEL_BYTES_MAX && read_plain_labels(name, &mut series.labels).is_some() {
        rest = bytes.get(name.len()..).unwrap_or_default();
    } else {
        series.labels.clear();
    }
    let mut label_bytes = bytes.len() - rest.len();
    let mut message = Message::new(rest);
    while let Some((field, value)) = message.field()? {
        match field {
            1 => {
                if series.labels.len() == LABELS_MAX {
                    return Err(DecodeError::TooManyLabels);
                }
                let (name, text) = read_label(value.bytes(field)?)?;
                label_bytes += name.len() + text.len();
                if label_bytes > LABEL_BYTES_MAX {
                    return Err(DecodeError::LabelsTooLong);
                }
                series.labels.push((name, text));
            }
            2..=4 if series.item_count() == ITEMS_MAX => return Err(DecodeError::TooManyItems),
            2 => series.samples.push(read_sample(value.bytes(field)?)?),
            3 => series.exemplars.push(value.bytes(field)?),
            4 => series.histograms.push(value.bytes(field)?),
            _ => {}
        }
    }
    Ok(())
}

/// Labels of less than 128 bytes, each with its name before its value; `None` when there are other
/// ones, or what is not UTF-8. All is checked at once, since what stands between texts is ASCII.
fn read_plain_labels<'a>(bytes: &'a [u8], labels: &mut Vec<(&'a str, &'a str)>) -> Option<()> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut at = 0;
    while at < bytes.len() {
        let end = at + 2 + usize::from(*bytes.get(at + 1)?);
        let part = |at: usize, key: u8| {
            let (own, len) = (*bytes.get(at)?, usize::from(*bytes.get(at + 1)?));
            (own == key && len < 0x80).then_some(at + 2 + len)
        };
        let name_end = part(at + 2, NAME_KEY)?;
        let text_end = part(name_end, TEXT_KEY)?;
        if text_end != end || labels.len() == LABELS_MAX {
            return None;
        }
        labels.push((text.get(at + 4..name_end)?, text.get(name_end + 2..text_end)?));
        at = end;
    }
    Some(())
}

fn read_label(bytes: &[u8]) -> Result<(&str, &str), DecodeError> {
    let (mut name, mut text) = ("", "");
    let mut message = Message::new(bytes);
    while let Some((field, value)) = message.field()? {
        match field {
            1 => name = value.text(field)?,
            2 => text = value.text(field)?,
            _ => {}
        }
    }
    Ok((name, text))
}

/// Decodes an exemplar.
pub fn decode_exemplar(bytes: &[u8]) -> Result<Exemplar, DecodeError> {
    let mut exemplar = Exemplar { labels: Labels::empty(), value: 0.0, timestamp_ms: 0 };
    let mut labels = Vec::new();
    let mut message = Message::new(bytes);
    while let Some((field, value)) = message.field()? {
        match field {
            1 if labels.len() == LABELS_MAX => return Err(DecodeError::TooManyLabels),
            1 => labels.push(read_label(value.bytes(field)?)?),
            2 => exemplar.value = value.double(field)?,
            3 => exemplar.timestamp_ms = value.varint(field)? as i64,
            _ => {}
        }
    }
    exemplar.labels = Labels::from_pairs(labels);
    Ok(exemplar)
}

#[inline]
fn read_sample(bytes: &[u8]) -> Result<Sample, DecodeError> {
    // As everybody writes it: the value, unless it is zero, then the time.
    let (value, rest) = match bytes.split_first_chunk::<9>() {
        Some((&[VALUE_KEY, ref bits @ ..], rest)) => (f64::from_le_bytes(*bits), rest),
        _ => (0.0, bytes),
    };
    if let [TIMESTAMP_KEY, time @ ..] = rest {
        let mut time = Message::new(time);
        let timestamp_ms = time.varint()? as i64;
        if time.len() == 0 {
            return Ok(Sample { timestamp_ms, value });
        }
    }
    read_any_sample(bytes)
}

fn read_any_sample(bytes: &[u8]) -> Result<Sample, DecodeError> {
    let mut sample = Sample { timestamp_ms: 0, value: 0.0 };
    let mut message = Message::new(bytes);
    while let Some((field, value)) = message.field()? {
        match field {
            1 => sample.value = value.double(field)?,
            2 => sample.timestamp_ms = value.varint(field)? as i64,
            _ => {}
        }
    }
    Ok(sample)
}

fn read_metadata(bytes: &[u8]) -> Result<(&str, Metadata), DecodeError> {
    let (mut metric, mut metadata) = ("", Metadata::default());
    let mut message = Message::new(bytes);
    while let Some((field, value)) = message.field()? {
        match field {
            1 => metadata.metric_type = metric_type(value.varint(field)?),
            2 => metric = value.text(field)?,
            4 => value.text(field)?.clone_into(&mut metadata.help),
            5 => value.text(field)?.clone_into(&mut metadata.unit),
            _ => {}
        }
    }
    Ok((metric, metadata))
}

/// `MetricMetadata.MetricType` of the specification.
pub(super) fn metric_type(number: u64) -> MetricType {
    match number {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    struct ProstLabel {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ProstSample {
        #[prost(double, tag = "1")]
        value: f64,
        #[prost(int64, tag = "2")]
        timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ProstSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<ProstLabel>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<ProstSample>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ProstMetadata {
        #[prost(int32, tag = "1")]
        metric_type: i32,
        #[prost(string, tag = "2")]
        name: String,
        #[prost(string, tag = "4")]
        help: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ProstRequest {
        #[prost(message, repeated, tag = "1")]
        series: Vec<ProstSeries>,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<ProstMetadata>,
    }

    type Flat = Vec<(Vec<(String, String)>, Vec<(i64, u64)>)>;

    fn decoded(body: &[u8]) -> Result<Flat, DecodeError> {
        let mut all = Vec::new();
        let mut series = Series::default();
        let mut floats = Vec::new();
        decode(body, |item| {
            if let Item::Series(raw) = item {
                raw.read(&mut series)?;
                if raw.floats(&mut floats) {
                    let bits = |own: &Sample| (own.timestamp_ms, own.value.to_bits());
                    assert!(floats.iter().map(bits).eq(series.samples.iter().map(bits)));
                    assert!(series.histograms.is_empty() && series.exemplars.is_empty());
                }
                let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
                let labels = series.labels.iter().map(own).collect();
                let bits = |s: &Sample| (s.timestamp_ms, s.value.to_bits());
                all.push((labels, series.samples.iter().map(bits).collect()));
            }
            Ok::<(), DecodeError>(())
        })?;
        Ok(all)
    }

    proptest! {
        #[test]
        fn the_cursor_reads_what_prost_writes(
            series in prop::collection::vec((
                prop::collection::vec((".{0,8}", ".{0,8}"), 0..4),
                prop::collection::vec((any::<i64>(), 1..u64::MAX), 0..4),
            ), 0..5)
        ) {
            let request = ProstRequest {
                series: series.iter().map(|(labels, samples)| ProstSeries {
                    labels: labels.iter()
                        .map(|(name, value)| ProstLabel { name: name.clone(), value: value.clone() })
                        .collect(),
                    samples: samples.iter()
                        .map(|(timestamp, bits)| ProstSample { timestamp: *timestamp, value: f64::from_bits(*bits) })
                        .collect(),
                }).collect(),
                metadata: Vec::new(),
            };
            prop_assert_eq!(decoded(&request.encode_to_vec()).unwrap(), series);
        }

        #[test]
        fn no_bytes_make_it_panic_and_prost_agrees_on_what_is_valid(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            if let (Ok(request), Ok(own)) = (ProstRequest::decode(&bytes[..]), decoded(&bytes)) {
                prop_assert_eq!(own.len(), request.series.len());
            }
        }
    }

    #[test]
    fn what_a_small_body_can_ask_for_is_bounded() {
        let label = ProstLabel { name: "a".into(), value: "x".repeat(LABEL_BYTES_MAX) };
        let series = vec![ProstSeries { labels: vec![label], samples: Vec::new() }];
        let body = ProstRequest { series, metadata: Vec::new() }.encode_to_vec();
        assert_eq!(decoded(&body), Err(DecodeError::LabelsTooLong));
        // An empty sample takes two bytes.
        let samples = [0x12, 0x00].repeat(ITEMS_MAX + 1);
        let mut body = vec![0x0a];
        prost::encoding::encode_varint(samples.len() as u64, &mut body);
        body.extend(samples);
        assert_eq!(decoded(&body), Err(DecodeError::TooManyItems));
    }

    #[test]
    fn metadata_is_read_and_broken_bodies_are_told() {
        let metadata = vec![ProstMetadata { metric_type: 1, name: "a".into(), help: "h".into() }];
        let body = ProstRequest { series: Vec::new(), metadata }.encode_to_vec();
        let mut found = Vec::new();
        decode(&body, |item| {
            if let Item::Metadata { metric, metadata } = item {
                found.push((metric.to_owned(), metadata.metric_type, metadata.help));
            }
            Ok::<(), DecodeError>(())
        })
        .unwrap();
        assert_eq!(found, [("a".to_owned(), MetricType::Counter, "h".to_owned())]);
        assert_eq!(decoded(&body[..body.len() - 1]), Err(WireError::Truncated.into()));
        assert_eq!(decoded(&[0x0a, 0x03, 0x0a, 0x01]), Err(WireError::Truncated.into()));
        let wrong = WireError::WireType { field: 1, wire_type: 0 }.into();
        assert_eq!(decoded(&[0x08, 0x01]), Err(wrong));
    }
}
