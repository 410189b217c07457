//! From what a graph means to what the worker makes.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;
use wan_media::{Alpha, MediaError, load_image, write_png};
use wan_queue::QueueItem;
use wan_workflow::{self as workflow, Catalog, ImageInput, ModelChoice, Root, Scale, WorkflowJob};

use crate::worker::{Folder, InputImage, JobNode, NodeRef, NodeWork, RenderJob, SaveKind, SaveNode};

/// The worker's job. Names are as of the time at which it was accepted, so that a job that is begun again gets the
/// same ones. Images that the graph changes are written to `work`.
///
/// Errors: an image that is gone or broken since, in one line.
pub(crate) fn render_job(
    job: WorkflowJob,
    item: &QueueItem,
    catalog: &dyn Catalog,
    work: &Path,
) -> Result<RenderJob, String> {
    let file = |image: &Option<ImageInput>, place: &str| {
        let to = |kind: &str| work.join(format!("{kind}{place}.png"));
        image.as_ref().map(|image| image_files(image, catalog, to)).transpose()
    };
    let (image, end_image) = (file(&job.image, "")?, file(&job.end_image, "-end")?);
    let names = Names {
        time: local_time(item.submitted_ms),
        size: (job.request.width as u32, job.request.height as u32),
        first_frame: wants_first_frame(item),
    };
    Ok(RenderJob {
        model: model_name(&job.model),
        request: job.request,
        image,
        end_image,
        alpha: Alpha::Drop,
        nodes: job.nodes.into_iter().map(|node| names.node(node)).collect(),
    })
}

/// Stands for the files that a graph names.
fn model_name(choice: &ModelChoice) -> String {
    let image_encoder = choice.image_encoder.as_ref();
    let files = [Some(&choice.dit), Some(&choice.vae), Some(&choice.text_encoder), image_encoder];
    let names: Vec<&str> = files.into_iter().flatten().map(|file| file.name.as_str()).collect();
    names.join(" + ")
}

/// The image's file, or those below `to` with what the graph makes of it.
fn image_files(
    image: &ImageInput,
    catalog: &dyn Catalog,
    to: impl Fn(&str) -> PathBuf,
) -> Result<InputImage, String> {
    let path =
        catalog.image_path(&image.name).ok_or_else(|| format!("Invalid image file: {}", image.name.path))?;
    // The machine's paths are not for clients.
    let broken = |error: MediaError| match error {
        MediaError::InvalidOption { .. } => format!("{}: {error}", image.name.path),
        error => {
            tracing::warn!(%error, "an input image cannot be used");
            format!("{}: cannot be read or resized, expected an image", image.name.path)
        }
    };
    let file = |kind: &str, scales: &[Scale]| -> Result<PathBuf, String> {
        if scales.is_empty() {
            return Ok(path.clone());
        }
        let file = to(kind);
        let scaled = load_image(&path, Alpha::Drop).and_then(|image| Scale::apply_all(scales, image));
        scaled.and_then(|scaled| write_png(&file, &scaled, None)).map_err(broken)?;
        Ok(file)
    };
    let seen = image.seen_scales.as_ref().map(|scales| file("seen", scales)).transpose()?;
    Ok(InputImage { frame: file("scaled", &image.scales)?, seen })
}

fn local_time(ms: i64) -> DateTime {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::try_from(UNIX_EPOCH).unwrap_or_default());
    time.to_zoned(TimeZone::system()).datetime()
}

/// Video Helper Suite's switch in the workflow that was sent along.
fn wants_first_frame(item: &QueueItem) -> bool {
    let extra: Value = serde_json::from_str(item.extra_data.get()).unwrap_or_default();
    extra.pointer("/extra_pnginfo/workflow/extra/VHS_MetadataImage").and_then(Value::as_bool).unwrap_or(true)
}

/// What names of outputs depend on.
struct Names {
    time: DateTime,
    /// Pixels.
    size: (u32, u32),
    first_frame: bool,
}

impl Names {
    fn node(&self, node: workflow::JobNode) -> JobNode {
        let work = match node.work {
            workflow::NodeWork::Nothing => NodeWork::Nothing,
            workflow::NodeWork::Stages(stages) => NodeWork::Stages(stages),
            workflow::NodeWork::Measure => NodeWork::Measure,
            workflow::NodeWork::Save(save) => NodeWork::Save(self.save(*save)),
        };
        JobNode { node: NodeRef { id: node.id, class_type: node.class_type.to_owned() }, work }
    }

    fn save(&self, save: workflow::SaveNode) -> SaveNode {
        let prefix = save.name(self.time, self.size);
        let kind = match save.kind {
            workflow::SaveKind::Combined { video, format, save_metadata } => SaveKind::Combined {
                video,
                format: format.to_owned(),
                save_metadata,
                first_frame: self.first_frame,
            },
            workflow::SaveKind::Video { video } => SaveKind::Video { video },
            workflow::SaveKind::Frames => SaveKind::Frames,
        };
        let folder = if save.root == Root::Temp { Folder::Temp } else { Folder::Output };
        SaveNode { kind, folder, prefix }
    }
}
