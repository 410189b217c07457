//! The frames of the protocol.

use axum::extract::ws::{Message, Utf8Bytes};
use serde_json::{Value, json};

/// Binary frames begin with their kind, big-endian.
const PREVIEW: u32 = 1;
const PREVIEW_WITH_METADATA: u32 = 4;

/// Image type of a preview without metadata.
const JPEG: u32 = 1;

/// A text frame: `{"type", "data"}`.
pub(super) fn text(kind: &str, data: Value) -> Message {
    message(&json!({"type": kind, "data": data}))
}

/// A text frame with this object.
pub(super) fn message(object: &Value) -> Message {
    Message::Text(Utf8Bytes::from(object.to_string()))
}

/// A preview for clients that asked for previews alone.
pub(super) fn preview(jpeg: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(8 + jpeg.len());
    frame.extend(PREVIEW.to_be_bytes());
    frame.extend(JPEG.to_be_bytes());
    frame.extend(jpeg);
    Message::Binary(frame.into())
}

/// A preview for clients that announced `supports_preview_metadata`.
pub(super) fn preview_with_metadata(jpeg: &[u8], prompt_id: &str, node: &str) -> Message {
    let metadata = json!({
        "node_id": node, "prompt_id": prompt_id, "display_node_id": node, "parent_node_id": null,
        "real_node_id": node, "image_type": "image/jpeg",
    })
    .to_string();
    let mut frame = Vec::with_capacity(8 + metadata.len() + jpeg.len());
    frame.extend(PREVIEW_WITH_METADATA.to_be_bytes());
    frame.extend((metadata.len() as u32).to_be_bytes());
    frame.extend(metadata.as_bytes());
    frame.extend(jpeg);
    Message::Binary(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_are_laid_out_as_clients_read_them() {
        assert_eq!(preview(b"J").into_data().as_ref(), b"\0\0\0\x01\0\0\0\x01J");
        let frame = preview_with_metadata(b"JPEG", "p", "52").into_data();
        let length = u32::from_be_bytes(frame[4..8].try_into().expect("four bytes")) as usize;
        let metadata: Value = serde_json::from_slice(&frame[8..8 + length]).expect("JSON");
        assert_eq!((&frame[..4], &frame[8 + length..]), (&b"\0\0\0\x04"[..], &b"JPEG"[..]));
        assert_eq!((&metadata["prompt_id"], &metadata["node_id"]), (&json!("p"), &json!("52")));
    }
}
