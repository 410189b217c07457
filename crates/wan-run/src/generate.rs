//! `wan-run generate`: from options to a video.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use wan_core::device::compute_dtype;
use wan_core::progress::{CancelToken, Event, Observer, Stage};
use wan_media::{
    ContactSheet, OutputFormat, Reservation, RgbImage, VideoOptions, VideoWriter, load_image, read_metadata,
};
use wan_models::Registry;
use wan_pipeline::{Job, MemoryPlan, Pipeline, Plan, Processor, SavedJob, load_tensor, save_tensors};

use crate::cli::GenerateArgs;
use crate::error::{Failure, INTERRUPTED, Outcome, RUN, USAGE};
use crate::options::{Options, Record, resolve, user_defaults};
use crate::output;
use crate::progress::Reporter;
use crate::settings::Settings;

/// Frames on a contact sheet: two full rows of five.
const SHEET_FRAMES: usize = 10;

/// What a resume file remembers besides the job itself.
#[derive(Debug, Serialize, Deserialize)]
struct ResumeExtra {
    #[serde(serialize_with = "crate::settings::path_as_text")]
    output: PathBuf,
    settings: Settings,
    image: Option<String>,
}

/// Runs the command.
pub fn run(args: GenerateArgs, cancel: &CancelToken) -> Outcome {
    let args = crate::workflow::apply(args)?;
    let reporter = Reporter::new(args.progress, args.quiet, args.preview.clone());
    match (&args.resume, &args.from_latents) {
        (Some(file), _) => resume(&args, file, &reporter, cancel),
        (None, Some(file)) => decode_only(&args, file, &reporter, cancel),
        (None, None) => generate(&args, &reporter, cancel),
    }
}

/// Everything the last stages need to know about the output.
struct Target<'a> {
    args: &'a GenerateArgs,
    output: PathBuf,
    _reserved: Reservation,
    video: VideoOptions,
    record: Option<Record>,
    reporter: &'a Reporter,
    cancel: &'a CancelToken,
    started: Instant,
}

impl Target<'_> {
    /// Checks the video's options together with its size, before any work is done.
    fn check_size(&self, plan: &Plan) -> Outcome {
        Ok(self.video.check(plan.width as u32, plan.height as u32)?)
    }
}

fn generate(args: &GenerateArgs, reporter: &Reporter, cancel: &CancelToken) -> Outcome {
    let started = Instant::now();
    let settings = settings(args)?;
    let registry = Registry::builtin()?;
    let options = resolve(settings.clone(), &registry)?;
    let target = target(args, &options, reporter, cancel, started)?;
    options.request.check()?;
    if args.image.is_none() && options.model.model_type == wan_models::ModelType::I2v {
        // Reported before the model's files are looked for.
        Plan::new(options.request.clone(), options.model.model_type, None)?;
    }
    let image = args.image.as_deref().map(|path| load_image(path, options.alpha)).transpose()?;
    let image = match (image, &args.image_input) {
        (Some(image), Some(input)) => Some(input.scaled(image)?),
        (image, _) => image,
    };
    let noise = args.noise.as_deref().map(|path| load_tensor(path, "noise")).transpose()?;
    let size = image.as_ref().map(|i| (i.width() as usize, i.height() as usize));
    let plan = Plan::new(options.request.clone(), options.model.model_type, size)?;
    target.check_size(&plan)?;
    let pipeline = open(&options, &registry, reporter)?;
    announce(&plan, &options, &pipeline, reporter)?;
    let job =
        pipeline.prepare(plan, image.as_ref(), noise.as_ref(), reporter, cancel).map_err(
            |error| match error.is_cancelled() {
                true => Failure {
                    message: "stopped before the first step; nothing is kept".into(),
                    code: INTERRUPTED,
                },
                false => error.into(),
            },
        )?;
    finish(&pipeline, job, target, settings, image_name(args.image.as_deref()))
}

