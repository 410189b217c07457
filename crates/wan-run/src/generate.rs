//! `wan-run generate`: from options to a video.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wan_core::progress::{CancelToken, Stage};
use wan_media::{
    OutputFormat, Reservation, RgbImage, VideoOptions, load_image_and_transparency, read_metadata,
};
use wan_pipeline::{Images, MemoryPlan, Pipeline, Plan, Processor, SavedJob, load_tensor};
use wan_workflow::{ImageInput, Scale};

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::finish::{finish, write_video};
use crate::options::{Options, Record, check_loras, resolve, user_defaults};
use crate::progress::Reporter;
use crate::session::Session;
use crate::settings::Settings;
use crate::{batch, extend, output};

/// What a resume file remembers besides the job itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResumeExtra {
    /// Where the video goes.
    #[serde(serialize_with = "crate::settings::path_as_text")]
    pub output: PathBuf,
    /// Parameters as they were settled.
    pub settings: Settings,
    /// Name of the image.
    pub image: Option<String>,
    /// Name of the end image.
    #[serde(default)]
    pub end_image: Option<String>,
}

/// Runs the command.
pub fn run(args: GenerateArgs, cancel: &CancelToken) -> Outcome {
    let args = crate::workflow::apply(args)?;
    let reporter = Reporter::new(args.progress, args.quiet, args.preview.clone());
    let several = args.batch.is_some() || args.count.is_some() || args.extend.is_some();
    let session = Session::new(&reporter, cancel, several)?;
    // The parser no longer asks for what another option rules out, such as --image.
    if args.segments.is_some() && args.extend.is_none() {
        return Err(Failure::usage("--segments: found no --extend, expected one with the video to continue"));
    }
    if args.count_from.is_some() && args.count.is_none() {
        return Err(Failure::usage("--count-from: found no --count, expected one"));
    }
    match (&args.batch, args.count, &args.extend) {
        (Some(file), ..) => batch::of_file(&args, file, &session),
        (None, Some(count), _) => batch::of_seeds(&args, count, &session),
        (None, None, Some(clip)) => extend::run(&args, clip, &session),
        (None, None, None) => one(&args, &session, &|_| Ok(())),
    }
}

/// Runs one job. `begun` is told the output before any work is done; its error stops the job.
pub fn one(args: &GenerateArgs, session: &Session<'_>, begun: Begun<'_>) -> Outcome {
    match (&args.resume, &args.from_latents) {
        (Some(file), _) => resume(args, file, session, begun),
        (None, Some(file)) => decode_only(args, file, session, begun),
        (None, None) => generate(args, session, begun),
    }
}

/// Learns where the output of a job goes.
pub type Begun<'a> = &'a dyn Fn(&Path) -> Outcome;

/// Everything the last stages need to know about the output.
pub struct Target<'a> {
    /// The command.
    pub args: &'a GenerateArgs,
    /// The video.
    pub output: PathBuf,
    _reserved: Reservation,
    /// How it is stored.
    pub video: VideoOptions,
    /// Whether it ends before its last frame, which is the first one again.
    pub looped: bool,
    /// Name of the image, without its folder.
    pub image: Option<String>,
    /// Name of the end image.
    pub end_image: Option<String>,
    /// What the video says about how it was made, the images aside.
    pub record: Option<Record>,
    /// Shows progress.
    pub reporter: &'a Reporter,
    /// The user's wish to stop.
    pub cancel: &'a CancelToken,
    /// When the job began.
    pub started: Instant,
}

impl Target<'_> {
    /// How the video is stored, with `metadata` where the format has a place for it.
    pub fn options_with(&self, metadata: Option<String>) -> VideoOptions {
        let bare = self.video.format == OutputFormat::Rgb;
        VideoOptions { metadata: metadata.filter(|_| !bare), ..self.video.clone() }
    }

    /// Checks the video's options together with its size, before any work is done.
    fn check_size(&self, plan: &Plan) -> Outcome {
        Ok(self.video.check(plan.width as u32, plan.height as u32)?)
    }
}

