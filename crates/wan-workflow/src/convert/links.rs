//! Where the links of a saved workflow come from, through nodes that exist in the browser alone.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::ConvertError;
use super::subgraphs::{Definition, Definitions, Side};

/// A saved workflow, its subgraphs unfolded.
pub(super) struct Workflow<'a> {
    nodes: Vec<Node<'a>>,
    by_id: HashMap<String, usize>,
    /// Per link: the node and output that it comes from.
    links: HashMap<String, (String, usize)>,
    /// Per subgraph's scope: the node that stands for it.
    instances: HashMap<String, usize>,
}

/// A node of it.
pub(super) struct Node<'a> {
    /// Ids of the subgraphs that it is in, and its own, joined by colons.
    pub id: String,
    pub class: &'a str,
    pub fields: &'a Map<String, Value>,
    /// Values that the node around it holds for it.
    pub promoted: Vec<(&'a str, &'a Value)>,
    /// What stands before the ids of its links and neighbours.
    scope: String,
    subgraph: Option<Definition<'a>>,
    mode: u64,
    order: i64,
}

/// Where a link comes from in the end.
pub(super) enum Origin<'a> {
    /// An output of a node that runs.
    Output(String, usize),
    /// A value that a primitive node, or the node around a subgraph, holds.
    Value(&'a Value),
    /// An input of a subgraph that nothing is linked to: the node's own value holds.
    Open,
}

const MUTED: u64 = 2;
const BYPASSED: u64 = 4;

/// Most nodes of a workflow, those of subgraphs counted wherever they are used.
const MAX_NODES: usize = 10_000;

/// Most links, those of each subgraph for every time that it is used.
const MAX_LINKS: usize = 100_000;

/// Most subgraphs within each other.
const MAX_DEPTH: usize = 32;

/// Most nodes that a link is followed through: more are a circle.
const MAX_HOPS: usize = 1000;

/// Ids are numbers, or text in newer workflows.
pub(super) fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn malformed(place: String, found: &Value, expected: &'static str) -> ConvertError {
    ConvertError::Malformed { place, found: found.to_string().chars().take(80).collect(), expected }
}

fn list<'a>(graph: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    graph.get(key).and_then(Value::as_array).into_iter().flatten()
}

impl<'a> Workflow<'a> {
    pub fn read(workflow: &'a Value) -> Result<Self, ConvertError> {
        let mut whole = Self {
            nodes: Vec::new(),
            by_id: HashMap::new(),
            links: HashMap::new(),
            instances: HashMap::new(),
        };
        whole.add(workflow, "", &[], &Definitions::of(workflow))?;
        Ok(whole)
    }

    /// Takes the nodes of `graph`, in the order in which the browser ran them, each subgraph's behind its own.
    fn add(
        &mut self,
        graph: &'a Value,
        scope: &str,
        promoted: &[(String, &'a str, &'a Value)],
        definitions: &Definitions<'a>,
    ) -> Result<(), ConvertError> {
        if scope.matches(':').count() > MAX_DEPTH {
            return Err(ConvertError::Subgraphs { limit: MAX_DEPTH });
        }
        for (index, link) in list(graph, "links").enumerate() {
            if self.links.len() >= MAX_LINKS {
                return Err(ConvertError::Links { limit: MAX_LINKS });
            }
            let (id, (from, slot)) = read_link(index, link)?;
            self.links.insert(format!("{scope}{id}"), (format!("{scope}{from}"), slot));
        }
        let nodes = list(graph, "nodes").enumerate().map(|(index, node)| Node::read(index, node, scope));
        let mut nodes: Vec<Node<'a>> = nodes.collect::<Result<_, _>>()?;
        nodes.sort_by_key(|node| node.order);
        for mut node in nodes {
            if self.nodes.len() >= MAX_NODES {
                return Err(ConvertError::Nodes { limit: MAX_NODES });
            }
            let own = promoted.iter().filter(|(id, ..)| format!("{scope}{id}") == node.id);
            node.promoted = own.map(|(_, name, value)| (*name, *value)).collect();
            let subgraph = definitions.get(node.class);
            let (id, fields, runs) = (node.id.clone(), node.fields, node.is_on());
            node.subgraph = subgraph;
            self.by_id.insert(id.clone(), self.nodes.len());
            self.instances.insert(format!("{id}:"), self.nodes.len());
            self.nodes.push(node);
            if let Some(definition) = subgraph.filter(|_| runs) {
                self.add(definition.graph, &format!("{id}:"), &definition.promoted(fields), definitions)?;
            }
        }
        Ok(())
    }

