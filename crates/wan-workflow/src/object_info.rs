//! `/object_info`: the table as front ends and client libraries read it.

use serde_json::{Map, Value, json};

use crate::catalog::Catalog;
use crate::table::{self, Input, Kind, ModelFolder, NodeClass};

/// All classes by name.
pub fn object_info(catalog: &dyn Catalog) -> Map<String, Value> {
    table::classes().map(|class| (class.name.to_owned(), node_info(class, catalog))).collect()
}

/// One class.
pub fn node_info(class: &NodeClass, catalog: &dyn Catalog) -> Value {
    let (mut input, mut order) = (Map::new(), Map::new());
    for (section, required) in [("required", true), ("optional", false)] {
        let of_section = || class.inputs.iter().filter(|i| i.declared && i.required == required);
        if !required && of_section().next().is_none() {
            continue;
        }
        let configs: Map<_, _> = of_section().map(|i| (i.name.to_owned(), config(i, catalog))).collect();
        input.insert(section.to_owned(), configs.into());
        order.insert(section.to_owned(), of_section().map(|i| i.name).collect());
    }
    if !class.hidden.is_empty() {
        let hidden: Map<_, _> =
            class.hidden.iter().map(|(name, kind)| ((*name).to_owned(), json!(kind))).collect();
        order.insert("hidden".into(), hidden.keys().cloned().collect());
        input.insert("hidden".into(), hidden.into());
    }
    json!({
        "input": input,
        "input_order": order,
        "output": class.outputs.iter().map(|o| o.type_name).collect::<Vec<_>>(),
        "output_is_list": vec![false; class.outputs.len()],
        "output_name": class.outputs.iter().map(|o| o.name).collect::<Vec<_>>(),
        "name": class.name,
        "display_name": class.display_name,
        "description": class.note,
        "python_module": class.python_module,
        "category": class.category,
        "output_node": class.output_node,
    })
}

/// The names that an input with a list may have.
pub(crate) fn choices(input: &Input, catalog: &dyn Catalog) -> Vec<String> {
    match input.kind {
        Kind::Choice { options, .. } => options.iter().map(ToString::to_string).collect(),
        Kind::Model(folders) => listed(folders, catalog),
        Kind::Image => catalog.input_images(),
        _ => Vec::new(),
    }
}

fn listed(folders: &[ModelFolder], catalog: &dyn Catalog) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in folders.iter().flat_map(|folder| catalog.models(*folder)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// `[type, options]`, as `/object_info` and the errors of validation have it.
pub(crate) fn config(input: &Input, catalog: &dyn Catalog) -> Value {
    let mut options = Map::new();
    match input.kind {
        Kind::Int { default, min, max, step } => {
            options.insert("default".into(), default.into());
            options.insert("min".into(), min.into());
            options.extend(max.map(|max| ("max".to_owned(), max.into())));
            if step != 1 {
                options.insert("step".into(), step.into());
            }
        }
        Kind::Float { default, min, max, step } => {
            options.insert("default".into(), default.into());
            options.insert("min".into(), min.into());
            options.extend(max.map(|max| ("max".to_owned(), max.into())));
            options.insert("step".into(), step.into());
        }
        Kind::Bool(default) => drop(options.insert("default".into(), default.into())),
        Kind::Text { default, multiline } => {
            options.insert("default".into(), default.into());
            if multiline {
                options.insert("multiline".into(), true.into());
            }
        }
        Kind::Choice { default, .. } => drop(options.insert("default".into(), default.into())),
        Kind::Image => drop(options.insert("image_upload".into(), true.into())),
        Kind::Link(_) | Kind::Model(_) => {}
    }
    if input.seed_control {
        options.insert("control_after_generate".into(), true.into());
    }
    if !input.tooltip.is_empty() {
        options.insert("tooltip".into(), input.tooltip.into());
    }
    let kind = match input.kind {
        Kind::Choice { .. } | Kind::Model(_) | Kind::Image => choices(input, catalog).into(),
        _ => Value::from(input.kind.type_name()),
    };
    if options.is_empty() { json!([kind]) } else { json!([kind, options]) }
}
