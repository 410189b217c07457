//! Sampling of consistency models (Song et al., 2023; Luo et al., 2023): each step takes the data prediction for the answer
//! and gives it fresh noise of the next level.
//!
//! Sources: diffusers `schedulers/scheduling_flow_match_lcm.py`, FlowMatchLCMScheduler; ComfyUI
//! `comfy/k_diffusion/sampling.py`, sample_lcm.

use candle_core::Tensor;

use crate::sampler::{Progress, predict_x0, require_f32, scale};
use crate::snr::alpha;
use crate::{Result, Sampler, SamplerError, SamplerState, SchedulerKind};

/// `x' = (1 - sigma_{i+1}) x0 + sigma_{i+1} noise`. Keeps no history.
///
/// The noise comes as that of [`crate::DpmPpSde`] does, in the last step too.
#[derive(Debug, Clone)]
pub struct Lcm {
    kind: SchedulerKind,
    progress: Progress,
}

impl Lcm {
    /// A solver for the given sigmas, one more than steps. `kind` is the name it goes by.
    pub(crate) fn new(kind: SchedulerKind, sigmas: Vec<f32>) -> Self {
        Self { kind, progress: Progress::new(sigmas) }
    }
}

impl Sampler for Lcm {
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        self.progress.check(velocity, sample, None)?;
        let noise = noise.ok_or(SamplerError::NoiseMissing { scheduler: self.kind })?;
        require_f32("noise", noise, sample.dims())?;
        let (sigma, sigma_next) = (self.progress.sigma(0), self.progress.sigma(1));
        let x0 = predict_x0(sample, sigma, velocity)?;
        let next = (scale(alpha(sigma_next), &x0)? + scale(sigma_next, noise)?)?;
        self.progress.step += 1;
        Ok(next)
    }

    fn kind(&self) -> SchedulerKind {
        self.kind
    }

    fn steps_taken(&self) -> usize {
        self.progress.step
    }

    fn state(&self) -> SamplerState {
        SamplerState::new(self.kind, self.progress.step)
    }

    fn restore(&mut self, state: SamplerState) -> Result<()> {
        state.check(self.kind, self.progress.steps(), &[])?;
        self.progress.step = state.step;
        Ok(())
    }
}
