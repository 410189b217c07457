//! Output nodes, and the frames they are given.

use wan_media::{FrameRate, OutputFormat, PixelFormat, VideoOptions};

use super::Result;
use super::read::{End, Reader};
use crate::catalog::Root;
use crate::job::{SaveKind, SaveNode};
use crate::prefix::FilenamePrefix;

/// What an output node makes, and the decoder that its frames come from.
pub(super) fn output(reader: &Reader<'_>, id: &str) -> Result<(SaveNode, End)> {
    let class = reader.graph.class(id).map_or("", |class| class.name);
    let (source_of, input) = match class {
        "SaveVideo" => (reader.source(id, "video")?.id, "images"),
        _ => (id.to_owned(), "images"),
    };
    let decoder = frames(reader, &source_of, input)?;
    let (kind, root) = match class {
        "VHS_VideoCombine" => combined(reader, id)?,
        "SaveVideo" => {
            (SaveKind::Video { video: options(reader, OutputFormat::Mp4, &source_of, "fps")? }, Root::Output)
        }
        "SaveAnimatedWEBP" => {
            (SaveKind::Video { video: options(reader, OutputFormat::Webp, id, "fps")? }, Root::Output)
        }
        "PreviewImage" => (SaveKind::Frames, Root::Temp),
        _ => (SaveKind::Frames, Root::Output),
    };
    let default = match class {
        "VHS_VideoCombine" => "AnimateDiff",
        "PreviewImage" => "ComfyUI_temp",
        _ => "ComfyUI",
    };
    let prefix = FilenamePrefix::parse(reader.text(id, "filename_prefix"), default);
    let prefix = prefix.or_else(|error| reader.refuse(id, "filename_prefix", error.to_string()))?;
    Ok((SaveNode { kind, root, prefix }, decoder))
}

/// The decoder behind an input for frames.
fn frames(reader: &Reader<'_>, id: &str, input: &str) -> Result<End> {
    let mut end = reader.source(id, input)?;
    while end.class == "GetImageSizeAndCount" && end.slot == 0 {
        end = reader.source(&end.id, "image")?;
    }
    match end.class {
        "WanVideoDecode" | "VAEDecode" | "VAEDecodeTiled" => Ok(end),
        class => {
            reader.refuse(id, input, format!("found the output of {class}, expected the frames of a decoder"))
        }
    }
}

fn options(reader: &Reader<'_>, format: OutputFormat, id: &str, rate: &str) -> Result<VideoOptions> {
    let fps = FrameRate::try_from(reader.float(id, rate));
    let fps = fps.or_else(|error| reader.refuse(id, rate, error.to_string()))?;
    Ok(VideoOptions { format, fps, ..VideoOptions::default() })
}

fn combined(reader: &Reader<'_>, id: &str) -> Result<(SaveKind, Root)> {
    let (format, kind) = match reader.text(id, "format") {
        "image/gif" => ("image/gif", OutputFormat::Gif),
        "image/webp" => ("image/webp", OutputFormat::Webp),
        _ => ("video/h264-mp4", OutputFormat::Mp4),
    };
    let pixel_format = match reader.text(id, "pix_fmt") {
        "yuv420p10le" => PixelFormat::Yuv420p10le,
        _ => PixelFormat::Yuv420p,
    };
    let crf = u8::try_from(reader.int(id, "crf")).unwrap_or(u8::MAX).min(VideoOptions::MAX_CRF);
    let video = VideoOptions {
        crf,
        pixel_format,
        loop_count: u32::try_from(reader.int(id, "loop_count")).unwrap_or(0),
        // Pillow takes the node's number as it is.
        counts_plays: kind == OutputFormat::Webp,
        pingpong: reader.boolean(id, "pingpong"),
        ..options(reader, kind, id, "frame_rate")?
    };
    let root = if reader.boolean(id, "save_output") { Root::Output } else { Root::Temp };
    Ok((SaveKind::Combined { video, format, save_metadata: reader.boolean(id, "save_metadata") }, root))
}
