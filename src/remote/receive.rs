//! Remote write 1.0, receiving side: a compressed body becomes one batch of appends.
//!
//! As in Prometheus, a refused sample rolls the whole request back (400), series with invalid
//! labels are skipped and counted, and the answer waits until the batch is on disk.

use std::sync::Arc;

use tracing::warn;

use crate::base::metrics::{Number, Registry, Vector};
use crate::encoding::wire::remote_write::{self, DecodeError, Item, Series};
use crate::model::labels::METRIC_NAME;
use crate::storage::append::{Append, AppendError, Appender, Limited, OnReject, SeriesKey, Ticket};

/// Bytes of a request after decompression; Prometheus' limit.
pub const DECODED_BYTES_MAX: usize = 32 << 20;

/// Why a request was not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not a snappy block, or too large.
    #[error("snappy: {0}")]
    Compression(String),
    /// Not a write request.
    #[error("decode write request: {0}")]
    Decode(#[from] DecodeError),
    /// The store refused it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What was stored of a request.
#[derive(Debug)]
pub struct Written {
    /// Durable once waited for.
    pub ticket: Ticket,
    /// Float samples that are stored now, those among them that were there before.
    pub sample_count: u64,
    /// New series that a limit refused; the rest is stored.
    pub limited: Option<Box<Limited>>,
}

/// Takes remote-write requests.
#[derive(Clone)]
pub struct Receiver {
    store: Arc<dyn Appender>,
    invalid_labels: Number,
    dropped: Vector,
}

impl Receiver {
    /// A receiver that appends to `store`.
    pub fn new(store: Arc<dyn Appender>, metrics: &Registry) -> Self {
        let invalid_labels = metrics.counter(
            "prometheus_api_remote_write_invalid_labels_samples_total",
            "The total number of received remote write samples and histogram samples which contained invalid labels.",
        );
        let dropped = metrics.counters(
            "narthex_remote_write_dropped_total",
            "Received native histograms and exemplars that were not stored, because only floats are.",
            &["type"],
        );
        Self { store, invalid_labels, dropped }
    }

    /// Decompresses, decodes and commits one request. Blocks for as long as that computes, not for
    /// the disk: the caller waits for the ticket.
    pub fn write(&self, compressed: &[u8]) -> Result<Written, WriteError> {
        let body = decompress(compressed)?;
        let mut batch = self.store.appender(OnReject::Abort);
        let (mut histogram_count, mut exemplar_count) = (0, 0);
        let mut sorted = Vec::new();
        remote_write::decode(&body, |item| {
            match item {
                Item::Series(series) => {
                    histogram_count += series.histogram_count;
                    exemplar_count += series.exemplar_count;
                    self.stage(&mut *batch, series, &mut sorted);
                }
                Item::Metadata { metric, metadata } => batch.metadata(metric, &metadata),
            }
            Ok::<(), WriteError>(())
        })?;
        let (appended, ticket) = batch.commit()?;
        self.dropped.with(&["exemplar"]).add(exemplar_count as f64);
        if histogram_count > 0 {
            self.dropped.with(&["histogram"]).add(histogram_count as f64);
            warn!(count = histogram_count, "Native histograms of a remote write were not stored.");
        }
        Ok(Written { ticket, sample_count: appended.sample_count, limited: appended.limited })
    }

    fn stage<'a>(
        &self,
        batch: &mut dyn Append,
        series: &Series<'a>,
        sorted: &mut Vec<(&'a str, &'a str)>,
    ) {
        sorted.clear();
        sorted.extend(series.labels.iter().filter(|(_, value)| !value.is_empty()));
        if !sorted.is_sorted_by(|a, b| a.0 < b.0) {
            sorted.sort_by_key(|(name, _)| *name);
        }
        if !is_valid(sorted) {
            self.invalid_labels.add(series.samples.len() as f64);
            return;
        }
        for sample in &series.samples {
            batch.float(SeriesKey::Pairs(sorted), sample.timestamp_ms, sample.value);
        }
    }
}

