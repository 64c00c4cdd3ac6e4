//! Which series matchers found, kept as long as nothing changes that the answer depends on.
//!
//! An answer is kept when its matchers come a second time; the longest unused one is dropped when
//! the budget is spent.

use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::{HashMap, HashMapExt as _};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::Source;
use super::columns::Places;
use crate::model::matcher::Matcher;
use crate::storage::log::file::LogFile;
use crate::storage::select::{BLOCK_SERIES_MAX, Memo, SeriesMeta};

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

/// An answer: series in label order and where their samples are.
pub struct Found {
    /// The series.
    pub series: Arc<[SeriesMeta]>,
    /// As many sources.
    pub sources: Box<[Source]>,
    /// By block: log files, and where in them the samples are. The answer depends on how many
    /// series each file has, so what was found once stays as it is.
    places: Box<[Mutex<SmallVec<[(u64, Arc<Places>); 1]>>]>,
    /// What readers remember of the series.
    pub memo: Arc<Memo>,
    /// Log file and length up to which a query has read the columns of all series.
    prepared: AtomicU64,
}

impl Found {
    /// Series and as many sources.
    pub fn new(series: Arc<[SeriesMeta]>, sources: Box<[Source]>) -> Self {
        let blocks = sources.len().div_ceil(BLOCK_SERIES_MAX);
        let places = (0..blocks).map(|_| Mutex::default()).collect();
        Self { series, sources, places, memo: Arc::default(), prepared: AtomicU64::new(0) }
    }

    /// Where the samples of some series are in a log file.
    pub fn places(
        &self,
        log: u64,
        series: &Range<usize>,
        find: impl FnOnce() -> Places,
    ) -> Arc<Places> {
        let end = self.sources.len().min(series.start + BLOCK_SERIES_MAX);
        let block = self.places.get(series.start / BLOCK_SERIES_MAX);
        let is_block = series.start.is_multiple_of(BLOCK_SERIES_MAX) && series.end == end;
        let Some(block) = block.filter(|_| is_block) else { return Arc::new(find()) };
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
        let labels: usize = self.series.iter().map(|own| own.labels().heap_bytes()).sum();
        // What is remembered is mostly numbers of a byte, a few times.
        let each = size_of::<SeriesMeta>() + size_of::<Source>() + Places::SERIES_BYTES + 8;
        labels + self.series.len() * each
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
    }
}
