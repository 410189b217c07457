//! What a valid graph means.

use jiff::civil::DateTime;
use wan_core::progress::Stage;
use wan_media::VideoOptions;
use wan_pipeline::Request;

use crate::catalog::Root;
use crate::image_input::ImageInput;
use crate::prefix::FilenamePrefix;
use crate::table::ModelFolder;

/// One video, and what is to be made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowJob {
    /// The video.
    pub request: Request,
    /// The model's files.
    pub model: ModelChoice,
    /// The image to start from; none with a text-to-video graph.
    pub image: Option<ImageInput>,
    /// The image to end with, for models that make what lies between two.
    pub end_image: Option<ImageInput>,
    /// The nodes that run, each after those it depends on and those of an earlier stage.
    pub nodes: Vec<JobNode>,
}

impl WorkflowJob {
    /// The output nodes.
    pub fn saves(&self) -> impl Iterator<Item = (&JobNode, &SaveNode)> {
        self.nodes.iter().filter_map(|node| match &node.work {
            NodeWork::Save(save) => Some((node, save.as_ref())),
            _ => None,
        })
    }
}

/// The files that a graph's loaders name, as the catalog lists them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelChoice {
    /// Diffusion transformer.
    pub dit: ModelFile,
    /// VAE.
    pub vae: ModelFile,
    /// UMT5 encoder.
    pub text_encoder: ModelFile,
    /// CLIP vision encoder; none with a text-to-video graph.
    pub image_encoder: Option<ModelFile>,
}

/// A listed model file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelFile {
    /// The folder that lists it.
    pub folder: ModelFolder,
    /// Its name there.
    pub name: String,
}

/// A node that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct JobNode {
    /// Its id in the graph.
    pub id: String,
    /// Its class.
    pub class_type: &'static str,
    /// What it does.
    pub work: NodeWork,
}

/// What a node does while a job runs.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeWork {
    /// Nothing that takes time: it names files or passes values on.
    Nothing,
    /// It stands for these stages of the pipeline, which follow one another.
    Stages(Vec<Stage>),
    /// It tells the video's number of frames and size: the UI text `81x640x400`.
    Measure,
    /// It makes files of the frames.
    Save(Box<SaveNode>),
}

/// Files to be made of the frames.
#[derive(Debug, Clone, PartialEq)]
pub struct SaveNode {
    /// What kind of files.
    pub kind: SaveKind,
    /// [`Root::Output`] or [`Root::Temp`].
    pub root: Root,
    /// Start of their names.
    pub prefix: FilenamePrefix,
}

impl SaveNode {
    /// Start of the names of files made at `time` of a video of `size` pixels: relative, with `/`, without `..`.
    pub fn name(&self, time: DateTime, size: (u32, u32)) -> String {
        // Video Helper Suite does not know the size when it makes the name.
        let size = if matches!(self.kind, SaveKind::Combined { .. }) { (0, 0) } else { size };
        self.prefix.expand(time, size)
    }
}

/// The kinds of files.
#[derive(Debug, Clone, PartialEq)]
pub enum SaveKind {
    /// As `VHS_VideoCombine`: `PREFIX_00001.mp4` with its first frame beside it as a PNG, told under `gifs`.
    Combined {
        /// How it is encoded; ping-pong and loops included.
        video: VideoOptions,
        /// The node's name of the format, such as `video/h264-mp4`.
        format: &'static str,
        /// Whether the graph is put into the video.
        save_metadata: bool,
    },
    /// As `SaveVideo` and `SaveAnimatedWEBP`: `PREFIX_00001_.mp4`, told under `images` and `animated`.
    Video {
        /// How it is encoded.
        video: VideoOptions,
    },
    /// As `SaveImage`: each frame a PNG, `PREFIX_00001_.png`, told under `images`.
    Frames,
}
