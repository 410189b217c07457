//! One line in the log for each request, without its query: that may hold the token. Every answer is counted and
//! gets the headers that keep browsers from guessing and leaking.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::Shared;
use crate::reply::ApiError;

/// Logs and counts.
pub(crate) async fn log(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    app.metrics.count_response(status);
    let ms = start.elapsed().as_millis() as u64;
    if status == 500 {
        tracing::error!(%method, path, status, ms, "answered");
    } else {
        tracing::debug!(%method, path, status, ms, "answered");
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// 408 for requests whose answer takes too long to begin: a body that does not arrive, above all.
pub(crate) async fn limit_time(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let time = app.limits.request_time;
    match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("The request took longer than {} s", time.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message).into_response()
        }
    }
}
