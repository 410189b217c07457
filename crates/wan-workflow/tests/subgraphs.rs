//! Workflows in UI format that use subgraphs.

use serde_json::{Value, json};
use wan_workflow::{ConvertError, WANX_21_UI, convert};

const INSTANCE: u64 = 99;

fn ui() -> Value {
    serde_json::from_str(WANX_21_UI).unwrap()
}

/// The workflow with some of its nodes in a subgraph.
fn folded(mut ui: Value, ids: &[u64]) -> Value {
    let is_inner = |id: &Value| ids.contains(&id.as_u64().unwrap());
    let (mut nodes, mut links) = (Vec::new(), Vec::new());
    let (mut inner_nodes, mut inner_links) = (Vec::new(), Vec::new());
    let (mut inputs, mut outputs, mut outer_inputs) = (Vec::new(), Vec::new(), Vec::new());
    for node in ui["nodes"].as_array().unwrap() {
        if is_inner(&node["id"]) { inner_nodes.push(node.clone()) } else { nodes.push(node.clone()) }
    }
    let object = |id: &Value, from: Value, slot: Value, to: Value, at: Value| {
        json!({
            "id": id, "origin_id": from, "origin_slot": slot, "target_id": to, "target_slot": at, "type": "*",
        })
    };
    for (index, link) in ui["links"].as_array().unwrap().iter().enumerate() {
        let [id, from, slot, to, at] = [0, 1, 2, 3, 4].map(|field| link[field].clone());
        let new = json!(1000 + index);
        match (is_inner(&from), is_inner(&to)) {
            (false, false) => links.push(link.clone()),
            (true, true) => inner_links.push(object(&id, from, slot, to, at)),
            (false, true) => {
                let (name, place) = (format!("in{index}"), inputs.len());
                outer_inputs.push(json!({"name": name, "type": "*", "link": new}));
                inputs.push(json!({"name": name, "type": "*"}));
                links.push(json!([new, from, slot, INSTANCE, place, "*"]));
                inner_links.push(object(&id, json!(-10), json!(place), to, at));
            }
            (true, false) => {
                let place = outputs.len();
                outputs.push(json!({"name": format!("out{index}"), "type": "*"}));
                links.push(json!([id, INSTANCE, place, to, at, "*"]));
                inner_links.push(object(&new, from, slot, json!(-20), json!(place)));
            }
        }
    }
    // Names decide, not places.
    outer_inputs.reverse();
    nodes.push(json!({"id": INSTANCE, "type": "a-b-c", "order": 3, "mode": 0, "inputs": outer_inputs}));
    ui["nodes"] = nodes.into();
    ui["links"] = links.into();
    ui["definitions"] = json!({"subgraphs": [{
        "id": "a-b-c", "name": "Sampling", "inputNode": {"id": -10}, "outputNode": {"id": -20},
        "inputs": inputs, "outputs": outputs, "nodes": inner_nodes, "links": inner_links,
    }]});
    ui
}

fn node_mut(nodes: &mut Value, id: u64) -> &mut Value {
    nodes.as_array_mut().unwrap().iter_mut().find(|node| node["id"] == id).unwrap()
}

#[test]
fn a_subgraph_means_what_its_nodes_mean() {
    let plain = convert(&ui()).unwrap();
    for ids in [&[49, 45][..], &[52], &[49, 50, 52, 53], &[42, 43, 44, 45, 46, 48, 49, 50, 52, 53, 54]] {
        let graph = convert(&folded(ui(), ids)).unwrap();
        for id in ids {
            assert!(graph[format!("{INSTANCE}:{id}")].is_object(), "{id} in {graph}");
        }
        let unfolded = graph.to_string().replace(&format!("\"{INSTANCE}:"), "\"");
        assert_eq!(serde_json::from_str::<Value>(&unfolded).unwrap(), plain, "{ids:?}");
    }
}

#[test]
fn promoted_values_reach_the_nodes_inside() {
    let mut whole = folded(ui(), &[49, 52]);
    let subgraph = &mut whole["definitions"]["subgraphs"][0];
    let place = subgraph["inputs"].as_array().unwrap().len();
    subgraph["inputs"].as_array_mut().unwrap().push(json!({"name": "how many", "type": "INT"}));
    let link = json!({"id": 77, "origin_id": -10, "origin_slot": place, "target_id": 52, "target_slot": 9, "type": "INT"});
    subgraph["links"].as_array_mut().unwrap().push(link);
    let steps = json!({"name": "steps", "type": "INT", "widget": {"name": "steps"}, "link": 77});
    node_mut(&mut subgraph["nodes"], 52)["inputs"].as_array_mut().unwrap().push(steps);
    let instance = node_mut(&mut whole["nodes"], INSTANCE);
    let outer = json!({"name": "how many", "type": "INT", "widget": {"name": "how many"}, "link": null});
    instance["inputs"].as_array_mut().unwrap().push(outer);

    let own = convert(&whole).unwrap();
    assert_eq!(own["99:52"]["inputs"]["steps"], 10, "nothing is linked, and nothing held");

    let instance = node_mut(&mut whole["nodes"], INSTANCE);
    instance["widgets_values"] = json!([33]);
    assert_eq!(convert(&whole).unwrap()["99:52"]["inputs"]["steps"], 33);

    let instance = node_mut(&mut whole["nodes"], INSTANCE);
    instance["properties"] =
        json!({"proxyWidgets": [["49", "positive_prompt"], ["-1", "how many"], ["49", "nope"]]});
    instance["widgets_values"] = json!(["a wave", 34, 5]);
    let graph = convert(&whole).unwrap();
    assert_eq!(graph["99:52"]["inputs"]["steps"], 34);
    assert_eq!(graph["99:49"]["inputs"]["positive_prompt"], "a wave");
    assert!(graph["99:49"]["inputs"]["nope"].is_null());
}

#[test]
fn muted_subgraphs_are_left_out() {
    let mut whole = folded(ui(), &[49]);
    node_mut(&mut whole["nodes"], INSTANCE)["mode"] = json!(2);
    let graph = convert(&whole).unwrap();
    assert!(graph["99:49"].is_null() && graph["52"]["inputs"]["text_embeds"].is_null(), "{graph}");
}

#[test]
fn subgraphs_without_end_are_refused() {
    let instance = |id: u64| json!({"id": id, "type": "x", "inputs": []});
    let mut whole = json!({"nodes": [instance(1)], "links": [], "definitions": {"subgraphs": [
        {"id": "x", "inputs": [], "outputs": [], "nodes": [instance(1)], "links": []}]}});
    assert!(matches!(convert(&whole), Err(ConvertError::Subgraphs { .. })));
    let wide = |class: &str| (0..200).map(|id| json!({"id": id, "type": class})).collect::<Vec<_>>();
    whole["definitions"] = json!({"subgraphs": [
        {"id": "x", "nodes": wide("y"), "links": []}, {"id": "y", "nodes": wide("z"), "links": []}]});
    assert!(matches!(convert(&whole), Err(ConvertError::Nodes { .. })));
}
