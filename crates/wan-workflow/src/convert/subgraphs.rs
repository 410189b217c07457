//! Subgraphs: graphs that a workflow keeps under `definitions`, and uses as nodes whose type is the definition's id
//! (ComfyUI_frontend, `schemas/comfyWorkflowSchema.ts`, subgraphDefinition).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::links::id_text;

/// The subgraphs of a workflow, by id.
pub(super) struct Definitions<'a>(HashMap<&'a str, Definition<'a>>);

/// A subgraph.
#[derive(Clone, Copy)]
pub(super) struct Definition<'a> {
    /// Its nodes and links.
    pub graph: &'a Value,
}

/// A side of a subgraph, whose slots links inside of it come from or go to.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Inputs,
    Outputs,
}

impl Side {
    /// The field with the node for the side, and its id where that is missing.
    fn node(self) -> (&'static str, &'static str) {
        match self {
            Self::Inputs => ("inputNode", "-10"),
            Self::Outputs => ("outputNode", "-20"),
        }
    }
}

/// The node id of promoted values that are the subgraph's own inputs.
const OWN: &str = "-1";

impl<'a> Definitions<'a> {
    pub fn of(workflow: &'a Value) -> Self {
        let list = workflow.pointer("/definitions/subgraphs").and_then(Value::as_array);
        let named = list
            .into_iter()
            .flatten()
            .filter_map(|graph| Some((graph.get("id")?.as_str()?, Definition { graph })));
        Self(named.collect())
    }

    pub fn get(&self, id: &str) -> Option<Definition<'a>> {
        self.0.get(id).copied()
    }
}

impl<'a> Definition<'a> {
    /// Whether links of the subgraph name the outside by `id`.
    pub fn is_boundary(&self, side: Side, id: &str) -> bool {
        let (field, usual) = side.node();
        let named = self.graph.get(field).and_then(|node| id_text(node.get("id")?));
        named.as_deref().unwrap_or(usual) == id
    }

    /// The link inside that ends at an output.
    pub fn link_to_output(&self, slot: usize) -> Option<String> {
        let links = self.graph.get("links")?.as_array()?;
        let ends_there = |link: &&Value| {
            let to = link.get("target_id").and_then(id_text);
            to.is_some_and(|to| self.is_boundary(Side::Outputs, &to))
                && link.get("target_slot").and_then(Value::as_u64) == Some(slot as u64)
        };
        id_text(links.iter().find(ends_there)?.get("id")?)
    }

    /// The input of the node outside that belongs to an input of the subgraph.
    pub fn outer_input(&self, node: &'a Map<String, Value>, slot: usize) -> Option<&'a Value> {
        let name = self.input_name(slot)?;
        let inputs = node.get("inputs")?.as_array()?;
        inputs.iter().find(|input| input.get("name").and_then(Value::as_str) == Some(name))
    }

    /// The value that the node outside holds for an input.
    pub fn held(&self, node: &'a Map<String, Value>, slot: usize) -> Option<&'a Value> {
        let name = self.input_name(slot)?;
        self.values(node).into_iter().find(|(id, of, _)| id == OWN && *of == name).map(|(.., value)| value)
    }

    /// The values that the node outside holds for nodes inside: `(node, input, value)`.
    pub fn promoted(&self, node: &'a Map<String, Value>) -> Vec<(String, &'a str, &'a Value)> {
        self.values(node).into_iter().filter(|(id, ..)| id != OWN).collect()
    }

    fn input_name(&self, slot: usize) -> Option<&'a str> {
        self.graph.get("inputs")?.get(slot)?.get("name")?.as_str()
    }

    /// The node's values, each with what it stands for: as `proxyWidgets` says, or in the order of the inputs that
    /// are widgets.
    fn values(&self, node: &'a Map<String, Value>) -> Vec<(String, &'a str, &'a Value)> {
        let Some(saved) = node.get("widgets_values").and_then(Value::as_array) else { return Vec::new() };
        let proxies = node.get("properties").and_then(|p| p.get("proxyWidgets")?.as_array());
        let names: Vec<Option<(String, &'a str)>> = match proxies {
            Some(proxies) => {
                proxies.iter().map(|proxy| Some((id_text(proxy.get(0)?)?, proxy.get(1)?.as_str()?))).collect()
            }
            None => node
                .get("inputs")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter(|input| input.get("widget").is_some())
                .map(|input| Some((OWN.to_owned(), input.get("name")?.as_str()?)))
                .collect(),
        };
        let pairs = names.into_iter().zip(saved).filter(|(_, value)| !value.is_null());
        pairs.filter_map(|(name, value)| name.map(|(id, name)| (id, name, value))).collect()
    }
}
