//! One commit: judge, frame, write, publish. All of it under the writer's lock.
//!
//! Readers see the commit when the file's published length passes its frame; series are bound and
//! rows are in the directory before that. After a failed write nothing more is taken.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::batch::{Manner, Staged, StagedSample, StagedSeries, UnknownSeries};
use super::groups::{Accepted, Groups, write_loose};
use super::judge::{Before, Bounds, NO_SAMPLE, Newest, Verdict};
use super::limits::Budget;
use super::starts::{START_BYTES_MAX, Started, WrittenStarts};
use crate::model::labels::Labels;
use crate::model::metadata::Metadata;
use crate::model::sample::STALE_NAN_BITS;
use crate::storage::append::{
    AppendError, Appended, Limited, OnReject, REJECTED_EXAMPLES_MAX, RejectReason, Rejected, Ticket,
};
use crate::storage::exemplars::StagedExemplar;
use crate::storage::fingerprint::parse_canonical;
use crate::storage::log::directory::NONE;
use crate::storage::log::exemplar::EXEMPLAR_BYTES_MAX;
use crate::storage::log::file::LogFile;
use crate::storage::log::format::{
    FRAME_HEADER_BYTES, Frame, FrameWriter, Section, push_metadata, push_sized, push_varint,
    push_zigzag,
};
use crate::storage::log::scan::add_to_directory;
use crate::storage::manifest::is_full;
use crate::storage::registry::names::WireName;
use crate::storage::registry::{Registry, SeriesRef};
use crate::storage::store::Store;

/// At most so many bytes of a frame are due to one sample: value, series, time, its share of
/// bitmaps and members, and the header of a row.
const SAMPLE_BYTES_MAX: usize = 48;
/// Section headers and varints before names.
const FRAME_EXTRA_BYTES: usize = 64;

/// How often it is told that a limit is met.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// What commits change. Guarded by the store's writer lock.
pub struct Writer {
    /// The open log file.
    pub active: Arc<LogFile>,
    /// Where its next frame goes.
    pub end_bytes: u64,
    /// The last commit.
    pub sequence: u64,
    /// Newest samples.
    pub newest: Newest,
    /// Newest sample of all.
    pub head_max_ms: Option<i64>,
    /// Rows' series.
    pub groups: Groups,
    /// Start timestamps in the open log file.
    pub starts: WrittenStarts,
    /// Whether the store was closed.
    pub is_closed: bool,
    frame: FrameWriter,
    accepted: Vec<Accepted>,
    histograms: Vec<AcceptedHistogram>,
    late: Vec<Late>,
    /// Newest samples before the batch.
    undo: Vec<(SeriesRef, Before)>,
    /// Series that had no sample before.
    fresh: Vec<SeriesRef>,
    /// Samples of series that are refused.
    limited_count: u64,
}

/// A histogram that is taken.
#[derive(Clone, Copy, Debug)]
struct AcceptedHistogram {
    series: SeriesRef,
    timestamp_ms: i64,
    /// Its position among the staged ones.
    position: u32,
    /// When counting began; 0: not known.
    start_ms: i64,
}

impl Started for AcceptedHistogram {
    fn series(&self) -> SeriesRef {
        self.series
    }

    fn start_ms(&self) -> i64 {
        self.start_ms
    }
}

/// An out-of-order sample that is taken.
#[derive(Clone, Copy, Debug)]
enum Late {
    Float(Accepted),
    Histogram(AcceptedHistogram),
}

impl Started for Late {
    fn series(&self) -> SeriesRef {
        match self {
            Self::Float(own) => own.series,
            Self::Histogram(own) => own.series,
        }
    }

    fn start_ms(&self) -> i64 {
        match self {
            Self::Float(own) => own.start_ms,
            Self::Histogram(own) => own.start_ms,
        }
    }
}

/// A new number for an unknown series, or the one that another commit gave it.
#[derive(Clone, Copy)]
struct Resolved {
    series: SeriesRef,
    is_new: bool,
    /// There are as many series as there may be; it has no number.
    is_refused: bool,
}

impl Resolved {
    fn known(series: SeriesRef) -> Self {
        Self { series, is_new: false, is_refused: false }
    }
}

