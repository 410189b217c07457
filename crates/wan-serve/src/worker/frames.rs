//! The decoded frames of a job on their way to its outputs, in a file: there may be more of them than memory. The file
//! goes when nobody needs the frames any more, however the job ends: it may be what fills the disk.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::failure::JobError;

/// Its name in the job's folder. Whoever goes on with the job decodes anew.
pub(super) const SPOOL: &str = "frames.rgb";

/// Bytes of disk that the frames of a video take while its outputs are made: the decoded ones, and the pictures of
/// `picture_nodes` nodes that save each frame, which may be as large. A video is small beside them.
pub(crate) fn disk_bytes(width: usize, height: usize, frames: usize, picture_nodes: usize) -> u64 {
    let copies = 1 + picture_nodes as u64;
    [width, height, frames, 3].into_iter().fold(copies, |bytes, n| bytes.saturating_mul(n as u64))
}

/// The file, removed when it is dropped.
struct SpoolFile(PathBuf);

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // What cannot be removed goes with the job's folder.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file that frames are added to.
pub(super) struct FrameSpool {
    path: SpoolFile,
    file: BufWriter<File>,
    count: usize,
}

/// All frames, in order.
pub(super) struct Frames {
    path: SpoolFile,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How many.
    pub count: usize,
}

impl FrameSpool {
    /// An empty file in the job's folder `work`.
    pub fn create(work: &Path) -> Result<Self, JobError> {
        let path = work.join(SPOOL);
        let file = File::create(&path).map_err(|e| JobError::io(&path, e))?;
        Ok(Self { path: SpoolFile(path), file: BufWriter::new(file), count: 0 })
    }

    /// Adds a frame, u8 `[height, width, 3]`.
    pub fn push(&mut self, rgb: &[u8]) -> std::io::Result<()> {
        self.count += 1;
        self.file.write_all(rgb)
    }

    /// Nothing more comes.
    pub fn finish(mut self, width: u32, height: u32) -> Result<Frames, JobError> {
        self.file.flush().map_err(|e| JobError::io(&self.path.0, e))?;
        Ok(Frames { path: self.path, width, height, count: self.count })
    }
}

impl Frames {
    /// The first frame, u8 `[height, width, 3]`.
    pub fn first(&self) -> Result<Vec<u8>, JobError> {
        let failed = |e| JobError::io(&self.path.0, e);
        let mut frame = vec![0; self.frame_len()];
        File::open(&self.path.0).and_then(|mut file| file.read_exact(&mut frame)).map_err(failed)?;
        Ok(frame)
    }

    fn frame_len(&self) -> usize {
        self.width as usize * self.height as usize * 3
    }

    /// Hands each frame to `take`, u8 `[height, width, 3]`.
    pub fn each(&self, mut take: impl FnMut(&[u8]) -> Result<(), JobError>) -> Result<(), JobError> {
        let failed = |e| JobError::io(&self.path.0, e);
        let mut file = BufReader::new(File::open(&self.path.0).map_err(failed)?);
        let mut frame = vec![0; self.frame_len()];
        for _ in 0..self.count {
            file.read_exact(&mut frame).map_err(failed)?;
            take(&frame)?;
        }
        Ok(())
    }
}
