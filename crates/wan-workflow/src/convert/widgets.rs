//! The values of a saved node, which are told apart by their position.

use serde_json::{Map, Value, json};

use crate::table::{Input, Kind, NodeClass};

/// What a seed's second value may be: what the browser does with the seed after a run.
const SEED_CONTROL: [&str; 4] = ["fixed", "increment", "decrement", "randomize"];

/// Keys of saved values that are not inputs.
const NOT_SENT: [&str; 2] = ["videopreview", "upload"];

/// The values by name; those that are missing have their defaults.
pub(super) fn values(class: &NodeClass, saved: Option<&Value>) -> Map<String, Value> {
    let mut values = match saved {
        Some(Value::Object(by_name)) => {
            let sent = |(name, _): &(&String, &Value)| !NOT_SENT.contains(&name.as_str());
            by_name.iter().filter(sent).map(|(name, value)| (name.clone(), wrapped(value))).collect()
        }
        Some(Value::Array(by_position)) => by_position_values(class, by_position),
        _ => Map::new(),
    };
    for input in widgets(class) {
        if let Some(default) = default(&input.kind)
            && input.required
        {
            values.entry(input.name).or_insert(default);
        }
    }
    values
}

fn widgets(class: &NodeClass) -> impl Iterator<Item = &'static Input> {
    class.inputs.iter().filter(|input| input.declared && input.kind.is_widget())
}

fn by_position_values(class: &NodeClass, saved: &[Value]) -> Map<String, Value> {
    let mut values = Map::new();
    let mut saved = saved.iter().peekable();
    for input in widgets(class) {
        let Some(value) = saved.next() else { break };
        // Older versions of a node had fewer inputs, and may have left other values behind.
        if input.required || fits(&input.kind, value) {
            values.insert(input.name.to_owned(), wrapped(value));
        }
        let next_is =
            |value: &&Value, known: &[&str]| value.as_str().is_some_and(|text| known.contains(&text));
        if input.seed_control {
            saved.next_if(|value| next_is(value, &SEED_CONTROL));
        }
        if let Kind::Image = input.kind {
            saved.next_if(|value| next_is(value, &["image"]));
        }
    }
    values
}

/// A list as a value would be taken for a link.
fn wrapped(value: &Value) -> Value {
    if value.is_array() { json!({"__value__": value}) } else { value.clone() }
}

fn fits(kind: &Kind, value: &Value) -> bool {
    match kind {
        Kind::Int { .. } | Kind::Float { .. } => value.is_number(),
        Kind::Bool(_) => value.is_boolean(),
        Kind::Choice { options, .. } => value.as_str().is_some_and(|text| options.contains(&text)),
        Kind::Text { .. } | Kind::Model(_) | Kind::Image => value.is_string(),
        Kind::Link(_) => false,
    }
}

fn default(kind: &Kind) -> Option<Value> {
    match *kind {
        Kind::Int { default, .. } => Some(default.into()),
        Kind::Float { default, .. } => Some(default.into()),
        Kind::Bool(default) => Some(default.into()),
        Kind::Text { default, .. } | Kind::Choice { default, .. } => Some(default.into()),
        Kind::Link(_) | Kind::Model(_) | Kind::Image => None,
    }
}
