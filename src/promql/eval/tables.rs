//! What is computed from timestamps alone, once for all series of a query that share them.

use std::ops::Range;
use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;

use super::Steps;
use super::range::Windows;

/// Steps of all tables that are kept: 64 MiB of the larger kind.
const TABLE_STEPS_MAX: usize = 1 << 20;

/// Tables by the address of their slice, which is kept with them, so that it stays its own.
type BySlice<T> = HashMap<usize, (Arc<[i64]>, Arc<T>)>;

fn find<T>(all: &BySlice<T>, slice: &Arc<[i64]>) -> Option<Arc<T>> {
    let (own, table) = all.get(&slice.as_ptr().addr())?;
    Arc::ptr_eq(own, slice).then(|| Arc::clone(table))
}

fn put<T>(all: &mut BySlice<T>, max: usize, slice: &Arc<[i64]>, table: &Arc<T>) {
    if max <= all.len() {
        all.clear();
    }
    all.insert(slice.as_ptr().addr(), (Arc::clone(slice), Arc::clone(table)));
}

/// Tables of one kind that all blocks of a chain share.
pub(super) struct Store<T>(Mutex<BySlice<T>>);

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Something computed from a timestamp slice alone.
pub(super) struct SharedTables<'s, T> {
    own: BySlice<T>,
    others: Option<&'s Store<T>>,
    tables_max: usize,
    /// The one that was asked for last: neighbours mostly share a slice.
    last: Option<(Arc<[i64]>, Arc<T>)>,
}

impl<'s, T> SharedTables<'s, T> {
    pub(super) fn new(steps: Steps, others: Option<&'s Store<T>>) -> Self {
        let tables_max = (TABLE_STEPS_MAX / steps.count.max(1)).clamp(1, 4096);
        Self { own: HashMap::default(), others, tables_max, last: None }
    }

    /// The table of `slice`.
    pub(super) fn get(&mut self, slice: &Arc<[i64]>, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some((own, table)) = &self.last
            && Arc::ptr_eq(own, slice)
        {
            return Arc::clone(table);
        }
        let table = self.find(slice, make);
        self.last = Some((Arc::clone(slice), Arc::clone(&table)));
        table
    }

    fn find(&mut self, slice: &Arc<[i64]>, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(table) = find(&self.own, slice) {
            return table;
        }
        let known = self.others.and_then(|others| find(&others.0.lock(), slice));
        let table = known.unwrap_or_else(|| {
            let table = Arc::new(make());
            if let Some(others) = self.others {
                put(&mut others.0.lock(), self.tables_max, slice, &table);
            }
            table
        });
        put(&mut self.own, self.tables_max, slice, &table);
        table
    }
}

/// Slices without the timestamps of some positions that are remembered.
const TRIMMED_MAX: usize = 1024;

/// Timestamps without those of stale markers.
#[derive(Default)]
pub(super) struct Trimmed(Mutex<HashMap<TrimmedKey, (Arc<[i64]>, Arc<[i64]>)>>);

/// Address of the slice, and the positions that are left out.
type TrimmedKey = (usize, Box<[u32]>);

impl Trimmed {
    /// The timestamps of a column without those of its stale markers: the same slice for all series
    /// that have them at the same positions.
    pub(super) fn of(&self, slice: &Arc<[i64]>, stale: &[u32]) -> Arc<[i64]> {
        let key = (slice.as_ptr().addr(), stale.into());
        let mut all = self.0.lock();
        if let Some((own, trimmed)) = all.get(&key)
            && Arc::ptr_eq(own, slice)
        {
            return Arc::clone(trimmed);
        }
        if TRIMMED_MAX <= all.len() {
            all.clear();
        }
        let trimmed = match span_without(stale, slice.len()) {
            Some(span) => slice[span].into(),
            None => without(slice, stale).collect(),
        };
        all.insert(key, (Arc::clone(slice), Arc::clone(&trimmed)));
        trimmed
    }
}

/// What is left of so many positions without some of them (ascending), if that is one piece.
pub(super) fn span_without(gone: &[u32], len: usize) -> Option<Range<usize>> {
    let before = (0..).zip(gone).take_while(|(at, gone)| at == *gone).count();
    let back = (0..len as u32).rev().zip(gone[before..].iter().rev());
    let after = back.take_while(|(at, gone)| at == *gone).count();
    (before + after == gone.len()).then_some(before..len - after)
}

/// What does not stand at some positions (ascending).
pub(super) fn without<'a, T: Clone>(all: &'a [T], gone: &'a [u32]) -> impl Iterator<Item = T> + 'a {
    let mut gone = gone.iter().peekable();
    let kept = (0..).zip(all).filter(move |(at, _)| gone.next_if(|gone| *gone == at).is_none());
    kept.map(|(_, one)| one.clone())
}

/// What all blocks of a chain share. A chain has one selector, so a slice has one table.
#[derive(Default)]
pub(super) struct ChainTables {
    /// Of a range.
    pub(super) windows: Store<Windows>,
    /// Of an instant vector: the position of the newest sample at each step.
    pub(super) newest: Store<Vec<u32>>,
    pub(super) trimmed: Trimmed,
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Steps = Steps { start_ms: 0, step_ms: 1, count: 1 };

    #[test]
    fn tables_are_made_once_for_all_blocks() {
        let store = Store::default();
        let slices: [Arc<[i64]>; 2] = [[1, 2].into(), [1, 2].into()];
        for block in 0..3 {
            let mut tables = SharedTables::new(STEPS, Some(&store));
            for (number, slice) in slices.iter().enumerate() {
                let made = tables.get(slice, || {
                    assert_eq!(block, 0, "made for the first block");
                    number
                });
                assert_eq!((*made, *tables.get(slice, || 9)), (number, number));
            }
        }
    }

    #[test]
    fn equal_gaps_share_their_timestamps() {
        let trimmed = Trimmed::default();
        let slice: Arc<[i64]> = [1, 2, 3].into();
        let first = trimmed.of(&slice, &[1]);
        assert_eq!(*first, [1, 3]);
        assert!(Arc::ptr_eq(&first, &trimmed.of(&slice, &[1])));
        assert_eq!(*trimmed.of(&slice, &[2]), [1, 2]);
    }

    #[test]
    fn what_is_left_is_one_piece_or_several() {
        for mask in 0..64_u32 {
            let gone: Vec<u32> = (0..6).filter(|at| mask >> at & 1 == 1).collect();
            let left: Vec<u32> = (0..6).filter(|at| mask >> at & 1 == 0).collect();
            let all: Vec<u32> = (0..6).collect();
            assert_eq!(without(&all, &gone).collect::<Vec<_>>(), left);
            let neighbours = left.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            let span = span_without(&gone, 6);
            assert_eq!(span.is_some(), neighbours, "{gone:?}");
            assert!(span.is_none_or(|span| all[span] == left[..]), "{gone:?}");
        }
    }
}
