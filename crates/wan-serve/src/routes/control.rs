//! `/interrupt` and `/free`.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::queue::is_true;
use crate::app::Shared;
use crate::body::{self, SMALL_LIMIT};
use crate::reply::{ApiError, empty};

/// `POST /interrupt`: stops the running job, or the one named by `prompt_id` if it runs.
pub(crate) async fn interrupt(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let request = body::read_json(body, SMALL_LIMIT).await?;
    let id = match request.get("prompt_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(other) => Some(other.to_string()),
    };
    app.blocking(move |app| {
        app.queue.cancel(id.as_deref())?;
        Ok(empty(StatusCode::OK))
    })
    .await
}

/// `POST /free`: `{"unload_models", "free_memory"}`; done between jobs.
pub(crate) async fn free(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let request = body::read_json(body, SMALL_LIMIT).await?;
    if is_true(&request, "unload_models") || is_true(&request, "free_memory") {
        app.free();
    }
    Ok(empty(StatusCode::OK))
}
