//! Self-metrics of the store, under Prometheus' names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::append::Appended;
use super::store::Store;
use crate::base::metrics::{Distribution, Family, Kind, Number, Registry, Sample};

/// Handles of what is counted as it happens. Gauges are read when somebody asks.
pub struct Metrics {
    /// Floats and histograms.
    samples_appended: [Number; 2],
    out_of_order_appended: [Number; 2],
    out_of_order: Number,
    out_of_bounds: Number,
    too_old: Number,
    /// Samples whose series, or whose batch's new series, have too many bytes of labels.
    pub too_long: Number,
    exemplars_appended: Number,
    exemplars_out_of_order: Number,
    /// Series that were made.
    pub series_created: Number,
    /// Series that were forgotten.
    pub series_removed: Number,
    /// Duration of a sync of the log.
    pub fsync_seconds: Distribution,
    /// Samples of new series that a limit refused.
    pub limited_samples: Number,
    /// Log files that were damaged.
    pub wal_corruptions: Number,
    /// Segments that were damaged.
    pub segment_corruptions: Number,
    /// Log files that became segments.
    pub seals: Number,
    /// Attempts at that which failed.
    pub seals_failed: Number,
    /// How long it took.
    pub seal_seconds: Distribution,
    /// Times that retention by age removed segments.
    pub time_retentions: Number,
    /// Times that retention by size did.
    pub size_retentions: Number,
}

