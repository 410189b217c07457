//! DEIS (Zhang and Chen, 2023, arXiv 2204.13902): second-order multistep in the logarithm of rho = sigma / alpha, with the
//! predicted noise.
//!
//! Source: diffusers `schedulers/scheduling_deis_multistep.py`, DEISMultistepScheduler with flow sigmas, the last of which
//! ComfyUI-WanVideoWrapper `wanvideo/schedulers/__init__.py` sets to 1e-6.

use candle_core::Tensor;

use crate::sampler::{Progress, divide, predict_x0, scale};
use crate::snr::{alpha, exp, log_snr};
use crate::{Result, Sampler, SamplerState, SchedulerKind};

/// What the solver takes the last sigma for.
const LAST_SIGMA: f32 = 1e-6;

/// From how many steps on the last one is of second order, too.
const LONG: usize = 15;

const NOISE_PREVIOUS: &str = "noise_previous";

/// The solver; it keeps the noise that the previous step predicted.
#[derive(Debug, Clone)]
pub struct Deis {
    progress: Progress,
    noise_previous: Option<Tensor>,
}

impl Deis {
    /// A solver for the given sigmas, one more than steps, strictly decreasing from below 1 to 0.
    pub(crate) fn new(mut sigmas: Vec<f32>) -> Self {
        if let Some(last) = sigmas.last_mut() {
            *last = LAST_SIGMA;
        }
        Self { progress: Progress::new(sigmas), noise_previous: None }
    }

    /// The noise predicted before, where this step is of second order.
    fn previous(&self) -> Option<&Tensor> {
        let at = &self.progress;
        self.noise_previous.as_ref().filter(|_| !at.is_last() || at.steps() >= LONG)
    }

    /// The integrals over rho, from this sigma to the next, of the linear interpolation's two weights.
    ///
    /// In f64: they are small differences, and the reference's f32 logarithms depend on the processor.
    fn weights(&self) -> (f32, f32) {
        let rho =
            |offset| f64::from(self.progress.sigma(offset)) / f64::from(alpha(self.progress.sigma(offset)));
        let (next, now, before) = (rho(1), rho(0), rho(-1));
        // Integral of (ln t - ln c) / (ln b - ln c).
        let integral = |t: f64, b: f64, c: f64| t * (t.ln() - c.ln() - 1.0) / (b.ln() - c.ln());
        let newer = integral(next, now, before) - integral(now, now, before);
        let older = integral(next, before, now) - integral(now, before, now);
        (newer as f32, older as f32)
    }
}

impl Sampler for Deis {
    /// First order in the first step and, in runs of less than 15, in the last one.
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, _noise: Option<&Tensor>) -> Result<Tensor> {
        let at = &self.progress;
        at.check(velocity, sample, self.noise_previous.as_ref())?;
        let (sigma, sigma_next) = (at.sigma(0), at.sigma(1));
        let (alpha_now, alpha_next) = (alpha(sigma), alpha(sigma_next));
        let x0 = predict_x0(sample, sigma, velocity)?;
        let noise = divide(&(sample - scale(alpha_now, &x0)?)?, sigma)?;
        let next = match self.previous() {
            None => {
                let h = log_snr(sigma_next) - log_snr(sigma);
                let factor = sigma_next * (exp(h) - 1.0);
                (scale(alpha_next / alpha_now, sample)? - scale(factor, &noise)?)?
            }
            Some(previous) => {
                let (newer, older) = self.weights();
                let sum = ((divide(sample, alpha_now)? + scale(newer, &noise)?)? + scale(older, previous)?)?;
                scale(alpha_next, &sum)?
            }
        };
        self.noise_previous = Some(noise);
        self.progress.step += 1;
        Ok(next)
    }

    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Deis
    }

    fn steps_taken(&self) -> usize {
        self.progress.step
    }

    fn state(&self) -> SamplerState {
        SamplerState::new(self.kind(), self.progress.step).with(NOISE_PREVIOUS, self.noise_previous.as_ref())
    }

    fn restore(&mut self, mut state: SamplerState) -> Result<()> {
        let names: &[_] = if state.step == 0 { &[] } else { &[NOISE_PREVIOUS] };
        state.check(self.kind(), self.progress.steps(), names)?;
        self.noise_previous = state.take(NOISE_PREVIOUS);
        self.progress.step = state.step;
        Ok(())
    }
}
