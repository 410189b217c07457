use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

/// Longest side of a preview in pixels.
const MAX_SIDE: u32 = 512;

/// Pixels of video per latent value.
const LATENT_STRIDE: u32 = 8;

const QUALITY: u8 = 95;

/// A JPEG of the middle one of `frames`, each `width * height` RGB, as large as the video, but at most 512 pixels a
/// side. `None` for frames of another size.
pub(super) fn preview_jpeg(width: usize, height: usize, frames: &[Vec<u8>]) -> Option<Vec<u8>> {
    // The first frame of an image-to-video job is the input image, which nobody needs to see again.
    let frame = frames.get(frames.len() / 2)?;
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let picture = RgbImage::from_raw(width, height, frame.clone())?;
    let (width, height) = preview_size(width, height);
    let picture = resize(&picture, width, height, FilterType::Triangle);
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
    encoder.write_image(&picture, width, height, ExtendedColorType::Rgb8).ok()?;
    Some(jpeg)
}

fn preview_size(width: u32, height: u32) -> (u32, u32) {
    let (width, height) =
        (width.max(1).saturating_mul(LATENT_STRIDE), height.max(1).saturating_mul(LATENT_STRIDE));
    let longest = width.max(height);
    if longest <= MAX_SIDE {
        return (width, height);
    }
    let fit = |side: u32| (u64::from(side) * u64::from(MAX_SIDE) / u64::from(longest)).max(1) as u32;
    (fit(width), fit(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_keep_their_shape_within_512_pixels() {
        assert_eq!(preview_size(64, 64), (512, 512));
        assert_eq!(preview_size(8, 6), (64, 48));
        assert_eq!(preview_size(160, 90), (512, 288));
        assert_eq!(preview_size(2000, 1), (512, 1));
    }

    #[test]
    fn a_preview_is_a_jpeg_of_the_middle_frame() {
        let frames = [vec![0; 12], [200, 30, 30].repeat(4), vec![0; 12]];
        let jpeg = preview_jpeg(2, 2, &frames).expect("2x2 pixels");
        let picture = image::load_from_memory(&jpeg).expect("a picture").to_rgb8();
        assert_eq!(picture.dimensions(), (16, 16));
        let [r, g, b] = picture.get_pixel(8, 8).0.map(i32::from);
        assert!((r - 200).abs() < 8 && (g - 30).abs() < 8 && (b - 30).abs() < 8, "{r} {g} {b}");
        assert!(preview_jpeg(3, 2, &frames).is_none());
        assert!(preview_jpeg(2, 2, &[]).is_none());
    }
}