fn generate(args: &GenerateArgs, session: &Session<'_>, begun: Begun<'_>) -> Outcome {
    let started = Instant::now();
    let (reporter, cancel) = (session.reporter, session.cancel);
    let settings = settings(args)?;
    let options = resolve(settings.clone(), &session.registry)?;
    if options.looped && args.end_image.is_some() {
        return Err(Failure::usage(
            "--end-image: found one beside --loop, whose end image is the image: expected one of the two",
        ));
    }
    let target = target(args, &options, session, started)?;
    options.request.check()?;
    check_loras(&options)?;
    let model_type = options.model.model_type;
    if args.image.is_none() && model_type == wan_models::ModelType::I2v {
        // Reported before the model's files are looked for.
        Plan::new(options.request.clone(), model_type, None)?;
    }
    // The frame of the video, and what the image encoder sees in its place.
    let load = |path: &Option<PathBuf>, input: &Option<ImageInput>| -> Outcome<_> {
        let Some(path) = path else { return Ok((None, None)) };
        let (image, transparent) = load_image_and_transparency(path, options.alpha)?;
        if transparent && settings.alpha.is_none() {
            reporter.note("the image has transparent pixels; --alpha white or black fills them");
        }
        match input {
            Some(ImageInput { scales, seen_scales, .. }) => {
                let seen = seen_scales.as_ref().map(|scales| Scale::apply_all(scales, image.clone()));
                Ok((Some(Scale::apply_all(scales, image)?), seen.transpose()?))
            }
            None => Ok((Some(image), None)),
        }
    };
    let (image, seen) = load(&args.image, &args.image_input)?;
    let (end_image, seen_end) = load(&args.end_image, &args.end_image_input)?;
    let noise = args.noise.as_deref().map(|path| load_tensor(path, "noise")).transpose()?;
    let size = image.as_ref().map(|i| (i.width() as usize, i.height() as usize));
    let (last, seen_last) = if options.looped { (&image, &seen) } else { (&end_image, &seen_end) };
    let last = last.as_ref();
    let plan = Plan::new(options.request.clone(), model_type, size)?.with_end_image(last.is_some())?;
    target.check_size(&plan)?;
    let pipeline = session.open(&options)?;
    check_end_image(&options, &pipeline, options.looped || last.is_some())?;
    if let (Some(first), Some(last)) = (&image, &end_image) {
        note_shapes(first, last, reporter);
    }
    begun(&target.output)?;
    announce(&plan, &options, &pipeline, reporter)?;
    let images =
        Images { first: image.as_ref(), last, seen_first: seen.as_ref(), seen_last: seen_last.as_ref() };
    let job =
        pipeline.prepare(plan, images, noise.as_ref(), reporter, cancel).map_err(|error| {
            match error.is_cancelled() {
                true => Failure::interrupted("stopped before the first step; nothing is kept"),
                false => error.into(),
            }
        })?;
    finish(&pipeline, job, target, settings)
}

/// Says that the end image will be stretched, where it has another shape than the image.
fn note_shapes(first: &RgbImage, last: &RgbImage, reporter: &Reporter) {
    let aspect = |image: &RgbImage| f64::from(image.width()) / f64::from(image.height());
    if (aspect(last) / aspect(first) - 1.0).abs() > 0.01 {
        reporter.note(&format!(
            "the end image ({}x{}) is stretched to the shape of the image ({}x{})",
            last.width(),
            last.height(),
            first.width(),
            first.height()
        ));
    }
}

/// Refuses a second image, or a loop, which is one, for a model that has no place for it.
fn check_end_image(options: &Options, pipeline: &Pipeline, end_image: bool) -> Outcome {
    if !end_image || pipeline.takes_end_image()? {
        return Ok(());
    }
    let (option, instead) = match options.looped {
        true => ("--loop", "; --pingpong plays the video of any model forwards and backwards"),
        false => ("--end-image", ""),
    };
    Err(Failure::usage(format!(
        "{option}: found the model {}, which takes one image, expected one that makes the video between two, such as \
         wan2.1-flf2v-14b-720p-fp8{instead}",
        pipeline.model().name
    )))
}

