//! Recording and alerting rules: scheduled evaluation, alert state, restoration, and the queue to
//! Alertmanagers.
//!
//! A [`Manager`] owns one thread that evaluates all groups on Prometheus' hash-phased grid. Alerts
//! leave through an [`AlertSink`]; this room does not know who takes them. The pure parts are
//! `state` (one alert's life), `recording` and `alerting` (one rule's evaluation) and `group` (one
//! round of a group); only `manager` and `notifier` run loops.

mod alerting;
mod group;
mod manager;
pub mod metrics;
pub mod notifier;
mod recording;
mod restore;
pub mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::model::alert::Alert;
use crate::model::labels::Labels;
use crate::promql::engine::{CancelFlag, Engine, Origin, Query, QueryError, Value, VectorSample};
use crate::template::prometheus::QuerySample;

pub use manager::{Manager, Stores};
use state::AlertState;

/// What all groups share; see Prometheus' flags `--rules.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `$externalLabels` of templates. They are not written into series.
    pub external_labels: Labels,
    /// Address of this server for people, without a slash at the end.
    pub external_url: String,
    /// How old a recorded `for` state may be to be taken up after a restart.
    pub for_outage_tolerance_ms: i64,
    /// Shortest time between a restart and a restored alert's firing; rules with a shorter `for`
    /// are not restored.
    pub for_grace_period_ms: i64,
    /// Shortest time between two sendings of an unchanged alert.
    pub resend_delay_ms: i64,
}

/// One rule group. Its identity is file and name.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupOptions {
    /// Unique within the file.
    pub name: String,
    /// The rule file, as it is shown.
    pub file: String,
    /// Time between evaluations; positive.
    pub interval_ms: i64,
    /// How far in the past queries look and results are written.
    pub query_offset_ms: i64,
    /// Series or alerts that one rule may yield; 0: any number.
    pub limit: usize,
    /// Evaluated in this order.
    pub rules: Vec<RuleOptions>,
}

impl GroupOptions {
    /// As metrics name the group: `file;name`.
    pub fn key(&self) -> String {
        format!("{};{}", self.file, self.name)
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleOptions {
    /// The record's or the alert's name.
    pub name: String,
    /// The checked expression, as the parser prints it.
    pub expr: String,
    /// Set on results, sorted by name; the group's are merged in. An empty value removes a label.
    pub labels: Vec<(String, String)>,
    /// What becomes of the result.
    pub kind: RuleKind,
}

/// The two kinds of rules.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// The result becomes series of the rule's name.
    Recording,
    /// The result becomes alerts.
    Alerting {
        /// How long an alert is pending before it fires (`for`).
        hold_ms: i64,
        /// How long it fires on after its series is gone (`keep_firing_for`).
        keep_firing_ms: i64,
        /// Templates, sorted by name.
        annotations: Vec<(String, String)>,
    },
}

/// Takes the alerts that have to be sent now: fired, still firing, or resolved. Must not block for
/// long, and must bound what it keeps.
pub trait AlertSink: Send + Sync + 'static {
    /// Takes alerts without external labels.
    fn send(&self, alerts: &[Alert]);
}

/// Why an expression gave no vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The server is stopping.
    #[error("{0}")]
    Canceled(String),
    /// Anything else, in Prometheus' words.
    #[error("{0}")]
    Failed(String),
}

/// What evaluates expressions: the query engine, or a stand-in in tests.
pub trait Evaluate: Send + Sync + 'static {
    /// The vector that `expr` yields at a moment; a scalar counts as a vector of one sample without
    /// labels. Blocks.
    fn vector(
        &self,
        expr: &str,
        at_ms: i64,
        asker: Asker<'_>,
    ) -> Result<Vec<QuerySample>, EvaluateError>;
}

/// Whose expression it is.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Ends the evaluation when it is raised.
    pub cancel: &'a CancelFlag,
    /// The rule file.
    pub file: &'a str,
    /// The rule group.
    pub group: &'a str,
}

impl Evaluate for Engine {
    fn vector(
        &self,
        expr: &str,
        at_ms: i64,
        asker: Asker<'_>,
    ) -> Result<Vec<QuerySample>, EvaluateError> {
        let origin = Origin::RuleGroup { file: asker.file, name: asker.group };
        let query = Query { cancel: asker.cancel.clone(), origin, ..Query::new(expr) };
        let output = self.instant(&query, at_ms).map_err(|err| match err {
            QueryError::Canceled(_) => EvaluateError::Canceled(err.to_string()),
            err => EvaluateError::Failed(err.to_string()),
        })?;
        match output.value {
            Value::Scalar { value, .. } => {
                Ok(vec![QuerySample { labels: Labels::empty(), value, histogram: None }])
            }
            Value::Vector(samples) => Ok(samples
                .into_iter()
                .map(|VectorSample { labels, value, histogram, .. }| QuerySample {
                    labels,
                    value,
                    histogram,
                })
                .collect()),
            Value::String { .. } | Value::Matrix(_) => {
                Err(EvaluateError::Failed("rule result is not a vector or scalar".to_owned()))
            }
        }
    }
}

/// How a rule's last evaluation went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not evaluated yet.
    #[default]
    Unknown,
    /// Well.
    Ok,
    /// It failed, or its results were not all taken in.
    Err,
}

impl Health {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Err => "err",
        }
    }
}

/// A group as the API shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStatus {
    /// What it was made with.
    pub name: String,
    /// The rule file.
    pub file: String,
    /// Time between evaluations.
    pub interval_ms: i64,
    /// How far in the past it looks.
    pub query_offset_ms: i64,
    /// Series or alerts that one rule may yield; 0: any number.
    pub limit: usize,
    /// Its rules in order.
    pub rules: Vec<RuleStatus>,
    /// How long the last round took.
    pub evaluation_time: Duration,
    /// When the last round began; 0: never.
    pub last_evaluation_ms: i64,
}

/// A rule as the API shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleStatus {
    /// The record's or the alert's name.
    pub name: String,
    /// The expression.
    pub query: String,
    /// Labels as written, templates and all.
    pub labels: Vec<(String, String)>,
    /// How the last evaluation went.
    pub health: Health,
    /// Why it failed; empty when it did not.
    pub last_error: String,
    /// How long it took.
    pub evaluation_time: Duration,
    /// When it began; 0: never.
    pub last_evaluation_ms: i64,
    /// What only alerting rules have.
    pub alerting: Option<AlertingStatus>,
}

/// What the API shows of an alerting rule.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertingStatus {
    /// The gravest state of its alerts; `None` ("unknown") before the first evaluation.
    pub state: Option<AlertState>,
    /// `for`
    pub hold_ms: i64,
    /// `keep_firing_for`
    pub keep_firing_ms: i64,
    /// Annotations as written.
    pub annotations: Vec<(String, String)>,
    /// Pending and firing alerts in order of labels.
    pub alerts: Vec<AlertStatus>,
}

/// A pending or firing alert as the API shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertStatus {
    /// Expanded labels, with `alertname`.
    pub labels: Labels,
    /// Expanded annotations.
    pub annotations: Labels,
    /// Pending or firing.
    pub state: AlertState,
    /// When its series appeared.
    pub active_at_ms: i64,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since_ms: Option<i64>,
    /// Value of the series at the last evaluation.
    pub value: f64,
}
