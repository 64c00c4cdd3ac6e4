//! `/admin/tsdb/*`, with `--web.enable-admin-api`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;

use super::super::Services;
use super::super::params::Params;
use super::super::respond::{ApiError, ApiResult, ErrorType, Success};
use super::blocking;
use crate::model::labels::quote;
use crate::storage::Storage;
use crate::storage::options::SealError;

fn check_enabled(services: &Services) -> Result<(), ApiError> {
    if services.options.enable_admin_api {
        return Ok(());
    }
    Err(ApiError::new(ErrorType::Unavailable, "admin APIs disabled"))
}

/// Does something to the store that gives no answer but its success.
async fn change(
    services: Arc<Services>,
    work: impl FnOnce(&Storage) -> Result<(), SealError> + Send + 'static,
) -> Result<StatusCode, ApiError> {
    blocking(move |_| changed(work(&services.store))).await
}

fn changed(done: Result<(), SealError>) -> Result<StatusCode, ApiError> {
    done.map_err(|err| ApiError::new(ErrorType::Internal, err.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Seals everything written so far into segments and merges those, now. An extension of Prometheus' API.
pub(super) async fn compact(State(services): State<Arc<Services>>) -> Result<StatusCode, ApiError> {
    check_enabled(&services)?;
    change(services, Storage::compact_now).await
}

pub(super) async fn delete_series(
    State(services): State<Arc<Services>>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    check_enabled(&services)?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let range = params.range()?;
    blocking(move |thread| {
        let sets = params.matchers(thread, &services.options.parser)?;
        changed(services.store.delete_series(&sets, range))
    })
    .await
}

pub(super) async fn clean_tombstones(
    State(services): State<Arc<Services>>,
) -> Result<StatusCode, ApiError> {
    check_enabled(&services)?;
    change(services, Storage::clean_tombstones).await
}

pub(super) async fn snapshot(State(services): State<Arc<Services>>, params: Params) -> ApiResult {
    check_enabled(&services)?;
    let skip_head = match params.get("skip_head") {
        "" => false,
        text => parse_bool(text).map_err(|reason| ApiError::parameter("skip_head", reason))?,
    };
    blocking(move |_| {
        let name = services
            .store
            .snapshot(!skip_head)
            .map_err(|err| ApiError::new(ErrorType::Internal, format!("create snapshot: {err}")))?;
        Ok(Success::of(&json!({ "name": name })))
    })
    .await
}

/// As Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "unable to parse boolean \"skip_head\" argument: strconv.ParseBool: parsing {}: \
             invalid syntax",
            quote(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_go() {
        assert_eq!([parse_bool("T"), parse_bool("false")], [Ok(true), Ok(false)]);
        let refused = parse_bool("yes").unwrap_err();
        assert!(refused.ends_with(r#"strconv.ParseBool: parsing "yes": invalid syntax"#));
    }
}
