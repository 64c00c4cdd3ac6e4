//! Columns of series read from the rows of log files, kept between queries.
//!
//! A row holds one moment of a group, so a series' samples are scattered over the whole file. The
//! first query that wants a series goes through the rows once, for all series it wants of a group;
//! later ones only through the rows that came since. Columns are dropped, longest unused group
//! first, when they take more than the budget. A column may be longer than what a query sees; what
//! is before stays as it is, because files only grow.

use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::base::disk::Map;
use crate::model::sample::{TimeRange, is_stale_nan};
use crate::storage::log::directory::Directory;
use crate::storage::log::file::LogFile;
use crate::storage::log::format::{Cursor, Row};
use crate::storage::registry::SeriesRef;
use crate::storage::select::{QueryError, Slice};

/// Samples of one series out of one file; never none.
pub struct Piece {
    /// Strictly ascending.
    pub times: Arc<[i64]>,
    /// As many.
    pub values: Slice<f64>,
    /// See [`crate::storage::select::Run`].
    pub stale: Option<Box<[u32]>>,
}

/// The columns of all log files, within a budget.
pub struct LogColumns {
    budget_bytes: usize,
    clock: AtomicU64,
    /// About so many bytes are kept; counted anew before anything is dropped.
    bytes: AtomicUsize,
    groups: Mutex<Groups>,
}

/// By log file and number of the group in it.
#[derive(Default)]
struct Groups(HashMap<(u64, u32), Arc<Kept>>);

#[derive(Default)]
struct Kept {
    last_used: AtomicU64,
    bytes: AtomicUsize,
    columns: RwLock<GroupColumns>,
}

/// Columns of one group.
#[derive(Default)]
struct GroupColumns {
    /// Of each row that was read.
    times: Vec<i64>,
    /// So many of them, from the first one on, are known to ascend strictly.
    ascending: usize,
    /// Those that somebody has asked for, in order of their slots.
    by_slot: Vec<(u32, Column)>,
}

/// One slot over the rows of its group.
#[derive(Clone, Debug, Default)]
struct Column {
    /// Rows that were read.
    rows: usize,
    /// Rows before the first sample.
    skipped: usize,
    /// Of each row after those; of rows without a sample anything. Queries that run hold them, too.
    values: Option<Arc<Vec<f64>>>,
    /// Rows after `skipped` that have a sample; empty: all.
    present: Vec<u64>,
    /// Rows after `skipped` that have a stale marker.
    stale: Vec<u32>,
    /// The newest value.
    bits: u64,
}

/// A column that rows are added to.
struct Growing {
    slot: u32,
    column: Column,
    values: Vec<f64>,
    /// How many of them were there before.
    known: usize,
}

impl Growing {
    fn new(slot: u32, mut column: Column) -> Self {
        let values = column.values.take().map_or_else(Vec::new, |values| {
            Arc::try_unwrap(values).unwrap_or_else(|shared| Vec::clone(&shared))
        });
        let known = values.len();
        Self { slot, column, values, known }
    }

    fn finish(mut self) -> Column {
        let Self { column, values, known, .. } = &mut self;
        let is_stale = |at: &usize| is_stale_nan(values[*at]) && column.has(*at);
        let stale: Vec<u32> = (*known..values.len()).filter(is_stale).map(|at| at as u32).collect();
        column.stale.extend(stale);
        self.column.values = Some(Arc::new(self.values));
        self.column
    }
}

/// Timestamp slices of one query, by what they were cut from.
#[derive(Default)]
struct SharedTimes(Mutex<HashMap<(u32, usize, usize), Arc<[i64]>>>);

/// Slices that a query remembers; further ones are not shared.
const SHARED_TIMES_MAX: usize = 1 << 14;

impl SharedTimes {
    fn of(&self, key: (u32, usize, usize), times: &[i64]) -> Arc<[i64]> {
        let mut all = self.0.lock();
        if SHARED_TIMES_MAX <= all.len() {
            all.clear();
        }
        Arc::clone(all.entry(key).or_insert_with(|| times.into()))
    }
}

