//! `/queue`: what runs and what waits.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use crate::app::Shared;
use crate::body::{self, SMALL_LIMIT};
use crate::reply::{ApiError, empty, json_ok};

/// `GET /queue`: `{queue_running, queue_pending}`, in the order in which jobs run.
pub(crate) async fn show(State(app): State<Shared>) -> Result<Response, ApiError> {
    app.blocking(|app| Ok(json_ok(&app.queue.snapshot()?))).await
}

/// `POST /queue`: `{"clear": true}` and `{"delete": [id...]}` remove jobs that wait; the one that runs stays.
pub(crate) async fn change(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let request = body::read_json(body, SMALL_LIMIT).await?;
    let ids = string_list(&request, "delete")?;
    app.blocking(move |app| {
        if is_true(&request, "clear") {
            app.queue.clear_pending()?;
        }
        if !ids.is_empty() {
            app.queue.delete_pending(&ids)?;
        }
        app.bus.publish_status();
        Ok(empty(StatusCode::OK))
    })
    .await
}

/// Whether a key of a request has a value that ComfyUI takes for true.
pub(crate) fn is_true(request: &Value, key: &str) -> bool {
    request.get(key).is_some_and(truthy)
}

/// Python's truth of a value: nothing that is zero or empty.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

/// The ids under `key`; what is no text is no id.
///
/// Errors: 400 for a body that is no object, and for something else than a list.
pub(crate) fn string_list(request: &Value, key: &str) -> Result<Vec<String>, ApiError> {
    let invalid = |message: String| ApiError::bad_request("invalid_request", message);
    if !(request.is_object() || request.is_null()) {
        return Err(invalid(format!("The body must be an object such as {{\"{key}\": [id]}}")));
    }
    match request.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        Some(_) => Err(invalid(format!("{key} must be a list of prompt ids"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn truth_is_pythons() {
        for value in [json!(true), json!(1), json!(-0.5), json!("false"), json!([0]), json!({"a": 0})] {
            assert!(truthy(&value), "{value}");
        }
        for value in [json!(null), json!(false), json!(0), json!(0.0), json!(""), json!([]), json!({})] {
            assert!(!truthy(&value), "{value}");
        }
    }
}
