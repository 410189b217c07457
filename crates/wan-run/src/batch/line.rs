//! One line of a batch file.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::options::user_defaults;
use crate::settings::Settings;

/// A job of a batch.
pub(super) struct Line {
    /// The command that it stands for.
    pub args: GenerateArgs,
    /// Digest of everything that decides what its video shows and where it goes.
    pub key: String,
}

/// Options of a line that a defaults file cannot have.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Files {
    image: Option<PathBuf>,
    end_image: Option<PathBuf>,
    output: Option<PathBuf>,
    noise: Option<PathBuf>,
    save_latents: Option<PathBuf>,
    contact_sheet: Option<PathBuf>,
}

/// Keys of [`Files`].
const FILES: [&str; 6] = ["image", "end-image", "output", "noise", "save-latents", "contact-sheet"];

impl Line {
    /// Reads a line; what it leaves out comes from the command line.
    ///
    /// Errors: exit 2 for what is no JSON object, and for a key that is no option.
    pub fn read(text: &str, base: &GenerateArgs) -> Outcome<Self> {
        let wrong = |reason: String| Failure::usage(format!("not a job: {reason}"));
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|e| {
            wrong(format!(
                "found no JSON object (wrong from column {} on), expected one such as {{\"prompt\": \"it turns\"}}",
                e.column()
            ))
        })?;
        let (files, settings): (Map<_, _>, Map<_, _>) =
            object.into_iter().partition(|(key, _)| FILES.contains(&key.as_str()));
        for (key, value) in &files {
            if !(value.is_string() || value.is_null()) {
                return Err(wrong(format!("{key}: found {value}, expected a file's name")));
            }
        }
        let files: Files = serde_json::from_value(files.into()).map_err(|e| wrong(e.to_string()))?;
        let one = |key: String, value: Value| {
            serde_json::from_value(Map::from_iter([(key, value)]).into()).map_err(|e| e.to_string())
        };
        let settings = Settings::of_entries(settings, one, &FILES).map_err(wrong)?;
        let named = files.output.is_some() && base.format_is_workflows;
        let inherited =
            Settings { format: base.settings.format.clone().filter(|_| !named), ..base.settings.clone() };
        let args = GenerateArgs {
            batch: None,
            image: files.image.or_else(|| base.image.clone()),
            end_image: files.end_image.or_else(|| base.end_image.clone()),
            // A name is that of one video.
            further: if files.output.is_some() { Vec::new() } else { base.further.clone() },
            output: files.output,
            noise: files.noise.or_else(|| base.noise.clone()),
            save_latents: files.save_latents,
            contact_sheet: files.contact_sheet,
            settings: settings.or(inherited),
            ..base.clone()
        };
        let key = key(&args)?;
        Ok(Self { args: GenerateArgs { batch_key: Some(key.clone()), ..args }, key })
    }

    /// The command that goes on with this line's job from a resume file.
    pub fn resumed(&self, resume: &Path) -> GenerateArgs {
        GenerateArgs {
            resume: Some(resume.to_path_buf()),
            overwrite: self.args.overwrite,
            preview: self.args.preview.clone(),
            quiet: self.args.quiet,
            progress: self.args.progress,
            settings: self.args.settings.clone().place(),
            ..GenerateArgs::default()
        }
    }
}

/// SHA-256 of what a job is, the contents of its input files included and the place where it runs left out.
fn key(args: &GenerateArgs) -> Outcome<String> {
    let made = args.settings.clone().or(user_defaults(args.config.as_deref())?).without_place();
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(&made.entries()).map_err(Failure::run)?);
    let inputs = [&args.image, &args.end_image, &args.noise, &args.from_video, &args.workflow];
    for input in inputs {
        // A file that cannot be read makes the job fail, and tells why.
        let content = input.as_ref().and_then(|path| std::fs::read(path).ok());
        digest.update(content.map(Sha256::digest).unwrap_or_default());
    }
    for output in [&args.output, &args.save_latents, &args.contact_sheet] {
        digest.update(Sha256::digest(
            output.as_ref().map_or(&b""[..], |path| path.as_os_str().as_encoded_bytes()),
        ));
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<Line> {
        let settings = Settings { steps: Some(4), seed: Some(1), ..Settings::default() };
        Line::read(
            text,
            &GenerateArgs { image: Some("base.png".into()), settings, ..GenerateArgs::default() },
        )
    }

    #[test]
    fn a_line_overrides_the_command() {
        let line =
            read(r#"{"prompt": "a", "steps": 9, "image": "own.png", "end-image": "end.png"}"#).unwrap();
        assert_eq!((line.args.settings.steps, line.args.settings.seed), (Some(9), Some(1)));
        assert_eq!(line.args.image.as_deref(), Some(Path::new("own.png")));
        assert_eq!(line.args.end_image.as_deref(), Some(Path::new("end.png")));
        assert_eq!(read("{}").unwrap().args.image.as_deref(), Some(Path::new("base.png")));
    }

    #[test]
    fn what_is_no_job_is_refused() {
        for (text, message) in [
            ("[1]", "not a job"),
            ("{\"stepz\": 1}", "unknown key `stepz` (did you mean `steps`?)"),
            ("{\"seed\": -1}", "seed: found -1, expected 0 to 18446744073709551615"),
            ("{\"image\": 5}", "image: found 5, expected a file's name"),
            ("{\"imag\": \"a.png\"}", "`image`"),
            (
                "{\"steps\": \"x\"}",
                "not a job: steps: found string \"x\", expected a whole number, 0 or above",
            ),
            ("{", "found no JSON object (wrong from column 1 on)"),
        ] {
            let failure = read(text).err().unwrap();
            assert!(failure.message.contains(message), "{}", failure.message);
        }
    }

    #[test]
    fn the_key_follows_what_is_made_and_not_where() {
        let key = |text: &str| read(text).unwrap().key;
        assert_eq!(key(r#"{"prompt": "a"}"#), key(r#"{"prompt": "a", "device": "cpu", "max-ram": "9GB"}"#));
        for other in
            [r#"{"prompt": "b"}"#, r#"{"prompt": "a", "seed": 2}"#, r#"{"prompt": "a", "output": "x.mp4"}"#]
        {
            assert_ne!(key(r#"{"prompt": "a"}"#), key(other));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.png");
        let line = format!("{{\"image\": {path:?}}}");
        std::fs::write(&path, "one").unwrap();
        let before = key(&line);
        std::fs::write(&path, "two").unwrap();
        assert_ne!(before, key(&line), "the same name, another image");
    }
}
