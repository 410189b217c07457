//! `%Title.widget%` in the names of outputs, which the browser replaces. Dates are replaced when a job runs.

use serde_json::{Map, Value};

use crate::python::str;

/// Replaces the tokens in every `filename_prefix`.
pub(super) fn expand(graph: &mut Map<String, Value>) {
    let known = graph.clone();
    for node in graph.values_mut() {
        if let Some(Value::String(prefix)) = node.get_mut("inputs").and_then(|i| i.get_mut("filename_prefix"))
        {
            *prefix = replaced(prefix, &known);
        }
    }
}

fn replaced(prefix: &str, graph: &Map<String, Value>) -> String {
    let parts: Vec<&str> = prefix.split('%').collect();
    let mut text = parts[0].to_owned();
    let mut rest = &parts[1..];
    while let [token, after, tail @ ..] = rest {
        match value(token, graph) {
            // As in the browser, nothing that would be a folder or a token again.
            Some(value) => {
                text.push_str(&value.replace(['/', '\\', '%'], "_"));
                text.push_str(after);
                rest = tail;
            }
            None => {
                text.push('%');
                text.push_str(token);
                rest = &rest[1..];
            }
        }
    }
    if let [last] = rest {
        text.push('%');
        text.push_str(last);
    }
    text
}

fn value(token: &str, graph: &Map<String, Value>) -> Option<String> {
    let (title, widget) = token.rsplit_once('.')?;
    let titled = |node: &&Value| {
        let is = |text: Option<&Value>| text.and_then(Value::as_str) == Some(title);
        is(node.get("_meta").and_then(|meta| meta.get("title"))) || is(node.get("class_type"))
    };
    let value = graph.values().find(titled)?.get("inputs")?.get(widget)?;
    (value.is_string() || value.is_number() || value.is_boolean()).then(|| str(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_other_nodes_come_into_names() {
        let graph = json!({
            "1": {"class_type": "KSampler", "inputs": {"seed": 7, "x": ["2", 0]}, "_meta": {"title": "My Sampler"}},
        });
        let graph = graph.as_object().unwrap();
        for (prefix, expected) in [
            ("a_%KSampler.seed%_b", "a_7_b"),
            ("%My Sampler.seed%", "7"),
            ("%date:yyyy%_%KSampler.seed%", "%date:yyyy%_7"),
            ("%KSampler.x%%", "%KSampler.x%%"),
            ("100%", "100%"),
            ("%nope.seed%", "%nope.seed%"),
            ("", ""),
        ] {
            assert_eq!(replaced(prefix, graph), expected, "{prefix}");
        }
    }
}
