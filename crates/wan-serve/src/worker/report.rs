//! One job's events, in the order in which ComfyUI's clients expect them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use wan_core::progress::{Event as Step, Observer, Stage};

use super::bus::{Bus, JobRef};
use super::event::{Event, NodeProgress, NodeRef, NodeState};
use super::job::{JobNode, NodeWork};
use super::preview::preview_jpeg;

/// Follows the nodes of a job as its stages pass, and says so.
pub(super) struct Reporter<'a> {
    bus: &'a Bus,
    job: &'a JobRef,
    nodes: &'a [JobNode],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The node that runs, or will run next.
    next: usize,
    /// Nodes that have begun; the last one may still run.
    begun: Vec<NodeProgress>,
    executed: Vec<String>,
    outputs: Map<String, Value>,
    meta: Map<String, Value>,
    /// Waits for the step that it belongs to.
    preview: Option<Arc<[u8]>>,
}

/// What was made until a job ended.
pub(super) struct Made {
    /// The node that was running, or would have been next.
    pub node: NodeRef,
    /// Ids of the nodes that had ended.
    pub executed: Vec<String>,
    /// Per node, as in the history.
    pub outputs: Map<String, Value>,
    /// Per node of `outputs`.
    pub meta: Map<String, Value>,
}

impl<'a> Reporter<'a> {
    /// For the nodes of a job, of which the first `cached` need not run.
    pub fn new(bus: &'a Bus, job: &'a JobRef, nodes: &'a [JobNode], cached: usize) -> Self {
        Self { bus, job, nodes, state: Mutex::new(State { next: cached, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever panicked, what was told so far stays true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, event: &Event) {
        self.bus.publish(self.job, event);
    }

    fn publish_progress(&self, state: &State) {
        self.publish(&Event::ProgressState { nodes: state.begun.clone() });
    }

    /// Begins the node whose turn it is among those that are left when the stages are over; also its index.
    pub fn begin_next(&self) -> Option<(usize, &'a JobNode)> {
        let mut state = self.state();
        let node = self.nodes.get(state.next)?;
        self.begin(&mut state, node);
        Some((state.next, node))
    }

    /// The node that runs has ended; `output` is what it has to show.
    pub fn end_current(&self, output: Option<Value>) {
        self.end(&mut self.state(), output);
    }

    /// The node that runs has done `value` of `max` steps.
    pub fn progress(&self, value: usize, max: usize) {
        self.step(&mut self.state(), value, max);
    }

    /// Says again where everything stands: clients take a silent socket for a dead one.
    pub fn repeat(&self) {
        let state = self.state();
        if !state.begun.is_empty() {
            self.publish_progress(&state);
        }
    }

    /// Marks the node that runs as failed.
    pub fn fail(&self) {
        let mut state = self.state();
        if let Some(node) = state.begun.last_mut().filter(|node| node.state == NodeState::Running) {
            node.state = NodeState::Error;
            self.publish_progress(&state);
        }
    }

    /// What was made so far.
    pub fn made(&self) -> Made {
        let state = self.state();
        // Nodes that do nothing do not fail either.
        let works = |node: &&JobNode| !matches!(node.work, NodeWork::Nothing);
        let left = self.nodes.get(state.next..).unwrap_or_default();
        let node = left.iter().find(works).or(self.nodes.last()).map(|n| n.node.clone()).unwrap_or_default();
        Made {
            node,
            executed: state.executed.clone(),
            outputs: state.outputs.clone(),
            meta: state.meta.clone(),
        }
    }

    fn begin(&self, state: &mut State, node: &JobNode) {
        let id = node.node.id.clone();
        if state.begun.last().is_some_and(|n| n.node == id) {
            return;
        }
        state.begun.push(NodeProgress { node: id.clone(), value: 0.0, max: 1.0, state: NodeState::Running });
        self.publish_progress(state);
        self.publish(&Event::Executing { node: Some(id) });
    }

    fn step(&self, state: &mut State, value: usize, max: usize) {
        let preview = state.preview.take();
        let Some(node) = state.begun.last_mut() else { return };
        (node.value, node.max) = (value as f64, max as f64);
        let node = node.node.clone();
        self.publish_progress(state);
        self.publish(&Event::Progress { value, max, node, preview });
    }

    fn end(&self, state: &mut State, output: Option<Value>) {
        let Some(node) = state.begun.last_mut() else { return };
        (node.value, node.state) = (node.max, NodeState::Finished);
        let id = node.node.clone();
        if let Some(output) = output {
            let identity =
                json!({"node_id": id, "display_node": id, "parent_node": null, "real_node_id": id});
            state.meta.insert(id.clone(), identity);
            state.outputs.insert(id.clone(), output.clone());
            self.publish(&Event::Executed { node: id.clone(), output });
        }
        state.executed.push(id);
        state.next += 1;
        self.publish_progress(state);
    }

    fn stages(&self, index: usize) -> &'a [Stage] {
        match self.nodes.get(index).map(|n| &n.work) {
            Some(NodeWork::Stages(stages)) => stages,
            _ => &[],
        }
    }

    /// Begins the node of `stage`, after those before it that do nothing.
    fn enter(&self, stage: Stage) {
        let mut state = self.state();
        while let Some(node) = self.nodes.get(state.next) {
            if self.stages(state.next).contains(&stage) {
                return self.begin(&mut state, node);
            }
            if !matches!(node.work, NodeWork::Nothing) {
                return; // a graph in which no node stands for this stage
            }
            self.begin(&mut state, node);
            self.end(&mut state, None);
        }
    }

    /// Ends the nodes for which `stage` is the last.
    fn leave(&self, stage: Stage) {
        let mut state = self.state();
        while let Some(node) = self.nodes.get(state.next) {
            if self.stages(state.next).last() != Some(&stage) {
                return;
            }
            self.begin(&mut state, node);
            self.end(&mut state, None);
        }
    }

    /// A step of `stage`: where several nodes stand for it, one step each.
    fn on_step(&self, stage: Stage, value: usize, max: usize) {
        let mut state = self.state();
        let next = state.next;
        if !self.stages(next).contains(&stage) {
            return;
        }
        if self.stages(next + 1) == [stage] {
            self.end(&mut state, None);
            self.begin(&mut state, &self.nodes[next + 1]);
        } else if max > 1 && stage != Stage::EncodeText {
            self.step(&mut state, value, max);
        }
    }
}

impl Observer for Reporter<'_> {
    fn on_event(&self, event: &Step<'_>) {
        match *event {
            Step::Started { stage, .. } => self.enter(stage),
            Step::Step { stage, step, total, .. } => self.on_step(stage, step, total),
            Step::Finished { stage, .. } => self.leave(stage),
            Step::Preview { width, height, frames, .. } => {
                self.state().preview = preview_jpeg(width, height, frames).map(Into::into);
            }
            Step::Passes { per_step } => {
                tracing::info!(prompt_id = %self.job.prompt_id, "passes of the model in each step: {per_step:?}");
            }
            Step::Note(note) => tracing::info!(prompt_id = %self.job.prompt_id, "{note}"),
        }
    }

    fn wants_previews(&self) -> bool {
        self.bus.wants_previews(self.job)
    }
}
