//! Staging of a batch: hashing and looking up series without holding up other writers.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use crate::model::metadata::Metadata;
use crate::storage::append::{Append, AppendError, Appended, OnReject, SeriesKey, Ticket};
use crate::storage::fingerprint::push_canonical;
use crate::storage::registry::SeriesRef;
use crate::storage::store::Store;

/// Samples that wait for their lookup: the registry is locked once for so many.
const PENDING_MAX: usize = 128;

/// A series as far as staging could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagedSeries {
    /// Known to the registry.
    Known(SeriesRef),
    /// Position in [`Staged::unknown`].
    Unknown(u32),
}

/// A sample to be judged.
#[derive(Clone, Copy, Debug)]
pub struct StagedSample {
    /// Its series.
    pub series: StagedSeries,
    /// Whether out-of-order data is refused.
    pub strict: bool,
    /// Its time.
    pub timestamp_ms: i64,
    /// Its value.
    pub bits: u64,
}

/// A series that the registry did not have when it was staged.
#[derive(Debug)]
pub struct UnknownSeries {
    /// Its fingerprint.
    pub fingerprint: u128,
    /// Its labels in canonical form.
    pub canonical: Box<[u8]>,
}

/// What a batch hands to the commit.
#[derive(Debug, Default)]
pub struct Staged {
    /// In order of arrival.
    pub samples: Vec<StagedSample>,
    /// May name a series twice.
    pub unknown: Vec<UnknownSeries>,
    /// In order of arrival.
    pub metadata: Vec<(String, Metadata)>,
}

struct Pending {
    fingerprint: u128,
    end: usize,
    strict: bool,
    timestamp_ms: i64,
    bits: u64,
}

/// A batch.
pub struct Batch {
    store: Arc<Store>,
    on_reject: OnReject,
    strict: bool,
    /// Canonical labels of `pending`, one after the other.
    text: Vec<u8>,
    pending: Vec<Pending>,
    last: Option<SeriesRef>,
    staged: Staged,
    /// Position in `staged.unknown` by fingerprint, so that each new series is kept once.
    unknown_by: HashMap<u128, u32>,
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
            strict: false,
            text: Vec::new(),
            pending: Vec::new(),
            last: None,
            staged: Staged::default(),
            unknown_by: HashMap::new(),
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
                None => {
                    let next = self.staged.unknown.len() as u32;
                    let fingerprint = pending.fingerprint;
                    let position = *self.unknown_by.entry(fingerprint).or_insert(next);
                    if position == next {
                        let canonical = Box::from(&self.text[start..pending.end]);
                        self.staged.unknown.push(UnknownSeries { fingerprint, canonical });
                    }
                    StagedSeries::Unknown(position)
                }
            };
            start = pending.end;
            let Pending { strict, timestamp_ms, bits, .. } = pending;
            self.staged.samples.push(StagedSample { series, strict, timestamp_ms, bits });
        }
        self.text.clear();
    }
}

impl Append for Batch {
    fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64) {
        let start = self.text.len();
        push_canonical(series, &mut self.text);
        let fingerprint = self.store.key.fingerprint(&self.text[start..]);
        let (end, strict, bits) = (self.text.len(), self.strict, value.to_bits());
        self.pending.push(Pending { fingerprint, end, strict, timestamp_ms, bits });
        if self.pending.len() == PENDING_MAX {
            self.look_up();
        }
    }

    fn metadata(&mut self, metric: &str, metadata: &Metadata) {
        let known = self.store.metadata.read();
        if known.get(metric) != Some(metadata) {
            self.staged.metadata.push((metric.to_owned(), metadata.clone()));
        }
    }

    fn reject_out_of_order(&mut self, yes: bool) {
        self.strict = yes;
    }

    fn commit(mut self: Box<Self>) -> Result<(Appended, Ticket), AppendError> {
        self.look_up();
        let staged = std::mem::take(&mut self.staged);
        self.store.commit(staged, self.on_reject)
    }
}
