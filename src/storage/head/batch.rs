//! Staging of a batch: hashing and looking up series without holding up other writers.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use crate::encoding::column::histogram::check_size;
use crate::model::exemplar::Exemplar;
use crate::model::histogram::{Histogram, ResetHint};
use crate::model::labels::Labels;
use crate::model::metadata::Metadata;
use crate::model::sample::{STALE_NAN_BITS, is_stale_nan};
use crate::storage::append::{
    Append, AppendByName, AppendError, Appended, NEW_SERIES_BYTES_MAX, OnReject,
    REJECTED_EXAMPLES_MAX, Recalled, RejectReason, Rejected, SERIES_BYTES_MAX, SeriesKey, Ticket,
};
use crate::storage::exemplars::StagedExemplar;
use crate::storage::fingerprint::{HashKey, is_canonical_of, parse_canonical, push_canonical};
use crate::storage::log::directory::NONE;
use crate::storage::log::histogram::{STALE_HISTOGRAM, push_histogram};
use crate::storage::metadata;
use crate::storage::options::StartTimestamps;
use crate::storage::registry::SeriesRef;
use crate::storage::registry::names::WireName;
use crate::storage::store::Store;

/// What stands for a histogram where newest samples are compared: the keyed hash makes it as good
/// as unique, among floats too. One that ends a series is the same as a float that does.
pub fn histogram_bits(key: HashKey, bytes: &[u8]) -> u64 {
    if bytes == STALE_HISTOGRAM { STALE_NAN_BITS } else { key.fingerprint(bytes) as u64 }
}

/// Samples that wait for their lookup: the registry is locked once for so many.
const PENDING_MAX: usize = 128;

/// Exemplars of one batch take at most so many bytes in the log and, each with some more, in memory;
/// further ones are left out.
const EXEMPLARS_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };
/// Of these.
const EXEMPLAR_EXTRA_BYTES: usize = 128;
/// Metadata of one batch, likewise.
const METADATA_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 32 << 20 };

/// A series as far as staging could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagedSeries {
    /// Known to the registry.
    Known(SeriesRef),
    /// Position in [`Staged::unknown`].
    Unknown(u32),
    /// Refused while staging: see [`Staged::refused`].
    Refused,
}

/// How a sample is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As usual.
    Usual,
    /// Out-of-order data is refused.
    Strict,
    /// The zero that a counter begins with: taken if it is the newest of its series; it does not
    /// count, and it is no harm when it is refused.
    Zero,
}

/// A sample to be judged.
#[derive(Clone, Copy, Debug)]
pub struct StagedSample {
    /// Its series.
    pub series: StagedSeries,
    /// What is refused, and whether that is told.
    pub manner: Manner,
    /// Its time.
    pub timestamp_ms: i64,
    /// Its value; for a histogram a hash of it, which no other one has.
    pub bits: u64,
    /// Position in [`Staged::histogram_ends`], or [`NONE`] for a float.
    pub histogram: u32,
}

/// A series that the registry did not have when it was staged.
#[derive(Debug)]
pub struct UnknownSeries {
    /// Its fingerprint.
    pub fingerprint: u128,
    /// Its labels in canonical form.
    pub canonical: Box<[u8]>,
}

/// Samples that were refused before anything was judged.
#[derive(Debug, Default)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// The first [`REJECTED_EXAMPLES_MAX`] of them.
    pub examples: Vec<Rejected>,
}

impl Refused {
    fn add(&mut self, reason: RejectReason, timestamp_ms: i64, labels: impl FnOnce() -> Labels) {
        self.count += 1;
        if self.examples.len() < REJECTED_EXAMPLES_MAX {
            self.examples.push(Rejected { reason, labels: labels(), timestamp_ms });
        }
    }
}

