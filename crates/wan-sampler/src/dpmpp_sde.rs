//! The stochastic variant of DPM-Solver++(2M): each step removes more noise and adds some of it anew.
//!
//! Source: Wan2.1 `wan/utils/fm_solvers.py`, algorithm type `sde-dpmsolver++`.

use candle_core::Tensor;

use crate::dpmpp::{X0_PREVIOUS, x0_slope};
use crate::sampler::{Progress, predict_x0, require_f32, scale};
use crate::snr::{alpha, exp, log_snr};
use crate::{Result, Sampler, SamplerError, SamplerState, SchedulerKind};

/// The solver; it keeps the previous step's data prediction.
///
/// The noise of every step comes from the generator that made the initial noise, one draw per step
/// right after it. The last step draws too, although its factor is 0.
#[derive(Debug, Clone)]
pub struct DpmPpSde {
    progress: Progress,
    x0_previous: Option<Tensor>,
}

impl DpmPpSde {
    /// A solver for the given sigmas, one more than steps, strictly decreasing.
    pub fn new(sigmas: Vec<f32>) -> Self {
        Self { progress: Progress::new(sigmas), x0_previous: None }
    }
}

impl Sampler for DpmPpSde {
    /// The order of a step follows [`crate::DpmPp2M`].
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        let at = &self.progress;
        at.check(velocity, sample, self.x0_previous.as_ref())?;
        let noise = noise.ok_or(SamplerError::NoiseMissing { scheduler: self.kind() })?;
        require_f32("noise", noise, sample.dims())?;
        let (sigma, sigma_next) = (at.sigma(0), at.sigma(1));
        let h = log_snr(sigma_next) - log_snr(sigma);
        let removed = 1.0 - exp(-2.0 * h);
        let factor = alpha(sigma_next) * removed;

        let x0 = predict_x0(sample, sigma, velocity)?;
        let mut next = (scale(sigma_next / sigma * exp(-h), sample)? + scale(factor, &x0)?)?;
        if let Some(slope) = x0_slope(at, h, &x0, self.x0_previous.as_ref())? {
            next = (next + scale(0.5 * factor, &slope)?)?;
        }
        let next = (next + scale(sigma_next * removed.sqrt(), noise)?)?;
        self.x0_previous = Some(x0);
        self.progress.step += 1;
        Ok(next)
    }

    fn kind(&self) -> SchedulerKind {
        SchedulerKind::DpmPpSde
    }

    fn steps_taken(&self) -> usize {
        self.progress.step
    }

    fn state(&self) -> SamplerState {
        SamplerState::new(self.kind(), self.progress.step).with(X0_PREVIOUS, self.x0_previous.as_ref())
    }

    fn restore(&mut self, mut state: SamplerState) -> Result<()> {
        let names: &[_] = if state.step == 0 { &[] } else { &[X0_PREVIOUS] };
        state.check(self.kind(), self.progress.steps(), names)?;
        self.x0_previous = state.take(X0_PREVIOUS);
        self.progress.step = state.step;
        Ok(())
    }
}
