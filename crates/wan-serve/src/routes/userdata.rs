//! `/userdata`: files that a front end keeps for its user, workflows above all.

use std::collections::HashMap;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::{self, PROMPT_LIMIT};
use crate::folders::UNFINISHED;
use crate::names;
use crate::reply::{ApiError, empty, json_ok};
use crate::user_files::{Entry, UserFiles};

type Parameters = Query<HashMap<String, String>>;

/// `GET /userdata?dir=&recurse=&split=&full_info=`: the files below a folder.
pub(crate) async fn list(State(app): State<Shared>, Query(query): Parameters) -> Result<Response, ApiError> {
    let Some(dir) = query.get("dir").filter(|dir| !dir.is_empty()) else {
        return Err(ApiError::bad_request("missing_dir", "dir: expected a folder such as workflows"));
    };
    let Some(dir) = visible(dir) else { return Ok(empty(StatusCode::FORBIDDEN)) };
    app.blocking(move |app| {
        let Some(entries) = files(app).list(&dir, is_set(&query, "recurse"))? else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let describe = |entry: Entry| match (is_set(&query, "full_info"), is_set(&query, "split")) {
            (true, _) => entry.full_info(),
            (false, true) => {
                let parts: Vec<&str> =
                    std::iter::once(entry.path.as_str()).chain(entry.path.split('/')).collect();
                json!(parts)
            }
            (false, false) => json!(entry.path),
        };
        Ok(json_ok(
            &entries.into_iter().filter(|entry| !entry.is_folder).map(describe).collect::<Vec<Value>>(),
        ))
    })
    .await
}

/// `GET /v2/userdata?path=`: files and folders in a folder.
pub(crate) async fn list_v2(
    State(app): State<Shared>,
    Query(query): Parameters,
) -> Result<Response, ApiError> {
    let folder = query.get("path").map(String::as_str).unwrap_or_default().to_owned();
    let Some(dir) = visible(&folder) else { return Ok(empty(StatusCode::FORBIDDEN)) };
    app.blocking(move |app| {
        let Some(entries) = files(app).list(&dir, false)? else { return Ok(empty(StatusCode::NOT_FOUND)) };
        let describe = |entry: Entry| {
            let path = dir.join(&entry.path).to_string_lossy().into_owned();
            match entry.is_folder {
                true => json!({"name": entry.path, "path": path, "type": "directory"}),
                false => json!({
                    "name": entry.path, "path": path, "type": "file", "size": entry.size, "modified": entry.modified_ms,
                }),
            }
        };
        Ok(json_ok(&entries.into_iter().map(describe).collect::<Vec<Value>>()))
    })
    .await
}

/// `GET /userdata/{file}`: its content, never as something that a browser would run.
pub(crate) async fn read(State(app): State<Shared>, Path(file): Path<String>) -> Result<Response, ApiError> {
    let Some(path) = visible_file(&file) else { return Ok(empty(StatusCode::FORBIDDEN)) };
    app.blocking(move |app| {
        let Some(content) = files(app).read(&path)? else { return Ok(empty(StatusCode::NOT_FOUND)) };
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let kind = if is_json { "application/json; charset=utf-8" } else { "application/octet-stream" };
        let mut response = ([(header::CONTENT_TYPE, kind)], content).into_response();
        if !is_json {
            response
                .headers_mut()
                .insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        }
        Ok(response)
    })
    .await
}

/// `POST /userdata/{file}?overwrite=&full_info=`: the body becomes the file.
pub(crate) async fn write(
    State(app): State<Shared>,
    Path(file): Path<String>,
    Query(query): Parameters,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(path) = visible_file(&file) else { return Ok(empty(StatusCode::FORBIDDEN)) };
    let content = body::read(body, PROMPT_LIMIT).await?;
    app.blocking(move |app| {
        app.disk.take(content.len() as u64)?;
        let _writing = app.writing();
        let files = files(app);
        if !may_overwrite(&query) && files.entry(&path).is_some() {
            return Ok(conflict());
        }
        if !files.write(&path, &content)? {
            return Ok(conflict());
        }
        Ok(stored(&files, &path, &query))
    })
    .await
}

/// `DELETE /userdata/{file}`: 204.
pub(crate) async fn delete(
    State(app): State<Shared>,
    Path(file): Path<String>,
) -> Result<Response, ApiError> {
    let Some(path) = visible_file(&file) else { return Ok(empty(StatusCode::FORBIDDEN)) };
    app.blocking(move |app| {
        let _writing = app.writing();
        let removed = files(app).remove(&path)?;
        Ok(empty(if removed { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }))
    })
    .await
}

/// `POST /userdata/{file}/move/{dest}?overwrite=&full_info=`.
pub(crate) async fn rename(
    State(app): State<Shared>,
    Path((file, dest)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, ApiError> {
    let (Some(from), Some(to)) = (visible_file(&file), visible_file(&dest)) else {
        return Ok(empty(StatusCode::FORBIDDEN));
    };
    app.blocking(move |app| {
        let _writing = app.writing();
        let files = files(app);
        let Some(content) = files.read(&from)? else { return Ok(empty(StatusCode::NOT_FOUND)) };
        if from != to {
            if !may_overwrite(&query) && files.entry(&to).is_some() || !files.write(&to, &content)? {
                return Ok(conflict());
            }
            files.remove(&from)?;
        }
        Ok(stored(&files, &to, &query))
    })
    .await
}

fn files(app: &App) -> UserFiles<'_> {
    UserFiles { folder: &app.folders.user }
}

/// A path below the user's folder, without the names of files that are still being written.
fn visible(path: &str) -> Option<PathBuf> {
    names::below(path).filter(|path| !path.iter().any(|part| part.to_string_lossy().starts_with(UNFINISHED)))
}

fn visible_file(path: &str) -> Option<PathBuf> {
    visible(path).filter(|path| path.file_name().is_some() && !path.as_os_str().is_empty())
}

fn is_set(query: &HashMap<String, String>, key: &str) -> bool {
    query.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn may_overwrite(query: &HashMap<String, String>) -> bool {
    query.get("overwrite").is_none_or(|value| value != "false")
}

fn conflict() -> Response {
    (StatusCode::CONFLICT, "File already exists").into_response()
}

fn stored(files: &UserFiles<'_>, path: &std::path::Path, query: &HashMap<String, String>) -> Response {
    match files.entry(path) {
        Some(entry) if is_set(query, "full_info") => json_ok(&entry.full_info()),
        _ => json_ok(&path.to_string_lossy()),
    }
}
