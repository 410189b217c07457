//! RES (Zhang et al., 2023, arXiv 2308.02157): the second-order exponential integrator in the logarithm of sigma, with the
//! step before in the place of its other stage.
//!
//! Sources: ComfyUI `comfy/k_diffusion/sampling.py`, res_multistep; ComfyUI-WanVideoWrapper
//! `wanvideo/schedulers/flowmatch_res_multistep.py`, FlowMatchSchedulerResMultistep, which asks the model once more at time 0:
//! that changes nothing and is left out here.

use candle_core::Tensor;

use crate::dpmpp::Multistep;
use crate::sampler::{predict_x0, scale};
use crate::snr::{NoiseSchedule, exp, exp_m1};
use crate::{Result, Sampler, SamplerState, SchedulerKind};

/// The solver; it keeps the previous step's data prediction.
#[derive(Debug, Clone)]
pub struct ResMultistep(Multistep);

impl ResMultistep {
    /// A solver for the given sigmas, one more than steps, strictly decreasing. `kind` is the name it goes by.
    pub(crate) fn new(kind: SchedulerKind, sigmas: Vec<f32>) -> Self {
        Self(Multistep::new(kind, NoiseSchedule::Exploding, sigmas))
    }
}

impl Sampler for ResMultistep {
    /// An Euler step first and last, where sigma is 0; else second order.
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, _noise: Option<&Tensor>) -> Result<Tensor> {
        let at = &self.0;
        at.check(velocity, sample)?;
        let (sigma, sigma_next) = at.sigmas();
        let x0 = predict_x0(sample, sigma, velocity)?;
        let next = match at.previous() {
            None => (sample + scale(sigma_next - sigma, velocity)?)?,
            Some((x0_previous, h_previous)) => {
                let h = at.log_snr_step();
                let c2 = -h_previous / h;
                let phi_1 = exp_m1(-h) / -h;
                let phi_2 = (phi_1 - 1.0) / -h;
                let (b1, b2) = (phi_1 - phi_2 / c2, phi_2 / c2);
                let change = (scale(b1, &x0)? + scale(b2, x0_previous)?)?;
                (scale(exp(-h), sample)? + scale(h, &change)?)?
            }
        };
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