impl Writer {
    /// A writer that goes on after commit `sequence`.
    pub fn new(
        active: Arc<LogFile>,
        sequence: u64,
        newest: Newest,
        head_max_ms: Option<i64>,
    ) -> Self {
        let end_bytes = active.published_bytes();
        let mut groups = Groups::default();
        groups.grow(newest.len());
        Self {
            active,
            end_bytes,
            sequence,
            newest,
            head_max_ms,
            groups,
            starts: WrittenStarts::default(),
            is_closed: false,
            frame: FrameWriter::default(),
            accepted: Vec::new(),
            late: Vec::new(),
            histograms: Vec::new(),
            undo: Vec::new(),
            fresh: Vec::new(),
            limited_count: 0,
        }
    }

    fn grow(&mut self, len: usize) {
        self.newest.grow(len);
        self.groups.grow(len);
    }

    /// Forgets the last batch, keeps the memory.
    fn forget_batch(&mut self) {
        self.accepted.clear();
        self.late.clear();
        self.histograms.clear();
        self.undo.clear();
        self.fresh.clear();
        self.limited_count = 0;
    }

    /// Judges all samples and remembers those that are taken. Under [`OnReject::Abort`] the first
    /// refused one ends it, and the writer is as before.
    fn judge(
        &mut self,
        staged: &Staged,
        resolved: &[Resolved],
        bounds: Bounds,
        on_reject: OnReject,
        reject: &mut dyn FnMut(&StagedSample, RejectReason),
    ) -> Result<(u64, u64), (usize, RejectReason)> {
        self.forget_batch();
        let mut bounds = bounds;
        let (mut count, mut histogram_count) = (0, 0);
        let mut starts = staged.starts.iter().peekable();
        for (position, sample) in staged.samples.iter().enumerate() {
            let start_ms = starts.next_if(|own| own.0 as usize == position).map_or(0, |own| own.1);
            let series = match sample.series {
                StagedSeries::Known(series) => series,
                StagedSeries::Refused => continue,
                StagedSeries::Unknown(position) => {
                    let own = resolved[position as usize];
                    if own.is_refused {
                        self.limited_count += 1;
                        continue;
                    }
                    own.series
                }
            };
            let newest = self.newest.get(series);
            let StagedSample { timestamp_ms, bits, manner, histogram, .. } = *sample;
            let strict = manner != Manner::Usual;
            let ends = bits == STALE_NAN_BITS;
            // A float and a histogram that end a series are told apart by nothing else.
            let changed = ends || bits != newest.1;
            let accepted = Accepted { series, timestamp_ms, bits, changed, start_ms };
            let histogram = match staged.stale_histogram {
                Some(stale) if ends && self.newest.is_histogram(series) => stale,
                _ => histogram,
            };
            let is_float = histogram == NONE;
            let as_histogram =
                AcceptedHistogram { series, timestamp_ms, position: histogram, start_ms };
            let judged_by = self.newest.get_for(series, timestamp_ms);
            match bounds.judge(judged_by, timestamp_ms, bits, strict) {
                Verdict::InOrder => {
                    if on_reject == OnReject::Abort {
                        self.undo.push((series, self.newest.before(series)));
                    }
                    if newest.0 == NO_SAMPLE {
                        self.fresh.push(series);
                    }
                    if is_float {
                        self.newest.set(series, timestamp_ms, bits);
                        self.accepted.push(accepted);
                    } else {
                        self.newest.set_histogram(series, timestamp_ms, bits);
                        self.histograms.push(as_histogram);
                    }
                }
                Verdict::Late if is_float => self.late.push(Late::Float(accepted)),
                Verdict::Late => self.late.push(Late::Histogram(as_histogram)),
                Verdict::Same | Verdict::Refused(_) if manner == Manner::Zero => continue,
                Verdict::Same => {}
                Verdict::Refused(reason) if on_reject == OnReject::Abort => {
                    self.undo();
                    return Err((position, reason));
                }
                Verdict::Refused(reason) => {
                    reject(sample, reason);
                    continue;
                }
            }
            // In an empty head the first sample tells where it begins.
            bounds.head_max_ms.get_or_insert(timestamp_ms);
            if manner != Manner::Zero {
                count += 1;
                histogram_count += u64::from(!is_float);
            }
        }
        Ok((count, histogram_count))
    }

