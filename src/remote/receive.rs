//! Remote write, receiving side: a compressed body becomes one batch of appends.
//!
//! As in Prometheus, of version 1.0 a refused sample rolls the whole request back (400), and series
//! with invalid labels are skipped and counted. Of version 2.0 what is good is kept, and the answer
//! tells what was refused. Either way the answer waits until the batch is on disk.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::metrics::{Number, Registry};
use crate::encoding::wire::histogram::decode_remote;
use crate::encoding::wire::protobuf::WireError;
use crate::encoding::wire::remote_write::{self, DecodeError, ITEMS_MAX, Item, RawSeries};
use crate::encoding::wire::remote_write_v2::{self, ExemplarError, SymbolError, Symbols};
use crate::model::histogram::HistogramError;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::metadata::{Metadata, MetricType};
use crate::model::sample::Sample;
use crate::storage::append::{
    Append, AppendError, Appended, Appender, OnReject, Recalled, SeriesKey, Ticket,
};

/// Bytes of a request after decompression; Prometheus' limit.
pub const DECODED_BYTES_MAX: usize = 32 << 20;
/// Buffers of decompressed bodies that are kept, and how long they may be. Honest requests have
/// less than a megabyte.
const BUFFERS_MAX: usize = 8;
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Problems of a request that the answer names; the rest is only counted.
const REFUSED_MAX: usize = 10;
/// Series that are looked up together: their bytes are still in the nearest cache when they are
/// staged.
const PIECE_SERIES: usize = 128;

/// Why a request was not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not a snappy block, or too large.
    #[error("snappy: {0}")]
    Compression(String),
    /// Not a write request.
    #[error("decode write request: {0}")]
    Decode(#[from] DecodeError),
    /// A histogram makes no sense (version 1.0).
    #[error(transparent)]
    Histogram(#[from] HistogramError),
    /// The store refused it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<WireError> for WriteError {
    fn from(err: WireError) -> Self {
        Self::Decode(err.into())
    }
}

/// What a request is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`
    One,
    /// `io.prometheus.write.v2.Request`
    Two,
}

/// What was stored of a request, those samples included that were there before.
#[derive(Debug)]
pub struct Written {
    /// Durable once waited for.
    pub ticket: Ticket,
    /// Floats.
    pub sample_count: u64,
    /// Native histograms.
    pub histogram_count: u64,
    /// Exemplars.
    pub exemplar_count: u64,
    /// What was not stored, and why; of version 1.0 only new series beyond a limit.
    pub refused: Refused,
}

/// Problems of a request.
#[derive(Debug, Default)]
pub struct Refused {
    texts: Vec<String>,
    more_count: u64,
}

impl Refused {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.texts.len() < REFUSED_MAX {
            self.texts.push(text());
        } else {
            self.more_count += 1;
        }
    }

    /// One line for each; `None` when there is none.
    pub fn text(&self) -> Option<String> {
        if self.texts.is_empty() {
            return None;
        }
        let more = format!("\nand {} more", self.more_count);
        Some(self.texts.join("\n") + if self.more_count > 0 { &more } else { "" })
    }
}

/// Takes remote-write requests.
#[derive(Clone)]
pub struct Receiver {
    store: Arc<dyn Appender>,
    invalid_labels: Number,
    /// As many requests are decoded at the same time as there are cores, and one more for a core
    /// whose request waits for another one's commit.
    permits: Arc<Semaphore>,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// Some series of a request, which are looked up together, and buffers that are used again.
#[derive(Default)]
struct Piece<'a> {
    series: Vec<RawSeries<'a>>,
    names: Vec<&'a [u8]>,
    found: Vec<Recalled>,
    floats: Vec<Sample>,
    decoded: remote_write::Series<'a>,
    sorted: Pairs<'a>,
    /// Samples and exemplars of the request so far.
    item_count: usize,
}

