//! The ComfyUI-compatible HTTP server and its web page (`page/`).
//!
//! Beside ComfyUI's routes the page uses two of its own, both authenticated like the others:
//! - `GET /wan-run/session`: `{"version", "model", "device", "token"}`, the token null where none is set
//! - `POST /wan-run/convert`: a workflow in UI or API format; `{"prompt": API graph}`

pub mod worker;
