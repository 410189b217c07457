//! DPM-Solver++(2M) (Lu et al., 2022): second-order multistep, data prediction, midpoint.
//!
//! Sources: Wan2.1 `wan/utils/fm_solvers.py`, FlowDPMSolverMultistepScheduler; k-diffusion `sampling.py`, sample_dpmpp_2m.

use candle_core::Tensor;

use crate::sampler::{Progress, predict_x0, scale};
use crate::snr::{NoiseSchedule, exp};
use crate::{Result, Sampler, SamplerState, SchedulerKind};

/// History name of the previous data prediction.
const X0_PREVIOUS: &str = "x0_previous";

/// The solver; it keeps the previous step's data prediction.
#[derive(Debug, Clone)]
pub struct DpmPp2M(Multistep);

impl DpmPp2M {
    /// A solver for the given sigmas, one more than steps, strictly decreasing. `kind` is the name it goes by.
    pub(crate) fn new(kind: SchedulerKind, sigmas: Vec<f32>) -> Self {
        let noise = match kind {
            SchedulerKind::KSampler(_) => NoiseSchedule::Exploding,
            _ => NoiseSchedule::Flow,
        };
        Self(Multistep::new(kind, noise, sigmas))
    }
}

impl Sampler for DpmPp2M {
    /// First order in the first step and in the last one, whose sigma is 0; else second order.
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, _noise: Option<&Tensor>) -> Result<Tensor> {
        let at = &self.0;
        at.check(velocity, sample)?;
        let (sigma, sigma_next) = at.sigmas();
        let h = at.log_snr_step();
        let factor = at.noise.alpha(sigma_next) * (exp(-h) - 1.0);

        let x0 = predict_x0(sample, sigma, velocity)?;
        let mut next = (scale(sigma_next / sigma, sample)? - scale(factor, &x0)?)?;
        if let Some(slope) = at.x0_slope(h, &x0)? {
            next = (next - scale(0.5 * factor, &slope)?)?;
        }
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

/// What solvers of order 2 with data predictions remember from step to step.
#[derive(Debug, Clone)]
pub(crate) struct Multistep {
    pub kind: SchedulerKind,
    pub noise: NoiseSchedule,
    progress: Progress,
    x0_previous: Option<Tensor>,
}

impl Multistep {
    pub fn new(kind: SchedulerKind, noise: NoiseSchedule, sigmas: Vec<f32>) -> Self {
        Self { kind, noise, progress: Progress::new(sigmas), x0_previous: None }
    }

    pub fn check(&self, velocity: &Tensor, sample: &Tensor) -> Result<()> {
        self.progress.check(velocity, sample, self.x0_previous.as_ref())
    }

    /// The sigmas of this step and of the next.
    pub fn sigmas(&self) -> (f32, f32) {
        (self.progress.sigma(0), self.progress.sigma(1))
    }

    /// How far the log-SNR goes up in this step.
    pub fn log_snr_step(&self) -> f32 {
        let (sigma, sigma_next) = self.sigmas();
        self.noise.log_snr(sigma_next) - self.noise.log_snr(sigma)
    }

    /// The scaled first difference of the data predictions, `(1 / r) (x0_i - x0_{i-1})` with
    /// `r = h_{i-1} / h`; `None` in a first-order step.
    ///
    /// In the flow schedule `r` is infinite after a sigma of exactly 1, and the difference counts for nothing.
    pub fn x0_slope(&self, h: f32, x0: &Tensor) -> Result<Option<Tensor>> {
        let Some((x0_previous, h_previous)) = self.previous() else { return Ok(None) };
        let r = h_previous / h;
        Ok(Some(scale(1.0 / r, &(x0 - x0_previous)?)?))
    }

    /// The previous step's data prediction and how far the log-SNR went up in it; `None` in a first-order step.
    pub fn previous(&self) -> Option<(&Tensor, f32)> {
        let at = &self.progress;
        let x0 = self.x0_previous.as_ref().filter(|_| !at.is_first() && !at.is_last())?;
        Some((x0, self.noise.log_snr(at.sigma(0)) - self.noise.log_snr(at.sigma(-1))))
    }

    pub fn advance(&mut self, x0: Tensor) {
        self.x0_previous = Some(x0);
        self.progress.step += 1;
    }

    pub fn steps_taken(&self) -> usize {
        self.progress.step
    }

    pub fn state(&self) -> SamplerState {
        SamplerState::new(self.kind, self.progress.step).with(X0_PREVIOUS, self.x0_previous.as_ref())
    }

    pub fn restore(&mut self, mut state: SamplerState) -> Result<()> {
        let names: &[_] = if state.step == 0 { &[] } else { &[X0_PREVIOUS] };
        state.check(self.kind, self.progress.steps(), names)?;
        self.x0_previous = state.take(X0_PREVIOUS);
        self.progress.step = state.step;
        Ok(())
    }
}
