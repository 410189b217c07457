//! What the worker is asked to make, independent of the graph that it came from.

use std::path::{Path, PathBuf};

use wan_core::progress::Stage;
use wan_media::{Alpha, OutputFormat, VideoOptions};
use wan_pipeline::{Pipeline, PipelineError, Request};
use wan_queue::QueueItem;

use super::event::NodeRef;

/// What the worker needs to know of graphs and models.
pub trait Backend: Send {
    /// The job that a graph describes. Called when the job begins, with a graph that was valid when it was accepted. Images
    /// that the graph changes are written to `work`, a folder of the job's own.
    ///
    /// Errors: the reason in one line, for the client.
    fn job(&self, item: &QueueItem, work: &Path) -> Result<RenderJob, String>;

    /// Opens the model of a job. It stays open for further jobs of the same [`RenderJob::model`].
    ///
    /// Errors: those of [`Pipeline::open`], and of finding its files.
    fn open(&self, job: &RenderJob) -> Result<Pipeline, PipelineError>;

    /// Whether the device that models are opened on answers no more, so that only another process can use it. Asked after
    /// each job that failed.
    fn is_device_lost(&self) -> bool;
}

/// One video, and the outputs made of it.
#[derive(Debug, Clone)]
pub struct RenderJob {
    /// Stands for the model's files: jobs of equal text use the same open pipeline.
    pub model: String,
    /// The video.
    pub request: Request,
    /// The input image.
    pub image: Option<InputImage>,
    /// The image to end with.
    pub end_image: Option<InputImage>,
    /// What becomes of transparent parts of them.
    pub alpha: Alpha,
    /// The graph's nodes that run, in an order in which each comes after those it depends on, and nodes of an
    /// earlier stage before those of a later one.
    pub nodes: Vec<JobNode>,
}

/// The files of an input image.
#[derive(Debug, Clone)]
pub struct InputImage {
    /// The frame of the video.
    pub frame: PathBuf,
    /// What the image encoder sees, where that is another one.
    pub seen: Option<PathBuf>,
}

impl From<PathBuf> for InputImage {
    fn from(frame: PathBuf) -> Self {
        Self { frame, seen: None }
    }
}

/// A node that runs.
#[derive(Debug, Clone)]
pub struct JobNode {
    /// Which one.
    pub node: NodeRef,
    /// What it does.
    pub work: NodeWork,
}

/// What a node does while a job runs.
#[derive(Debug, Clone)]
pub enum NodeWork {
    /// Nothing that takes time: it names files or passes values on.
    Nothing,
    /// It stands for these stages of the pipeline, which follow one another.
    Stages(Vec<Stage>),
    /// It tells the video's number of frames and size, as `81x832x480`.
    Measure,
    /// It makes files of the frames.
    Save(SaveNode),
}

/// Files to be made of the frames.
#[derive(Debug, Clone, PartialEq)]
pub struct SaveNode {
    /// What kind of files.
    pub kind: SaveKind,
    /// Which folder.
    pub folder: Folder,
    /// Start of the name, with folders below it: `vid/x`. Relative and free of `..`.
    pub prefix: String,
}

/// The kinds of files.
#[derive(Debug, Clone, PartialEq)]
pub enum SaveKind {
    /// As `VHS_VideoCombine`: `PREFIX_00001.mp4` with its first frame beside it as a PNG, told under `gifs`.
    Combined {
        /// How it is encoded; [`OutputFormat::Png`] and [`OutputFormat::Rgb`] are none of its formats.
        video: VideoOptions,
        /// The node's name of the format, such as `video/h264-mp4`.
        format: String,
        /// Whether the graph is put into the video.
        save_metadata: bool,
        /// Whether the PNG is written.
        first_frame: bool,
    },
    /// As `SaveVideo`: `PREFIX_00001_.mp4`, told under `images` and `animated`.
    Video {
        /// How it is encoded.
        video: VideoOptions,
    },
    /// As `SaveImage`: each frame a PNG, `PREFIX_00001_.png`, told under `images`.
    Frames,
}

impl SaveKind {
    /// How the files are encoded.
    pub(super) fn video(&self) -> VideoOptions {
        match self {
            Self::Combined { video, .. } | Self::Video { video } => video.clone(),
            Self::Frames => VideoOptions { format: OutputFormat::Png, ..VideoOptions::default() },
        }
    }
}

/// Where clients find an output: ComfyUI's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// To be kept.
    Output,
    /// Emptied at the next start.
    Temp,
}

impl Folder {
    /// ComfyUI's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }
}
