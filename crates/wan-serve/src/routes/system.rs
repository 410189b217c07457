//! `/system_stats`, `/health`, `/metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wan_core::memory;

use crate::app::Shared;
use crate::reply::{ApiError, json_ok};

/// The ComfyUI whose API this is; front ends compare it.
const COMFYUI_VERSION: &str = "0.3.64";
const FRONT_END_VERSION: &str = "1.27.10";
const TEMPLATES_VERSION: &str = "0.1.95";

/// `GET /system_stats`: every key that front ends require; nothing about the host that they do not.
pub(crate) async fn stats(State(app): State<Shared>) -> Response {
    let (total, free) =
        (memory::total_bytes().unwrap_or_default(), memory::available_bytes().unwrap_or_default());
    let version = env!("CARGO_PKG_VERSION");
    let device = &app.device;
    json_ok(&json!({
        "system": {
            "os": if cfg!(windows) { "nt" } else { "posix" },
            "ram_total": total, "ram_free": free,
            "comfyui_version": COMFYUI_VERSION,
            "required_frontend_version": FRONT_END_VERSION,
            "installed_templates_version": TEMPLATES_VERSION,
            "required_templates_version": TEMPLATES_VERSION,
            "python_version": format!("none (wan-run {version})"),
            "pytorch_version": format!("none (wan-run {version})"),
            "embedded_python": false,
            "argv": [],
        },
        "devices": [{
            "name": device, "type": device.split(':').next().unwrap_or(device), "index": 0,
            "vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free,
        }],
    }))
}

/// `GET /health`: open to all, and says nothing else.
pub(crate) async fn health(State(app): State<Shared>) -> Result<Response, ApiError> {
    app.blocking(|app| {
        app.queue.counts()?;
        Ok(json_ok(&json!({"status": "ok"})))
    })
    .await
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(app): State<Shared>) -> Result<Response, ApiError> {
    let text =
        app.blocking(|app| app.metrics.render(app.queue.counts()?).map_err(ApiError::internal)).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
