//! ComfyUI graphs: what they may contain, whether they are right, and what they mean.
//!
//! A client sends a graph in ComfyUI's API format. [`validate`] checks it as ComfyUI does, with the same errors, and
//! returns it with a [`WorkflowJob`]: one typed request to the pipeline and the outputs to be made of its video. The
//! nodes are [`table`]; from it come the checks, [`object_info`] and the conversion of workflows that a browser saved
//! ([`convert`]). What lies outside of a graph, the files of models and images, a [`Catalog`] tells; [`Library`] is
//! one over folders.
//!
//! Nothing here runs a job, opens a model or writes a file.

pub mod catalog;
mod convert;
mod graph;
mod image_input;
mod job;
mod library;
mod object_info;
mod prefix;
mod python;
mod signature;
pub mod table;
mod translate;
mod validate;

pub use catalog::{Catalog, Root, RootedName};
pub use convert::{ConvertError, convert, is_ui_workflow};
pub use graph::Graph;
pub use image_input::{ImageInput, Scale};
pub use job::{JobNode, ModelChoice, ModelFile, NodeWork, SaveKind, SaveNode, WorkflowJob};
pub use library::Library;
pub use object_info::{node_info, object_info};
pub use prefix::{FilenamePrefix, PrefixError};
pub use signature::signatures;
pub use validate::{InputError, NodeErrors, NodeReport, PromptError, Validated, validate};

/// The image-to-video workflow as ComfyUI's front end saves it, named `wanx-21.json`.
pub const WANX_21_UI: &str = include_str!("../../../workflows/wanx-21.json");

/// The same workflow in API format.
pub const WANX_21_API: &str = include_str!("../../../workflows/wanx-21.api.json");