impl Metrics {
    /// Registers the metrics.
    #[expect(clippy::too_many_lines, reason = "a table of names and help texts")]
    pub fn new(registry: &Registry) -> Self {
        let by_type = |name: &str, help: &str| {
            let numbers = registry.counters(name, help, &["type"]);
            ["float", "histogram"].map(|kind| numbers.with(&[kind]))
        };
        let floats =
            |name: &str, help: &str| registry.counters(name, help, &["type"]).with(&["float"]);
        let [limited_samples, too_long, segment_corruptions, size_retentions, time_retentions] =
            removals(registry);
        let seal_bounds = [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
        Self {
            samples_appended: by_type(
                "prometheus_tsdb_head_samples_appended_total",
                "Total number of appended samples.",
            ),
            out_of_order_appended: by_type(
                "prometheus_tsdb_head_out_of_order_samples_appended_total",
                "Total number of appended out of order samples.",
            ),
            out_of_order: floats(
                "prometheus_tsdb_out_of_order_samples_total",
                "Total number of out of order samples ingestion failed attempts.",
            ),
            out_of_bounds: floats(
                "prometheus_tsdb_out_of_bound_samples_total",
                "Total number of out of bound samples ingestion failed attempts.",
            ),
            too_old: floats(
                "prometheus_tsdb_too_old_samples_total",
                "Total number of out of order samples ingestion failed attempts with out of \
                 support enabled, but sample outside of time window.",
            ),
            exemplars_appended: registry.counter(
                "prometheus_tsdb_exemplar_exemplars_appended_total",
                "Total number of appended exemplars.",
            ),
            exemplars_out_of_order: registry.counter(
                "prometheus_tsdb_exemplar_out_of_order_exemplars_total",
                "Total number of out of order exemplar ingestion failed attempts.",
            ),
            series_created: registry.counter(
                "prometheus_tsdb_head_series_created_total",
                "Total number of series created in the head",
            ),
            series_removed: registry.counter(
                "prometheus_tsdb_head_series_removed_total",
                "Total number of series removed in the head",
            ),
            fsync_seconds: registry.summary(
                "prometheus_tsdb_wal_fsync_duration_seconds",
                "Duration of write log fsync.",
                &[0.5, 0.9, 0.99],
            ),
            limited_samples,
            too_long,
            segment_corruptions,
            wal_corruptions: registry.counter(
                "prometheus_tsdb_wal_corruptions_total",
                "Total number of WAL corruptions.",
            ),
            seals: registry.counter(
                "prometheus_tsdb_compactions_total",
                "Total number of compactions that were executed for the partition.",
            ),
            seals_failed: registry.counter(
                "prometheus_tsdb_compactions_failed_total",
                "Total number of compactions that failed for the partition.",
            ),
            seal_seconds: registry.histogram(
                "prometheus_tsdb_compaction_duration_seconds",
                "Duration of compaction runs",
                &seal_bounds,
            ),
            size_retentions,
            time_retentions,
        }
    }

    /// Counts what a commit took in.
    /// Of late ones there are so many floats and histograms.
    pub fn count_appended(&self, appended: &Appended, late_counts: [usize; 2]) {
        let histogram_count = appended.histogram_count;
        let counts = [appended.sample_count - histogram_count, histogram_count];
        for (number, count) in self.samples_appended.iter().zip(counts) {
            number.add(count as f64);
        }
        for (number, count) in self.out_of_order_appended.iter().zip(late_counts) {
            number.add(count as f64);
        }
        self.exemplars_appended.add(appended.exemplar_count as f64);
        self.exemplars_out_of_order.add(appended.exemplar_out_of_order_count as f64);
        if appended.new_series_count > 0 {
            self.series_created.add(appended.new_series_count as f64);
        }
    }

    /// Counts what a commit refused.
    pub fn count_rejected(&self, appended: &Appended) {
        let counts = [
            (&self.out_of_order, appended.out_of_order_count),
            (&self.out_of_bounds, appended.out_of_bounds_count),
            (&self.too_old, appended.too_old_count),
            (&self.too_long, appended.too_long_count),
        ];
        for (number, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            number.add(count as f64);
        }
    }
}

/// Counters of what a limit refused, and of segments that were damaged, or removed by retention
/// by size and by age.
fn removals(registry: &Registry) -> [Number; 5] {
    [
        (
            "narthex_storage_limited_samples_total",
            "Samples of new series that were refused because of storage.limits.",
        ),
        (
            "narthex_storage_too_long_samples_total",
            "Samples that were refused because their labels have too many bytes.",
        ),
        (
            "narthex_storage_segment_corruptions_total",
            "Segments in which damage was found; their files are in the folder quarantine.",
        ),
        (
            "prometheus_tsdb_size_retentions_total",
            "The number of times that blocks were deleted because the maximum number of bytes \
             was exceeded.",
        ),
        (
            "prometheus_tsdb_time_retentions_total",
            "The number of times that blocks were deleted because the maximum time limit was \
             exceeded.",
        ),
    ]
    .map(|(name, help)| registry.counter(name, help))
}

/// Lets the registry read what the store knows at any moment.
pub fn collect(registry: &Registry, store: &Arc<Store>) {
    let store = Arc::downgrade(store);
    registry.collect_from(move |families| {
        if let Some(store) = store.upgrade() {
            families.extend(gauges(&store));
        }
    });
}

/// Name, help text and value of each gauge.
fn gauges(store: &Store) -> Vec<Family> {
    let version = store.version.load();
    let logs = || version.logs.iter();
    let segments = || version.segments.iter().map(|own| own.segment.info());
    let head = store.head_range();
    let chunks: u64 = logs().map(|log| log.directory().read().chunk_count()).sum();
    let wal_bytes: u64 = logs().map(|log| log.published_bytes()).sum();
    let block_bytes: u64 = segments().map(|info| info.bytes).sum();
    let lowest_ms = store.range().map_or(i64::MAX, |range| range.min_ms) as f64;
    let retention = store.retention.load();
    let retention_seconds = retention.time_ms.map_or(0.0, |time_ms| time_ms as f64 / 1e3);
    let retention_bytes = retention.bytes.unwrap_or(0) as f64;
    let retention_percentage = retention.percentage.unwrap_or(0.0);
    let (min_ms, max_ms) = (head.min_ms as f64, head.max_ms as f64);
    let current = version.logs.last().map_or(0, |log| log.id()) as f64;
    let series = store.registry.read().len() as f64;
    let (exemplars, exemplar_series, exemplar_ms) = store.exemplars.read().figures();
    let exemplar_seconds = exemplar_ms.unwrap_or(0) as f64 / 1e3;
    let exemplars_max = store.exemplars_max() as f64;
    [
        ("head_series", "Total number of series in the head block.", series),
        ("head_chunks", "Total number of chunks in the head block.", chunks as f64),
        ("head_min_time", "Minimum time bound of the head block. The unit is decided by the library consumer.", min_ms),
        ("head_max_time", "Maximum timestamp of the head block. The unit is decided by the library consumer.", max_ms),
        ("head_min_time_seconds", "Minimum time bound of the head block.", min_ms / 1e3),
        ("head_max_time_seconds", "Maximum timestamp of the head block.", max_ms / 1e3),
        ("wal_storage_size_bytes", "Size of the write log directory.", wal_bytes as f64),
        ("wal_segment_current", "Write log segment index that TSDB is currently writing to.", current),
        ("storage_blocks_bytes", "The number of bytes that are currently used for local storage by all blocks.", block_bytes as f64),
        ("blocks_loaded", "Number of currently loaded data blocks", segments().count() as f64),
        ("lowest_timestamp", "Lowest timestamp value stored in the database. The unit is decided by the library consumer.", lowest_ms),
        ("lowest_timestamp_seconds", "Lowest timestamp value stored in the database.", lowest_ms / 1e3),
        ("retention_limit_bytes", "Max number of bytes to be retained in the tsdb blocks, configured 0 means disabled", retention_bytes),
        ("retention_limit_percentage", "Max percentage of total storage space to be retained in the tsdb blocks, configured 0 means disabled", retention_percentage),
        ("exemplar_exemplars_in_storage", "Number of exemplars currently in circular storage.", exemplars as f64),
        ("exemplar_series_with_exemplars_in_storage", "Number of series with exemplars currently in circular storage.", exemplar_series as f64),
        ("exemplar_last_exemplars_timestamp_seconds", "The timestamp of the oldest exemplar stored in circular storage. Useful to check for what timerange the current exemplar buffer limit allows. This usually means the last timestamp for all exemplars for a typical setup. This is not true though if one of the series timestamp is in future compared to rest series.", exemplar_seconds),
        ("exemplar_max_exemplars", "Total number of exemplars the exemplar storage can store, resizeable.", exemplars_max),
        ("retention_limit_seconds", "How long to retain samples in storage.", retention_seconds),
    ]
    .map(|(name, help, value)| gauge(format!("prometheus_tsdb_{name}"), help, value))
    .into_iter()
    .chain(own_gauges(store))
    .collect()
}

fn gauge(name: String, help: &str, value: f64) -> Family {
    let samples = vec![Sample { suffix: "", labels: Vec::new(), value }];
    Family { name, help: help.to_owned(), kind: Kind::Gauge, samples }
}

/// What Prometheus has no name for.
fn own_gauges(store: &Store) -> Vec<Family> {
    let is = |state: bool| f64::from(u8::from(state));
    let deletions = store.version.load().tombstones.len() as f64;
    [
        (
            "stopped",
            "Whether no sample is taken after a failed write or sync, until a restart.",
            is(store.is_poisoned()),
        ),
        (
            "disk_full",
            "Whether samples are refused for want of space.",
            is(store.is_full.load(Ordering::Relaxed)),
        ),
        (
            "reserve_used",
            "Whether the reserve was used to free space and is not there again.",
            is(store.gave_way.load(Ordering::Relaxed)),
        ),
        (
            "merges_wait",
            "Whether segments are not merged for want of space.",
            is(store.merges_wait.load(Ordering::Relaxed)),
        ),
        ("deletions", "Deletions whose samples are not yet gone from all files.", deletions),
    ]
    .map(|(name, help, value)| gauge(format!("narthex_storage_{name}"), help, value))
    .into()
}
