//! The last stages of a job: denoise, decode, write; whatever stops it, what was done is kept.

use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;
use wan_core::progress::{Event, Observer, Stage};
use wan_media::{ContactSheet, RgbImage, VideoWriter};
use wan_pipeline::{Job, Pipeline, Plan, SavedJob, save_tensors};

use crate::error::{Failure, INTERRUPTED, Outcome, RUN, USAGE};
use crate::generate::{ResumeExtra, Target};
use crate::options::Record;
use crate::output;
use crate::settings::Settings;

/// Frames on a contact sheet: two full rows of five.
const SHEET_FRAMES: usize = 10;

/// Denoises what is left, decodes, writes. Whatever stops it, the job is kept as a resume file.
pub fn finish(pipeline: &Pipeline, mut job: Job, target: Target<'_>, settings: Settings) -> Outcome {
    let outcome = pipeline
        .denoise(&mut job, target.reporter, target.cancel)
        .map_err(Failure::from)
        .and_then(|()| save_latents(&job.plan, &job.state.latents, &target))
        .and_then(|()| write_video(pipeline, &job.plan, &job.state.latents, &target));
    let Err(failure) = outcome else { return Ok(()) };
    let Target { output, image, end_image, .. } = target;
    let extra = ResumeExtra { output: output.clone(), settings, image, end_image };
    let extra = serde_json::to_value(extra).map_err(Failure::run)?;
    Err(keep(pipeline, job, &output, extra, failure))
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
    let resumable = kept.is_ok();
    let message = match kept {
        Ok(path) => {
            format!("{reason}; the latents are kept: go on with wan-run --resume {}", output::quoted(&path))
        }
        Err(error) => format!("{reason}; the latents could not be kept: {error}"),
    };
    // A job that has run was no usage error, even if its output has appeared meanwhile.
    let code = if failure.code == USAGE { RUN } else { failure.code };
    Failure { message, code, kept: resumable }
}

fn save_latents(plan: &Plan, latents: &Tensor, target: &Target<'_>) -> Outcome {
    let Some(path) = &target.args.save_latents else { return Ok(()) };
    let request = serde_json::to_string(&plan.request).map_err(Failure::run)?;
    let metadata = [("wan-run-request".to_string(), request)].into();
    Ok(save_tensors(path, &[("latents".to_string(), latents.clone())].into(), metadata)?)
}

/// Decodes into the encoder, frame by frame; the video appears when it is whole.
pub fn write_video(pipeline: &Pipeline, plan: &Plan, latents: &Tensor, target: &Target<'_>) -> Outcome {
    let record = target.record.as_ref().map(|record| Record {
        image: target.image.clone(),
        end_image: target.end_image.clone(),
        ..record.clone()
    });
    let metadata = record.as_ref().map(serde_json::to_string).transpose().map_err(Failure::run)?;
    let (width, height) = (plan.width as u32, plan.height as u32);
    let frames = if target.looped { plan.frames - 1 } else { plan.frames };
    let mut writer =
        VideoWriter::create(&target.output, width, height, target.options_with(metadata.clone()))?;
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