    /// Makes the newest samples what they were before the batch.
    fn undo(&mut self) {
        for (series, before) in self.undo.drain(..).rev() {
            self.newest.restore(series, before);
        }
    }

    /// Writes the frame and lets readers see it; false when there is nothing to write.
    fn write(&mut self, staged: &Staged) -> io::Result<bool> {
        let base_ms = self.active.header().base_ms;
        if staged.starts.is_empty() && self.starts.is_empty() {
            self.groups.write(&mut self.accepted, base_ms, &mut self.frame);
            write_histograms(&self.histograms, staged, base_ms, &mut self.frame);
        } else {
            self.write_with_starts(staged, base_ms);
        }
        self.write_late(staged, base_ms);
        if self.frame.is_empty() {
            return Ok(false);
        }
        let (active, sequence) = (&self.active, self.sequence + 1);
        let bytes = self.frame.finish(active.id(), sequence, active.durable_bytes());
        let end_bytes = self.end_bytes + bytes.len() as u64;
        if end_bytes > active.allocated_bytes() {
            // Series and newest samples have moved on already: only a restart makes them right.
            return Err(io::Error::other("frame is longer than estimated"));
        }
        active.write_at(bytes, self.end_bytes)?;
        let frame =
            Frame { sequence, durable_bytes: 0, body_start: FRAME_HEADER_BYTES, end: bytes.len() };
        let mut directory = active.directory().write();
        let shift = self.end_bytes as u32;
        add_to_directory(&mut directory, bytes, &frame, base_ms, shift)
            .expect("own frames are well-formed");
        drop(directory);
        active.publish(end_bytes);
        self.end_bytes = end_bytes;
        self.sequence = sequence;
        // Late ones are older than these.
        let floats = self.accepted.iter().map(|sample| sample.timestamp_ms);
        let newest = floats.chain(self.histograms.iter().map(|own| own.timestamp_ms));
        self.head_max_ms = self.head_max_ms.max(newest.max());
        Ok(true)
    }

    /// Writes samples that are in order, those of one time together, behind their starts.
    fn write_with_starts(&mut self, staged: &Staged, base_ms: i64) {
        self.accepted.sort_by_key(|own| own.timestamp_ms);
        let mut rest = &mut *self.accepted;
        while let Some(first) = rest.first() {
            let now_ms = first.timestamp_ms;
            let now = rest.partition_point(|own| own.timestamp_ms == now_ms);
            let mut end = self.starts.tell(rest, now, base_ms, &mut self.frame);
            if let Some(next) = rest.get(end) {
                let next_ms = next.timestamp_ms;
                end = rest.partition_point(|own| own.timestamp_ms < next_ms);
            }
            let (part, behind) = rest.split_at_mut(end);
            self.groups.write(part, base_ms, &mut self.frame);
            rest = behind;
        }
        self.histograms.sort_by_key(|own| own.timestamp_ms);
        let mut rest = &*self.histograms;
        while let Some(first) = rest.first() {
            let now = rest.partition_point(|own| own.timestamp_ms == first.timestamp_ms);
            let end = self.starts.tell(rest, now, base_ms, &mut self.frame);
            let (part, behind) = rest.split_at(end);
            write_histograms(part, staged, base_ms, &mut self.frame);
            rest = behind;
        }
    }

    /// Writes late samples in the order in which they were accepted, whatever their kind.
    fn write_late(&mut self, staged: &Staged, base_ms: i64) {
        let is_float = |own: &Late| matches!(own, Late::Float(_));
        let mut rest = &*self.late;
        while let Some(first) = rest.first() {
            let end = self.starts.tell(rest, 1, base_ms, &mut self.frame);
            let other = rest[..end].iter().position(|own| is_float(own) != is_float(first));
            let (part, behind) = rest.split_at(other.unwrap_or(end));
            rest = behind;
            let (mut floats, mut histograms) = (Vec::new(), Vec::new());
            for own in part {
                match own {
                    Late::Float(own) => floats.push(*own),
                    Late::Histogram(own) => histograms.push(*own),
                }
            }
            write_loose(&floats, base_ms, &mut self.frame);
            write_histograms(&histograms, staged, base_ms, &mut self.frame);
        }
    }

