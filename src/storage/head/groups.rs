//! Groups: series that arrive together, arranged in rows.
//!
//! A series has at most one owning group and one slot in it. `written` tells for which slots the
//! open log file has a value that still equals the series' newest in-order sample; only those may
//! be left out of a row as unchanged. Groups are learned anew from what arrives; in each log file
//! they are defined before their first row.

use std::ops::Range;

use crate::storage::log::directory::NONE;
use crate::storage::log::format::{
    FrameWriter, GROUP_SLOTS_MAX, Section, push_members, push_row, push_varint, push_zigzag,
};
use crate::storage::registry::SeriesRef;

/// Samples of one time that make a new group; fewer stay loose.
const NEW_GROUP_SAMPLES_MIN: usize = 4;

/// A sample that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its series.
    pub series: SeriesRef,
    /// Its time.
    pub timestamp_ms: i64,
    /// Its value.
    pub bits: u64,
    /// Whether the value differs from the series' sample before.
    pub changed: bool,
    /// When counting began; 0: not known.
    pub start_ms: i64,
}

#[derive(Debug)]
struct Group {
    members: Vec<SeriesRef>,
    written: Vec<u64>,
    /// Number within the open log file, or [`NONE`].
    local: u32,
    /// Members that are defined in the open log file.
    defined: usize,
}

impl Group {
    fn is_written(&self, slot: usize) -> bool {
        self.written[slot / 64] >> (slot % 64) & 1 == 1
    }

    fn room(&self) -> usize {
        GROUP_SLOTS_MAX - self.members.len()
    }
}

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    all: Vec<Group>,
    /// Empty ones, to be used again.
    free: Vec<u32>,
    /// Owner by series, or [`NONE`].
    owner: Vec<u32>,
    slot: Vec<u16>,
    /// Groups in the open log file.
    local_count: u32,
    plan: Plan,
}

/// Rows and loose samples of one commit.
#[derive(Debug, Default)]
struct Plan {
    rows: Vec<PlannedRow>,
    present: Vec<u64>,
    changed: Vec<u64>,
    values: Vec<u64>,
    loose: Vec<Accepted>,
    strays: Vec<Accepted>,
    /// Groups of the run that get a row, and their samples in it.
    parts: Vec<(u32, Range<usize>)>,
}

#[derive(Debug)]
struct PlannedRow {
    group: u32,
    timestamp_ms: i64,
    words: Range<usize>,
    values: Range<usize>,
}

impl Groups {
    /// Makes room for all numbers below `len`.
    pub fn grow(&mut self, len: usize) {
        if self.owner.len() < len {
            self.owner.resize(len, NONE);
            self.slot.resize(len, 0);
        }
    }

    /// Forgets which group owns a series.
    pub fn disown(&mut self, series: SeriesRef) {
        if let Some(owner) = self.owner.get_mut(series as usize) {
            *owner = NONE;
        }
    }

    /// Writes the sections of in-order samples (members, rows, loose). Their order within a
    /// series is kept; `base_ms` is the log file's.
    pub fn write(&mut self, accepted: &mut [Accepted], base_ms: i64, frame: &mut FrameWriter) {
        let mut plan = std::mem::take(&mut self.plan);
        if !accepted.is_sorted_by_key(|sample| sample.timestamp_ms) {
            accepted.sort_by_key(|sample| sample.timestamp_ms);
        }
        for run in accepted.chunk_by_mut(|a, b| a.timestamp_ms == b.timestamp_ms) {
            self.plan_run(run, &mut plan);
        }
        self.encode(&plan, base_ms, frame);
        plan.rows.clear();
        plan.present.clear();
        plan.changed.clear();
        plan.values.clear();
        plan.loose.clear();
        self.plan = plan;
    }

