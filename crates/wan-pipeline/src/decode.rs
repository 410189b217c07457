//! Third and fourth stage: latents to frames, and frames to whoever takes them.

use std::cell::Cell;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use wan_core::device::to_host;
use wan_core::progress::{CancelToken, Event, Observer, Stage};

use crate::finite::check_finite;
use crate::frames::{self, FrameSink, Frames};
use crate::memory::{DecodeWay, decode_way};
use crate::{DecodeMode, Models, OutputRange, Plan, Result};

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
    frames::beside(sink, plan.width * plan.height * 3, |to| {
        decode_to(models, plan, latents, to, observer, cancel)
    })?;
    observer.on_event(&Event::Finished { stage: Stage::Decode, took: start.elapsed() });
    Ok(())
}

fn decode_to(
    models: &Models,
    plan: &Plan,
    latents: &Tensor,
    to: &Frames,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<()> {
    let DecodeWay { mode, tiles, together } =
        decode_way(&models.vae_sizes()?, plan, models.budget(), models.dtype())?;
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
            OutputRange::Clamp => frames::send(&((frames + 1.0)? * 0.5)?, to)?,
            OutputRange::Minmax => kept.push(to_host(&frames)?),
        }
        if mode != DecodeMode::TileOuter {
            stepped(number);
        }
        Ok(())
    };
    // The VAE speaks wan_core's errors; what it could not say is kept here and put back afterwards.
    let mut failed = None;
    let mut sink_frames = |frames| {
        take(frames).map_err(|e| {
            failed = Some(e);
            wan_core::Error::Cancelled
        })
    };
    let (latents, tile) = (latents.to_device(models.device())?, &plan.request.tile);
    let outcome = match mode {
        DecodeMode::Whole => vae.decode_stream(&latents, None, together, &mut sink_frames),
        DecodeMode::TimeOuter => vae.decode_stream(&latents, Some(tile), together, &mut sink_frames),
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
        send_stretched(kept, to)?;
    }
    Ok(())
}

/// Stretches so that the smallest value of the whole video becomes 0 and the largest 1.
fn send_stretched(kept: Vec<Tensor>, to: &Frames) -> Result<()> {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for frames in &kept {
        low = low.min(frames.min_all()?.to_scalar()?);
        high = high.max(frames.max_all()?.to_scalar()?);
    }
    // A video of one single value has no range to stretch: it stays where clamping would put it.
    let (low, range) = if high > low { (low, high - low) } else { (-1.0, 2.0) };
    for frames in kept {
        let range = Tensor::new(range, &Device::Cpu)?;
        frames::send(&(frames - f64::from(low))?.broadcast_div(&range)?, to)?;
    }
    Ok(())
}