    /// Out-of-order samples of the last commit: floats and histograms.
    fn late_counts(&self) -> [usize; 2] {
        let floats = self.late.iter().filter(|own| matches!(own, Late::Float(_))).count();
        [floats, self.late.len() - floats]
    }
}

/// Writes a section of histograms, in this order.
fn write_histograms(
    histograms: &[AcceptedHistogram],
    staged: &Staged,
    base_ms: i64,
    frame: &mut FrameWriter,
) {
    if histograms.is_empty() {
        return;
    }
    let out = frame.begin(Section::Histograms);
    let mut last = 0;
    for own in histograms {
        push_zigzag(out, i64::from(own.series) - last);
        last = i64::from(own.series);
        push_zigzag(out, own.timestamp_ms.wrapping_sub(base_ms));
        push_sized(out, staged.histogram(own.position));
    }
    frame.end();
}

impl Store {
    /// Commits a batch.
    pub fn commit(
        &self,
        mut staged: Staged,
        on_reject: OnReject,
    ) -> Result<(Appended, Ticket), AppendError> {
        let max_ms = self.clock.now_ms().saturating_add(self.options.future_ms_max);
        let mut writer = self.lock_writer();
        let writer = &mut *writer;
        if writer.is_closed || self.is_poisoned() {
            return Err(AppendError::Poisoned);
        }
        self.make_room(writer, &staged)?;
        let resolved = self.resolve(&staged.unknown);
        writer.grow(self.registry.read().bound_max());
        let window_ms = self.out_of_order_window_ms();
        let bounds = Bounds { max_ms, head_max_ms: writer.head_max_ms, window_ms };
        let refused = std::mem::take(&mut staged.refused);
        let mut appended = Appended {
            too_long_count: refused.count,
            rejected_examples: refused.examples,
            ..Appended::default()
        };
        let mut reject = |sample: &StagedSample, reason| {
            count_rejected(&mut appended, reason);
            if appended.rejected_examples.len() < REJECTED_EXAMPLES_MAX {
                let labels = self.labels_of(sample, &staged.unknown);
                let timestamp_ms = sample.timestamp_ms;
                appended.rejected_examples.push(Rejected { reason, labels, timestamp_ms });
            }
        };
        let judged = writer.judge(&staged, &resolved, bounds, on_reject, &mut reject);
        match judged {
            Ok((count, histograms)) => {
                (appended.sample_count, appended.histogram_count) = (count, histograms);
            }
            Err((position, reason)) => {
                self.release(resolved.iter().filter(|new| new.is_new));
                let sample = &staged.samples[position];
                let labels = self.labels_of(sample, &staged.unknown);
                let timestamp_ms = sample.timestamp_ms;
                count_rejected(&mut appended, reason);
                self.metrics.count_rejected(&appended);
                return Err(AppendError::Rejected(Box::new(Rejected {
                    reason,
                    labels,
                    timestamp_ms,
                })));
            }
        }
        self.metrics.count_rejected(&appended);
        appended.limited = self.limited(&staged.unknown, &resolved, writer.limited_count);
        appended.new_series_count = self.bind(writer, &staged.unknown, &resolved);
        self.learn(&staged.names, &resolved);
        self.add_metadata(writer, &staged.metadata);
        let (exemplars, base_ms) =
            (std::mem::take(&mut staged.exemplars), writer.active.header().base_ms);
        self.add_exemplars(exemplars, base_ms, max_ms, &mut appended, &mut writer.frame);
        self.revive(writer);
        let written = writer.write(&staged).map_err(|err| {
            self.poison("write to the log file failed", &err);
            AppendError::Io(err)
        })?;
        self.metrics.count_appended(&appended, writer.late_counts());
        let ticket =
            if written { self.syncer.written(writer.sequence) } else { self.syncer.newest() };
        Ok((appended, ticket))
    }

