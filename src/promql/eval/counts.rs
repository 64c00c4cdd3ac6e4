//! How many samples a query looks at and reads, as a whole and, when that was asked for, at each
//! step. Counted as in Prometheus: what does not depend on the step counts at each, a subquery by
//! the points of its windows, a histogram as one sample for each 16 bytes that it takes there.

use std::sync::Arc;

use crate::model::histogram::Histogram;
use crate::promql::engine::{self, QueryError, Stats};

use super::range::Windows;
use super::{Evaluator, Steps};

/// Samples held and looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SampleCounts {
    pub(super) current: u64,
    /// Bytes of what is held.
    pub(super) bytes: u64,
    /// Most held at a time.
    pub(super) peak: u64,
    /// Looked at, whole windows at each step.
    pub(super) total: u64,
    /// Read from the store.
    pub(super) read: u64,
    /// Looked at within the subqueries whose windows are counted instead.
    pub(super) within: u64,
}

/// Samples by step.
#[derive(Clone, Debug)]
pub(super) struct PerStep {
    total: Vec<u64>,
    read: Vec<u64>,
}

impl PerStep {
    pub(super) fn new(steps: usize) -> Self {
        Self { total: vec![0; steps], read: vec![0; steps] }
    }

    /// Adds the counts of as many steps.
    pub(super) fn add(&mut self, other: &Self) {
        let add = |own: &mut [u64], other: &[u64]| {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        };
        add(&mut self.total, &other.total);
        add(&mut self.read, &other.read);
    }
}

/// Bytes of a histogram in Prometheus without its spans, buckets and bounds, and of its timestamp.
const HISTOGRAM_BYTES: usize = 168 + 8;

/// As how many samples a histogram counts.
pub(super) fn samples_of(histogram: &Histogram) -> u64 {
    ((HISTOGRAM_BYTES + histogram.bytes() - size_of::<Histogram>()) / 16) as u64
}

/// What was looked at for something that is counted later.
#[derive(Clone)]
pub(super) struct Aside {
    total: u64,
    read: u64,
    per_step: Option<PerStep>,
}

impl Evaluator<'_> {
    /// What the query was, without timings.
    pub(super) fn stats(&self, start_ms: i64, step_ms: i64) -> Stats {
        let per_step = self.per_step.as_ref().map(|own| engine::PerStep {
            start_ms,
            step_ms,
            total: own.total.clone(),
            read: own.read.clone(),
        });
        Stats {
            total_samples: self.samples.total,
            samples_read: self.samples.read,
            peak_samples: self.samples.peak,
            per_step,
            ..Stats::default()
        }
    }

    /// Counts the samples of one series that an instant selector found, `count` in all.
    pub(super) fn count_found(&mut self, count: u64, at: impl Fn(usize) -> u64) {
        self.samples.total += count;
        self.samples.read += count;
        let Some(per_step) = &mut self.per_step else { return };
        let columns = per_step.total.iter_mut().zip(&mut per_step.read);
        for (step, (total, read)) in columns.enumerate() {
            *total += at(step);
            *read += at(step);
        }
    }

    /// Counts the samples of one series in all windows.
    pub(super) fn count_windows(
        &mut self,
        windows: &Windows,
        histograms: Option<&[Option<Arc<Histogram>>]>,
    ) {
        if histograms.is_none() && self.per_step.is_none() {
            self.samples.total += windows.total;
            self.samples.read += windows.read;
            return;
        }
        // What the samples before each position count beyond one for each.
        let mut beyond = vec![0];
        let mut sum = 0;
        for histogram in histograms.unwrap_or_default() {
            sum += histogram.as_ref().map_or(0, |own| samples_of(own) - 1);
            beyond.push(sum);
        }
        let count = |first: u32, end: u32| {
            let at = |at: u32| beyond.get(at as usize).copied().unwrap_or_default();
            u64::from(end - first) + at(end) - at(first)
        };
        let mut newest = 0;
        for (step, (first, end)) in windows.first.iter().zip(&windows.end).enumerate() {
            let (total, read) = (count(*first, *end), count((*first).max(newest).min(*end), *end));
            newest = newest.max(*end);
            self.samples.total += total;
            self.samples.read += read;
            if let Some(per_step) = &mut self.per_step {
                per_step.total[step] += total;
                per_step.read[step] += read;
            }
        }
    }

    /// Evaluates something for so many steps of its own, without counting its samples.
    pub(super) fn aside<T>(
        &mut self,
        steps: usize,
        evaluate: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<(T, Aside), QueryError> {
        let (total, read) = (self.samples.total, self.samples.read);
        let inner = self.per_step.as_ref().map(|_| PerStep::new(steps));
        let outer = std::mem::replace(&mut self.per_step, inner);
        let value = evaluate(self)?;
        let per_step = std::mem::replace(&mut self.per_step, outer);
        let aside =
            Aside { total: self.samples.total - total, read: self.samples.read - read, per_step };
        (self.samples.total, self.samples.read) = (total, read);
        Ok((value, aside))
    }

    /// Counts what was evaluated aside for the same steps.
    pub(super) fn count_aside(&mut self, aside: &Aside) {
        self.samples.total += aside.total;
        self.samples.read += aside.read;
        if let (Some(own), Some(other)) = (&mut self.per_step, &aside.per_step) {
            own.add(other);
        }
    }

    /// Counts what was evaluated once for all of so many steps: read once, looked at at each.
    pub(super) fn count_invariant(&mut self, aside: &Aside, steps: usize) {
        self.samples.total += aside.total * steps as u64;
        self.samples.read += aside.read;
        if let Some(own) = &mut self.per_step {
            own.total.iter_mut().for_each(|total| *total += aside.total);
            own.read.iter_mut().take(1).for_each(|read| *read += aside.read);
        }
    }

    /// Counts a subquery that nothing is computed from: by what its inside looked at.
    pub(super) fn count_subquery(&mut self) {
        let within = self.samples.within;
        self.samples.total += within;
        if let Some(total) = self.per_step.as_mut().and_then(|own| own.total.first_mut()) {
            *total += within;
        }
    }

    /// Counts what the inside of a subquery read; what it looked at is remembered only.
    pub(super) fn count_within(&mut self, aside: &Aside, inner: Steps, outer: Steps) {
        self.samples.read += aside.read;
        self.samples.within += aside.total;
        let (Some(own), Some(within)) = (&mut self.per_step, &aside.per_step) else { return };
        let last = own.read.len().saturating_sub(1);
        for (step, read) in within.read.iter().enumerate() {
            // The first step at which the moment has come.
            let since_ms = inner.time(step).saturating_sub(outer.start_ms).max(0);
            let at = (since_ms as u64).div_ceil(outer.step_ms.max(1) as u64) as usize;
            if let Some(own) = own.read.get_mut(at.min(last)) {
                *own += read;
            }
        }
    }
}
