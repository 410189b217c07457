//! Whether a graph can run, as ComfyUI's `execution.validate_prompt` decides it.

mod constants;
mod error;
mod node;

use std::collections::HashMap;

use serde_json::Value;

use crate::catalog::Catalog;
use crate::graph::Graph;
use crate::job::WorkflowJob;
use crate::translate::{self, Refusal};

pub use error::{InputError, NodeErrors, NodeReport, PromptError};

/// A graph of which something can run.
#[derive(Debug, Clone)]
pub struct Validated {
    /// The graph, its constants made what the nodes declare (`cfg` 6 is 6.0).
    pub graph: Graph,
    /// The output nodes that run, in the graph's order.
    pub outputs: Vec<String>,
    /// What is wrong with the others; empty if nothing is.
    pub node_errors: NodeErrors,
    /// What it means.
    pub job: WorkflowJob,
}

/// Checks a graph in API format and says what it means. With `targets` only these output nodes run.
///
/// Errors: nothing of it can run; [`PromptError::to_json`] is ComfyUI's answer.
pub fn validate(
    prompt: &Value,
    targets: Option<&[String]>,
    catalog: &dyn Catalog,
) -> Result<Validated, PromptError> {
    let mut graph = Graph::parse(prompt)?;
    let is_output = |id: &&str| {
        let ends = graph.class(id).is_some_and(|class| class.output_node);
        ends && targets.is_none_or(|targets| targets.iter().any(|target| target == id))
    };
    let outputs: Vec<String> = graph.ids().filter(is_output).map(str::to_owned).collect();
    if outputs.is_empty() {
        return Err(PromptError::no_outputs());
    }
    let mut checks = Checks { errors: HashMap::new(), sound: HashMap::new() };
    let (order, cycle) = graph.reachable(&outputs);
    if let Some(id) = cycle {
        checks.errors.entry(id.clone()).or_default().push(InputError::cycle(&id));
    }
    for id in &order {
        checks.check(&mut graph, id, catalog);
    }
    let mut node_errors = NodeErrors::default();
    let mut sound = Vec::new();
    for output in &outputs {
        if checks.sound.get(output) == Some(&true) {
            sound.push(output.clone());
            continue;
        }
        for id in graph.reachable(std::slice::from_ref(output)).0 {
            if let Some(errors) = checks.errors.get(&id).filter(|errors| !errors.is_empty()) {
                node_errors.add(&id, class_name(&graph, &id), errors, output);
            }
        }
    }
    let (outputs, job) = jobs(&graph, &sound, catalog, &mut node_errors);
    match job {
        Some(job) => Ok(Validated { graph, outputs, node_errors, job }),
        None => Err(PromptError::outputs_failed(node_errors)),
    }
}

struct Checks {
    errors: HashMap<String, Vec<InputError>>,
    /// Whether a node and all it depends on are right.
    sound: HashMap<String, bool>,
}

impl Checks {
    /// Checks a node whose sources were checked before.
    fn check(&mut self, graph: &mut Graph, id: &str, catalog: &dyn Catalog) {
        let found = node::check(graph, id, catalog);
        let errors = self.errors.entry(id.to_owned()).or_default();
        errors.extend(found);
        // A source that was not checked before is part of a cycle.
        let sources = graph.sources(id);
        let sound = errors.is_empty() && sources.iter().all(|s| self.sound.get(s) == Some(&true));
        self.sound.insert(id.to_owned(), sound);
    }
}

/// Translates the outputs one after another; those that mean the same video as the first share its job.
fn jobs(
    graph: &Graph,
    outputs: &[String],
    catalog: &dyn Catalog,
    node_errors: &mut NodeErrors,
) -> (Vec<String>, Option<WorkflowJob>) {
    let mut meanings = Vec::new();
    for output in outputs {
        let meaning = translate::meaning(graph, output, catalog);
        let agrees = |meaning: &translate::Meaning| match meanings.first() {
            Some((_, first)) if !meaning.same_video(first) => Err(Refusal::another_video(output)),
            _ => Ok(()),
        };
        match meaning.and_then(|meaning| agrees(&meaning).map(|()| meaning)) {
            Ok(meaning) => meanings.push((output.clone(), meaning)),
            Err(refusal) => {
                let class = class_name(graph, &refusal.node);
                let error = InputError::refused(&refusal.input, &refusal.message);
                node_errors.add(&refusal.node, class, &[error], output);
            }
        }
    }
    let (outputs, meanings): (Vec<_>, Vec<_>) = meanings.into_iter().unzip();
    let job = translate::job(graph, &outputs, meanings);
    (outputs, job)
}

fn class_name(graph: &Graph, id: &str) -> &'static str {
    graph.class(id).map_or("", |class| class.name)
}
