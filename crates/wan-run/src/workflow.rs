//! `--workflow FILE`: a ComfyUI graph's values as options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use wan_media::{OutputFormat, VideoOptions};
use wan_models::Registry;
use wan_workflow::table::ModelFolder;
use wan_workflow::{
    Catalog, ImageInput, InputError, JobNode, ModelFile, NodeErrors, NodeReport, Root, RootedName, SaveKind,
    SaveNode, WorkflowJob, convert, validate,
};

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::progress::Reporter;
use crate::record::of_request;
use crate::settings::Settings;
use crate::target::Further;

/// Names are taken as they are: which files they mean is settled later, by `--model` and the places of models.
struct Names<'a> {
    folder: &'a Path,
    /// Whether an image may be named elsewhere: which of them is, is known once the graph is.
    image_given: bool,
}

impl Catalog for Names<'_> {
    fn models(&self, _: ModelFolder) -> Vec<String> {
        Vec::new()
    }

    fn input_images(&self) -> Vec<String> {
        Vec::new()
    }

    fn image_path(&self, name: &RootedName) -> Option<PathBuf> {
        let path = self.folder.join(&name.path);
        (self.image_given || path.is_file()).then_some(path)
    }

    fn model_path(&self, _: ModelFolder, name: &str) -> Option<PathBuf> {
        Some(PathBuf::from(name))
    }

    fn find_model(&self, _: ModelFolder, name: &str) -> Option<String> {
        (!name.is_empty()).then(|| name.replace('\\', "/"))
    }
}

