//! `/system_stats`, `/health`, `/metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wan_core::device::{GpuInfo, gpu_info};
use wan_core::memory;

use crate::app::Shared;
use crate::reply::{ApiError, json_ok};

/// The ComfyUI whose API this is; front ends compare it.
const COMFYUI_VERSION: &str = "0.3.64";
const FRONT_END_VERSION: &str = "1.27.10";
const TEMPLATES_VERSION: &str = "0.1.95";

/// `GET /system_stats`: every key that front ends require; nothing about the host that they do not.
pub(crate) async fn stats(State(app): State<Shared>) -> Result<Response, ApiError> {
    app.blocking(|app| Ok(json_ok(&described(&app.device, gpu_info(&app.processor))))).await
}

/// The CPU's memory stands for that of a device where there is no GPU.
fn described(device: &str, gpu: Option<GpuInfo>) -> Value {
    let (total, free) =
        (memory::total_bytes().unwrap_or_default(), memory::available_bytes().unwrap_or_default());
    let version = env!("CARGO_PKG_VERSION");
    let name = gpu.as_ref().map_or(device.to_owned(), |gpu| format!("{device} {}", gpu.name));
    let (vram_total, vram_free) = gpu.map_or((total, free), |gpu| (gpu.total_bytes, gpu.free_bytes));
    json!({
        "system": {
            "os": "posix",
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
            "name": name, "type": device.split(':').next().unwrap_or(device), "index": 0,
            "vram_total": vram_total, "vram_free": vram_free,
            "torch_vram_total": vram_total, "torch_vram_free": vram_free,
        }],
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_has_its_own_name_and_memory() {
        let gpu = GpuInfo { name: "NVIDIA H200".into(), total_bytes: 9, free_bytes: 7 };
        let device = described("cuda:1", Some(gpu))["devices"][0].take();
        assert_eq!((&device["name"], &device["type"]), (&json!("cuda:1 NVIDIA H200"), &json!("cuda")));
        assert_eq!((&device["vram_total"], &device["vram_free"]), (&json!(9), &json!(7)));
        assert_eq!(described("cpu", None)["devices"][0]["name"], "cpu");
    }
}
