//! Reading a component's configuration: a JSON file, the `config` entry of a safetensors header, or the
//! tensors' shapes, in this order.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result, WeightSet};

/// Key of the header metadata under which a weights file may carry its configuration as JSON text.
pub const METADATA_KEY: &str = "config";

/// Reads `T` from `file`, else from the header of `weights`, else `T::default()` (all fields unknown, to be
/// filled from the shapes).
///
/// A file of the user's must not hold keys that `T` does not know, since a misspelt key would silently be
/// ignored; the header of somebody else's weights may.
///
/// Errors: [`Error::Io`], or [`Error::Invalid`] naming the file and key.
pub fn read<T>(file: Option<&Path>, weights: &WeightSet) -> Result<T>
where
    T: DeserializeOwned + Serialize + Default,
{
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let label = path.display().to_string();
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(format!("config {label}"), e, "a JSON object"))?;
        reject_unknown_keys::<T>(&label, &value)?;
        return parse(&label, value);
    }
    match weights.metadata().get(METADATA_KEY) {
        Some(text) => {
            let label = format!("{} (header metadata `{METADATA_KEY}`)", weights.label());
            let value = serde_json::from_str(text).map_err(|e| Error::invalid(&label, e, "a JSON object"))?;
            parse(&label, value)
        }
        None => Ok(T::default()),
    }
}

fn parse<T: DeserializeOwned>(label: &str, value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|e| Error::invalid(format!("config {label}"), e, "the documented keys"))
}

fn reject_unknown_keys<T: Serialize + Default>(label: &str, value: &Value) -> Result<()> {
    let known = serde_json::to_value(T::default()).ok();
    let known: Vec<&String> =
        known.as_ref().and_then(Value::as_object).map(|o| o.keys().collect()).unwrap_or_default();
    let Some(found) = value.as_object() else {
        return Err(Error::invalid(format!("config {label}"), value, "a JSON object"));
    };
    match found.keys().find(|k| !known.contains(k)) {
        Some(key) => {
            let known = known.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ");
            Err(Error::invalid(format!("config {label}"), format!("key `{key}`"), format!("one of {known}")))
        }
        None => Ok(()),
    }
}
