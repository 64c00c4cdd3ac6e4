//! Many series for the head's index at once, as a restart brings them.
//!
//! Each label remembers the series that have it, and all of them go into the index together.

use super::postings::HeadIndex;
use crate::storage::registry::sets::LabelRef;

/// So many series are collected before the index takes them.
const SERIES_MAX: usize = 64 << 10;

/// Series that the index does not know yet.
#[derive(Debug, Default)]
pub struct Collector {
    /// By label.
    series_of: Vec<Vec<u32>>,
    /// Labels that have series.
    touched: Vec<LabelRef>,
    series: Vec<u32>,
}

impl Collector {
    /// Adds a series by its labels. Its number must be in neither the index nor the collector.
    pub fn add(&mut self, series: u32, labels: &[LabelRef]) {
        for label in labels {
            let at = *label as usize;
            if self.series_of.len() <= at {
                self.series_of.resize_with(at + 1, Vec::new);
            }
            let own = &mut self.series_of[at];
            if own.is_empty() {
                self.touched.push(*label);
            }
            own.push(series);
        }
        self.series.push(series);
    }

    /// Whether it is time to [`Collector::flush`].
    pub fn is_full(&self) -> bool {
        SERIES_MAX <= self.series.len()
    }

    /// Gives the series to the index. `pair` tells name and value of a label.
    pub fn flush<'a>(
        &mut self,
        pair: impl Fn(LabelRef) -> (&'a str, &'a str),
        index: &mut HeadIndex,
    ) {
        self.series.sort_unstable();
        self.series.dedup();
        index.insert_many(&self.series);
        self.series.clear();
        let mut labels: Vec<(&str, &str, Vec<u32>)> = Vec::with_capacity(self.touched.len());
        for label in self.touched.drain(..) {
            let (name, value) = pair(label);
            let mut series = std::mem::take(&mut self.series_of[label as usize]);
            if !series.is_sorted_by(|a, b| a < b) {
                series.sort_unstable();
                series.dedup();
            }
            labels.push((name, value, series));
        }
        labels.sort_unstable_by_key(|own| (own.0, own.1));
        for same in labels.chunk_by(|a, b| a.0 == b.0) {
            index.insert_label(same[0].0, same.iter().map(|own| (own.1, &*own.2)));
        }
    }
}
