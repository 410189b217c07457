//! The VAE decoder's 3x3x3 convolutions, as it meets them: one latent frame at a time.

use candle_core::DType;
use wan_core::device::compute_dtype;
use wan_ops::{Conv3d, ConvSpec};
use wan_pipeline::Result;
use wan_vae::VaeConfig;

use super::{Bench, latent};
use crate::synthesis::{normal, stored};
use crate::{Check, Runner};

const GROUP: &str = "convolution";

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    let Ok(config) = bench.files.vae.weights().and_then(|w| VaeConfig::read(None, &w)) else { return };
    for video in &bench.options.videos {
        let size = latent(*video);
        let (mut frames, mut height, mut width) = (1, size.height, size.width);
        for level in (0..config.dim_mult.len()).rev() {
            let channels = config.base_dim * config.dim_mult[level];
            let name = format!("{channels} channels {frames}x{height}x{width}");
            runner.row(GROUP, name, || conv3d(bench, channels, [frames, height, width]));
            let Some(below) = level.checked_sub(1) else { break };
            frames *= if config.temporal_downsample[below] { 2 } else { 1 };
            (height, width) = (2 * height, 2 * width);
        }
    }
}

fn conv3d(bench: &Bench<'_>, channels: usize, [t, h, w]: [usize; 3]) -> Result<Vec<Check>> {
    let (device, seed) = (bench.device(), bench.options.seed);
    let dtype = compute_dtype(device);
    let spec = ConvSpec::causal(channels, channels, [3, 3, 3]);
    let weight = stored("weight", dtype, &[channels, channels, 3, 3, 3], 0.02, seed)?;
    let bias = normal(DType::F32, &[channels], 0.5, seed + 1)?.to_device(device)?;
    let layer = Conv3d::new(spec, weight, bias)?;
    let x = normal(dtype, &[t, h, w, channels], 1.0, seed + 2)?.to_device(device)?;
    let history = normal(dtype, &[spec.front, h, w, channels], 1.0, seed + 3)?.to_device(device)?;
    let times = bench.time(|| {
        layer.forward(&x, Some(&history), None)?;
        Ok(())
    })?;
    let flops = 2.0 * 27.0 * (t * h * w) as f64 * (channels * channels) as f64;
    Ok(Bench::figures(times, flops, bench.rates.map(|r| flops / r.bf16)))
}
