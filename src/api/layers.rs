//! What every request passes: request metrics, CORS, compression, the gate while starting.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foldhash::HashMap;
use futures_util::future::Either;
use parking_lot::Mutex;
use tower::Service;
use tower::layer::{LayerFn, layer_fn};

use super::Services;
use super::compress::{accepts_gzip, pack};
use super::respond::text;
use super::workers::Workers;
use crate::base::clock::Clock;
use crate::base::metrics::{Distribution, Number, Registry, Vector};
use crate::model::matcher::AnchoredRegex;

/// Upper bounds of request durations, in seconds; Prometheus' own.
const DURATION_BOUNDS: &[f64] = &[0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];

struct HttpMetrics {
    requests: Vector,
    durations: Vector,
    sizes: Vector,
    /// By route: a vector makes texts of what it is asked for.
    known: Mutex<HashMap<String, Handler>>,
}

/// The metrics of one route.
#[derive(Clone)]
struct Handler {
    duration: Distribution,
    size: Distribution,
    codes: Vec<(StatusCode, Number)>,
}

impl HttpMetrics {
    fn new(registry: &Registry) -> Self {
        let requests = "prometheus_http_requests_total";
        let durations = "prometheus_http_request_duration_seconds";
        let sizes = "prometheus_http_response_size_bytes";
        let bounds = [100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
        let handler: &'static [&'static str] = &["handler"];
        Self {
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
            known: Mutex::default(),
        }
    }

    fn observe(&self, handler: &str, response: &Response, took: Duration) {
        let mut known = self.known.lock();
        if !known.contains_key(handler) {
            let duration = self.durations.distribution(&[handler]);
            let size = self.sizes.distribution(&[handler]);
            known.insert(handler.to_owned(), Handler { duration, size, codes: Vec::new() });
        }
        let Some(own) = known.get_mut(handler) else { return };
        let status = response.status();
        if let Some((_, count)) = own.codes.iter().find(|(code, _)| *code == status) {
            count.inc();
        } else {
            let count = self.requests.with(&[handler, status.as_str()]);
            count.inc();
            own.codes.push((status, count));
        }
        own.duration.observe(took.as_secs_f64());
        let size = axum::body::HttpBody::size_hint(response.body()).exact();
        if let Some(bytes) = size {
            own.size.observe(bytes as f64);
        }
    }
}

/// Puts the layers around the routes of one listener: those that are answered when the server is
/// ready, and those that are answered always.
pub(super) fn wrap(gated: Router, open: Router, services: &Arc<Services>) -> Router {
    let shared = Arc::new(Shared {
        clock: Arc::clone(&services.clock),
        metrics: HttpMetrics::new(&services.metrics),
        origins: services.options.cors_origin.clone(),
        workers: services.workers.clone(),
    });
    // Each call of `layer` costs every request some allocations.
    let services = Arc::clone(services);
    let gate = layer_fn(move |inner| Gate { services: Arc::clone(&services), inner });
    let gated = gated.layer((front(&shared), gate));
    gated.merge(open.layer(front(&shared)))
}

fn front<S>(shared: &Arc<Shared>) -> LayerFn<impl Fn(S) -> Front<S> + Clone + use<S>> {
    let shared = Arc::clone(shared);
    layer_fn(move |inner| Front { shared: Arc::clone(&shared), inner })
}

struct Shared {
    clock: Arc<dyn Clock>,
    metrics: HttpMetrics,
    /// Whom browsers may tell our answers.
    origins: AnchoredRegex,
    /// Pack what is large.
    workers: Workers,
}

/// Measures requests, answers what browsers ask before they send one, and packs answers.
#[derive(Clone)]
struct Front<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Service<Request> for Front<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(ctx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let origin = request.headers().get(header::ORIGIN).cloned();
        let takes_gzip = accepts_gzip(request.headers());
        let begun = shared.clock.monotonic();
        // The route, not the path: clients choose paths, and labels must be bounded.
        let handler = request.extensions().get::<MatchedPath>().cloned();
        let is_asking = request.method() == Method::OPTIONS;
        let answer = if is_asking { None } else { Some(self.inner.call(request)) };
        Box::pin(async move {
            let mut response = match answer {
                None => StatusCode::NO_CONTENT.into_response(),
                Some(answer) => {
                    let response = answer.await?;
                    let handler = handler.as_ref().map_or("unknown", MatchedPath::as_str);
                    let took = shared.clock.monotonic().saturating_sub(begun);
                    shared.metrics.observe(handler, &response, took);
                    response
                }
            };
            add_cors_headers(response.headers_mut(), origin, &shared.origins);
            Ok(pack(response, takes_gzip, &shared.workers).await)
        })
    }
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
#[derive(Clone)]
struct Gate<S> {
    services: Arc<Services>,
    inner: S,
}

impl<S: Service<Request, Response = Response>> Service<Request> for Gate<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(ctx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if self.services.control.ready.load(Ordering::Acquire) {
            return Either::Left(self.inner.call(request));
        }
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
        response.headers_mut().insert("x-prometheus-stopping", HeaderValue::from_static("false"));
        Either::Right(ready(Ok(response)))
    }
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