/// `args` with what they leave out taken from the workflow that they name, if they name one.
///
/// Errors: exit 2 for a file that is no workflow, or one that cannot run here, naming the node.
pub fn apply(args: GenerateArgs, reporter: &Reporter) -> Outcome<GenerateArgs> {
    let Some(path) = args.workflow.clone() else { return Ok(args) };
    let failed = |reason: String| Failure::usage(format!("workflow {}: {reason}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
    let workflow = serde_json::from_str(&text).map_err(|e| failed(format!("not JSON: {e}")))?;
    let graph = convert(&workflow).map_err(|e| failed(e.to_string()))?;
    unknown_nodes(&graph).map_or(Ok(()), |reason| Err(failed(reason)))?;
    let names = Names {
        folder: path.parent().unwrap_or(Path::new("")),
        image_given: args.image.is_some() || args.end_image.is_some(),
    };
    let told = |errors: &NodeErrors| failed(node_errors(errors, &path));
    let valid = validate(&graph, None, &names).map_err(|e| match e.node_errors.is_empty() {
        true => failed(e.to_string()),
        false => told(&e.node_errors),
    })?;
    if !valid.node_errors.is_empty() {
        return Err(told(&valid.node_errors));
    }
    let job = valid.job;
    let model = match &args.settings.model {
        Some(name) => name.clone(),
        None => known_model(&job.model.dit).ok_or_else(|| {
            let file = &job.model.dit.name;
            failed(format!("found the model file {file}, which no known model has, expected --model NAME"))
        })?,
    };
    let own = |image: &Option<ImageInput>, given: &Option<PathBuf>, option: &str| match image {
        Some(image) if given.is_none() => {
            let file = names.folder.join(&image.name.path);
            let beside = path.file_name().unwrap_or_default().display();
            let missing =
                || failed(format!("{}: not found beside {beside}; name it with {option}", image.name.path));
            file.is_file().then_some(Some(file)).ok_or_else(missing)
        }
        _ => Ok(None),
    };
    let image = own(&job.image, &args.image, "--image")?;
    let end_image = own(&job.end_image, &args.end_image, "--end-image")?;
    let given = &args.settings;
    let pixels = |given: Option<usize>, own: usize| given.unwrap_or(own) as u32;
    let size = (pixels(given.width, job.request.width), pixels(given.height, job.request.height));
    let time = jiff::Zoned::now().datetime();
    let kept = kept(&job);
    let dropped = job.saves().filter(|save| !kept.contains(save)).map(|(node, _)| node);
    note_left_out(reporter, "as previews are not kept", &dropped.collect::<Vec<_>>());
    let mut videos = kept.iter().map(|(_, save)| given.clone().video().or(stored(save, time, size)));
    let main = videos.next().unwrap_or_default();
    let mut further: Vec<_> = videos.map(|settings| Further { output: None, settings }).collect();
    // A name or a format is that of one video, which says by its extension what it is.
    let one = args.output.is_some() || given.format.is_some();
    if one {
        let rest: Vec<_> = kept.iter().skip(1).map(|(node, _)| *node).collect();
        note_left_out(reporter, "as --output and --format mean one video", &rest);
        further.clear();
    }
    let main = Settings { format: main.format.filter(|_| args.output.is_none()), ..main };
    let settings = Settings { model: Some(model), ..main }.or(of_request(job.request));
    Ok(GenerateArgs {
        further,
        image: args.image.or(image),
        end_image: args.end_image.or(end_image),
        format_is_workflows: args.settings.format.is_none(),
        image_input: job.image,
        end_image_input: job.end_image,
        settings: args.settings.or(settings),
        ..args
    })
}

/// What is wrong with nodes of a workflow file, in the words of the command line where ComfyUI's are those of a server.
fn node_errors(errors: &NodeErrors, workflow: &Path) -> String {
    const IMAGE: &str = "Invalid image file: ";
    let beside = workflow.file_name().unwrap_or_default().display();
    let images = errors.iter().filter(|(_, report)| report.errors.iter().any(|e| e.details.contains(IMAGE)));
    let option = if images.count() > 1 { "--image and --end-image" } else { "--image" };
    let line = |id: &str, class: &str, error: &InputError| match error.details.split_once(IMAGE) {
        Some((_, name)) => format!("{name}: not found beside {beside}; name it with {option}"),
        None if error.kind == "custom_validation_failed" => {
            format!("{class} {id}: {}", error.details.replacen(" - ", ": ", 1))
        }
        None => format!("{class} {id}: {}: {}", error.message, error.details),
    };
    let of_node = |(id, report): (&str, &NodeReport)| -> Vec<String> {
        report.errors.iter().map(|error| line(id, report.class_type, error)).collect()
    };
    errors.iter().flat_map(of_node).collect::<Vec<_>>().join("; ")
}

/// All nodes of a graph whose classes are not known, if there are any.
fn unknown_nodes(graph: &serde_json::Value) -> Option<String> {
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, node) in graph.as_object()? {
        if let Some(class) = node.get("class_type").and_then(|class| class.as_str())
            && wan_workflow::table::class(class).is_none()
        {
            unknown.entry(class).or_default().push(id);
        }
    }
    let listed: Vec<_> = unknown.iter().map(|(class, ids)| format!("{class} ({})", ids.join(", "))).collect();
    let nodes = listed.join(", ");
    (!listed.is_empty())
        .then(|| format!("unsupported nodes: {nodes}; docs/coming-from-comfyui.md lists the supported ones"))
}

/// The model whose transformer, or another precision of it, has this file name.
fn known_model(file: &ModelFile) -> Option<String> {
    let registry = Registry::builtin().ok()?;
    let name = file.name.rsplit('/').next();
    let model =
        registry.models().iter().find(|model| model.files.dit.names().any(|own| Some(own) == name))?;
    Some(model.name.clone())
}

/// The nodes whose files are kept; where there are none, those of the previews.
fn kept(job: &WorkflowJob) -> Vec<(&JobNode, &SaveNode)> {
    let (outputs, previews): (Vec<_>, Vec<_>) = job.saves().partition(|(_, save)| save.root == Root::Output);
    if outputs.is_empty() { previews } else { outputs }
}

/// Says which nodes that make files make none here.
fn note_left_out(reporter: &Reporter, why: &str, nodes: &[&JobNode]) {
    if !nodes.is_empty() {
        let names: Vec<_> = nodes.iter().map(|node| format!("{} {}", node.class_type, node.id)).collect();
        reporter.note(&format!("left out of the workflow, {why}: {}", names.join(", ")));
    }
}

/// How a node stores the frames, and the start of the name.
fn stored(save: &SaveNode, time: DateTime, size: (u32, u32)) -> Settings {
    let (video, metadata) = match &save.kind {
        SaveKind::Combined { video, save_metadata, .. } => (video.clone(), *save_metadata),
        SaveKind::Video { video } => (video.clone(), true),
        SaveKind::Frames => (VideoOptions { format: OutputFormat::Png, ..VideoOptions::default() }, true),
    };
    let name = save.name(time, size);
    Settings {
        format: Some(video.format.to_string()),
        // Without its folders: those are the server's.
        output_prefix: name.rsplit('/').next().map(str::to_owned),
        fps: Some(video.fps.as_f64()),
        crf: Some(video.crf),
        pix_fmt: Some(video.pixel_format.to_string()),
        pingpong: Some(video.pingpong),
        loop_count: Some(video.loop_count),
        counts_plays: Some(video.counts_plays),
        no_metadata: Some(!metadata),
        ..Settings::default()
    }
}
