//! Exemplars of OpenTelemetry: trace and span become labels, other attributes where there is room.

use super::as_text;
use crate::encoding::wire::otlp::{ExemplarPoint, PointHead};
use crate::model::exemplar::{Exemplar, LABEL_LETTERS_MAX};
use crate::model::labels::Labels;

/// Label of the trace.
const TRACE_ID: &str = "trace_id";
/// Label of the span.
const SPAN_ID: &str = "span_id";

/// All exemplars of a data point, oldest first.
pub(super) fn all(head: &PointHead) -> Result<Vec<Exemplar>, String> {
    let mut all = Vec::new();
    for own in &head.exemplars {
        let Some(value) = own.value else {
            return Err("unsupported exemplar value type: Empty".to_owned());
        };
        let timestamp_ms = match (own.time_unix_nano / 1_000_000) as i64 {
            0 => head.timestamp_ms(),
            told => told,
        };
        all.push(Exemplar { labels: labels(own), value, timestamp_ms });
    }
    all.sort_by_key(|own| own.timestamp_ms);
    Ok(all)
}

fn labels(own: &ExemplarPoint) -> Labels {
    let mut labels = Labels::empty().to_builder();
    let mut letters = 0;
    // An id of zeros is none.
    let is_id = |text: &str| text.bytes().any(|digit| digit != b'0');
    for (name, id) in [(TRACE_ID, &own.trace_id), (SPAN_ID, &own.span_id)] {
        if is_id(id) {
            letters += name.chars().count() + id.chars().count();
            labels.set(name, id);
        }
    }
    let others = own.filtered_attributes.iter();
    let others: Vec<_> = others.map(|own| (own.key.as_str(), as_text(&own.value))).collect();
    letters +=
        others.iter().map(|own| own.0.chars().count() + own.1.chars().count()).sum::<usize>();
    if letters <= LABEL_LETTERS_MAX {
        for (name, value) in &others {
            labels.set(name, value);
        }
    }
    labels.build()
}
