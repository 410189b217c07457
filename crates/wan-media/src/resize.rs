//! Lanczos resampling of 8-bit RGB, bit for bit that of Pillow 11
//! (`Image.resize((width, height), Image.Resampling.LANCZOS)`, source: Pillow `src/libImaging/Resample.c`).
//!
//! Two separable passes, horizontal first, with an 8-bit picture between them. Weights are computed in
//! f64, normalised, and rounded away from zero to 22 fractional bits; an axis whose size stays is
//! skipped.

use crate::error::{MediaError, Result};
use crate::frame::RgbImage;

/// Half width of the Lanczos window in source pixels at scale 1.
const SUPPORT: f64 = 3.0;

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for overshoot.
const PRECISION_BITS: u32 = 22;

/// Largest side that is produced; keeps the weight tables and pictures within reason.
const MAX_SIDE: u32 = 1 << 16;

/// Stretches `source` to `width` x `height` pixels with Pillow's Lanczos filter.
///
/// # Errors
/// [`MediaError::InvalidOption`] for a side of 0 or above 65,536.
pub fn resize_lanczos(source: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(MediaError::option(
            "size to resize to",
            format!("{width}x{height}"),
            format!("1 to {MAX_SIDE} a side"),
        ));
    }
    if (width, height) == (source.width(), source.height()) {
        return Ok(source.clone());
    }
    let wide = if width == source.width() { None } else { Some(horizontal(source, width)?) };
    let wide = wide.as_ref().unwrap_or(source);
    if height == wide.height() { Ok(wide.clone()) } else { vertical(wide, height) }
}

/// The source pixels behind one output pixel.
struct Taps {
    /// Index of the first source pixel.
    first: usize,
    /// Fixed-point weights, [`PRECISION_BITS`] fractional bits.
    weights: Vec<i32>,
}

/// The taps of every output pixel of an axis.
fn taps(input: u32, output: u32) -> Vec<Taps> {
    let scale = f64::from(input) / f64::from(output);
    // Shrinking widens the window, so that each source pixel counts.
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    (0..output)
        .map(|index| {
            let center = (f64::from(index) + 0.5) * scale;
            // Casts truncate towards zero and saturate, as the C code's `(int)` with its clamps.
            let first = (center - support + 0.5) as u32;
            let end = ((center + support + 0.5) as u32).min(input);
            let mut weights: Vec<f64> = (first..end)
                .map(|tap| lanczos((f64::from(tap) - center + 0.5) * (1.0 / filter_scale)))
                .collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
            Taps { first: first as usize, weights: weights.into_iter().map(fixed_point).collect() }
        })
        .collect()
}

/// `sinc(t) sinc(t/3)` inside of the window, 0 outside.
fn lanczos(t: f64) -> f64 {
    if (-SUPPORT..SUPPORT).contains(&t) { sinc(t) * sinc(t / SUPPORT) } else { 0.0 }
}

fn sinc(t: f64) -> f64 {
    if t == 0.0 {
        return 1.0;
    }
    let t = t * std::f64::consts::PI;
    t.sin() / t
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << PRECISION_BITS);
    (scaled + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
}

/// Drops the fractional bits and clips to 8 bits. The sum starts at half a unit.
fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn horizontal(source: &RgbImage, width: u32) -> Result<RgbImage> {
    let taps = taps(source.width(), width);
    let mut data = Vec::with_capacity(width as usize * source.height() as usize * 3);
    for row in source.data().chunks_exact(source.width() as usize * 3) {
        for tap in &taps {
            let mut sum = [HALF; 3];
            let pixels = row[tap.first * 3..].chunks_exact(3);
            for (pixel, &weight) in pixels.zip(&tap.weights) {
                for (sum, &value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            data.extend(sum.map(clip8));
        }
    }
    RgbImage::new(width, source.height(), data)
}

fn vertical(source: &RgbImage, height: u32) -> Result<RgbImage> {
    let stride = source.width() as usize * 3;
    let mut data = Vec::with_capacity(stride * height as usize);
    let mut sums = vec![HALF; stride];
    for tap in taps(source.height(), height) {
        sums.fill(HALF);
        let rows = source.data()[tap.first * stride..].chunks_exact(stride);
        for (row, &weight) in rows.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        data.extend(sums.iter().copied().map(clip8));
    }
    RgbImage::new(source.width(), height, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_an_output_pixel_sum_to_one() {
        for (input, output) in [(7, 3), (3, 7), (1, 9), (480, 464), (9, 1)] {
            for tap in taps(input, output) {
                let sum: i64 = tap.weights.iter().map(|&w| i64::from(w)).sum();
                let error = (sum - (1 << PRECISION_BITS)).unsigned_abs() as usize;
                assert!(error <= tap.weights.len(), "{input} -> {output}: off by {error}");
            }
        }
    }

    #[test]
    fn a_flat_picture_stays_flat_and_equal_size_is_a_copy() {
        let flat = RgbImage::filled(13, 7, [3, 250, 128]).expect("valid size");
        let scaled = resize_lanczos(&flat, 40, 5).expect("valid size");
        assert_eq!(scaled, RgbImage::filled(40, 5, [3, 250, 128]).expect("valid size"));
        assert_eq!(resize_lanczos(&flat, 13, 7).expect("valid size"), flat);
        assert!(resize_lanczos(&flat, 0, 7).is_err());
    }
}
