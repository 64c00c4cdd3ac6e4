//! Where the samples of a log file are: kept in memory, a few bytes per row and loose sample.
//!
//! Everything is appended in the order of the file, so a reader that knows how long the file was
//! when its query began skips what lies beyond.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use crate::model::sample::TimeRange;

/// No entry: end of a chain.
pub const NONE: u32 = u32::MAX;

/// Rows of one group.
#[derive(Debug, Default)]
pub struct GroupRows {
    /// Series by slot.
    pub members: Vec<u32>,
    /// Position of each row in the file.
    pub rows: Vec<u32>,
}

/// A slot of a series. A series that moved between groups has several.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Number of the group within the file.
    pub group: u32,
    /// Slot within the group.
    pub slot: u32,
    /// The series' place before, or [`NONE`].
    previous: u32,
}

/// Something of a series on its own, and what was before it of the same series.
#[derive(Clone, Copy, Debug)]
struct Link<T> {
    offset: u32,
    previous: u32,
    own: T,
}

/// Samples on their own, or start timestamps.
#[derive(Debug)]
struct Chains<T> {
    /// The newest by series.
    newest: HashMap<u32, u32, RandomState>,
    all: Vec<Link<T>>,
}

impl<T> Default for Chains<T> {
    fn default() -> Self {
        Self { newest: HashMap::default(), all: Vec::new() }
    }
}

impl<T: Copy> Chains<T> {
    fn add(&mut self, series: u32, offset: u32, own: T) {
        let index = self.all.len() as u32;
        let previous = self.newest.insert(series, index).unwrap_or(NONE);
        self.all.push(Link { offset, previous, own });
    }

    fn links(&self, series: u32) -> impl Iterator<Item = Link<T>> {
        let mut next = self.newest.get(&series).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let link = *self.all.get(next as usize)?;
            next = link.previous;
            Some(link)
        })
    }

    fn offsets(&self, series: u32) -> impl Iterator<Item = u32> {
        self.links(series).map(|link| link.offset)
    }
}

/// What is in a log file, and where.
#[derive(Debug)]
pub struct Directory {
    groups: Vec<GroupRows>,
    /// Newest place by series, or [`NONE`].
    place_of: Vec<u32>,
    places: Vec<Place>,
    loose: Chains<()>,
    histograms: Chains<()>,
    starts: Chains<i64>,
    range: TimeRange,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            place_of: Vec::new(),
            places: Vec::new(),
            loose: Chains::default(),
            histograms: Chains::default(),
            starts: Chains::default(),
            range: TimeRange { min_ms: i64::MAX, max_ms: i64::MIN },
        }
    }
}