/// What a batch hands to the commit.
#[derive(Debug, Default)]
pub struct Staged {
    /// In order of arrival.
    pub samples: Vec<StagedSample>,
    /// May name a series twice.
    pub unknown: Vec<UnknownSeries>,
    /// Samples whose series are too long.
    pub refused: Refused,
    /// In order of arrival.
    pub metadata: Vec<(String, Metadata)>,
    /// In order of arrival.
    pub exemplars: Vec<StagedExemplar>,
    /// What series were called that were not known by that name.
    pub names: Vec<(StagedSeries, WireName)>,
    /// Bytes of all histograms, as in the log.
    pub histogram_bytes: Vec<u8>,
    /// Where each of them ends.
    pub histogram_ends: Vec<usize>,
    /// Position of one that ends a series: floats that do so become this one where they follow a
    /// histogram. It is there when any sample of the batch ends a series.
    pub stale_histogram: Option<u32>,
    /// Positions of samples whose start is known, ascending, and that start.
    pub starts: Vec<(u32, i64)>,
}

impl Staged {
    /// The bytes of a histogram.
    pub fn histogram(&self, position: u32) -> &[u8] {
        let position = position as usize;
        let start = position.checked_sub(1).map_or(0, |before| self.histogram_ends[before]);
        &self.histogram_bytes[start..self.histogram_ends[position]]
    }
}

struct Pending {
    fingerprint: u128,
    name: Option<WireName>,
    end: usize,
    manner: Manner,
    timestamp_ms: i64,
    bits: u64,
    histogram: u32,
}

/// A batch.
pub struct Batch {
    store: Arc<Store>,
    on_reject: OnReject,
    manner: Manner,
    /// Canonical labels of `pending`, one after the other.
    text: Vec<u8>,
    pending: Vec<Pending>,
    last: Option<SeriesRef>,
    staged: Staged,
    /// Position in `staged.unknown` by fingerprint, so that each new series is kept once.
    unknown_by: HashMap<u128, u32>,
    /// Of the next sample.
    start_ms: i64,
    /// Bytes of `staged.unknown`, of `staged.exemplars` and of `staged.metadata`.
    unknown_bytes: usize,
    exemplars_bytes: usize,
    metadata_bytes: usize,
    /// Keeps the numbers of `staged` from being given to other series.
    _pin: Arc<()>,
}

impl Batch {
    /// An empty batch.
    pub fn new(store: Arc<Store>, on_reject: OnReject) -> Self {
        let pin = store.registry.read().pin();
        Self {
            store,
            on_reject,
            manner: Manner::Usual,
            text: Vec::new(),
            pending: Vec::new(),
            last: None,
            staged: Staged::default(),
            unknown_by: HashMap::new(),
            start_ms: 0,
            unknown_bytes: 0,
            exemplars_bytes: 0,
            metadata_bytes: 0,
            _pin: pin,
        }
    }

    fn look_up(&mut self) {
        let registry = self.store.registry.read();
        let mut start = 0;
        for pending in self.pending.drain(..) {
            // A retired number may be freed before this batch is committed: such a series is named
            // by its labels, and found again under the writer's lock.
            let known = registry.find_after(self.last, pending.fingerprint);
            let series = match known.filter(|series| !registry.retired().contains(*series)) {
                Some(series) => {
                    self.last = Some(series);
                    StagedSeries::Known(series)
                }
                None => match self.unknown_by.entry(pending.fingerprint) {
                    Entry::Occupied(known) => StagedSeries::Unknown(*known.get()),
                    Entry::Vacant(new) => {
                        let canonical = &self.text[start..pending.end];
                        let bytes = canonical.len() + size_of::<UnknownSeries>();
                        if NEW_SERIES_BYTES_MAX < self.unknown_bytes + bytes {
                            let labels = || parse_canonical(canonical).unwrap_or_default();
                            let (reason, refused) =
                                (RejectReason::BatchTooLong, &mut self.staged.refused);
                            if pending.manner != Manner::Zero {
                                refused.add(reason, pending.timestamp_ms, labels);
                            }
                            StagedSeries::Refused
                        } else {
                            self.unknown_bytes += bytes;
                            let fingerprint = pending.fingerprint;
                            let canonical = Box::from(canonical);
                            let position = *new.insert(self.staged.unknown.len() as u32);
                            self.staged.unknown.push(UnknownSeries { fingerprint, canonical });
                            StagedSeries::Unknown(position)
                        }
                    }
                },
            };
            start = pending.end;
            let name = pending.name.filter(|_| series != StagedSeries::Refused);
            self.staged.names.extend(name.map(|name| (series, name)));
            let Pending { manner, timestamp_ms, bits, histogram, .. } = pending;
            let sample = StagedSample { series, manner, timestamp_ms, bits, histogram };
            self.staged.samples.push(sample);
        }
        self.text.clear();
    }

