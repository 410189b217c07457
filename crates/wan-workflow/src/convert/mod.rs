//! Workflows as browsers save them, turned into graphs as clients send them: what ComfyUI's front end does in
//! `graphToPrompt`.

mod links;
mod subgraphs;
mod tokens;
mod widgets;

use serde_json::{Map, Value, json};

use crate::table;
use links::{Origin, Workflow};

/// Why a workflow cannot be turned into a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// It is neither a saved workflow nor a graph.
    #[error(
        "not a ComfyUI workflow: found {found}, expected a workflow (with `nodes` and `links`) or a graph in API format"
    )]
    Unknown {
        /// What it is.
        found: &'static str,
    },
    /// A node or link lacks what it should have.
    #[error("{place}: found {found}, expected {expected}")]
    Malformed {
        /// Which one.
        place: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A subgraph that contains itself, or nearly.
    #[error("found more than {limit} subgraphs within each other, expected fewer, and none within itself")]
    Subgraphs {
        /// Most of them.
        limit: usize,
    },
    /// More nodes than anybody draws.
    #[error("found more than {limit} nodes in the workflow and its subgraphs, expected fewer")]
    Nodes {
        /// Most nodes.
        limit: usize,
    },
    /// More links than anybody draws.
    #[error("found more than {limit} links in the workflow and its subgraphs, expected fewer")]
    Links {
        /// Most links.
        limit: usize,
    },
}

/// Nodes that exist in the browser alone.
const VIRTUAL: [&str; 4] = ["Note", "MarkdownNote", "Reroute", "PrimitiveNode"];

/// Whether this is a workflow as browsers save it, rather than a graph.
pub fn is_ui_workflow(value: &Value) -> bool {
    value.get("nodes").is_some_and(Value::is_array) && value.get("links").is_some()
}

/// The graph in API format of a workflow in either format. Nodes of unknown classes are kept for validation to name;
/// their unnamed values are lost.
///
/// Errors: [`ConvertError`].
pub fn convert(workflow: &Value) -> Result<Value, ConvertError> {
    if is_ui_workflow(workflow) {
        return from_ui(workflow);
    }
    match workflow {
        Value::Object(nodes) if nodes.values().any(|node| node.get("class_type").is_some()) => {
            Ok(workflow.clone())
        }
        // A request for `/prompt`, as some tools save it.
        Value::Object(body) if body.get("prompt").is_some_and(Value::is_object) => Ok(body["prompt"].clone()),
        Value::Object(_) => Err(ConvertError::Unknown { found: "an object without nodes" }),
        _ => Err(ConvertError::Unknown { found: "something other than an object" }),
    }
}

fn from_ui(workflow: &Value) -> Result<Value, ConvertError> {
    let workflow = Workflow::read(workflow)?;
    let mut graph = Map::new();
    for node in workflow.in_order().filter(|node| node.runs() && !VIRTUAL.contains(&node.class)) {
        let mut inputs = Map::new();
        if let Some(class) = table::class(node.class) {
            inputs = widgets::values(class, node.fields.get("widgets_values"));
        } else if let Some(Value::Object(values)) = node.fields.get("widgets_values") {
            inputs = values.clone();
        }
        for (name, value) in &node.promoted {
            if let Some(own) = inputs.get_mut(*name) {
                *own = (*value).clone();
            }
        }
        for (name, link) in node.linked_inputs() {
            match workflow.origin(node, link) {
                Some(Origin::Open) => {}
                Some(Origin::Output(id, slot)) => drop(inputs.insert(name.to_owned(), json!([id, slot]))),
                Some(Origin::Value(value)) => drop(inputs.insert(name.to_owned(), value.clone())),
                None => drop(inputs.remove(name)),
            }
        }
        let entry = json!({"inputs": inputs, "class_type": node.class, "_meta": {"title": node.title()}});
        graph.insert(node.id.clone(), entry);
    }
    tokens::expand(&mut graph);
    Ok(Value::Object(graph))
}