impl Directory {
    /// Gives a group more slots. Groups are numbered without gaps, in order of appearance.
    pub fn add_members(&mut self, group: u32, series: &[u32]) -> Result<(), &'static str> {
        let index = group as usize;
        if index > self.groups.len() {
            return Err("group number out of order");
        }
        if index == self.groups.len() {
            self.groups.push(GroupRows::default());
        }
        let Some(rows) = self.groups.get_mut(index) else { return Err("unknown group") };
        for series in series {
            let place = self.places.len() as u32;
            let at = *series as usize;
            if self.place_of.len() <= at {
                self.place_of.resize(at + 1, NONE);
            }
            let previous = std::mem::replace(&mut self.place_of[at], place);
            self.places.push(Place { group, slot: rows.members.len() as u32, previous });
            rows.members.push(*series);
        }
        Ok(())
    }

    /// Notes a row.
    pub fn add_row(
        &mut self,
        group: u32,
        offset: u32,
        timestamp_ms: i64,
    ) -> Result<(), &'static str> {
        let rows = self.groups.get_mut(group as usize).ok_or("row of an unknown group")?;
        rows.rows.push(offset);
        self.note(timestamp_ms);
        Ok(())
    }

    /// Notes a loose sample.
    pub fn add_loose(&mut self, series: u32, offset: u32, timestamp_ms: i64) {
        self.loose.add(series, offset, ());
        self.note(timestamp_ms);
    }

    /// Notes a native histogram.
    pub fn add_histogram(&mut self, series: u32, offset: u32, timestamp_ms: i64) {
        self.histograms.add(series, offset, ());
        self.note(timestamp_ms);
    }

    /// Notes when counting began, of what follows of a series.
    pub fn add_start(&mut self, series: u32, offset: u32, start_ms: i64) {
        self.starts.add(series, offset, start_ms);
    }

    fn note(&mut self, timestamp_ms: i64) {
        self.range.min_ms = self.range.min_ms.min(timestamp_ms);
        self.range.max_ms = self.range.max_ms.max(timestamp_ms);
    }

    /// A group's rows.
    pub fn group(&self, group: u32) -> Option<&GroupRows> {
        self.groups.get(group as usize)
    }

    /// The places of a series, newest first.
    pub fn places(&self, series: u32) -> impl Iterator<Item = Place> {
        let mut next = self.place_of.get(series as usize).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let place = *self.places.get(next as usize)?;
            next = place.previous;
            Some(place)
        })
    }

    /// Positions of the loose samples of a series, newest first.
    pub fn loose(&self, series: u32) -> impl Iterator<Item = u32> {
        self.loose.offsets(series)
    }

    /// Positions of the native histograms of a series, newest first.
    pub fn histograms(&self, series: u32) -> impl Iterator<Item = u32> {
        self.histograms.offsets(series)
    }

    /// Start timestamps of a series, newest first: where in the file they begin to hold.
    pub fn starts(&self, series: u32) -> impl Iterator<Item = (u32, i64)> {
        self.starts.links(series).map(|link| (link.offset, link.own))
    }

    /// Whether the file has start timestamps of the series.
    pub fn has_starts(&self, series: u32) -> bool {
        !self.starts.all.is_empty() && self.starts.newest.contains_key(&series)
    }

    /// Whether the file may have samples of the series.
    pub fn has(&self, series: u32) -> bool {
        self.place_of.get(series as usize).is_some_and(|place| *place != NONE)
            || self.loose.newest.contains_key(&series)
            || self.histograms.newest.contains_key(&series)
    }

    /// All series with samples.
    pub fn series(&self) -> RoaringBitmap {
        let bits = |eight: &[u32]| {
            eight.iter().rev().fold(0, |bits, place| bits << 1 | u8::from(*place != NONE))
        };
        let bits: Vec<u8> = self.place_of.chunks(8).map(bits).collect();
        let mut all = RoaringBitmap::from_lsb0_bytes(0, &bits);
        all.extend(self.loose.newest.keys().copied());
        all.extend(self.histograms.newest.keys().copied());
        all
    }

    /// From the oldest to the newest sample; `min_ms > max_ms` when there is none.
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// Series with samples, roughly: one that moved or has loose samples or starts too counts
    /// again. As long as this stays the same, so does the kind of place where each series is.
    pub fn chunk_count(&self) -> u64 {
        let chains = [self.loose.newest.len(), self.histograms.newest.len()];
        (self.places.len() + chains.iter().sum::<usize>() + self.starts.newest.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readers remember by this number where series are.
    #[test]
    fn whatever_changes_where_a_series_is_changes_the_count() {
        let mut directory = Directory::default();
        let mut last = directory.chunk_count();
        let changes: [&dyn Fn(&mut Directory); 5] = [
            &|own| own.add_members(0, &[7]).unwrap(),
            &|own| own.add_loose(7, 10, 1000),
            &|own| own.add_histogram(7, 20, 2000),
            &|own| own.add_start(7, 30, 500),
            &|own| own.add_members(1, &[7]).unwrap(),
        ];
        for change in changes {
            change(&mut directory);
            assert!(last < directory.chunk_count());
            last = directory.chunk_count();
        }
    }
}
