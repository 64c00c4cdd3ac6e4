//! `/-/healthy`, `/-/ready`, `/-/reload`, `/-/quit`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::oneshot;

use super::Services;
use super::respond::text;

/// Routes that answer also while the server starts.
pub(super) fn router(services: &Arc<Services>) -> Router {
    let lifecycle_get = get(get_refused);
    Router::new()
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .route("/-/reload", post(reload).put(reload).merge(lifecycle_get.clone()))
        .route("/-/quit", post(quit).put(quit).merge(lifecycle_get))
        .with_state(Arc::clone(services))
}

async fn healthy() -> Response {
    text(StatusCode::OK, "Narthex is Healthy.\n")
}

async fn ready(State(services): State<Arc<Services>>) -> Response {
    if services.store.is_poisoned() {
        let reason = "Storage stopped after a failed write or sync; see the log.\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, reason);
    }
    if services.control.ready.load(Ordering::Acquire) {
        text(StatusCode::OK, "Narthex is Ready.\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
    }
}

async fn get_refused() -> Response {
    text(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed")
}

const LIFECYCLE_OFF: &str = "Lifecycle API is not enabled.";

async fn reload(State(services): State<Arc<Services>>) -> Response {
    if !services.options.enable_lifecycle {
        return text(StatusCode::FORBIDDEN, LIFECYCLE_OFF);
    }
    let (sender, answer) = oneshot::channel();
    if services.control.reload.send(sender).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping");
    }
    match answer.await {
        Ok(Ok(())) => text(StatusCode::OK, ""),
        Ok(Err(reason)) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {reason}"))
        }
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
    }
}

async fn quit(State(services): State<Arc<Services>>) -> Response {
    if !services.options.enable_lifecycle {
        return text(StatusCode::FORBIDDEN, LIFECYCLE_OFF);
    }
    services.control.quit.notify_one();
    text(StatusCode::OK, "Requesting termination... Goodbye!")
}
