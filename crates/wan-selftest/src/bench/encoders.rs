//! Text and image encoding, and their loading.

use candle_core::DType;
use wan_clip::ClipVision;
use wan_core::device::compute_dtype;
use wan_pipeline::Result;
use wan_umt5::Umt5;

use super::Bench;
use crate::synthesis::normal;
use crate::{Check, Runner};

const GROUP: &str = "encoders";

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    for tokens in [128, 512] {
        runner.row(GROUP, format!("text {tokens} tokens"), || text(bench, tokens));
    }
    if bench.files.image_encoder.is_some() {
        runner.row(GROUP, "image", || image(bench));
    }
}

fn text(bench: &Bench<'_>, tokens: usize) -> Result<Vec<Check>> {
    let (device, weights) = (bench.device(), bench.files.text_encoder.weights()?);
    let encoder = Umt5::open(&weights, None, device, compute_dtype(device))?;
    let vocabulary = encoder.config().vocab_size;
    let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % vocabulary) as u32).collect();
    let encode = || {
        encoder.encode(&ids)?;
        Ok(())
    };
    // The first run brings the weights.
    let first = bench.stopwatch()?.once(encode)?;
    let mut checks = Bench::figures(bench.time(encode)?, 0.0, None);
    checks.push(Check::info("with loading, ms", first));
    Ok(checks)
}

fn image(bench: &Bench<'_>) -> Result<Vec<Check>> {
    let device = bench.device();
    let Some(source) = &bench.files.image_encoder else { return Ok(Vec::new()) };
    let encoder = ClipVision::open(&source.weights()?, None, device, compute_dtype(device))?;
    let side = encoder.config().image_size;
    let pixels = normal(DType::F32, &[1, 3, side, side], 1.0, bench.options.seed)?.to_device(device)?;
    let encode = || {
        encoder.encode(&pixels)?;
        Ok(())
    };
    let first = bench.stopwatch()?.once(encode)?;
    let mut checks = Bench::figures(bench.time(encode)?, 0.0, None);
    checks.push(Check::info("with loading, ms", first));
    Ok(checks)
}
