//! One node: its links, then its constants.

use serde_json::{Value, json};

use super::InputError;
use super::constants::{Problem, coerce};
use crate::catalog::Catalog;
use crate::graph::{Graph, parse_link};
use crate::object_info::{choices, config};
use crate::python::str;
use crate::table::{Input, Kind, Support};

/// Longest list of choices that errors repeat.
const MAX_LISTED: usize = 20;

/// Everything that is wrong with a node, the nodes it depends on aside. Constants become what the node declares.
pub(super) fn check(graph: &mut Graph, id: &str, catalog: &dyn Catalog) -> Vec<InputError> {
    let Some(class) = graph.class(id) else { return Vec::new() };
    let mut errors = Vec::new();
    for input in class.inputs {
        match graph.value(id, input).cloned() {
            None if input.required => errors.push(InputError::missing(input.name)),
            None => {}
            // As some programs write an input to which nothing is linked.
            Some(Value::Null) if !input.required && matches!(input.kind, Kind::Link(_)) => {}
            Some(value) => match check_input(graph, input, &value, catalog) {
                Ok(Some(coerced)) => {
                    if let Some(there) = graph.value_mut(id, input) {
                        *there = coerced;
                    }
                }
                Ok(None) => {}
                Err(error) => errors.push(error),
            },
        }
    }
    errors
}

/// A constant's new value, if it has one.
fn check_input(
    graph: &Graph,
    input: &Input,
    value: &Value,
    catalog: &dyn Catalog,
) -> Result<Option<Value>, InputError> {
    if value.is_array() {
        return check_link(graph, input, value, catalog).map(|()| None);
    }
    let value = value.get("__value__").unwrap_or(value);
    let choices = choices(input, catalog);
    let value = match input.kind {
        Kind::Model(folders) => {
            let known = value
                .as_str()
                .is_some_and(|name| folders.iter().any(|f| catalog.find_model(*f, name).is_some()));
            let listed = coerce(&input.kind, value, &choices);
            if known {
                value.clone()
            } else {
                listed.map_err(|p| problem(input, value, p, &choices, catalog))?
            }
        }
        _ => coerce(&input.kind, value, &choices).map_err(|p| problem(input, value, p, &choices, catalog))?,
    };
    if let Kind::Image = input.kind {
        let name = value.as_str().and_then(crate::RootedName::parse);
        if name.and_then(|name| catalog.image_path(&name)).is_none() {
            return Err(InputError::refused(input.name, &format!("Invalid image file: {}", str(&value))));
        }
    }
    match input.support {
        Support::Refused(reason) if !is_default(&input.kind, &value) => {
            Err(InputError::refused(input.name, reason))
        }
        _ => Ok(Some(value)),
    }
}

fn is_default(kind: &Kind, value: &Value) -> bool {
    match *kind {
        Kind::Int { default, .. } => value.as_i64() == Some(default),
        Kind::Float { default, .. } => value.as_f64() == Some(default),
        Kind::Bool(default) => value.as_bool() == Some(default),
        Kind::Text { default, .. } | Kind::Choice { default, .. } => value.as_str() == Some(default),
        Kind::Link(_) | Kind::Model(_) | Kind::Image => false,
    }
}

fn check_link(graph: &Graph, input: &Input, value: &Value, catalog: &dyn Catalog) -> Result<(), InputError> {
    let extra =
        || json!({"input_name": input.name, "input_config": config(input, catalog), "received_value": value});
    let bad = || InputError {
        kind: "bad_linked_input",
        message: "Bad linked input, must be a length-2 list of [node_id, slot_index]".into(),
        details: input.name.into(),
        extra_info: Box::new(extra()),
    };
    let (source, slot) = parse_link(value).ok_or_else(bad)?;
    let output = graph.class(source).and_then(|class| class.outputs.get(slot)).ok_or_else(bad)?;
    let wanted = input.kind.type_name();
    if !wanted.split(',').any(|one| one == "*" || one == output.type_name) {
        return Err(InputError {
            kind: "return_type_mismatch",
            message: "Return type mismatch between linked nodes".into(),
            details: format!(
                "{}, received_type({}) mismatch input_type({wanted})",
                input.name, output.type_name
            ),
            extra_info: Box::new(json!({
                "input_name": input.name, "input_config": config(input, catalog),
                "received_type": output.type_name, "linked_node": value,
            })),
        });
    }
    match input.support {
        _ if input.kind.is_widget() => {
            let reason = "a value from another node is not supported; type it in";
            Err(InputError::refused(input.name, reason))
        }
        Support::Refused(reason) => Err(InputError::refused(input.name, reason)),
        _ => Ok(()),
    }
}

fn problem(
    input: &Input,
    value: &Value,
    problem: Problem,
    choices: &[String],
    catalog: &dyn Catalog,
) -> InputError {
    let name = input.name;
    let mut extra =
        json!({"input_name": name, "input_config": config(input, catalog), "received_value": value});
    let (kind, message, details) = match problem {
        Problem::Type(reason) => {
            extra["exception_message"] = json!(reason);
            let message = format!("Failed to convert an input value to a {} value", input.kind.type_name());
            ("invalid_input_type", message, format!("{name}, {}, {reason}", str(value)))
        }
        Problem::TooSmall { value, min } => {
            extra["received_value"] = (*value).clone();
            let message = format!("Value {} smaller than min of {}", str(&value), str(&min));
            ("value_smaller_than_min", message, name.into())
        }
        Problem::TooBig { value, max } => {
            extra["received_value"] = (*value).clone();
            let message = format!("Value {} bigger than max of {}", str(&value), str(&max));
            ("value_bigger_than_max", message, name.into())
        }
        Problem::NotListed => {
            let list = if choices.len() > MAX_LISTED {
                extra["input_config"] = Value::Null;
                format!("(list of length {})", choices.len())
            } else {
                crate::python::repr(&json!(choices))
            };
            let details = format!("{name}: {} not in {list}", crate::python::repr(value));
            ("value_not_in_list", "Value not in list".to_owned(), details)
        }
    };
    InputError { kind, message, details, extra_info: Box::new(extra) }
}
