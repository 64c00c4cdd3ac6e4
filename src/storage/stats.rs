//! Figures about the head for `/api/v1/status/tsdb`.

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