/// A metric name, no empty and no repeated label name.
fn is_valid(sorted: &[(&str, &str)]) -> bool {
    sorted.iter().any(|(name, _)| *name == METRIC_NAME)
        && sorted.iter().all(|(name, _)| !name.is_empty())
        && sorted.windows(2).all(|pair| pair[0].0 != pair[1].0)
}

/// Undoes the compression of a body, up to [`DECODED_BYTES_MAX`].
pub fn decompress(compressed: &[u8]) -> Result<Vec<u8>, WriteError> {
    let error = |err: snap::Error| WriteError::Compression(err.to_string());
    let len = snap::raw::decompress_len(compressed).map_err(error)?;
    if len > DECODED_BYTES_MAX {
        let text = format!("decoded size {len} exceeds the limit of {DECODED_BYTES_MAX} bytes");
        return Err(WriteError::Compression(text));
    }
    snap::raw::Decoder::new().decompress_vec(compressed).map_err(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::model::histogram::Histogram;
    use crate::model::metadata::Metadata;
    use crate::storage::append::Appended;

    /// Remembers what was committed, as text.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    struct Batch {
        recorder: Recorder,
        staged: Vec<String>,
    }

    impl Appender for Recorder {
        fn appender(&self, on_reject: OnReject) -> Box<dyn Append> {
            assert_eq!(on_reject, OnReject::Abort);
            Box::new(Batch { recorder: self.clone(), staged: Vec::new() })
        }
    }

    impl Append for Batch {
        fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64) {
            self.staged.push(format!("{} {value} @{timestamp_ms}", series.to_labels()));
        }

        fn histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, own: &Histogram) {
            self.staged.push(format!("{} {own:?} @{timestamp_ms}", series.to_labels()));
        }

        fn metadata(&mut self, metric: &str, metadata: &Metadata) {
            self.staged.push(format!("{metric} is a {}", metadata.metric_type.as_str()));
        }

        fn reject_out_of_order(&mut self, _: bool) {}

        fn commit(self: Box<Self>) -> Result<(Appended, Ticket), AppendError> {
            self.recorder.0.lock().unwrap().extend(self.staged);
            Ok((Appended::default(), Ticket::settled(Ok(()))))
        }
    }

    /// One series, as protobuf: labels and one sample of value 1 at 5 ms.
    fn series(labels: &[(&str, &str)]) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| {
            let mut out = vec![number << 3 | 2, bytes.len() as u8];
            out.extend(bytes);
            out
        };
        let mut body = Vec::new();
        for (name, value) in labels {
            let pair = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
            body.extend(field(1, &pair));
        }
        let sample = [&[9][..], &1_f64.to_le_bytes(), &[16, 5]].concat();
        body.extend(field(2, &sample));
        field(1, &body)
    }

    fn write(body: &[u8]) -> (Result<Written, WriteError>, Vec<String>, f64) {
        let (recorder, registry) = (Recorder::default(), Registry::new());
        let receiver = Receiver::new(Arc::new(recorder.clone()), &registry);
        let compressed = snap::raw::Encoder::new().compress_vec(body).unwrap();
        let result = receiver.write(&compressed);
        let committed = recorder.0.lock().unwrap().clone();
        (result, committed, receiver.invalid_labels.get())
    }

    #[test]
    fn labels_are_sorted_cleaned_and_checked() {
        let body = [
            series(&[("b", "2"), ("__name__", "up"), ("c", ""), ("a", "1")]),
            series(&[("a", "no name")]),
            series(&[("__name__", "twice"), ("a", "1"), ("a", "2")]),
        ]
        .concat();
        let (result, committed, invalid) = write(&body);
        assert!(result.is_ok());
        assert_eq!(committed, [r#"{__name__="up", a="1", b="2"} 1 @5"#]);
        assert_eq!(invalid, 2.0);
    }

    #[test]
    fn broken_bodies_commit_nothing() {
        let mut body = series(&[("__name__", "up")]);
        body.extend([0x0a, 0x7f]);
        let (result, committed, _) = write(&body);
        assert!(matches!(result, Err(WriteError::Decode(DecodeError::Wire(_)))));
        assert!(committed.is_empty());
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(decompress(&bomb), Err(WriteError::Compression(_))));
    }
}
