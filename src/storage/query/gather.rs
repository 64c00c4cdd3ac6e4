//! The samples of one series while they are put together, in order of acceptance.
//!
//! Columns that follow each other in time, which nearly all do, become one: values are appended,
//! and the timestamps are those of the first series that was put together of the same columns.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};

use super::columns::Piece;
use super::merge::{Parts, Sharing, Times};
use crate::storage::select::{Column, Run, SeriesColumns, Slice};

/// Timestamp slices, one after the other.
type Several = SmallVec<[Arc<[i64]>; 2]>;

/// Timestamps of joined slices that are kept.
const KEPT_ROWS_MAX: usize = 1 << 20;

/// Joined timestamp slices of one query.
#[derive(Default)]
pub struct Joined(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By the addresses of the slices, which are kept with them, so that these stay their own.
    all: HashMap<SmallVec<[usize; 2]>, (Several, Arc<[i64]>), foldhash::fast::RandomState>,
    row_count: usize,
}

impl Joined {
    fn of(&self, slices: &Several) -> Arc<[i64]> {
        let key = slices.iter().map(|slice| slice.as_ptr().addr()).collect();
        let Known { all, row_count } = &mut *self.0.lock();
        if let Some((_, joined)) = all.get(&key) {
            return Arc::clone(joined);
        }
        let joined: Arc<[i64]> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        if KEPT_ROWS_MAX < *row_count + joined.len() {
            (*all, *row_count) = (HashMap::default(), 0);
        }
        *row_count += joined.len();
        all.insert(key, (slices.clone(), Arc::clone(&joined)));
        joined
    }
}

/// Joins the timestamps of neighbouring series, which mostly have the same.
pub struct Joining<'j> {
    all: &'j Joined,
    last: Option<(Several, Arc<[i64]>)>,
}

impl<'j> Joining<'j> {
    /// With what the query has joined.
    pub fn new(all: &'j Joined) -> Self {
        Self { all, last: None }
    }

    fn of(&mut self, slices: Several) -> Arc<[i64]> {
        if let Some((own, joined)) = &self.last
            && own.len() == slices.len()
            && own.iter().zip(&slices).all(|(own, slice)| Arc::ptr_eq(own, slice))
        {
            return Arc::clone(joined);
        }
        let joined = self.all.of(&slices);
        self.last = Some((slices, Arc::clone(&joined)));
        joined
    }
}

/// Samples of one series.
pub enum Gathering {
    /// None so far.
    Nothing,
    /// Floats without starts, each column after the one before; positions of stale markers, where
    /// they are known.
    InOrder(Several, Slice<f64>, Option<Box<[u32]>>),
    /// To be merged.
    Several(Parts),
}

impl Gathering {
    /// Adds a column.
    pub fn push(&mut self, Piece { times, values, stale }: Piece) {
        match self {
            Self::Nothing => *self = Self::InOrder(smallvec![times], values, stale),
            Self::InOrder(before, all, known) if follows(before, &times) => {
                before.push(times);
                *known = None;
                let mut joined = std::mem::take(all).into_vec();
                joined.extend_from_slice(&values);
                *all = joined.into();
            }
            Self::InOrder(..) | Self::Several(_) => {
                self.parts().push(Times::Shared(times), values.into_vec());
            }
        }
    }

    /// To add whatever else there is.
    pub fn parts(&mut self) -> &mut Parts {
        if !matches!(self, Self::Several(_)) {
            let mut parts = Parts::default();
            if let Self::InOrder(times, values, _) = std::mem::replace(self, Self::Nothing) {
                let mut start = 0;
                for times in times {
                    let own = values.part(start..start + times.len());
                    start += times.len();
                    parts.push(Times::Shared(times), own.into_vec());
                }
            }
            *self = Self::Several(parts);
        }
        match self {
            Self::Several(parts) => parts,
            Self::Nothing | Self::InOrder(..) => unreachable!("replaced above"),
        }
    }

    /// Makes the timestamps of joined columns one slice, the same for all series that have them.
    pub fn join(&mut self, joining: &mut Joining<'_>) {
        if let Self::InOrder(times, ..) = self
            && 1 < times.len()
        {
            *times = smallvec![joining.of(std::mem::take(times))];
        }
    }

    /// Shares equal timestamps; only once they are joined.
    pub fn share(&mut self, sharing: &mut Sharing) {
        if let Self::InOrder(times, ..) = self {
            for slice in times {
                *slice = sharing.share_slice(slice);
            }
        }
    }

    /// The samples, once their timestamps are joined.
    pub fn finish(self, sharing: &mut Sharing) -> SeriesColumns {
        match self {
            Self::Nothing => SeriesColumns::default(),
            Self::InOrder(mut times, values, stale) => {
                debug_assert_eq!(times.len(), 1, "joined before");
                let run = |timestamps_ms| {
                    let values = Column::Floats(values);
                    smallvec![Run { timestamps_ms, values, starts_ms: None, stale }]
                };
                SeriesColumns { runs: times.pop().map(run).unwrap_or_default() }
            }
            Self::Several(parts) => parts.finish(sharing),
        }
    }
}

fn follows(before: &Several, times: &[i64]) -> bool {
    before.last().and_then(|last| last.last()) < times.first()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(pieces: &[(&Arc<[i64]>, f64)], joining: &mut Joining<'_>) -> Run {
        let mut own = Gathering::Nothing;
        for (times, first) in pieces {
            let values: Slice<f64> = (0..times.len()).map(|at| first + at as f64).collect();
            own.push(Piece { times: Arc::clone(times), values, stale: None });
        }
        own.join(joining);
        own.finish(&mut Sharing::default()).runs.remove(0)
    }

    #[test]
    fn columns_that_follow_each_other_share_their_joined_times() {
        let [early, late]: [Arc<[i64]>; 2] = [[10, 20].into(), [30, 40, 50].into()];
        let joined = Joined::default();
        let runs =
            [0, 1].map(|_| gathered(&[(&early, 1.0), (&late, 3.0)], &mut Joining::new(&joined)));
        assert_eq!(*runs[0].timestamps_ms, [10, 20, 30, 40, 50]);
        assert!(Arc::ptr_eq(&runs[0].timestamps_ms, &runs[1].timestamps_ms));
        let Column::Floats(values) = &runs[0].values else { panic!("floats") };
        assert_eq!(**values, [1.0, 2.0, 3.0, 4.0, 5.0]);
        let alone = gathered(&[(&late, 0.0)], &mut Joining::new(&joined));
        assert!(Arc::ptr_eq(&alone.timestamps_ms, &late));
    }

    #[test]
    fn columns_that_overlap_are_merged() {
        let [first, second, third]: [Arc<[i64]>; 3] =
            [[10, 20].into(), [30, 40].into(), [20, 35].into()];
        let pieces = [(&first, 1.0), (&second, 3.0), (&third, 5.0)];
        let run = gathered(&pieces, &mut Joining::new(&Joined::default()));
        assert_eq!(*run.timestamps_ms, [10, 20, 30, 35, 40]);
        let Column::Floats(values) = &run.values else { panic!("floats") };
        assert_eq!(**values, [1.0, 2.0, 3.0, 6.0, 4.0]);
    }
}
