//! Answering queries: which series, then their samples block by block.
//!
//! A query sees the commits that were published when it began, all or nothing of each: it holds a
//! version and how long the open log file was. The order in [`Store::snapshot`] matters: first the
//! length, then the registry, then the version; so every series of a visible commit is in the
//! registry, and what is no longer in the registry is in a segment of the version.

mod labels;
pub mod log_reader;
pub mod merge;
pub mod segment_reader;

use std::sync::Arc;

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::delete::visible;
use super::log::file::LogFile;
use super::registry::{Registry, SeriesRef};
use super::segment::Segment;
use super::select::{BlockSource, ColumnBlock, QueryError, SelectHints, Selection, SeriesMeta};
use super::store::Store;
use super::version::{OpenSegment, Version};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::TimeRange;
use merge::{Parts, Sharing};
use segment_reader::TimestampColumns;

/// What one query sees.
pub struct Snapshot {
    /// Files.
    pub version: Arc<Version>,
    /// The log file that was open.
    active_id: u64,
    /// How long it was.
    active_bytes: u64,
}

impl Snapshot {
    /// How much of a log file the query sees.
    pub fn limit_bytes(&self, log: &LogFile) -> u64 {
        match log.id().cmp(&self.active_id) {
            std::cmp::Ordering::Less => log.published_bytes(),
            std::cmp::Ordering::Equal => self.active_bytes,
            std::cmp::Ordering::Greater => 0,
        }
    }

    /// The visible log files that may have samples in the range, oldest first.
    fn logs(&self, range: TimeRange) -> impl Iterator<Item = &Arc<LogFile>> {
        let visible = self.version.logs.iter().filter(|log| log.id() <= self.active_id);
        visible.filter(move |log| log.directory().read().range().overlaps(range))
    }
}

impl Snapshot {
    /// The segments that may have samples in the range, with their positions in the version.
    fn segments(&self, range: TimeRange) -> impl Iterator<Item = (u32, &Arc<OpenSegment>)> {
        let all = (0..).zip(&self.version.segments);
        all.filter(move |(_, own)| own.segment.time_range().overlaps(range))
    }
}

/// Where the samples of one series of a selection are.
#[derive(Default)]
struct Source {
    head: Option<SeriesRef>,
    /// Positions of segments in the version, ascending, and ordinals in them.
    segments: SmallVec<[(u32, u32); 2]>,
}

struct Blocks {
    snapshot: Snapshot,
    range: TimeRange,
    sources: Vec<Source>,
    columns: TimestampColumns,
}

impl Store {
    /// Fixes what a query sees, and runs `look` on the registry as of then.
    pub fn snapshot<T>(&self, look: impl FnOnce(&Registry, &Snapshot) -> T) -> (Snapshot, T) {
        let active = self.active.load_full();
        let active_bytes = active.published_bytes();
        let registry = self.registry.read();
        let version = self.version.load_full();
        let snapshot = Snapshot { version, active_id: active.id(), active_bytes };
        let found = look(&registry, &snapshot);
        drop(registry);
        (snapshot, found)
    }

    /// See [`super::select::Select::select`].
    pub fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: &SelectHints,
    ) -> Result<Selection, QueryError> {
        let (snapshot, found) = self.snapshot(|registry, snapshot| {
            let series = head_series(registry, snapshot, matchers, range);
            let identified =
                |series| (registry.fingerprint(series), registry.labels(series), series);
            series.iter().map(identified).collect::<Vec<_>>()
        });
        let mut found = Found::new(found);
        for (position, own) in snapshot.segments(range) {
            let selected = own.segment.select(matchers)?;
            for ordinal in selected.into_iter().filter(|ordinal| own.shows(range, *ordinal)) {
                found.add(position, ordinal, &own.segment)?;
            }
        }
        let mut all = found.all;
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if hints.series_count_max > 0 {
            all.truncate(hints.series_count_max);
        }
        let (labels, sources): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let series = labels.into_iter().map(SeriesMeta::new).collect();
        let columns = TimestampColumns::default();
        Ok(Selection::new(series, Box::new(Blocks { snapshot, range, sources, columns })))
    }
}

/// The series of a selection while it is put together.
struct Found {
    all: Vec<(Labels, Source)>,
    by_fingerprint: HashMap<u128, u32, foldhash::fast::RandomState>,
}

impl Found {
    fn new(head: Vec<(u128, Labels, SeriesRef)>) -> Self {
        let mut by_fingerprint = HashMap::default();
        let mut all = Vec::with_capacity(head.len());
        for (fingerprint, labels, series) in head {
            by_fingerprint.insert(fingerprint, all.len() as u32);
            all.push((labels, Source { head: Some(series), segments: SmallVec::new() }));
        }
        Self { all, by_fingerprint }
    }

    fn add(&mut self, position: u32, ordinal: u32, segment: &Segment) -> Result<(), QueryError> {
        let next = self.all.len() as u32;
        let at = *self.by_fingerprint.entry(segment.fingerprint(ordinal)?).or_insert(next);
        if at == next {
            self.all.push((segment.labels(ordinal)?, Source::default()));
        }
        self.all[at as usize].1.segments.push((position, ordinal));
        Ok(())
    }
}

/// Series of the head that fulfil the matchers and may have samples in the range.
fn head_series(
    registry: &Registry,
    snapshot: &Snapshot,
    matchers: &[Matcher],
    range: TimeRange,
) -> RoaringBitmap {
    let mut logs = snapshot.logs(range).peekable();
    if logs.peek().is_none() {
        return RoaringBitmap::new();
    }
    let directories: Vec<_> =
        logs.map(|log| (log.directory().read(), snapshot.version.hidden_in_log(log))).collect();
    let matching = registry.index().select(matchers);
    let present = |series: &u32| {
        directories.iter().any(|(directory, hidden)| {
            let shows = || {
                let parts = visible(range, *series, hidden.iter().copied());
                parts.into_iter().any(|part| part.overlaps(directory.range()))
            };
            directory.has(*series) && (hidden.is_empty() || shows())
        })
    };
    matching.iter().filter(present).collect()
}

impl BlockSource for Blocks {
    fn block(&self, first: u32, count: usize) -> Result<ColumnBlock, QueryError> {
        let start = first as usize;
        let sources = self.sources.get(start..start + count).unwrap_or(&[]);
        let mut parts: Vec<Parts> = sources.iter().map(|_| Parts::default()).collect();
        let head: Vec<_> = (0..)
            .zip(sources)
            .filter_map(|(position, source)| Some((position, source.head?)))
            .collect();
        for (position, source) in sources.iter().enumerate() {
            for (segment, ordinal) in &source.segments {
                let own = &self.snapshot.version.segments[*segment as usize];
                let target = &mut parts[position];
                for range in own.visible(self.range, *ordinal) {
                    self.columns.read(*segment, &own.segment, *ordinal, range, target)?;
                }
            }
        }
        for log in self.snapshot.logs(self.range) {
            let limit_bytes = self.snapshot.limit_bytes(log);
            let hidden = self.snapshot.version.hidden_in_log(log);
            log_reader::read_visible(log, limit_bytes, &head, self.range, &hidden, &mut parts)?;
        }
        let mut sharing = Sharing::default();
        let series = parts.into_iter().map(|parts| parts.finish(&mut sharing)).collect();
        Ok(ColumnBlock { series })
    }
}