fn resume(args: &GenerateArgs, file: &Path, reporter: &Reporter, cancel: &CancelToken) -> Outcome {
    let started = Instant::now();
    let here = Settings {
        device: None,
        blocks_to_swap: None,
        max_vram: None,
        max_ram: None,
        models_dir: None,
        extra_model_paths: None,
        ..args.settings.clone()
    };
    if here != Settings::default() {
        let names = serde_json::to_value(&here).ok();
        let names = names.as_ref().and_then(|v| v.as_object()).map(|o| o.keys().cloned().collect::<Vec<_>>());
        return Err(Failure::usage(format!(
            "--resume takes the parameters from the file: found {}, expected none",
            names.unwrap_or_default().iter().map(|n| format!("--{n}")).collect::<Vec<_>>().join(", ")
        )));
    }
    let mut saved = SavedJob::open(file)?;
    let extra: ResumeExtra = serde_json::from_value(saved.extra.clone())
        .map_err(|e| Failure::run(format!("{}: not a usable resume file: {e}", file.display())))?;
    let settings = args.settings.clone().or(Settings {
        model: Some(saved.model.clone()),
        seed: Some(saved.job.plan.request.seed),
        format: Some(output::format(args.output.as_deref(), None, extra.settings.format.as_deref())?),
        ..extra.settings
    });
    if let Some(blocks) = args.settings.blocks_to_swap {
        saved.job.plan.request.blocks_to_swap = blocks;
    }
    let registry = Registry::builtin()?;
    let options = resolve(settings.clone(), &registry)?;
    let args = &GenerateArgs {
        output: Some(args.output.clone().unwrap_or(extra.output)),
        overwrite: args.overwrite,
        contact_sheet: args.contact_sheet.clone(),
        save_latents: args.save_latents.clone(),
        preview: args.preview.clone(),
        resume: args.resume.clone(),
        quiet: args.quiet,
        ..GenerateArgs::default()
    };
    let mut target = target(args, &options, reporter, cancel, started)?;
    if let Some(record) = target.record.as_mut() {
        record.request = saved.job.plan.request.clone();
        record.image = extra.image.clone();
    }
    let pipeline = open(&options, &registry, reporter)?;
    note_loras(&pipeline, &saved.job.plan, reporter)?;
    check_memory(&pipeline, &saved.job.plan, Stage::Denoise, &options, reporter)?;
    reporter.note(&format!(
        "resuming after step {} of {}",
        saved.job.state.sampler.step,
        saved.job.plan.schedule.steps()
    ));
    finish(&pipeline, saved.job, target, settings, extra.image)
}

fn decode_only(args: &GenerateArgs, file: &Path, reporter: &Reporter, cancel: &CancelToken) -> Outcome {
    let started = Instant::now();
    let registry = Registry::builtin()?;
    let options = resolve(settings(args)?, &registry)?;
    let target = target(args, &options, reporter, cancel, started)?;
    let latents = load_tensor(file, "latents")?;
    let latents = if latents.dims().len() == 4 { latents.unsqueeze(0)? } else { latents };
    let plan = Plan::for_latents(options.request.clone(), &latents)
        .map_err(|e| Failure::run(format!("{}: {e}", file.display())))?;
    target.check_size(&plan)?;
    let pipeline = open(&options, &registry, reporter)?;
    check_memory(&pipeline, &plan, Stage::Decode, &options, reporter)?;
    write_video(&pipeline, &plan, &latents, &target)
}

/// Flags over the parameters of `--from-video` over the user's defaults.
fn settings(args: &GenerateArgs) -> Outcome<Settings> {
    let mut base = user_defaults(args.config.as_deref())?;
    if let Some(path) = &args.from_video {
        let text = read_metadata(path)?.ok_or_else(|| {
            Failure::run(format!(
                "{}: found no wan-run parameters in it, expected a video made by wan-run",
                path.display()
            ))
        })?;
        let record: Record = serde_json::from_str(&text)
            .map_err(|e| Failure::run(format!("{}: unreadable wan-run parameters: {e}", path.display())))?;
        base = record.settings()?.or(base);
    }
    let format =
        output::format(args.output.as_deref(), args.settings.format.as_deref(), base.format.as_deref())?;
    Ok(Settings { format: Some(format), ..args.settings.clone() }.or(base))
}

