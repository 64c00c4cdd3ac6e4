//! One Alertmanager: its queue and the task that empties it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{error, warn};
use url::Url;

use crate::base::clock::Clock;
use crate::http_client::{Client, Request};
use crate::model::alert::Alert;
use crate::model::labels::Labels;

use super::Metrics;

/// Alertmanager answers with nothing or an error's text.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// What an endpoint sends with.
pub(super) struct Sending {
    pub client: Arc<Client>,
    pub timeout: Duration,
    pub batch_size: usize,
    pub queue_capacity: usize,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

/// A queue and its task.
pub(super) struct Endpoint {
    label: String,
    url: Url,
    sending: Sending,
    queue: Mutex<Queue>,
    /// Told of new alerts and of the end.
    changed: Notify,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    alerts: VecDeque<Alert>,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Running,
    /// Send what waits, then end.
    Drain,
    /// End with the request under way.
    Now,
}

impl Endpoint {
    /// Starts the task.
    pub fn start(
        url: &str,
        sending: Sending,
        runtime: &Handle,
    ) -> Result<Arc<Self>, url::ParseError> {
        let endpoint = Arc::new(Self {
            label: url.to_owned(),
            url: Url::parse(url)?,
            sending,
            queue: Mutex::default(),
            changed: Notify::new(),
            task: Mutex::new(None),
        });
        let task = runtime.spawn(Arc::clone(&endpoint).run());
        *endpoint.task.lock() = Some(task);
        Ok(endpoint)
    }

    /// Where it posts to.
    pub fn url(&self) -> &str {
        &self.label
    }

    /// Queues alerts; the oldest give way.
    pub fn push(&self, alerts: &[Alert]) {
        let mut queue = self.queue.lock();
        queue.alerts.extend(alerts.iter().cloned());
        let surplus = queue.alerts.len().saturating_sub(self.sending.queue_capacity);
        queue.alerts.drain(..surplus);
        self.note_length(queue.alerts.len());
        drop(queue);
        if surplus > 0 {
            self.sending.metrics.dropped.with(&[&self.label]).add(surplus as f64);
            warn!(
                alertmanager = %self.label,
                dropped_count = surplus,
                "Alert notification queue full, dropping alerts."
            );
        }
        self.changed.notify_one();
    }

    /// Ends the task, after what waits was sent (`drain`) or at once.
    pub fn stop(&self, drain: bool) {
        self.queue.lock().end = if drain { End::Drain } else { End::Now };
        self.changed.notify_one();
    }

    /// Waits for the task's end.
    pub async fn ended(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(err) = task.await
        {
            error!(error = %err, "Alertmanager send loop failed.");
        }
    }

    fn note_length(&self, length: usize) {
        self.sending.metrics.queue_length.with(&[&self.label]).set(length as f64);
    }

    async fn run(self: Arc<Self>) {
        loop {
            let (batch, end) = self.take_batch();
            if end == End::Now || (end == End::Drain && batch.is_empty()) {
                break;
            }
            if batch.is_empty() {
                self.changed.notified().await;
                continue;
            }
            let is_sent = self.send(&batch).await;
            if !is_sent && end == End::Drain {
                break;
            }
        }
        let mut queue = self.queue.lock();
        let left = queue.alerts.len();
        queue.alerts.clear();
        drop(queue);
        if left > 0 {
            warn!(alertmanager = %self.label, dropped_count = left, "Alerts dropped at the end.");
        }
    }

    fn take_batch(&self) -> (Vec<Alert>, End) {
        let mut queue = self.queue.lock();
        if queue.end == End::Now {
            return (Vec::new(), End::Now);
        }
        let count = queue.alerts.len().min(self.sending.batch_size);
        let batch: Vec<_> = queue.alerts.drain(..count).collect();
        if count > 0 {
            self.note_length(queue.alerts.len());
        }
        (batch, queue.end)
    }

    /// Posts one batch; whether it was taken.
    async fn send(&self, batch: &[Alert]) -> bool {
        let Sending { client, metrics, clock, timeout, .. } = &self.sending;
        let key = [&*self.label];
        let body = match serde_json::to_vec(&batch.iter().map(Wire::from).collect::<Vec<_>>()) {
            Ok(body) => Bytes::from(body),
            Err(err) => {
                error!(error = %err, "Encoding alerts failed.");
                return false;
            }
        };
        let mut request = Request::post(self.url.clone(), body, *timeout, RESPONSE_BYTES_MAX);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let started = clock.monotonic();
        let outcome = match client.send(request).await {
            Ok(response) if response.status.is_success() => Ok(()),
            Ok(response) => Err(format!("bad response status {}", response.status_text())),
            Err(err) => Err(err.to_string()),
        };
        let took = clock.monotonic().saturating_sub(started).as_secs_f64();
        metrics.latency.distribution(&key).observe(took);
        metrics.latency_histogram.distribution(&key).observe(took);
        let count = batch.len() as f64;
        metrics.sent.with(&key).add(count);
        if let Err(error) = &outcome {
            metrics.errors.with(&key).add(count);
            metrics.dropped.with(&key).add(count);
            let (alertmanager, alert_count) = (&self.label, batch.len());
            error!(%alertmanager, alert_count, %error, "Error sending alerts.");
        }
        outcome.is_ok()
    }
}

/// An alert as Alertmanager's API v2 takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    annotations: BTreeMap<&'a str, &'a str>,
    ends_at: String,
    starts_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a Alert> for Wire<'a> {
    fn from(alert: &'a Alert) -> Self {
        let map = |labels: &'a Labels| labels.iter().collect();
        Self {
            annotations: map(&alert.annotations),
            ends_at: rfc3339(alert.ends_at_ms),
            starts_at: rfc3339(alert.starts_at_ms),
            generator_url: &alert.generator_url,
            labels: map(&alert.labels),
        }
    }
}

/// A moment in Go's notation; 0 is Go's zero time.
fn rfc3339(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(timestamp) if ms != 0 => timestamp.to_string(),
        _ => "0001-01-01T00:00:00Z".to_owned(),
    }
}
