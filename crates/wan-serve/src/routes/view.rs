//! `GET /view`: files of the input, output and temp folders.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use super::range::file_response;
use super::view_image::{Conversion, convert};
use crate::app::Shared;
use crate::folders::Kind;
use crate::names;
use crate::reply::{ApiError, empty};

/// Files that a browser may show in place; all others are offered as downloads.
const INLINE: [(&str, &str); 8] = [
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("mkv", "video/x-matroska"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
];

/// What is asked for, once it has been read.
struct Wanted {
    kind: Kind,
    subfolder: std::path::PathBuf,
    name: String,
    conversion: Option<Conversion>,
}

/// The file, or an empty answer with the status that says why not.
pub(crate) async fn view(
    State(app): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = match read(&query) {
        Ok(wanted) => wanted,
        Err(status) => return Ok(empty(status)),
    };
    let path = wanted.subfolder.join(&wanted.name);
    let kind = wanted.kind;
    let Some(file) = app.blocking(move |app| Ok(open(&app.folders.of(kind).dir, &path))).await? else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    if let Some(conversion) = wanted.conversion {
        return app.converting(move |_| convert(file, &wanted.name, conversion)).await;
    }
    let mut response = file_response(file, &method, &headers).await?;
    label(&mut response, &wanted.name);
    Ok(response)
}

/// Opens a regular file below `dir`; links that lead out of it are not followed.
fn open(dir: &cap_std::fs::Dir, path: &Path) -> Option<File> {
    // A pipe would wait for a writer: look first.
    dir.metadata(path).ok().filter(cap_std::fs::Metadata::is_file)?;
    Some(dir.open(path).ok()?.into_std())
}

fn read(query: &HashMap<String, String>) -> Result<Wanted, StatusCode> {
    let get = |key: &str| query.get(key).map(String::as_str);
    let (name, named_kind) = split_kind(get("filename").ok_or(StatusCode::NOT_FOUND)?);
    if name.is_empty() || name.starts_with('/') || name.contains("..") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let kind = match named_kind {
        Some(kind) => kind,
        None => Kind::parse(get("type").unwrap_or("output")).ok_or(StatusCode::BAD_REQUEST)?,
    };
    let subfolder = names::below(get("subfolder").unwrap_or_default()).ok_or(StatusCode::FORBIDDEN)?;
    let name = name.rsplit('/').next().unwrap_or_default();
    if !names::is_plain(name) {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(Wanted {
        kind,
        subfolder,
        name: name.to_owned(),
        conversion: Conversion::parse(get("preview"), get("channel")),
    })
}

/// `x.png [input]` names the folder as well.
fn split_kind(name: &str) -> (&str, Option<Kind>) {
    for (suffix, kind) in [(" [input]", Kind::Input), (" [output]", Kind::Output), (" [temp]", Kind::Temp)] {
        if let Some(bare) = name.strip_suffix(suffix) {
            return (bare, Some(kind));
        }
    }
    (name, None)
}

fn label(response: &mut Response, name: &str) {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    let inline = INLINE.iter().find(|(known, _)| *known == extension).map(|(_, mime)| *mime);
    let escaped = name.replace('"', "\\\"");
    let disposition = match inline {
        Some(_) => format!("filename=\"{escaped}\""),
        None => format!("attachment; filename=\"{escaped}\""),
    };
    let headers = response.headers_mut();
    let mime = HeaderValue::from_static(inline.unwrap_or("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, mime);
    if let Ok(disposition) = HeaderValue::from_bytes(disposition.as_bytes()) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pairs: &[(&str, &str)]) -> Result<(), u16> {
        let query = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        read(&query).map(|_| ()).map_err(|s| s.as_u16())
    }

    #[test]
    fn refusals_have_comfyuis_codes() {
        assert_eq!(status(&[]), Err(404));
        for name in ["", "/etc/passwd", "../x", "a..b.png", "x\\y.png", "a/", ".hidden", "x\0.png"] {
            assert_eq!(status(&[("filename", name)]), Err(400), "{name:?}");
        }
        assert_eq!(status(&[("filename", "x"), ("type", "bogus")]), Err(400));
        assert_eq!(status(&[("filename", "x"), ("type", "")]), Err(400));
        assert_eq!(status(&[("filename", "x [input]"), ("type", "bogus")]), Ok(()));
        for folder in ["..", "/etc", "a/../..", "a\\b"] {
            assert_eq!(status(&[("filename", "x"), ("subfolder", folder)]), Err(403), "{folder}");
        }
        assert_eq!(status(&[("filename", "x"), ("subfolder", "sub/..")]), Ok(()));
    }

    #[test]
    fn the_last_component_counts() {
        let query = HashMap::from([("filename".into(), "sub/x.png [temp]".into())]);
        let wanted = read(&query).unwrap_or_else(|status| panic!("{status}"));
        assert_eq!((wanted.name.as_str(), wanted.kind), ("x.png", Kind::Temp));
    }
}
