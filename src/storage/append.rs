//! The writing face of the store: what scrapes, remote write and rules call.

use std::sync::{Arc, Condvar, Mutex};

use crate::model::exemplar::Exemplar;
use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::model::metadata::Metadata;
use crate::storage::registry::SeriesRef;
use crate::storage::registry::names::WireName;

/// Names and values of a series, each with one byte more, are refused when they are longer, wherever
/// they come from. Remote write had this limit before.
pub const SERIES_BYTES_MAX: usize = 64 << 10;
/// New series of one batch have labels of at most so many bytes: more than any honest scrape or
/// request, and no more memory than that for a dishonest one.
pub const NEW_SERIES_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };

/// How a writer names a series. Both forms are canonical: sorted by name, unique, no empty value.
#[derive(Clone, Copy, Debug)]
pub enum SeriesKey<'a> {
    /// A finished label set.
    Labels(&'a Labels),
    /// Pairs borrowed from a request body.
    Pairs(&'a [(&'a str, &'a str)]),
}

impl SeriesKey<'_> {
    /// The label set; allocates for [`SeriesKey::Pairs`].
    pub fn to_labels(self) -> Labels {
        match self {
            Self::Labels(labels) => labels.clone(),
            Self::Pairs(pairs) => Labels::from_sorted(pairs.iter().copied()),
        }
    }
}

/// What happens to a batch of which a sample is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReject {
    /// The sample is left out and counted; the rest is committed (scrapes, rules).
    Skip,
    /// Nothing of the batch is committed (remote write 1.0).
    Abort,
}

/// Why a sample was refused; the texts are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RejectReason {
    /// Older than the series' newest sample, and out-of-order data is not wanted.
    #[error("out of order sample")]
    OutOfOrder,
    /// Another value at the timestamp of the series' newest sample.
    #[error("duplicate sample for timestamp")]
    DuplicateTimestamp,
    /// Older than what the store still takes in order, or more than 10 minutes ahead of the clock.
    #[error("out of bounds")]
    OutOfBounds,
    /// Older than the out-of-order window.
    #[error("too old sample")]
    TooOld,
    /// See [`SERIES_BYTES_MAX`].
    #[error("labels of the series have more than {SERIES_BYTES_MAX} bytes")]
    SeriesTooLong,
    /// See [`NEW_SERIES_BYTES_MAX`].
    #[error("new series of one batch have labels of more than {NEW_SERIES_BYTES_MAX} bytes")]
    BatchTooLong,
}

/// One refused sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Why.
    pub reason: RejectReason,
    /// Its series.
    pub labels: Labels,
    /// Its timestamp.
    pub timestamp_ms: i64,
}

/// Letters of labels that an error text shows.
const SHOWN_LETTERS_MAX: usize = 2000;

impl Rejected {
    /// The labels, cut if they are long.
    pub fn shown_labels(&self) -> String {
        let mut shown = self.labels.to_string();
        if let Some((end, _)) = shown.char_indices().nth(SHOWN_LETTERS_MAX) {
            shown.truncate(end);
            shown.push('…');
        }
        shown
    }
}

/// Refused samples that a commit names; the rest is only counted.
pub const REJECTED_EXAMPLES_MAX: usize = 10;

/// What a commit did.
#[derive(Clone, Debug, Default)]
pub struct Appended {
    /// Samples taken in, including ones that were there already bit for bit.
    pub sample_count: u64,
    /// Native histograms among them.
    pub histogram_count: u64,
    /// Exemplars that are kept now, those that were there already included.
    pub exemplar_count: u64,
    /// Exemplars older than their series' newest one.
    pub exemplar_out_of_order_count: u64,
    /// Of these, how many belong to series of which every one in the batch was older. (A native
    /// histogram shows the same ones again and again.)
    pub exemplar_series_refused_count: u64,
    /// Series that did not exist in the head before.
    pub new_series_count: u64,
    /// Refused samples by reason.
    pub out_of_order_count: u64,
    /// See [`RejectReason::DuplicateTimestamp`].
    pub duplicate_count: u64,
    /// See [`RejectReason::OutOfBounds`].
    pub out_of_bounds_count: u64,
    /// See [`RejectReason::TooOld`].
    pub too_old_count: u64,
    /// See [`RejectReason::SeriesTooLong`] and [`RejectReason::BatchTooLong`].
    pub too_long_count: u64,
    /// New series that a limit refused, whatever [`OnReject`] says.
    pub limited: Option<Box<Limited>>,
    /// The first [`REJECTED_EXAMPLES_MAX`] of the refused samples.
    pub rejected_examples: Vec<Rejected>,
}

