//! A file, or the part of it that a client asks for (RFC 9110, sections 13 and 14).

use std::fs::File;
use std::io::SeekFrom;
use std::ops::RangeInclusive;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use http_range_header::parse_range_header;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::reply::{ApiError, empty};

/// The answer for an open file: whole, one range of it where a GET asks for one, 304 if the client has it, 416 for a range
/// that is malformed or lies outside of it. Content type and disposition are the caller's.
pub(crate) async fn file_response(
    file: File,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response, ApiError> {
    let metadata = file.metadata()?;
    let length = metadata.len();
    // What such dates can say.
    let modified = metadata.modified()?.clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(LAST_SECOND));
    let age = modified.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    let etag = format!("\"{age:x}-{length:x}\"");
    let date = httpdate::fmt_http_date(modified);

    let mut response = if is_known(request, &etag, modified) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        match wanted(method, request, length, &etag, &date) {
            Ok(None) => content(StatusCode::OK, file, 0, length).await?,
            Ok(Some(range)) => {
                let (start, end) = range.into_inner();
                let mut part = content(StatusCode::PARTIAL_CONTENT, file, start, end - start + 1).await?;
                put(&mut part, header::CONTENT_RANGE, &format!("bytes {start}-{end}/{length}"))?;
                part
            }
            Err(Unsatisfiable) => {
                let mut refusal = empty(StatusCode::RANGE_NOT_SATISFIABLE);
                put(&mut refusal, header::CONTENT_RANGE, &format!("bytes */{length}"))?;
                refusal
            }
        }
    };
    put(&mut response, header::ETAG, &etag)?;
    put(&mut response, header::LAST_MODIFIED, &date)?;
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// The end of the year 9999, in seconds.
const LAST_SECOND: u64 = 253_402_300_799;

struct Unsatisfiable;

/// The one range that is wanted, if any. Other methods than GET have none, and units that are not known and several ranges
/// at once are as if they were not asked for.
fn wanted(
    method: &Method,
    request: &HeaderMap,
    length: u64,
    etag: &str,
    date: &str,
) -> Result<Option<RangeInclusive<u64>>, Unsatisfiable> {
    let Some(range) = request.get(header::RANGE).filter(|_| method == Method::GET) else { return Ok(None) };
    if request.get(header::IF_RANGE).is_some_and(|known| known != etag && known != date) {
        return Ok(None); // the client's part is of another file
    }
    let text = range.to_str().map_err(|_| Unsatisfiable)?;
    if !text.trim_start().starts_with("bytes=") || text.contains(',') {
        return Ok(None);
    }
    let ranges = parse_range_header(text).ok().and_then(|parsed| parsed.validate(length).ok());
    match ranges.as_deref() {
        Some([range]) => Ok(Some(range.clone())),
        _ => Err(Unsatisfiable),
    }
}

fn is_known(request: &HeaderMap, etag: &str, modified: std::time::SystemTime) -> bool {
    let text = |name| request.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if let Some(tags) = text(header::IF_NONE_MATCH) {
        return tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|t| t == etag || t == "*");
    }
    let seconds = |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    text(header::IF_MODIFIED_SINCE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .is_some_and(|since| seconds(modified) <= seconds(since))
}

async fn content(status: StatusCode, file: File, start: u64, length: u64) -> Result<Response, ApiError> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(start)).await?;
    let mut response =
        Response::new(Body::from_stream(ReaderStream::with_capacity(file.take(length), 64 << 10)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

fn put(response: &mut Response, name: header::HeaderName, value: &str) -> Result<(), ApiError> {
    let value = HeaderValue::from_str(value).map_err(ApiError::internal)?;
    response.headers_mut().insert(name, value);
    Ok(())
}
