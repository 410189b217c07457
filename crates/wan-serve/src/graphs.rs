//! Graphs on the models that are here: checked when they come in, and read again when they run.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use serde_json::{Map, Value, json};
use wan_core::device::{compute_dtype, is_lost};
use wan_models::{ModelFiles, Places, Registry, Source};
use wan_pipeline::{MemoryLimits, Pipeline, PipelineError};
use wan_queue::QueueItem;
use wan_workflow::table::{self, ModelFolder};
use wan_workflow::{Catalog, Library, ModelChoice, PromptError, Root, SaveKind, WorkflowJob};

use crate::folders::Folders;
use crate::render_job::render_job;
use crate::reply::ApiError;
use crate::worker::{Backend, RenderJob, disk_bytes};

/// What computes: a model whose files were found, and a device.
#[derive(Debug)]
pub struct Engine {
    /// The model that published names stand for.
    pub files: ModelFiles,
    /// Where files are that graphs can name as well.
    pub places: Places,
    /// Models whose files are known by name, wherever in the places they are.
    pub registry: Registry,
    /// Where it runs.
    pub device: Device,
    /// What of the machine's memory a job may take.
    pub memory: MemoryLimits,
}

impl Engine {
    pub(crate) fn model_name(&self) -> String {
        self.files.description.name.clone()
    }

    /// Settings that the embedded model understands, as the page calls them; null for other models, which take what
    /// the workflows have.
    pub(crate) fn sample(&self) -> Value {
        if !matches!(self.files.dit, Source::Embedded { .. }) {
            return Value::Null;
        }
        let (positive, negative) = Registry::sample_prompts();
        let defaults = &self.files.description.defaults;
        json!({
            "positive": positive, "negative": negative, "width": defaults.width, "height": defaults.height,
            "frames": defaults.frames, "steps": defaults.steps, "cfg": defaults.cfg, "shift": defaults.shift,
            "scheduler": defaults.scheduler,
        })
    }

    pub(crate) fn device_name(&self) -> String {
        match &self.device {
            Device::Cpu => "cpu".into(),
            device => format!("cuda:{}", ordinal(device)),
        }
    }
}

fn ordinal(device: &Device) -> usize {
    match device.location() {
        candle_core::DeviceLocation::Cuda { gpu_id } | candle_core::DeviceLocation::Metal { gpu_id } => {
            gpu_id
        }
        candle_core::DeviceLocation::Cpu => 0,
    }
}

/// What graphs may name, and what they mean.
pub(crate) struct Graphs {
    library: Arc<Library>,
}

/// A graph of which at least one output can be made.
pub(crate) struct Accepted {
    /// The graph, its constants made what the nodes declare.
    pub prompt: Value,
    /// The output nodes that run.
    pub outputs: Vec<String>,
    /// What is wrong with the others.
    pub node_errors: Value,
    /// Bytes of disk that its frames will take.
    pub disk_bytes: u64,
}

impl Graphs {
    /// Graphs on `engine`, and what runs them.
    pub fn new(engine: Engine, folders: &Folders) -> (Self, Box<dyn Backend>) {
        let Engine { files, places, registry, device, memory } = engine;
        let roots = [
            (Root::Input, folders.input.path.clone()),
            (Root::Output, folders.output.path.clone()),
            (Root::Temp, folders.temp.path.clone()),
        ];
        let library = Arc::new(Library::new(places, &registry, files, roots));
        for (folder, name) in library.aliases() {
            tracing::debug!("{}/{name} stands for a file of the model", folder.name());
        }
        let backend = ModelBackend { library: library.clone(), device, memory, chosen: RefCell::default() };
        (Self { library }, Box::new(backend))
    }

    /// Checks a graph.
    ///
    /// Errors: 400 in ComfyUI's words if nothing of it can run.
    pub fn accept(
        &self,
        prompt: &Map<String, Value>,
        targets: Option<&[String]>,
    ) -> Result<Accepted, ApiError> {
        let prompt = Value::Object(prompt.clone());
        let valid = wan_workflow::validate(&prompt, targets, &*self.library)?;
        let request = &valid.job.request;
        let picture_nodes =
            valid.job.saves().filter(|(_, save)| matches!(save.kind, SaveKind::Frames)).count();
        let disk_bytes = disk_bytes(request.width, request.height, request.frames, picture_nodes);
        Ok(Accepted {
            disk_bytes,
            prompt: Value::Object(valid.graph.as_json().clone()),
            outputs: valid.outputs,
            node_errors: valid.node_errors.to_json(),
        })
    }

    /// The API graph of a workflow in either format.
    ///
    /// Errors: 400 for what is neither.
    pub fn convert(&self, workflow: &Value) -> Result<Value, ApiError> {
        wan_workflow::convert(workflow)
            .map_err(|error| ApiError::bad_request("invalid_workflow", error.to_string()))
    }

    /// All classes of nodes.
    pub fn object_info(&self) -> Map<String, Value> {
        wan_workflow::object_info(&*self.library)
    }

    /// One class of nodes.
    pub fn class_info(&self, name: &str) -> Option<Value> {
        Some(wan_workflow::node_info(table::class(name)?, &*self.library))
    }

    /// Names of model files in one of ComfyUI's folders; `None` for a folder that is none.
    pub fn files(&self, folder: &str) -> Option<Vec<String>> {
        Some(self.library.models(ModelFolder::from_name(folder)?))
    }

    /// Where a listed model file is, if it is a file of its own.
    pub fn path(&self, folder: &str, name: &str) -> Option<PathBuf> {
        self.library.model_path(ModelFolder::from_name(folder)?, name)
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        Self::bad_request(error.kind, error.message)
            .details(error.details)
            .extra_info(*error.extra_info)
            .node_errors(error.node_errors.to_json())
    }
}

/// Reads graphs and opens models for the worker.
struct ModelBackend {
    library: Arc<Library>,
    device: Device,
    memory: MemoryLimits,
    /// The files of the job that was read last, under the name that it calls its model by.
    chosen: RefCell<Option<(String, ModelChoice)>>,
}

impl ModelBackend {
    fn read(&self, item: &QueueItem) -> Result<WorkflowJob, String> {
        let prompt: Value = serde_json::from_str(item.prompt.get()).map_err(|error| error.to_string())?;
        let valid = wan_workflow::validate(&prompt, Some(&item.outputs), &*self.library);
        valid.map(|valid| valid.job).map_err(|error| error.to_string())
    }
}

impl Backend for ModelBackend {
    fn job(&self, item: &QueueItem, work: &Path) -> Result<RenderJob, String> {
        let job = self.read(item)?;
        let choice = job.model.clone();
        let job = render_job(job, item, &*self.library, work)?;
        *self.chosen.borrow_mut() = Some((job.model.clone(), choice));
        Ok(job)
    }

    fn open(&self, job: &RenderJob) -> Result<Pipeline, PipelineError> {
        let missing =
            |reason: String| wan_core::Error::invalid("model", reason, "the files that the job names");
        let chosen = self.chosen.borrow();
        let (_, choice) = chosen
            .as_ref()
            .filter(|(model, _)| *model == job.model)
            .ok_or_else(|| missing(format!("no job with `{}`", job.model)))?;
        let files = self.library.files(choice).map_err(missing)?;
        let pipeline = Pipeline::open(files, self.device.clone(), compute_dtype(&self.device))?;
        Ok(pipeline.with_limits(self.memory).keeping_dit())
    }

    fn is_device_lost(&self) -> bool {
        is_lost(&self.device)
    }
}
