//! Answers: JSON as ComfyUI words it, and errors that are JSON whatever went wrong.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use wan_queue::QueueError;

/// Seconds after which a client that was told 429 may try again.
const RETRY_AFTER: u64 = 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// 200 with a JSON body.
pub(crate) fn json_ok(body: &impl Serialize) -> Response {
    json_with(StatusCode::OK, body)
}

/// A JSON body under another status.
pub(crate) fn json_with(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
        Err(error) => ApiError::internal(error).into_response(),
    }
}

/// A status with neither body nor content type, as ComfyUI's control endpoints answer.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An error in ComfyUI's form: `{"error": {type, message, details, extra_info}, "node_errors": {}}`.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    kind: String,
    message: String,
    details: String,
    extra_info: Value,
    node_errors: Value,
}

impl ApiError {
    /// An error of this type; the message says in one line what is wrong and what was expected.
    pub fn new(status: StatusCode, kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            kind: kind.into(),
            message: message.into(),
            details: String::new(),
            extra_info: json!({}),
            node_errors: json!({}),
        }))
    }

    /// 400.
    pub fn bad_request(kind: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, message)
    }

    /// 413 for a body of more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Maximum request body size {limit} exceeded.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    /// 500; the reason goes to the log, not to the client.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!(%reason, "internal error");
        let message = "the server failed to answer; its log has the reason";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// With what the message is about.
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.0.details = details.into();
        self
    }

    /// With further fields for programs.
    pub fn extra_info(mut self, extra_info: Value) -> Self {
        self.0.extra_info = extra_info;
        self
    }

    /// With the errors of single nodes.
    pub fn node_errors(mut self, node_errors: Value) -> Self {
        self.0.node_errors = node_errors;
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts { status, kind, message, details, extra_info, node_errors } = *self.0;
        let error = json!({"type": kind, "message": message, "details": details, "extra_info": extra_info});
        let body = json!({"error": error, "node_errors": node_errors});
        let mut response = (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.into());
        }
        response
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        let message = error.to_string();
        match error {
            QueueError::Full { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message),
            QueueError::Duplicate { .. } => Self::bad_request("invalid_prompt_id", message),
            QueueError::Number { .. } => Self::bad_request("invalid_prompt", message),
            error => Self::internal(error),
        }
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error)
    }
}
