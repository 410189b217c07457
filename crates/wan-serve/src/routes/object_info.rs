//! `/object_info`: the nodes, from the table that validates.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use crate::app::Shared;
use crate::reply::{ApiError, json_ok};

/// `GET /object_info`: all classes.
pub(crate) async fn all(State(app): State<Shared>) -> Result<Response, ApiError> {
    app.blocking(|app| Ok(json_ok(&app.graphs.object_info()))).await
}

/// `GET /object_info/{class}`: one class; an empty object if there is none of that name.
pub(crate) async fn one(State(app): State<Shared>, Path(class): Path<String>) -> Result<Response, ApiError> {
    app.blocking(move |app| {
        let info = app.graphs.class_info(&class);
        Ok(json_ok(&info.map_or(json!({}), |info| json!({class: info}))))
    })
    .await
}
