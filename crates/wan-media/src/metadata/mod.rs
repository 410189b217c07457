//! The JSON record of how an output was made, kept inside of the file itself.
//!
//! | format | place |
//! |---|---|
//! | mp4 | metadata key `wan-run` (`moov/meta/keys`, written with FFmpeg's `use_metadata_tags`) |
//! | png | `tEXt` (ASCII) or `iTXt` chunk with the keyword `wan-run`; in a folder of frames, of the first |
//! | gif | a comment extension `wan-run:{json}` before the trailer |
//! | webp | EXIF `ImageDescription` with the value `wan-run:{json}` |
//! | rgb | none: bare frames have no place for it |

mod gif;
mod webp;

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::atomic::frame_name;
use crate::error::{MediaError, Result, one_line};
#[cfg(feature = "ffmpeg")]
use crate::video::OutputFormat;

/// The key of the record. `prompt` and `workflow` belong to ComfyUI.
pub const METADATA_KEY: &str = "wan-run";

/// Tells our record from other text, where the format has no keys.
const PREFIX: &str = "wan-run:";

/// Reads the record back from an mp4, gif, webp or PNG file, or from a folder of PNG frames; `None`
/// where the file holds none.
///
/// # Errors
/// [`MediaError::NotFound`], [`MediaError::Read`], [`MediaError::Video`] for a file that is none of
/// these, or [`MediaError::NoFfmpeg`] for a video in a build without FFmpeg.
pub fn read_metadata(path: &Path) -> Result<Option<String>> {
    let path: PathBuf = if path.is_dir() { path.join(frame_name(1)) } else { path.to_path_buf() };
    let mut file = File::open(&path).map_err(|error| MediaError::read(&path, error))?;
    let mut magic = [0; 12];
    let mut filled = 0;
    while filled < magic.len() {
        match file.read(&mut magic[filled..]).map_err(|error| MediaError::read(&path, error))? {
            0 => break,
            n => filled += n,
        }
    }
    let whole = || fs::read(&path).map_err(|error| MediaError::read(&path, error));
    if magic.starts_with(b"\x89PNG") {
        read_png(&path)
    } else if magic.starts_with(b"GIF8") {
        Ok(gif::read(&whole()?))
    } else if magic.starts_with(b"RIFF") && &magic[8..] == b"WEBP" {
        Ok(webp::read(&whole()?))
    } else {
        read_video(&path)
    }
}

fn read_png(path: &Path) -> Result<Option<String>> {
    let broken = |error: png::DecodingError| MediaError::Decode {
        name: path.display().to_string(),
        format: "PNG",
        reason: one_line(error),
    };
    let file = File::open(path).map_err(|error| MediaError::read(path, error))?;
    let reader = png::Decoder::new(BufReader::new(file)).read_info().map_err(broken)?;
    let info = reader.info();
    if let Some(chunk) = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == METADATA_KEY) {
        return Ok(Some(chunk.text.clone()));
    }
    let chunk = info.utf8_text.iter().find(|chunk| chunk.keyword == METADATA_KEY);
    chunk.map(|chunk| chunk.get_text().map_err(broken)).transpose()
}

#[cfg(feature = "ffmpeg")]
fn read_video(path: &Path) -> Result<Option<String>> {
    crate::probe::container_metadata(path, METADATA_KEY)
}

#[cfg(not(feature = "ffmpeg"))]
fn read_video(path: &Path) -> Result<Option<String>> {
    Err(MediaError::NoFfmpeg { what: format!("reading {}", path.display()) })
}

/// Rewrites a finished gif or webp file with the record and its number of plays (`plays`, 0 without
/// end; webp only). Other formats keep theirs elsewhere.
#[cfg(feature = "ffmpeg")]
pub(crate) fn embed(
    file: &Path,
    format: OutputFormat,
    size: (u32, u32),
    record: Option<&str>,
    plays: u32,
) -> std::io::Result<()> {
    let text = record.map(|record| format!("{PREFIX}{record}"));
    let bytes = match format {
        OutputFormat::Gif => match &text {
            Some(text) => gif::with_comment(fs::read(file)?, text),
            None => return Ok(()),
        },
        OutputFormat::Webp => webp::with_record(&fs::read(file)?, size, text.as_deref(), plays),
        _ => return Ok(()),
    };
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "unexpected file structure");
    fs::write(file, bytes.ok_or_else(invalid)?)
}
