//! `/admin/tsdb/*`, with `--web.enable-admin-api`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::super::Services;
use super::super::respond::{ApiError, ErrorType};
use super::blocking;

/// Seals everything written so far into segments and merges those, now. An extension of Prometheus' API.
pub(super) async fn compact(State(services): State<Arc<Services>>) -> Result<StatusCode, ApiError> {
    if !services.options.enable_admin_api {
        return Err(ApiError::new(ErrorType::Unavailable, "admin APIs disabled"));
    }
    blocking(move || {
        let compacted = services.store.compact_now();
        compacted.map_err(|err| ApiError::new(ErrorType::Internal, err.to_string()))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
