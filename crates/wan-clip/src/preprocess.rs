use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use wan_core::{Error, Result};

/// Mean of each channel, RGB in [0, 1] (CLIP's training data).
#[allow(clippy::excessive_precision)] // as published
pub const MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];

/// Standard deviation of each channel, RGB in [0, 1].
#[allow(clippy::excessive_precision)] // as published
pub const STD: [f32; 3] = [0.26862954, 0.26130258, 0.27577711];

/// How an image that is no square becomes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFit {
    /// Its middle is cut out.
    #[default]
    Crop,
    /// All of it is squeezed.
    Stretch,
}

/// Prepares an 8-bit image for [`ClipVision::encode`](crate::ClipVision::encode): scaled to `size` by antialiased bicubic
/// (a = -0.5), rounded to 8 bits, normalised. [`ImageFit::Crop`] scales the shorter side and cuts off what is left over of
/// the other.
///
/// - `pixels`: `height * width * 3` values, RGB, row by row
/// - returns `[1, 3, size, size]` f32 on the CPU
///
/// An image that already is `size` by `size` is not resampled.
///
/// Errors: [`Error::Invalid`] for an image without pixels or a length that does not fit.
///
/// Source: ComfyUI `comfy/clip_vision.py`, `clip_preprocess`, which Kijai's nodes use; the original always stretches.
pub fn preprocess_rgb8(
    pixels: &[u8],
    height: usize,
    width: usize,
    size: usize,
    fit: ImageFit,
) -> Result<Tensor> {
    let levels = levels(pixels, |level| f32::from(level) / 255.0, (height, width), size, fit)?;
    normalise(levels, size)
}

/// [`preprocess_rgb8`] for an image of f32 values in [0, 1].
pub fn preprocess_rgb_f32(
    pixels: &[f32],
    height: usize,
    width: usize,
    size: usize,
    fit: ImageFit,
) -> Result<Tensor> {
    let levels = levels(pixels, |value| value, (height, width), size, fit)?;
    normalise(levels, size)
}

/// The resized and cropped image in whole levels 0 to 255: `[3, size, size]`.
fn levels<T: Copy>(
    pixels: &[T],
    value: impl Fn(T) -> f32,
    (height, width): (usize, usize),
    size: usize,
    fit: ImageFit,
) -> Result<Vec<f32>> {
    let expected = height.checked_mul(width).and_then(|count| count.checked_mul(3)).filter(|n| *n > 0);
    if expected != Some(pixels.len()) || size == 0 {
        let found = format!("{} values for {width}x{height} to side {size}", pixels.len());
        return Err(Error::invalid("image", found, "3 values for each of at least one pixel, and a size"));
    }
    // Whole sizes are rounded half to even in f64, as Python's round() does.
    let scale = size as f64 / height.min(width) as f64;
    let scaled = |length: usize| (scale * length as f64).round_ties_even() as usize;
    let axis = |length: usize| match fit {
        _ if (height, width) == (size, size) => length,
        ImageFit::Crop => scaled(length),
        ImageFit::Stretch => size,
    };
    let columns = Taps::new(width, axis(width), size);
    let rows = Taps::new(height, axis(height), size);

    // Rows first become `size` long, for only those columns that the crop keeps.
    let mut narrow = vec![0f32; 3 * height * size]; // [3, height, size]
    let (plane, line) = (height * size, width * 3);
    for (y, source) in pixels.chunks_exact(line).enumerate() {
        for (x, taps) in columns.0.iter().enumerate() {
            for c in 0..3 {
                let values = source[3 * taps.first..].chunks_exact(3).map(|rgb| value(rgb[c]));
                narrow[c * plane + y * size + x] = taps.apply(values);
            }
        }
    }
    let mut out = vec![0f32; 3 * size * size];
    for (channel, out) in narrow.chunks_exact(plane).zip(out.chunks_exact_mut(size * size)) {
        for (taps, out) in rows.0.iter().zip(out.chunks_exact_mut(size)) {
            for (x, out) in out.iter_mut().enumerate() {
                let column = channel[taps.first * size + x..].iter().step_by(size).copied();
                *out = (255.0 * taps.apply(column)).clamp(0.0, 255.0).round_ties_even();
            }
        }
    }
    Ok(out)
}

fn normalise(mut levels: Vec<f32>, size: usize) -> Result<Tensor> {
    for (channel, (mean, std)) in levels.chunks_exact_mut(size * size).zip(MEAN.into_iter().zip(STD)) {
        for value in channel {
            *value = (*value / 255.0 - mean) / std;
        }
    }
    Ok(Tensor::from_vec(levels, (1, 3, size, size), &Device::Cpu)?)
}

/// The weighted source samples of one output sample.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

impl Tap {
    fn apply(&self, values: impl Iterator<Item = f32>) -> f32 {
        self.weights.iter().zip(values).fold(0.0, |sum: f32, (weight, value)| weight.mul_add(value, sum))
    }
}

/// Antialiased bicubic resampling of one axis from `input` to `output` samples, of which the middle `keep` are
/// computed.
struct Taps(Vec<Tap>);

