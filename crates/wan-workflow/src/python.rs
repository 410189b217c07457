//! How Python writes values: ComfyUI's error messages contain them so.

use serde_json::Value;

/// Python's `repr`.
pub(crate) fn repr(value: &Value) -> String {
    match value {
        Value::String(text) => repr_str(text),
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let items: Vec<_> = map.iter().map(|(k, v)| format!("{}: {}", repr_str(k), repr(v))).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => str(other),
    }
}

/// Python's `str`.
pub(crate) fn str(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:?}"),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

fn repr_str(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut written = String::from(quote);
    for char in text.chars() {
        match char {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            c if c == quote => written.extend(['\\', c]),
            c if c.is_control() => written.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => written.push(c),
        }
    }
    written.push(quote);
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_look_as_in_python() {
        let value = json!([null, true, 1, 31.0, "it's", "a\"b'c\n", {"k": []}]);
        assert_eq!(repr(&value), r#"[None, True, 1, 31.0, "it's", 'a"b\'c\n', {'k': []}]"#);
        assert_eq!(str(&json!("x")), "x");
    }
}
