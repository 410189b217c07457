//! `wan-run info`: devices, memory, models, and what a job will take.

mod text;

use candle_core::{DType, Device};
use serde::Serialize;
use wan_core::device::DeviceChoice;
use wan_core::memory;
use wan_media::load_image;
use wan_models::{ModelType, Registry};
use wan_pipeline::{Budget, MemoryPlan, Pipeline, Plan, Processor};

use crate::cli::InfoArgs;
use crate::error::{Failure, Outcome};
use crate::nvidia;
use crate::options::{Options, resolve, user_defaults};

pub use text::size;

/// What the command tells; `--json` prints it as it is.
#[derive(Debug, Serialize)]
struct Info {
    version: &'static str,
    threads: usize,
    instruction_sets: Vec<&'static str>,
    /// Whether this build computes on NVIDIA GPUs, and those that the system tells of.
    cuda: bool,
    cards: Option<String>,
    free_bytes: Option<u64>,
    total_bytes: Option<u64>,
    places: String,
    models: Vec<ModelState>,
    job: Job,
}

/// A model that is known.
#[derive(Debug, Serialize)]
struct ModelState {
    name: String,
    ready: bool,
    summary: String,
}

/// What a job takes, or why that is not known.
#[derive(Debug, Serialize)]
struct Job {
    model: String,
    #[serde(flatten)]
    state: JobState,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum JobState {
    /// Files are missing; the sizes of those whose description tells them.
    Missing { problem: String, files: Vec<(&'static str, Option<u64>)> },
    /// Planned.
    Planned(Box<PlannedJob>),
}

/// A job whose model is here.
#[derive(Debug, Serialize)]
struct PlannedJob {
    width: usize,
    height: usize,
    frames: usize,
    tokens: usize,
    steps: usize,
    loras: Vec<String>,
    fits: bool,
    memory: MemoryPlan,
}

/// Runs the command.
pub fn run(args: &InfoArgs) -> Outcome {
    let settings = args.settings.clone().or(user_defaults(args.config.as_deref())?);
    let registry = Registry::builtin()?;
    let options = resolve(settings, &registry)?;
    let info = Info {
        version: env!("CARGO_PKG_VERSION"),
        threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        instruction_sets: instruction_sets(),
        cuda: cfg!(feature = "cuda"),
        cards: nvidia::card(),
        free_bytes: memory::available_bytes(),
        total_bytes: memory::total_bytes(),
        places: options.places()?.describe(),
        models: models(&registry, &options)?,
        job: job(args, &registry, &options)?,
    };
    let text = match args.json {
        true => serde_json::to_string_pretty(&info).map_err(Failure::run)? + "\n",
        false => info.to_string(),
    };
    crate::print(text.as_bytes())
}

/// Vector instructions that this processor has.
#[cfg(target_arch = "x86_64")]
pub fn instruction_sets() -> Vec<&'static str> {
    let sets = [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    sets.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect()
}

/// Vector instructions that this processor has.
#[cfg(not(target_arch = "x86_64"))]
pub fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

fn models(registry: &Registry, options: &Options) -> Outcome<Vec<ModelState>> {
    let places = options.places()?;
    let state = |model: &wan_models::ModelDescription| ModelState {
        name: model.name.clone(),
        ready: registry.resolve(model, &places).is_ok(),
        summary: model.summary.clone(),
    };
    Ok(registry.models().iter().map(state).collect())
}

/// What the job takes, if the model's files are here; else why not.
fn job(args: &InfoArgs, registry: &Registry, options: &Options) -> Outcome<Job> {
    let model = options.model.name.clone();
    let files = match registry.resolve(&options.model, &options.places()?) {
        Ok(files) => files,
        Err(error) => {
            let entries = options.model.files.entries();
            let files = entries.iter().map(|(key, entry)| (*key, entry.total_bytes())).collect();
            return Ok(Job { model, state: JobState::Missing { problem: error.to_string(), files } });
        }
    };
    let image = args.image.as_deref().map(|path| load_image(path, options.alpha)).transpose()?;
    let pixels = match &image {
        Some(image) => Some((image.width() as usize, image.height() as usize)),
        // Without an image its shape is taken to be the one asked for.
        None if options.model.model_type == ModelType::I2v => {
            Some((options.request.width, options.request.height))
        }
        None => None,
    };
    let plan = Plan::new(options.request.clone(), options.model.model_type, pixels)?;
    let budget = Budget::of_this_machine(processor(options)?, options.limits, None);
    // Headers are all that is read: the device need not be there.
    let pipeline = Pipeline::open(files, Device::Cpu, DType::F32)?;
    let memory = pipeline.memory_within(&plan, budget)?;
    let planned = PlannedJob {
        width: plan.width,
        height: plan.height,
        frames: plan.frames,
        tokens: plan.latent.tokens(),
        steps: plan.schedule.steps(),
        loras: pipeline.loras(&plan)?.iter().map(ToString::to_string).collect(),
        fits: memory.fits(),
        memory,
    };
    Ok(Job { model, state: JobState::Planned(Box::new(planned)) })
}

/// Where the job would run: with `--max-vram`, on a GPU of that size, whether this machine has one or not.
fn processor(options: &Options) -> Outcome<Processor> {
    let gpu = match options.device {
        DeviceChoice::Cpu => false,
        _ if options.limits.vram.is_some() => true,
        device => device.open()?.device.is_cuda(),
    };
    Ok(if gpu { Processor::Gpu } else { Processor::Cpu })
}