/// A slot that is wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    group: u32,
    slot: u32,
    target: u32,
}

/// Where the samples of some series of a log file are.
#[derive(Debug)]
pub struct Places {
    /// In order of group and slot.
    wanted: Box<[Wanted]>,
    /// Those whose samples are not only in rows of one group.
    others: Box<[(usize, SeriesRef)]>,
}

impl Places {
    /// What a series takes in memory.
    pub const SERIES_BYTES: usize = size_of::<Wanted>();

    /// Finds them.
    pub fn find(log: &LogFile, series: &[(usize, SeriesRef)]) -> Self {
        let (mut wanted, mut others) = (Vec::with_capacity(series.len()), Vec::new());
        let directory = log.directory().read();
        for (target, own) in series {
            match only_place(&directory, *own) {
                Ok(Some((group, slot))) => {
                    wanted.push(Wanted { group, slot, target: *target as u32 });
                }
                Ok(None) => {}
                Err(()) => others.push((*target, *own)),
            }
        }
        drop(directory);
        wanted.sort_unstable_by_key(|own| u64::from(own.group) << 32 | u64::from(own.slot));
        Self { wanted: wanted.into(), others: others.into() }
    }

    /// Series that somebody else has to read.
    pub fn others(&self) -> &[(usize, SeriesRef)] {
        &self.others
    }
}

/// What one query sees of a log file.
pub struct LogView {
    log: Arc<LogFile>,
    limit_bytes: u64,
    range: TimeRange,
    times: SharedTimes,
    /// By number of the group, as far as anybody has asked.
    groups: RwLock<Vec<Option<Arc<GroupView>>>>,
}

/// What it sees of a group.
struct GroupView {
    kept: Arc<Kept>,
    /// Rows of the group.
    visible: usize,
    /// What lies in the range of the series that have all rows.
    cut: OnceLock<Option<Cut>>,
}

impl LogView {
    /// The first `limit_bytes` of a file.
    pub fn new(log: Arc<LogFile>, limit_bytes: u64, range: TimeRange) -> Self {
        Self { log, limit_bytes, range, times: SharedTimes::default(), groups: RwLock::default() }
    }

    /// The file.
    pub fn log(&self) -> &LogFile {
        &self.log
    }

    /// How much of it.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn group(&self, group: u32, all: &LogColumns) -> Arc<GroupView> {
        let at = group as usize;
        if let Some(Some(known)) = self.groups.read().get(at) {
            return Arc::clone(known);
        }
        let mut groups = self.groups.write();
        if groups.len() <= at {
            groups.resize(at + 1, None);
        }
        let new = || {
            let kept = all.group(self.log.id(), group);
            Arc::new(GroupView { kept, visible: self.visible_count(group), cut: OnceLock::new() })
        };
        Arc::clone(groups[at].get_or_insert_with(new))
    }
}

impl LogColumns {
    /// Keeps at most `budget_bytes`.
    pub fn new(budget_bytes: usize) -> Self {
        let groups = Mutex::default();
        Self { budget_bytes, clock: AtomicU64::new(0), bytes: AtomicUsize::new(0), groups }
    }

    /// Whether the columns of so many series may be kept: what does not fit anyway must not push
    /// out what others use.
    pub fn has_room(&self, rows: usize, series: usize) -> bool {
        series.saturating_mul(Self::series_bytes(rows)) <= self.budget_bytes / 4 * 3
    }

    /// About what the column of a series takes, and a query's hold on it.
    pub fn series_bytes(rows: usize) -> usize {
        2 * size_of::<Column>() + 64 + size_of::<f64>() * rows
    }

    /// Reads what of the columns of some series is not known yet, so that [`LogColumns::read`] need
    /// not go through the rows again for each block.
    pub fn prepare(&self, view: &LogView, places: &Places) -> Result<(), QueryError> {
        let mut map = None;
        for slots in places.wanted.chunk_by(|a, b| a.group == b.group) {
            let group = view.group(slots[0].group, self);
            self.extend(view, &group, slots, &mut map)?;
        }
        self.trim();
        Ok(())
    }

