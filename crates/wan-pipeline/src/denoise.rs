//! Second stage: from noise to latents, under the solver.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use wan_core::device::to_host;
use wan_core::progress::{CancelToken, Event, Observer, Stage};
use wan_sampler::{SamplerState, TorchRng};

use crate::finite::check_finite;
use crate::preview::latent_preview;
use crate::state::{DenoiseState, Job};
use crate::teacache::reused_steps;
use crate::velocity::{Velocities, stage};
use crate::windows::repeat_shuffled;
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
        let mut drawn = rng.randn_tensor(&shape, &Device::Cpu)?;
        if let Some(windows) = plan.request.context.filter(|windows| windows.freenoise) {
            drawn = repeat_shuffled(&drawn, &windows, &mut rng)?;
        }
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
        let latents = match plan.schedule.noise_scale() {
            1.0 => latents,
            scale => (latents * f64::from(scale))?,
        };
        Ok(Self { latents, sampler: plan.schedule.sampler().state(), rng: rng.state(), reused_from: None })
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
    sampler.restore(moved(state.sampler.clone(), |t| t.to_device(models.device()))?)?;
    let mut rng = TorchRng::from_state(&state.rng)?;
    if sampler.steps_taken() < total {
        let memory = models.memory(plan, Stage::Denoise)?;
        let mut dit = models.kept().take(models, plan, &memory, observer)?;
        let device = models.device();
        let (head_dim, in_fp8) = (dit.model().config().head_dim(), dit.model().multiplies_in_fp8());
        let numerics = plan.request.numerics();
        if let Some(numerics) = wan_ops::numerics_in_use(device, numerics, head_dim, in_fp8)? {
            let (swapped, blocks) = (dit.swapped(), dit.model().blocks());
            observer.on_event(&Event::Note(&format!("{numerics}, {swapped} of {blocks} blocks swapped")));
        }
        let reused = reused_steps(models, dit.model(), plan)?;
        let mut velocities = Velocities::new(plan, conditioning, reused, &mut dit, observer, cancel)?;
        let passes = velocities.passes_per_step();
        if plan.leaves_passes_out() {
            observer.on_event(&Event::Passes { per_step: &passes });
        }
        velocities.resume(sampler.steps_taken(), state)?;
        let mut latents = state.latents.to_device(device)?;
        while sampler.steps_taken() < total {
            let begun = Instant::now();
            let step = sampler.steps_taken();
            let stage = stage(step, plan);
            let velocity = velocities.at(step, &latents)?;
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
                latents: to_host(&latents)?,
                sampler: moved(sampler.state(), to_host)?,
                rng: rng.state(),
                reused_from: velocities.reused_by(step + 1).map(to_host).transpose()?,
            };
            keep(state);
            let took = begun.elapsed();
            observer.on_event(&Event::Step { stage: Stage::Denoise, step: step + 1, total, took });
        }
        models.kept().keep(dit, plan, &memory);
    }
    observer.on_event(&Event::Finished { stage: Stage::Denoise, took: start.elapsed() });
    Ok(())
}

/// A solver's state with its history elsewhere: what is kept is in main memory, as it outlives a GPU that is lost.
fn moved(
    mut state: SamplerState,
    to: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<SamplerState> {
    for tensor in state.history.values_mut() {
        *tensor = to(tensor)?;
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
    let frames = latent_preview(&to_host(&x0)?, factors)?;
    observer.on_event(&Event::Preview {
        step: step + 1,
        width: plan.latent.width,
        height: plan.latent.height,
        frames: &frames,
    });
    Ok(())
}