/// New series that were refused because there are as many as there may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Limited {
    /// How many.
    pub series_count: u64,
    /// Their samples.
    pub sample_count: u64,
    /// One of them.
    pub example: Labels,
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { series_count, sample_count, example } = self;
        write!(
            f,
            "limit of active series reached: {sample_count} samples of {series_count} new series \
             were not stored, for example of {example}"
        )
    }
}

impl Appended {
    /// Refused samples, whatever the reason.
    pub fn rejected_count(&self) -> u64 {
        self.out_of_order_count
            + self.duplicate_count
            + self.out_of_bounds_count
            + self.too_old_count
            + self.too_long_count
    }
}

/// Why a batch was not committed. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A sample was refused under [`OnReject::Abort`].
    #[error("{}: timestamp {} for series {}", .0.reason, .0.timestamp_ms, .0.shown_labels())]
    Rejected(Box<Rejected>),
    /// The disk is full; try again when space is back.
    #[error("no space left for new samples")]
    DiskFull,
    /// An earlier write or sync failed; the store takes nothing until it is restarted.
    #[error("writer stopped by an earlier write or sync failure")]
    Poisoned,
    /// This batch's write failed; the store is poisoned from now on.
    #[error("write samples: {0}")]
    Io(#[from] std::io::Error),
}

/// A sync failed after the batch had become visible.
#[derive(Clone, Debug, thiserror::Error)]
#[error("sync of samples to disk failed")]
pub struct SyncError;

/// Stages one batch (a scrape, a remote-write request, a rule's output).
pub trait Append: Send {
    /// Stages a sample. Any bit pattern is a value; the stale marker too.
    fn float(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, value: f64);

    /// Stages a native histogram, judged as floats are. It must have passed
    /// [`crate::encoding::column::histogram::check_size`].
    fn histogram(&mut self, series: SeriesKey<'_>, timestamp_ms: i64, histogram: &Histogram);

    /// Says when the counting began that the next staged sample tells of; 0: not known. It is
    /// stored with the sample if start timestamps are kept.
    fn start(&mut self, start_ms: i64);

    /// Stages an exemplar of a series. One whose labels are too long is left out, and so is one
    /// whose series has no sample in the head; a refused one is never a reason to refuse the batch.
    fn exemplar(&mut self, series: SeriesKey<'_>, exemplar: &Exemplar);

    /// Stages what is known of a metric family.
    fn metadata(&mut self, metric: &str, metadata: &Metadata);

    /// From now on, refuse samples older than their series' newest even within the out-of-order
    /// window: for the stale markers of a vanished target, which must not end series that live on
    /// elsewhere.
    fn reject_out_of_order(&mut self, yes: bool);

    /// How samples are staged by the bytes that name their series, when the store can do that.
    fn by_name(&mut self) -> Option<&mut dyn AppendByName> {
        None
    }

    /// Validates, frames, publishes. The batch is visible as a whole when this returns; durable
    /// once the ticket has been waited for. Does not wait for the disk's sync.
    fn commit(self: Box<Self>) -> Result<(Appended, Ticket), AppendError>;
}

/// What a store remembers of the bytes that name a series in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// They name this series.
    Series(SeriesRef),
    /// They may be remembered: see [`AppendByName::learn`].
    Unknown(WireName),
    /// They are too long to be remembered.
    TooLong,
}

/// Stages samples of known series without their labels.
pub trait AppendByName: Send {
    /// Tells for each of `names` which series it named the last time. What is recalled is good for
    /// this batch.
    fn recall(&mut self, names: &[&[u8]], found: &mut Vec<Recalled>);

