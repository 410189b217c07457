use candle_core::{DType, Device, Tensor};
use wan_core::WeightSet;
use wan_pipeline::Result;
use wan_vae::{Tiling, Vae};

use super::{BF16, F32, GROUP, Precision, Scale, checks, synthetic, tiny};
use crate::synthesis::{Layout, normal};
use crate::{Check, Runner};

/// What is run.
#[derive(Debug, Clone, Copy)]
enum Half {
    Decode,
    DecodeTiled,
    Encode,
}

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    for (half, name) in
        [(Half::Decode, "decode"), (Half::DecodeTiled, "decode tiled"), (Half::Encode, "encode")]
    {
        for precision in [F32, BF16] {
            let name = format!("vae {name} tiny {}", precision.dtype.as_str());
            let size = [3, 10, 12];
            runner.row(GROUP, name, || {
                check(&tiny()?.vae.weights()?, half, size, device, precision, scale.seed)
            });
        }
        if scale.full {
            let size = if scale.large { [3, 20, 24] } else { [2, 4, 6] };
            runner.row(GROUP, format!("vae {name} full bf16"), || {
                let weights = synthetic("vae", Layout::vae()?, usize::MAX, scale.seed)?;
                check(&weights, half, size, device, BF16, scale.seed)
            });
        }
    }
}

/// `size`: latent frames, height and width.
fn check(
    weights: &WeightSet,
    half: Half,
    [f, h, w]: [usize; 3],
    device: &Device,
    precision: Precision,
    seed: u64,
) -> Result<Vec<Check>> {
    let latents = normal(DType::F32, &[1, 16, f, h, w], 1.0, seed)?;
    let video = normal(DType::F32, &[1, 3, 4 * f - 3, 8 * h, 8 * w], 0.5, seed)?.clamp(-1f32, 1f32)?;
    let tiling = Tiling { tile_height: 48, tile_width: 48, stride_height: 32, stride_width: 32 };
    let run = |device: &Device, dtype| -> Result<Tensor> {
        let vae = Vae::open(weights, None, device, dtype)?;
        Ok(match half {
            Half::Decode => vae.decode(&latents.to_device(device)?, None)?,
            Half::DecodeTiled => vae.decode(&latents.to_device(device)?, Some(&tiling))?,
            Half::Encode => vae.encode(&video.to_device(device)?)?,
        })
    };
    checks(&run(device, precision.dtype)?, &run(&Device::Cpu, DType::F32)?, precision)
}
