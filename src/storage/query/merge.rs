//! Putting the samples of one series together from several files.

use std::sync::Arc;

use crate::storage::select::{Column, Run, SeriesColumns};

/// Timestamp slices that a block remembers, to share equal ones: a block has few groups.
const SHARED_MAX: usize = 16;

/// Equal timestamp slices become one.
#[derive(Default)]
pub struct Sharing {
    recent: Vec<Arc<[i64]>>,
}

impl Sharing {
    /// A slice with this content.
    pub fn share(&mut self, timestamps_ms: Vec<i64>) -> Arc<[i64]> {
        if let Some(at) = self.recent.iter().rposition(|own| **own == *timestamps_ms) {
            return Arc::clone(&self.recent[at]);
        }
        let new: Arc<[i64]> = timestamps_ms.into();
        self.remember(&new);
        new
    }

    /// The slice itself or an equal one that was seen before.
    pub fn share_slice(&mut self, timestamps_ms: &Arc<[i64]>) -> Arc<[i64]> {
        let same = |own: &Arc<[i64]>| Arc::ptr_eq(own, timestamps_ms) || own == timestamps_ms;
        if let Some(at) = self.recent.iter().rposition(same) {
            return Arc::clone(&self.recent[at]);
        }
        self.remember(timestamps_ms);
        Arc::clone(timestamps_ms)
    }

    fn remember(&mut self, new: &Arc<[i64]>) {
        if self.recent.len() == SHARED_MAX {
            self.recent.remove(0);
        }
        self.recent.push(Arc::clone(new));
    }
}

/// Strictly ascending timestamps of a part.
pub enum Times {
    /// Read from rows.
    Own(Vec<i64>),
    /// A column of a segment.
    Shared(Arc<[i64]>),
}

impl std::ops::Deref for Times {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        match self {
            Self::Own(times) => times,
            Self::Shared(times) => times,
        }
    }
}

/// Samples of one series, in the order in which they were accepted: where two parts have the
/// same timestamp, the earlier part's value counts.
#[derive(Default)]
pub struct Parts(Vec<(Times, Vec<f64>)>);

impl Parts {
    /// Adds samples; as many values as timestamps.
    pub fn push(&mut self, times: Times, values: Vec<f64>) {
        debug_assert_eq!(times.len(), values.len());
        debug_assert!(times.is_sorted_by(|a, b| a < b));
        if !values.is_empty() {
            self.0.push((times, values));
        }
    }

    /// The merged samples.
    pub fn finish(mut self, sharing: &mut Sharing) -> SeriesColumns {
        let in_order = self.0.windows(2).all(|pair| pair[0].0.last() < pair[1].0.first());
        let (times, values) = match self.0.len() {
            0 => return SeriesColumns::default(),
            1 => match self.0.swap_remove(0) {
                (Times::Own(times), values) => (sharing.share(times), values),
                (Times::Shared(times), values) => (sharing.share_slice(&times), values),
            },
            _ if in_order => {
                let times = self.0.iter().flat_map(|part| part.0.iter().copied()).collect();
                let values = self.0.into_iter().flat_map(|part| part.1).collect();
                (sharing.share(times), values)
            }
            _ => {
                let (times, values) = self.merge();
                (sharing.share(times), values)
            }
        };
        let run = Run { timestamps_ms: times, values: Column::Floats(values.into()) };
        SeriesColumns { runs: vec![run] }
    }

    fn merge(self) -> (Vec<i64>, Vec<f64>) {
        let pairs = |(times, values): &(Times, Vec<f64>)| {
            times.iter().copied().zip(values.iter().copied()).collect::<Vec<_>>()
        };
        let mut all: Vec<(i64, f64)> = self.0.iter().flat_map(pairs).collect();
        all.sort_by_key(|sample| sample.0);
        all.dedup_by_key(|sample| sample.0);
        all.into_iter().unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_accepted_value_wins_and_equal_times_are_shared() {
        let mut parts = Parts::default();
        parts.push(Times::Own(vec![10, 20, 30]), vec![1.0, 2.0, 3.0]);
        parts.push(Times::Own(vec![5, 20, 40]), vec![4.0, 5.0, 6.0]);
        let mut sharing = Sharing::default();
        let merged = parts.finish(&mut sharing);
        assert_eq!(*merged.runs[0].timestamps_ms, [5, 10, 20, 30, 40]);
        let Column::Floats(values) = &merged.runs[0].values else { panic!("floats") };
        assert_eq!(**values, [4.0, 1.0, 2.0, 3.0, 6.0]);
        let mut parts = Parts::default();
        parts.push(Times::Shared([5, 10].into()), vec![0.0, 0.0]);
        parts.push(Times::Own(vec![20, 30, 40]), vec![0.0, 0.0, 0.0]);
        let other = parts.finish(&mut sharing);
        assert!(Arc::ptr_eq(&merged.runs[0].timestamps_ms, &other.runs[0].timestamps_ms));
        assert!(Parts::default().finish(&mut sharing).runs.is_empty());
    }
}
