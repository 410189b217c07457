//! `/models`: the model files there are, by folder.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use wan_workflow::table::ModelFolder;

use crate::app::Shared;
use crate::reply::{ApiError, empty, json_ok};

/// `GET /models`: the folders.
pub(crate) async fn folders() -> Response {
    json_ok(&ModelFolder::ALL.map(ModelFolder::name))
}

/// `GET /models/{folder}`: names below it.
pub(crate) async fn files(
    State(app): State<Shared>,
    Path(folder): Path<String>,
) -> Result<Response, ApiError> {
    app.blocking(move |app| {
        let files = app.graphs.files(&folder);
        Ok(files.map_or_else(|| empty(StatusCode::NOT_FOUND), |files| json_ok(&files)))
    })
    .await
}

/// `GET /experiment/models`: the folders, without where they are on this machine.
pub(crate) async fn folders_with_paths() -> Response {
    json_ok(&ModelFolder::ALL.map(|folder| json!({"name": folder.name(), "folders": []})))
}

/// `GET /experiment/models/{folder}`: names with sizes and times.
pub(crate) async fn files_with_sizes(
    State(app): State<Shared>,
    Path(folder): Path<String>,
) -> Result<Response, ApiError> {
    app.blocking(move |app| {
        let Some(names) = app.graphs.files(&folder) else { return Ok(empty(StatusCode::NOT_FOUND)) };
        let describe = |name: String| {
            let metadata = app.graphs.path(&folder, &name).and_then(|path| path.metadata().ok());
            let seconds = |time: std::io::Result<std::time::SystemTime>| {
                time.ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map(|t| t.as_secs_f64())
            };
            json!({
                "name": name, "pathIndex": 0,
                "modified": metadata.as_ref().and_then(|m| seconds(m.modified())),
                "created": metadata.as_ref().and_then(|m| seconds(m.created())),
                "size": metadata.as_ref().map_or(0, std::fs::Metadata::len),
            })
        };
        let files: Vec<Value> = names.into_iter().map(describe).collect();
        Ok(json_ok(&files))
    })
    .await
}

/// `GET /view_metadata/{folder}?filename=`: the `__metadata__` of a safetensors file.
pub(crate) async fn metadata(
    State(app): State<Shared>,
    Path(folder): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    app.blocking(move |app| {
        let name = query.get("filename").filter(|name| name.ends_with(".safetensors"));
        let path = name.and_then(|name| app.graphs.path(&folder, name));
        let found = path.and_then(|path| safetensors_metadata(&path));
        Ok(found.map_or_else(|| empty(StatusCode::NOT_FOUND), |metadata| json_ok(&metadata)))
    })
    .await
}

/// Largest header that is read in bytes; those of 14B models have about 200 kB.
const HEADER_LIMIT: u64 = 16 << 20;

/// A safetensors file begins with the length of a JSON header (little-endian) and the header.
fn safetensors_metadata(path: &std::path::Path) -> Option<Value> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_LIMIT {
        return None;
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    header.get("__metadata__").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_and_damage_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.safetensors");
        let header = br#"{"__metadata__":{"format":"pt"}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(safetensors_metadata(&path), Some(json!({"format": "pt"})));
        std::fs::write(&path, [0xff; 20]).expect("written");
        assert_eq!(safetensors_metadata(&path), None);
    }
}
