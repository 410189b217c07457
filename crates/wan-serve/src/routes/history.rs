//! `/history`: jobs that have ended.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use wan_queue::{History, Page};

use super::queue::{is_true, string_list};
use crate::app::Shared;
use crate::body::{self, SMALL_LIMIT};
use crate::reply::{ApiError, empty, json_ok};

/// `GET /history?max_items=&offset=`: an object from id to entry, oldest first.
pub(crate) async fn list(
    State(app): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    let page = Page { max_items: count(&query, "max_items")?, offset: count(&query, "offset")? };
    app.blocking(move |app| Ok(json_ok(&app.queue.history(page)?))).await
}

/// `GET /history/{id}`: an object with the entry, or without.
pub(crate) async fn one(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response, ApiError> {
    app.blocking(move |app| {
        let entry = app.queue.history_entry(&id)?;
        Ok(json_ok(&History(entry.into_iter().collect())))
    })
    .await
}

/// `POST /history`: `{"clear": true}` and `{"delete": [id...]}`; files stay.
pub(crate) async fn change(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let request = body::read_json(body, SMALL_LIMIT).await?;
    let ids = string_list(&request, "delete")?;
    app.blocking(move |app| {
        if is_true(&request, "clear") {
            app.queue.clear_history()?;
        }
        if !ids.is_empty() {
            app.queue.delete_history(&ids)?;
        }
        Ok(empty(StatusCode::OK))
    })
    .await
}

/// A count in the query; negative ones mean none, as in ComfyUI.
pub(super) fn count(query: &HashMap<String, String>, key: &str) -> Result<Option<usize>, ApiError> {
    let Some(text) = query.get(key) else { return Ok(None) };
    let number: i64 = text.trim().parse().map_err(|_| {
        ApiError::bad_request("invalid_request", format!("{key}: found `{text}`, expected a whole number"))
    })?;
    Ok(usize::try_from(number).ok())
}
