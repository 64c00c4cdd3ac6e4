//! Samples of series from the rows and loose samples of one log file.

use std::sync::Arc;

use super::merge::{Parts, Times, Value, starts_of};
use crate::model::histogram::Histogram;
use crate::model::sample::TimeRange;
use crate::storage::delete::{Hidden, Ranges, visible};
use crate::storage::log::directory::Directory;
use crate::storage::log::file::LogFile;
use crate::storage::log::format::{Cursor, GROUP_SLOTS_MAX, Row, read_loose, read_sized_sample};
use crate::storage::log::histogram::read_histogram;
use crate::storage::registry::SeriesRef;
use crate::storage::select::QueryError;

/// A slot whose samples are wanted.
struct Wanted {
    group: u32,
    slot: u32,
    /// Position of the series among those that are read.
    target: usize,
    /// The slot's value in the row before.
    bits: u64,
}

/// A sample and where in the file it was found: that is the order of acceptance.
type Found = (i64, u32, u64);

/// Samples of a series while the file is read.
#[derive(Default)]
struct Gathered {
    times: Vec<i64>,
    values: Vec<f64>,
    offsets: Vec<u32>,
    histograms: Vec<(i64, u32, Arc<Histogram>)>,
    starts: Starts,
}

/// Start timestamps of a series, and where in the file they begin to hold; ascending.
#[derive(Default)]
struct Starts(Vec<(u32, i64)>);

