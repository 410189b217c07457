//! FreeNoise: the noise of the first window, in another order, for the frames after it.

use candle_core::{Device, Tensor};
use wan_sampler::TorchRng;

use super::ContextWindows;
use crate::Result;

/// `noise` `[1, 16, F, h, w]`, in which the frames after the first window are earlier frames that `rng` has put into
/// another order, as many at a time as windows lie apart.
///
/// Source: ComfyUI-WanVideoWrapper, `WanVideoSampler`, after ComfyUI-AnimateDiff-Evolved.
pub(crate) fn repeat_shuffled(
    noise: &Tensor,
    windows: &ContextWindows,
    rng: &mut TorchRng,
) -> Result<Tensor> {
    let order = order(noise.dim(2)?, windows.latent_frames(), windows.latent_overlap(), rng);
    Ok(noise.index_select(&Tensor::new(order, &Device::Cpu)?, 2)?)
}

/// For each frame the one whose noise it takes.
fn order(frames: usize, size: usize, overlap: usize, rng: &mut TorchRng) -> Vec<u32> {
    let mut order: Vec<u32> = (0..frames as u32).collect();
    let distance = size - overlap;
    let mut start = 0;
    while start + size < frames {
        let place = start + size;
        let count = distance.min(frames - place);
        // Frames that were replaced before are replaced once more by what they hold now.
        let from: Vec<u32> = rng.permutation(count).into_iter().map(|i| order[start + i]).collect();
        order[place..place + count].copy_from_slice(&from);
        start += distance;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.manual_seed` streams through the reference's loop: `tests/golden/windows/noise.json`.
    #[test]
    fn the_order_is_that_of_the_reference() {
        let path = wan_core::testkit::repo_path("tests/golden/windows/noise.json");
        let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let windows = ContextWindows {
                frames: number("context_frames"),
                overlap: number("context_overlap"),
                ..ContextWindows::default()
            };
            let frames = number("latent_frames");
            let mut rng = TorchRng::seed(number("seed") as u64);
            // The reference has drawn the noise by then.
            rng.randn_tensor(&[16, frames, 2, 2], &Device::Cpu).unwrap();
            let found = order(frames, windows.latent_frames(), windows.latent_overlap(), &mut rng);
            let expected: Vec<u32> = serde_json::from_value(case["order"].clone()).unwrap();
            assert_eq!(found, expected, "{case}");
        }
    }
}