    /// Calls `take` with the samples of series that the query sees, but not of
    /// [`Places::others`]; series without any are passed over. With `keep`, the columns are kept
    /// for later.
    pub fn read(
        &self,
        view: &LogView,
        places: &Places,
        keep: bool,
        take: &mut dyn FnMut(usize, Piece),
    ) -> Result<(), QueryError> {
        let mut map = None;
        for slots in places.wanted.chunk_by(|a, b| a.group == b.group) {
            if keep {
                let group = view.group(slots[0].group, self);
                {
                    let columns = group.kept.columns.read();
                    if columns.missing(slots, group.visible).is_none() {
                        view.give(&columns, (group.visible, &group.cut), slots, take);
                        continue;
                    }
                }
                self.extend(view, &group, slots, &mut map)?;
                let columns = group.kept.columns.read();
                view.give(&columns, (group.visible, &group.cut), slots, take);
            } else {
                let mut columns = GroupColumns::default();
                let rows = view.visible_rows(slots[0].group, 0);
                view.extend(&mut columns, 0, &rows, slots, &mut map)?;
                view.give(&columns, (rows.len(), &OnceLock::new()), slots, take);
            }
        }
        if self.budget_bytes < self.bytes.load(Ordering::Relaxed) {
            self.trim();
        }
        Ok(())
    }

    /// Reads the rows that some of the columns of `slots` lack.
    fn extend(
        &self,
        view: &LogView,
        group: &GroupView,
        slots: &[Wanted],
        map: &mut Option<Map>,
    ) -> Result<(), QueryError> {
        let kept = &group.kept;
        if kept.columns.read().missing(slots, group.visible).is_none() {
            return Ok(());
        }
        let mut columns = kept.columns.write();
        if let Some(first) = columns.missing(slots, group.visible) {
            let rows = view.visible_rows(slots[0].group, first);
            view.extend(&mut columns, first, &rows, slots, map)?;
            let (now, before) = (columns.bytes(), kept.bytes.load(Ordering::Relaxed));
            kept.bytes.store(now, Ordering::Relaxed);
            self.bytes.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        }
        Ok(())
    }

    fn group(&self, log: u64, group: u32) -> Arc<Kept> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut groups = self.groups.lock();
        let kept = match groups.0.entry((log, group)) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => Arc::clone(entry.insert(Arc::default())),
        };
        kept.last_used.store(now, Ordering::Relaxed);
        kept
    }

    /// Drops the columns of files that are no more: older than `oldest_log`.
    pub fn forget_before(&self, oldest_log: u64) {
        self.groups.lock().0.retain(|(log, _), _| oldest_log <= *log);
    }

    fn trim(&self) {
        let mut groups = self.groups.lock();
        let mut bytes = groups.bytes();
        self.bytes.store(bytes, Ordering::Relaxed);
        if bytes <= self.budget_bytes {
            return;
        }
        let mut by_age: Vec<_> = groups
            .0
            .iter()
            .map(|(key, kept)| (kept.last_used.load(Ordering::Relaxed), *key))
            .collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            if bytes <= self.budget_bytes / 4 * 3 {
                break;
            }
            let gone = groups.0.remove(&key);
            bytes -= gone.map_or(0, |kept| kept.bytes.load(Ordering::Relaxed)).min(bytes);
        }
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Groups {
    fn bytes(&self) -> usize {
        self.0.values().map(|kept| kept.bytes.load(Ordering::Relaxed)).sum()
    }
}

/// Group and slot of a series whose samples are all in rows of one group and have no start
/// timestamps; `Err` when that is not so.
fn only_place(directory: &Directory, series: SeriesRef) -> Result<Option<(u32, u32)>, ()> {
    let mut places = directory.places(series);
    let place = places.next();
    let is_alone = !directory.has_starts(series)
        && directory.loose(series).next().is_none()
        && directory.histograms(series).next().is_none()
        && places.next().is_none();
    if !is_alone {
        return Err(());
    }
    Ok(place.map(|place| (place.group, place.slot)))
}

