//! One socket.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::response::Response;
use serde_json::Value;
use tokio::time::Instant;

use super::frames;
use super::hub::{Hub, Registration};
use crate::app::Shared;
use crate::reply::ApiError;
use crate::routes::features::flags;

/// Largest frame from a client in bytes.
const FRAME_LIMIT: usize = 4 << 20;

/// Longest client id in bytes.
const ID_LIMIT: usize = 256;

/// Clients take a socket that is silent for longer than 10 s for a dead one, and do not count pings.
const SILENCE: Duration = Duration::from_secs(4);

/// A frame that is not taken in this time ends the socket.
const SEND_TIME: Duration = Duration::from_secs(20);

/// `GET /ws?clientId=`: the upgrade; 400 for requests that ask for none.
pub(crate) async fn upgrade(
    State(app): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| {
        ApiError::bad_request("no_websocket", "expected a WebSocket handshake").details(rejection.body_text())
    })?;
    let id = match query.get("clientId").filter(|id| !id.is_empty()) {
        Some(id) if id.len() > ID_LIMIT => {
            let message = format!("clientId: found {} bytes, expected at most {ID_LIMIT}", id.len());
            return Err(ApiError::bad_request("invalid_client_id", message));
        }
        Some(id) => id.clone(),
        None => uuid::Uuid::new_v4().simple().to_string(),
    };
    let limited = upgrade.max_message_size(FRAME_LIMIT).max_frame_size(FRAME_LIMIT);
    Ok(limited.on_upgrade(move |socket| async move { serve(&app.hub, socket, &id).await }))
}

async fn serve(hub: &Hub, mut socket: WebSocket, id: &str) {
    let Some(mut registration) = hub.register(id) else {
        close(socket, close_code::AGAIN, "too many sockets").await;
        return;
    };
    let open = converse(hub, &mut socket, &mut registration).await;
    hub.unregister(&registration.client_id, registration.connection);
    if open {
        close(socket, close_code::NORMAL, "newer sockets of this client take its place, or the server stops")
            .await;
    }
}

/// Runs until one of the two ends; whether the socket is still open then.
async fn converse(hub: &Hub, socket: &mut WebSocket, registration: &mut Registration) -> bool {
    let mut first_object = true;
    let mut silence = pin!(tokio::time::sleep(SILENCE));
    let next = || Instant::now() + SILENCE;
    loop {
        tokio::select! {
            frame = registration.frames.recv() => {
                let Some(frame) = frame else { return true };
                if !send(socket, frame).await {
                    return false;
                }
                silence.as_mut().reset(next());
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    if !answer(hub, socket, registration, &text, &mut first_object).await {
                        return false;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            },
            // Whatever the client says meanwhile: it is its own silence that is broken.
            () = &mut silence => {
                silence.as_mut().reset(next());
                if hub.remaining() > 0 && !send(socket, hub.status_frame()).await {
                    return false;
                }
            }
        }
    }
}

/// The first object of a client may announce what it understands; everything else is ignored.
async fn answer(
    hub: &Hub,
    socket: &mut WebSocket,
    registration: &Registration,
    text: &str,
    first_object: &mut bool,
) -> bool {
    let Ok(Value::Object(message)) = serde_json::from_str(text) else { return true };
    let is_first = std::mem::replace(first_object, false);
    if !is_first || message.get("type").and_then(Value::as_str) != Some("feature_flags") {
        return true;
    }
    let announced = message.get("data").and_then(|data| data.get("supports_preview_metadata"));
    if announced.and_then(Value::as_bool) == Some(true) {
        hub.announce_previews(&registration.client_id, registration.connection);
    }
    send(socket, frames::text("feature_flags", flags())).await
}

async fn send(socket: &mut WebSocket, frame: Message) -> bool {
    matches!(tokio::time::timeout(SEND_TIME, socket.send(frame)).await, Ok(Ok(())))
}

async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // The socket may be gone: then there is nobody to tell.
    send(&mut socket, frame).await;
}
