//! The Alertmanager: routes, groups, inhibition, silences, notification log and receivers.
//!
//! [`pipeline`] decides, as a state machine without clock, disk or network; [`state`] keeps what
//! it decided; [`receiver`] talks to the outside; [`manager`] drives the three. A crash loses
//! nothing that was acknowledged: alerts, silences and the notification log are synced first.

pub mod alerts;
pub mod group;
pub mod inhibit;
pub mod manager;
pub mod matchers;
pub mod metrics;
pub mod notification_log;
pub mod pipeline;
pub mod receiver;
pub mod route;
pub mod silence;
pub mod state;
pub mod time_interval;

pub use manager::{Manager, OpenError};

use crate::template::notification::Templates;

/// Everything that the configuration says about alerting.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an alert fires whose sender tells no end and does not report it again.
    pub resolve_timeout_ms: i64,
    /// How long ended silences and entries of the notification log are kept.
    pub retention_ms: i64,
    /// Where people reach this server; for links in messages.
    pub external_url: String,
    /// Root of the routing tree.
    pub route: route::RouteOptions,
    /// Receivers, with unique names; the routes name no others.
    pub receivers: Vec<receiver::ReceiverOptions>,
    /// Inhibition rules.
    pub inhibit_rules: Vec<inhibit::InhibitRule>,
    /// Intervals that routes refer to.
    pub time_intervals: Vec<time_interval::NamedIntervals>,
    /// Default templates and those of the configured files.
    pub templates: Templates,
    /// The configuration as text, secrets replaced by `<secret>`.
    pub original: String,
}
