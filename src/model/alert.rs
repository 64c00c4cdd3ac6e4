//! An alert as rules emit it, notifiers send it, and the alert pipeline takes it.

use super::labels::Labels;

/// One alert. Its identity is its label set.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Identity, with `alertname`.
    pub labels: Labels,
    /// Texts for people.
    pub annotations: Labels,
    /// When it began to fire, in milliseconds since 1970; 0: not told (the receiver takes now).
    pub starts_at_ms: i64,
    /// When it ended or will count as ended if nobody sends it again; 0: not told.
    pub ends_at_ms: i64,
    /// Link to where it came from.
    pub generator_url: String,
}

impl Alert {
    /// Whether it has ended by `now_ms`.
    pub fn is_resolved_at(&self, now_ms: i64) -> bool {
        self.ends_at_ms != 0 && self.ends_at_ms <= now_ms
    }
}
