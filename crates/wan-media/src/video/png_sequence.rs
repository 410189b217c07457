//! A folder of numbered PNG files; the first carries the metadata.

use std::fs::File;
use std::path::Path;

use super::{FrameSink, VideoOptions};
use crate::atomic::{TempFolder, frame_name};
use crate::error::{MediaError, Result};
use crate::metadata::METADATA_KEY;
use crate::png_file;

/// Sink of [`OutputFormat::Png`](super::OutputFormat::Png).
pub(super) struct PngSequence {
    folder: TempFolder,
    width: u32,
    height: u32,
    written: u64,
    /// Taken by the first frame.
    texts: Vec<(String, String)>,
}

impl PngSequence {
    pub fn create(path: &Path, width: u32, height: u32, options: &VideoOptions) -> Result<Self> {
        let folder = TempFolder::create(path, options.overwrite)?;
        let record = options.metadata.iter().map(|text| (METADATA_KEY.to_owned(), text.clone()));
        let texts = record.chain(options.tags.iter().cloned()).collect();
        Ok(Self { folder, width, height, written: 0, texts })
    }
}

impl FrameSink for PngSequence {
    fn push(&mut self, rgb: &[u8]) -> Result<()> {
        let shown = self.folder.shown();
        let file = File::create(self.folder.path().join(frame_name(self.written + 1)))
            .map_err(|error| MediaError::write(shown, error))?;
        let texts = std::mem::take(&mut self.texts);
        let texts: Vec<_> = texts.iter().map(|(key, text)| (&**key, &**text)).collect();
        png_file::encode(file, shown, self.width, self.height, rgb, &texts)?;
        self.written += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.folder.commit()
    }
}
