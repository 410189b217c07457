//! Progress on the terminal: bars, lines, JSON, or nothing.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use wan_core::progress::{Event, Observer, Stage};
use wan_media::preview::{LATENT_STRIDE, Upscale, upscale};
use wan_media::{RgbImage, write_png};

use crate::cli::ProgressMode;
use crate::output::PREVIEW_RECORD;

/// How many latent frames stand side by side in a preview.
const PREVIEW_FRAMES: usize = 4;

enum Style {
    Bars(Mutex<Option<ProgressBar>>),
    Lines,
    Json,
    Silent,
}

/// Shows the events of a job. Everything but JSON goes to standard error.
pub struct Reporter {
    style: Style,
    preview: Option<PathBuf>,
    /// Entries that every JSON event has, such as which line of a batch it belongs to.
    scope: Mutex<Map<String, Value>>,
}

impl Reporter {
    /// A reporter; with `preview`, a PNG there is renewed after each denoising step.
    pub fn new(mode: ProgressMode, quiet: bool, preview: Option<PathBuf>) -> Self {
        let style = match mode {
            ProgressMode::Json => Style::Json,
            ProgressMode::None => Style::Silent,
            ProgressMode::Auto if quiet => Style::Silent,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Style::Bars(Mutex::new(None)),
            ProgressMode::Auto => Style::Lines,
        };
        Self { style, preview, scope: Mutex::default() }
    }

    /// Puts `entries` into every JSON event from now on, instead of those before.
    pub fn set_scope(&self, entries: Map<String, Value>) {
        *self.scope.lock().unwrap_or_else(|e| e.into_inner()) = entries;
    }

    /// An event of the caller's: an object for JSON, a line for people where they are told anything.
    pub fn tell(&self, event: &Value, text: Option<&str>) {
        match (&self.style, text) {
            (Style::Json, _) => self.print_json(event),
            (_, Some(text)) => self.note(text),
            _ => {}
        }
    }

    fn print_json(&self, event: &Value) {
        let mut event = event.clone();
        if let Value::Object(entries) = &mut event {
            let scope = self.scope.lock().unwrap_or_else(|e| e.into_inner());
            entries.extend(scope.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        // A job goes on where standard output takes nothing.
        let _ = crate::print_line(&event.to_string());
    }

    /// A line for the user, such as an adjusted value.
    pub fn note(&self, text: &str) {
        self.on_event(&Event::Note(text));
    }

    /// The job's end: the path on standard output, or the last JSON event.
    pub fn done(&self, output: &std::path::Path, frames: u64, took: Duration) {
        let path = output.display().to_string();
        match self.style {
            Style::Json => self.print_json(
                &json!({"event": "done", "output": path, "frames": frames, "seconds": seconds(took)}),
            ),
            _ => {
                let _ = crate::print_line(&path);
            }
        }
    }

    fn write_preview(&self, step: usize, width: usize, height: usize, frames: &[Vec<u8>]) {
        let Some(path) = &self.preview else { return };
        if let Err(error) =
            preview_picture(width, height, frames).and_then(|p| write_png(path, &p, Some(PREVIEW_RECORD)))
        {
            self.note(&format!("preview of step {step} not written: {error}"));
        }
    }
}

impl Observer for Reporter {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Preview { step, width, height, frames } = event {
            self.write_preview(*step, *width, *height, frames);
            return;
        }
        match &self.style {
            Style::Silent => {}
            Style::Json => {
                if let Some(value) = json_event(event) {
                    self.print_json(&value);
                }
            }
            Style::Lines => lines(event),
            Style::Bars(bar) => bars(bar, event),
        }
    }

    fn wants_previews(&self) -> bool {
        self.preview.is_some()
    }
}

/// A line on standard error; nobody may be listening any more.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Standard output may be a closed pipe: that is the reader's choice, not an error.
fn json_event(event: &Event<'_>) -> Option<serde_json::Value> {
    Some(match event {
        Event::Started { stage, total } => json!({"event": "started", "stage": stage.name(), "total": total}),
        Event::Step { stage, step, total, took } => {
            json!({"event": "step", "stage": stage.name(), "step": step, "total": total, "seconds": seconds(*took)})
        }
        Event::Finished { stage, took } => {
            json!({"event": "finished", "stage": stage.name(), "seconds": seconds(*took)})
        }
        Event::Passes { per_step } => json!({"event": "passes", "per_step": per_step}),
        Event::Note(text) => json!({"event": "note", "text": text}),
        Event::Preview { .. } => return None,
    })
}

fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::EncodeText => "reading the prompts",
        Stage::EncodeImage => "looking at the image",
        Stage::EncodeCondition => "encoding the image",
        Stage::Denoise => "denoising",
        Stage::Decode => "decoding",
        Stage::Encode => "writing the video",
    }
}

