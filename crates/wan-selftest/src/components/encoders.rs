//! UMT5 and CLIP.

use candle_core::{DType, Device, Tensor};
use wan_clip::ClipVision;
use wan_core::WeightSet;
use wan_pipeline::Result;
use wan_umt5::Umt5;

use super::{BF16, F32, GROUP, Precision, Scale, checks, synthetic, tiny};
use crate::synthesis::{Layout, normal};
use crate::{Check, Runner};

/// Rows of the embedding table at true dimensions, where all 256,384 are of no use.
const VOCABULARY: usize = 1024;

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    for precision in [F32, BF16] {
        let dtype = precision.dtype.as_str();
        runner.row(GROUP, format!("umt5 tiny {dtype}"), || {
            umt5(&tiny()?.text_encoder.weights()?, 77, device, precision)
        });
        runner.row(GROUP, format!("clip tiny {dtype}"), || {
            clip(&tiny_image_encoder()?, device, precision, scale.seed)
        });
    }
    if scale.full {
        let blocks = |small, all| if scale.large { all } else { small };
        runner.row(GROUP, "umt5 full bf16", || {
            let mut layout = Layout::text_encoder()?;
            for spec in layout.tensors.iter_mut().filter(|t| t.name == "token_embedding.weight") {
                spec.shape[0] = VOCABULARY;
            }
            let weights = synthetic("umt5", layout, blocks(1, 24), scale.seed)?;
            umt5(&weights, blocks(16, 128), device, BF16)
        });
        runner.row(GROUP, "clip full bf16", || {
            let weights = synthetic("clip", Layout::image_encoder()?, blocks(2, 32), scale.seed)?;
            clip(&weights, device, BF16, scale.seed)
        });
    }
}

fn tiny_image_encoder() -> Result<WeightSet> {
    let files = tiny()?;
    let source = files.image_encoder.ok_or_else(|| {
        wan_core::Error::invalid("embedded model", "no image encoder", "one: it is image-to-video")
    })?;
    Ok(source.weights()?)
}

fn umt5(weights: &WeightSet, tokens: usize, device: &Device, precision: Precision) -> Result<Vec<Check>> {
    let encode = |device: &Device, dtype| -> Result<Tensor> {
        let encoder = Umt5::open(weights, None, device, dtype)?;
        let vocabulary = encoder.config().vocab_size;
        let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % vocabulary) as u32).collect();
        Ok(encoder.encode(&ids)?)
    };
    checks(&encode(device, precision.dtype)?, &encode(&Device::Cpu, DType::F32)?, precision)
}

fn clip(weights: &WeightSet, device: &Device, precision: Precision, seed: u64) -> Result<Vec<Check>> {
    let encode = |device: &Device, dtype| -> Result<Tensor> {
        let encoder = ClipVision::open(weights, None, device, dtype)?;
        let side = encoder.config().image_size;
        Ok(encoder.encode(&normal(DType::F32, &[1, 3, side, side], 1.0, seed)?)?)
    };
    checks(&encode(device, precision.dtype)?, &encode(&Device::Cpu, DType::F32)?, precision)
}
