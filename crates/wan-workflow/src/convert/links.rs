//! Where the links of a saved workflow come from, through nodes that exist in the browser alone.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::ConvertError;

/// A saved workflow.
pub(super) struct Workflow<'a> {
    nodes: Vec<Node<'a>>,
    by_id: HashMap<String, usize>,
    /// Per link: the node and output that it comes from.
    links: HashMap<String, (String, usize)>,
}

/// A node of it.
pub(super) struct Node<'a> {
    pub id: String,
    pub class: &'a str,
    pub fields: &'a Map<String, Value>,
    mode: u64,
    order: i64,
}

/// Where a link comes from in the end.
pub(super) enum Origin<'a> {
    /// An output of a node that runs.
    Output(String, usize),
    /// A value that a primitive node holds.
    Value(&'a Value),
}

const MUTED: u64 = 2;
const BYPASSED: u64 = 4;

/// Ids are numbers, or text in newer workflows.
fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn malformed(place: String, found: &Value, expected: &'static str) -> ConvertError {
    ConvertError::Malformed { place, found: found.to_string().chars().take(80).collect(), expected }
}

impl<'a> Workflow<'a> {
    pub fn read(workflow: &'a Value) -> Result<Self, ConvertError> {
        let list = |key: &str| workflow.get(key).and_then(Value::as_array).into_iter().flatten();
        let nodes: Vec<Node<'a>> = list("nodes")
            .enumerate()
            .map(|(index, node)| Node::read(index, node))
            .collect::<Result<_, _>>()?;
        let by_id = nodes.iter().enumerate().map(|(index, node)| (node.id.clone(), index)).collect();
        let links = list("links").enumerate().map(|(index, link)| read_link(index, link));
        Ok(Self { by_id, links: links.collect::<Result<_, _>>()?, nodes })
    }

    /// Nodes in the order in which the browser ran them.
    pub fn in_order(&self) -> impl Iterator<Item = &Node<'a>> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by_key(|node| node.order);
        nodes.into_iter()
    }

    /// Where a link comes from; `None` if it ends at a muted node, in the open, or in a circle.
    pub fn origin(&self, link: &Value) -> Option<Origin<'a>> {
        let mut link = id_text(link)?;
        // Each step leads to another node, unless they form a circle.
        for _ in 0..=self.nodes.len() {
            let (id, slot) = self.links.get(&link)?;
            let node = &self.nodes[*self.by_id.get(id)?];
            let input = match (node.mode, node.class) {
                (MUTED, _) => return None,
                (BYPASSED, _) => node.bypass(*slot)?,
                (_, "Reroute") => node.fields.get("inputs")?.get(0)?,
                (_, "PrimitiveNode") => return node.fields.get("widgets_values")?.get(0).map(Origin::Value),
                _ => return Some(Origin::Output(id.clone(), *slot)),
            };
            link = id_text(input.get("link")?)?;
        }
        None
    }
}

impl<'a> Node<'a> {
    fn read(index: usize, node: &'a Value) -> Result<Self, ConvertError> {
        let place = || format!("nodes[{index}]");
        let fields = node.as_object().ok_or_else(|| malformed(place(), node, "a node"))?;
        let id = fields.get("id").and_then(id_text);
        let class = fields.get("type").and_then(Value::as_str);
        let (Some(id), Some(class)) = (id, class) else {
            return Err(malformed(place(), node, "a node with `id` and `type`"));
        };
        let mode = fields.get("mode").and_then(Value::as_u64).unwrap_or(0);
        let order = fields.get("order").and_then(Value::as_i64).unwrap_or(i64::MAX);
        Ok(Self { id, class, fields, mode, order })
    }

    pub fn runs(&self) -> bool {
        self.mode != MUTED && self.mode != BYPASSED
    }

    /// What stands above the node.
    pub fn title(&self) -> &str {
        let display_name = || crate::table::class(self.class).map(|class| class.display_name);
        self.fields.get("title").and_then(Value::as_str).or_else(display_name).unwrap_or(self.class)
    }

    /// Names and links of the inputs that are linked.
    pub fn linked_inputs(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let inputs = self.fields.get("inputs").and_then(Value::as_array);
        inputs.into_iter().flatten().filter_map(|input| {
            let link = input.get("link").filter(|link| !link.is_null())?;
            Some((input.get("name")?.as_str()?, link))
        })
    }

    /// The input that stands for an output while the node is bypassed: the one at the same place, or the first other
    /// one of its type.
    fn bypass(&self, slot: usize) -> Option<&'a Value> {
        let wanted = self.fields.get("outputs")?.get(slot)?.get("type")?;
        let inputs = self.fields.get("inputs")?.as_array()?;
        let fits = |input: &&Value| input.get("type").is_some_and(|kind| kind == wanted || kind == "*");
        inputs.get(slot).filter(fits).or_else(|| inputs.iter().find(fits))
    }
}

/// `[id, from, slot, to, slot, type]`, or an object.
fn read_link(index: usize, link: &Value) -> Result<(String, (String, usize)), ConvertError> {
    let field = |position: usize, name: &str| match link {
        Value::Array(items) => items.get(position),
        other => other.get(name),
    };
    let id = field(0, "id").and_then(id_text);
    let from = field(1, "origin_id").and_then(id_text);
    let slot = field(2, "origin_slot").and_then(Value::as_u64).and_then(|slot| usize::try_from(slot).ok());
    match (id, from, slot) {
        (Some(id), Some(from), Some(slot)) => Ok((id, (from, slot))),
        _ => Err(malformed(format!("links[{index}]"), link, "[id, from, slot, to, slot, type]")),
    }
}
