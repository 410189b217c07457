//! Second stage: from noise to latents, under the solver.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use wan_core::progress::{CancelToken, Event, Observer, Stage};
use wan_dit::{DitInput, KeyCache};
use wan_sampler::{SamplerState, TorchRng, classifier_free_guidance};

use crate::finite::check_finite;
use crate::preview::latent_preview;
use crate::state::{DenoiseState, Job};
use crate::swapping::Swapping;
use crate::{Models, PipelineError, Plan, Result};

impl DenoiseState {
    /// The state before the first step: noise from the request's seed, or the caller's (`[16, F, h, w]` or with
    /// a leading 1).
    ///
    /// Errors: [`PipelineError::Request`] if the caller's noise has another shape.
    pub fn start(plan: &Plan, noise: Option<&Tensor>) -> Result<Self> {
        let shape = plan.latent_shape();
        let mut rng = TorchRng::seed(plan.request.seed);
        // Drawn even if not used, so that dpm++_sde's later draws do not depend on where the noise came from.
        let drawn = rng.randn_tensor(&shape, &Device::Cpu)?;
        let latents = match noise {
            None => drawn,
            Some(noise) if noise.dims() == shape || noise.dims() == &shape[1..] => {
                noise.to_dtype(DType::F32)?.reshape(&shape)?
            }
            Some(noise) => {
                let expected = format!("{:?} for this size and number of frames", &shape[1..]);
                return Err(PipelineError::request("noise", format!("shape {:?}", noise.dims()), expected));
            }
        };
        check_finite("initial noise", &latents)?;
        Ok(Self { latents, sampler: plan.schedule.sampler().state(), rng: rng.state() })
    }
}

/// Takes the steps that are left; the job's state is replaced only by the result of a whole, finite step, so that
/// after an error it is still one to resume from. Each such state is shown to `keep`.
pub(crate) fn denoise(
    models: &Models,
    job: &mut Job,
    keep: &mut dyn FnMut(&DenoiseState),
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<()> {
    let Job { plan, conditioning, state } = job;
    let start = Instant::now();
    let total = plan.schedule.steps();
    observer.on_event(&Event::Started { stage: Stage::Denoise, total });
    let _memory = models.stage_memory();
    let mut sampler = plan.schedule.sampler();
    sampler.restore(on_device(&state.sampler, models.device())?)?;
    let mut rng = TorchRng::from_state(&state.rng)?;
    if sampler.steps_taken() < total {
        let (dit, swapped) = models.dit_for(plan)?;
        let mut dit = Swapping::place(dit, swapped, observer)?;
        let device = models.device();
        let head_dim = dit.model().config().head_dim();
        if let Some(numerics) = wan_ops::numerics_in_use(device, plan.request.numerics(), head_dim)? {
            let (swapped, blocks) = (dit.swapped(), dit.model().blocks());
            observer.on_event(&Event::Note(&format!("{numerics}, {swapped} of {blocks} blocks swapped")));
        }
        let to_device = |t: &Tensor| t.to_device(device);
        let image = conditioning.image.as_ref().map(to_device).transpose()?;
        let condition = conditioning.condition.as_ref().map(to_device).transpose()?;
        let mut texts = vec![to_device(&conditioning.text)?];
        if plan.uses_guidance() {
            let negative = conditioning.negative.as_ref().ok_or_else(|| {
                PipelineError::request("cfg", plan.request.cfg, "1, or embeddings of a negative prompt")
            })?;
            texts.push(to_device(negative)?);
        }
        let texts: Vec<&Tensor> = texts.iter().collect();
        let contexts = dit.run("keys of the prompts", observer, |dit| {
            Ok(dit.contexts(&texts, image.as_ref(), KeyCache::Keep)?)
        })?;
        let contexts: Vec<_> = contexts.iter().collect();
        let rope = dit.model().rope(plan.latent, plan.request.riflex_freq_index)?;
        let mut latents = to_device(&state.latents)?;
        while sampler.steps_taken() < total {
            let begun = Instant::now();
            let step = sampler.steps_taken();
            let stage = format!("denoise step {} of {total}", step + 1);
            let input = DitInput {
                latents: &latents,
                condition: condition.as_ref(),
                timestep: plan.schedule.timesteps()[step],
                rope: &rope,
            };
            let velocities =
                dit.run(&stage, observer, |dit| Ok(dit.forward_lockstep(&input, &contexts, cancel)?))?;
            let velocity = match velocities.as_slice() {
                [cond, uncond] => classifier_free_guidance(cond, uncond, plan.request.cfg)?,
                [cond, ..] => cond.clone(),
                [] => return Err(wan_core::Error::invalid("velocities", 0, "one per context").into()),
            };
            check_finite(&format!("{stage}: velocity"), &velocity)?;
            let noise =
                sampler.needs_noise().then(|| rng.randn_tensor(latents.shape(), device)).transpose()?;
            let next = sampler.step(&velocity, &latents, noise.as_ref())?;
            check_finite(&format!("{stage}: latents"), &next)?;
            if observer.wants_previews() {
                preview(models, plan, step, &latents, &velocity, observer)?;
            }
            latents = next;
            *state = DenoiseState {
                latents: latents.to_device(&Device::Cpu)?,
                sampler: sampler.state(),
                rng: rng.state(),
            };
            keep(state);
            let took = begun.elapsed();
            observer.on_event(&Event::Step { stage: Stage::Denoise, step: step + 1, total, took });
        }
    }
    observer.on_event(&Event::Finished { stage: Stage::Denoise, took: start.elapsed() });
    Ok(())
}

/// A solver's state with its history on `device`: a resumed one comes from a file.
fn on_device(state: &SamplerState, device: &Device) -> Result<SamplerState> {
    let mut state = state.clone();
    for tensor in state.history.values_mut() {
        *tensor = tensor.to_device(device)?;
    }
    Ok(state)
}

/// Shows the clean video that the model expects at this step: `x0 = x - sigma v`.
fn preview(
    models: &Models,
    plan: &Plan,
    step: usize,
    latents: &Tensor,
    velocity: &Tensor,
    observer: &dyn Observer,
) -> Result<()> {
    let Some(factors) = models.latent_rgb() else { return Ok(()) };
    let sigma = plan.schedule.sigmas()[step];
    let x0 = (latents - (velocity * f64::from(sigma))?)?;
    let frames = latent_preview(&x0.to_device(&Device::Cpu)?, factors)?;
    observer.on_event(&Event::Preview {
        step: step + 1,
        width: plan.latent.width,
        height: plan.latent.height,
        frames: &frames,
    });
    Ok(())
}
