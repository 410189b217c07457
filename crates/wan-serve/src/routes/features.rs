//! What this server has nothing to say about, but clients ask for when they start.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::body::{self, IMAGE_LIMIT, SMALL_LIMIT};
use crate::folders::Kind;
use crate::reply::{ApiError, empty, json_ok};

/// What the server can do, as told under `/features` and on sockets.
pub(crate) fn flags() -> Value {
    json!({"supports_preview_metadata": true, "max_upload_size": IMAGE_LIMIT})
}

/// `GET /features`.
pub(crate) async fn features() -> Response {
    json_ok(&flags())
}

/// An empty list: `/embeddings`.
pub(crate) async fn empty_list() -> Response {
    json_ok(&json!([]))
}

/// An empty object: `/i18n`, `/workflow_templates`, `/global_subgraphs`.
pub(crate) async fn empty_object() -> Response {
    json_ok(&json!({}))
}

/// `GET /internal/logs`: the log stays on the server.
pub(crate) async fn logs() -> Response {
    json_ok(&"")
}

/// `GET /internal/logs/raw`.
pub(crate) async fn raw_logs() -> Response {
    json_ok(&json!({"entries": [], "size": {"cols": 80, "rows": 24}}))
}

/// `PATCH /internal/logs/subscribe`: accepted, and nothing follows.
pub(crate) async fn subscribe_logs(body: Body) -> Result<Response, ApiError> {
    body::read_json(body, SMALL_LIMIT).await?;
    Ok(empty(StatusCode::OK))
}

/// `GET /internal/files/{input,output,temp}`: names, newest first.
pub(crate) async fn files(State(app): State<Shared>, Path(kind): Path<String>) -> Result<Response, ApiError> {
    let Some(kind) = Kind::parse(&kind) else { return Ok(empty(StatusCode::BAD_REQUEST)) };
    app.blocking(move |app| Ok(json_ok(&app.folders.of(kind).newest_first()?))).await
}
