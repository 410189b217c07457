//! The picture type that all modules share, and the conversion from the decoder's floats.

use std::fmt;

use crate::error::{MediaError, Result};

/// An 8-bit RGB picture, rows from top to bottom, pixels interleaved `R G B`, without row padding.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl fmt::Debug for RgbImage {
    /// The size and the first bytes; a whole picture would fill the screen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.data[..self.data.len().min(12)];
        write!(f, "RgbImage {{ {}x{}, data: {start:?}.. }}", self.width, self.height)
    }
}

impl RgbImage {
    /// Wraps `data`, u8 `[height, width, 3]`.
    ///
    /// # Errors
    /// [`MediaError::BufferSize`] where the length does not fit, [`MediaError::InvalidOption`] for a
    /// side of zero.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Result<Self> {
        check_rgb("picture", width, height, &data)?;
        Ok(Self { width, height, data })
    }

    /// A picture of one colour.
    ///
    /// # Errors
    /// As [`RgbImage::new`].
    pub fn filled(width: u32, height: u32, rgb: [u8; 3]) -> Result<Self> {
        Self::new(width, height, rgb.repeat(width as usize * height as usize))
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, u8 `[height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes, u8 `[height, width, 3]`, given away.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// One pixel; panics outside of the picture, as indexing does.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.data[at], self.data[at + 1], self.data[at + 2]]
    }

    /// Copies `source` into this picture with its top left corner at (`left`, `top`); parts outside
    /// are cut off.
    pub(crate) fn paste(&mut self, source: &RgbImage, left: u32, top: u32) {
        let columns = source.width.min(self.width.saturating_sub(left)) as usize;
        let rows = source.height.min(self.height.saturating_sub(top)) as usize;
        for y in 0..rows {
            let from = y * source.width as usize * 3;
            let to = ((top as usize + y) * self.width as usize + left as usize) * 3;
            self.data[to..to + columns * 3].copy_from_slice(&source.data[from..from + columns * 3]);
        }
    }
}

/// Checks that `data` is u8 `[height, width, 3]` with at least one pixel.
pub(crate) fn check_rgb(what: &'static str, width: u32, height: u32, data: &[u8]) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(MediaError::option("picture size", format!("{width}x{height}"), "at least 1x1"));
    }
    let expected = width as usize * height as usize * 3;
    if data.len() != expected {
        return Err(MediaError::BufferSize { what, found: data.len(), expected, width, height });
    }
    Ok(())
}

/// Converts a brightness in `[0, 1]` to 8 bits: `trunc(clip(255 y + 0.5, 0, 255))` in f32, that is,
/// rounded half up. NaN becomes 0.
///
/// The rule of ComfyUI-VideoHelperSuite (`nodes.py`, `tensor_to_bytes`).
pub fn to_u8(y: f32) -> u8 {
    // A float-to-integer cast truncates, saturates at both ends and maps NaN to zero.
    (255.0 * y + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_u8_rounds_half_up_and_clips() {
        let rows: [(f32, u8); 9] = [
            (0.0, 0),
            (1.0, 255),
            (0.5, 128), // 127.5 + 0.5
            (127.0 / 255.0, 127),
            (0.001, 0), // 0.255 + 0.5
            (0.002, 1), // 0.51 + 0.5
            (-3.0, 0),
            (7.5, 255),
            (f32::INFINITY, 255),
        ];
        for (y, expected) in rows {
            assert_eq!(to_u8(y), expected, "y = {y}");
        }
        assert_eq!(to_u8(f32::NAN), 0);
        for value in 0..=255u8 {
            assert_eq!(to_u8(f32::from(value) / 255.0), value);
        }
    }

    #[test]
    fn a_buffer_of_another_size_is_refused() {
        let error = RgbImage::new(4, 3, vec![0; 35]).expect_err("35 bytes are not 4x3x3");
        assert_eq!(error.to_string(), "picture has 35 bytes, expected 36 (4x3 pixels, 3 bytes each)");
        assert!(RgbImage::new(0, 3, Vec::new()).is_err());
    }
}
