//! Bare frames in one file, for other programs to pick up
//! (`ffmpeg -f rawvideo -pixel_format rgb24 -video_size WxH -framerate R -i FILE`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::{FrameSink, VideoOptions};
use crate::atomic::TempFile;
use crate::error::{MediaError, Result};

/// Sink of [`OutputFormat::Rgb`](super::OutputFormat::Rgb).
pub(super) struct RawFrames {
    file: BufWriter<File>,
    temp: TempFile,
}

impl RawFrames {
    pub fn create(path: &Path, options: &VideoOptions) -> Result<Self> {
        let (temp, file) = TempFile::create(path, options.overwrite)?;
        Ok(Self { file: BufWriter::new(file), temp })
    }
}

impl FrameSink for RawFrames {
    fn push(&mut self, rgb: &[u8]) -> Result<()> {
        self.file.write_all(rgb).map_err(|error| MediaError::write(self.temp.shown(), error))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.file.flush().map_err(|error| MediaError::write(self.temp.shown(), error))?;
        self.temp.commit()
    }
}
