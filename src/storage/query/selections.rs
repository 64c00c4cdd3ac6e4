//! Which series matchers found, kept as long as nothing changes that the answer depends on.
//!
//! An answer is kept when its matchers come a second time; the longest unused one is dropped when
//! the budget is spent.

use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::{HashMap, HashMapExt as _};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::columns::Places;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::storage::log::file::LogFile;
use crate::storage::registry::SeriesRef;
use crate::storage::registry::sets::{Sets, Span};
use crate::storage::select::{BLOCK_SERIES_MAX, Memo, Pairs, QueryError};
use crate::storage::version::Version;

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    matchers: String,
    /// State of the head's index; 0 when the head is not asked.
    pub head_changes: u64,
    /// Log files that may have samples, and how many series each has.
    pub logs: SmallVec<[(u64, u64); 2]>,
    /// Segments that may have samples: position in the version, number.
    pub segments: SmallVec<[(u32, u64); 2]>,
}

impl Key {
    /// A key without any file.
    pub fn new(matchers: &[Matcher]) -> Self {
        let texts: Vec<_> = matchers.iter().map(ToString::to_string).collect();
        let (logs, segments) = (SmallVec::new(), SmallVec::new());
        Self { matchers: texts.join(","), head_changes: 0, logs, segments }
    }

    /// Whether it may be asked for again when the head's index has changed so often.
    fn may_return(&self, head_changes: u64) -> bool {
        self.logs.is_empty() || self.head_changes == head_changes
    }
}

/// No series of the head.
const NOT_THERE: SeriesRef = SeriesRef::MAX;

/// Where series are, in label order: some twenty bytes each.
#[derive(Default)]
pub struct Located {
    /// In the head; [`NOT_THERE`]: only in segments.
    head: Box<[SeriesRef]>,
    /// Labels of those in the head.
    spans: Box<[Span]>,
    /// Of each series the end of its part of `segments`; empty when no series is in any.
    ends: Box<[u32]>,
    /// Positions of segments in the version, ascending for each series, and ordinals in them.
    segments: Box<[(u32, u32)]>,
}

impl Located {
    /// Of series in the head or not, and places in segments, in order of segments, with the
    /// series that each is of.
    pub fn new(
        head: impl Iterator<Item = Option<(SeriesRef, Span)>>,
        places: impl Iterator<Item = (usize, (u32, u32))> + Clone,
    ) -> Self {
        let in_head = head.map(|own| own.unwrap_or((NOT_THERE, Span::default())));
        let (head, spans): (Vec<_>, Vec<_>) = in_head.unzip();
        let mut ends = vec![0_u32; head.len()];
        let mut count = 0;
        for (series, _) in places.clone() {
            ends[series] += 1;
            count += 1;
        }
        if count == 0 {
            let (head, spans) = (head.into(), spans.into());
            return Self { head, spans, ..Self::default() };
        }
        // First the start of each part, which becomes its end as the part is filled.
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        let mut segments = vec![(0, 0); count];
        for (series, place) in places {
            segments[ends[series] as usize] = place;
            ends[series] += 1;
        }
        let (head, spans) = (head.into(), spans.into());
        Self { head, spans, ends: ends.into(), segments: segments.into() }
    }

    /// Number of the series in the head.
    pub fn head(&self, at: usize) -> Option<SeriesRef> {
        Some(self.head[at]).filter(|series| *series != NOT_THERE)
    }

    /// Positions of segments in the version, ascending, and ordinals in them.
    pub fn segments(&self, at: usize) -> &[(u32, u32)] {
        let Some(end) = self.ends.get(at) else { return &[] };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.segments[start as usize..*end as usize]
    }

