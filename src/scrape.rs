//! Scraping: fetches metrics from targets at their interval and appends them to the store.
//!
//! A [`Manager`] has a pool for each job, a pool has a loop (one task) for each target. A loop
//! fetches, parses and commits one batch per scrape; what it has learned about a target's series
//! (cache, staleness) lives as long as the target, across reloads. Nothing here knows how targets
//! are found: [`Manager::update_targets`] is told.

mod append;
mod cache;
mod failure_log;
mod fetch;
mod manager;
mod metrics;
mod options;
mod pool;
mod report;
mod run;
mod sample_labels;
mod status;
mod target;
#[cfg(test)]
mod tests;
mod timing;

pub use manager::{ApplyError, Manager, ManagerOptions};
pub use options::{HistogramOptions, JobOptions, ScrapeProtocol};
pub use status::{DroppedTarget, Health, PoolStatus, TargetMetadata, TargetStatus};
pub use target::{TargetError, populate_discovered_labels, populate_labels};
