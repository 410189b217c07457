//! A graph in ComfyUI's API format.

use serde_json::{Map, Value};

use crate::python::repr;
use crate::table::{self, Input, NodeClass};
use crate::validate::PromptError;

/// Nodes by id, in the order in which they were sent, each of a known class. Everything else is as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph(Map<String, Value>);

/// A link: the id of a node and the number of one of its outputs.
pub(crate) type Link = (String, usize);

impl Graph {
    /// Reads a graph.
    ///
    /// Errors: no graph at all, a workflow in the format that browsers save, a node that is none or of no known class.
    pub fn parse(prompt: &Value) -> Result<Self, PromptError> {
        if crate::is_ui_workflow(prompt) {
            return Err(PromptError::invalid(
                "this is a UI workflow; export it in API format (Workflow > Export (API))",
                "found the keys `nodes` and `links`, expected node ids",
            ));
        }
        let nodes = match prompt {
            Value::Null => return Err(PromptError::no_prompt()),
            Value::Object(nodes) => nodes.clone(),
            Value::Array(items) if items.is_empty() => Map::new(),
            other => {
                let found = format!("found {}, expected an object of nodes", kind_of(other));
                return Err(PromptError::invalid("The prompt is not a graph", found));
            }
        };
        nodes.iter().try_for_each(|(id, node)| check_node(id, node))?;
        Ok(Self(nodes))
    }

    /// The graph as JSON.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The nodes' ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there is such a node.
    pub fn contains(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// The class of a node that is there.
    pub fn class(&self, id: &str) -> Option<&'static NodeClass> {
        table::class(self.0.get(id)?.get("class_type")?.as_str()?)
    }

    /// A node's title, else its class.
    pub fn title(&self, id: &str) -> String {
        let title = self.0.get(id).and_then(|node| node.get("_meta")?.get("title")?.as_str());
        title.map(str::to_owned).or_else(|| Some(self.class(id)?.name.to_owned())).unwrap_or_default()
    }

    /// What a node has as this input, by its name or one of its aliases.
    pub(crate) fn value(&self, id: &str, input: &Input) -> Option<&Value> {
        let inputs = self.0.get(id)?.get("inputs")?;
        inputs.get(input.name).or_else(|| input.aliases.iter().find_map(|alias| inputs.get(alias)))
    }

    pub(crate) fn value_mut(&mut self, id: &str, input: &Input) -> Option<&mut Value> {
        let inputs = self.0.get_mut(id)?.get_mut("inputs")?.as_object_mut()?;
        let name =
            std::iter::once(&input.name).chain(input.aliases).find(|name| inputs.contains_key(**name))?;
        inputs.get_mut(*name)
    }

    /// The link of an input, if it has one that leads to an output.
    pub(crate) fn link(&self, id: &str, input: &Input) -> Option<Link> {
        let (source, slot) = parse_link(self.value(id, input)?)?;
        let class = self.class(source)?;
        (slot < class.outputs.len()).then(|| (source.to_owned(), slot))
    }

    /// The nodes that a node's declared inputs come from, in the inputs' order.
    pub(crate) fn sources(&self, id: &str) -> Vec<String> {
        let Some(class) = self.class(id) else { return Vec::new() };
        class.inputs.iter().filter_map(|input| Some(self.link(id, input)?.0)).collect()
    }

    /// The nodes that these depend on, themselves included, each after those it depends on; and one that depends on
    /// itself, if there is one.
    pub(crate) fn reachable(&self, from: &[String]) -> (Vec<String>, Option<String>) {
        use std::collections::HashMap;
        let mut open: HashMap<String, bool> = HashMap::new();
        let (mut order, mut cycle) = (Vec::new(), None);
        for root in from {
            let mut stack = vec![(root.clone(), false)];
            while let Some((id, left)) = stack.pop() {
                if left {
                    open.insert(id.clone(), false);
                    order.push(id);
                    continue;
                }
                match open.get(&id) {
                    Some(true) => cycle = cycle.or(Some(id)),
                    Some(false) => {}
                    None => {
                        open.insert(id.clone(), true);
                        let sources = self.sources(&id);
                        stack.push((id, true));
                        stack.extend(sources.into_iter().rev().map(|source| (source, false)));
                    }
                }
            }
        }
        (order, cycle)
    }
}

/// A value of the form `["id", slot]`.
pub(crate) fn parse_link(value: &Value) -> Option<(&str, usize)> {
    match value.as_array()?.as_slice() {
        [Value::String(id), Value::Number(slot)] => Some((id, usize::try_from(slot.as_u64()?).ok()?)),
        _ => None,
    }
}

fn check_node(id: &str, node: &Value) -> Result<(), PromptError> {
    let details = format!("Node ID '#{id}'");
    let Some(fields) = node.as_object() else {
        let message = format!("Node #{id} is not an object");
        return Err(PromptError::invalid(message, format!("{details}: found {}", kind_of(node))));
    };
    let title = fields.get("_meta").and_then(|meta| meta.get("title")?.as_str());
    let Some(class) = fields.get("class_type").and_then(Value::as_str) else {
        let named = title.map_or_else(|| format!("ID #{id}"), str::to_owned);
        let message =
            format!("Node '{named}' has no class_type. The workflow may be corrupted or not in API format.");
        return Err(PromptError::missing_node_type(message, details, (id, None, title)));
    };
    if table::class(class).is_none() {
        let message =
            format!("Node '{}' not found. The custom node may not be installed.", title.unwrap_or(class));
        return Err(PromptError::missing_node_type(message, details, (id, Some(class), title)));
    }
    match fields.get("inputs") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(other) => {
            let found = format!("{details}: inputs: found {}, expected an object", repr(other));
            Err(PromptError::invalid(format!("The inputs of node #{id} are not an object"), found))
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