impl Piece<'_> {
    /// Looks up what the store knows by its bytes; nothing if it does not do that.
    fn recall(&mut self, batch: &mut dyn Append) {
        self.found.clear();
        if let Some(batch) = batch.by_name() {
            self.names.clear();
            self.names.extend(self.series.iter().map(RawSeries::name));
            batch.recall(&self.names, &mut self.found);
        }
    }
}

impl Receiver {
    /// A receiver that appends to `store`.
    pub fn new(store: Arc<dyn Appender>, metrics: &Registry) -> Self {
        let invalid_labels = metrics.counter(
            "prometheus_api_remote_write_invalid_labels_samples_total",
            "The total number of received remote write samples and histogram samples which were rejected due to invalid labels.",
        );
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let permits = Arc::new(Semaphore::new(cores + 1));
        Self { store, invalid_labels, permits, buffers: Arc::default() }
    }

    /// To be held while a request is written: requests take turns, first come, first served.
    pub async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Decompresses, decodes and commits one request. Blocks for as long as that computes, not for
    /// the disk: the caller waits for the ticket.
    pub fn write(&self, compressed: &[u8], version: Version) -> Result<Written, WriteError> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let body = decompress_into(compressed, &mut buffer)?;
        let result = match version {
            Version::One => self.write_one(body),
            Version::Two => self.write_two(body),
        };
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX && buffer.len() <= BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
        result
    }

    fn write_one(&self, body: &[u8]) -> Result<Written, WriteError> {
        let mut batch = self.store.appender(OnReject::Abort);
        let mut piece = Piece::default();
        remote_write::decode(body, |item| {
            match item {
                Item::Series(series) => {
                    piece.series.push(series);
                    if piece.series.len() == PIECE_SERIES {
                        self.stage_piece(&mut *batch, &mut piece)?;
                    }
                }
                Item::Metadata { metric, metadata } => batch.metadata(metric, &metadata),
            }
            Ok::<(), WriteError>(())
        })?;
        self.stage_piece(&mut *batch, &mut piece)?;
        let (appended, ticket) = batch.commit()?;
        Ok(written(&appended, ticket, Refused::default()))
    }

    fn stage_piece(&self, batch: &mut dyn Append, piece: &mut Piece<'_>) -> Result<(), WriteError> {
        piece.recall(batch);
        let Piece { series, found, floats, decoded, sorted, item_count, .. } = piece;
        for (position, raw) in series.iter().enumerate() {
            let recalled = found.get(position).copied().unwrap_or(Recalled::TooLong);
            let is_plain = raw.floats(floats);
            if let Recalled::Series(known) = recalled
                && is_plain
                && let Some(batch) = batch.by_name()
            {
                *item_count += floats.len();
                for own in &*floats {
                    batch.known_float(known, own.timestamp_ms, own.value);
                }
            } else {
                raw.read(decoded)?;
                *item_count += decoded.item_count();
                let is_staged = self.stage_one(batch, decoded, sorted)?;
                // Its labels may be elsewhere too if it is not plain.
                if let Recalled::Unknown(name) = recalled
                    && is_plain
                    && is_staged
                    && let Some(batch) = batch.by_name()
                {
                    batch.learn(name);
                }
            }
            if *item_count > ITEMS_MAX {
                return Err(DecodeError::TooManyItems.into());
            }
        }
        series.clear();
        Ok(())
    }

    /// Stages a decoded series; false when there was nothing to stage.
    fn stage_one<'a>(
        &self,
        batch: &mut dyn Append,
        series: &remote_write::Series<'a>,
        sorted: &mut Pairs<'a>,
    ) -> Result<bool, WriteError> {
        sort(&series.labels, sorted);
        if !has_name(sorted) || repeated_name(sorted).is_some() {
            self.invalid_labels.add((series.samples.len() + series.histograms.len()) as f64);
            return Ok(false);
        }
        let key = SeriesKey::Pairs(sorted);
        for sample in &series.samples {
            batch.float(key, sample.timestamp_ms, sample.value);
        }
        for bytes in &series.histograms {
            let decoded = decode_remote(bytes)?;
            let timestamp_ms = decoded.timestamp_ms;
            batch.histogram(key, timestamp_ms, &decoded.into_checked()?);
        }
        for bytes in &series.exemplars {
            batch.exemplar(key, &remote_write::decode_exemplar(bytes)?);
        }
        Ok(!series.samples.is_empty() || !series.histograms.is_empty())
    }

    fn write_two(&self, body: &[u8]) -> Result<Written, WriteError> {
        let mut batch = self.store.appender(OnReject::Skip);
        let mut sorted = Vec::new();
        let mut refused = Refused::default();
        remote_write_v2::decode(body, |series, labels, symbols| {
            sort(&series.labels, &mut sorted);
            if let Err(text) = check_series(series, labels, &sorted) {
                let is_of_labels = !series.samples.is_empty() || !series.histograms.is_empty();
                if is_of_labels {
                    let count = series.samples.len() + series.histograms.len();
                    self.invalid_labels.add(count as f64);
                }
                refused.add(|| text);
                return Ok(());
            }
            stage_two(&mut *batch, series, symbols, &sorted, &mut refused)
        })?;
        let (appended, ticket) = batch.commit()?;
        for own in &appended.rejected_examples {
            refused.add(|| format!("{} for series {}", own.reason, own.shown_labels()));
        }
        let named = appended.rejected_examples.len() as u64;
        refused.more_count += appended.rejected_count().saturating_sub(named);
        for _ in 0..appended.exemplar_out_of_order_count {
            refused.add(|| "out of order exemplar".to_owned());
        }
        Ok(written(&appended, ticket, refused))
    }
}

