//! Which kinds of video can really be written: each is tried.

use wan_media::probe::probe;
use wan_media::{OutputFormat, PixelFormat, Result, VideoOptions, VideoWriter};

use super::report::{Check, Report};

const SIDE: u32 = 64;
const FRAMES: u64 = 3;

/// Writes a short video of each kind. Without mp4 nothing runs by default; the others are a matter of choice.
pub(super) fn check(report: &mut Report) {
    let kinds = [
        ("mp4", OutputFormat::Mp4, PixelFormat::Yuv420p),
        ("mp4, 10 bits", OutputFormat::Mp4, PixelFormat::Yuv420p10le),
        ("webp", OutputFormat::Webp, PixelFormat::Yuv420p),
        ("gif", OutputFormat::Gif, PixelFormat::Yuv420p),
    ];
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for (name, format, pixel_format) in kinds {
        match write(VideoOptions { format, pixel_format, ..VideoOptions::default() }) {
            Ok(codec) => written.push(format!("{name} ({codec})")),
            Err(error) => refused.push((name, error.to_string())),
        }
    }
    const NAME: &str = "codecs";
    report.add(match written.as_slice() {
        [] => Check::warn(NAME, "none", "see below"),
        written => Check::ok(NAME, written.join(", ")),
    });
    for (name, error) in refused {
        let found = format!("{name}: {error}");
        report.add(match name {
            "mp4" => {
                Check::fail(NAME, found, "install an FFmpeg with libx264, or use --format webp, gif or png")
            }
            _ => Check::warn(NAME, found, "install an FFmpeg that has it, or use another --format"),
        });
    }
}

/// Writes grey frames, and returns the codec that reading finds in the file.
fn write(options: VideoOptions) -> Result<String> {
    let failed = |e| wan_media::MediaError::Write { path: std::env::temp_dir(), source: e };
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join(format!("sample.{}", options.format));
    let animated = options.format == OutputFormat::Mp4;
    let mut writer = VideoWriter::create(&path, SIDE, SIDE, options)?;
    for shade in 0..FRAMES {
        writer.push(&vec![60 * shade as u8; (SIDE * SIDE * 3) as usize])?;
    }
    let written = writer.finish()?;
    if !animated {
        // Not every FFmpeg reads animated WebP.
        return Ok(format!("{} bytes", std::fs::metadata(&written.path).map_err(failed)?.len()));
    }
    let info = probe(&path)?;
    match (info.width, info.height, info.frames) {
        (SIDE, SIDE, FRAMES) => Ok(format!("{}, {}", info.codec, info.pixel_format)),
        (width, height, frames) => Err(wan_media::MediaError::Video {
            path,
            reason: format!("found {frames} frames of {width}x{height}, expected {FRAMES} of {SIDE}x{SIDE}"),
        }),
    }
}
