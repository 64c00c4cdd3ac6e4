//! What every request passes: request metrics, CORS, compression, the gate while starting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::Services;
use super::compress::compress;
use super::respond::text;
use crate::base::clock::Clock;
use crate::base::metrics::{Registry, Vector};
use crate::model::matcher::AnchoredRegex;

/// Upper bounds of request durations, in seconds; Prometheus' own.
const DURATION_BOUNDS: &[f64] = &[0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];

#[derive(Clone)]
struct HttpMetrics {
    clock: Arc<dyn Clock>,
    requests: Vector,
    durations: Vector,
    sizes: Vector,
}

impl HttpMetrics {
    fn new(registry: &Registry, clock: Arc<dyn Clock>) -> Self {
        let requests = "prometheus_http_requests_total";
        let durations = "prometheus_http_request_duration_seconds";
        let sizes = "prometheus_http_response_size_bytes";
        let bounds = [100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
        let handler: &'static [&'static str] = &["handler"];
        Self {
            clock,
            requests: registry.counters(
                requests,
                "Counter of HTTP requests.",
                &["handler", "code"],
            ),
            durations: registry.histograms(
                durations,
                "Histogram of latencies for HTTP requests.",
                DURATION_BOUNDS,
                handler,
            ),
            sizes: registry.histograms(
                sizes,
                "Histogram of response size for HTTP requests.",
                &bounds,
                handler,
            ),
        }
    }

    fn observe(&self, handler: &str, response: &Response, took: Duration) {
        self.requests.with(&[handler, response.status().as_str()]).inc();
        self.durations.distribution(&[handler]).observe(took.as_secs_f64());
        let size = axum::body::HttpBody::size_hint(response.body()).exact();
        if let Some(bytes) = size {
            self.sizes.distribution(&[handler]).observe(bytes as f64);
        }
    }
}

/// Puts the layers around all routes of one listener.
pub(super) fn wrap(routes: Router, services: &Arc<Services>) -> Router {
    let metrics = HttpMetrics::new(&services.metrics, Arc::clone(&services.clock));
    routes
        .layer(middleware::from_fn_with_state(metrics, measure))
        .layer(middleware::from_fn_with_state(services.workers.clone(), compress))
        .layer(middleware::from_fn_with_state(services.options.cors_origin.clone(), cors))
}

async fn measure(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    // The route, not the path: clients choose paths, and labels must be bounded.
    let handler = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let begun = metrics.clock.monotonic();
    let response = next.run(request).await;
    let took = metrics.clock.monotonic().saturating_sub(begun);
    metrics.observe(handler.as_deref().unwrap_or("unknown"), &response, took);
    response
}

async fn cors(State(allowed): State<AnchoredRegex>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    add_cors_headers(response.headers_mut(), origin, &allowed);
    response
}

fn add_cors_headers(headers: &mut HeaderMap, origin: Option<HeaderValue>, allowed: &AnchoredRegex) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin");
    set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS");
    set(header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date");
    if allowed.source() == ".*" {
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    } else if origin.to_str().is_ok_and(|text| allowed.is_match(text)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

/// Answers 503 until the server is ready.
pub(super) async fn gate(
    State(services): State<Arc<Services>>,
    request: Request,
    next: Next,
) -> Response {
    if services.control.ready.load(Ordering::Acquire) {
        return next.run(request).await;
    }
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    response.headers_mut().insert("x-prometheus-stopping", HeaderValue::from_static("false"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_answered_as_configured() {
        let allowed_for = |pattern: &str, origin: &'static str| {
            let mut headers = HeaderMap::new();
            let regex = AnchoredRegex::new(pattern).unwrap();
            add_cors_headers(&mut headers, Some(HeaderValue::from_static(origin)), &regex);
            let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            allowed.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(allowed_for(".*", "https://a.example"), Some("*".to_owned()));
        let one = "https?://a\\.example";
        assert_eq!(allowed_for(one, "https://a.example"), Some("https://a.example".to_owned()));
        assert_eq!(allowed_for(one, "https://b.example"), None);
    }
}