impl Starts {
    /// Of the sample at a place in the file; 0: not known.
    fn at(&self, offset: u32) -> i64 {
        let before = self.0.partition_point(|own| own.0 < offset);
        before.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// Positions of samples on their own, newest first, by series among those that are read.
type Alone = Vec<(usize, Vec<u32>)>;

/// What is to be read of a file.
#[derive(Default)]
struct Plan {
    /// In order of group and slot.
    wanted: Vec<Wanted>,
    /// Positions of the rows of each group in `wanted`.
    rows: Vec<Vec<u32>>,
    loose: Alone,
    histograms: Alone,
    starts: Vec<(usize, Starts)>,
}

impl Plan {
    fn new(directory: &Directory, limit: usize, series: &[(usize, SeriesRef)]) -> Self {
        let mut plan = Self::default();
        let is_visible = |offset: &u32| (*offset as usize) < limit;
        for (target, (_, series)) in series.iter().enumerate() {
            let places = directory.places(*series);
            plan.wanted.extend(places.map(|place| Wanted {
                group: place.group,
                slot: place.slot,
                target,
                bits: 0,
            }));
            let loose: Vec<u32> = directory.loose(*series).filter(is_visible).collect();
            if !loose.is_empty() {
                plan.loose.push((target, loose));
            }
            let histograms: Vec<u32> = directory.histograms(*series).filter(is_visible).collect();
            if !histograms.is_empty() {
                plan.histograms.push((target, histograms));
            }
            if directory.has_starts(*series) {
                let mut starts: Vec<_> = directory.starts(*series).collect();
                starts.reverse();
                plan.starts.push((target, Starts(starts)));
            }
        }
        plan.wanted.sort_unstable_by_key(|wanted| (wanted.group, wanted.slot));
        for wanted in plan.wanted.chunk_by(|a, b| a.group == b.group) {
            let rows = directory.group(wanted[0].group).map_or(&[][..], |group| &group.rows);
            let visible = rows.partition_point(is_visible);
            plan.rows.push(rows[..visible].to_vec());
        }
        plan
    }
}

/// The same as [`read`], without what deletions hide.
pub fn read_visible(
    log: &LogFile,
    limit_bytes: u64,
    series: &[(usize, SeriesRef)],
    range: TimeRange,
    hidden: &[&Hidden],
    parts: &mut [Parts],
) -> Result<(), QueryError> {
    let is_hidden =
        |own: &(usize, SeriesRef)| hidden.iter().any(|hidden| hidden.series.contains(own.1));
    if !series.iter().any(is_hidden) {
        return read(log, limit_bytes, series, range, parts);
    }
    // Few deletions make few different sets of ranges.
    let mut by_ranges: Vec<(Ranges, Vec<(usize, SeriesRef)>)> = Vec::new();
    for own in series {
        let ranges = visible(range, own.1, hidden.iter().copied());
        match by_ranges.iter_mut().find(|other| other.0 == ranges) {
            Some(other) => other.1.push(*own),
            None => by_ranges.push((ranges, vec![*own])),
        }
    }
    for (ranges, series) in by_ranges {
        for range in ranges {
            read(log, limit_bytes, &series, range, parts)?;
        }
    }
    Ok(())
}

/// Adds to `parts[position]` the samples of each `(position, series)` that lie in the range and
/// before `limit_bytes` of the file.
pub fn read(
    log: &LogFile,
    limit_bytes: u64,
    series: &[(usize, SeriesRef)],
    range: TimeRange,
    parts: &mut [Parts],
) -> Result<(), QueryError> {
    let limit = limit_bytes as usize;
    let mut plan = Plan::new(&log.directory().read(), limit, series);
    let bytes = log.map(limit_bytes)?;
    let corrupt = |offset: u32, reason| QueryError::Corrupt {
        path: log.path().to_owned(),
        offset_bytes: u64::from(offset),
        reason,
    };
    let damage = |offset: u32, reason| match log.check_whole(&bytes) {
        Ok(()) => corrupt(offset, reason),
        Err(err) => err,
    };
    let base_ms = log.header().base_ms;
    let mut gathered: Vec<Gathered> = series.iter().map(|_| Gathered::default()).collect();
    let slots = plan.wanted.chunk_by_mut(|a, b| a.group == b.group);
    for (slots, rows) in slots.zip(&plan.rows) {
        for offset in rows {
            let row = Cursor::new(&bytes, *offset as usize, limit)
                .and_then(|mut cursor| Row::read(&mut cursor, base_ms))
                .ok_or_else(|| damage(*offset, "row is damaged"))?;
            read_row(&row, *offset, slots, range, &mut gathered)
                .ok_or_else(|| damage(*offset, "row has too few values"))?;
        }
    }
    for (target, offsets) in plan.loose {
        for offset in offsets.into_iter().rev() {
            let (timestamp_ms, bits) = Cursor::new(&bytes, offset as usize, limit)
                .and_then(|mut cursor| read_loose(&mut cursor, base_ms))
                .ok_or_else(|| damage(offset, "loose sample is damaged"))?;
            if range.contains(timestamp_ms) {
                gathered[target].push(timestamp_ms, offset, bits);
            }
        }
    }
    for (target, offsets) in plan.histograms {
        // A series at rest repeats its histogram: one copy is enough.
        let mut last: Option<(&[u8], Arc<Histogram>)> = None;
        for offset in offsets.into_iter().rev() {
            let damaged = || damage(offset, "histogram is damaged");
            let (timestamp_ms, own) = Cursor::new(&bytes, offset as usize, limit)
                .and_then(|mut cursor| read_sized_sample(&mut cursor, base_ms))
                .ok_or_else(damaged)?;
            if !range.contains(timestamp_ms) {
                continue;
            }
            let histogram = match &last {
                Some((bytes, histogram)) if *bytes == own => Arc::clone(histogram),
                _ => Arc::new(read_histogram(own).ok_or_else(damaged)?),
            };
            last = Some((own, Arc::clone(&histogram)));
            gathered[target].histograms.push((timestamp_ms, offset, histogram));
        }
    }
    log.check_whole(&bytes)?;
    for (target, starts) in plan.starts {
        gathered[target].starts = starts;
    }
    for (own, (position, _)) in gathered.into_iter().zip(series) {
        own.finish(&mut parts[*position]);
    }
    Ok(())
}

const _: () = assert!(GROUP_SLOTS_MAX.is_multiple_of(64));

/// Takes the wanted slots (ascending) out of one row.
fn read_row(
    row: &Row<'_>,
    offset: u32,
    slots: &mut [Wanted],
    range: TimeRange,
    gathered: &mut [Gathered],
) -> Option<()> {
    let in_range = range.contains(row.timestamp_ms);
    let (mut word, mut rank) = (0, 0);
    let mut changed = row.changed.word(0);
    let mut present = row.present.word(0);
    for wanted in slots {
        let slot = wanted.slot as usize;
        if slot >= row.slot_count {
            break;
        }
        while word < slot / 64 {
            rank += changed.count_ones() as usize;
            word += 1;
            changed = row.changed.word(word);
            present = row.present.word(word);
        }
        let bit = 1_u64 << (slot % 64);
        if present & bit == 0 {
            continue;
        }
        if changed & bit != 0 {
            wanted.bits = row.value_bits(rank + (changed & (bit - 1)).count_ones() as usize)?;
        }
        if in_range {
            gathered[wanted.target].push(row.timestamp_ms, offset, wanted.bits);
        }
    }
    Some(())
}

impl Gathered {
    #[inline]
    fn push(&mut self, timestamp_ms: i64, offset: u32, bits: u64) {
        self.times.push(timestamp_ms);
        self.values.push(f64::from_bits(bits));
        self.offsets.push(offset);
    }

    /// In order of time; of equal times the one accepted first.
    fn finish(self, parts: &mut Parts) {
        if self.histograms.is_empty() && self.starts.0.is_empty() {
            let (times, values) = self.floats();
            parts.push(Times::Own(times), values);
            return;
        }
        if self.histograms.is_empty() && self.times.is_sorted_by(|a, b| a < b) {
            let starts = starts_of(self.offsets.iter().map(|at| self.starts.at(*at)));
            parts.push_started(Times::Own(self.times), self.values, starts);
            return;
        }
        let floats = self.values.into_iter().map(Value::Float);
        let floats = self.times.into_iter().zip(self.offsets).zip(floats);
        let floats = floats.map(|((ms, at), value)| (ms, at, value));
        let histograms = self.histograms.into_iter();
        let histograms = histograms.map(|(ms, at, own)| (ms, at, Value::Histogram(own)));
        let mut all: Vec<(i64, u32, Value)> = floats.chain(histograms).collect();
        all.sort_by_key(|(ms, at, _)| (*ms, *at));
        all.dedup_by_key(|found| found.0);
        let starts = self.starts;
        let all = all.into_iter().map(|(ms, at, value)| (ms, (value, starts.at(at))));
        parts.push_mixed(all.collect());
    }

    fn floats(self) -> (Vec<i64>, Vec<f64>) {
        if self.times.is_sorted_by(|a, b| a < b) {
            return (self.times, self.values);
        }
        let values = self.values.iter().map(|value| value.to_bits());
        let samples = self.times.iter().copied().zip(self.offsets).zip(values);
        let mut all: Vec<Found> = samples.map(|((ms, at), bits)| (ms, at, bits)).collect();
        all.sort_unstable();
        all.dedup_by_key(|found| found.0);
        all.into_iter().map(|(ms, _, bits)| (ms, f64::from_bits(bits))).unzip()
    }
}