    /// Samples of one time, of different series.
    fn plan_run(&mut self, run: &mut [Accepted], plan: &mut Plan) {
        let key = |sample: &Accepted| {
            let at = sample.series as usize;
            (self.owner[at], self.slot[at])
        };
        if !run.is_sorted_by_key(key) {
            run.sort_by_key(key);
        }
        // The largest group of the run takes in what has no row of its own.
        let mut largest: Option<(usize, u32)> = None;
        let owner = &self.owner;
        let same_owner =
            |a: &Accepted, b: &Accepted| owner[a.series as usize] == owner[b.series as usize];
        plan.strays.clear();
        plan.parts.clear();
        let mut start = 0;
        for part in run.chunk_by(same_owner) {
            let group = owner[part[0].series as usize];
            if self.deserves_row(group, part.len()) {
                plan.parts.push((group, start..start + part.len()));
                if largest.is_none_or(|(count, _)| count < part.len()) {
                    largest = Some((part.len(), group));
                }
            } else {
                plan.strays.extend_from_slice(part);
            }
            start += part.len();
        }
        let (strays, parts) = (std::mem::take(&mut plan.strays), std::mem::take(&mut plan.parts));
        let adopter = largest
            .map(|(_, group)| group)
            .filter(|group| !strays.is_empty() && self.group(*group).room() >= strays.len());
        for (group, range) in &parts {
            self.plan_row(*group, &run[range.clone()], plan);
            if adopter == Some(*group) {
                self.adopt(*group, &strays);
                self.extend_row(*group, &strays, plan);
            }
        }
        if adopter.is_none() {
            self.plan_strays(&strays, plan);
        }
        (plan.strays, plan.parts) = (strays, parts);
    }

    fn group(&self, group: u32) -> &Group {
        &self.all[group as usize]
    }

    /// Whether a row is smaller than so many loose samples. The length of a frame is estimated
    /// from this: members that the file does not know yet, bitmaps and headers take at most forty
    /// bytes for each sample, and the value eight more.
    fn deserves_row(&self, group: u32, count: usize) -> bool {
        let Some(group) = self.all.get(group as usize) else { return false };
        let slots = group.members.len();
        let undefined = slots.saturating_sub(group.defined);
        let fits = 5 * undefined + 2 * slots.div_ceil(8) + 48 <= 40 * count;
        fits && (count == slots || 2 * slots.div_ceil(8) + 6 <= 6 * count)
    }

    fn plan_strays(&mut self, strays: &[Accepted], plan: &mut Plan) {
        for part in strays.chunks(GROUP_SLOTS_MAX) {
            if part.len() < NEW_GROUP_SAMPLES_MIN {
                for sample in part {
                    self.unwrite(sample.series);
                    plan.loose.push(*sample);
                }
                continue;
            }
            let group = self.new_group();
            self.adopt(group, part);
            self.plan_row(group, part, plan);
        }
    }

    fn new_group(&mut self) -> u32 {
        let group = Group { members: Vec::new(), written: Vec::new(), local: NONE, defined: 0 };
        if let Some(free) = self.free.pop() {
            self.all[free as usize] = group;
            return free;
        }
        self.all.push(group);
        (self.all.len() - 1) as u32
    }

    /// Makes `group` the owner of the samples' series, in new slots.
    fn adopt(&mut self, group: u32, samples: &[Accepted]) {
        let target = &mut self.all[group as usize];
        for sample in samples {
            self.owner[sample.series as usize] = group;
            self.slot[sample.series as usize] = target.members.len() as u16;
            target.members.push(sample.series);
        }
        target.written.resize(target.members.len().div_ceil(64), 0);
    }

    /// A loose sample: the next row must tell the value anew.
    fn unwrite(&mut self, series: SeriesRef) {
        let (owner, slot) = (self.owner[series as usize], self.slot[series as usize]);
        if let Some(group) = self.all.get_mut(owner as usize) {
            group.written[usize::from(slot) / 64] &= !(1 << (slot % 64));
        }
    }

    /// Begins a row with samples in order of their slots.
    fn plan_row(&mut self, group: u32, samples: &[Accepted], plan: &mut Plan) {
        let words = self.group(group).members.len().div_ceil(64);
        let (start, values) = (plan.present.len(), plan.values.len());
        plan.present.resize(start + words, 0);
        plan.changed.resize(start + words, 0);
        plan.rows.push(PlannedRow {
            group,
            timestamp_ms: 0,
            words: start..start + words,
            values: values..values,
        });
        self.extend_row(group, samples, plan);
    }

