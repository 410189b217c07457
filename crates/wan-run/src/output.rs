//! Where outputs go: names, and checks before any work is done.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use wan_media::{MediaError, OutputFormat, Reservation, VideoOptions, check_destination, read_metadata};

use crate::error::{Failure, Outcome};

/// Start of the names of outputs that are not named.
pub const DEFAULT_PREFIX: &str = "wan-run";

/// Highest number in a generated name.
const MAX_NUMBER: u32 = 99_999;

/// The output: as named, or the first free `PREFIX_NNNNN.EXT`, one above the highest number in use.
///
/// It is reserved: of two jobs that run at once, each gets a number of its own.
///
/// Errors: exit 2 if its folder is missing, or it exists and may not be replaced; exit 1 if nothing can be written
/// there, or another job is making it.
pub fn choose(
    named: Option<&Path>,
    prefix: &str,
    video: &VideoOptions,
    overwrite: bool,
) -> Outcome<(PathBuf, Reservation)> {
    let path = match named {
        Some(path) if ends_with_slash(path.as_os_str()) && video.format != OutputFormat::Png => {
            let found = path.display();
            return Err(Failure::usage(format!("output {found}: found a folder's name, expected a file's")));
        }
        Some(path) => path.to_path_buf(),
        None => return numbered(prefix, video.format),
    };
    check_destination(&path, video.format, overwrite)?;
    let reserved = Reservation::take(&path)?.ok_or_else(|| {
        Failure::run(format!("{}: another job is making it, expected a name of its own", path.display()))
    })?;
    Ok((path, reserved))
}

/// Checks a further output file (latents, contact sheet): its folder must exist, and the file must not,
/// unless `overwrite`.
///
/// Errors: exit 2.
pub fn check_file(path: Option<&Path>, overwrite: bool) -> Outcome {
    path.map_or(Ok(()), |path| Ok(check_destination(path, OutputFormat::Rgb, overwrite)?))
}

/// What a preview says of itself, where other pictures say how they were made.
pub const PREVIEW_RECORD: &str = r#"{"preview":true}"#;

/// Checks the preview: as [`check_file`], but it may take the place of an earlier preview.
pub fn check_preview(path: Option<&Path>, overwrite: bool) -> Outcome {
    let is_preview = |path: &Path| {
        path.is_file() && matches!(read_metadata(path), Ok(Some(text)) if text == PREVIEW_RECORD)
    };
    check_file(path, overwrite || path.is_some_and(is_preview))
}

fn ends_with_slash(path: &OsStr) -> bool {
    path.as_encoded_bytes().ends_with(b"/")
}

/// The format of the output `named`: that of `--format` (`flag`), else what the name's extension says, else the
/// user's default, else mp4.
///
/// Errors: exit 2 if flag and extension contradict each other, or the extension is that of a format there is not.
pub fn format(named: Option<&Path>, flag: Option<&str>, default: Option<&str>) -> Outcome<String> {
    let path = named.unwrap_or(Path::new(""));
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let implied = match extension.as_deref() {
        Some("mp4" | "m4v") => Some("mp4"),
        Some(known @ ("webp" | "gif" | "png" | "rgb")) => Some(known),
        Some("mov" | "mkv" | "webm" | "avi" | "apng" | "avif" | "jpg" | "jpeg") if flag.is_none() => {
            return Err(Failure::usage(format!(
                "output {}: found extension .{}, expected .mp4, .webp, .gif or .rgb; or name a --format",
                path.display(),
                extension.unwrap_or_default()
            )));
        }
        _ => None,
    };
    match (flag, implied) {
        (Some(flag), Some(implied)) if flag != implied => Err(Failure::usage(format!(
            "output {}: found an extension that means {implied}, expected one of --format {flag}; change one of them",
            path.display()
        ))),
        (None, Some("png")) if default != Some("png") => Err(Failure::usage(format!(
            "output {}: found extension .png, expected .mp4, .webp or .gif; a folder of PNG files takes --format png",
            path.display()
        ))),
        (flag, implied) => {
            Ok(flag.or(implied).or(default).unwrap_or(OutputFormat::default().name()).to_string())
        }
    }
}

/// A file that a command names, and the option that names it.
pub type NamedFile<'a> = (&'static str, Option<&'a Path>);