/// Chooses and checks every output before any work is done.
fn target<'a>(
    args: &'a GenerateArgs,
    options: &Options,
    reporter: &'a Reporter,
    cancel: &'a CancelToken,
    started: Instant,
) -> Outcome<Target<'a>> {
    let video = VideoOptions { overwrite: args.overwrite, ..options.video.clone() };
    let (output, reserved) =
        output::choose(args.output.as_deref(), &options.output_prefix, &video, args.overwrite)?;
    output::check_file(args.save_latents.as_deref(), args.overwrite)?;
    output::check_file(args.contact_sheet.as_deref(), args.overwrite)?;
    // The preview of the run that is resumed lies there already.
    output::check_file(args.preview.as_deref(), args.overwrite || args.resume.is_some())?;
    let kept = output::resume_file(&output);
    output::check_distinct(
        &[
            ("--output", Some(output.as_path())),
            ("--save-latents", args.save_latents.as_deref()),
            ("--contact-sheet", args.contact_sheet.as_deref()),
            ("--preview", args.preview.as_deref()),
        ],
        &[
            ("the resume file", Some(kept.as_path())),
            ("--resume", args.resume.as_deref()),
            ("--image", args.image.as_deref()),
            ("--noise", args.noise.as_deref()),
            ("--from-latents", args.from_latents.as_deref()),
            ("--config", args.config.as_deref()),
        ],
    )?;
    let record = options.metadata.then(|| Record {
        version: env!("CARGO_PKG_VERSION").into(),
        model: options.model.name.clone(),
        image: image_name(args.image.as_deref()),
        request: options.request.clone(),
        fps: video.fps.to_string(),
        crf: video.crf,
        pix_fmt: video.pixel_format.to_string(),
        pingpong: video.pingpong,
        loop_count: video.loop_count,
    });
    Ok(Target { args, output, _reserved: reserved, video, record, reporter, cancel, started })
}

fn image_name(path: Option<&Path>) -> Option<String> {
    Some(path?.file_name()?.to_string_lossy().into_owned())
}

fn open(options: &Options, registry: &Registry, reporter: &Reporter) -> Outcome<Pipeline> {
    let files = registry.resolve(&options.model, &options.places()?)?;
    let device = options.open_device(|line| reporter.note(line))?;
    let dtype = compute_dtype(&device);
    Ok(Pipeline::open(files, device, dtype)?.with_limits(options.limits))
}

fn announce(plan: &Plan, options: &Options, pipeline: &Pipeline, reporter: &Reporter) -> Outcome {
    for note in &plan.notes {
        reporter.note(note);
    }
    if options.seed_is_random {
        reporter.note(&format!("seed {} (chosen at random; repeat with --seed {0})", plan.request.seed));
    }
    let memory = check_memory(pipeline, plan, Stage::EncodeText, options, reporter)?;
    note_loras(pipeline, plan, reporter)?;
    reporter.note(&format!(
        "{}: {}x{}, {} frames, {} steps, cfg {}, shift {}, {}, seed {}, {}",
        pipeline.model().name,
        plan.width,
        plan.height,
        plan.frames,
        plan.schedule.steps(),
        plan.request.cfg,
        plan.request.shift,
        plan.request.scheduler,
        plan.request.seed,
        memory.summary()
    ));
    Ok(())
}

/// Refuses a job whose stages from `first` on do not fit into memory, before anything is loaded.
fn check_memory(
    pipeline: &Pipeline,
    plan: &Plan,
    first: Stage,
    options: &Options,
    reporter: &Reporter,
) -> Outcome<MemoryPlan> {
    let memory = pipeline.memory(plan, first)?;
    for note in &memory.notes {
        reporter.note(note);
    }
    if memory.budget.processor == Processor::Cpu && options.limits.vram.is_some() {
        reporter.note("max-vram has no effect on the CPU");
    }
    memory.check()?;
    Ok(memory)
}

/// Says what becomes of each LoRA file, before anything is computed.
fn note_loras(pipeline: &Pipeline, plan: &Plan, reporter: &Reporter) -> Outcome {
    for report in pipeline.loras(plan)? {
        reporter.note(&report.to_string());
    }
    Ok(())
}

