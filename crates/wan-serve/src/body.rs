//! Request bodies: read whatever their content type says, and never more than allowed.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::reply::ApiError;

/// Largest body of a prompt in bytes, after inflating.
pub(crate) const PROMPT_LIMIT: usize = 4 << 20;

/// Largest body of settings, of a stored workflow, and of everything else in bytes.
pub(crate) const SMALL_LIMIT: usize = 1 << 20;

/// Largest uploaded image in bytes.
pub(crate) const IMAGE_LIMIT: usize = 50 << 20;

/// What is read and thrown away of a body that is too large: a client that sees its connection cut while it still
/// sends would never read the answer.
pub(crate) const DRAIN_LIMIT: usize = 256 << 20;

const DRAIN_TIME: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit` bytes.
///
/// Errors: 413 above the limit, 400 for a body that is cut or wrongly compressed.
pub(crate) async fn read(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    while let Some(data) = next(&mut body).await? {
        if bytes.len() + data.len() > limit {
            drain(&mut body).await;
            return Err(ApiError::too_large(limit));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

/// Reads a JSON body; no body is `null`.
///
/// Errors: those of [`read`]; 400 `invalid_json`.
pub(crate) async fn read_json(body: Body, limit: usize) -> Result<Value, ApiError> {
    let bytes = read(body, limit).await?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::bad_request("invalid_json", "The body is not valid JSON").details(error.to_string())
    })
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", "The body could not be read")
                .details(error.to_string())
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Reads the rest of a body and throws it away.
pub(crate) async fn drain(body: &mut Body) {
    let all = async {
        let mut left = DRAIN_LIMIT;
        while let Ok(Some(data)) = next(body).await {
            let Some(rest) = left.checked_sub(data.len()) else { break };
            left = rest;
        }
    };
    // Whether it came to an end or not: the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}
