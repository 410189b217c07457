//! The decoded frames of a job on their way to its outputs, in a file: there may be more of them than memory.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::failure::JobError;

/// A file that frames are added to.
pub(super) struct FrameSpool {
    path: PathBuf,
    file: BufWriter<File>,
    count: usize,
}

/// All frames, in order.
pub(super) struct Frames {
    path: PathBuf,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How many.
    pub count: usize,
}

impl FrameSpool {
    /// An empty file at `path`.
    pub fn create(path: &Path) -> Result<Self, JobError> {
        let file = File::create(path).map_err(|e| JobError::io(path, e))?;
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file), count: 0 })
    }

    /// Adds a frame, u8 `[height, width, 3]`.
    pub fn push(&mut self, rgb: &[u8]) -> std::io::Result<()> {
        self.count += 1;
        self.file.write_all(rgb)
    }

    /// Nothing more comes.
    pub fn finish(mut self, width: u32, height: u32) -> Result<Frames, JobError> {
        self.file.flush().map_err(|e| JobError::io(&self.path, e))?;
        Ok(Frames { path: self.path, width, height, count: self.count })
    }
}

impl Frames {
    /// The first frame, u8 `[height, width, 3]`.
    pub fn first(&self) -> Result<Vec<u8>, JobError> {
        let failed = |e| JobError::io(&self.path, e);
        let mut frame = vec![0; self.frame_len()];
        File::open(&self.path).and_then(|mut file| file.read_exact(&mut frame)).map_err(failed)?;
        Ok(frame)
    }

    fn frame_len(&self) -> usize {
        self.width as usize * self.height as usize * 3
    }

    /// Hands each frame to `take`, u8 `[height, width, 3]`.
    pub fn each(&self, mut take: impl FnMut(&[u8]) -> Result<(), JobError>) -> Result<(), JobError> {
        let failed = |e| JobError::io(&self.path, e);
        let mut file = BufReader::new(File::open(&self.path).map_err(failed)?);
        let mut frame = vec![0; self.frame_len()];
        for _ in 0..self.count {
            file.read_exact(&mut frame).map_err(failed)?;
            take(&frame)?;
        }
        Ok(())
    }
}