/// Denoises what is left, decodes, writes. Whatever stops it, the job is kept as a resume file.
fn finish(
    pipeline: &Pipeline,
    mut job: Job,
    target: Target<'_>,
    settings: Settings,
    image: Option<String>,
) -> Outcome {
    let outcome = pipeline
        .denoise(&mut job, target.reporter, target.cancel)
        .map_err(Failure::from)
        .and_then(|()| save_latents(&job.plan, &job.state.latents, &target))
        .and_then(|()| write_video(pipeline, &job.plan, &job.state.latents, &target));
    let Err(failure) = outcome else { return Ok(()) };
    let extra = ResumeExtra { output: target.output.clone(), settings, image };
    let extra = serde_json::to_value(extra).map_err(Failure::run)?;
    Err(keep(pipeline, job, &target.output, extra, failure))
}

/// Writes the resume file and says so in the failure's message.
fn keep(pipeline: &Pipeline, job: Job, output: &Path, extra: serde_json::Value, failure: Failure) -> Failure {
    let (step, steps) = (job.state.sampler.step, job.plan.schedule.steps());
    let saved = SavedJob { job, model: pipeline.model().name.clone(), extra };
    let reason = if failure.code == INTERRUPTED {
        format!("stopped after step {step} of {steps}")
    } else {
        failure.line()
    };
    // Where the video could not be written the file may not be either: then it goes to the temporary folder.
    let beside = output::resume_file(output);
    let elsewhere = beside.file_name().map(|name| {
        let name = format!("wan-run-{}-{}", std::process::id(), name.display());
        std::env::temp_dir().join(name)
    });
    let kept = match saved.save(&beside) {
        Ok(()) => Ok(beside),
        Err(error) => match elsewhere {
            Some(path) if saved.save(&path).is_ok() => Ok(path),
            _ => Err(error),
        },
    };
    let message = match kept {
        Ok(path) => {
            format!("{reason}; the latents are kept: go on with wan-run --resume {}", output::quoted(&path))
        }
        Err(error) => format!("{reason}; the latents could not be kept: {error}"),
    };
    // A job that has run was no usage error, even if its output has appeared meanwhile.
    let code = if failure.code == USAGE { RUN } else { failure.code };
    Failure { message, code }
}

fn save_latents(plan: &Plan, latents: &Tensor, target: &Target<'_>) -> Outcome {
    let Some(path) = &target.args.save_latents else { return Ok(()) };
    let request = serde_json::to_string(&plan.request).map_err(Failure::run)?;
    let metadata = [("wan-run-request".to_string(), request)].into();
    Ok(save_tensors(path, &[("latents".to_string(), latents.clone())].into(), metadata)?)
}

/// Decodes into the encoder, frame by frame; the video appears when it is whole.
fn write_video(pipeline: &Pipeline, plan: &Plan, latents: &Tensor, target: &Target<'_>) -> Outcome {
    let metadata = target.record.as_ref().map(serde_json::to_string).transpose().map_err(Failure::run)?;
    let mut video = VideoOptions { metadata: metadata.clone(), ..target.video.clone() };
    if video.format == OutputFormat::Rgb {
        video.metadata = None; // bare frames have no place for it
    }
    let (width, height) = (plan.width as u32, plan.height as u32);
    let mut writer = VideoWriter::create(&target.output, width, height, video)?;
    let mut sheet = target
        .args
        .contact_sheet
        .as_ref()
        .map(|_| ContactSheet::new(plan.frames, SHEET_FRAMES))
        .transpose()?;
    let mut index = 0;
    let mut sink = |frame: &[u8]| {
        if let Some(sheet) = sheet.as_mut() {
            sheet.add(index, &RgbImage::new(width, height, frame.to_vec())?)?;
        }
        index += 1;
        Ok(writer.push(frame)?)
    };
    pipeline.decode(plan, latents, &mut sink, target.reporter, target.cancel)?;
    let start = Instant::now();
    target.reporter.on_event(&Event::Started { stage: Stage::Encode, total: 1 });
    let summary = writer.finish()?;
    target.reporter.on_event(&Event::Finished { stage: Stage::Encode, took: start.elapsed() });
    if let (Some(sheet), Some(path)) = (&sheet, &target.args.contact_sheet) {
        sheet.write(path, metadata.as_deref())?;
    }
    target.reporter.done(&summary.path, summary.frames, target.started.elapsed());
    Ok(())
}
