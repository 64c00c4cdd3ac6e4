//! What people should know about the server right now (`/notifications`), as a list and as a
//! stream of changes.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

use super::respond::{ApiResult, Success};
use super::{Services, rfc3339};

/// The newest reload failed.
pub const RELOAD_FAILED: &str = "Configuration reload has failed.";
/// Requests are not served yet.
pub const STARTING: &str = "Narthex is starting.";
/// Requests are not served any more.
pub const STOPPING: &str = "Narthex is shutting down and gracefully stopping all operations.";

/// Streams that may be open at the same time, as in Prometheus.
const SUBSCRIBERS_MAX: usize = 16;
/// Changes that a slow reader may be behind before it misses some.
const BACKLOG: usize = 16;

/// Something to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What.
    pub text: &'static str,
    /// When it was last told, as the APIs print moments.
    pub date: String,
    /// False where a stream tells that it is over.
    pub active: bool,
}

struct Board {
    active: Vec<Notice>,
    /// `None` after the end.
    changes: Option<broadcast::Sender<Notice>>,
}

/// All notices of this server.
pub struct Notices(Mutex<Board>);

impl Default for Notices {
    fn default() -> Self {
        let changes = Some(broadcast::channel(BACKLOG).0);
        Self(Mutex::new(Board { active: Vec::new(), changes }))
    }
}

impl Notices {
    /// Tells something, or tells it again.
    pub fn add(&self, text: &'static str, now_ms: i64) {
        let mut state = self.0.lock();
        state.active.retain(|notice| notice.text != text);
        let notice = Notice { text, date: rfc3339(now_ms), active: true };
        state.active.push(notice.clone());
        state.tell(notice);
    }

    /// It is over.
    pub fn remove(&self, text: &'static str) {
        let mut state = self.0.lock();
        if let Some(at) = state.active.iter().position(|notice| notice.text == text) {
            let notice = state.active.remove(at);
            state.tell(Notice { active: false, ..notice });
        }
    }

    /// Ends all streams, so that no request outlives the server.
    pub fn close(&self) {
        self.0.lock().changes = None;
    }

    fn active(&self) -> Vec<Notice> {
        self.0.lock().active.clone()
    }

    /// What there is and what comes; `None` when too many listen already.
    fn subscribe(&self) -> Option<(Vec<Notice>, broadcast::Receiver<Notice>)> {
        let state = self.0.lock();
        let changes = state.changes.as_ref()?;
        (changes.receiver_count() < SUBSCRIBERS_MAX)
            .then(|| (state.active.clone(), changes.subscribe()))
    }
}

impl Board {
    fn tell(&self, notice: Notice) {
        if let Some(changes) = &self.changes {
            // An error says that nobody listens.
            let _ = changes.send(notice);
        }
    }
}

pub(super) async fn list(State(services): State<Arc<Services>>) -> ApiResult {
    Ok(Success::of(&services.notices.active()))
}

/// Server-sent events, one for each change; those in force come first.
pub(super) async fn live(State(services): State<Arc<Services>>) -> Response {
    let Some((active, changes)) = services.notices.subscribe() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let events = stream::unfold((active.into_iter(), changes), |(mut active, mut changes)| async {
        if let Some(notice) = active.next() {
            return Some((event(&notice), (active, changes)));
        }
        loop {
            match changes.recv().await {
                Ok(notice) => return Some((event(&notice), (active, changes))),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

fn event(notice: &Notice) -> Result<Bytes, std::convert::Infallible> {
    let json = serde_json::to_string(notice).expect("texts serialize");
    Ok(Bytes::from(format!("data: {json}\n\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_told_to_a_bounded_number_of_listeners() {
        let notices = Notices::default();
        notices.add(STARTING, 0);
        let (active, mut changes) = notices.subscribe().unwrap();
        assert_eq!(active.len(), 1);
        notices.remove(STARTING);
        notices.remove(STARTING);
        notices.add(RELOAD_FAILED, 1500);
        notices.add(RELOAD_FAILED, 2500);
        assert_eq!(notices.active().len(), 1);
        assert_eq!(notices.active()[0].date, "1970-01-01T00:00:02.5Z");
        let over = changes.recv().await.unwrap();
        assert_eq!((over.text, over.active), (STARTING, false));
        assert_eq!(changes.recv().await.unwrap().text, RELOAD_FAILED);
        let others: Vec<_> = (1..SUBSCRIBERS_MAX).map(|_| notices.subscribe().unwrap()).collect();
        assert!(notices.subscribe().is_none());
        drop(others);
        assert!(notices.subscribe().is_some());
        notices.close();
        assert!(notices.subscribe().is_none());
        assert!(changes.recv().await.is_ok(), "what was told before the end arrives");
        assert!(changes.recv().await.is_err());
    }
}
