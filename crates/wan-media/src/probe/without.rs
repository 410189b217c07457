//! In a build without FFmpeg no video can be read.

use std::path::Path;

use super::VideoInfo;
use crate::error::{MediaError, Result};
use crate::frame::RgbImage;

/// That there is no library that reads and writes videos.
pub fn library_version() -> String {
    "no FFmpeg".into()
}

/// # Errors
/// [`MediaError::NoFfmpeg`].
pub fn probe(path: &Path) -> Result<VideoInfo> {
    Err(no_ffmpeg(path))
}

/// # Errors
/// As [`probe`].
pub fn decode_frames(path: &Path) -> Result<Vec<RgbImage>> {
    Err(no_ffmpeg(path))
}

fn no_ffmpeg(path: &Path) -> MediaError {
    MediaError::NoFfmpeg { what: format!("reading {}", path.display()) }
}