fn written(appended: &Appended, ticket: Ticket, mut refused: Refused) -> Written {
    if let Some(limited) = &appended.limited {
        refused.add(|| limited.to_string());
    }
    let histogram_count = appended.histogram_count;
    Written {
        ticket,
        sample_count: appended.sample_count - histogram_count,
        histogram_count,
        exemplar_count: appended.exemplar_count,
        refused,
    }
}

/// What is wrong with a series as a whole, in Prometheus' words.
fn check_series(
    series: &remote_write_v2::Series<'_>,
    labels: Result<(), SymbolError>,
    sorted: &[(&str, &str)],
) -> Result<(), String> {
    labels.map_err(|err| format!("parsing labels for series: {err}"))?;
    let shown = || Labels::from_pairs(sorted.iter().copied());
    if !has_name(sorted) {
        return Err(format!("invalid metric name or labels, got {}", shown()));
    }
    if let Some(name) = repeated_name(sorted) {
        return Err(format!(
            "invalid labels for series, labels {}, duplicated label {name}",
            shown()
        ));
    }
    if series.samples.is_empty() && series.histograms.is_empty() {
        let text = "TimeSeries must contain at least one sample or histogram for series";
        return Err(format!("{text} {}", shown()));
    }
    Ok(())
}

fn stage_two(
    batch: &mut dyn Append,
    series: &remote_write_v2::Series<'_>,
    symbols: &Symbols<'_>,
    sorted: &[(&str, &str)],
    refused: &mut Refused,
) -> Result<(), WriteError> {
    let key = SeriesKey::Pairs(sorted);
    for sample in &series.samples {
        if sample.start_ms != 0 {
            batch.start(sample.start_ms);
        }
        batch.float(key, sample.timestamp_ms, sample.value);
    }
    for bytes in &series.histograms {
        let decoded = decode_remote(bytes)?;
        let (timestamp_ms, start_ms) = (decoded.timestamp_ms, decoded.start_ms);
        match decoded.into_checked() {
            Ok(histogram) => {
                batch.start(start_ms);
                batch.histogram(key, timestamp_ms, &histogram);
            }
            Err(err) => refused.add(|| format!("{err} for series {}", key.to_labels())),
        }
    }
    for bytes in &series.exemplars {
        match symbols.exemplar(bytes)? {
            Ok(exemplar) => batch.exemplar(key, &exemplar),
            Err(ExemplarError::TooLong) => {}
            Err(ExemplarError::References) => {
                refused.add(|| format!("parsing exemplar labels for series {}", key.to_labels()));
            }
        }
    }
    let (metric_type, help, unit) = (series.metric_type, series.help, series.unit);
    if metric_type != MetricType::Unknown || !help.is_empty() || !unit.is_empty() {
        let metadata = Metadata { metric_type, help: help.to_owned(), unit: unit.to_owned() };
        let name = sorted.iter().find(|(name, _)| *name == METRIC_NAME);
        batch.metadata(family(name.map_or("", |(_, name)| name), metric_type), &metadata);
    }
    Ok(())
}