    /// Stages a sample of a series that was recalled.
    fn known_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64);

    /// The series of the sample staged last, by its labels, goes by this name. It is remembered
    /// when the batch is committed.
    fn learn(&mut self, name: WireName);
}

/// A store that hands out batches.
pub trait Appender: Send + Sync + 'static {
    /// A new empty batch. Dropping it commits nothing.
    fn appender(&self, on_reject: OnReject) -> Box<dyn Append>;
}

/// Becomes durable when the sync that covers the commit has ended.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<TicketState>);

type Callback = Box<dyn FnOnce(Result<(), SyncError>) + Send>;

struct TicketState {
    result: Mutex<(Option<Result<(), SyncError>>, Vec<Callback>)>,
    done: Condvar,
    /// Called when somebody begins to wait.
    on_wanted: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for TicketState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketState")
    }
}

impl Ticket {
    /// A ticket that is settled later by [`Ticket::settle`].
    pub fn pending() -> Self {
        Self::new(None)
    }

    /// A pending ticket that tells `on_wanted` when somebody begins to wait for it.
    pub fn lazy(on_wanted: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self::new(Some(on_wanted))
    }

    fn new(on_wanted: Option<Arc<dyn Fn() + Send + Sync>>) -> Self {
        Self(Arc::new(TicketState { result: Mutex::default(), done: Condvar::new(), on_wanted }))
    }

    fn want(&self) {
        if let Some(on_wanted) = &self.0.on_wanted {
            on_wanted();
        }
    }

    /// A ticket that is settled already.
    pub fn settled(result: Result<(), SyncError>) -> Self {
        let ticket = Self::pending();
        ticket.settle(result);
        ticket
    }

    /// Tells everybody who waits. The first result stands.
    pub fn settle(&self, result: Result<(), SyncError>) {
        let mut state = self.lock();
        if state.0.is_some() {
            return;
        }
        state.0 = Some(result.clone());
        let callbacks = std::mem::take(&mut state.1);
        drop(state);
        self.0.done.notify_all();
        for callback in callbacks {
            callback(result.clone());
        }
    }

    /// Blocks until the commit is on disk as the sync policy promises. Not for async code: that
    /// uses [`Ticket::on_settled`].
    pub fn wait(self) -> Result<(), SyncError> {
        self.want();
        let mut state = self.lock();
        loop {
            if let Some(result) = &state.0 {
                return result.clone();
            }
            state = self.0.done.wait(state).expect("no panic while a ticket is locked");
        }
    }

    /// Calls back once, from the syncing thread or at once when it is settled already.
    pub fn on_settled(self, callback: impl FnOnce(Result<(), SyncError>) + Send + 'static) {
        let mut state = self.lock();
        match state.0.clone() {
            None => {
                state.1.push(Box::new(callback));
                drop(state);
                self.want();
            }
            Some(result) => {
                drop(state);
                callback(result);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<Result<(), SyncError>>, Vec<Callback>)> {
        self.0.result.lock().expect("no panic while a ticket is locked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_wakes_waiters_and_callbacks_once() {
        let ticket = Ticket::pending();
        let (sender, receiver) = std::sync::mpsc::sync_channel(2);
        let other = sender.clone();
        ticket.clone().on_settled(move |result| other.send(result.is_ok()).unwrap());
        let waiting = std::thread::spawn({
            let ticket = ticket.clone();
            move || ticket.wait()
        });
        ticket.settle(Ok(()));
        ticket.settle(Err(SyncError));
        assert!(waiting.join().unwrap().is_ok());
        ticket.on_settled(move |result| sender.send(result.is_ok()).unwrap());
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [true, true]);
    }
}
