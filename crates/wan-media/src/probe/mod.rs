//! Basic facts of a video file and its frames as RGB: what tests, `--from-video` and `--extend` need to read back.

#[cfg(feature = "ffmpeg")]
mod ffmpeg;
#[cfg(not(feature = "ffmpeg"))]
mod without;

#[cfg(feature = "ffmpeg")]
pub(crate) use ffmpeg::container_metadata;
#[cfg(feature = "ffmpeg")]
pub use ffmpeg::{decode_frames, library_version, probe};
#[cfg(not(feature = "ffmpeg"))]
pub use without::{decode_frames, library_version, probe};

/// What a video file holds, by its first video stream.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoInfo {
    /// FFmpeg's name of the codec, such as `h264`.
    pub codec: String,
    /// FFmpeg's name of the pixel format, such as `yuv420p`.
    pub pixel_format: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Average frames per second, as a fraction.
    pub fps: (u32, u32),
    /// Frames, counted.
    pub frames: u64,
    /// Length in seconds.
    pub seconds: f64,
    /// FFmpeg's names of matrix, primaries, transfer and range, such as `bt709`, `tv`.
    pub color: ColorTags,
}

/// How a video's colours are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColorTags {
    /// The YUV matrix.
    pub space: String,
    /// The primaries.
    pub primaries: String,
    /// The transfer characteristic.
    pub transfer: String,
    /// `tv` (limited) or `pc` (full).
    pub range: String,
}