/// Checks that no two of `outputs` are the same file, and none is one of `inputs`, which it would destroy.
///
/// Errors: exit 2.
pub fn check_distinct(outputs: &[NamedFile], inputs: &[NamedFile]) -> Outcome {
    let given = |files: &[NamedFile]| -> Vec<(&'static str, PathBuf)> {
        files.iter().filter_map(|(option, path)| Some((*option, identity((*path)?)))).collect()
    };
    let (outputs, inputs) = (given(outputs), given(inputs));
    for (i, (option, path)) in outputs.iter().enumerate() {
        if let Some((other, _)) = outputs[..i].iter().chain(&inputs).find(|(_, p)| p == path) {
            return Err(Failure::usage(format!(
                "{option}: found {}, which is also {other}, expected a file of its own",
                path.display()
            )));
        }
    }
    Ok(())
}

/// The same for two names of one file.
fn identity(path: &Path) -> PathBuf {
    let in_folder = || Some(std::fs::canonicalize(folder_of(path)).ok()?.join(path.file_name()?));
    std::fs::canonicalize(path).ok().or_else(in_folder).unwrap_or_else(|| path.to_path_buf())
}

fn numbered(prefix: &str, format: OutputFormat) -> Outcome<(PathBuf, Reservation)> {
    // A folder's name alone: the usual names in that folder.
    let inside = format!("{prefix}{DEFAULT_PREFIX}");
    let prefix = Path::new(if ends_with_slash(prefix.as_ref()) { inside.as_str() } else { prefix });
    let folder = folder_of(prefix);
    let stem = prefix
        .file_name()
        .ok_or_else(|| {
            Failure::usage(format!("output prefix {}: found no file name, expected one", prefix.display()))
        })?
        .to_string_lossy();
    let missing = || MediaError::MissingFolder { path: prefix.to_path_buf(), folder: folder.to_path_buf() };
    let entries = std::fs::read_dir(folder).map_err(|_| missing())?;
    let number = |name: &str| number_of(name.strip_prefix(stem.as_ref())?.strip_prefix('_')?);
    let first = entries.flatten().filter_map(|e| number(e.file_name().to_str()?)).max().map_or(1, |n| n + 1);
    let extension = if format == OutputFormat::Png { String::new() } else { format!(".{format}") };
    // After the highest; where that is the last one there is, in the gaps.
    for number in (first..=MAX_NUMBER).chain(1..first) {
        let path = prefix.with_file_name(format!("{stem}_{number:05}{extension}"));
        let reserved = Reservation::take(&path)?;
        // A job that ended since the folder was listed has let go of its number, and left its video.
        if let Some(reserved) = reserved.filter(|_| !path.exists()) {
            return Ok((path, reserved));
        }
    }
    Err(Failure::usage(format!("output prefix {}: all {MAX_NUMBER} numbers are in use", prefix.display())))
}

/// The number that a name has behind its prefix: five digits, and no more of them.
fn number_of(rest: &str) -> Option<u32> {
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    (digits == 5).then(|| rest[..digits].parse().ok()).flatten()
}

/// Where a job that makes `output` is kept if it stops: the first of `NAME.EXT.resume.safetensors`,
/// `NAME.EXT.resume-2.safetensors` and so on that no other job has. `resumed` is the job's own.
pub fn resume_file(output: &Path, resumed: Option<&Path>) -> PathBuf {
    let resumed = resumed.map(identity);
    let name = |number: u64| {
        let number = if number == 1 { String::new() } else { format!("-{number}") };
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".resume{number}.safetensors"));
        output.with_file_name(name)
    };
    let usable = |path: &PathBuf| !path.exists() || Some(identity(path)) == resumed;
    (1..).map(name).find(usable).unwrap_or_else(|| name(1))
}

/// The resume files beside `output` that are there.
pub fn resume_files(output: &Path) -> Vec<PathBuf> {
    let start = output.file_name().unwrap_or_default().as_encoded_bytes();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let number = name.strip_prefix(start).and_then(|rest| rest.strip_prefix(b".resume"));
        let number = number.and_then(|rest| rest.strip_suffix(b".safetensors"));
        number.is_some_and(|n| {
            n.is_empty() || n.strip_prefix(b"-").is_some_and(|n| n.iter().all(u8::is_ascii_digit))
        })
    };
    let Ok(entries) = std::fs::read_dir(folder_of(output)) else { return Vec::new() };
    let names = entries.flatten().map(|entry| output.with_file_name(entry.file_name()));
    let mut files: Vec<PathBuf> = names.filter(is_one).collect();
    files.sort();
    files
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A path as a shell takes it, behind an option.
pub fn quoted(path: &Path) -> String {
    // One that begins like an option would be taken for one.
    match path.to_str().filter(|text| text.starts_with('-')) {
        Some(text) => shell_word(&format!("./{text}")),
        None => shell_word(&path.display().to_string()),
    }
}