    /// Only those series.
    fn of(&self, wanted: &[u32]) -> Self {
        let in_head = |at: &u32| Some((self.head(*at as usize)?, self.spans[*at as usize]));
        let places = wanted.iter().enumerate().flat_map(|(series, at)| {
            self.segments(*at as usize).iter().map(move |place| (series, *place))
        });
        Self::new(wanted.iter().map(in_head), places)
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.head)
            + size_of_val(&*self.spans)
            + size_of_val(&*self.ends)
            + size_of_val(&*self.segments)
    }
}

/// Labels of answers with at most so many series are kept with them.
const LABELS_KEPT_MAX: usize = 1 << 14;

/// An answer: series in label order and where they are.
pub struct Found {
    located: Located,
    /// Labels of series in the head.
    sets: Arc<Sets>,
    /// By block, once somebody has asked, of an answer with few series.
    labels: Box<[OnceLock<Arc<[Labels]>>]>,
    /// By block: log files, and where in them the samples are. The answer depends on how many
    /// series each file has, so what was found once stays as it is.
    places: Box<[Mutex<SmallVec<[(u64, Arc<Places>); 1]>>]>,
    /// What readers remember of the series.
    pub memo: Arc<Memo>,
    /// Log file and length up to which a query has read the columns of all series.
    prepared: AtomicU64,
}

impl Found {
    /// Series and the labels of those in the head.
    pub fn new(located: Located, sets: Arc<Sets>) -> Self {
        let blocks = located.head.len().div_ceil(BLOCK_SERIES_MAX);
        let kept = if located.head.len() <= LABELS_KEPT_MAX { blocks } else { 0 };
        Self {
            located,
            sets,
            labels: (0..kept).map(|_| OnceLock::new()).collect(),
            places: (0..blocks).map(|_| Mutex::default()).collect(),
            memo: Arc::default(),
            prepared: AtomicU64::new(0),
        }
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.located.head.len()
    }

    /// Where the series are.
    pub fn located(&self) -> &Located {
        &self.located
    }

    /// Only those series.
    pub fn of(&self, wanted: &[u32]) -> Self {
        Self::new(self.located.of(wanted), Arc::clone(&self.sets))
    }

    /// The labels of a series; `version` is that of the query.
    pub fn pairs<'a>(&'a self, at: usize, version: &'a Version) -> Result<Pairs<'a>, QueryError> {
        if self.located.head(at).is_none() {
            let (position, ordinal) = self.located.segments(at)[0];
            return version.segments[position as usize].segment.label_pairs(ordinal);
        }
        Ok(self.sets.pairs(self.located.spans[at]))
    }

    /// The labels of neighbouring series, all of a block for instance.
    pub fn block_labels(
        &self,
        series: Range<usize>,
        version: &Version,
    ) -> Result<Arc<[Labels]>, QueryError> {
        let kept = self.labels.get(series.start / BLOCK_SERIES_MAX);
        let kept = kept.filter(|_| self.is_block(&series));
        if let Some(known) = kept.and_then(OnceLock::get) {
            return Ok(Arc::clone(known));
        }
        let labels = series.map(|at| Ok(Labels::from_sorted(self.pairs(at, version)?)));
        let labels: Arc<[Labels]> = labels.collect::<Result<_, QueryError>>()?;
        if let Some(kept) = kept {
            let _ = kept.set(Arc::clone(&labels));
        }
        Ok(labels)
    }

    fn is_block(&self, series: &Range<usize>) -> bool {
        let end = self.len().min(series.start + BLOCK_SERIES_MAX);
        series.start.is_multiple_of(BLOCK_SERIES_MAX) && series.end == end
    }

    /// Where the samples of some series are in a log file.
    pub fn places(
        &self,
        log: u64,
        series: &Range<usize>,
        find: impl FnOnce() -> Places,
    ) -> Arc<Places> {
        let block = self.places.get(series.start / BLOCK_SERIES_MAX);
        let Some(block) = block.filter(|_| self.is_block(series)) else { return Arc::new(find()) };
        let mut known = block.lock();
        if let Some((_, places)) = known.iter().find(|(own, _)| *own == log) {
            return Arc::clone(places);
        }
        let places = Arc::new(find());
        known.push((log, Arc::clone(&places)));
        places
    }

