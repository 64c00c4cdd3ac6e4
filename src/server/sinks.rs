//! Alerts of rules on their way: to the built-in Alertmanager and to external ones.
//!
//! Rules must not wait for a disk or a network. The notifier has queues of its own; for the
//! built-in Alertmanager a thread empties a bounded queue, because it syncs what it takes in.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use arc_swap::ArcSwap;
use tracing::{error, warn};

use crate::alerting;
use crate::base::metrics::{Number, Registry};
use crate::model::alert::Alert;
use crate::model::labels::Labels;
use crate::model::relabel::Rule;
use crate::rules::AlertSink;
use crate::rules::notifier::{Notifier, prepare};

/// Batches that may wait; one batch is one rule's output.
const QUEUE_BATCHES_MAX: usize = 1024;

/// What is done to alerts before the built-in Alertmanager sees them.
#[derive(Clone, Debug)]
pub(super) struct Preparation {
    pub external_labels: Labels,
    pub relabel_rules: Vec<Rule>,
}

/// Hands alerts to all who want them.
pub(super) struct Sinks {
    notifier: Arc<Notifier>,
    built_in: Option<BuiltIn>,
}

struct BuiltIn {
    queue: SyncSender<Vec<Alert>>,
    preparation: Arc<ArcSwap<Preparation>>,
    dropped: Number,
}

impl Sinks {
    /// Starts the thread that feeds the built-in Alertmanager, if there is one.
    pub(super) fn new(
        notifier: Arc<Notifier>,
        alerting: Option<&Arc<alerting::Manager>>,
        preparation: Arc<ArcSwap<Preparation>>,
        registry: &Registry,
    ) -> std::io::Result<Self> {
        let Some(alerting) = alerting else { return Ok(Self { notifier, built_in: None }) };
        let (queue, batches) = sync_channel(QUEUE_BATCHES_MAX);
        let dropped = registry.counter(
            "narthex_alerting_dropped_batches_total",
            "Batches of alerts that the built-in Alertmanager could not take in time.",
        );
        let manager = Arc::clone(alerting);
        // Ends when the sender is dropped with the rules.
        std::thread::Builder::new()
            .name("alerts".to_owned())
            .spawn(move || feed(&manager, &batches))?;
        Ok(Self { notifier, built_in: Some(BuiltIn { queue, preparation, dropped }) })
    }
}

fn feed(manager: &alerting::Manager, batches: &Receiver<Vec<Alert>>) {
    for batch in batches {
        if let Err(err) = manager.put_alerts(batch) {
            error!(error = %err, "The built-in Alertmanager refused alerts.");
        }
    }
}

impl AlertSink for Sinks {
    fn send(&self, alerts: &[Alert]) {
        if alerts.is_empty() {
            return;
        }
        self.notifier.send(alerts);
        let Some(built_in) = &self.built_in else { return };
        let preparation = built_in.preparation.load();
        let prepared = prepare(alerts, &preparation.external_labels, &preparation.relabel_rules);
        match built_in.queue.try_send(prepared) {
            Ok(()) => {}
            // Rules send again what still fires.
            Err(TrySendError::Full(_)) => {
                built_in.dropped.inc();
                warn!("The built-in Alertmanager is too slow; a batch of alerts was dropped.");
            }
            Err(TrySendError::Disconnected(_)) => error!("The built-in Alertmanager is gone."),
        }
    }
}
