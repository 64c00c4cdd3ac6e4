//! What operations hand to each other: series as columns of one value for each step.
//!
//! A step without a value holds [`ABSENT`](absent), the stale marker: no operation yields those
//! bits otherwise, because arithmetic quiets every NaN, and selectors take stale markers for
//! absence anyway. A step with a histogram holds a second marker, so that whoever only asks whether
//! there is a value need not know about histograms; the histogram lies in a column beside. Series
//! without histograms have no such column. An entry of it counts only where the marker stands.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::model::sample::{is_stale_nan, stale_nan};
use crate::promql::engine::QueryError;
use crate::storage::select::Selection;

use super::Evaluator;
use super::counts::samples_of;

/// Bits of the value beside a histogram: a signalling NaN, as the stale marker is one.
const HISTOGRAM_NAN_BITS: u64 = 0x7ff0_0000_0000_0003;

/// Whether a step holds no value.
pub(super) fn is_absent(value: f64) -> bool {
    is_stale_nan(value)
}

/// What a step without a value holds.
pub(super) fn absent() -> f64 {
    stale_nan()
}

/// What a step with a histogram holds.
pub(super) fn marker() -> f64 {
    f64::from_bits(HISTOGRAM_NAN_BITS)
}

fn is_marker(value: f64) -> bool {
    value.to_bits() == HISTOGRAM_NAN_BITS
}

/// Histograms of the steps; empty when there is none at all.
pub(super) type Histograms = Vec<Option<Arc<Histogram>>>;

/// The histogram of a step or position, if its value is one.
pub(super) fn histogram_at<'a>(
    values: &[f64],
    histograms: &'a [Option<Arc<Histogram>>],
    at: usize,
) -> Option<&'a Arc<Histogram>> {
    let found = histograms.get(at)?.as_ref();
    found.filter(|_| values.get(at).is_some_and(|value| is_marker(*value)))
}

/// A value as it is.
#[derive(Clone, Debug)]
pub(super) enum Sample {
    Absent,
    Float(f64),
    Histogram(Arc<Histogram>),
}

impl Sample {
    /// The value at a step.
    pub(super) fn at(values: &[f64], histograms: &[Option<Arc<Histogram>>], at: usize) -> Self {
        match histogram_at(values, histograms, at) {
            Some(histogram) => Self::Histogram(Arc::clone(histogram)),
            None if is_absent(values[at]) => Self::Absent,
            None => Self::Float(values[at]),
        }
    }

    /// Writes the value to a step of columns of `values.len()` steps.
    pub(super) fn put(self, values: &mut [f64], histograms: &mut Histograms, at: usize) {
        match self {
            Self::Absent => values[at] = absent(),
            Self::Float(value) => values[at] = value,
            Self::Histogram(histogram) => {
                if histograms.is_empty() {
                    histograms.resize(values.len(), None);
                }
                values[at] = marker();
                histograms[at] = Some(histogram);
            }
        }
    }
}

/// A series with a value for each step.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    /// The metric name is still there but does not count (only with delayed name removal).
    pub(super) drop_name: bool,
    pub(super) values: Vec<f64>,
    /// Beside the markers among the values.
    pub(super) histograms: Histograms,
}

impl Series {
    /// A series of floats.
    pub(super) fn floats(labels: Labels, drop_name: bool, values: Vec<f64>) -> Self {
        Self { labels, drop_name, values, histograms: Histograms::new() }
    }

    pub(super) fn present_count(&self) -> u64 {
        super::kernels::count_present(&self.values)
    }

    /// The values in the unit in which samples are counted: a histogram is several.
    pub(super) fn held_count(&self) -> u64 {
        self.present_count() + weight(&self.histograms)
    }

    /// The histogram of a step, if its value is one.
    pub(super) fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        histogram_at(&self.values, &self.histograms, step)
    }

    /// What it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let histograms = self.histograms.iter().flatten().map(|one| 8 + one.bytes());
        size_of::<Self>()
            + self.labels.heap_bytes()
            + size_of_val(self.values.as_slice())
            + histograms.sum::<usize>()
    }

    /// Leaves the floats alone.
    pub(super) fn drop_histograms(&mut self) {
        drop_histograms(&mut self.values, &mut self.histograms);
    }

    /// Copies a step of another series with as many steps.
    pub(super) fn take_step(&mut self, from: &Self, step: usize) {
        if let Some(histogram) = from.histogram(step) {
            let sample = Sample::Histogram(Arc::clone(histogram));
            sample.put(&mut self.values, &mut self.histograms, step);
        } else {
            self.values[step] = from.values[step];
        }
    }
}