fn resume(args: &GenerateArgs, file: &Path, session: &Session<'_>, begun: Begun<'_>) -> Outcome {
    let started = Instant::now();
    let reporter = session.reporter;
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
    let options = resolve(settings.clone(), &session.registry)?;
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
    let mut target = target(args, &options, session, started)?;
    if let Some(record) = target.record.as_mut() {
        record.request = saved.job.plan.request.clone();
    }
    (target.image, target.end_image) = (extra.image, extra.end_image);
    let pipeline = session.open(&options)?;
    begun(&target.output)?;
    note_loras(&pipeline, &saved.job.plan, reporter)?;
    check_memory(&pipeline, &saved.job.plan, Stage::Denoise, &options, reporter)?;
    reporter.note(&format!(
        "resuming after step {} of {}",
        saved.job.state.sampler.step,
        saved.job.plan.schedule.steps()
    ));
    finish(&pipeline, saved.job, target, settings)
}

fn decode_only(args: &GenerateArgs, file: &Path, session: &Session<'_>, begun: Begun<'_>) -> Outcome {
    let started = Instant::now();
    let options = resolve(settings(args)?, &session.registry)?;
    let target = target(args, &options, session, started)?;
    let latents = load_tensor(file, "latents")?;
    let latents = if latents.dims().len() == 4 { latents.unsqueeze(0)? } else { latents };
    let plan = Plan::for_latents(options.request.clone(), &latents)
        .map_err(|e| Failure::run(format!("{}: {e}", file.display())))?;
    target.check_size(&plan)?;
    let pipeline = session.open(&options)?;
    begun(&target.output)?;
    check_memory(&pipeline, &plan, Stage::Decode, &options, session.reporter)?;
    write_video(&pipeline, &plan, &latents, &target)
}

/// Flags over the parameters of `--from-video` over the user's defaults.
pub fn settings(args: &GenerateArgs) -> Outcome<Settings> {
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
pub fn target<'a>(
    args: &'a GenerateArgs,
    options: &Options,
    session: &Session<'a>,
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
            ("--end-image", args.end_image.as_deref()),
            ("--noise", args.noise.as_deref()),
            ("--from-latents", args.from_latents.as_deref()),
            ("--extend", args.extend.as_deref()),
            ("--config", args.config.as_deref()),
        ],
    )?;
    let record = options.metadata.then(|| Record::new(options));
    Ok(Target {
        args,
        output,
        _reserved: reserved,
        video,
        looped: options.looped,
        image: file_name(args.image.as_deref()),
        end_image: file_name(args.end_image.as_deref()),
        record,
        reporter: session.reporter,
        cancel: session.cancel,
        started,
    })
}

fn file_name(path: Option<&Path>) -> Option<String> {
    Some(path?.file_name()?.to_string_lossy().into_owned())
}

/// Says what will be made and what it takes, and refuses what does not fit.
pub fn announce(plan: &Plan, options: &Options, pipeline: &Pipeline, reporter: &Reporter) -> Outcome {
    for note in &plan.notes {
        reporter.note(note);
    }
    if options.seed_is_random {
        reporter.note(&format!("seed {} (chosen at random; repeat with --seed {0})", plan.request.seed));
    }
    let memory = check_memory(pipeline, plan, Stage::EncodeText, options, reporter)?;
    note_loras(pipeline, plan, reporter)?;
    let steps = match plan.schedule.steps() {
        1 => "1 step".to_string(),
        steps => format!("{steps} steps"),
    };
    reporter.note(&format!(
        "{}: {}x{}, {} frames, {steps}, cfg {}, shift {}, {}, seed {}, {}",
        pipeline.model().name,
        plan.width,
        plan.height,
        plan.frames,
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
