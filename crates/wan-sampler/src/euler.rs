//! The explicit Euler method on the flow ODE, `dx/dsigma = v`.
//!
//! Source: diffusers `schedulers/scheduling_flow_match_euler_discrete.py`.

use candle_core::Tensor;

use crate::sampler::{Progress, scale};
use crate::{Result, Sampler, SamplerState, SchedulerKind};

/// `x' = x + (sigma_{i+1} - sigma_i) v`. Keeps no history.
#[derive(Debug, Clone)]
pub struct Euler {
    kind: SchedulerKind,
    progress: Progress,
}

impl Euler {
    /// A solver for the given sigmas, one more than steps. `kind` is the name it goes by.
    pub(crate) fn new(kind: SchedulerKind, sigmas: Vec<f32>) -> Self {
        Self { kind, progress: Progress::new(sigmas) }
    }
}

impl Sampler for Euler {
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, _noise: Option<&Tensor>) -> Result<Tensor> {
        self.progress.check(velocity, sample, None)?;
        let dt = self.progress.sigma(1) - self.progress.sigma(0);
        let next = (sample + scale(dt, velocity)?)?;
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
