//! Sizes from sizes: frames to latent frames, pixels to latents to tokens. No other crate derives one.

/// Pixels per latent pixel along one axis of the Wan VAE.
pub const SPATIAL_FACTOR: usize = 8;
/// Pixel frames per latent frame after the first, which stands alone.
pub const TEMPORAL_FACTOR: usize = 4;
/// Pixels per token along one axis: the VAE's 8 times the DiT's 2x2 patch.
pub const TOKEN_PIXELS: usize = 16;
/// Latent channels of the Wan VAE.
pub const LATENT_CHANNELS: usize = 16;

/// Latent frames of `frames` pixel frames: `(frames - 1) / 4 + 1`.
pub fn latent_frames(frames: usize) -> usize {
    frames.saturating_sub(1) / TEMPORAL_FACTOR + 1
}

/// Pixel frames of `latent_frames` latent frames: `4 (latent_frames - 1) + 1`.
pub fn pixel_frames(latent_frames: usize) -> usize {
    latent_frames.saturating_sub(1) * TEMPORAL_FACTOR + 1
}

/// The largest `4k + 1` that is not above `frames` (at least 1).
pub fn floor_frames(frames: usize) -> usize {
    pixel_frames(latent_frames(frames.max(1)))
}

/// The largest multiple of 16 that is not above `pixels`.
pub fn floor_pixels(pixels: usize) -> usize {
    pixels / TOKEN_PIXELS * TOKEN_PIXELS
}

/// The output size with the area of `target` and the aspect ratio of `image`, both `(width, height)` in
/// pixels; each side a multiple of 16.
///
/// The order of the f64 operations is the reference's, and part of the rule: an 832x480 image at target
/// 832x480 gives 832x464, because the root comes out as 479.99999999999994.
///
/// Source: Wan2.1 `wan/image2video.py`; ComfyUI-WanVideoWrapper, `WanVideoImageClipEncode`.
pub fn adjust_resolution(image: (usize, usize), target: (usize, usize)) -> (usize, usize) {
    let area = (target.0 * target.1) as f64;
    let aspect = image.1 as f64 / image.0 as f64;
    let side = |root: f64| ((root / SPATIAL_FACTOR as f64).floor() / 2.0).floor() as usize * TOKEN_PIXELS;
    (side((area / aspect).sqrt()), side((area * aspect).sqrt()))
}

/// Size of a video in latent space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentSize {
    /// Latent frames `F`.
    pub frames: usize,
    /// Latent rows `h`.
    pub height: usize,
    /// Latent columns `w`.
    pub width: usize,
}

impl LatentSize {
    /// Latent size of a video of `frames` frames of `width` x `height` pixels.
    pub fn of_video(frames: usize, width: usize, height: usize) -> Self {
        Self { frames: latent_frames(frames), height: height / SPATIAL_FACTOR, width: width / SPATIAL_FACTOR }
    }

    /// Video tokens `L` of the DiT, with its patch of 1x2x2.
    pub fn tokens(&self) -> usize {
        self.frames * (self.height / 2) * (self.width / 2)
    }

    /// Values of a latent tensor `[16, F, h, w]`.
    pub fn elements(&self) -> usize {
        LATENT_CHANNELS * self.frames * self.height * self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_down_to_4k_plus_1() {
        for (asked, want) in [(1, 1), (2, 1), (4, 1), (5, 5), (80, 77), (81, 81), (84, 81), (0, 1)] {
            assert_eq!(floor_frames(asked), want, "{asked}");
        }
        assert_eq!(latent_frames(81), 21);
    }

    #[test]
    fn resolution_rule_matches_the_reference_table() {
        // (image, at 512x512, at 832x480), as the reference computes them in f64.
        let rows = [
            ((512, 512), (512, 512), (624, 624)),
            ((832, 480), (672, 384), (832, 464)),
            ((480, 832), (384, 672), (480, 832)),
            ((1920, 1080), (672, 384), (832, 464)),
            ((1080, 1920), (384, 672), (464, 832)),
            ((1024, 768), (576, 432), (720, 544)),
            ((768, 1024), (432, 576), (544, 720)),
            ((3000, 2000), (624, 416), (768, 512)),
            ((500, 333), (624, 416), (768, 512)),
            ((1000, 700), (608, 416), (752, 528)),
            ((300, 1200), (256, 1024), (304, 1248)),
            ((4000, 500), (1440, 176), (1776, 208)),
        ];
        for (image, square, wide) in rows {
            assert_eq!(adjust_resolution(image, (512, 512)), square, "{image:?}");
            assert_eq!(adjust_resolution(image, (832, 480)), wide, "{image:?}");
        }
    }

    #[test]
    fn tokens_of_the_named_jobs() {
        assert_eq!(LatentSize::of_video(81, 512, 512).tokens(), 21504);
        assert_eq!(LatentSize::of_video(81, 832, 480).tokens(), 32760);
    }
}