/// A text as a shell takes it.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_files_are_of_one_output_and_one_job() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(resume_file(&at("a.mp4"), None), at("a.mp4.resume.safetensors"));
        assert_eq!(resume_file(&at("shot.001/"), None), at("shot.001.resume.safetensors"));
        assert_eq!(resume_file(&at("a"), None), at("a.resume.safetensors"));
        let (first, second) = (at("a.mp4.resume.safetensors"), at("a.mp4.resume-2.safetensors"));
        for name in ["a.gif.resume.safetensors", "a.mp4.resume-x.safetensors", "a.mp4.resume", "a.mp4"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert_eq!(resume_files(&at("a.mp4")), Vec::<PathBuf>::new());
        std::fs::write(&first, "").unwrap();
        assert_eq!(resume_file(&at("a.mp4"), None), second, "another job's is left alone");
        assert_eq!(resume_file(&at("a.mp4"), Some(&first)), first, "its own is renewed");
        std::fs::write(&second, "").unwrap();
        assert_eq!(resume_file(&at("a.mp4"), Some(&second)), second);
        assert_eq!(resume_files(&at("a.mp4")), [second, first]);
    }

    #[test]
    fn numbers_go_on_after_the_highest() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("clip");
        let name = |format| numbered(prefix.to_str().unwrap(), format).unwrap().0;
        assert_eq!(name(OutputFormat::Mp4), dir.path().join("clip_00001.mp4"));
        let (first, _held) = numbered(prefix.to_str().unwrap(), OutputFormat::Mp4).unwrap();
        assert_eq!(
            (first, name(OutputFormat::Mp4)),
            (dir.path().join("clip_00001.mp4"), dir.path().join("clip_00002.mp4"))
        );
        for taken in ["clip_00007.mp4", "clip_00003.gif", "other_00050.mp4", "clip_x.mp4", "clip_00009"] {
            std::fs::write(dir.path().join(taken), b"").unwrap();
        }
        assert_eq!(name(OutputFormat::Gif), dir.path().join("clip_00010.gif"));
        assert_eq!(name(OutputFormat::Png), dir.path().join("clip_00010"));
        assert!(numbered("/no/such/folder/clip", OutputFormat::Mp4).is_err());
        let folder = format!("{}/", dir.path().display());
        assert_eq!(numbered(&folder, OutputFormat::Mp4).unwrap().0, dir.path().join("wan-run_00001.mp4"));
    }

    #[test]
    fn only_whole_numbers_count_and_gaps_are_used_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("clip");
        let next = || {
            let (path, _held) = numbered(prefix.to_str().unwrap(), OutputFormat::Mp4).unwrap();
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        for name in ["clip_20261130.mp4", "clip_+0007.mp4", "clip_0008.mp4", "clip_00001.mp4"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(next(), "clip_00002.mp4");
        std::fs::write(folder.path().join("clip_99999.mp4"), "").unwrap();
        assert_eq!(next(), "clip_00002.mp4");
    }

    #[test]
    fn the_format_follows_flag_extension_and_default() {
        let of =
            |name: &str, flag, default| format(Some(Path::new(name)), flag, default).map_err(|e| e.message);
        for (name, flag, default, expected) in [
            ("a", None, None, "mp4"),
            ("a", None, Some("gif"), "gif"),
            ("a.x", Some("webp"), None, "webp"),
            ("a.GIF", None, Some("webp"), "gif"),
            ("a.m4v", None, None, "mp4"),
            ("frames", Some("png"), None, "png"),
            ("frames.png", Some("png"), None, "png"),
            ("a.mov", Some("mp4"), None, "mp4"),
        ] {
            assert_eq!(of(name, flag, default).as_deref(), Ok(expected), "{name}");
        }
        for (name, flag, message) in [
            ("a.mp4", Some("gif"), "output a.mp4: found an extension that means mp4"),
            ("a.mov", None, "found extension .mov, expected .mp4"),
            ("a.png", None, "--format png"),
        ] {
            assert!(of(name, flag, None).unwrap_err().contains(message), "{name}");
        }
        assert_eq!(format(None, None, None).unwrap(), "mp4");
    }
}
