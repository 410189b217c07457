//! Where outputs go: names, and checks before any work is done.

use std::path::{Path, PathBuf};

use wan_media::{MediaError, OutputFormat, VideoOptions, check_destination};

use crate::error::{Failure, Outcome};

/// Highest number in a generated name.
const MAX_NUMBER: u32 = 99_999;

/// The output: as named, or the first free `PREFIX_NNNNN.EXT`, one above the highest number in use.
///
/// Errors: exit 2 if its folder is missing, or it exists and may not be replaced.
pub fn choose(named: Option<&Path>, prefix: &str, video: &VideoOptions, overwrite: bool) -> Outcome<PathBuf> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => numbered(prefix, video.format)?,
    };
    check_destination(&path, video.format, overwrite)?;
    Ok(path)
}

/// Checks a further output file (latents, contact sheet, preview): its folder must exist, and the file must not,
/// unless `overwrite`.
///
/// Errors: exit 2.
pub fn check_file(path: Option<&Path>, overwrite: bool) -> Outcome {
    path.map_or(Ok(()), |path| Ok(check_destination(path, OutputFormat::Rgb, overwrite)?))
}

fn numbered(prefix: &str, format: OutputFormat) -> Outcome<PathBuf> {
    let prefix = Path::new(prefix);
    let folder = prefix.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stem = prefix
        .file_name()
        .ok_or_else(|| {
            Failure::usage(format!("output prefix {}: found no file name, expected one", prefix.display()))
        })?
        .to_string_lossy();
    let missing = || MediaError::MissingFolder { path: prefix.to_path_buf(), folder: folder.to_path_buf() };
    let entries = std::fs::read_dir(folder).map_err(|_| missing())?;
    let number = entries
        .flatten()
        .filter_map(|e| {
            let name = e.file_name();
            let rest =
                name.to_str()?.strip_prefix(stem.as_ref())?.strip_prefix('_')?.get(..5)?.parse::<u32>();
            rest.ok()
        })
        .max()
        .map_or(1, |n| n + 1);
    if number > MAX_NUMBER {
        return Err(Failure::usage(format!(
            "output prefix {}: all {MAX_NUMBER} numbers are in use",
            prefix.display()
        )));
    }
    let extension = if format == OutputFormat::Png { String::new() } else { format!(".{format}") };
    let name = format!("{stem}_{number:05}{extension}");
    Ok(match prefix.parent() {
        Some(parent) => parent.join(name),
        None => PathBuf::from(name),
    })
}

/// The resume file of an output: `NAME.resume.safetensors` beside it.
pub fn resume_file(output: &Path) -> PathBuf {
    output.with_extension("resume.safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_after_the_highest() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("clip");
        let name = |format| numbered(prefix.to_str().unwrap(), format).unwrap();
        assert_eq!(name(OutputFormat::Mp4), dir.path().join("clip_00001.mp4"));
        for taken in ["clip_00007.mp4", "clip_00003.gif", "other_00050.mp4", "clip_x.mp4", "clip_00009"] {
            std::fs::write(dir.path().join(taken), b"").unwrap();
        }
        assert_eq!(name(OutputFormat::Gif), dir.path().join("clip_00010.gif"));
        assert_eq!(name(OutputFormat::Png), dir.path().join("clip_00010"));
        assert!(numbered("/no/such/folder/clip", OutputFormat::Mp4).is_err());
    }
}
