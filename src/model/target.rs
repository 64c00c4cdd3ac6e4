//! Target groups: what service discovery finds and scraping and notification use.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::labels::Labels;

/// Targets that one source (a file, a service …) lists together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Names the group within its provider: an update with the same source replaces it.
    pub source: String,
    /// Labels of each target, `__address__` among them.
    pub targets: Vec<Labels>,
    /// Labels that all of them share; a target's own win.
    pub labels: Labels,
}

/// All groups by the set (scrape job, notifier configuration) that asked for them.
pub type TargetSets = BTreeMap<String, Vec<Arc<TargetGroup>>>;
