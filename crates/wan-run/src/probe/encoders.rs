use wan_clip::ClipVision;
use wan_umt5::Umt5;

use super::ProbeArgs;
use super::io::{Outputs, output};
use crate::error::Outcome;

pub fn umt5(args: &ProbeArgs) -> Outcome<Outputs> {
    let (weights, inputs, device) = (args.weights()?, args.inputs()?, args.device()?);
    let model = Umt5::open(&weights, args.config.as_deref(), &device, args.dtype()?)?;
    output("text_embeds", model.encode_padded(&inputs.i64("input_ids")?, &inputs.i64("attention_mask")?)?)
}

pub fn clip(args: &ProbeArgs) -> Outcome<Outputs> {
    let (weights, inputs, device) = (args.weights()?, args.inputs()?, args.device()?);
    let model = ClipVision::open(&weights, args.config.as_deref(), &device, args.dtype()?)?;
    output("image_embeds", model.encode(&inputs.f32("pixel_values")?.to_device(&device)?)?)
}
