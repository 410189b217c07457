//! From a graph whose nodes are right one by one to what it means as a whole.

mod encode;
mod read;
mod sample;
mod save;

use std::collections::HashMap;

use wan_core::progress::Stage;
use wan_pipeline::Request;

use crate::catalog::Catalog;
use crate::graph::Graph;
use crate::image_input::ImageInput;
use crate::job::{JobNode, ModelChoice, NodeWork, SaveNode, WorkflowJob};
use read::Reader;

/// Why a graph has no meaning here, told of the input of a node.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub node: String,
    pub input: String,
    pub message: String,
}

impl Refusal {
    pub fn another_video(output: &str) -> Self {
        Self {
            node: output.to_owned(),
            input: String::new(),
            message:
                "this output is of another video than the first one; queue each video as a prompt of its own"
                    .into(),
        }
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// What one output node means.
#[derive(Debug)]
pub(crate) struct Meaning {
    video: Video,
    save: SaveNode,
}

impl Meaning {
    /// Whether both are made of the same frames.
    pub fn same_video(&self, other: &Self) -> bool {
        self.video == other.video
    }
}

/// A video, and the nodes that stand for its stages.
#[derive(Debug, PartialEq)]
struct Video {
    request: Request,
    model: ModelChoice,
    image: Option<ImageInput>,
    end_image: Option<ImageInput>,
    stages: HashMap<String, Vec<Stage>>,
}

/// What the output node `output` means.
pub(crate) fn meaning(graph: &Graph, output: &str, catalog: &dyn Catalog) -> Result<Meaning> {
    let reader = Reader { graph, catalog };
    let (save, decoder) = save::output(&reader, output)?;
    Ok(Meaning { video: sample::video(&reader, &decoder)?, save })
}

/// The job of all outputs, whose meanings are of the same video; `None` if there is none.
pub(crate) fn job(graph: &Graph, outputs: &[String], meanings: Vec<Meaning>) -> Option<WorkflowJob> {
    let mut saves = HashMap::new();
    let mut video = None;
    for (output, meaning) in outputs.iter().zip(meanings) {
        saves.insert(output.clone(), meaning.save);
        video.get_or_insert(meaning.video);
    }
    let Video { request, model, image, end_image, mut stages } = video?;
    let node = |id: String| {
        let class = graph.class(&id)?;
        let work = match (saves.remove(&id), stages.remove(&id)) {
            (Some(save), _) => NodeWork::Save(Box::new(save)),
            (None, Some(stages)) => NodeWork::Stages(stages),
            (None, None) if class.name == "GetImageSizeAndCount" => NodeWork::Measure,
            (None, None) => NodeWork::Nothing,
        };
        Some(JobNode { id, class_type: class.name, work })
    };
    let mut nodes: Vec<JobNode> = graph.reachable(outputs).0.into_iter().filter_map(node).collect();
    order_by_stage(graph, &mut nodes);
    Some(WorkflowJob { request, model, image, end_image, nodes })
}

/// Nodes of an earlier stage come first. A node that stands for none belongs to the latest of those it depends on.
fn order_by_stage(graph: &Graph, nodes: &mut [JobNode]) {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for node in nodes.iter() {
        let own = match &node.work {
            NodeWork::Nothing => 0,
            NodeWork::Stages(stages) => stages.last().map_or(0, |stage| 1 + *stage as usize),
            NodeWork::Measure | NodeWork::Save(_) => 1 + Stage::Encode as usize,
        };
        let before = graph.sources(&node.id).iter().filter_map(|s| ranks.get(s)).max().copied();
        ranks.insert(node.id.clone(), own.max(before.unwrap_or(0)));
    }
    nodes.sort_by_key(|node| ranks.get(&node.id).copied());
}