/// The family that a series of this name belongs to.
fn family(name: &str, metric_type: MetricType) -> &str {
    let suffixes: &[&str] = match metric_type {
        MetricType::Histogram | MetricType::GaugeHistogram => &["_bucket", "_count", "_sum"],
        MetricType::Summary => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// Labels by name, without empty ones.
fn sort<'a>(labels: &[(&'a str, &'a str)], sorted: &mut Pairs<'a>) {
    sorted.clear();
    sorted.extend(labels.iter().filter(|(_, value)| !value.is_empty()));
    if !sorted.is_sorted_by(|a, b| a.0 < b.0) {
        sorted.sort_by_key(|(name, _)| *name);
    }
}

/// A metric name, and no empty label name.
fn has_name(sorted: &[(&str, &str)]) -> bool {
    sorted.iter().any(|(name, _)| *name == METRIC_NAME)
        && sorted.iter().all(|(name, _)| !name.is_empty())
}

fn repeated_name<'a>(sorted: &[(&'a str, &'a str)]) -> Option<&'a str> {
    sorted.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0)
}

/// Undoes the compression of a body, up to [`DECODED_BYTES_MAX`].
pub fn decompress(compressed: &[u8]) -> Result<Vec<u8>, WriteError> {
    let mut buffer = Vec::new();
    let len = decompress_into(compressed, &mut buffer)?.len();
    buffer.truncate(len);
    Ok(buffer)
}

/// The same into a buffer that is used again and only grows.
fn decompress_into<'a>(compressed: &[u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8], WriteError> {
    let error = |err: snap::Error| WriteError::Compression(err.to_string());
    let len = snap::raw::decompress_len(compressed).map_err(error)?;
    if len > DECODED_BYTES_MAX {
        let text = format!("decoded size {len} exceeds the limit of {DECODED_BYTES_MAX} bytes");
        return Err(WriteError::Compression(text));
    }
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let len = snap::raw::Decoder::new().decompress(compressed, buffer).map_err(error)?;
    Ok(&buffer[..len])
}

