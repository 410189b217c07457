//! `wan-run generate`: from options to a video.

use std::path::{Path, PathBuf};
use std::time::Instant;

use wan_core::progress::{CancelToken, Stage};
use wan_media::{RgbImage, load_image_and_transparency, read_metadata};
use wan_pipeline::{Images, MemoryPlan, Pipeline, Plan, Processor, load_tensor};
use wan_workflow::{ImageInput, Scale};

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::finish::finish;
use crate::options::{Options, check_loras, resolve, user_defaults};
use crate::progress::Reporter;
use crate::record::Record;
use crate::session::Session;
use crate::settings::Settings;
use crate::target::Target;
use crate::{batch, extend, latents, output, resume};

/// Runs the command.
pub fn run(args: GenerateArgs, cancel: &CancelToken) -> Outcome {
    let reporter = Reporter::new(args.progress, args.quiet, args.preview.clone());
    let args = crate::workflow::apply(args, &reporter)?;
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
        (Some(file), _) => resume::run(args, file, session, begun),
        (None, Some(file)) => latents::decode_only(args, file, session, begun),
        (None, None) => generate(args, session, begun),
    }
}

/// Learns where the output of a job goes.
pub type Begun<'a> = &'a dyn Fn(&Path) -> Outcome;

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
    let target = Target::new(args, &options, session, started)?;
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
    begun(&target.main.path)?;
    note_kept(&target);
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

/// Reports stopped jobs for the same output whose resume files still exist.
fn note_kept(target: &Target<'_>) {
    for path in output::resume_files(&target.main.path) {
        let path = output::quoted(&path);
        target.reporter.note(&format!(
            "{path} keeps another job that was stopped, and is left alone: wan-run --resume {path} goes on with it"
        ));
    }
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

/// Flags over the parameters of `--from-video` over the user's defaults.
pub fn settings(args: &GenerateArgs) -> Outcome<Settings> {
    settings_over(args, None)
}

/// The same, with `record` between the parameters of `--from-video` and the defaults.
pub fn settings_over(args: &GenerateArgs, record: Option<Record>) -> Outcome<Settings> {
    let mut base = user_defaults(args.config.as_deref())?;
    if let Some(record) = record {
        base = record.settings()?.or(base);
    }
    if let Some(path) = &args.from_video {
        let text = read_metadata(path)?.ok_or_else(|| {
            Failure::run(format!(
                "{}: found no wan-run parameters in it, expected a video made by wan-run",
                path.display()
            ))
        })?;
        base = Record::parse(&text, path)?.settings()?.or(base);
    }
    let format =
        output::format(args.output.as_deref(), args.settings.format.as_deref(), base.format.as_deref())?;
    Ok(Settings { format: Some(format), ..args.settings.clone() }.or(base))
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
pub fn check_memory(
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
pub fn note_loras(pipeline: &Pipeline, plan: &Plan, reporter: &Reporter) -> Outcome {
    for report in pipeline.loras(plan)? {
        reporter.note(&report.to_string());
    }
    Ok(())
}