    fn stage(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, bits: u64, histogram: u32) {
        if self.pending.len() == PENDING_MAX {
            self.look_up();
        }
        let start = self.text.len();
        push_canonical(series, &mut self.text);
        if SERIES_BYTES_MAX < self.text.len() - start {
            self.text.truncate(start);
            return self.refuse(series, timestamp_ms);
        }
        let fingerprint = self.store.key.fingerprint(&self.text[start..]);
        let (end, manner, name) = (self.text.len(), self.manner, None);
        let start_ms = std::mem::take(&mut self.start_ms);
        if start_ms != 0 && self.store.options.start_timestamps.are_kept {
            let position = self.staged.samples.len() + self.pending.len();
            self.staged.starts.push((position as u32, start_ms));
        }
        self.pending.push(Pending {
            fingerprint,
            name,
            end,
            manner,
            timestamp_ms,
            bits,
            histogram,
        });
    }

    /// Refuses a sample of a series that is too long.
    #[cold]
    fn refuse(&mut self, series: SeriesKey<'_>, timestamp_ms: i64) {
        // Samples stay in their order, and none of those before is the last one that was staged.
        self.look_up();
        self.start_ms = 0;
        if self.manner != Manner::Zero {
            let reason = RejectReason::SeriesTooLong;
            self.staged.refused.add(reason, timestamp_ms, || series.to_labels());
        }
        let (series, manner) = (StagedSeries::Refused, self.manner);
        let sample = StagedSample { series, manner, timestamp_ms, bits: 0, histogram: NONE };
        self.staged.samples.push(sample);
    }
}

impl AppendByName for Batch {
    fn recall(&mut self, names: &[&[u8]], found: &mut Vec<Recalled>) {
        found.clear();
        let hash = &self.store.name_hash;
        let hashed = |name: &&[u8]| hash.hash(name).map_or(Recalled::TooLong, Recalled::Unknown);
        found.extend(names.iter().map(hashed));
        let registry = self.store.registry.read();
        let mut last = self.last;
        for own in found {
            if let Recalled::Unknown(name) = own
                && let Some(series) = registry.recall(last, *name)
            {
                *own = Recalled::Series(series);
                last = Some(series);
            }
        }
    }

    fn known_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) {
        if !self.pending.is_empty() {
            // Samples stay in their order.
            self.look_up();
        }
        if is_stale_nan(value) {
            self.stage_stale();
        }
        self.last = Some(series);
        self.staged.samples.push(StagedSample {
            series: StagedSeries::Known(series),
            manner: self.manner,
            timestamp_ms,
            bits: value.to_bits(),
            histogram: NONE,
        });
    }

    fn learn(&mut self, name: WireName) {
        if let Some(last) = self.pending.last_mut() {
            last.name = Some(name);
        }
    }
}

/// What a histogram begins with.
fn zero_like(own: &Histogram) -> Histogram {
    Histogram {
        reset_hint: ResetHint::CounterReset,
        schema: own.schema,
        zero_threshold: own.zero_threshold,
        custom_bounds: own.custom_bounds.clone(),
        ..Histogram::default()
    }
}

impl Batch {
    /// Stages the zero at the start of the next sample, if it is to have one.
    fn begin_with_zero(
        &mut self,
        series: SeriesKey<'_>,
        timestamp_ms: i64,
        like: Option<&Histogram>,
    ) {
        let start_ms = self.start_ms;
        let is_wanted = self.store.options.start_timestamps.begin_with_zero;
        if start_ms == 0 || !is_wanted || timestamp_ms <= start_ms {
            return;
        }
        self.start_ms = 0;
        let manner = std::mem::replace(&mut self.manner, Manner::Zero);
        match like {
            None => self.stage(series, start_ms, 0, NONE),
            Some(own) => self.stage_histogram(series, start_ms, &zero_like(own)),
        }
        (self.manner, self.start_ms) = (manner, start_ms);
    }

