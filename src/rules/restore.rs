//! Taking up pending alerts where the last run of the server left them.
//!
//! `ALERTS_FOR_STATE` tells since when an alert had been active, and its newest sample when the
//! server went down. Time during which nothing was evaluated does not count towards `for`, and
//! nothing fires sooner than the grace period after the restart.

use std::collections::HashMap;

use crate::model::labels::{ALERT_NAME, Labels, METRIC_NAME};
use crate::model::matcher::Matcher;
use crate::model::sample::{Sample, TimeRange, is_stale_nan};
use crate::storage::select::{BLOCK_SERIES_MAX, Column, QueryError, Select, SelectHints};

use super::alerting::ALERTS_FOR_STATE;

/// Newest `ALERTS_FOR_STATE` sample of each alert of a name, by the alert's labels.
pub(super) fn recorded(
    select: &dyn Select,
    alert_name: &str,
    range: TimeRange,
) -> Result<HashMap<Labels, Sample>, QueryError> {
    let name = Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE);
    let matchers = [name, Matcher::equal(ALERT_NAME, alert_name)];
    let selection = select.select(&matchers, range, &SelectHints::default())?;
    let mut newest = HashMap::new();
    for first in (0..selection.len()).step_by(BLOCK_SERIES_MAX) {
        let count = BLOCK_SERIES_MAX.min(selection.len() - first);
        let block = selection.block(first as u32, count)?;
        let all = selection.block_labels(first as u32, count)?;
        for (labels, columns) in all.iter().zip(&block.series) {
            let last = columns.runs.last().and_then(|run| {
                let Column::Floats(values) = &run.values else { return None };
                let (timestamp_ms, value) = (*run.timestamps_ms.last()?, *values.last()?);
                Some(Sample { timestamp_ms, value })
            });
            if let Some(last) = last {
                newest.insert(labels.without_name(), last);
            }
        }
    }
    Ok(newest)
}

/// Since when a restored alert counts as active; `None`: it was not active when the server stopped.
pub(super) fn active_at_ms(
    recorded: Sample,
    now_ms: i64,
    hold_ms: i64,
    grace_period_ms: i64,
) -> Option<i64> {
    if is_stale_nan(recorded.value) || !recorded.value.is_finite() {
        return None;
    }
    // Whole seconds, as they are written.
    let down_at_ms = recorded.timestamp_ms.div_euclid(1000) * 1000;
    let was_active_at_ms = (recorded.value as i64).saturating_mul(1000);
    let remaining_ms = hold_ms - (down_at_ms - was_active_at_ms);
    Some(if remaining_ms <= 0 {
        was_active_at_ms
    } else if remaining_ms < grace_period_ms {
        now_ms + grace_period_ms - hold_ms
    } else {
        was_active_at_ms + (now_ms - down_at_ms)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::stale_nan;

    #[test]
    fn the_time_of_the_outage_does_not_count() {
        let minute = 60_000;
        let at = |down_min: i64, value: f64, hold_min: i64| {
            let recorded = Sample { timestamp_ms: down_min * minute, value };
            active_at_ms(recorded, 100 * minute, hold_min * minute, 10 * minute)
                .map(|ms| ms / minute)
        };
        // Active since minute 50, down at 80, up at 100.
        assert_eq!(at(80, 3000.0, 30), Some(50), "had been firing");
        assert_eq!(at(80, 3000.0, 35), Some(100 + 10 - 35), "fires after the grace period");
        assert_eq!(at(80, 3000.0, 60), Some(70), "shifted by the outage");
        assert_eq!(at(80, stale_nan(), 60), None, "was not active");
    }
}
