//! Third and fourth stage: latents to frames, and frames to whoever takes them.

use std::cell::Cell;
use std::time::Instant;

use candle_core::{D, DType, Device, Tensor};
use wan_core::progress::{CancelToken, Event, Observer, Stage};
use wan_media::to_u8;

use crate::finite::check_finite;
use crate::memory::decode_mode;
use crate::{DecodeMode, Models, OutputRange, Plan, Result};

/// Takes frames in order, each `height * width * 3` bytes RGB.
pub type FrameSink<'s> = dyn FnMut(&[u8]) -> Result<()> + 's;

/// Decodes `latents` `[1, 16, F, h, w]` and hands over each frame as soon as it is known: at once where the
/// output is clamped, after the last one where it is stretched between the video's extremes.
pub(crate) fn decode(
    models: &Models,
    plan: &Plan,
    latents: &Tensor,
    sink: &mut FrameSink<'_>,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<()> {
    let start = Instant::now();
    let (mode, tiles) = decode_mode(&models.vae_sizes()?, plan, models.budget(), models.dtype())?;
    let total = match mode {
        DecodeMode::Whole | DecodeMode::TimeOuter => plan.latent.frames,
        DecodeMode::TileOuter => tiles * plan.latent.frames,
    };
    observer.on_event(&Event::Started { stage: Stage::Decode, total });
    let _memory = models.stage_memory();
    let vae = models.vae()?;
    let begun = Cell::new(Instant::now());
    let stepped = |step| {
        let took = begun.replace(Instant::now()).elapsed();
        observer.on_event(&Event::Step { stage: Stage::Decode, step, total, took });
    };
    let mut kept: Vec<Tensor> = Vec::new();
    let mut number = 0;
    let mut take = |frames: Tensor| -> Result<()> {
        number += 1;
        cancel.check()?;
        let frames = frames.to_dtype(DType::F32)?; // [3, n, H, W], still on the device
        check_finite(&format!("decode of latent frame {number} of {}", plan.latent.frames), &frames)?;
        match plan.request.output_range {
            OutputRange::Clamp => emit(&((frames + 1.0)? * 0.5)?, sink)?,
            OutputRange::Minmax => kept.push(frames.to_device(&Device::Cpu)?),
        }
        if mode != DecodeMode::TileOuter {
            stepped(number);
        }
        Ok(())
    };
    // The VAE speaks wan_core's errors; the sink's own error is kept here and put back afterwards.
    let mut failed = None;
    let mut sink_frames = |frames| {
        take(frames).map_err(|e| {
            failed = Some(e);
            wan_core::Error::Cancelled
        })
    };
    let (latents, tile) = (latents.to_device(models.device())?, &plan.request.tile);
    let outcome = match mode {
        DecodeMode::Whole => vae.decode_stream(&latents, None, &mut sink_frames),
        DecodeMode::TimeOuter => vae.decode_stream(&latents, Some(tile), &mut sink_frames),
        DecodeMode::TileOuter => {
            let mut done = |step, _| {
                stepped(step);
                cancel.check()
            };
            vae.decoder.decode_tile_by_tile(&latents, tile, &mut done, &mut sink_frames)
        }
    };
    if let Some(error) = failed {
        return Err(error);
    }
    outcome?;
    if plan.request.output_range == OutputRange::Minmax {
        emit_stretched(kept, sink)?;
    }
    observer.on_event(&Event::Finished { stage: Stage::Decode, took: start.elapsed() });
    Ok(())
}

/// Stretches so that the smallest value of the whole video becomes 0 and the largest 1.
fn emit_stretched(kept: Vec<Tensor>, sink: &mut FrameSink<'_>) -> Result<()> {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for frames in &kept {
        low = low.min(frames.min_all()?.to_scalar()?);
        high = high.max(frames.max_all()?.to_scalar()?);
    }
    // A video of one single value has no range to stretch: it stays where clamping would put it.
    let (low, range) = if high > low { (low, high - low) } else { (-1.0, 2.0) };
    for frames in kept {
        let range = Tensor::new(range, &Device::Cpu)?;
        emit(&(frames - f64::from(low))?.broadcast_div(&range)?, sink)?;
    }
    Ok(())
}

/// `frames`: `[3, n, H, W]` in [0, 1].
fn emit(frames: &Tensor, sink: &mut FrameSink<'_>) -> Result<()> {
    let frames = frames.permute((1, 2, 3, 0))?.contiguous()?; // [n, H, W, 3]
    debug_assert_eq!(frames.dim(D::Minus1)?, 3);
    for i in 0..frames.dim(0)? {
        let values = frames.get(i)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.into_iter().map(to_u8).collect();
        sink(&bytes)?;
    }
    Ok(())
}
