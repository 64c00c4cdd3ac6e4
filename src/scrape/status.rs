//! What a pool shows of its targets.

use std::time::Duration;

use crate::model::labels::Labels;
use crate::model::metadata::Metadata;

/// Whether the last scrape of a target worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not scraped yet.
    Unknown,
    /// Yes.
    Up,
    /// No.
    Down,
}

impl Health {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A target that is scraped, as of its last scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetStatus {
    /// The job.
    pub pool: String,
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels that its series get.
    pub labels: Labels,
    /// Where it is scraped.
    pub url: String,
    /// Why the last scrape failed; empty when it did not.
    pub last_error: String,
    /// When the last scrape began; `None` before the first.
    pub last_scrape_ms: Option<i64>,
    /// How long it took.
    pub last_scrape_duration: Duration,
    /// Whether it worked.
    pub health: Health,
    /// Time between scrapes.
    pub interval: Duration,
    /// Time limit of a scrape.
    pub timeout: Duration,
}

/// A discovered target that relabelling dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
}

/// A job's targets.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStatus {
    /// The job.
    pub name: String,
    /// Scraped targets, sorted by labels.
    pub active: Vec<TargetStatus>,
    /// Dropped targets, at most `keep_dropped_targets` of them.
    pub dropped: Vec<DroppedTarget>,
    /// How many were dropped in all.
    pub dropped_count: usize,
}

/// What a target said about a metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetMetadata {
    /// Labels of the target.
    pub target_labels: Labels,
    /// Name of the family.
    pub metric: String,
    /// Type, help, unit.
    pub metadata: Metadata,
}
