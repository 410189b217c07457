//! One picture that shows a whole video: evenly spaced frames in a grid.

use std::path::Path;

use crate::error::{MediaError, Result};
use crate::frame::RgbImage;
use crate::png_file::write_png;
use crate::resize::resize_lanczos;

/// Frames on a sheet unless asked otherwise.
pub const DEFAULT_CELLS: usize = 8;

/// Widest a frame gets on the sheet, in pixels; larger frames are scaled down.
const CELL_WIDTH: u32 = 256;

/// Space between and around the frames, in pixels.
const GAP: u32 = 4;

const BACKGROUND: [u8; 3] = [24, 24, 24];

/// Collects frames of a video while they pass by; only those on the sheet are kept, scaled down.
///
/// ```
/// # use wan_media::{ContactSheet, RgbImage};
/// let mut sheet = ContactSheet::new(81, 8)?;
/// for index in 0..81 {
///     let frame = RgbImage::filled(64, 48, [index as u8, 0, 0])?;
///     sheet.add(index, &frame)?;
/// }
/// assert_eq!(sheet.picture()?.width(), 4 * 64 + 5 * 4);
/// # Ok::<(), wan_media::MediaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ContactSheet {
    /// Frame number of each cell, ascending.
    wanted: Vec<usize>,
    cells: Vec<Option<RgbImage>>,
}

impl ContactSheet {
    /// A sheet of `cells` evenly spaced frames, the first and the last among them, of a video of
    /// `frames` frames; of all frames where there are fewer.
    ///
    /// # Errors
    /// [`MediaError::InvalidOption`] where either is 0.
    pub fn new(frames: usize, cells: usize) -> Result<Self> {
        if frames == 0 || cells == 0 {
            let found = format!("{cells} of {frames} frames");
            return Err(MediaError::option("contact sheet", found, "at least 1 of 1"));
        }
        let cells = cells.min(frames);
        let spread = (cells - 1).max(1);
        // Rounded half up; steps of one or more frames, so no number comes twice.
        let wanted = (0..cells).map(|cell| (2 * cell * (frames - 1) + spread) / (2 * spread)).collect();
        Ok(Self { wanted, cells: vec![None; cells] })
    }

    /// The numbers, from 0, of the frames on the sheet.
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// Takes the frame with this number, from 0, if it belongs on the sheet.
    ///
    /// # Errors
    /// [`MediaError::InvalidOption`] for a size that cannot be scaled.
    pub fn add(&mut self, index: usize, frame: &RgbImage) -> Result<()> {
        if let Ok(cell) = self.wanted.binary_search(&index) {
            let width = frame.width().min(CELL_WIDTH);
            let height = u64::from(frame.height()) * u64::from(width) / u64::from(frame.width());
            self.cells[cell] = Some(resize_lanczos(frame, width, (height as u32).max(1))?);
        }
        Ok(())
    }

    /// The sheet as far as it is filled; missing frames stay dark.
    ///
    /// # Errors
    /// [`MediaError::InvalidOption`] before the first frame has been added.
    pub fn picture(&self) -> Result<RgbImage> {
        let size = |side: fn(&RgbImage) -> u32| self.cells.iter().flatten().map(side).max();
        let (Some(width), Some(height)) = (size(RgbImage::width), size(RgbImage::height)) else {
            return Err(MediaError::option("contact sheet", "0 frames", "at least 1"));
        };
        let count = self.cells.len() as u32;
        // Two rows for the usual eight; never more rows than columns.
        let columns = if count <= 4 { count } else { (2..).find(|c| c * c >= 2 * count).unwrap_or(count) };
        let rows = count.div_ceil(columns);
        let (step_x, step_y) = (width + GAP, height + GAP);
        let mut sheet = RgbImage::filled(columns * step_x + GAP, rows * step_y + GAP, BACKGROUND)?;
        for (cell, number) in self.cells.iter().zip(0u32..) {
            if let Some(cell) = cell {
                sheet.paste(cell, GAP + number % columns * step_x, GAP + number / columns * step_y);
            }
        }
        Ok(sheet)
    }

    /// Writes the sheet as a PNG, with the record of how it was made if one is given.
    ///
    /// # Errors
    /// As [`ContactSheet::picture`] and [`write_png`].
    pub fn write(&self, path: &Path, metadata: Option<&str>) -> Result<()> {
        write_png(path, &self.picture()?, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spread_evenly_with_both_ends() {
        let rows: [(usize, usize, &[usize]); 6] = [
            (81, 8, &[0, 11, 23, 34, 46, 57, 69, 80]),
            (81, 1, &[0]),
            (81, 2, &[0, 80]),
            (3, 8, &[0, 1, 2]),
            (1, 8, &[0]),
            (9, 8, &[0, 1, 2, 3, 5, 6, 7, 8]),
        ];
        for (frames, cells, expected) in rows {
            let sheet = ContactSheet::new(frames, cells).expect("counts are not zero");
            assert_eq!(sheet.wanted(), expected, "{cells} of {frames}");
        }
        assert!(ContactSheet::new(0, 8).is_err() && ContactSheet::new(8, 0).is_err());
    }

    #[test]
    fn each_frame_sits_in_its_cell() {
        let mut sheet = ContactSheet::new(5, 5).expect("counts are not zero");
        assert!(sheet.picture().is_err());
        for index in 0..5 {
            let frame = RgbImage::filled(512, 256, [index as u8 * 40, 1, 2]).expect("valid size");
            sheet.add(index, &frame).expect("scales");
        }
        let picture = sheet.picture().expect("filled");
        // 2 x 5 <= 4 x 4: four columns, two rows of cells of 256x128.
        assert_eq!((picture.width(), picture.height()), (4 * 260 + 4, 2 * 132 + 4));
        assert_eq!(picture.pixel(0, 0), BACKGROUND);
        assert_eq!(picture.pixel(4, 4), [0, 1, 2]);
        assert_eq!(picture.pixel(3 * 260 + 4, 4), [120, 1, 2]);
        assert_eq!(picture.pixel(4, 136), [160, 1, 2]);
        assert_eq!(picture.pixel(264, 136), BACKGROUND);
    }
}
