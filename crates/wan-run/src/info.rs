//! `wan-run info`: devices, memory, models, and what a job will take.

use wan_core::device::{Opened, compute_dtype};
use wan_core::memory;
use wan_media::load_image;
use wan_models::{ModelType, Registry};
use wan_pipeline::{Pipeline, Plan};

use crate::cli::InfoArgs;
use crate::error::Outcome;
use crate::options::{Options, resolve, user_defaults};

/// Runs the command.
pub fn run(args: &InfoArgs) -> Outcome {
    let settings = args.settings.clone().or(user_defaults(args.config.as_deref())?);
    let registry = Registry::builtin()?;
    let options = resolve(settings, &registry)?;
    let mut text = machine();
    text.push_str(&models(&registry, &options)?);
    text.push_str(&job(args, &registry, &options)?);
    crate::print(text.as_bytes())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let bytes = |b: Option<u64>| b.map_or("unknown".into(), size);
    format!(
        "wan-run {}\n\ndevices\n  cpu     {cores} threads{}\n  cuda    not in this build\n\nmemory\n  free    {} of {}\n",
        env!("CARGO_PKG_VERSION"),
        instruction_sets(),
        bytes(memory::available_bytes()),
        bytes(memory::total_bytes()),
    )
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> String {
    let sets = [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    sets.iter().filter(|(_, has)| *has).map(|(name, _)| format!(", {name}")).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> String {
    String::new()
}

fn models(registry: &Registry, options: &Options) -> Outcome<String> {
    let places = options.places()?;
    let mut text = format!("\nmodels (in {})\n", places.describe());
    for model in registry.models() {
        let state = match registry.resolve(model, &places) {
            Ok(_) => "ready",
            Err(_) => "files missing",
        };
        text.push_str(&format!("  {:34} {state:14} {}\n", model.name, model.summary));
    }
    Ok(text)
}

/// What the job takes, if the model's files are here and an image-to-video job has an image; else why not.
fn job(args: &InfoArgs, registry: &Registry, options: &Options) -> Outcome<String> {
    let mut text = format!("\njob on {}\n", options.model.name);
    let files = match registry.resolve(&options.model, &options.places()?) {
        Ok(files) => files,
        Err(error) => return Ok(format!("{text}  {error}\n")),
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
    let Opened { device, note } = options.device.open()?;
    let dtype = compute_dtype(&device);
    let pipeline = Pipeline::open(files, device, dtype)?;
    let memory = pipeline.memory(&plan)?;
    if let Some(note) = note {
        text.push_str(&format!("  {note}\n"));
    }
    text.push_str(&format!(
        "  video   {}x{}, {} frames, {} video tokens, {} steps\n",
        plan.width,
        plan.height,
        plan.frames,
        plan.latent.tokens(),
        plan.schedule.steps()
    ));
    for report in pipeline.loras(&plan)? {
        text.push_str(&format!("  {report}\n"));
    }
    for item in &memory.items {
        text.push_str(&format!(
            "  {:26} weights {:>10} (mapped)   working memory {:>10}\n",
            item.stage.name(),
            size(item.weights_bytes),
            size(item.working_bytes)
        ));
    }
    text.push_str(&format!("  {}\n", memory.summary()));
    Ok(text)
}

/// Bytes for people, in powers of 1024.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
