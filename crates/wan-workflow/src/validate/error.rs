//! What clients are told about graphs that cannot run, in ComfyUI's words.

use serde_json::{Map, Value, json};

/// Why nothing of a prompt can run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct PromptError {
    /// ComfyUI's name of the kind.
    pub kind: &'static str,
    /// One line.
    pub message: String,
    /// What exactly; a line for each error of a node.
    pub details: String,
    /// Values that belong to it, an object.
    pub extra_info: Box<Value>,
    /// The nodes at fault.
    pub node_errors: NodeErrors,
}

impl PromptError {
    /// An error without nodes.
    pub fn new(kind: &'static str, message: impl Into<String>, details: impl Into<String>) -> Self {
        let (message, details) = (message.into(), details.into());
        Self { kind, message, details, extra_info: Box::new(json!({})), node_errors: NodeErrors::default() }
    }

    /// There is no graph.
    pub fn no_prompt() -> Self {
        Self::new("no_prompt", "No prompt provided", "No prompt provided")
    }

    pub(crate) fn no_outputs() -> Self {
        Self::new("prompt_no_outputs", "Prompt has no outputs", "")
    }

    pub(crate) fn invalid(message: impl Into<String>, details: impl Into<String>) -> Self {
        Self::new("invalid_prompt", message, details)
    }

    /// `node` is its id, class and title.
    pub(crate) fn missing_node_type(
        message: String,
        details: String,
        (id, class, title): (&str, Option<&str>, Option<&str>),
    ) -> Self {
        let extra_info = json!({"node_id": id, "class_type": class, "node_title": title.or(class)});
        Self { extra_info: Box::new(extra_info), ..Self::new("missing_node_type", message, details) }
    }

    /// With a line for each error: some clients show nothing but this.
    pub(crate) fn outputs_failed(node_errors: NodeErrors) -> Self {
        let details = node_errors.lines().join("\n");
        let kind = "prompt_outputs_failed_validation";
        Self { node_errors, ..Self::new(kind, "Prompt outputs failed validation", details) }
    }

    /// The answer to `POST /prompt`: `{"error": {...}, "node_errors": {...}}`.
    pub fn to_json(&self) -> Value {
        json!({
            "error": {
                "type": self.kind, "message": self.message, "details": self.details, "extra_info": self.extra_info,
            },
            "node_errors": self.node_errors.to_json(),
        })
    }
}

/// The nodes at fault, in the order in which they would run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeErrors(Vec<(String, NodeReport)>);

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReport {
    /// All of it.
    pub errors: Vec<InputError>,
    /// The output nodes that cannot run because of it.
    pub dependent_outputs: Vec<String>,
    /// Its class.
    pub class_type: &'static str,
}

impl NodeErrors {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nodes by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &NodeReport)> {
        self.0.iter().map(|(id, report)| (id.as_str(), report))
    }

    /// What is wrong with a node.
    pub fn get(&self, id: &str) -> Option<&NodeReport> {
        self.iter().find_map(|(of, report)| (of == id).then_some(report))
    }

    /// One line for each error, naming node, input and reason.
    pub fn lines(&self) -> Vec<String> {
        let of_node = |(id, report): (&str, &NodeReport)| -> Vec<String> {
            let line = |e: &InputError| format!("{} {id}: {}: {}", report.class_type, e.message, e.details);
            report.errors.iter().map(line).collect()
        };
        self.iter().flat_map(of_node).collect()
    }

    /// As in ComfyUI's answers.
    pub fn to_json(&self) -> Value {
        let node = |(id, report): (&str, &NodeReport)| {
            let errors: Vec<Value> = report.errors.iter().map(InputError::to_json).collect();
            let (outputs, class) = (&report.dependent_outputs, report.class_type);
            (id.to_owned(), json!({"errors": errors, "dependent_outputs": outputs, "class_type": class}))
        };
        self.iter().map(node).collect::<Map<_, _>>().into()
    }

    pub(crate) fn add(&mut self, id: &str, class_type: &'static str, errors: &[InputError], output: &str) {
        let position = self.0.iter().position(|(of, _)| of == id).unwrap_or_else(|| {
            let report = NodeReport { errors: Vec::new(), dependent_outputs: Vec::new(), class_type };
            self.0.push((id.to_owned(), report));
            self.0.len() - 1
        });
        let report = &mut self.0[position].1;
        for error in errors {
            if !report.errors.contains(error) {
                report.errors.push(error.clone());
            }
        }
        if !report.dependent_outputs.iter().any(|there| there == output) {
            report.dependent_outputs.push(output.to_owned());
        }
    }
}

/// What is wrong with an input.
#[derive(Debug, Clone, PartialEq)]
pub struct InputError {
    /// ComfyUI's name of the kind.
    pub kind: &'static str,
    /// One line.
    pub message: String,
    /// The input, and what exactly.
    pub details: String,
    /// Values that belong to it, an object.
    pub extra_info: Box<Value>,
}

impl InputError {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "type": self.kind, "message": self.message, "details": self.details, "extra_info": self.extra_info,
        })
    }

    /// Something that ComfyUI's nodes check themselves, or that is not supported here.
    pub(crate) fn refused(input: &str, reason: &str) -> Self {
        Self {
            kind: "custom_validation_failed",
            message: "Custom validation failed for node".into(),
            details: if input.is_empty() { reason.to_owned() } else { format!("{input} - {reason}") },
            extra_info: Box::new(json!({"input_name": input})),
        }
    }

    pub(crate) fn missing(input: &str) -> Self {
        Self {
            kind: "required_input_missing",
            message: "Required input is missing".into(),
            details: input.into(),
            extra_info: Box::new(json!({"input_name": input})),
        }
    }

    pub(crate) fn cycle(id: &str) -> Self {
        Self {
            kind: "dependency_cycle",
            message: "Dependency cycle detected".into(),
            details: format!("node {id} depends on its own output"),
            extra_info: Box::new(json!({"node_id": id})),
        }
    }
}
