//! `/interrupt` and `/free`.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::queue::{is_true, truthy};
use crate::app::Shared;
use crate::body::{self, SMALL_LIMIT};
use crate::reply::{ApiError, empty};

/// `POST /interrupt`: stops the running job, or the one named by `prompt_id` if it runs. As in ComfyUI, a body that cannot
/// be read and an id that is empty name none: who asks for a stop gets one.
pub(crate) async fn interrupt(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let body = body::read(body, SMALL_LIMIT).await?;
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = request.get("prompt_id").filter(|id| truthy(id)).map(|id| match id {
        Value::String(id) => id.clone(),
        other => other.to_string(),
    });
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
