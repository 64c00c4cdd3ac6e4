//! Figures about the head and the segments for `/api/v1/status/tsdb`.

use std::sync::Arc;

use super::store::Store;
use super::version::OpenSegment;
use crate::model::sample::TimeRange;

/// A name and how much there is of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCount {
    /// What is counted.
    pub name: String,
    /// How much.
    pub value: u64,
}

/// What the head holds, with the largest contributors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TsdbStats {
    /// Series in the head.
    pub num_series: u64,
    /// Distinct name-value pairs among their labels.
    pub num_label_pairs: u64,
    /// Runs of samples in open log files: one for each series and file.
    pub chunk_count: u64,
    /// Oldest sample in the head, inclusive; `i64::MAX` when it is empty.
    pub min_time_ms: i64,
    /// Newest sample in the head, inclusive; `i64::MIN` when it is empty.
    pub max_time_ms: i64,
    /// Metrics with the most series.
    pub series_count_by_metric_name: Vec<NamedCount>,
    /// Labels with the most values.
    pub label_value_count_by_label_name: Vec<NamedCount>,
    /// Labels whose values take the most bytes.
    pub memory_in_bytes_by_label_name: Vec<NamedCount>,
    /// `name=value` pairs with the most series.
    pub series_count_by_label_value_pair: Vec<NamedCount>,
}

/// A sealed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its number.
    pub id: u64,
    /// How often it was merged, roughly.
    pub level: u8,
    /// Oldest sample, inclusive.
    pub min_ms: i64,
    /// Newest sample, inclusive.
    pub max_ms: i64,
    /// Series.
    pub series_count: u32,
    /// Chunks of all series.
    pub chunk_count: u64,
    /// Samples in all chunks.
    pub sample_count: u64,
    /// Length of the file.
    pub bytes: u64,
}

impl Store {
    /// See [`super::Storage::stats`].
    pub fn stats(&self, limit: usize) -> TsdbStats {
        let index = self.registry.read().index().stats(limit);
        let version = self.version.load();
        let chunks = version.logs.iter().map(|log| log.directory().read().chunk_count());
        let head = self.head_range();
        TsdbStats {
            num_series: index.series_count,
            num_label_pairs: index.pair_count,
            chunk_count: chunks.sum(),
            min_time_ms: head.min_ms,
            max_time_ms: head.max_ms,
            series_count_by_metric_name: index.series_by_metric,
            label_value_count_by_label_name: index.values_by_name,
            memory_in_bytes_by_label_name: index.bytes_by_name,
            series_count_by_label_value_pair: index.series_by_pair,
        }
    }

    /// All segments, in the order in which queries read them.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        let version = self.version.load();
        let summary = |own: &Arc<OpenSegment>| {
            let info = own.segment.info();
            SegmentSummary {
                id: own.entry.id,
                level: own.entry.level,
                min_ms: info.min_ms,
                max_ms: info.max_ms,
                series_count: info.series_count,
                chunk_count: info.chunk_count,
                sample_count: info.sample_count,
                bytes: info.bytes,
            }
        };
        version.segments.iter().map(summary).collect()
    }

    /// From the oldest to the newest sample in log files; `min_ms > max_ms` when there is none.
    pub fn head_range(&self) -> TimeRange {
        let version = self.version.load();
        let ranges = version.logs.iter().map(|log| log.directory().read().range());
        ranges.fold(TimeRange { min_ms: i64::MAX, max_ms: i64::MIN }, widen)
    }

    /// From the oldest to the newest sample of all.
    pub fn range(&self) -> Option<TimeRange> {
        let version = self.version.load();
        let segments = version.segments.iter().map(|own| own.segment.time_range());
        let range = segments.fold(self.head_range(), widen);
        (range.min_ms <= range.max_ms).then_some(range)
    }
}

fn widen(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange { min_ms: a.min_ms.min(b.min_ms), max_ms: a.max_ms.max(b.max_ms) }
}