impl LogView {
    /// Positions of the rows of a group that the query sees, from row `first` on.
    fn visible_rows(&self, group: u32, first: usize) -> Vec<u32> {
        let directory = self.log.directory().read();
        let rows = directory.group(group).map_or(&[][..], |group| &group.rows);
        let visible = rows.partition_point(|at| u64::from(*at) < self.limit_bytes);
        rows.get(first..visible).unwrap_or_default().to_vec()
    }

    fn visible_count(&self, group: u32) -> usize {
        let directory = self.log.directory().read();
        let rows = directory.group(group).map_or(&[][..], |group| &group.rows);
        rows.partition_point(|at| u64::from(*at) < self.limit_bytes)
    }

    /// Reads `rows`, the first of which is row `first` of the group, into the columns of `slots`.
    fn extend(
        &self,
        columns: &mut GroupColumns,
        first: usize,
        rows: &[u32],
        slots: &[Wanted],
        map: &mut Option<Map>,
    ) -> Result<(), QueryError> {
        let map = match map {
            Some(map) => map,
            None => map.insert(self.log.map(self.limit_bytes)?),
        };
        let limit = self.limit_bytes as usize;
        let base_ms = self.log.header().base_ms;
        let mut own: Vec<Growing> =
            columns.take(slots).map(|(slot, column)| Growing::new(slot, column)).collect();
        let times = &mut columns.times;
        let known = times.len();
        let mut read = || {
            for (at, offset) in (first..).zip(rows) {
                let row = Cursor::new(map, *offset as usize, limit)
                    .and_then(|mut cursor| Row::read(&mut cursor, base_ms))
                    .ok_or_else(|| self.corrupt(*offset, "row is damaged"))?;
                if at == times.len() {
                    times.push(row.timestamp_ms);
                }
                read_row(&row, at, &mut own)
                    .ok_or_else(|| self.corrupt(*offset, "row has too few values"))?;
            }
            Ok(())
        };
        let read = read();
        // Zeros in place of what somebody cut off are no rows.
        let checked = self.log.check_whole(map).and(read);
        if checked.is_err() {
            times.truncate(known);
        }
        checked?;
        let first = columns.ascending.saturating_sub(1);
        let more = times[first..].windows(2).take_while(|pair| pair[0] < pair[1]).count();
        columns.ascending = times.len().min(first + 1 + more);
        for own in own {
            let slot = own.slot;
            if let Ok(at) = columns.find(slot) {
                columns.by_slot[at].1 = own.finish();
            }
        }
        Ok(())
    }

    fn corrupt(&self, offset: u32, reason: &'static str) -> QueryError {
        let path = self.log.path().to_owned();
        QueryError::Corrupt { path, offset_bytes: u64::from(offset), reason }
    }

    /// Hands out what lies in the range and in the first `visible` rows.
    fn give(
        &self,
        columns: &GroupColumns,
        (visible, whole): (usize, &OnceLock<Option<Cut>>),
        slots: &[Wanted],
        take: &mut dyn FnMut(usize, Piece),
    ) {
        // Mostly all series of a group have the same rows, or those until or from some moment.
        let (mut last, mut part): (Option<(usize, Option<Cut>)>, Option<Cut>) = (None, None);
        let mut gathered: Option<Arc<[i64]>> = None;
        for own in slots {
            let Some(column) = columns.get(own.slot) else { continue };
            let Some(values) = &column.values else { continue };
            let skipped = column.skipped.min(visible);
            let times = columns.times.get(skipped..visible).unwrap_or_default();
            let cut = || self.cut(own.group, skipped, times, visible <= columns.ascending);
            let cut = if skipped == 0 {
                whole.get_or_init(cut)
            } else {
                if last.as_ref().is_none_or(|(rows, _)| *rows != skipped) {
                    last = Some((skipped, cut()));
                }
                last.as_ref().map_or(&None, |(_, cut)| cut)
            };
            if let Some(cut) = cut
                && let Some(rows) = column.neighbours(cut.rows.clone())
            {
                if rows.is_empty() || values.len() < rows.end {
                    continue;
                }
                let cut = if rows == cut.rows {
                    cut
                } else {
                    let known =
                        part.take().filter(|own| (own.skipped, &own.rows) == (skipped, &rows));
                    part.insert(known.unwrap_or_else(|| self.part(own.group, skipped, times, rows)))
                };
                let piece = Piece {
                    times: Arc::clone(&cut.times),
                    values: Slice::new(Arc::clone(values), cut.rows.clone()),
                    stale: Some(column.stale_in(&cut.rows)),
                };
                take(own.target as usize, piece);
            } else if let Some(mut piece) = column.gather(values, times, self.range) {
                // Gaps are mostly those of the whole group.
                match &gathered {
                    Some(last) if **last == *piece.times => piece.times = Arc::clone(last),
                    _ => gathered = Some(Arc::clone(&piece.times)),
                }
                take(own.target as usize, piece);
            }
        }
    }