    /// Nodes in the order in which the browser ran them.
    pub fn in_order(&self) -> impl Iterator<Item = &Node<'a>> {
        self.nodes.iter()
    }

    /// Where a link of `node` comes from; `None` if it ends at a muted node, in the open, or in a circle.
    pub fn origin(&self, node: &Node<'a>, link: &Value) -> Option<Origin<'a>> {
        let mut link = format!("{}{}", node.scope, id_text(link)?);
        for _ in 0..MAX_HOPS {
            let (id, slot) = self.links.get(&link)?;
            let Some(node) = self.by_id.get(id).map(|index| &self.nodes[*index]) else {
                // Out of the subgraph, by the input of the node that stands for it.
                let (scope, outside) = self.around(id)?;
                let definition = outside.subgraph?;
                if !definition.is_boundary(Side::Inputs, &id[scope.len()..]) {
                    return None;
                }
                let input = definition.outer_input(outside.fields, *slot);
                match input.and_then(|input| input.get("link")).filter(|link| !link.is_null()) {
                    Some(outer) => link = format!("{}{}", outside.scope, id_text(outer)?),
                    None => {
                        let value = definition.held(outside.fields, *slot);
                        return Some(value.map_or(Origin::Open, Origin::Value));
                    }
                }
                continue;
            };
            if let (Some(definition), true) = (node.subgraph, node.is_on()) {
                link = format!("{id}:{}", definition.link_to_output(*slot)?);
                continue;
            }
            let input = match (node.mode, node.class) {
                (MUTED, _) => return None,
                (BYPASSED, _) => node.bypass(*slot)?,
                (_, "Reroute") => node.fields.get("inputs")?.get(0)?,
                (_, "PrimitiveNode") => return node.fields.get("widgets_values")?.get(0).map(Origin::Value),
                _ => return Some(Origin::Output(id.clone(), *slot)),
            };
            link = format!("{}{}", node.scope, id_text(input.get("link")?)?);
        }
        None
    }

    /// The scope that `id` is in, and the node that stands for it.
    fn around<'i>(&self, id: &'i str) -> Option<(&'i str, &Node<'a>)> {
        let scope = &id[..=id.rfind(':')?];
        Some((scope, &self.nodes[*self.instances.get(scope)?]))
    }
}

impl<'a> Node<'a> {
    fn read(index: usize, node: &'a Value, scope: &str) -> Result<Self, ConvertError> {
        let place = || format!("nodes[{index}]");
        let fields = node.as_object().ok_or_else(|| malformed(place(), node, "a node"))?;
        let id = fields.get("id").and_then(id_text);
        let class = fields.get("type").and_then(Value::as_str);
        let (Some(id), Some(class)) = (id, class) else {
            return Err(malformed(place(), node, "a node with `id` and `type`"));
        };
        let mode = fields.get("mode").and_then(Value::as_u64).unwrap_or(0);
        let order = fields.get("order").and_then(Value::as_i64).unwrap_or(i64::MAX);
        let (id, scope) = (format!("{scope}{id}"), scope.to_owned());
        Ok(Self { id, class, fields, promoted: Vec::new(), scope, subgraph: None, mode, order })
    }

    /// Whether it is a node of the graph.
    pub fn runs(&self) -> bool {
        self.is_on() && self.subgraph.is_none()
    }

    fn is_on(&self) -> bool {
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
