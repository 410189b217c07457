//! The VAE: whole, in tiles, and encoding.

use candle_core::{DType, Device};
use wan_core::device::compute_dtype;
use wan_pipeline::Result;
use wan_vae::{Tiling, Vae};

use super::{Bench, VideoSize, label, latent};
use crate::memory::{device_peak, forget_peak};
use crate::synthesis::normal;
use crate::{Check, Runner};

const GROUP: &str = "vae";

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    for video in &bench.options.videos {
        let size = label(*video);
        runner.row(GROUP, format!("decode {size}"), || decode(bench, *video, None));
        runner.row(GROUP, format!("decode tiled {size}"), || decode(bench, *video, Some(&Tiling::default())));
        runner.row(GROUP, format!("encode {size}"), || encode(bench, *video));
    }
}

fn open(bench: &Bench<'_>) -> Result<Vae> {
    let device = bench.device();
    Ok(Vae::open(&bench.files.vae.weights()?, None, device, compute_dtype(device))?)
}

fn decode(bench: &Bench<'_>, video: VideoSize, tiling: Option<&Tiling>) -> Result<Vec<Check>> {
    let (vae, size) = (open(bench)?, latent(video));
    let shape = [1, vae.config.z_dim, size.frames, size.height, size.width];
    let latents = normal(DType::F32, &shape, 1.0, bench.options.seed)?.to_device(bench.device())?;
    // As a job with memory enough.
    let together = match bench.device() {
        Device::Cpu => 1,
        _ => vae.config.decode_together(size.height, size.width, tiling)?,
    };
    with_peak(bench, || {
        vae.decode_stream(&latents, tiling, together, &mut |_| Ok(()))?;
        Ok(())
    })
}

/// An image and empty frames behind it, as conditioning encodes them.
fn encode(bench: &Bench<'_>, [width, height, frames]: VideoSize) -> Result<Vec<Check>> {
    let vae = open(bench)?;
    let image = normal(DType::F32, &[1, 3, 1, height, width], 0.5, bench.options.seed)?.clamp(-1f32, 1f32)?;
    let video = image.to_device(bench.device())?.pad_with_zeros(2, 0, frames - 1)?;
    with_peak(bench, || {
        vae.encode(&video)?;
        Ok(())
    })
}

fn with_peak(bench: &Bench<'_>, run: impl FnMut() -> Result<()>) -> Result<Vec<Check>> {
    forget_peak(bench.device())?;
    let mut checks = Bench::figures(bench.time_long(run)?, 0.0, None);
    checks.extend(device_peak(bench.device())?);
    Ok(checks)
}
