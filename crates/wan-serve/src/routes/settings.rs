//! `/settings` and `/users`: one user, whose front end keeps its settings here.

use std::io::ErrorKind;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::app::{App, Shared};
use crate::body::{self, SMALL_LIMIT};
use crate::reply::{ApiError, empty, json_ok};

const FILE: &str = "comfy.settings.json";

/// `GET /users`: a single user.
pub(crate) async fn users() -> Response {
    json_ok(&json!({"storage": "server", "migrated": true}))
}

/// `POST /users`: there is one user only.
pub(crate) async fn add_user(body: Body) -> Result<Response, ApiError> {
    body::read_json(body, SMALL_LIMIT).await?;
    Err(ApiError::bad_request(
        "single_user",
        "This server has one user; its token is shared by all who use it",
    ))
}

/// `GET /settings`: all of them.
pub(crate) async fn all(State(app): State<Shared>) -> Result<Response, ApiError> {
    app.blocking(|app| Ok(json_ok(&load(app)?))).await
}

/// `GET /settings/{id}`: the value, or null.
pub(crate) async fn one(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response, ApiError> {
    app.blocking(move |app| Ok(json_ok(load(app)?.get(&id).unwrap_or(&Value::Null)))).await
}

/// `POST /settings`: an object, merged into what is there.
pub(crate) async fn merge(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    match body::read_json(body, SMALL_LIMIT).await? {
        Value::Object(changes) => change(app, changes).await,
        _ => Err(ApiError::bad_request("invalid_request", "The body must be an object with settings")),
    }
}

/// `POST /settings/{id}`: one value.
pub(crate) async fn set(
    State(app): State<Shared>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let value = body::read_json(body, SMALL_LIMIT).await?;
    change(app, Map::from_iter([(id, value)])).await
}

async fn change(app: Shared, changes: Map<String, Value>) -> Result<Response, ApiError> {
    app.blocking(move |app| {
        let _writing = app.writing();
        let mut settings = load(app)?;
        settings.extend(changes);
        let text = serde_json::to_vec_pretty(&settings).map_err(ApiError::internal)?;
        if text.len() > SMALL_LIMIT {
            return Err(ApiError::too_large(SMALL_LIMIT));
        }
        app.folders.user.replace(FILE.as_ref(), &text)?;
        Ok(empty(StatusCode::OK))
    })
    .await
}

fn load(app: &App) -> Result<Map<String, Value>, ApiError> {
    match app.folders.user.dir.read(FILE) {
        // Settings that somebody damaged are worth less than a front end that starts.
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error.into()),
    }
}
