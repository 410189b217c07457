use wan_vae::{Tiling, Vae};

use super::ProbeArgs;
use super::io::{Outputs, output};
use crate::error::{Failure, Outcome};

pub fn encode(args: &ProbeArgs) -> Outcome<Outputs> {
    let (vae, video, tiling) = open(args, "video")?;
    output("latents", vae.encoder.encode(&video, tiling.as_ref())?)
}

pub fn decode(args: &ProbeArgs) -> Outcome<Outputs> {
    let (vae, latents, tiling) = open(args, "latents")?;
    output("video", vae.decode(&latents, tiling.as_ref())?)
}

fn open(args: &ProbeArgs, input: &str) -> Outcome<(Vae, candle_core::Tensor, Option<Tiling>)> {
    let tiling = args.tiled.then_some(Tiling {
        tile_height: args.tile_height,
        tile_width: args.tile_width,
        stride_height: args.tile_stride_height,
        stride_width: args.tile_stride_width,
    });
    if let Some(tiling) = &tiling {
        tiling.check().map_err(Failure::usage)?;
    }
    let (weights, inputs, device) = (args.weights()?, args.inputs()?, args.device()?);
    let vae = Vae::open(&weights, args.config.as_deref(), &device, args.dtype()?)?;
    Ok((vae, inputs.f32(input)?.to_device(&device)?, tiling))
}