    /// Rotates when the open log file might not hold the batch.
    fn make_room(&self, writer: &mut Writer, staged: &Staged) -> Result<(), AppendError> {
        let series: usize = staged.unknown.iter().map(|new| new.canonical.len() + 15).sum();
        let texts = |(metric, own): &(String, Metadata)| {
            metric.len() + own.help.len() + own.unit.len() + 16
        };
        let metadata: usize = staged.metadata.iter().map(texts).sum();
        let samples = staged.samples.len() * SAMPLE_BYTES_MAX + staged.histogram_bytes.len();
        // What ends a text in canonical form is not longer than what tells its length in memory.
        let exemplar = |own: &StagedExemplar| {
            EXEMPLAR_BYTES_MAX + own.canonical.len() + own.exemplar.labels.heap_bytes()
        };
        let exemplars: usize = staged.exemplars.iter().map(exemplar).sum();
        let has_starts = !staged.starts.is_empty() || !writer.starts.is_empty();
        let starts = if has_starts { staged.samples.len() * START_BYTES_MAX } else { 0 };
        let fixed = FRAME_HEADER_BYTES + FRAME_EXTRA_BYTES;
        let bytes = fixed + series + metadata + samples + exemplars + starts;
        let end_bytes = writer.end_bytes + bytes as u64;
        let made = if writer.active.allocated_bytes() < end_bytes && !self.may_grow() {
            Err(io::ErrorKind::StorageFull.into())
        } else if end_bytes <= writer.active.capacity_bytes() {
            writer.active.reserve(end_bytes)
        } else {
            self.rotate(writer, bytes as u64)
        };
        self.note_space(made.as_ref().is_err_and(is_full));
        made.map_err(|err| match err.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::DiskFull,
            io::ErrorKind::FileTooLarge => AppendError::Io(err),
            _ => {
                self.poison("log file could not be begun or grown", &err);
                AppendError::Io(err)
            }
        })
    }

    /// Finds or reserves numbers for series that staging did not find.
    fn resolve(&self, unknown: &[UnknownSeries]) -> Vec<Resolved> {
        if unknown.is_empty() {
            return Vec::new();
        }
        let mut registry = self.registry.write();
        // Positions in `resolved` of new ones, by fingerprint.
        let mut new = hashbrown::HashTable::<u32>::with_capacity(unknown.len());
        let mut resolved: Vec<Resolved> = Vec::with_capacity(unknown.len());
        let limits = self.limits.load();
        let mut budget = limits.is_any().then(|| Budget::new(&limits, &registry));
        for (position, series) in (0_u32..).zip(unknown) {
            let fingerprint = series.fingerprint;
            let same = |other: &u32| unknown[*other as usize].fingerprint == fingerprint;
            let known = registry.find(fingerprint);
            // One that was retired comes back: it counts as a new one.
            let is_back = known.is_some_and(|known| registry.retired().contains(known));
            if let Some(known) = known.filter(|_| !is_back || budget.is_none()) {
                resolved.push(Resolved::known(known));
            } else if let Some(earlier) = new.find(fingerprint as u64, same) {
                let series = resolved[*earlier as usize].series;
                resolved.push(Resolved::known(series));
            } else if let Some(budget) = &mut budget
                && !budget.take(&registry, &series.canonical)
            {
                let series = SeriesRef::MAX;
                resolved.push(Resolved { series, is_new: false, is_refused: true });
            } else if let Some(known) = known {
                resolved.push(Resolved::known(known));
            } else {
                let hash = |other: &u32| unknown[*other as usize].fingerprint as u64;
                new.insert_unique(fingerprint as u64, position, hash);
                let series = registry.reserve();
                resolved.push(Resolved { series, is_new: true, is_refused: false });
            }
        }
        resolved
    }

    /// What a limit refused, told to people once a minute.
    fn limited(
        &self,
        unknown: &[UnknownSeries],
        resolved: &[Resolved],
        sample_count: u64,
    ) -> Option<Box<Limited>> {
        let mut refused = unknown.iter().zip(resolved).filter(|(_, own)| own.is_refused);
        let example = parse_canonical(&refused.next()?.0.canonical).unwrap_or_default();
        let series_count = 1 + refused.count() as u64;
        let limited = Limited { series_count, sample_count, example };
        self.metrics.limited_samples.add(sample_count as f64);
        let (now, mut told) = (self.clock.monotonic(), self.limit_told.lock());
        if told.is_none_or(|then| TELL_EVERY <= now.saturating_sub(then)) {
            *told = Some(now);
            warn!(reason = %limited, "New series are refused; known ones go on.");
        }
        Some(Box::new(limited))
    }

    fn release<'a>(&self, unused: impl Iterator<Item = &'a Resolved>) {
        let mut registry = self.registry.write();
        unused.for_each(|new| registry.release(new.series));
    }

    /// Binds new series that have a sample now, and begins the frame with their definitions.
    fn bind(&self, writer: &mut Writer, unknown: &[UnknownSeries], resolved: &[Resolved]) -> u64 {
        writer.frame.clear();
        if !resolved.iter().any(|new| new.is_new) {
            return 0;
        }
        let mut registry = self.registry.write();
        let mut count = 0;
        let out = writer.frame.begin(Section::Series);
        for (series, own) in unknown.iter().zip(resolved).filter(|(_, own)| own.is_new) {
            if writer.newest.get(own.series).0 == NO_SAMPLE {
                registry.release(own.series);
                continue;
            }
            let labels = parse_canonical(&series.canonical).unwrap_or_default();
            registry.bind(own.series, series.fingerprint, &series.canonical, &labels);
            push_varint(out, u64::from(own.series));
            push_sized(out, &series.canonical);
            count += 1;
        }
        writer.frame.end();
        if count == 0 {
            writer.frame.clear();
        }
        count
    }

    /// Remembers what senders call the series of a batch that is taken.
    fn learn(&self, names: &[(StagedSeries, WireName)], resolved: &[Resolved]) {
        if names.is_empty() {
            return;
        }
        let mut registry = self.registry.write();
        for (series, name) in names {
            match *series {
                StagedSeries::Known(series) => registry.learn(series, *name),
                StagedSeries::Refused => {}
                StagedSeries::Unknown(position) => {
                    registry.learn(resolved[position as usize].series, *name);
                }
            }
        }
    }

    /// Keeps metadata that differs from what is known, and adds it to the frame.
    fn add_metadata(&self, writer: &mut Writer, staged: &[(String, Metadata)]) {
        if staged.is_empty() {
            return;
        }
        let mut known = self.metadata.write();
        let mut changed = Vec::new();
        for (metric, metadata) in staged {
            if known.get(metric) != Some(metadata) && known.insert(metric, metadata) {
                changed.push((metric, metadata));
            }
        }
        if changed.is_empty() {
            return;
        }
        let out = writer.frame.begin(Section::Metadata);
        for (metric, metadata) in changed {
            push_metadata(out, metric, metadata);
        }
        writer.frame.end();
    }

    /// Brings back retired series that have a sample again.
    fn revive(&self, writer: &Writer) {
        let is_retired = |registry: &Registry| {
            writer.fresh.iter().any(|series| registry.retired().contains(*series))
        };
        if writer.fresh.is_empty() || !is_retired(&self.registry.read()) {
            return;
        }
        let mut registry = self.registry.write();
        writer.fresh.iter().for_each(|series| registry.revive(*series));
    }

    fn labels_of(&self, sample: &StagedSample, unknown: &[UnknownSeries]) -> Labels {
        match sample.series {
            StagedSeries::Known(series) => self.registry.read().labels(series),
            StagedSeries::Refused => Labels::empty(),
            StagedSeries::Unknown(position) => {
                parse_canonical(&unknown[position as usize].canonical).unwrap_or_default()
            }
        }
    }
}

fn count_rejected(appended: &mut Appended, reason: RejectReason) {
    *match reason {
        RejectReason::OutOfOrder => &mut appended.out_of_order_count,
        RejectReason::DuplicateTimestamp => &mut appended.duplicate_count,
        RejectReason::OutOfBounds => &mut appended.out_of_bounds_count,
        RejectReason::TooOld => &mut appended.too_old_count,
        RejectReason::SeriesTooLong | RejectReason::BatchTooLong => &mut appended.too_long_count,
    } += 1;
}