impl Taps {
    /// The arithmetic of torch's `interpolate(mode="bicubic", antialias=True)` on f32, whose multiplications and
    /// additions are fused: rounding to 8 bits has to meet the same values. About 2 in a million still differ.
    fn new(input: usize, output: usize, keep: usize) -> Self {
        let scale = input as f32 / output as f32;
        let stretch = scale.max(1.0); // of the kernel: only shrinking needs a wider one
        let (support, inverse) = (2.0 * stretch, 1.0 / stretch);
        let start = (output - keep) / 2;
        let tap = |i: usize| {
            if input == output {
                return Tap { first: i, weights: vec![1.0] };
            }
            let centre = scale * (i as f32 + 0.5);
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let mut weights: Vec<f32> =
                (first..end).map(|j| cubic((j as f32 - centre + 0.5) * inverse)).collect();
            let total: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= total);
            Tap { first, weights }
        };
        Self((start..start + keep).map(tap).collect())
    }
}

/// Keys' cubic convolution kernel with a = -0.5; for the fused steps see [`Taps::new`].
fn cubic(x: f32) -> f32 {
    const A: f32 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0).mul_add(x, -(A + 3.0)) * x).mul_add(x, 1.0)
    } else if x < 2.0 {
        A.mul_add(x, -5.0 * A).mul_add(x, 8.0 * A).mul_add(x, -4.0 * A)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_keys_cubic() {
        for (x, want) in [(0.0, 1.0), (0.5, 0.5625), (-1.5, -0.0625), (1.0, 0.0), (2.0, 0.0), (7.0, 0.0)] {
            assert_eq!(cubic(x), want, "{x}");
        }
    }

    #[test]
    fn an_axis_keeps_its_mean_and_its_middle() {
        for (input, output, keep) in [(300, 100, 60), (30, 100, 60), (64, 64, 64), (7, 8, 5), (1, 9, 9)] {
            let taps = Taps::new(input, output, keep).0;
            assert_eq!(taps.len(), keep);
            for tap in &taps {
                assert!((tap.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!(tap.first + tap.weights.len() <= input && !tap.weights.is_empty());
            }
            let centre =
                |t: &Tap| t.weights.iter().enumerate().map(|(j, w)| (t.first + j) as f32 * w).sum::<f32>();
            let middle = (centre(&taps[0]) + centre(&taps[keep - 1])) / 2.0;
            let shift = if (output - keep) % 2 == 1 { 0.5 * input as f32 / output as f32 } else { 0.0 };
            assert!(
                (middle - ((input - 1) as f32 / 2.0 - shift)).abs() < 1e-2 * input as f32,
                "{input} {output}"
            );
        }
    }

    fn values(pixels: &Tensor) -> Vec<f32> {
        pixels.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_stretched_image_is_all_there_and_a_cropped_one_is_its_middle() {
        // Six columns of 8 pixels, each of one shade, twice as wide as high; and the same on its side.
        let shades = [0u8, 50, 100, 150, 200, 250];
        let line: Vec<u8> = shades.iter().flat_map(|shade| [*shade; 3 * 8]).collect();
        let wide = line.repeat(24);
        let tall: Vec<u8> = line.chunks_exact(3).flat_map(|rgb| rgb.repeat(24)).collect();
        let red = |pixels: &[u8], height, width, fit, at: &dyn Fn(usize) -> usize| {
            let out = values(&preprocess_rgb8(pixels, height, width, 12, fit).unwrap());
            let level = |i: usize| ((out[at(i)] * STD[0] + MEAN[0]) * 255.0).round() as i32;
            (level(0), level(11))
        };
        // Values of the middle row, and of the middle column.
        let row = |x: usize| 5 * 12 + x;
        let column = |y: usize| 12 * y + 5;
        for (fit, ends) in [(ImageFit::Stretch, (0, 250)), (ImageFit::Crop, (50, 200))] {
            let shown = [red(&wide, 24, 48, fit, &row), red(&tall, 48, 24, fit, &column)];
            for (first, last) in shown {
                // The kernel reaches over the edge between two shades.
                assert!(
                    (first - ends.0).abs() <= 30 && (last - ends.1).abs() <= 30,
                    "{fit:?}: {first}, {last}"
                );
            }
            assert_eq!(shown[0], shown[1]);
        }
        let square = wide[..24 * 24 * 3].to_vec();
        let of = |fit| values(&preprocess_rgb8(&square, 24, 24, 12, fit).unwrap());
        assert_eq!(of(ImageFit::Stretch), of(ImageFit::Crop));
    }

    #[test]
    fn one_colour_stays_itself() {
        for (height, width) in [(50, 70), (1, 1), (1, 300), (224, 224), (900, 224)] {
            let pixels: Vec<u8> = [10u8, 128, 250].repeat(height * width);
            let out = preprocess_rgb8(&pixels, height, width, 224, ImageFit::Crop).unwrap();
            let stretched = preprocess_rgb8(&pixels, height, width, 224, ImageFit::Stretch).unwrap();
            assert_eq!(values(&out), values(&stretched), "{height}x{width}");
            let out = out.squeeze(0).unwrap();
            for (c, level) in [10f32, 128., 250.].into_iter().enumerate() {
                let want = (level / 255.0 - MEAN[c]) / STD[c];
                let channel = out.get(c).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(channel.iter().all(|v| *v == want), "{height}x{width} channel {c}");
            }
        }
    }

    #[test]
    fn images_that_cannot_be_are_refused() {
        for (len, height, width, size) in
            [(0, 0, 0, 8), (0, 3, 0, 8), (12, 2, 3, 8), (13, 2, 2, 8), (15, 2, 2, 8), (12, 2, 2, 0)]
        {
            let fit = ImageFit::Crop;
            let error = preprocess_rgb8(&vec![0; len], height, width, size, fit).unwrap_err().to_string();
            assert!(error.starts_with("image: found "), "{error}");
        }
    }
}
