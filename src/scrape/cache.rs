//! What is remembered of a target's lines: which stored series each one means, which line follows
//! which, and which series were there at the last scrape.
//!
//! In the steady state a scrape compares each line with the one that followed the same line last
//! time: no table is asked and no label parsed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::Mutex;

use super::append::classic::PartOf;
use crate::model::labels::Labels;
use crate::model::metadata::{Metadata, MetricType};

/// Metadata of a family is kept for this many scrapes after its lines have gone.
const METADATA_SCRAPES_KEPT: u64 = 10;
/// After failed scrapes the cache may be twice as large as after the last good one, and this.
const LINES_SLACK: usize = 1000;

/// Index of a line in the cache.
pub(super) type LineId = u32;

/// What a metadata line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Type(MetricType),
    Help(String),
    Unit(String),
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A series with its stored labels.
    Series(Labels),
    /// A series that metric relabelling drops.
    Dropped,
    /// A series of a classic histogram that is converted; its stored labels if it is kept too.
    Part(LineId, PartOf, Option<Labels>),
    /// Tells since when other series are counted.
    Created,
    /// A metadata line of the family with this name.
    Metadata(Arc<str>, Statement),
}

impl Kind {
    /// Labels that it is stored under, if it is.
    fn labels(&self) -> Option<&Labels> {
        match self {
            Self::Series(labels) | Self::Part(_, _, Some(labels)) => Some(labels),
            Self::Dropped | Self::Part(_, _, None) | Self::Created | Self::Metadata(..) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Line {
    /// The series as written, or the whole metadata line.
    pub text: Box<[u8]>,
    pub kind: Kind,
    /// The line that came after it last time.
    next: Option<LineId>,
    /// The attempt that saw it last.
    seen: u64,
    /// The attempt in which it last took part in staleness.
    tracked: u64,
    /// Whether its series was there at the last good scrape.
    present: bool,
}

/// Families with what is known of them; shared with whoever shows it.
pub(super) type SharedMetadata = Arc<Mutex<BTreeMap<Arc<str>, Metadata>>>;

/// One target's memory.
pub(super) struct Cache {
    lines: Vec<Option<Line>>,
    free: Vec<LineId>,
    by_text: HashTable<LineId>,
    hasher: foldhash::fast::RandomState,
    /// Keys of the metrics that lines are parts of, by line; 0: unknown. Empty when nobody asks.
    metric_keys: Vec<u64>,
    first: Option<LineId>,
    attempt: u64,
    /// Lines whose series were there at the last good scrape.
    present_count: usize,
    /// Present lines seen again in this attempt.
    still_count: usize,
    /// Lines tracked in this attempt that were not present.
    fresh: Vec<LineId>,
    /// Lines seen in this attempt.
    seen_count: usize,
    /// Series that were present under label rules that no longer hold.
    carried: Vec<Labels>,
    /// Number of lines after the last good scrape.
    good_line_count: usize,
    metadata: SharedMetadata,
    /// Families whose metadata the store has not been told.
    untold: BTreeSet<Arc<str>>,
}

impl Cache {
    pub fn new(metadata: SharedMetadata) -> Self {
        Self {
            lines: Vec::new(),
            free: Vec::new(),
            by_text: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            metric_keys: Vec::new(),
            first: None,
            attempt: 1,
            present_count: 0,
            still_count: 0,
            fresh: Vec::new(),
            seen_count: 0,
            carried: Vec::new(),
            good_line_count: 0,
            metadata,
            untold: BTreeSet::new(),
        }
    }

    /// Number of lines remembered.
    pub fn line_count(&self) -> usize {
        self.lines.len() - self.free.len()
    }

    fn line(&self, id: LineId) -> &Line {
        self.lines[id as usize].as_ref().expect("ids name lines that exist")
    }

    fn line_mut(&mut self, id: LineId) -> &mut Line {
        self.lines[id as usize].as_mut().expect("ids name lines that exist")
    }

    /// Begins an attempt to read a body.
    pub fn begin(&mut self) {
        self.attempt += 1;
        self.still_count = 0;
        self.seen_count = 0;
        self.fresh.clear();
    }

    /// The line that came after `last` (`None`: the first) at an earlier scrape.
    pub fn predicted(&self, last: Option<LineId>) -> Option<(LineId, &Line)> {
        let id = match last {
            Some(last) => self.line(last).next?,
            None => self.first?,
        };
        Some((id, self.lines.get(id as usize)?.as_ref()?))
    }

    /// Remembers that `next` came after `last`.
    pub fn link(&mut self, last: Option<LineId>, next: LineId) {
        match last {
            Some(last) => self.line_mut(last).next = Some(next),
            None => self.first = Some(next),
        }
    }

    pub fn find(&self, text: &[u8]) -> Option<LineId> {
        let hash = self.hasher.hash_one(text);
        self.by_text.find(hash, |id| *self.line(*id).text == *text).copied()
    }

    /// Adds a line that is not there yet.
    pub fn insert(&mut self, text: &[u8], kind: Kind) -> LineId {
        let line =
            Line { text: text.into(), kind, next: None, seen: 0, tracked: 0, present: false };
        let id = if let Some(id) = self.free.pop() {
            self.lines[id as usize] = Some(line);
            id
        } else {
            self.lines.push(Some(line));
            LineId::try_from(self.lines.len() - 1).expect("a body has fewer than 2^32 lines")
        };
        let (lines, hasher) = (&self.lines, &self.hasher);
        let text_of = |id: &LineId| lines[*id as usize].as_ref().map(|line| &*line.text);
        let hash = hasher.hash_one(text);
        self.by_text.insert_unique(hash, id, |id| hasher.hash_one(text_of(id).unwrap_or_default()));
        id
    }

    /// For keys of metrics.
    pub fn hasher(&self) -> &foldhash::fast::RandomState {
        &self.hasher
    }

    /// Remembers the metric that a new line is a part of; 0: unknown.
    pub fn set_metric(&mut self, id: LineId, key: u64) {
        let at = id as usize;
        if self.metric_keys.len() <= at {
            self.metric_keys.resize(at + 1, 0);
        }
        self.metric_keys[at] = key;
    }

    /// The metric that a line is a part of; 0: unknown.
    pub fn metric(&self, id: LineId) -> u64 {
        self.metric_keys.get(id as usize).copied().unwrap_or(0)
    }

    /// Whether a line tells since when other series are counted.
    pub fn is_created(&self, id: LineId) -> bool {
        matches!(self.line(id).kind, Kind::Created)
    }

    /// Marks a line as seen in this attempt. `false`: it was already.
    pub fn see(&mut self, id: LineId) -> bool {
        let attempt = self.attempt;
        let line = self.line_mut(id);
        if line.seen == attempt {
            return false;
        }
        line.seen = attempt;
        self.seen_count += 1;
        true
    }

    /// Marks a metadata line as seen; says what it states when it was not seen last time.
    pub fn see_metadata(&mut self, id: LineId) -> Option<(Arc<str>, Statement)> {
        let attempt = self.attempt;
        let is_news = self.line(id).seen + 1 < attempt;
        self.see(id);
        match &self.line(id).kind {
            Kind::Metadata(metric, statement) if is_news => {
                Some((Arc::clone(metric), statement.clone()))
            }
            _ => None,
        }
    }

    /// Stored labels of a line; `None` when relabelling drops it.
    pub fn labels(&self, id: LineId) -> Option<&Labels> {
        self.line(id).kind.labels()
    }

    /// The converted histogram that a line belongs to, and what it tells of it.
    pub fn part(&self, id: LineId) -> Option<(LineId, PartOf)> {
        match &self.line(id).kind {
            Kind::Part(of, part, _) => Some((*of, *part)),
            _ => None,
        }
    }

    /// Family and type that a `# TYPE` line states.
    pub fn family(&self, id: LineId) -> Option<(&str, MetricType)> {
        match &self.line(id).kind {
            Kind::Metadata(metric, Statement::Type(metric_type)) => Some((metric, *metric_type)),
            _ => None,
        }
    }

    /// The line's series is there: should it vanish, it ends.
    pub fn track(&mut self, id: LineId) {
        let attempt = self.attempt;
        let line = self.line_mut(id);
        if line.tracked == attempt {
            return;
        }
        line.tracked = attempt;
        if line.present {
            self.still_count += 1;
        } else {
            self.fresh.push(id);
        }
    }

    /// Ends a good attempt: tells the series that were there before and are no more.
    pub fn end_good(&mut self) -> Vec<Labels> {
        let attempt = self.attempt;
        let mut vanished = std::mem::take(&mut self.carried);
        if self.still_count < self.present_count {
            for line in self.lines.iter_mut().flatten() {
                if line.present && line.tracked != attempt {
                    line.present = false;
                    if let Some(labels) = line.kind.labels() {
                        vanished.push(labels.clone());
                    }
                }
            }
        }
        for id in std::mem::take(&mut self.fresh) {
            self.line_mut(id).present = true;
            self.still_count += 1;
        }
        self.present_count = self.still_count;
        if !vanished.is_empty() {
            // Another line may mean the same series.
            let mut gone: HashSet<&Labels> = vanished.iter().collect();
            for line in self.lines.iter().flatten().filter(|line| line.present) {
                if let Some(labels) = line.kind.labels() {
                    gone.remove(labels);
                }
            }
            vanished = gone.into_iter().cloned().collect();
            vanished.sort();
        }
        self.good_line_count = self.seen_count;
        if self.seen_count < self.line_count() {
            self.remove(|line| match line.kind {
                Kind::Metadata(..) => line.seen + METADATA_SCRAPES_KEPT < attempt,
                _ => line.seen != attempt,
            });
        }
        vanished
    }

    /// Ends a failed attempt: tells all series that were there before. `true`: lines had to be
    /// forgotten to bound the cache.
    pub fn end_failed(&mut self) -> (Vec<Labels>, bool) {
        let attempt = self.attempt;
        let mut vanished = std::mem::take(&mut self.carried);
        for line in self.lines.iter_mut().flatten().filter(|line| line.present) {
            line.present = false;
            if let Some(labels) = line.kind.labels() {
                vanished.push(labels.clone());
            }
        }
        vanished.sort();
        vanished.dedup();
        self.present_count = 0;
        let is_full =
            |own: &Self| own.lines.len() - own.free.len() > 2 * own.good_line_count + LINES_SLACK;
        let flush = is_full(self);
        if flush {
            self.remove(|line| line.seen != attempt);
            if is_full(self) {
                self.remove(|_| true);
            }
        }
        (vanished, flush)
    }

    /// Forgets what lines mean, because label rules have changed, but not which series there are.
    pub fn forget_labels(&mut self) {
        let (present, _) = self.end_failed();
        self.carried = present;
        self.remove(|line| !matches!(line.kind, Kind::Metadata(..)));
    }

    fn remove(&mut self, unwanted: impl Fn(&Line) -> bool) {
        let mut metadata_left = HashSet::new();
        for id in 0..self.lines.len() {
            let Some(line) = &self.lines[id] else { continue };
            if !unwanted(line) {
                if let Kind::Metadata(metric, _) = &line.kind {
                    metadata_left.insert(Arc::clone(metric));
                }
                continue;
            }
            let (hash, id) = (self.hasher.hash_one(&*line.text), id as LineId);
            if let Ok(entry) = self.by_text.find_entry(hash, |own| *own == id) {
                entry.remove();
            }
            self.lines[id as usize] = None;
            self.free.push(id);
        }
        self.metadata.lock().retain(|metric, _| metadata_left.contains(metric));
    }

    /// Takes in a metadata statement.
    pub fn state(&mut self, metric: &Arc<str>, statement: Statement) {
        let mut families = self.metadata.lock();
        let known = families.get(metric);
        let mut metadata = known.cloned().unwrap_or_default();
        match statement {
            Statement::Type(metric_type) => metadata.metric_type = metric_type,
            Statement::Help(help) => metadata.help = help,
            Statement::Unit(unit) => metadata.unit = unit,
        }
        if known != Some(&metadata) {
            families.insert(Arc::clone(metric), metadata);
            self.untold.insert(Arc::clone(metric));
        }
    }

    /// Families whose metadata has changed since the last call.
    pub fn take_untold(&mut self) -> Vec<(Arc<str>, Metadata)> {
        let families = self.metadata.lock();
        let untold = std::mem::take(&mut self.untold).into_iter();
        untold
            .filter_map(|metric| families.get(&metric).cloned().map(|own| (metric, own)))
            .collect()
    }
}
