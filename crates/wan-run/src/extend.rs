//! `wan-run generate --extend FILE --segments N`: more of a video, from its last frame on.

use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};
use wan_core::geometry::TOKEN_PIXELS;
use wan_core::progress::{Event, Observer, Stage};
use wan_media::probe::{VideoInfo, decode_frames, probe};
use wan_media::{RgbImage, VideoWriter, read_metadata};
use wan_pipeline::{Pipeline, Plan, Request};

use crate::cli::GenerateArgs;
use crate::error::{Failure, INTERRUPTED, Outcome, RUN, USAGE};
use crate::generate;
use crate::options::{Options, check_loras, random_seed, resolve, user_defaults};
use crate::output::{quoted, shell_word};
use crate::record::Record;
use crate::session::Session;
use crate::settings::Settings;
use crate::target::Target;

/// Writes the video and what follows it. Each segment begins with the last frame before it, which is not shown twice.
/// After an error or Ctrl-C the output has the segments that were whole.
///
/// Errors: exit 2 for a video of a size that the model cannot make; else as for a job.
pub fn run(args: &GenerateArgs, clip: &Path, session: &Session<'_>) -> Outcome {
    let started = Instant::now();
    let info = probe(clip)?;
    check_size(clip, &info)?;
    if info.frames < 2 {
        return Err(Failure::usage(format!(
            "--extend {}: found a single picture, expected a video: a video that begins with a picture is made with --image",
            clip.display()
        )));
    }
    let args = &with_parameters_of(args, clip, &info)?;
    let settings = generate::settings(args)?;
    let options = resolve(settings.clone(), &session.registry)?;
    let target = Target::new(args, &options, session, started)?;
    check_loras(&options)?;
    let size = (info.width as usize, info.height as usize);
    let plan = Plan::new(options.request.clone(), options.model.model_type, Some(size))?;
    if plan.frames == 1 {
        return Err(Failure::usage("frames: found 1, expected at least 5 for a video that is continued"));
    }
    let more = more_options(&settings, &options, &target, session)?;
    let pipeline = session.open(&options)?;
    let frames = decode_frames(clip)?;
    let mut writer = writer(&target, clip, &info)?;
    for frame in &frames {
        writer.push(frame.data())?;
    }
    let mut last = frames.into_iter().next_back().ok_or_else(|| {
        Failure::run(format!("{}: found no frames, expected at least one to continue from", clip.display()))
    })?;
    let segments = args.segments.unwrap_or(1) as usize;
    session.reporter.note(
        "each segment begins with the last frame before it: colours may drift from one to the next, and are not corrected",
    );
    for index in 0..segments {
        let scope = [("segment".to_string(), (index + 1).into()), ("of".to_string(), segments.into())];
        session.reporter.set_scope(scope.into_iter().collect());
        let text = format!("segment {} of {segments}", index + 1);
        session.reporter.tell(&json!({"event": "begun"}), Some(&text));
        let seed = options.request.seed.wrapping_add(index as u64);
        match segment(&pipeline, &options, Request { seed, ..options.request.clone() }, &last, session) {
            Ok(made) => {
                for frame in &made {
                    writer.push(frame)?;
                }
                last = match made.into_iter().next_back() {
                    Some(frame) => RgbImage::new(info.width, info.height, frame)?,
                    None => last,
                };
            }
            Err(failure) => {
                let left = Left { segments: segments - index, seed, of: segments };
                return Err(stopped(failure, &left, &more, writer, &target));
            }
        }
    }
    session.reporter.set_scope(Map::new());
    finish(writer, &target)
}

/// The frames that follow `image`, which is not among them. They are held until all are known, so that a segment is
/// shown whole or not at all.
fn segment(
    pipeline: &Pipeline,
    options: &Options,
    request: Request,
    image: &RgbImage,
    session: &Session<'_>,
) -> Outcome<Vec<Vec<u8>>> {
    let (reporter, cancel) = (session.reporter, session.cancel);
    let plan = pipeline.plan(request, Some(image))?;
    generate::announce(&plan, options, pipeline, reporter)?;
    let mut job = pipeline.prepare(plan, Some(image), None, reporter, cancel)?;
    pipeline.denoise(&mut job, reporter, cancel)?;
    let mut frames = Vec::with_capacity(job.plan.frames);
    let mut sink = |frame: &[u8]| {
        frames.push(frame.to_vec());
        Ok(())
    };
    pipeline.decode(&job.plan, &job.state.latents, &mut sink, reporter, cancel)?;
    frames.remove(0); // the image, as the model sees it
    Ok(frames)
}

/// The command with what it leaves out taken from the video: its record if it has one, its size and its speed. The seed
/// is not: it has been used.
fn with_parameters_of(args: &GenerateArgs, clip: &Path, info: &VideoInfo) -> Outcome<GenerateArgs> {
    let recorded = read_metadata(clip)?.is_some();
    let own = Settings {
        width: Some(info.width as usize),
        height: Some(info.height as usize),
        no_adjust_resolution: Some(true),
        fps: Some(f64::from(info.fps.0) / f64::from(info.fps.1.max(1))),
        // What was done to the frames of the clip is in it already.
        pingpong: Some(false),
        looped: Some(false),
        loop_count: Some(0),
        ..Settings::default()
    };
    let given = &args.settings;
    let seed = given.seed.or_else(|| Some(random_seed()));
    if given.seed.is_none() && !args.quiet {
        crate::progress::say(&format!(
            "seed {0} (chosen at random; repeat with --seed {0})",
            seed.unwrap_or_default()
        ));
    }
    Ok(GenerateArgs {
        from_video: recorded.then(|| clip.to_path_buf()),
        settings: Settings { seed, ..given.clone() }.or(own),
        ..args.clone()
    })
}

