//! A quick look at latents: a small RGB picture, as large as the latents, scaled up to the video's size.

use std::path::Path;

use crate::error::{MediaError, Result};
use crate::frame::RgbImage;
use crate::png_file::write_png;

/// Pixels of video a side for one latent value: the VAE's spatial stride.
pub const LATENT_STRIDE: u32 = 8;

/// How a preview is scaled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upscale {
    /// Each latent value becomes a square.
    Nearest,
    /// Blended between the centres of the latent values, ends held.
    #[default]
    Bilinear,
}

/// Scales a picture up by a whole factor.
///
/// # Errors
/// [`MediaError::InvalidOption`] for a factor of 0 or a result of more than 16,384 pixels a side.
pub fn upscale(source: &RgbImage, factor: u32, how: Upscale) -> Result<RgbImage> {
    let side = |length: u32| length.checked_mul(factor).filter(|side| (1..=16_384).contains(side));
    let (Some(width), Some(height)) = (side(source.width()), side(source.height())) else {
        let expected = "at least 1, for at most 16384 pixels a side";
        return Err(MediaError::option("preview scale", factor, expected));
    };
    let mut data = Vec::with_capacity(width as usize * height as usize * 3);
    let columns = taps(source.width(), factor, how);
    for (top, bottom, down) in taps(source.height(), factor, how) {
        for &(left, right, across) in &columns {
            let corners = [(left, top), (right, top), (left, bottom), (right, bottom)];
            let [a, b, c, d] = corners.map(|(x, y)| source.pixel(x, y));
            for channel in 0..3 {
                let mix = |p: [u8; 3], q: [u8; 3], t: f32| {
                    f32::from(p[channel]) + (f32::from(q[channel]) - f32::from(p[channel])) * t
                };
                let (upper, lower) = (mix(a, b, across), mix(c, d, across));
                data.push((upper + (lower - upper) * down + 0.5) as u8);
            }
        }
    }
    RgbImage::new(width, height, data)
}

/// For each output pixel of an axis: the two source pixels and the weight of the second.
fn taps(length: u32, factor: u32, how: Upscale) -> Vec<(u32, u32, f32)> {
    (0..length * factor)
        .map(|at| match how {
            Upscale::Nearest => (at / factor, at / factor, 0.0),
            Upscale::Bilinear => {
                let center = (at as f32 + 0.5) / factor as f32 - 0.5;
                let first = center.max(0.0) as u32;
                (first, (first + 1).min(length - 1), (center - first as f32).max(0.0))
            }
        })
        .collect()
}

/// Writes a preview of latents: `picture` at latent size, scaled up by [`LATENT_STRIDE`], as a PNG that
/// replaces the one of the step before.
///
/// # Errors
/// As [`upscale`] and [`write_png`].
pub fn write_preview(path: &Path, picture: &RgbImage, how: Upscale) -> Result<()> {
    write_png(path, &upscale(picture, LATENT_STRIDE, how)?, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_makes_squares_and_bilinear_blends_between_centres() {
        let source = RgbImage::new(2, 1, vec![0, 0, 0, 80, 160, 240]).expect("2x1 pixels");
        let squares = upscale(&source, 4, Upscale::Nearest).expect("valid factor");
        assert_eq!((squares.width(), squares.height()), (8, 4));
        assert_eq!((squares.pixel(3, 3), squares.pixel(4, 0)), ([0; 3], [80, 160, 240]));

        let blend = upscale(&source, 4, Upscale::Bilinear).expect("valid factor");
        let reds: Vec<u8> = (0..8).map(|x| blend.pixel(x, 2)[0]).collect();
        // Centres lie at 1.5 and 5.5; in between the weight rises by a quarter, from an eighth.
        assert_eq!(reds, [0, 0, 10, 30, 50, 70, 80, 80]);
        assert!(upscale(&source, 0, Upscale::Nearest).is_err());
        assert!(upscale(&source, 9000, Upscale::Nearest).is_err());
    }
}
