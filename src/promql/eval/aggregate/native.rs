//! Sums and means of native histograms within an aggregation.

use std::sync::Arc;

use crate::model::histogram::{Histogram, HistogramMean, HistogramSum, Incompatible, Merged};
use crate::promql::ast::Span;
use crate::promql::engine::QueryError;

use super::super::annotations::{Annotations, Operation, RangeNotice};
use super::super::functions::native::Hints;
use super::super::series::{Item, Sample, Series};
use super::super::{Evaluator, is_absent};
use super::fold::Cells;

enum Total {
    Sum(HistogramSum),
    Mean(HistogramMean),
}

impl Total {
    fn add(&mut self, histogram: &Histogram) -> Result<Merged, Incompatible> {
        match self {
            Self::Sum(sum) => sum.add(histogram),
            Self::Mean(mean) => mean.add(histogram),
        }
    }

    fn finish(self) -> Histogram {
        match self {
            Self::Sum(sum) => sum.total(),
            Self::Mean(mean) => mean.finish(),
        }
    }
}

/// The histograms of one group and step.
struct Native {
    /// None after a float, as there will be no result.
    total: Option<Total>,
    hints: Hints,
    /// Exponential and custom buckets have met; there will be no result.
    incompatible: bool,
}

/// By group and step; as long as there is no histogram it is empty.
pub(super) struct Natives {
    cells: Vec<Option<Box<Native>>>,
    is_mean: bool,
}

impl Natives {
    pub(super) fn new(is_mean: bool) -> Self {
        Self { cells: Vec::new(), is_mean }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Puts the results beside those of floats.
    pub(super) fn finish(
        self,
        out: &mut [Series],
        steps: usize,
        span: Span,
        notes: &mut Annotations,
    ) {
        for (place, native) in self.cells.into_iter().enumerate() {
            let Some(native) = native else { continue };
            let (series, step) = (&mut out[place / steps], place % steps);
            let mut sample = Sample::Absent;
            if !is_absent(series.values[step]) {
                notes.mixed_group(span);
            } else if let (Some(total), false) = (native.total, native.incompatible) {
                sample = Sample::Histogram(Arc::new(total.finish()));
                if native.hints.collide() {
                    notes.hints_collide(Operation::Aggregation, span);
                }
            }
            sample.put(&mut series.values, &mut series.histograms, step);
        }
    }
}

impl Evaluator<'_> {
    /// Folds a series into the cells of its group from `place` on.
    pub(super) fn fold_histograms<C: Cells>(
        &mut self,
        item: &Item<'_>,
        cells: &mut C,
        natives: &mut Natives,
        place: usize,
        span: Span,
    ) -> Result<(), QueryError> {
        let stripped = item.drop_name && !self.env.delayed_name_removal;
        let name = if stripped { "" } else { item.labels.name()? };
        let end = place + item.values.len();
        if natives.cells.len() < end {
            natives.cells.resize_with(end, || None);
        }
        let is_mean = natives.is_mean;
        for (step, native) in natives.cells[place..end].iter_mut().enumerate() {
            if is_absent(item.values[step]) || native.as_ref().is_some_and(|own| own.incompatible) {
                continue;
            }
            let Some(histogram) = item.histogram(step) else {
                cells.add(place + step, &item.values[step..=step]);
                continue;
            };
            let Some(native) = native else {
                self.hold(1 + histogram.bytes() as u64 / 16)?;
                let total = is_absent(cells.finish(place + step)).then(|| {
                    if is_mean {
                        Total::Mean(HistogramMean::of(histogram))
                    } else {
                        Total::Sum(HistogramSum::of(histogram))
                    }
                });
                let mut hints = Hints::default();
                hints.see(histogram);
                *native = Some(Box::new(Native { total, hints, incompatible: false }));
                continue;
            };
            native.hints.see(histogram);
            match native.total.as_mut().map(|total| total.add(histogram)) {
                Some(Ok(merged)) if merged.bounds_differ => {
                    self.notes.bounds_differ(Operation::Aggregation, span);
                }
                Some(Err(Incompatible)) => {
                    native.incompatible = true;
                    self.notes.range_notice(RangeNotice::MixedSchemas, name, span);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