    /// Adds samples to the newest row; their slots come after those it has.
    fn extend_row(&mut self, group: u32, samples: &[Accepted], plan: &mut Plan) {
        let target = &mut self.all[group as usize];
        let Some(row) = plan.rows.last_mut() else { return };
        let end = row.words.start + target.members.len().div_ceil(64);
        plan.present.resize(end, 0);
        plan.changed.resize(end, 0);
        row.words.end = end;
        for sample in samples {
            row.timestamp_ms = sample.timestamp_ms;
            let slot = usize::from(self.slot[sample.series as usize]);
            let (word, bit) = (row.words.start + slot / 64, 1 << (slot % 64));
            plan.present[word] |= bit;
            if sample.changed || !target.is_written(slot) {
                target.written[slot / 64] |= bit;
                plan.changed[word] |= bit;
                plan.values.push(sample.bits);
            }
        }
        row.values.end = plan.values.len();
    }

    fn encode(&mut self, plan: &Plan, base_ms: i64, frame: &mut FrameWriter) {
        let undefined = |group: &Group| group.defined < group.members.len();
        if plan.rows.iter().any(|row| undefined(self.group(row.group))) {
            let out = frame.begin(Section::Members);
            for row in &plan.rows {
                let group = &mut self.all[row.group as usize];
                if !undefined(group) {
                    continue;
                }
                if group.local == NONE {
                    group.local = self.local_count;
                    self.local_count += 1;
                }
                push_members(out, group.local, &group.members[group.defined..]);
                group.defined = group.members.len();
            }
            frame.end();
        }
        if !plan.rows.is_empty() {
            let out = frame.begin(Section::Rows);
            for row in &plan.rows {
                let group = &self.all[row.group as usize];
                push_varint(out, u64::from(group.local));
                // Slots that a later row of this commit added are not in this one's bitmaps.
                let slots = group.members.len().min(64 * row.words.len());
                let (present, changed) =
                    (&plan.present[row.words.clone()], &plan.changed[row.words.clone()]);
                let values = &plan.values[row.values.clone()];
                let delta_ms = row.timestamp_ms.wrapping_sub(base_ms);
                push_row(out, delta_ms, slots, present, changed, values);
            }
            frame.end();
        }
        write_loose(&plan.loose, base_ms, frame);
    }

    /// A new log file begins: nothing is defined or written in it. Members that the last file had
    /// no value of lose their slot.
    pub fn begin_file(&mut self) {
        self.local_count = 0;
        self.free.clear();
        for (number, group) in (0_u32..).zip(&mut self.all) {
            let old = std::mem::take(&mut group.members);
            for (slot, series) in old.into_iter().enumerate() {
                let at = series as usize;
                if self.owner[at] != number || usize::from(self.slot[at]) != slot {
                    continue;
                }
                if group.written[slot / 64] >> (slot % 64) & 1 == 0 {
                    self.owner[at] = NONE;
                    continue;
                }
                self.slot[at] = group.members.len() as u16;
                group.members.push(series);
            }
            if group.members.len() < NEW_GROUP_SAMPLES_MIN {
                group.members.drain(..).for_each(|series| self.owner[series as usize] = NONE);
            }
            if group.members.is_empty() {
                self.free.push(number);
            }
            group.written.clear();
            group.written.resize(group.members.len().div_ceil(64), 0);
            group.local = NONE;
            group.defined = 0;
        }
    }
}

/// Writes a section of loose samples, in this order.
pub fn write_loose(samples: &[Accepted], base_ms: i64, frame: &mut FrameWriter) {
    if samples.is_empty() {
        return;
    }
    let out = frame.begin(Section::Loose);
    let mut last = 0;
    for sample in samples {
        push_zigzag(out, i64::from(sample.series) - last);
        last = i64::from(sample.series);
        push_zigzag(out, sample.timestamp_ms.wrapping_sub(base_ms));
        out.extend_from_slice(&sample.bits.to_le_bytes());
    }
    frame.end();
}
