use wan_core::Error;
use wan_core::geometry::LatentSize;
use wan_dit::Dit;

use super::ProbeArgs;
use super::io::{Outputs, output};
use crate::error::Outcome;

pub fn dit(args: &ProbeArgs) -> Outcome<Outputs> {
    let (weights, inputs, device) = (args.weights()?, args.inputs()?, args.device()?);
    let model = Dit::open(&weights, args.config.as_deref(), &device, args.dtype()?)?;
    let latents = inputs.f32("latents")?.to_device(&device)?;
    let condition = inputs.optional_f32("condition")?.map(|t| t.to_device(&device)).transpose()?;
    let image_embeds = inputs.optional_f32("image_embeds")?.map(|t| t.to_device(&device)).transpose()?;
    let timestep = inputs.f32("timestep")?;
    let timestep = match timestep.flatten_all()?.to_vec1::<f32>()?.as_slice() {
        [t] => *t,
        _ => return Err(Error::shape("timestep", timestep.dims(), "[1]").into()),
    };
    let &[_, _, frames, height, width] = latents.dims() else {
        return Err(Error::shape("latents", latents.dims(), "[1, 16, F, h, w]").into());
    };
    let context = model.context(&inputs.f32("text_embeds")?.to_device(&device)?, image_embeds.as_ref())?;
    let rope = model.rope(LatentSize { frames, height, width }, 0)?;
    output("velocity", model.forward(&latents, condition.as_ref(), timestep, &context, &rope)?)
}