#[cfg(test)]
mod by_name_tests;
#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::encoding::wire::histogram::testing::remote;
    use crate::encoding::wire::protobuf::testing::{bytes, double, number};
    use crate::encoding::wire::remote_write_v2::testing as two;
    use crate::model::exemplar::Exemplar;
    use crate::model::histogram::{Histogram, Span};
    use crate::model::sample::{is_stale_nan, stale_nan};
    use crate::storage::append::{RejectReason, Rejected};

    /// Remembers what was committed, as text. Refuses samples before 5 ms.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    struct Batch {
        recorder: Recorder,
        staged: Vec<String>,
        appended: Appended,
        on_reject: OnReject,
    }

    impl Appender for Recorder {
        fn appender(&self, on_reject: OnReject) -> Box<dyn Append> {
            let (recorder, appended) = (self.clone(), Appended::default());
            Box::new(Batch { recorder, staged: Vec::new(), appended, on_reject })
        }
    }

    impl Batch {
        fn sample(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, shown: &str) -> bool {
            let labels = series.to_labels();
            if timestamp_ms < 5 {
                let reason = RejectReason::OutOfOrder;
                self.appended.out_of_order_count += 1;
                self.appended.rejected_examples.push(Rejected { reason, labels, timestamp_ms });
                return false;
            }
            self.staged.push(format!("{labels} {shown} @{timestamp_ms}"));
            self.appended.sample_count += 1;
            true
        }
    }

    impl Append for Batch {
        fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64) {
            self.sample(series, timestamp_ms, &value.to_string());
        }

        fn histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, own: &Histogram) {
            let stale = if is_stale_nan(own.sum) { "stale" } else { "" };
            let shown = format!("histogram of {} {:?} {stale}", own.count, own.positive_buckets);
            if self.sample(series, timestamp_ms, shown.trim_end()) {
                self.appended.histogram_count += 1;
            }
        }

        fn exemplar(&mut self, series: SeriesKey<'_>, own: &Exemplar) {
            let series = series.to_labels();
            self.staged
                .push(format!("{series} # {} {} {}", own.labels, own.value, own.timestamp_ms));
            self.appended.exemplar_count += 1;
        }

        fn metadata(&mut self, metric: &str, metadata: &Metadata) {
            let Metadata { metric_type, help, unit } = metadata;
            self.staged.push(format!("{metric} is a {} {help:?} {unit:?}", metric_type.as_str()));
        }

        fn start(&mut self, _: i64) {}

        fn reject_out_of_order(&mut self, _: bool) {}

        fn commit(self: Box<Self>) -> Result<(Appended, Ticket), AppendError> {
            if let (OnReject::Abort, Some(own)) =
                (self.on_reject, self.appended.rejected_examples.first())
            {
                return Err(AppendError::Rejected(Box::new(own.clone())));
            }
            self.recorder.0.lock().unwrap().extend(self.staged);
            Ok((self.appended, Ticket::settled(Ok(()))))
        }
    }

    fn sample(timestamp_ms: u64) -> Vec<u8> {
        bytes(2, [double(1, 1.0), number(2, timestamp_ms)].concat())
    }

    /// One series of version 1.0 with other parts of its message.
    fn series(labels: &[(&str, &str)], parts: &[Vec<u8>]) -> Vec<u8> {
        let pair =
            |(name, value): &(&str, &str)| bytes(1, [bytes(1, name), bytes(2, value)].concat());
        let labels: Vec<u8> = labels.iter().flat_map(pair).collect();
        bytes(1, [labels, parts.concat()].concat())
    }

    fn histogram() -> Histogram {
        Histogram {
            count: 3.0,
            sum: 2.5,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            ..Histogram::default()
        }
    }

    fn write(body: &[u8], version: Version) -> (Result<Written, WriteError>, Vec<String>, f64) {
        let (recorder, registry) = (Recorder::default(), Registry::new());
        let receiver = Receiver::new(Arc::new(recorder.clone()), &registry);
        let compressed = snap::raw::Encoder::new().compress_vec(body).unwrap();
        let result = receiver.write(&compressed, version);
        let committed = recorder.0.lock().unwrap().clone();
        (result, committed, receiver.invalid_labels.get())
    }

    #[test]
    fn labels_are_sorted_cleaned_and_checked() {
        let body = [
            series(&[("b", "2"), ("__name__", "up"), ("c", ""), ("a", "1")], &[sample(5)]),
            series(&[("a", "no name")], &[sample(5)]),
            series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[sample(5)]),
        ]
        .concat();
        let (result, committed, invalid) = write(&body, Version::One);
        assert!(result.is_ok());
        assert_eq!(committed, [r#"{__name__="up", a="1", b="2"} 1 @5"#]);
        assert_eq!(invalid, 2.0);
    }

    #[test]
    fn broken_bodies_commit_nothing() {
        let mut body = series(&[("__name__", "up")], &[sample(5)]);
        body.extend([0x0a, 0x7f]);
        let (result, committed, _) = write(&body, Version::One);
        let truncated = DecodeError::Wire(WireError::Truncated);
        assert!(matches!(result, Err(WriteError::Decode(err)) if err == truncated));
        assert!(committed.is_empty());
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(decompress(&bomb), Err(WriteError::Compression(_))));
    }

    #[test]
    fn version_one_brings_histograms_and_exemplars() {
        let stale = Histogram { sum: stale_nan(), ..Histogram::default() };
        let labels = bytes(1, [bytes(1, "trace_id"), bytes(2, "x")].concat());
        let exemplar = bytes(3, [labels, double(2, 0.5), number(3, 6)].concat());
        let own = |own: &Histogram, is_whole, ms| bytes(4, remote(own, is_whole, ms));
        let good = series(
            &[("__name__", "h")],
            &[
                own(&histogram(), true, 7),
                own(&stale, true, 8),
                exemplar,
                own(&histogram(), false, 9),
            ],
        );
        let (result, committed, _) = write(&good, Version::One);
        let written = result.unwrap();
        assert_eq!(
            (written.sample_count, written.histogram_count, written.exemplar_count),
            (0, 3, 1)
        );
        insta::assert_snapshot!(committed.join("\n"), @r#"
        {__name__="h"} histogram of 3 [1.0, 2.0] @7
        {__name__="h"} histogram of 0 [] stale @8
        {__name__="h"} histogram of 3 [1.0, 2.0] @9
        {__name__="h"} # {trace_id="x"} 0.5 6
        "#);
        let wrong = Histogram { count: 4.0, ..histogram() };
        let bad = [good, series(&[("__name__", "h")], &[own(&wrong, true, 10)])].concat();
        let (result, committed, _) = write(&bad, Version::One);
        insta::assert_snapshot!(result.unwrap_err(), @"3 observations found in buckets, but the Count field is 4: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)");
        assert!(committed.is_empty());
    }

    #[test]
    fn version_two_keeps_what_is_good_and_tells_the_rest() {
        let symbols = ["", "__name__", "h_bucket", "trace", "t", "help", "seconds", "a"];
        let wrong = Histogram { count: 4.0, ..histogram() };
        let all = [
            [
                two::references(&[1, 2]),
                two::sample(1.0, 7, 1),
                two::sample(2.0, 4, 1),
                bytes(3, remote(&histogram(), true, 8)),
                bytes(3, remote(&wrong, true, 9)),
                two::exemplar(&[3, 4], 0.5, 6),
                two::exemplar(&[3, 99], 0.5, 6),
                two::metadata(3, 5, 6),
            ]
            .concat(),
            [two::references(&[7, 2]), two::sample(1.0, 7, 0)].concat(),
            [two::references(&[1, 2, 7, 2, 7, 4]), two::sample(1.0, 7, 0)].concat(),
            [two::references(&[1]), two::sample(1.0, 7, 0)].concat(),
            two::references(&[1, 2]),
        ];
        let (result, committed, invalid) = write(&two::request(&symbols, &all), Version::Two);
        let written = result.unwrap();
        assert_eq!(
            (written.sample_count, written.histogram_count, written.exemplar_count),
            (1, 1, 1)
        );
        insta::assert_snapshot!(committed.join("\n"), @r#"
        {__name__="h_bucket"} 1 @7
        {__name__="h_bucket"} histogram of 3 [1.0, 2.0] @8
        {__name__="h_bucket"} # {trace="t"} 0.5 6
        h is a histogram "help" "seconds"
        "#);
        insta::assert_snapshot!(written.refused.text().unwrap(), @r#"
        3 observations found in buckets, but the Count field is 4: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN) for series {__name__="h_bucket"}
        parsing exemplar labels for series {__name__="h_bucket"}
        invalid metric name or labels, got {a="h_bucket"}
        invalid labels for series, labels {__name__="h_bucket", a="t"}, duplicated label a
        parsing labels for series: invalid labelRefs length 1
        TimeSeries must contain at least one sample or histogram for series {__name__="h_bucket"}
        out of order sample for series {__name__="h_bucket"}
        "#);
        assert_eq!(invalid, 3.0);
    }
}