    fn stage_histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, histogram: &Histogram) {
        if histogram.is_stale() {
            let position = self.stage_stale();
            return self.stage(series, timestamp_ms, STALE_NAN_BITS, position);
        }
        let start = self.staged.histogram_bytes.len();
        push_histogram(histogram, &mut self.staged.histogram_bytes);
        let bits = histogram_bits(self.store.key, &self.staged.histogram_bytes[start..]);
        let position = self.staged.histogram_ends.len() as u32;
        self.staged.histogram_ends.push(self.staged.histogram_bytes.len());
        self.stage(series, timestamp_ms, bits, position);
    }

    /// The histogram that ends a series: nothing else of it counts.
    fn stage_stale(&mut self) -> u32 {
        let staged = &mut self.staged;
        *staged.stale_histogram.get_or_insert_with(|| {
            staged.histogram_bytes.extend_from_slice(&STALE_HISTOGRAM);
            staged.histogram_ends.push(staged.histogram_bytes.len());
            (staged.histogram_ends.len() - 1) as u32
        })
    }
}

impl Append for Batch {
    fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64) {
        self.begin_with_zero(series, timestamp_ms, None);
        if is_stale_nan(value) {
            self.stage_stale();
        }
        self.stage(series, timestamp_ms, value.to_bits(), NONE);
    }

    fn histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, histogram: &Histogram) {
        assert!(check_size(histogram), "a histogram was not checked");
        self.begin_with_zero(series, timestamp_ms, Some(histogram));
        self.stage_histogram(series, timestamp_ms, histogram);
    }

    fn exemplar(&mut self, series: SeriesKey<'_>, exemplar: &Exemplar) {
        if !exemplar.is_short() || self.store.exemplars_max() == 0 {
            return;
        }
        let last = self.staged.exemplars.last();
        let (fingerprint, canonical) = match last {
            Some(last) if is_canonical_of(&last.canonical, series) => {
                (last.fingerprint, Arc::clone(&last.canonical))
            }
            _ => {
                let mut canonical = Vec::new();
                push_canonical(series, &mut canonical);
                if SERIES_BYTES_MAX < canonical.len() {
                    return;
                }
                (self.store.key.fingerprint(&canonical), canonical.into())
            }
        };
        self.exemplars_bytes +=
            canonical.len() + exemplar.labels.heap_bytes() + EXEMPLAR_EXTRA_BYTES;
        if self.exemplars_bytes <= EXEMPLARS_BYTES_MAX {
            let exemplar = exemplar.clone();
            self.staged.exemplars.push(StagedExemplar { fingerprint, canonical, exemplar });
        }
    }

    fn metadata(&mut self, metric: &str, metadata: &Metadata) {
        let last = self.staged.metadata.last();
        let is_again = last.is_some_and(|(own, last)| own == metric && last == metadata);
        if is_again || !metadata::is_short(metric, metadata) {
            return;
        }
        if self.store.metadata.read().get(metric) == Some(metadata) {
            return;
        }
        self.metadata_bytes += metadata::bytes(metric, metadata);
        if self.metadata_bytes <= METADATA_BYTES_MAX {
            self.staged.metadata.push((metric.to_owned(), metadata.clone()));
        }
    }

    fn start(&mut self, start_ms: i64) {
        if self.store.options.start_timestamps != StartTimestamps::default() {
            self.start_ms = start_ms;
        }
    }

    fn reject_out_of_order(&mut self, yes: bool) {
        self.manner = if yes { Manner::Strict } else { Manner::Usual };
    }

    fn by_name(&mut self) -> Option<&mut dyn AppendByName> {
        Some(self)
    }

    fn commit(mut self: Box<Self>) -> Result<(Appended, Ticket), AppendError> {
        self.look_up();
        let staged = std::mem::take(&mut self.staged);
        if self.on_reject == OnReject::Abort
            && let Some(first) = staged.refused.examples.first()
        {
            self.store.metrics.too_long.add(staged.refused.count as f64);
            return Err(AppendError::Rejected(Box::new(first.clone())));
        }
        self.store.commit(staged, self.on_reject)
    }
}