    /// The part of ascending timestamps in the range; `None` when they do not ascend.
    fn cut(&self, group: u32, skipped: usize, times: &[i64], ascends: bool) -> Option<Cut> {
        if !ascends && !times.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let start = times.partition_point(|ms| *ms < self.range.min_ms);
        let end = times.partition_point(|ms| *ms <= self.range.max_ms).max(start);
        Some(self.part(group, skipped, times, start..end))
    }

    /// Some of the timestamps from row `skipped` on.
    fn part(&self, group: u32, skipped: usize, times: &[i64], rows: Range<usize>) -> Cut {
        let key = (group, skipped + rows.start, skipped + rows.end);
        let times = self.times.of(key, &times[rows.clone()]);
        Cut { skipped, rows, times }
    }
}

/// Neighbouring rows.
#[derive(Clone)]
struct Cut {
    /// Rows of the group that are not counted.
    skipped: usize,
    rows: Range<usize>,
    times: Arc<[i64]>,
}

impl GroupColumns {
    /// The first row that one of the columns lacks, when any of the first `visible` is missing.
    fn missing(&self, slots: &[Wanted], visible: usize) -> Option<usize> {
        let rows = |own: &Wanted| self.get(own.slot).map_or(0, |own| own.rows);
        slots.iter().map(rows).min().filter(|rows| *rows < visible)
    }

    /// Where the column of a slot is, or belongs.
    fn find(&self, slot: u32) -> Result<usize, usize> {
        // So it is where all of a group were asked for.
        let at = slot as usize;
        if self.by_slot.get(at).is_some_and(|own| own.0 == slot) {
            return Ok(at);
        }
        self.by_slot.binary_search_by_key(&slot, |own| own.0)
    }

    fn get(&self, slot: u32) -> Option<&Column> {
        self.find(slot).ok().map(|at| &self.by_slot[at].1)
    }

    /// Takes the columns of slots, empty ones of those nobody has asked for; there is room to put
    /// them back.
    fn take(&mut self, slots: &[Wanted]) -> impl Iterator<Item = (u32, Column)> {
        let new = slots.iter().map(|own| own.slot).filter(|slot| self.find(*slot).is_err());
        let mut new: Vec<_> = new.map(|slot| (slot, Column::default())).collect();
        new.dedup_by_key(|own| own.0);
        if !new.is_empty() {
            self.by_slot.reserve_exact(new.len());
            self.by_slot.append(&mut new);
            self.by_slot.sort_unstable_by_key(|own| own.0);
        }
        slots.iter().filter_map(|own| {
            let at = self.find(own.slot).ok()?;
            Some((own.slot, std::mem::take(&mut self.by_slot[at].1)))
        })
    }

    fn bytes(&self) -> usize {
        let column = |(_, column): &(u32, Column)| {
            let values = column.values.as_ref().map_or(0, |values| values.capacity());
            let rows = 8 * (values + column.present.capacity()) + 4 * column.stale.capacity();
            size_of::<(u32, Column)>() + rows + 64
        };
        8 * self.times.capacity() + self.by_slot.iter().map(column).sum::<usize>()
    }
}