fn check_size(clip: &Path, info: &VideoInfo) -> Outcome {
    let fits = |side: u32| (side as usize).is_multiple_of(TOKEN_PIXELS);
    if fits(info.width) && fits(info.height) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--extend {}: found a video of {}x{}, expected multiples of {TOKEN_PIXELS}, which the model makes: scale or crop it first",
        clip.display(),
        info.width,
        info.height
    )))
}

fn writer(target: &Target<'_>, clip: &Path, info: &VideoInfo) -> Outcome<VideoWriter> {
    let name = clip.file_name().map(|name| name.to_string_lossy().into_owned());
    let record = target.record.clone().map(|record| Record { extends: name, ..record });
    let video = target.main.options_with(record.as_ref())?;
    Ok(VideoWriter::create(&target.main.path, info.width, info.height, video)?)
}

fn finish(writer: VideoWriter, target: &Target<'_>) -> Outcome {
    let start = Instant::now();
    target.reporter.on_event(&Event::Started { stage: Stage::Encode, total: 1 });
    let summary = writer.finish()?;
    target.reporter.on_event(&Event::Finished { stage: Stage::Encode, took: start.elapsed() });
    target.reporter.done(&summary.path, summary.frames, target.started.elapsed());
    Ok(())
}

/// What is left to make.
struct Left {
    segments: usize,
    /// Of the first of them.
    seed: u64,
    /// How many there were to make.
    of: usize,
}

/// Keeps the segments before the one that ended with `failure`. `more`: options that the rest needs.
fn stopped(failure: Failure, left: &Left, more: &str, writer: VideoWriter, target: &Target<'_>) -> Failure {
    let why = if failure.code == INTERRUPTED { "stopped".into() } else { failure.line() };
    let Left { segments, seed, of } = left;
    let place = format!("segment {} of {of}: {why}", of - segments + 1);
    if segments == of {
        return Failure { message: format!("{place}; nothing was made"), ..failure };
    }
    let message = match finish(writer, target) {
        Ok(()) => format!(
            "{place}; the segments before it are kept: go on with wan-run --extend {} --segments {segments} --seed \
             {seed}{more}",
            quoted(&target.main.path)
        ),
        Err(error) => format!("{place}; the segments before it could not be written: {}", error.line()),
    };
    // What has begun was no usage error.
    let code = if failure.code == USAGE { RUN } else { failure.code };
    Failure { message, code, kept: false }
}

/// The options that neither the output's record nor the defaults give the command that goes on.
fn more_options(
    settings: &Settings,
    options: &Options,
    target: &Target<'_>,
    session: &Session<'_>,
) -> Outcome<String> {
    let args = target.args;
    let model = Settings { model: settings.model.clone(), ..Settings::default() };
    let defaults = user_defaults(args.config.as_deref())?;
    let known = match options.metadata {
        true => Record::new(options).settings()?,
        false => Record::new(&resolve(model.or(defaults), &session.registry)?).settings()?,
    };
    let known = Settings { model: known.model.filter(|_| options.metadata), ..known };
    let needed = Settings {
        // The video has its size and speed, and the seed is named anyway.
        width: None,
        height: None,
        no_adjust_resolution: None,
        looped: None,
        fps: None,
        seed: None,
        // What the output's extension says, unless it was an option.
        format: args.settings.format.clone(),
        ..settings.clone()
    };
    let (known, mut needed) = (known.entries(), needed.entries());
    needed.retain(|name, value| known.get(name) != Some(value));
    let config = args.config.as_ref().map(|path| format!(" --config {}", quoted(path)));
    Ok(command_options(&needed) + &config.unwrap_or_default())
}

/// Settings by name as a shell takes them, each with a space before it.
fn command_options(settings: &Map<String, Value>) -> String {
    let option = |(name, value): (&String, &Value)| match value {
        Value::Bool(true) => format!(" --{name}"),
        Value::Bool(false) => format!(" --{name}=false"),
        Value::Array(values) if values.is_empty() => format!(" --{name} none"),
        Value::Array(values) => values.iter().map(|value| with_value(name, value)).collect(),
        value => with_value(name, value),
    };
    settings.iter().map(option).collect()
}

fn with_value(name: &str, value: &Value) -> String {
    match value {
        // What begins with a dash is a value only so.
        Value::String(text) if text.starts_with('-') => format!(" --{name}={}", shell_word(text)),
        Value::String(text) => format!(" --{name} {}", shell_word(text)),
        other => format!(" --{name} {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_options() {
        let settings = Settings {
            prompt: Some("it's  calm".into()),
            model: Some("tiny".into()),
            lora: Some(vec!["a.safetensors:0.5".into(), "b c".into()]),
            cfg: Some(2.5),
            fast: Some(true),
            pingpong: Some(false),
            negative_prompt: Some(String::new()),
            ..Settings::default()
        };
        let options = command_options(&settings.entries());
        let expected = [
            r" --prompt 'it'\''s  calm'",
            " --negative-prompt ''",
            " --model tiny",
            " --lora a.safetensors:0.5 --lora 'b c'",
            " --cfg 2.5",
            " --fast",
            " --pingpong=false",
        ];
        assert!(expected.iter().all(|part| options.contains(part)), "{options}");
        assert_eq!(options.len(), expected.iter().map(|part| part.len()).sum::<usize>());
        assert_eq!(
            command_options(&Settings { lora: Some(Vec::new()), ..Settings::default() }.entries()),
            " --lora none"
        );
        let dash = Settings { prompt: Some("-x".into()), ..Settings::default() };
        assert_eq!(command_options(&dash.entries()), " --prompt=-x");
        assert_eq!(quoted(Path::new("-a.mp4")), "./-a.mp4");
    }
}
