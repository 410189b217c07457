//! `GET /wan-run/session`: what the page shows of the server.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::json;

use crate::app::Shared;
use crate::reply::json_ok;

/// Version, model, device, and the token, for whoever presented it; what to begin with on the demonstration model.
pub(crate) async fn show(State(app): State<Shared>) -> Response {
    let token = app.token.as_ref().map(|token| token.reveal());
    let mut response = json_ok(&json!({
        "version": env!("CARGO_PKG_VERSION"), "model": app.model, "device": app.device, "token": token,
        "sample": app.sample,
    }));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