/// As how many samples histograms are counted beside their markers.
pub(super) fn weight(histograms: &[Option<Arc<Histogram>>]) -> u64 {
    histograms.iter().flatten().map(|histogram| samples_of(histogram) - 1).sum()
}

fn drop_histograms(values: &mut [f64], histograms: &mut Histograms) -> bool {
    let mut any = false;
    for step in 0..histograms.len() {
        if histogram_at(values, histograms, step).is_some() {
            values[step] = absent();
            any = true;
        }
    }
    histograms.clear();
    any
}

/// Labels of the series of a block, read from the store when somebody asks: most sums do not, as
/// it is known which group each series belongs to.
pub(super) struct BlockLabels<'a> {
    selection: &'a Selection,
    first: u32,
    count: usize,
    /// Where the selector says what the metric name is.
    name: Option<&'a str>,
    all: OnceCell<Arc<[Labels]>>,
}

impl<'a> BlockLabels<'a> {
    /// Of `count` series from `first` on.
    pub(super) fn new(
        selection: &'a Selection,
        first: u32,
        count: usize,
        name: Option<&'a str>,
    ) -> Self {
        Self { selection, first, count, name, all: OnceCell::new() }
    }

    fn all(&self) -> Result<&[Labels], QueryError> {
        if let Some(all) = self.all.get() {
            return Ok(all);
        }
        let all = self.selection.block_labels(self.first, self.count)?;
        Ok(self.all.get_or_init(|| all))
    }
}

/// The labels of a series on its way.
#[derive(Clone, Copy)]
pub(super) enum ItemLabels<'a> {
    /// At hand.
    Known(&'a Labels),
    /// Of the series at a position of a block.
    InBlock(&'a BlockLabels<'a>, u32),
}

impl<'a> ItemLabels<'a> {
    pub(super) fn get(self) -> Result<&'a Labels, QueryError> {
        match self {
            Self::Known(labels) => Ok(labels),
            Self::InBlock(block, position) => Ok(&block.all()?[position as usize]),
        }
    }

    /// The metric name; empty when there is none.
    pub(super) fn name(self) -> Result<&'a str, QueryError> {
        match self {
            Self::InBlock(BlockLabels { name: Some(name), .. }, _) => Ok(name),
            _ => Ok(self.get()?.name()),
        }
    }
}

/// A series on its way from one operation to the next.
pub(super) struct Item<'a> {
    pub(super) labels: ItemLabels<'a>,
    /// In a fork: which series of the block it is.
    pub(super) position: u32,
    /// The name is to be dropped by whoever keeps the labels.
    pub(super) drop_name: bool,
    pub(super) values: &'a mut [f64],
    /// Beside the markers among the values; mostly empty.
    pub(super) histograms: &'a mut Histograms,
}

impl Item<'_> {
    /// The histogram of a step, if its value is one.
    pub(super) fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        histogram_at(self.values, self.histograms, step)
    }

    /// Changes the sign of each value.
    pub(super) fn negate(&mut self) {
        for step in 0..self.values.len() {
            if let Some(histogram) = self.histogram(step) {
                self.histograms[step] = Some(Arc::new(histogram.scaled(-1.0)));
            } else if !self.values[step].is_nan() {
                // A NaN without its sign may be the marker of absence.
                self.values[step] = -self.values[step];
            }
        }
    }

    /// Leaves the floats alone; tells whether there was a histogram.
    pub(super) fn drop_histograms(&mut self) -> bool {
        drop_histograms(self.values, self.histograms)
    }
}

/// Takes streamed series.
pub(super) type Sink<'s, 'e> =
    &'s mut dyn FnMut(&mut Evaluator<'e>, Item<'_>) -> Result<(), QueryError>;
