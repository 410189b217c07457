//! The image of a graph, on its way from the file to the encoders.

use wan_media::{MediaError, RgbImage, resize_lanczos};

use crate::catalog::RootedName;

/// Largest area in pixels that an image is scaled to, as of images that are read.
const MAX_PIXELS: u64 = 64_000_000;

/// An image file, and how it is changed before the encoders see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// The file.
    pub name: RootedName,
    /// The node that loads it.
    pub node: String,
    /// Changes of size on the way to the video, in order.
    pub scales: Vec<Scale>,
    /// Those on the way to the image encoder, where they are others.
    pub seen_scales: Option<Vec<Scale>>,
}

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Width in pixels; 0 keeps the aspect ratio.
    pub width: u32,
    /// Height in pixels; 0 keeps the aspect ratio.
    pub height: u32,
    /// Whether what sticks out on two sides is cut off, rather than the image squeezed.
    pub crop: bool,
}

impl Scale {
    /// Applies changes of size, in order.
    ///
    /// Errors: those of resampling; a target above 64 megapixels.
    pub fn apply_all(scales: &[Self], image: RgbImage) -> wan_media::Result<RgbImage> {
        scales.iter().try_fold(image, |image, scale| scale.apply(&image))
    }

    /// Errors: those of resampling; a target above 64 megapixels.
    fn apply(self, image: &RgbImage) -> wan_media::Result<RgbImage> {
        let (width, height) = self.target((image.width(), image.height()));
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(MediaError::InvalidOption {
                option: "size to scale to",
                found: format!("{width}x{height}"),
                expected: format!("at most {} megapixels", MAX_PIXELS / 1_000_000),
            });
        }
        if self.crop {
            return resize_lanczos(&cropped(image, (width, height))?, width, height);
        }
        resize_lanczos(image, width, height)
    }

    fn target(self, (w, h): (u32, u32)) -> (u32, u32) {
        let by = |side: u32, num: u32, den: u32| {
            ((f64::from(side) * f64::from(num) / f64::from(den)).round() as u32).max(1)
        };
        match (self.width, self.height) {
            (0, 0) => (w, h),
            (0, height) => (by(w, height, h), height),
            (width, 0) => (width, by(h, width, w)),
            both => both,
        }
    }
}

/// The middle of an image, in the shape of `target`, as ComfyUI's `common_upscale` cuts it.
fn cropped(image: &RgbImage, target: (u32, u32)) -> wan_media::Result<RgbImage> {
    let (w, h) = (image.width(), image.height());
    let (old, new) = (f64::from(w) / f64::from(h), f64::from(target.0) / f64::from(target.1));
    let margin =
        |side: u32, ratio: f64| ((f64::from(side) - f64::from(side) * ratio) / 2.0).round_ties_even() as u32;
    let x = if old > new { margin(w, new / old) } else { 0 };
    let y = if old < new { margin(h, old / new) } else { 0 };
    let (x, y) = (x.min((w - 1) / 2), y.min((h - 1) / 2));
    let (width, height) = (w - 2 * x, h - 2 * y);
    let row = |r: u32| {
        let start = ((r + y) as usize * w as usize + x as usize) * 3;
        &image.data()[start..start + width as usize * 3]
    };
    RgbImage::new(width, height, (0..height).flat_map(row).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_cut_out_and_scaled() {
        let pixel = |x: u32, y: u32| [x as u8 * 10, y as u8 * 10, 0];
        let bytes = (0..4u32).flat_map(|y| (0..8u32).flat_map(move |x| pixel(x, y))).collect();
        let image = RgbImage::new(8, 4, bytes).unwrap();
        let scale = |width, height, crop| Scale { width, height, crop }.apply(&image).unwrap();
        let middle = scale(4, 4, true);
        assert_eq!((middle.width(), middle.height()), (4, 4));
        assert_eq!(&middle.data()[..3], &[20, 0, 0]);
        let wide = scale(0, 2, false);
        assert_eq!((wide.width(), wide.height()), (4, 2));
        let same = scale(0, 0, false);
        assert_eq!(same.data(), image.data());
        for (width, height) in [(16_384, 16_384), (16_384, 0)] {
            let column = RgbImage::new(1, 9000, vec![0; 27_000]).unwrap();
            let refused = Scale { width, height, crop: false }.apply(&column).unwrap_err();
            assert!(refused.to_string().contains("at most 64 megapixels"), "{refused}");
        }
    }
}
