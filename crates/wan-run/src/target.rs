//! What a job writes: every output is chosen and checked before any work is done.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wan_core::progress::CancelToken;
use wan_media::{OutputFormat, Reservation, VideoOptions};
use wan_pipeline::Plan;

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::options::{Options, video_options};
use crate::output::{self, NamedFile};
use crate::progress::Reporter;
use crate::record::Record;
use crate::session::Session;
use crate::settings::Settings;

/// A further video of the same frames.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Further {
    /// Where it goes, once that is chosen.
    #[serde(serialize_with = "crate::settings::optional_path_as_text")]
    pub output: Option<PathBuf>,
    /// How it is stored, and the start of its name.
    pub settings: Settings,
}

/// A video to be written, whose name is held until it is there.
pub struct Output {
    /// The video.
    pub path: PathBuf,
    _reserved: Reservation,
    /// How it is stored, metadata aside.
    pub video: VideoOptions,
    /// Whether it says how it was made.
    metadata: bool,
}

impl Output {
    fn choose(
        named: Option<&Path>,
        prefix: &str,
        video: VideoOptions,
        metadata: bool,
        overwrite: bool,
    ) -> Outcome<Self> {
        let video = VideoOptions { overwrite, ..video };
        let (path, reserved) = output::choose(named, prefix, &video, overwrite)?;
        Ok(Self { path, _reserved: reserved, video, metadata })
    }

    /// `record` as this video says it, if it says anything.
    pub fn record(&self, record: Option<&Record>) -> Outcome<Option<String>> {
        let record = record.filter(|_| self.metadata).map(|record| record.clone().stored_as(&self.video));
        record.as_ref().map(serde_json::to_string).transpose().map_err(Failure::run)
    }

    /// How it is stored, with `record` where its format has a place for it.
    pub fn options_with(&self, record: Option<&Record>) -> Outcome<VideoOptions> {
        let bare = self.video.format == OutputFormat::Rgb;
        Ok(VideoOptions { metadata: self.record(record)?.filter(|_| !bare), ..self.video.clone() })
    }
}

/// Everything the last stages need to know about the output.
pub struct Target<'a> {
    /// The command.
    pub args: &'a GenerateArgs,
    /// The video.
    pub main: Output,
    /// Further ones of the same frames, as `args.further` has them.
    pub further: Vec<Output>,
    /// Where the job is kept if it stops.
    pub resume_file: PathBuf,
    /// Whether it ends before its last frame, which is the first one again.
    pub looped: bool,
    /// How it was made, if that is known.
    pub record: Option<Record>,
    /// Shows progress.
    pub reporter: &'a Reporter,
    /// The user's wish to stop.
    pub cancel: &'a CancelToken,
    /// When the job began.
    pub started: Instant,
}

impl<'a> Target<'a> {
    /// Chooses and checks every output.
    ///
    /// Errors: exit 2 for outputs that exist, cannot be, or are one file; exit 1 for one that another job makes.
    pub fn new(
        args: &'a GenerateArgs,
        options: &Options,
        session: &Session<'a>,
        started: Instant,
    ) -> Outcome<Self> {
        let (named, prefix) = (args.output.as_deref(), &options.output_prefix);
        let main = Output::choose(named, prefix, options.video.clone(), options.metadata, args.overwrite)?;
        let further = args.further.iter().map(|further| {
            let s = &further.settings;
            let prefix = s.output_prefix.as_deref().unwrap_or(output::DEFAULT_PREFIX);
            let metadata = !s.no_metadata.unwrap_or(false);
            let video = video_options(s, &options.model)?;
            Output::choose(further.output.as_deref(), prefix, video, metadata, args.overwrite)
        });
        let further = further.collect::<Outcome<Vec<_>>>()?;
        let resume_file = output::resume_file(&main.path, args.resume.as_deref());
        check_files(args, options, &main, &further, &resume_file)?;
        Ok(Self {
            args,
            main,
            further,
            resume_file,
            looped: options.looped,
            record: Some(Record {
                image: file_name(args.image.as_deref()),
                end_image: file_name(args.end_image.as_deref()),
                ..Record::new(options)
            }),
            reporter: session.reporter,
            cancel: session.cancel,
            started,
        })
    }

    /// All videos, the main one first.
    pub fn outputs(&self) -> impl Iterator<Item = &Output> {
        std::iter::once(&self.main).chain(&self.further)
    }

    /// Checks the videos' options together with their size, before any work is done.
    pub fn check_size(&self, plan: &Plan) -> Outcome {
        let (width, height) = (plan.width as u32, plan.height as u32);
        self.outputs().try_for_each(|output| Ok(output.video.check(width, height)?))
    }
}

/// Checks the other files that the command writes, and that all are different from each other and from what it reads.
fn check_files(
    args: &GenerateArgs,
    options: &Options,
    main: &Output,
    further: &[Output],
    kept: &Path,
) -> Outcome {
    output::check_file(args.save_latents.as_deref(), args.overwrite)?;
    output::check_file(args.contact_sheet.as_deref(), args.overwrite)?;
    output::check_preview(args.preview.as_deref(), args.overwrite)?;
    let mut outputs: Vec<NamedFile<'_>> = vec![
        ("--output", Some(&main.path)),
        ("--save-latents", args.save_latents.as_deref()),
        ("--contact-sheet", args.contact_sheet.as_deref()),
        ("--preview", args.preview.as_deref()),
    ];
    outputs.extend(further.iter().map(|output| ("a further output", Some(output.path.as_path()))));
    let mut inputs: Vec<NamedFile<'_>> = vec![
        ("the resume file", Some(kept)),
        ("--resume", args.resume.as_deref()),
        ("--image", args.image.as_deref()),
        ("--end-image", args.end_image.as_deref()),
        ("--noise", args.noise.as_deref()),
        ("--from-latents", args.from_latents.as_deref()),
        ("--extend", args.extend.as_deref()),
        ("--config", args.config.as_deref()),
        ("--workflow", args.workflow.as_deref()),
        ("--model", options.model.file.as_deref()),
    ];
    inputs.extend(options.request.loras.iter().map(|lora| ("--lora", Some(lora.path.as_path()))));
    output::check_distinct(&outputs, &inputs)
}

fn file_name(path: Option<&Path>) -> Option<String> {
    Some(path?.file_name()?.to_string_lossy().into_owned())
}
