//! Videos out: [`VideoWriter`] takes frames one by one, so that encoding runs while the decoder still
//! works, and publishes the finished file at the end.

#[cfg(feature = "ffmpeg")]
mod encoder;
mod options;
mod png_sequence;
mod raw;

use std::path::{Path, PathBuf};

pub use options::{FrameRate, OutputFormat, PixelFormat, VideoOptions};

use crate::error::{MediaError, Result};
use crate::frame::check_rgb;

/// Where frames go: one implementation per kind of output. Dropping a sink discards the output.
trait FrameSink: Send {
    /// Takes the next frame, u8 `[height, width, 3]`.
    fn push(&mut self, rgb: &[u8]) -> Result<()>;

    /// Completes the output and gives it its name.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A video being written.
///
/// Frames are encoded as they come. The output appears under its name with [`VideoWriter::finish`] and
/// not before; a writer that is dropped, or that failed, leaves nothing behind. The same frames and
/// options give the same bytes.
///
/// ```
/// # use wan_media::{FrameRate, OutputFormat, VideoOptions, VideoWriter};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("out.rgb");
/// let options = VideoOptions { format: OutputFormat::Rgb, ..VideoOptions::default() };
/// let mut writer = VideoWriter::create(&path, 64, 48, options)?;
/// for shade in 0..17u8 {
///     writer.push(&vec![shade; 64 * 48 * 3])?;
/// }
/// assert_eq!(writer.finish()?.frames, 17);
/// # Ok::<(), wan_media::MediaError>(())
/// ```
pub struct VideoWriter {
    path: PathBuf,
    width: u32,
    height: u32,
    options: VideoOptions,
    /// `None` once a push has failed.
    sink: Option<Box<dyn FrameSink>>,
    /// Frames in order, kept only where they are needed again (ping-pong, loops).
    kept: Vec<Vec<u8>>,
    pushed: u64,
}

/// What a finished [`VideoWriter`] has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSummary {
    /// The file, or for PNG the folder.
    pub path: PathBuf,
    /// Frames in the output, repetitions included.
    pub frames: u64,
}

impl VideoWriter {
    /// Opens an output of `width` x `height` pixels. An odd side of an mp4 is made even by repeating its
    /// last column or row.
    ///
    /// # Errors
    /// [`MediaError::InvalidOption`] for options that make no sense, [`MediaError::MissingFolder`],
    /// [`MediaError::Exists`] (without `overwrite`), [`MediaError::NoFfmpeg`] in a build without it, or
    /// what the encoder says.
    pub fn create(path: &Path, width: u32, height: u32, options: VideoOptions) -> Result<Self> {
        options.check(width, height)?;
        let sink: Box<dyn FrameSink> = match options.format {
            OutputFormat::Png => Box::new(png_sequence::PngSequence::create(path, width, height, &options)?),
            OutputFormat::Rgb => Box::new(raw::RawFrames::create(path, &options)?),
            #[cfg(feature = "ffmpeg")]
            OutputFormat::Mp4 | OutputFormat::Webp | OutputFormat::Gif => {
                Box::new(encoder::EncodedFile::create(path, width, height, &options)?)
            }
            #[cfg(not(feature = "ffmpeg"))]
            OutputFormat::Mp4 | OutputFormat::Webp | OutputFormat::Gif => {
                return Err(MediaError::NoFfmpeg { what: format!("the format {}", options.format) });
            }
        };
        let path = path.to_path_buf();
        Ok(Self { path, width, height, options, sink: Some(sink), kept: Vec::new(), pushed: 0 })
    }

    /// Frames pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Adds the next frame, u8 `[height, width, 3]`.
    ///
    /// # Errors
    /// [`MediaError::BufferSize`] for a frame of another size, [`MediaError::DiskFull`],
    /// [`MediaError::Write`] or [`MediaError::Encode`]; the output is then discarded and every further
    /// call fails.
    pub fn push(&mut self, rgb: &[u8]) -> Result<()> {
        check_rgb("frame", self.width, self.height, rgb)?;
        self.forward(rgb)?;
        self.pushed += 1;
        if self.options.pingpong || self.options.repeats_frames() {
            self.kept.push(rgb.to_vec());
        }
        Ok(())
    }

    /// Adds the frames that ping-pong and loops ask for, completes the output and publishes it.
    ///
    /// # Errors
    /// [`MediaError::NoFrames`] without a frame, [`MediaError::Failed`] after a failed push, else as
    /// [`VideoWriter::push`]; also [`MediaError::Exists`] where the name has been taken meanwhile.
    pub fn finish(mut self) -> Result<VideoSummary> {
        if self.pushed == 0 {
            return Err(MediaError::NoFrames { path: self.path });
        }
        let mut frames = self.pushed;
        let kept = std::mem::take(&mut self.kept);
        let back = if self.options.pingpong { middle_reversed(&kept) } else { Vec::new() };
        for rgb in &back {
            self.forward(rgb)?;
        }
        frames += back.len() as u64;
        if self.options.repeats_frames() {
            for _ in 0..self.options.loop_count {
                for rgb in kept.iter().chain(back.iter().copied()) {
                    self.forward(rgb)?;
                }
            }
            frames *= u64::from(self.options.loop_count) + 1;
        }
        let Some(sink) = self.sink.take() else {
            return Err(MediaError::Failed { path: self.path });
        };
        sink.finish()?;
        Ok(VideoSummary { path: self.path, frames })
    }

    fn forward(&mut self, rgb: &[u8]) -> Result<()> {
        let Some(sink) = self.sink.as_mut() else {
            return Err(MediaError::Failed { path: self.path.clone() });
        };
        let pushed = sink.push(rgb);
        if pushed.is_err() {
            // Drops the temporary file at once.
            self.sink = None;
        }
        pushed
    }
}

/// The way back of a ping-pong: frames F-2 down to 1, so that `F` frames become `2F - 2`.
fn middle_reversed(frames: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    let end = frames.len().saturating_sub(1);
    frames.get(1..end).unwrap_or_default().iter().rev().collect()
}
