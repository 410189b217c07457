//! `--resume FILE`: the rest of a job that was stopped.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wan_core::progress::Stage;
use wan_pipeline::SavedJob;

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::finish::finish;
use crate::generate::{Begun, check_memory, note_loras};
use crate::options::{environment, resolve};
use crate::output;
use crate::record::Record;
use crate::session::Session;
use crate::settings::Settings;
use crate::target::{Further, Target};

/// What a resume file remembers besides the job itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResumeExtra {
    /// Where the video goes.
    #[serde(serialize_with = "crate::settings::path_as_text")]
    output: PathBuf,
    /// Parameters as they were settled.
    settings: Settings,
    /// Name of the image.
    image: Option<String>,
    /// Name of the end image.
    #[serde(default)]
    end_image: Option<String>,
    /// Where the final latents go.
    #[serde(default, serialize_with = "crate::settings::optional_path_as_text")]
    save_latents: Option<PathBuf>,
    /// Where the contact sheet goes.
    #[serde(default, serialize_with = "crate::settings::optional_path_as_text")]
    contact_sheet: Option<PathBuf>,
    /// Further videos.
    #[serde(default)]
    further: Vec<Further>,
    /// Digest of the batch line that it is a job of.
    #[serde(default)]
    batch_key: Option<String>,
}

impl ResumeExtra {
    /// What is to be remembered of a job whose parameters were settled as `settings`.
    pub fn new(target: &Target<'_>, settings: Settings) -> Self {
        let args = target.args;
        // As they are found from every folder.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let found = |path: &Option<PathBuf>| path.as_deref().map(absolute);
        let (image, end_image) =
            target.record.clone().map_or((None, None), |record| (record.image, record.end_image));
        let further = args.further.iter().zip(&target.further).map(|(asked, chosen)| Further {
            output: Some(absolute(&chosen.path)),
            settings: asked.settings.clone(),
        });
        Self {
            output: absolute(&target.main.path),
            settings,
            image,
            end_image,
            save_latents: found(&args.save_latents),
            contact_sheet: found(&args.contact_sheet),
            further: further.collect(),
            batch_key: args.batch_key.clone(),
        }
    }
}

/// The resume file beside `output` that keeps the job of the batch line `key`.
pub fn of_batch_line(output: &Path, key: &str) -> Option<PathBuf> {
    output::resume_files(output).into_iter().find(|path| {
        let extra = SavedJob::read_extra(path).ok();
        let extra = extra.and_then(|extra| serde_json::from_value::<ResumeExtra>(extra).ok());
        extra.is_some_and(|extra| extra.batch_key.as_deref() == Some(key))
    })
}

/// Runs the command.
pub fn run(args: &GenerateArgs, file: &Path, session: &Session<'_>, begun: Begun<'_>) -> Outcome {
    let started = Instant::now();
    let reporter = session.reporter;
    check_settings(&args.settings)?;
    let mut saved = SavedJob::open(file)?;
    let extra: ResumeExtra = serde_json::from_value(saved.extra.clone())
        .map_err(|e| Failure::run(format!("{}: not a usable resume file: {e}", file.display())))?;
    let format = output::format(args.output.as_deref(), None, extra.settings.format.as_deref())?;
    let settings = args.settings.clone().or(Settings {
        // A description that was named as a file is found there again.
        model: extra.settings.model.clone().or(Some(saved.model.clone())),
        seed: Some(saved.job.plan.request.seed),
        format: Some(format),
        ..extra.settings.clone()
    });
    let settings = settings.or(Settings { models_dir: environment().models_dir, ..Settings::default() });
    if let Some(blocks) = args.settings.blocks_to_swap {
        saved.job.plan.request.blocks_to_swap = blocks;
    }
    let options = resolve(settings.clone(), &session.registry)?;
    // Latents are written after the last step: where they are then, they are this job's.
    let all_steps = saved.job.state.sampler.step == saved.job.plan.schedule.steps();
    let latents = extra.save_latents.filter(|path| !(all_steps && path.exists()));
    // As they were named, where the command is given in the same folder.
    let here = std::env::current_dir().unwrap_or_default();
    let near = |path: PathBuf| path.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(path);
    let further =
        extra.further.into_iter().map(|further| Further { output: further.output.map(near), ..further });
    let args = &GenerateArgs {
        output: Some(args.output.clone().unwrap_or_else(|| near(extra.output))),
        overwrite: args.overwrite,
        contact_sheet: args.contact_sheet.clone().or(extra.contact_sheet.map(near)),
        save_latents: args.save_latents.clone().or(latents.map(near)),
        preview: args.preview.clone(),
        resume: args.resume.clone(),
        quiet: args.quiet,
        further: further.collect(),
        batch_key: extra.batch_key,
        ..GenerateArgs::default()
    };
    let mut target = Target::new(args, &options, session, started)?;
    target.record = target.record.map(|record| Record {
        request: saved.job.plan.request.clone(),
        image: extra.image,
        end_image: extra.end_image,
        ..record
    });
    let pipeline = session.open(&options)?;
    begun(&target.main.path)?;
    note_loras(&pipeline, &saved.job.plan, reporter)?;
    check_memory(&pipeline, &saved.job.plan, Stage::Denoise, &options, reporter)?;
    reporter.note(&format!(
        "resuming after step {} of {}",
        saved.job.state.sampler.step,
        saved.job.plan.schedule.steps()
    ));
    finish(&pipeline, saved.job, target, settings)
}

/// Refuses all settings but those of the place where the job runs.
fn check_settings(given: &Settings) -> Outcome {
    let given = given.clone().without_place();
    if given == Settings::default() {
        return Ok(());
    }
    let names = given.entries();
    let names = names.keys().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ");
    Err(Failure::usage(format!("--resume takes the parameters from the file: found {names}, expected none")))
}
