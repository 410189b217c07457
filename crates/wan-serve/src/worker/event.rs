//! What a job tells its client while it runs, and the JSON that ComfyUI's clients expect of it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The worker has taken it.
    ExecutionStart {
        /// Milliseconds since 1970.
        timestamp: u64,
    },
    /// Nodes whose results were there already.
    ExecutionCached {
        /// Their ids.
        nodes: Vec<String>,
        /// Milliseconds since 1970.
        timestamp: u64,
    },
    /// A node begins; `None` once, at the very end of the job.
    Executing {
        /// Its id.
        node: Option<String>,
    },
    /// Where every node stands that is not pending; also repeated while a step takes long.
    ProgressState {
        /// The nodes, in the order in which they began.
        nodes: Vec<NodeProgress>,
    },
    /// A step of a node is done.
    Progress {
        /// Steps done, from 1.
        value: usize,
        /// Steps in all.
        max: usize,
        /// The node.
        node: String,
        /// What the sampler has so far: a JPEG of at most 512 pixels a side, for clients that asked for previews.
        preview: Option<Arc<[u8]>>,
    },
    /// A node has made something to show.
    Executed {
        /// The node.
        node: String,
        /// What, as in the history: `{"gifs": [...]}`.
        output: Value,
    },
    /// The job has ended well, and is in the history.
    ExecutionSuccess {
        /// Milliseconds since 1970.
        timestamp: u64,
    },
    /// The job has failed, and is in the history.
    ExecutionError(Box<Failure>),
    /// The job was stopped on request, and is in the history.
    ExecutionInterrupted {
        /// The node that was running.
        node: NodeRef,
        /// Nodes that had ended.
        executed: Vec<String>,
        /// Milliseconds since 1970.
        timestamp: u64,
    },
}

/// A node and its class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRef {
    /// Id in the graph.
    pub id: String,
    /// Class name.
    pub class_type: String,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The node that was running.
    pub node: NodeRef,
    /// What went wrong, in one line.
    pub message: String,
    /// Kind of the error, such as `PipelineError`; out of memory has the name that clients look for.
    pub kind: String,
    /// Nodes that had ended.
    pub executed: Vec<String>,
    /// Milliseconds since 1970.
    pub timestamp: u64,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeProgress {
    /// Its id.
    pub node: String,
    /// Steps done.
    pub value: f64,
    /// Steps in all.
    pub max: f64,
    /// Whether it runs or has ended.
    pub state: NodeState,
}

/// The states of a node that clients hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It runs.
    Running,
    /// It has ended.
    Finished,
    /// It has failed.
    Error,
}

impl NodeState {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Error => "error",
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}

impl Event {
    /// ComfyUI's name of the message.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ExecutionStart { .. } => "execution_start",
            Self::ExecutionCached { .. } => "execution_cached",
            Self::Executing { .. } => "executing",
            Self::ProgressState { .. } => "progress_state",
            Self::Progress { .. } => "progress",
            Self::Executed { .. } => "executed",
            Self::ExecutionSuccess { .. } => "execution_success",
            Self::ExecutionError(_) => "execution_error",
            Self::ExecutionInterrupted { .. } => "execution_interrupted",
        }
    }

    /// The message's data for the job `prompt_id`.
    pub fn data(&self, prompt_id: &str) -> Value {
        match self {
            Self::ExecutionStart { timestamp } | Self::ExecutionSuccess { timestamp } => {
                json!({"prompt_id": prompt_id, "timestamp": timestamp})
            }
            Self::ExecutionCached { nodes, timestamp } => {
                json!({"nodes": nodes, "prompt_id": prompt_id, "timestamp": timestamp})
            }
            Self::Executing { node: None } => json!({"node": null, "prompt_id": prompt_id}),
            Self::Executing { node } => json!({"node": node, "display_node": node, "prompt_id": prompt_id}),
            Self::ProgressState { nodes } => {
                let nodes: Map<String, Value> =
                    nodes.iter().map(|node| (node.node.clone(), node.json(prompt_id))).collect();
                json!({"prompt_id": prompt_id, "nodes": nodes})
            }
            Self::Progress { value, max, node, .. } => {
                json!({"value": value, "max": max, "prompt_id": prompt_id, "node": node})
            }
            Self::Executed { node, output } => {
                json!({"node": node, "display_node": node, "output": output, "prompt_id": prompt_id})
            }
            Self::ExecutionError(failure) => failure.json(prompt_id),
            Self::ExecutionInterrupted { node, executed, timestamp } => json!({
                "prompt_id": prompt_id, "node_id": node.id, "node_type": node.class_type,
                "executed": executed, "timestamp": timestamp,
            }),
        }
    }

    /// The text frame: `{"type": name, "data": data}`.
    pub fn message(&self, prompt_id: &str) -> Value {
        json!({"type": self.name(), "data": self.data(prompt_id)})
    }
}

impl NodeProgress {
    fn json(&self, prompt_id: &str) -> Value {
        json!({
            "value": self.value, "max": self.max, "state": self.state.name(),
            "node_id": self.node, "prompt_id": prompt_id, "display_node_id": self.node,
            "parent_node_id": null, "real_node_id": self.node,
        })
    }
}

impl Failure {
    /// Without a traceback and without the node's inputs, which would tell clients about each other's files.
    fn json(&self, prompt_id: &str) -> Value {
        json!({
            "prompt_id": prompt_id, "node_id": self.node.id, "node_type": self.node.class_type,
            "executed": self.executed, "exception_message": format!("{}\n", self.message),
            "exception_type": self.kind, "traceback": [], "current_inputs": {}, "current_outputs": self.executed,
            "timestamp": self.timestamp,
        })
    }
}
