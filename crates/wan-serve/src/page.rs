//! The front end: the page inside of the binary, or a folder with another one.

use std::path::Path;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use percent_encoding::percent_decode_str;
use rust_embed::RustEmbed;

use crate::ServeError;
use crate::app::Shared;
use crate::names;
use crate::reply::{ApiError, empty, json_ok};
use crate::routes::range::file_response;

/// The page's files.
#[derive(RustEmbed)]
#[folder = "page/"]
struct Embedded;

const INDEX: &str = "index.html";
const LOGIN: &str = "login.html";

/// Files of the log-in page, which nobody needs a token for.
const LOGIN_FILES: [&str; 5] = ["/style.css", "/icon.svg", "/js/login.js", "/js/i18n.js", "/js/store.js"];

/// Scripts for another front end, ComfyUI's: what it lists under `/extensions`.
const EXTENSIONS: [&str; 1] = ["/extensions/widget_values.js"];

/// The page runs its own scripts only, talks to this server only, and is framed by nobody.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'",
);

/// Another front end may need inline scripts; it is framed by nobody else all the same.
const FOREIGN_POLICY: HeaderValue = HeaderValue::from_static("frame-ancestors 'self'; object-src 'none'");

/// Where the front end comes from.
#[derive(Debug)]
pub(crate) enum FrontEnd {
    /// Out of the binary.
    Embedded,
    /// Out of a folder.
    Folder(Dir),
}

impl FrontEnd {
    /// Opens `folder`, or takes the page in the binary.
    ///
    /// Errors: [`ServeError::FrontEnd`] for a folder without a page.
    pub fn open(folder: Option<&Path>) -> Result<Self, ServeError> {
        let Some(path) = folder else { return Ok(Self::Embedded) };
        let missing = || ServeError::FrontEnd { path: path.to_path_buf() };
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(|_| missing())?;
        if dir.is_file(INDEX) { Ok(Self::Folder(dir)) } else { Err(missing()) }
    }
}

/// Whether a path is a file of the log-in page.
pub(crate) fn is_login_file(path: &str) -> bool {
    LOGIN_FILES.contains(&path)
}

/// `GET /login`.
pub(crate) async fn login(headers: HeaderMap) -> Response {
    embedded(LOGIN, &headers).unwrap_or_else(|| empty(StatusCode::NOT_FOUND))
}

/// `GET /extensions`: scripts that another front end loads; the page needs none.
pub(crate) async fn extensions(State(app): State<Shared>) -> Response {
    match app.front_end {
        FrontEnd::Embedded => json_ok(&[""; 0]),
        FrontEnd::Folder(_) => json_ok(&EXTENSIONS),
    }
}

/// Everything that is no endpoint: files of the front end, else 404.
pub(crate) async fn file(
    State(app): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let missing = || (StatusCode::NOT_FOUND, "404: Not Found").into_response();
    if method != Method::GET && method != Method::HEAD {
        return Ok(missing());
    }
    let path = percent_decode_str(uri.path()).decode_utf8_lossy();
    let path = match path.trim_start_matches('/') {
        "" => INDEX,
        path => path,
    };
    if let FrontEnd::Folder(dir) = &app.front_end
        && let Some(answer) = from_folder(dir, path, &method, &headers).await?
    {
        return Ok(answer);
    }
    let own = matches!(app.front_end, FrontEnd::Embedded)
        || is_login_file(uri.path())
        || EXTENSIONS.contains(&uri.path());
    Ok(own.then(|| embedded(path, &headers)).flatten().unwrap_or_else(missing))
}

fn embedded(path: &str, request: &HeaderMap) -> Option<Response> {
    let file = Embedded::get(path)?;
    let hash: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = HeaderValue::from_str(&format!("\"{hash}\"")).ok()?;
    let mut response = if request.get(header::IF_NONE_MATCH) == Some(&etag) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let mime = mime(file.metadata.mimetype());
        ([(header::CONTENT_TYPE, mime)], file.data.into_owned()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    Some(response)
}

async fn from_folder(
    dir: &Dir,
    path: &str,
    method: &Method,
    request: &HeaderMap,
) -> Result<Option<Response>, ApiError> {
    let Some(below) = names::below(path) else { return Ok(None) };
    let below = if dir.is_dir(&below) { below.join(INDEX) } else { below };
    if !dir.is_file(&below) {
        return Ok(None);
    }
    let Ok(file) = dir.open(&below) else { return Ok(None) };
    let mut response = file_response(file.into_std(), method, request).await?;
    let guess = mime_guess::from_path(&below).first_or_octet_stream();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, mime(guess.essence_str()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, FOREIGN_POLICY);
    Ok(Some(response))
}

fn mime(name: &str) -> HeaderValue {
    let text = if name.starts_with("text/") { format!("{name}; charset=utf-8") } else { name.to_owned() };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}
