//! `/query`, `/query_range` and what belongs to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::blocking::Blocking;
use super::super::params::{Params, parse_duration_seconds};
use super::super::quick::Key;
use super::super::respond::{ApiError, ApiResult, ErrorType, Success};
use super::super::{Peer, Services};
use super::{answering, answering_soon, json, tree};
use crate::model::labels::quote;
use crate::model::matcher::written::WrittenMatcher;
use crate::model::sample::TimeRange;
use crate::promql::ast::ExprKind;
use crate::promql::engine::{CancelFlag, Origin, Query, QueryError, QueryOutput, Value};
use crate::promql::parser::ParseErrors;
use crate::promql::print::pretty::pretty;

/// What a query is told whose time is over before it begins.
const TIMED_OUT: &str = "query timed out in expression evaluation";
/// Points of one series in a range query.
const POINTS_MAX: i64 = 11_000;

/// Ends the query when the client goes away and the handler's future is dropped.
struct CancelOnDrop(CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Who asks, for the query log.
pub(super) struct Client {
    ip: Option<IpAddr>,
    method: Method,
    /// Its path is below `/api/v1`.
    uri: Uri,
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        Ok(Self {
            ip: peer.map(|peer| peer.0.0.ip().to_canonical()),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
        })
    }
}

/// What both kinds of query share.
struct Request {
    client: Client,
    text: String,
    limit: usize,
    /// Whatever is not empty asks for statistics.
    stats: String,
    /// An extension: show the plan instead of a result.
    explain: bool,
    lookback_delta_ms: Option<i64>,
    timeout: Option<Duration>,
}

impl Request {
    fn read(params: &Params, client: Client, limit: usize) -> Result<Self, ApiError> {
        let timeout = params.duration("timeout")?;
        let lookback = match params.get("lookback_delta") {
            "" => None,
            text => Some(parse_duration_seconds(text).map_err(|reason| {
                ApiError::bad_data(format!("error parsing lookback delta duration: {reason}"))
            })?),
        };
        let lookback = lookback.filter(|seconds| *seconds > 0.0);
        Ok(Self {
            text: params.get("query").to_owned(),
            limit,
            client,
            stats: params.get("stats").to_owned(),
            explain: matches!(params.get("explain"), "1" | "true"),
            lookback_delta_ms: lookback.map(|seconds| (seconds * 1000.0) as i64),
            timeout: timeout.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
        })
    }

    async fn explain(
        self,
        services: Arc<Services>,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> ApiResult {
        answering(&Arc::clone(&services), move |_| {
            let query = Query::new(&self.text);
            let lines = services.engine.explain(&query, start_ms, end_ms, step_ms)?;
            Ok(Success::of(&json!({ "plan": lines })))
        })
        .await
    }

    /// Ends when the handler is dropped.
    async fn run(self, services: Arc<Services>, key: Option<Key>, moments: Moments) -> ApiResult {
        let cancel = CancelFlag::new();
        let _guard = CancelOnDrop(cancel.clone());
        answering_soon(&Arc::clone(&services), key, move |thread, patience| {
            self.answer(&services, thread, moments, (&cancel, patience))
        })
        .await
    }

    fn answer(
        &self,
        services: &Services,
        thread: &Blocking,
        moments: Moments,
        (cancel, patience): (&CancelFlag, Option<Duration>),
    ) -> Result<Option<Success>, ApiError> {
        let (text, timeout) = (self.text.as_str(), self.timeout);
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            // Nothing can be evaluated in no time, but wrong syntax is told all the same.
            thread.parse(text, &services.options.parser).map_err(refused)?;
            return Err(ApiError::new(ErrorType::Timeout, TIMED_OUT));
        }
        let path = format!("{}/api/v1{}", services.options.route_prefix, self.client.uri.path());
        let query = Query {
            text,
            lookback_delta_ms: self.lookback_delta_ms,
            timeout,
            cancel: cancel.clone(),
            per_step: self.stats == "all" && services.options.per_step_stats,
            origin: Origin::Http {
                client_ip: self.client.ip,
                method: self.client.method.as_str(),
                path: &path,
            },
            patience,
        };
        let mut output = match moments.evaluate(services, &query) {
            Err(QueryError::Hurried) => return Ok(None),
            output => output?,
        };
        if truncate(&mut output.value, self.limit) {
            output.warnings.push("results truncated due to limit".to_owned());
        }
        output.warnings.extend(stats_warning(&self.stats));
        let stats = (!self.stats.is_empty()).then(|| output.stats.to_json().to_string());
        let answer = Success::written(json::query_data_bytes(&output.value), |body| {
            json::push_query_data(body, &output.value, stats.as_deref());
        });
        Ok(Some(answer.with_annotations(output.warnings, output.infos)))
    }
}

