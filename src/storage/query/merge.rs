//! Putting the samples of one series together from several files.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::histogram::Histogram;
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

/// Values of one kind.
pub enum Values {
    /// Floats.
    Floats(Vec<f64>),
    /// Native histograms.
    Histograms(Vec<Arc<Histogram>>),
}

impl From<Vec<f64>> for Values {
    fn from(values: Vec<f64>) -> Self {
        Self::Floats(values)
    }
}

impl From<Vec<Arc<Histogram>>> for Values {
    fn from(values: Vec<Arc<Histogram>>) -> Self {
        Self::Histograms(values)
    }
}

impl Values {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Histograms(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Only those of some rows.
    pub fn keep(&mut self, rows: Range<usize>) {
        match self {
            Self::Floats(values) => keep(values, rows),
            Self::Histograms(values) => keep(values, rows),
        }
    }

    fn is_histograms(&self) -> bool {
        matches!(self, Self::Histograms(_))
    }
}

fn keep<T>(values: &mut Vec<T>, rows: Range<usize>) {
    values.truncate(rows.end);
    values.drain(..rows.start);
}

/// A value of either kind.
#[derive(Clone, Debug)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl Value {
    fn is_histogram(&self) -> bool {
        matches!(self, Self::Histogram(_))
    }
}

/// When the counting began that each sample tells of, 0 where that is not known; `None`: nowhere.
pub type Starts = Option<Arc<[i64]>>;

struct Part {
    times: Times,
    values: Values,
    starts: Starts,
}

/// A value, and when the counting began that it tells of; 0: not known.
type StartedValue = (Value, i64);

/// Samples of one series, in the order in which they were accepted: where two parts have the
/// same timestamp, the earlier part's value counts.
#[derive(Default)]
pub struct Parts(Vec<Part>);

impl Parts {
    /// Adds samples; as many values as timestamps.
    pub fn push(&mut self, times: Times, values: impl Into<Values>) {
        self.push_started(times, values, None);
    }

    /// The same with as many starts.
    pub fn push_started(&mut self, times: Times, values: impl Into<Values>, starts: Starts) {
        let values = values.into();
        debug_assert_eq!(times.len(), values.len());
        debug_assert!(starts.as_ref().is_none_or(|starts| starts.len() == times.len()));
        debug_assert!(times.is_sorted_by(|a, b| a < b));
        if !values.is_empty() {
            self.0.push(Part { times, values, starts });
        }
    }

    /// Adds samples of both kinds, strictly ascending in time.
    pub fn push_mixed(&mut self, samples: Vec<(i64, StartedValue)>) {
        self.0.extend(split(samples));
    }

    /// The merged samples.
    pub fn finish(self, sharing: &mut Sharing) -> SeriesColumns {
        let in_order = self.0.windows(2).all(|pair| pair[0].times.last() < pair[1].times.first());
        let parts = if in_order { self.0 } else { self.merge() };
        let mut runs = SmallVec::new();
        let mut parts = parts.into_iter().peekable();
        while let Some(first) = parts.next() {
            let is_histograms = first.values.is_histograms();
            let same_kind = |next: &Part| next.values.is_histograms() == is_histograms;
            let mut run = vec![first];
            while let Some(next) = parts.next_if(same_kind) {
                run.push(next);
            }
            runs.push(run_of(run, sharing));
        }
        SeriesColumns { runs }
    }

    /// Parts that ascend in time.
    fn merge(self) -> Vec<Part> {
        let is_plain = |part: &Part| !part.values.is_histograms() && part.starts.is_none();
        if self.0.iter().all(is_plain) {
            let pairs = |part: &Part| match &part.values {
                Values::Floats(values) => {
                    part.times.iter().copied().zip(values.iter().copied()).collect()
                }
                Values::Histograms(_) => Vec::new(),
            };
            let all: Vec<(i64, f64)> = self.0.iter().flat_map(pairs).collect();
            let (times, values): (Vec<_>, Vec<_>) = first_of_each_time(all).into_iter().unzip();
            return vec![Part { times: Times::Own(times), values: values.into(), starts: None }];
        }
        let mut all = Vec::new();
        for Part { times, values, starts } in self.0 {
            let values: Vec<Value> = match values {
                Values::Floats(values) => values.into_iter().map(Value::Float).collect(),
                Values::Histograms(values) => values.into_iter().map(Value::Histogram).collect(),
            };
            let start = |at: usize| starts.as_ref().map_or(0, |starts| starts[at]);
            let values = values.into_iter().enumerate().map(|(at, value)| (value, start(at)));
            all.extend(times.iter().copied().zip(values));
        }
        split(first_of_each_time(all))
    }
}

fn first_of_each_time<T>(mut all: Vec<(i64, T)>) -> Vec<(i64, T)> {
    all.sort_by_key(|sample| sample.0);
    all.dedup_by_key(|sample| sample.0);
    all
}

/// Neighbours of one kind.
fn split(samples: Vec<(i64, StartedValue)>) -> Vec<Part> {
    let part = |run: &[(i64, StartedValue)]| {
        let times = Times::Own(run.iter().map(|sample| sample.0).collect());
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        for (_, (value, _)) in run {
            match value {
                Value::Float(value) => floats.push(*value),
                Value::Histogram(value) => histograms.push(Arc::clone(value)),
            }
        }
        let values = if histograms.is_empty() { floats.into() } else { histograms.into() };
        let starts = starts_of(run.iter().map(|sample| sample.1.1));
        Part { times, values, starts }
    };
    samples.chunk_by(|a, b| a.1.0.is_histogram() == b.1.0.is_histogram()).map(part).collect()
}

/// Starts, when any of them is known.
pub fn starts_of(mut starts: impl Iterator<Item = i64> + Clone) -> Starts {
    let is_any = starts.clone().any(|start_ms| start_ms != 0);
    is_any.then(|| starts.by_ref().collect())
}

/// Parts of one kind, in order of time, as one run.
fn run_of(mut parts: Vec<Part>, sharing: &mut Sharing) -> Run {
    let (times, values, starts_ms) = if parts.len() == 1 {
        let Part { times, values, starts } = parts.swap_remove(0);
        let times = match times {
            Times::Own(times) => sharing.share(times),
            Times::Shared(times) => sharing.share_slice(&times),
        };
        (times, values, starts)
    } else {
        let times = parts.iter().flat_map(|part| part.times.iter().copied()).collect();
        let starts = parts.iter().any(|part| part.starts.is_some()).then(|| {
            let starts = |part: &Part| match &part.starts {
                Some(starts) => starts.to_vec(),
                None => vec![0; part.times.len()],
            };
            parts.iter().flat_map(starts).collect()
        });
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        for part in parts {
            match part.values {
                Values::Floats(values) => floats.extend(values),
                Values::Histograms(values) => histograms.extend(values),
            }
        }
        let values = if histograms.is_empty() { floats.into() } else { histograms.into() };
        (sharing.share(times), values, starts)
    };
    let values = match values {
        Values::Floats(values) => Column::Floats(values.into()),
        Values::Histograms(values) => Column::Histograms(values.into()),
    };
    Run { timestamps_ms: times, values, starts_ms, stale: None }
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
