//! What the body of `POST /prompt` says, read before the graph is looked at.

use serde_json::value::to_raw_value;
use serde_json::{Map, Value};
use wan_queue::{Json, Priority};

use super::queue::truthy;
use crate::reply::ApiError;

/// Longest id that a client may choose.
const ID_LIMIT: usize = 128;

/// Credentials that some front ends send along; they are nobody's business in a queue that all can read.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// A request, as far as it concerns the queue.
#[derive(Debug)]
pub(super) struct Submission {
    pub prompt: Map<String, Value>,
    pub prompt_id: String,
    pub priority: Priority,
    pub extra_data: Map<String, Value>,
    pub targets: Option<Vec<String>>,
}

impl Submission {
    /// Reads the body of a request.
    ///
    /// Errors: 400 with ComfyUI's types `no_prompt`, `invalid_prompt`, `prompt_no_outputs`, `invalid_prompt_id`.
    pub fn read(body: Map<String, Value>) -> Result<Self, ApiError> {
        let mut body = body;
        let prompt = graph(body.shift_remove("prompt"))?;
        let prompt_id = prompt_id(body.get("prompt_id"))?;
        let priority = priority(&body)?;
        let targets = targets(body.get("partial_execution_targets"))?;
        let mut extra_data = match body.shift_remove("extra_data") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(data)) => data,
            Some(_) => return Err(invalid("extra_data: expected an object")),
        };
        SECRETS.iter().for_each(|key| {
            extra_data.shift_remove(*key);
        });
        if let Some(id) = body.shift_remove("client_id") {
            extra_data.insert("client_id".into(), id);
        }
        Ok(Self { prompt, prompt_id, priority, extra_data, targets })
    }

    /// The job for the queue, once its graph has been found valid.
    pub fn for_queue(&self, prompt: &Value, outputs: Vec<String>) -> Result<wan_queue::Submission, ApiError> {
        Ok(wan_queue::Submission {
            prompt_id: self.prompt_id.clone(),
            priority: self.priority,
            prompt: raw(prompt)?,
            extra_data: raw(&self.extra_data)?,
            outputs,
        })
    }
}

/// The body is an object, or there is no prompt in it.
pub(super) fn object(body: Value) -> Result<Map<String, Value>, ApiError> {
    match body {
        Value::Object(body) => Ok(body),
        Value::Null => {
            Err(ApiError::bad_request("invalid_json", "The body is empty, expected a JSON object"))
        }
        _ => Err(no_prompt()),
    }
}

/// Whether the counter has to grow for a request that is refused: those without a number of their own count.
pub(super) fn counts(body: &Map<String, Value>) -> bool {
    !body.contains_key("number")
}

fn no_prompt() -> ApiError {
    ApiError::bad_request("no_prompt", "No prompt provided").details("No prompt provided")
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::bad_request("invalid_prompt", message)
}

fn raw(value: &impl serde::Serialize) -> Result<Json, ApiError> {
    to_raw_value(value).map_err(ApiError::internal)
}

fn graph(prompt: Option<Value>) -> Result<Map<String, Value>, ApiError> {
    match prompt {
        None | Some(Value::Null) => Err(no_prompt()),
        Some(Value::Object(graph)) if graph.get("nodes").is_some_and(Value::is_array) => {
            Err(invalid("This is a UI workflow; export it in API format (or convert it at /wan-run/convert)"))
        }
        Some(Value::Object(graph)) => Ok(graph),
        Some(Value::Array(list)) if list.is_empty() => Ok(Map::new()),
        Some(_) => Err(invalid("prompt: expected an object from node id to node")),
    }
}

fn prompt_id(id: Option<&Value>) -> Result<String, ApiError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match id {
        None | Some(Value::Null) => Ok(uuid::Uuid::new_v4().hyphenated().to_string()),
        Some(Value::String(id)) if (1..=ID_LIMIT).contains(&id.len()) && id.bytes().all(allowed) => {
            Ok(id.clone())
        }
        Some(_) => {
            let message =
                format!("prompt_id must be 1 to {ID_LIMIT} letters, digits, dots, underscores or hyphens");
            Err(ApiError::bad_request("invalid_prompt_id", message))
        }
    }
}

fn priority(body: &Map<String, Value>) -> Result<Priority, ApiError> {
    let number = match body.get("number") {
        None if body.get("front").is_some_and(truthy) => return Ok(Priority::Front),
        None => return Ok(Priority::Next),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    match number.filter(|number: &f64| number.is_finite()) {
        Some(number) => Ok(Priority::Number(number)),
        None => Err(invalid("number: expected a finite number")),
    }
}

fn targets(value: Option<&Value>) -> Result<Option<Vec<String>>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => {
            Ok(Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
        }
        Some(_) => Err(invalid("partial_execution_targets: expected a list of node ids")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<Submission, String> {
        object(body).and_then(Submission::read).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (body, kind) in [
            (json!(null), "invalid_json"),
            (json!([1]), "no_prompt"),
            (json!({}), "no_prompt"),
            (json!({"prompt": null}), "no_prompt"),
            (json!({"prompt": "x"}), "invalid_prompt"),
            (json!({"prompt": {"nodes": [], "links": []}}), "UI workflow"),
            (json!({"prompt": {}, "number": "x"}), "number"),
            (json!({"prompt": {}, "number": "inf"}), "number"),
            (json!({"prompt": {}, "extra_data": []}), "extra_data"),
            (json!({"prompt": {}, "prompt_id": ""}), "invalid_prompt_id"),
            (json!({"prompt": {}, "prompt_id": "a/b"}), "invalid_prompt_id"),
            (json!({"prompt": {}, "prompt_id": 5}), "invalid_prompt_id"),
            (json!({"prompt": {}, "partial_execution_targets": "54"}), "partial_execution_targets"),
        ] {
            let error = read(body.clone()).expect_err("malformed");
            assert!(error.contains(kind), "{body}: {error}");
        }
    }

    #[test]
    fn places_ids_and_extras_are_read() {
        let read = |body| read(body).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read(json!({"prompt": {}, "number": "-1e3"})).priority, Priority::Number(-1000.0));
        assert_eq!(read(json!({"prompt": {}, "front": true})).priority, Priority::Front);
        assert_eq!(read(json!({"prompt": {}, "front": 1})).priority, Priority::Front);
        assert_eq!(read(json!({"prompt": []})).priority, Priority::Next);
        assert_eq!(read(json!({"prompt": {}, "prompt_id": null})).prompt_id.len(), 36);
        let extra = json!({"api_key_comfy_org": "s", "preview_method": "auto", "x": 1});
        let submission = read(json!({"prompt": {}, "client_id": 7, "extra_data": extra}));
        assert_eq!(json!(submission.extra_data), json!({"preview_method": "auto", "x": 1, "client_id": 7}));
    }
}