fn lines(event: &Event<'_>) {
    match event {
        Event::Step { stage: Stage::Denoise, step, total, took } => {
            say(&format!("denoising: step {step} of {total}, {:.2} s", took.as_secs_f64()));
        }
        Event::Finished { stage, took } => say(&format!("{}: {:.2} s", title(*stage), took.as_secs_f64())),
        Event::Passes { per_step } => say(&passes(per_step)),
        Event::Note(text) => say(text),
        _ => {}
    }
}

fn bars(current: &Mutex<Option<ProgressBar>>, event: &Event<'_>) {
    // A panic elsewhere must not silence the progress.
    let mut current = current.lock().unwrap_or_else(|e| e.into_inner());
    match event {
        Event::Started { stage, total } => {
            let bar = ProgressBar::with_draw_target(Some(*total as u64), ProgressDrawTarget::stderr());
            bar.set_style(bar_style());
            bar.set_prefix(title(*stage));
            bar.enable_steady_tick(Duration::from_millis(200));
            *current = Some(bar);
        }
        Event::Step { step, took, .. } => {
            if let Some(bar) = current.as_ref() {
                bar.set_message(format!("{:.2} s/step", took.as_secs_f64()));
                bar.set_position(*step as u64);
            }
        }
        Event::Finished { .. } => {
            if let Some(bar) = current.take() {
                bar.finish();
            }
        }
        Event::Passes { per_step } => above(current.as_ref(), &passes(per_step)),
        Event::Note(text) => above(current.as_ref(), text),
        Event::Preview { .. } => {}
    }
}

/// A line above the bar.
fn above(bar: Option<&ProgressBar>, line: &str) {
    match bar {
        Some(bar) => bar.suspend(|| say(line)),
        None => say(line),
    }
}

/// What the steps that take fewer passes of the model save.
fn passes(per_step: &[usize]) -> String {
    let (taken, most) =
        (per_step.iter().sum::<usize>(), per_step.iter().max().unwrap_or(&0) * per_step.len());
    let each: Vec<String> = per_step.iter().map(ToString::to_string).collect();
    format!("{taken} of {most} passes of the model, in each step: {}", each.join(" "))
}

/// One line of a terminal with 80 columns.
const BAR: &str = "{prefix:20} [{wide_bar}] {pos:>3}/{len:<3} {msg:13} {elapsed} elapsed, {eta} left";

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template(BAR)
        .map(|s| s.progress_chars("=> "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Evenly spaced latent frames side by side, scaled up to the video's size.
fn preview_picture(width: usize, height: usize, frames: &[Vec<u8>]) -> wan_media::Result<RgbImage> {
    let shown = frames.len().clamp(1, PREVIEW_FRAMES);
    let picked: Vec<&Vec<u8>> =
        (0..shown).filter_map(|i| frames.get(i * (frames.len() - 1) / (shown - 1).max(1))).collect();
    let row = width * 3;
    let data = (0..height)
        .flat_map(|y| picked.iter().flat_map(move |f| f[y * row..(y + 1) * row].to_vec()))
        .collect();
    let strip = RgbImage::new((width * picked.len()) as u32, height as u32, data)?;
    upscale(&strip, LATENT_STRIDE, Upscale::Bilinear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fits_80_columns() {
        // What stands for each part at its widest: a time is `59m`, the bar takes what is left.
        let parts = [
            ("{prefix:20}", 20),
            ("{wide_bar}", 8),
            ("{pos:>3}", 3),
            ("{len:<3}", 3),
            ("{msg:13}", "999.99 s/step".len()),
            ("{elapsed}", 3),
            ("{eta}", 3),
        ];
        let fixed = parts.iter().fold(BAR.to_string(), |text, (key, _)| {
            assert!(text.contains(key), "{key}");
            text.replace(key, "")
        });
        let widest = fixed.len() + parts.iter().map(|(_, width)| width).sum::<usize>();
        assert!(!fixed.contains('{') && widest <= 80, "{widest}");
        for stage in [
            Stage::EncodeText,
            Stage::EncodeImage,
            Stage::EncodeCondition,
            Stage::Denoise,
            Stage::Decode,
            Stage::Encode,
        ] {
            assert!(title(stage).len() <= 20, "{}", title(stage));
        }
    }
}
