//! The stochastic variant of DPM-Solver++(2M): each step removes more noise and adds some of it anew.
//!
//! Sources: Wan2.1 `wan/utils/fm_solvers.py`, algorithm type `sde-dpmsolver++`; ComfyUI `comfy/k_diffusion/sampling.py`,
//! sample_dpmpp_2m_sde, which is the same method in the flow schedule as well.

use candle_core::Tensor;

use crate::dpmpp::Multistep;
use crate::sampler::{predict_x0, require_f32, scale};
use crate::snr::{NoiseSchedule, exp};
use crate::{Result, Sampler, SamplerError, SamplerState, SchedulerKind};

/// The solver; it keeps the previous step's data prediction.
///
/// The noise of every step comes from the generator that made the initial noise, one draw per step
/// right after it. The last step draws too, although its factor is 0.
#[derive(Debug, Clone)]
pub struct DpmPpSde(Multistep);

impl DpmPpSde {
    /// A solver for the given sigmas, one more than steps, strictly decreasing. `kind` is the name it goes by.
    pub(crate) fn new(kind: SchedulerKind, sigmas: Vec<f32>) -> Self {
        Self(Multistep::new(kind, NoiseSchedule::Flow, sigmas))
    }
}

impl Sampler for DpmPpSde {
    /// The order of a step follows [`crate::DpmPp2M`].
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        let at = &self.0;
        at.check(velocity, sample)?;
        let noise = noise.ok_or(SamplerError::NoiseMissing { scheduler: self.kind() })?;
        require_f32("noise", noise, sample.dims())?;
        let (sigma, sigma_next) = at.sigmas();
        let h = at.log_snr_step();
        let removed = 1.0 - exp(-2.0 * h);
        let factor = at.noise.alpha(sigma_next) * removed;

        let x0 = predict_x0(sample, sigma, velocity)?;
        let mut next = (scale(sigma_next / sigma * exp(-h), sample)? + scale(factor, &x0)?)?;
        if let Some(slope) = at.x0_slope(h, &x0)? {
            next = (next + scale(0.5 * factor, &slope)?)?;
        }
        let next = (next + scale(sigma_next * removed.sqrt(), noise)?)?;
        self.0.advance(x0);
        Ok(next)
    }

    fn kind(&self) -> SchedulerKind {
        self.0.kind
    }

    fn steps_taken(&self) -> usize {
        self.0.steps_taken()
    }

    fn state(&self) -> SamplerState {
        self.0.state()
    }

    fn restore(&mut self, state: SamplerState) -> Result<()> {
        self.0.restore(state)
    }
}