impl Growing {
    #[inline]
    fn push(&mut self, is_present: bool) {
        self.column.rows += 1;
        if is_present && self.column.present.is_empty() {
            self.values.push(f64::from_bits(self.column.bits));
            return;
        }
        self.push_slowly(is_present);
    }

    fn push_slowly(&mut self, is_present: bool) {
        let Self { column, values, .. } = self;
        if values.is_empty() && !is_present {
            column.skipped += 1;
            return;
        }
        let at = values.len();
        if column.present.is_empty() {
            column.present = vec![u64::MAX; at.div_ceil(64)];
        }
        column.present.resize(at / 64 + 1, 0);
        if is_present {
            column.present[at / 64] |= 1 << (at % 64);
        } else {
            column.present[at / 64] &= !(1 << (at % 64));
        }
        values.push(f64::from_bits(column.bits));
    }
}

impl Column {
    fn has(&self, at: usize) -> bool {
        self.present.is_empty() || self.present[at / 64] >> (at % 64) & 1 == 1
    }

    /// The positions of stale markers among the values of some rows.
    fn stale_in(&self, rows: &Range<usize>) -> Box<[u32]> {
        let first = self.stale.partition_point(|at| (*at as usize) < rows.start);
        let stale = self.stale[first..].iter().take_while(|at| (**at as usize) < rows.end);
        stale.map(|at| at - rows.start as u32).collect()
    }

    /// The rows among some that have a sample, when there is none without one between them.
    fn neighbours(&self, rows: Range<usize>) -> Option<Range<usize>> {
        if self.present.is_empty() || rows.is_empty() {
            return Some(rows);
        }
        let (mut first, mut end, mut count) = (rows.end, rows.start, 0);
        for word in rows.start / 64..rows.end.div_ceil(64) {
            let mut bits = self.present.get(word).copied().unwrap_or_default();
            bits &= u64::MAX << rows.start.saturating_sub(word * 64);
            bits &= u64::MAX >> ((word + 1) * 64).saturating_sub(rows.end);
            if bits != 0 {
                first = first.min(word * 64 + bits.trailing_zeros() as usize);
                end = (word + 1) * 64 - bits.leading_zeros() as usize;
                count += bits.count_ones() as usize;
            }
        }
        if count == 0 {
            return Some(rows.start..rows.start);
        }
        (end - first == count).then_some(first..end)
    }

    /// The samples of rows with these timestamps that lie in the range, in order of time; of equal
    /// times the first.
    fn gather(&self, values: &[f64], times: &[i64], range: TimeRange) -> Option<Piece> {
        let all = times.iter().zip(values).enumerate();
        let own = all.filter(|(at, (ms, _))| self.has(*at) && range.contains(**ms));
        let mut samples: Vec<(i64, f64)> = own.map(|(_, (ms, value))| (*ms, *value)).collect();
        if samples.is_empty() {
            return None;
        }
        if !samples.is_sorted_by(|a, b| a.0 < b.0) {
            samples.sort_by_key(|sample| sample.0);
            samples.dedup_by_key(|sample| sample.0);
        }
        let (times, values): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
        Some(Piece { times: times.into(), values: values.into(), stale: None })
    }
}

/// Adds one row, number `at` of its group, to the columns (by slot, ascending) that lack it.
fn read_row(row: &Row<'_>, at: usize, columns: &mut [Growing]) -> Option<()> {
    let (mut word, mut rank) = (0, 0);
    let mut changed = row.changed.word(0);
    let mut present = row.present.word(0);
    for own in columns {
        if own.column.rows != at {
            continue;
        }
        let slot = own.slot as usize;
        if slot >= row.slot_count {
            own.push(false);
            continue;
        }
        while word < slot / 64 {
            rank += changed.count_ones() as usize;
            word += 1;
            changed = row.changed.word(word);
            present = row.present.word(word);
        }
        let bit = 1_u64 << (slot % 64);
        if changed & present & bit != 0 {
            own.column.bits = row.value_bits(rank + (changed & (bit - 1)).count_ones() as usize)?;
        }
        own.push(present & bit != 0);
    }
    Some(())
}
