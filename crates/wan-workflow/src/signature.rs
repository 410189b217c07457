//! Which nodes would give the same again.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::catalog::RootedName;
use crate::graph::{Graph, parse_link};
use crate::table::Kind;

/// A hash of each node that `outputs` need: of its class, its constants (undeclared ones too), the contents of its
/// image, and the hashes of the nodes it depends on. Nodes of equal hash give equal results, under whatever id.
///
/// `digest` tells the contents of an image, by any text that differs where they do; `None` if it is gone.
pub fn signatures(
    graph: &Graph,
    outputs: &[String],
    digest: &dyn Fn(&RootedName) -> Option<String>,
) -> BTreeMap<String, [u8; 32]> {
    let mut made: BTreeMap<String, [u8; 32]> = BTreeMap::new();
    for id in graph.reachable(outputs).0 {
        let Some(class) = graph.class(&id) else { continue };
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        add(class.name);
        let inputs = graph.as_json()[&id].get("inputs").and_then(Value::as_object);
        let sorted: BTreeMap<&String, &Value> = inputs.into_iter().flatten().collect();
        for (name, value) in sorted {
            add(name);
            let input = class.input(name);
            // A link counts by what it leads to; an undeclared one is a constant that nobody follows.
            match parse_link(value).and_then(|(source, slot)| Some((input?, made.get(source)?, slot))) {
                Some((_, source, slot)) => {
                    add(&slot.to_string());
                    source.iter().for_each(|byte| add(&byte.to_string()));
                }
                None => add(&value.to_string()),
            }
            if input.is_some_and(|input| matches!(input.kind, Kind::Image)) {
                let contents = value.as_str().and_then(RootedName::parse).and_then(|name| digest(&name));
                add(contents.as_deref().unwrap_or("gone"));
            }
        }
        made.insert(id, hash.finalize().into());
    }
    made
}
