//! Frames to files, and files to what clients are told of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wan_core::progress::CancelToken;
use wan_media::{OutputFormat, RgbImage, VideoOptions, VideoWriter, write_png_with_texts};

use super::failure::JobError;
use super::frames::Frames;
use super::job::{SaveKind, SaveNode};
use super::publish::{Finished, Place};
use super::state::RowState;

/// One output node's files in the job's folder.
pub(super) struct OutputFiles<'a> {
    save: &'a SaveNode,
    /// The video, or the folder of frames.
    main: PathBuf,
    /// The first frame.
    still: PathBuf,
}

/// Texts that go into files, by key.
pub(super) type Texts = Vec<(String, String)>;

impl<'a> OutputFiles<'a> {
    /// Of the node that is number `index` in the job.
    pub fn new(work: &Path, index: usize, save: &'a SaveNode) -> Self {
        let extension = match save.kind.video().format {
            OutputFormat::Png => "frames",
            format => format.name(),
        };
        Self {
            save,
            main: work.join(format!("{index}.{extension}")),
            still: work.join(format!("{index}.png")),
        }
    }

    /// Whether they are there, and whole: the main one is made last, and appears when it is.
    pub fn exist(&self) -> bool {
        self.main.exists()
    }

    /// Makes them. `step` is told the number of frames done.
    ///
    /// Errors: those of writing; [`JobError::Stopped`].
    pub fn make(
        &self,
        frames: &Frames,
        texts: &Texts,
        step: &dyn Fn(usize),
        cancel: &CancelToken,
    ) -> Result<(), JobError> {
        if matches!(self.save.kind, SaveKind::Combined { first_frame: true, .. }) {
            self.make_still(frames, texts)?;
        }
        // The creation time is the PNG's own.
        let tags: Texts = texts.iter().filter(|(key, _)| key != CREATION_TIME).cloned().collect();
        let keep_tags = !matches!(self.save.kind, SaveKind::Combined { save_metadata: false, .. });
        let tags = if keep_tags { tags } else { Texts::new() };
        let options = VideoOptions { overwrite: true, tags, ..self.save.kind.video() };
        let mut writer = VideoWriter::create(&self.main, frames.width, frames.height, options)?;
        let mut done = 0;
        frames.each(|frame| {
            cancel.check().map_err(|_| JobError::Stopped)?;
            writer.push(frame)?;
            done += 1;
            step(done);
            Ok(())
        })?;
        writer.finish()?;
        Ok(())
    }

    fn make_still(&self, frames: &Frames, texts: &Texts) -> Result<(), JobError> {
        let first = frames.first()?;
        let picture = RgbImage::new(frames.width, frames.height, first)?;
        let texts: Vec<_> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        Ok(write_png_with_texts(&self.still, &picture, &texts)?)
    }

    /// Gives them their names below `root` and returns what clients are told.
    pub fn publish(&self, root: &Path, node: &str, row: &RowState<'_>) -> Result<Value, JobError> {
        let place = Place::new(root, &self.save.prefix)?;
        let names = place.publish(&self.finished()?, row.number(node), |n| row.set_number(node, n))?;
        let folder = self.save.folder.name();
        let file = |name: &String| json!({"filename": name, "subfolder": place.subfolder, "type": folder});
        Ok(match &self.save.kind {
            SaveKind::Combined { video, format, first_frame, .. } => {
                let name = &names[names.len() - 1];
                let still = if *first_frame { names[0].clone() } else { with_extension(name, "png") };
                let path = [folder, &place.subfolder, name].into_iter().filter(|part| !part.is_empty());
                let mut told = file(name);
                told["format"] = json!(format);
                told["frame_rate"] = json!(video.fps.as_f64());
                told["workflow"] = json!(still);
                told["fullpath"] = json!(path.collect::<Vec<_>>().join("/"));
                json!({"gifs": [told]})
            }
            SaveKind::Video { .. } => json!({"images": [file(&names[0])], "animated": [true]}),
            SaveKind::Frames => json!({"images": names.iter().map(file).collect::<Vec<_>>()}),
        })
    }

    fn finished(&self) -> Result<Vec<Finished>, JobError> {
        let extension = self.save.kind.video().format.name();
        let one = |work: &PathBuf, ending: String| Finished { work: work.clone(), offset: 0, ending };
        Ok(match &self.save.kind {
            SaveKind::Combined { first_frame, .. } => {
                let still = first_frame.then(|| one(&self.still, ".png".into()));
                still.into_iter().chain([one(&self.main, format!(".{extension}"))]).collect()
            }
            SaveKind::Video { .. } => vec![one(&self.main, format!("_.{extension}"))],
            SaveKind::Frames => {
                let failed = |e| JobError::io(&self.main, e);
                let entries = fs::read_dir(&self.main).map_err(failed)?;
                let mut paths =
                    entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
                paths.sort();
                let numbered = (0..).zip(paths);
                numbered.map(|(offset, work)| Finished { work, offset, ending: "_.png".into() }).collect()
            }
        })
    }
}

fn with_extension(name: &str, extension: &str) -> String {
    Path::new(name).with_extension(extension).to_string_lossy().into_owned()
}

const CREATION_TIME: &str = "CreationTime";

/// What ComfyUI embeds in its outputs: the graph as `prompt`, each key of `extra_pnginfo` (the user's workflow, most of
/// the time), and when the job was accepted, which does not change when it runs again.
pub(super) fn texts(prompt: &str, extra_data: &Value, submitted_ms: i64) -> Texts {
    let mut texts = vec![("prompt".to_owned(), prompt.to_owned())];
    let extra = extra_data.get("extra_pnginfo").and_then(Value::as_object);
    for (key, value) in extra.into_iter().flatten() {
        // What PNG's keywords may be.
        let fits = (1..=79).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if fits && texts.iter().all(|(there, _)| there != key) && key != CREATION_TIME {
            texts.push((key.clone(), value.to_string()));
        }
    }
    let time = jiff::Timestamp::from_millisecond(submitted_ms).unwrap_or_default();
    let time = time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    texts.push((CREATION_TIME.to_owned(), time));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_graph_the_workflow_and_the_time() {
        let extra =
            json!({"extra_pnginfo": {"workflow": {"b": 1, "a": 2}, "prompt": "x", "no key": 1, "": 2}});
        let texts = texts("{}", &extra, 0);
        let keys: Vec<_> = texts.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["prompt", "workflow", CREATION_TIME]);
        assert_eq!(texts[1].1, r#"{"b":1,"a":2}"#);
        assert_eq!(texts[2].1.len(), "1970-01-01 00:00:00".len());
    }
}
