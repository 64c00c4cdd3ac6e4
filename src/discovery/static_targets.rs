//! Targets that stand in the configuration itself.

use crate::model::target::TargetGroup;

/// The groups, each named by its position.
pub(super) fn groups(configured: &[TargetGroup]) -> Vec<TargetGroup> {
    let named = configured.iter().enumerate().map(|(index, group)| TargetGroup {
        source: index.to_string(),
        targets: group.targets.clone(),
        labels: group.labels.clone(),
    });
    named.collect()
}