    /// Whether this was asked before for a file of this length.
    pub fn is_prepared(&self, log: u64, bytes: u64) -> bool {
        let state = (log << 48) ^ bytes;
        self.prepared.swap(state, Ordering::Relaxed) == state
    }

    fn bytes(&self) -> usize {
        let labels = if self.labels.is_empty() {
            0
        } else {
            let texts: usize = self.located.spans.iter().map(|set| self.sets.len_bytes(*set)).sum();
            texts + self.len() * 3 * size_of::<Labels>()
        };
        // What is remembered is mostly numbers of a byte, a few times.
        labels + self.located.bytes() + self.len() * (Places::SERIES_BYTES + 8)
    }
}

/// Questions that are remembered: only who comes again is kept.
const SEEN_MAX: usize = 256;

/// Answers within a budget.
pub struct Selections {
    budget_bytes: usize,
    state: Mutex<State>,
    present: Mutex<HashMap<u64, (u64, Arc<RoaringBitmap>)>>,
}

struct State {
    all: HashMap<Key, Answer>,
    clock: u64,
    /// Hashes of the matchers seen lately, in turn.
    seen: Vec<u64>,
    hasher: foldhash::fast::RandomState,
}

struct Answer {
    found: Arc<Found>,
    bytes: usize,
    last_used: u64,
}

impl Selections {
    /// Keeps at most `budget_bytes`.
    pub fn new(budget_bytes: usize) -> Self {
        let state = State {
            all: HashMap::new(),
            clock: 0,
            seen: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
        };
        Self { budget_bytes, state: Mutex::new(state), present: Mutex::default() }
    }

    /// A kept answer.
    pub fn get(&self, key: &Key) -> Option<Arc<Found>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let answer = state.all.get_mut(key)?;
        answer.last_used = now;
        Some(Arc::clone(&answer.found))
    }

    /// Keeps an answer, perhaps.
    pub fn put(&self, key: Key, found: &Arc<Found>) {
        let mut state = self.state.lock();
        let hash = state.hasher.hash_one(&key.matchers);
        if !state.seen.contains(&hash) {
            if state.seen.len() == SEEN_MAX {
                state.seen.remove(0);
            }
            state.seen.push(hash);
            return;
        }
        let bytes = found.bytes() + key.matchers.len() + size_of::<(Key, Answer)>();
        if self.budget_bytes / 2 < bytes {
            return;
        }
        let State { all, clock, .. } = &mut *state;
        if !key.logs.is_empty() {
            all.retain(|own, _| own.may_return(key.head_changes));
        }
        let mut total = all.values().map(|answer| answer.bytes).sum::<usize>() + bytes;
        while self.budget_bytes < total {
            let oldest = all.iter().min_by_key(|(_, answer)| answer.last_used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            total -= all.remove(&oldest).map_or(0, |answer| answer.bytes);
        }
        all.insert(key, Answer { found: Arc::clone(found), bytes, last_used: *clock });
    }

    /// The series that have samples in a log file, as of now or a little earlier than the answer.
    pub fn present(&self, log: &LogFile) -> Arc<RoaringBitmap> {
        let directory = log.directory().read();
        let count = directory.chunk_count();
        if let Some((known, series)) = self.present.lock().get(&log.id())
            && *known == count
        {
            return Arc::clone(series);
        }
        let series = Arc::new(directory.series());
        self.present.lock().insert(log.id(), (count, Arc::clone(&series)));
        series
    }

    /// Forgets about files that are no more: older than `oldest_log`.
    pub fn forget_before(&self, oldest_log: u64) {
        self.present.lock().retain(|log, _| oldest_log <= *log);
        let is_there = |key: &Key| key.logs.iter().all(|(log, _)| oldest_log <= *log);
        self.state.lock().all.retain(|key, _| is_there(key));
    }
}