/// When a query is evaluated.
#[derive(Clone, Copy)]
enum Moments {
    One { at_ms: i64 },
    Many { start_ms: i64, end_ms: i64, step_ms: i64 },
}

impl Moments {
    fn range(self) -> TimeRange {
        match self {
            Self::One { at_ms } => TimeRange { min_ms: at_ms, max_ms: at_ms },
            Self::Many { start_ms, end_ms, .. } => TimeRange { min_ms: start_ms, max_ms: end_ms },
        }
    }

    fn evaluate(self, services: &Services, query: &Query<'_>) -> Result<QueryOutput, QueryError> {
        match self {
            Self::One { at_ms } => services.engine.instant(query, at_ms),
            Self::Many { start_ms, end_ms, step_ms } => {
                services.engine.range(query, start_ms, end_ms, step_ms)
            }
        }
    }
}

/// The texts of `stats` that mean something are few.
fn stats_warning(wanted: &str) -> Option<String> {
    let is_known = matches!(wanted, "" | "true" | "all");
    (!is_known).then(|| {
        format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next \
             major release, use \"true\" or \"all\"",
            quote(wanted)
        )
    })
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    if limit == 0 {
        return false;
    }
    let before = match value {
        Value::Vector(samples) => {
            let len = samples.len();
            samples.truncate(limit);
            len
        }
        Value::Matrix(series) => {
            let len = series.len();
            series.truncate(limit);
            len
        }
        Value::Scalar { .. } | Value::String { .. } => 0,
    };
    before > limit
}

pub(super) async fn instant(
    State(services): State<Arc<Services>>,
    client: Client,
    params: Params,
) -> ApiResult {
    // Of several errors the first is told: in the order in which Prometheus looks for them.
    let limit = params.limit()?;
    let at_ms = params.time_ms("time", services.clock.now_ms())?;
    let request = Request::read(&params, client, limit)?;
    if request.explain {
        return request.explain(services, at_ms, at_ms, 0).await;
    }
    let moments = Moments::One { at_ms };
    let key = key(&services, "query", &params, moments);
    request.run(services, key, moments).await
}

pub(super) async fn range(
    State(services): State<Arc<Services>>,
    client: Client,
    params: Params,
) -> ApiResult {
    let limit = params.limit()?;
    let start_ms = params.required_time_ms("start")?;
    let end_ms = params.required_time_ms("end")?;
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_text = params.get("step");
    let step =
        parse_duration_seconds(step_text).map_err(|reason| ApiError::parameter("step", reason))?;
    if step <= 0.0 {
        let reason = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", reason));
    }
    let step_ms = ((step * 1000.0) as i64).max(1);
    if end_ms.saturating_sub(start_ms) / step_ms > POINTS_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    let request = Request::read(&params, client, limit)?;
    if request.explain {
        return request.explain(services, start_ms, end_ms, step_ms).await;
    }
    let moments = Moments::Many { start_ms, end_ms, step_ms };
    let key = key(&services, "query_range", &params, moments);
    request.run(services, key, moments).await
}

fn key(services: &Services, path: &str, params: &Params, moments: Moments) -> Option<Key> {
    services.quick.key(path, params, moments.range())
}

fn refused(err: ParseErrors) -> ApiError {
    ApiError::parameter("query", err)
}

/// Exemplars of the series that the query's selectors ask for; no content when there is none.
pub(super) async fn exemplars(
    State(services): State<Arc<Services>>,
    params: Params,
) -> Result<Response, ApiError> {
    let range = params.range()?;
    if range.max_ms < range.min_ms {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let answered = Arc::clone(&services);
    let found = answering(&answered, move |thread| {
        let parsed = thread.parse(params.get("query"), &services.options.parser);
        let expr = parsed.map_err(|err| ApiError::bad_data(err.to_string()))?;
        let mut written: Vec<&[WrittenMatcher]> = Vec::new();
        expr.walk(&mut |own| {
            if let ExprKind::VectorSelector(selector) = &own.kind {
                written.push(&selector.matchers);
            }
        });
        if written.is_empty() {
            return Ok(None);
        }
        let sets = thread.compile(&written)?;
        let found = services.store.exemplars(&sets, range);
        Ok(Some(Success::written(1024, |body| json::push_exemplars(body, &found))))
    });
    let found = found.await?;
    Ok(found.map_or_else(|| StatusCode::NO_CONTENT.into_response(), Success::into_response))
}

pub(super) async fn format(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    answering(&Arc::clone(&services), move |thread| {
        let expr = thread.parse(params.get("query"), &services.options.parser).map_err(refused)?;
        Ok(Success::of(&pretty(&expr)))
    })
    .await
}

pub(super) async fn parse(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    answering(&Arc::clone(&services), move |thread| {
        let expr = thread.parse(params.get("query"), &services.options.parser).map_err(refused)?;
        Ok(Success::of(&tree::tree(&expr)))
    })
    .await
}
