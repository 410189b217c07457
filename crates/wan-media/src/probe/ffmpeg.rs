use std::path::Path;

use ffmpeg::{frame, media};
use ffmpeg_next as ffmpeg;

use super::{ColorTags, VideoInfo};
use crate::error::{MediaError, Result, one_line};
use crate::frame::RgbImage;
use crate::graph;

/// Name and version of the library that reads and writes videos, such as `FFmpeg (libavcodec 61.19.101)`.
pub fn library_version() -> String {
    let version = ffmpeg::codec::version();
    format!("FFmpeg (libavcodec {}.{}.{})", version >> 16, version >> 8 & 0xff, version & 0xff)
}

/// Reads the facts of a video file.
///
/// # Errors
/// [`MediaError::NotFound`], [`MediaError::Read`] or [`MediaError::Video`].
pub fn probe(path: &Path) -> Result<VideoInfo> {
    let mut input = open(path)?;
    let failed = |error| video_error(path, error);
    let stream = video_stream(&input, path)?;
    let (index, time_base, duration) = (stream.index(), stream.time_base(), stream.duration());
    let rate = stream.avg_frame_rate();
    let decoder = decoder(&stream).map_err(failed)?;
    let frames = input.packets().filter(|(stream, _)| stream.index() == index).count() as u64;
    let unknown = || "unknown".to_owned();
    let name = |name: Option<&'static str>| name.map_or_else(unknown, str::to_owned);
    Ok(VideoInfo {
        codec: decoder.codec().map_or_else(unknown, |codec| codec.name().to_owned()),
        pixel_format: name(decoder.format().descriptor().map(|descriptor| descriptor.name())),
        width: decoder.width(),
        height: decoder.height(),
        fps: (rate.numerator().unsigned_abs(), rate.denominator().unsigned_abs()),
        frames,
        seconds: duration as f64 * f64::from(time_base),
        color: ColorTags {
            space: name(decoder.color_space().name()),
            primaries: name(decoder.color_primaries().name()),
            transfer: name(decoder.color_transfer_characteristic().name()),
            range: name(decoder.color_range().name()),
        },
    })
}

/// Decodes all frames of a video file to RGB. All of them are held in memory: meant for short videos.
///
/// # Errors
/// As [`probe`].
pub fn decode_frames(path: &Path) -> Result<Vec<RgbImage>> {
    let mut input = open(path)?;
    let failed = |error| video_error(path, error);
    let stream = video_stream(&input, path)?;
    let (index, time_base) = (stream.index(), stream.time_base());
    let mut decoder = decoder(&stream).map_err(failed)?;
    let arguments = format!(
        "video_size={}x{}:pix_fmt={}:time_base={}/{}:pixel_aspect=1/1",
        decoder.width(),
        decoder.height(),
        decoder.format().descriptor().map_or("none", |descriptor| descriptor.name()),
        time_base.0,
        time_base.1
    );
    let filters = "scale=flags=bicubic+accurate_rnd+full_chroma_int+bitexact,format=rgb24";
    let mut converter = graph::build(&arguments, filters).map_err(failed)?;

    let mut frames = Vec::new();
    let mut drain = |decoder: &mut ffmpeg::decoder::Video| -> Result<()> {
        let mut decoded = frame::Video::empty();
        loop {
            match decoder.receive_frame(&mut decoded) {
                Ok(()) => {}
                Err(error) if graph::is_starved(error) => return Ok(()),
                Err(error) => return Err(failed(error)),
            }
            graph::push(&mut converter, Some(&decoded)).map_err(failed)?;
            let mut rgb = frame::Video::empty();
            while graph::pull(&mut converter, &mut rgb).map_err(failed)? {
                let length = rgb.width() as usize * 3;
                let rows = rgb.data(0).chunks(rgb.stride(0)).take(rgb.height() as usize);
                let data = rows.flat_map(|row| &row[..length]).copied().collect();
                frames.push(RgbImage::new(rgb.width(), rgb.height(), data)?);
            }
        }
    };
    for (stream, packet) in input.packets() {
        if stream.index() == index {
            decoder.send_packet(&packet).map_err(failed)?;
            drain(&mut decoder)?;
        }
    }
    decoder.send_eof().map_err(failed)?;
    drain(&mut decoder)?;
    Ok(frames)
}

/// A text tag of a video's container.
pub(crate) fn container_metadata(path: &Path, key: &str) -> Result<Option<String>> {
    let input = open(path)?;
    // The library hands the bytes on unchecked; a foreign file may hold anything.
    Ok(input.metadata().get(key).map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned()))
}

fn open(path: &Path) -> Result<ffmpeg::format::context::Input> {
    graph::initialise();
    // Opened here first for the system's own reason, and so that a name with a colon is not a protocol.
    std::fs::File::open(path).map_err(|error| MediaError::read(path, error))?;
    let absolute = std::path::absolute(path).map_err(|error| MediaError::read(path, error))?;
    if absolute.to_str().is_none() {
        let reason = "FFmpeg needs a path in UTF-8".to_owned();
        return Err(MediaError::Video { path: path.to_path_buf(), reason });
    }
    ffmpeg::format::input(&absolute).map_err(|error| video_error(path, error))
}

fn video_stream<'a>(input: &'a ffmpeg::format::context::Input, path: &Path) -> Result<ffmpeg::Stream<'a>> {
    let none = || MediaError::Video { path: path.to_path_buf(), reason: "it has no video stream".to_owned() };
    input.streams().best(media::Type::Video).ok_or_else(none)
}

fn decoder(stream: &ffmpeg::Stream<'_>) -> Result<ffmpeg::decoder::Video, ffmpeg::Error> {
    ffmpeg::codec::context::Context::from_parameters(stream.parameters())?.decoder().video()
}

fn video_error(path: &Path, error: ffmpeg::Error) -> MediaError {
    MediaError::Video { path: path.to_path_buf(), reason: one_line(error) }
}
