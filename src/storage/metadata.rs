//! Metadata by metric: bounded in bytes. When half of these are used, that of metrics without series
//! is forgotten.

use std::collections::BTreeMap;

use super::store::Store;
use crate::model::labels::METRIC_NAME;
use crate::model::metadata::{Metadata, TEXT_BYTES_MAX};

/// Longer names of metrics have no metadata.
const METRIC_BYTES_MAX: usize = 1 << 10;
/// All that is kept; more is ignored, so that senders cannot fill the memory. An honest metric has
/// some hundred bytes.
const BYTES_MAX: usize = if cfg!(test) { 256 << 10 } else { 64 << 20 };
/// What an entry takes besides its texts, roughly.
const ENTRY_BYTES: usize = 128;

/// Whether this is short enough to be kept.
pub fn is_short(metric: &str, metadata: &Metadata) -> bool {
    metric.len() <= METRIC_BYTES_MAX
        && metadata.help.len().max(metadata.unit.len()) <= TEXT_BYTES_MAX
}

/// What an entry takes.
pub fn bytes(metric: &str, metadata: &Metadata) -> usize {
    metric.len() + metadata.help.len() + metadata.unit.len() + ENTRY_BYTES
}

/// What is known of metrics.
#[derive(Debug, Default)]
pub struct MetadataMap {
    by_metric: BTreeMap<String, Metadata>,
    bytes: usize,
}

impl std::ops::Deref for MetadataMap {
    type Target = BTreeMap<String, Metadata>;

    fn deref(&self) -> &Self::Target {
        &self.by_metric
    }
}

impl MetadataMap {
    /// Keeps what is known of a metric; false when it is too long or there is no room.
    pub fn insert(&mut self, metric: &str, metadata: &Metadata) -> bool {
        let old = self.by_metric.get(metric).map_or(0, |old| bytes(metric, old));
        let new = self.bytes - old + bytes(metric, metadata);
        if !is_short(metric, metadata) || BYTES_MAX < new {
            return false;
        }
        self.bytes = new;
        self.by_metric.insert(metric.to_owned(), metadata.clone());
        true
    }

    /// Forgets metrics of which there are no series. `names` are those of all series, sorted.
    /// Those of a histogram, say, begin with the name that is known here.
    fn forget_unused(&mut self, names: &[String]) {
        let is_used = |metric: &str| {
            let from = names.partition_point(|own| own.as_str() < metric);
            names.get(from).is_some_and(|own| own.starts_with(metric))
        };
        let left = &mut self.bytes;
        self.by_metric.retain(|metric, own| {
            let is_used = is_used(metric);
            *left -= if is_used { 0 } else { bytes(metric, own) };
            is_used
        });
    }
}

impl Store {
    /// Forgets the metadata of metrics without series in the head, when there is much of it: who told
    /// it may not tell it again.
    pub fn forget_unused_metadata(&self) {
        if self.metadata.read().bytes < BYTES_MAX / 2 {
            return;
        }
        let names = self.registry.read().index().label_values(METRIC_NAME, None);
        self.metadata.write().forget_unused(&names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(text: &str) -> Metadata {
        Metadata { help: text.to_owned(), ..Metadata::default() }
    }

    #[test]
    fn bytes_are_bounded_and_unused_metrics_make_room() {
        let mut known = MetadataMap::default();
        let long = help(&"x".repeat(TEXT_BYTES_MAX));
        assert!(!known.insert(&"m".repeat(METRIC_BYTES_MAX + 1), &help("")));
        assert!(!known.insert("m", &help(&"x".repeat(TEXT_BYTES_MAX + 1))));
        let mut kept = 0;
        while known.insert(&format!("m{kept:03}"), &long) {
            kept += 1;
        }
        assert_eq!(kept, BYTES_MAX / bytes("m000", &long));
        assert!(!known.insert("n_total", &long));
        assert!(known.insert("m001", &help("short")), "known ones may become shorter");
        known.forget_unused(&["a".to_owned(), "m002".to_owned(), "m003_bucket".to_owned()]);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["m002", "m003"]);
        assert!(known.insert("n_total", &long));
        known.forget_unused(&[]);
        assert_eq!((known.len(), known.bytes), (0, 0));
    }
}
