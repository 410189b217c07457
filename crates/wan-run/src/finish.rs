//! The last stages of a job: denoise, decode, write; whatever stops it, what was done is kept.

use std::time::Instant;

use candle_core::Tensor;
use wan_core::progress::{Event, Observer, Stage};
use wan_media::{ContactSheet, RgbImage, VideoWriter};
use wan_pipeline::{Job, Pipeline, Plan, SavedJob};

use crate::error::{Failure, INTERRUPTED, Outcome, RUN, USAGE};
use crate::resume::ResumeExtra;
use crate::settings::Settings;
use crate::target::{Output, Target};
use crate::{latents, output};

/// Frames on a contact sheet: two full rows of five.
const SHEET_FRAMES: usize = 10;

/// Denoises what is left, decodes, writes. Whatever stops it, the job is kept as a resume file.
pub fn finish(pipeline: &Pipeline, mut job: Job, target: Target<'_>, settings: Settings) -> Outcome {
    let outcome = pipeline
        .denoise(&mut job, target.reporter, target.cancel)
        .map_err(Failure::from)
        .and_then(|()| latents::save(&job.state.latents, &target))
        .and_then(|()| write_video(pipeline, &job.plan, &job.state.latents, &target));
    let Err(failure) = outcome else { return Ok(()) };
    let extra = serde_json::to_value(ResumeExtra::new(&target, settings)).map_err(Failure::run)?;
    Err(keep(pipeline, job, &target, extra, failure))
}

/// Writes the resume file and says so in the failure's message.
fn keep(
    pipeline: &Pipeline,
    job: Job,
    target: &Target<'_>,
    extra: serde_json::Value,
    failure: Failure,
) -> Failure {
    let (step, steps) = (job.state.sampler.step, job.plan.schedule.steps());
    let saved = SavedJob { job, model: pipeline.model().name.clone(), extra };
    let reason = if failure.code == INTERRUPTED {
        format!("stopped after step {step} of {steps}")
    } else {
        failure.line()
    };
    // Where the video could not be written the file may not be either: then it goes to the temporary folder.
    let beside = target.resume_file.clone();
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
    let resumable = kept.is_ok();
    let message = match kept {
        Ok(path) => {
            let overwrite = if replaces_files(target) { " --overwrite" } else { "" };
            let path = output::quoted(&path);
            format!("{reason}; the latents are kept: go on with wan-run --resume {path}{overwrite}")
        }
        Err(error) => format!("{reason}; the latents could not be kept: {error}"),
    };
    // A job that has run was no usage error, even if its output has appeared meanwhile.
    let code = if failure.code == USAGE { RUN } else { failure.code };
    Failure { message, code, kept: resumable }
}

/// Whether the job was allowed to replace files, and there are some.
fn replaces_files(target: &Target<'_>) -> bool {
    let args = target.args;
    let videos = target.outputs().map(|output| Some(&output.path));
    let mut files = videos.chain([args.save_latents.as_ref(), args.contact_sheet.as_ref()]).flatten();
    args.overwrite && files.any(|path| path.exists())
}

/// Decodes into the encoders, frame by frame; the videos appear when they are whole.
pub fn write_video(pipeline: &Pipeline, plan: &Plan, latents: &Tensor, target: &Target<'_>) -> Outcome {
    let record = target.record.as_ref();
    let (width, height) = (plan.width as u32, plan.height as u32);
    let frames = if target.looped { plan.frames - 1 } else { plan.frames };
    let writer = |o: &Output| Ok(VideoWriter::create(&o.path, width, height, o.options_with(record)?)?);
    let mut writers = target.outputs().map(writer).collect::<Outcome<Vec<_>>>()?;
    let mut sheet =
        target.args.contact_sheet.as_ref().map(|_| ContactSheet::new(frames, SHEET_FRAMES)).transpose()?;
    let mut index = 0;
    let mut sink = |frame: &[u8]| {
        if index == frames {
            return Ok(()); // the first one again
        }
        if let Some(sheet) = sheet.as_mut() {
            sheet.add(index, &RgbImage::new(width, height, frame.to_vec())?)?;
        }
        index += 1;
        writers.iter_mut().try_for_each(|writer| Ok(writer.push(frame)?))
    };
    pipeline.decode(plan, latents, &mut sink, target.reporter, target.cancel)?;
    let start = Instant::now();
    target.reporter.on_event(&Event::Started { stage: Stage::Encode, total: 1 });
    let finished: Result<Vec<_>, _> = writers.into_iter().map(VideoWriter::finish).collect();
    let summaries = finished?;
    target.reporter.on_event(&Event::Finished { stage: Stage::Encode, took: start.elapsed() });
    if let (Some(sheet), Some(path)) = (&sheet, &target.args.contact_sheet) {
        sheet.write(path, target.main.record(record)?.as_deref())?;
    }
    for summary in summaries {
        target.reporter.done(&summary.path, summary.frames, target.started.elapsed());
    }
    Ok(())
}
