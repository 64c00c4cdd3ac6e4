//! Bodies from anybody: expositions of all formats, remote write and read, OTLP.

use super::entry::{Entry, ParseError};
use super::exposition_proto::{self, Families};
use super::histogram::{DecodedHistogram, decode_remote};
use super::openmetrics::OpenMetricsParser;
use super::remote_read::ReadRequest;
use super::remote_write::{self, DecodeError, Item};
use super::series::{self, SeriesError};
use super::text::TextParser;
use super::{otlp, remote_write_v2};
use crate::base::fuzz::run;

/// Reads to the end; whether without an error. What a parser takes, the reader of labels knows.
fn read<'a>(entries: impl Iterator<Item = Result<Entry<'a>, ParseError>>) -> bool {
    let mut pairs = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else { return false };
        if let Entry::Sample(sample) = entry {
            let known = series::parse(sample.series, None, &mut pairs);
            assert_ne!(known, Err(SeriesError::Malformed), "{:?}", sample.series);
            if let Some(exemplar) = sample.exemplar {
                let known = series::parse(exemplar.labels, None, &mut pairs);
                assert_ne!(known, Err(SeriesError::Malformed), "{:?}", exemplar.labels);
            }
        }
    }
    true
}

#[test]
fn exposition_text() {
    run("exposition-text", 4_000, Vec::new(), |body| {
        let slow: Vec<_> = TextParser::new(body).collect();
        // The same with the line before known to be next.
        let mut parser = TextParser::new(body);
        for entry in &slow {
            if let Ok(Entry::Sample(sample)) = entry {
                let mut ahead = parser.clone();
                if let Some(known) = ahead.known_sample(sample.series) {
                    let same = known.value.to_bits() == sample.value.to_bits()
                        && known.timestamp_ms == sample.timestamp_ms
                        && known.series == sample.series;
                    assert!(same, "{known:?} {sample:?}");
                }
            }
            parser.next();
        }
        read(slow.into_iter())
    });
}

#[test]
fn openmetrics() {
    run("openmetrics", 4_000, Vec::new(), |body| {
        let mut parser = OpenMetricsParser::new(body);
        read(std::iter::from_fn(|| parser.next()))
    });
}

#[test]
fn remote_write() {
    run("remote-write", 4_000, Vec::new(), |body| {
        let mut bytes = 0;
        let mut series = remote_write::Series::default();
        let decoded = remote_write::decode(body, |item| {
            match item {
                Item::Series(raw) => {
                    raw.read(&mut series)?;
                    let labels = series.labels.iter();
                    bytes += labels.map(|(name, text)| name.len() + text.len()).sum::<usize>();
                    // Two bytes at least for each sample.
                    bytes += 2 * series.samples.len();
                    for own in &series.histograms {
                        bytes += own.len();
                        let _ = decode_remote(own).map(DecodedHistogram::into_checked);
                    }
                    for own in &series.exemplars {
                        bytes += own.len();
                        let _ = remote_write::decode_exemplar(own);
                    }
                }
                Item::Metadata { metric, metadata } => bytes += metric.len() + metadata.help.len(),
            }
            Ok::<(), DecodeError>(())
        });
        assert!(bytes <= body.len(), "no more comes out than was put in");
        decoded.is_ok()
    });
}

#[test]
fn remote_write_of_symbols() {
    run("remote-write-2", 4_000, Vec::new(), |body| {
        remote_write_v2::decode(body, |_, _, _| Ok::<(), DecodeError>(())).is_ok()
    });
}

#[test]
fn exposition_protobuf() {
    run("exposition-protobuf", 4_000, Vec::new(), |body| {
        for family in Families::new(body) {
            let Ok(family) = family else { return false };
            let read = family.each(|metric| {
                let _ = metric.native().map(DecodedHistogram::into_checked);
                for own in &metric.exemplars {
                    let _ = exposition_proto::decode_exemplar(own);
                }
                Ok::<(), ParseError>(())
            });
            if read.is_err() {
                return false;
            }
        }
        true
    });
}

#[test]
fn other_protobuf() {
    run("otlp", 4_000, Vec::new(), |body| {
        otlp::decode_protobuf(body).is_ok() | otlp::decode_json(body).is_ok()
    });
    run("remote-read", 2_000, Vec::new(), |body| ReadRequest::decode(body).is_ok());
}
