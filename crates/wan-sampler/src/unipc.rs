//! UniPC (Zhao et al., 2023) of order 2 with B(h) = e^h - 1 ("bh2"), data prediction.
//!
//! Each step first corrects the sample with the model output just obtained at it, then predicts the
//! next one. Source: Wan2.1 `wan/utils/fm_solvers_unipc.py`, FlowUniPCMultistepScheduler.

use candle_core::Tensor;

use crate::sampler::{Progress, divide, predict_x0, scale};
use crate::snr::{alpha, exp_m1, log_snr};
use crate::{Result, Sampler, SamplerState, SchedulerKind};

const CORRECTED: &str = "corrected_previous";
const X0_PREVIOUS: &str = "x0_previous";
const X0_BEFORE: &str = "x0_before_previous";

/// The solver; it keeps two data predictions and the last corrected sample.
#[derive(Debug, Clone)]
pub struct UniPc {
    kind: SchedulerKind,
    progress: Progress,
    /// Data prediction of the previous step.
    x0_previous: Option<Tensor>,
    /// Data prediction of the step before that.
    x0_before: Option<Tensor>,
    /// The corrected sample that the previous step's predictor started from.
    corrected_previous: Option<Tensor>,
}

impl UniPc {
    /// A solver for the given sigmas, one more than steps, strictly decreasing. `kind` is the name it goes by.
    pub(crate) fn new(kind: SchedulerKind, sigmas: Vec<f32>) -> Self {
        let progress = Progress::new(sigmas);
        Self { kind, progress, x0_previous: None, x0_before: None, corrected_previous: None }
    }

    /// Order of the predictor at a step: 1 at both ends of the run, else 2.
    fn order(&self, step: usize) -> usize {
        2.min(step + 1).min(self.progress.steps() - step)
    }

    /// UniC: the sample at the current sigma, with the data prediction `x0` obtained at it taken into
    /// account. `None` in the first step, where there is nothing to correct.
    fn correct(&self, x0: &Tensor) -> Result<Option<Tensor>> {
        let (Some(start), Some(x0_previous)) = (&self.corrected_previous, &self.x0_previous) else {
            return Ok(None);
        };
        let at = &self.progress;
        let step = Step::new(at.sigma(-1), at.sigma(0));
        let base = step.first_order(start, x0_previous)?;
        let newest = (x0 - x0_previous)?;
        let change = match &self.x0_before {
            Some(x0_before) if self.order(at.step - 1) == 2 => {
                let r = step.ratio(at.sigma(-2));
                let (c_older, c_newest) = solve_2x2(r, step.b(1), step.b(2));
                let older = divide(&(x0_before - x0_previous)?, r)?;
                (scale(c_older, &older)? + scale(c_newest, &newest)?)?
            }
            _ => scale(0.5, &newest)?,
        };
        Ok(Some((base - scale(step.factor, &change)?)?))
    }

    /// UniP: the sample at the next sigma.
    fn predict(&self, corrected: &Tensor, x0: &Tensor) -> Result<Tensor> {
        let at = &self.progress;
        let step = Step::new(at.sigma(0), at.sigma(1));
        let base = step.first_order(corrected, x0)?;
        match &self.x0_previous {
            Some(x0_previous) if self.order(at.step) == 2 => {
                let slope = divide(&(x0_previous - x0)?, step.ratio(at.sigma(-1)))?;
                Ok((base - scale(step.factor, &scale(0.5, &slope)?)?)?)
            }
            _ => Ok(base),
        }
    }

    fn history_names(&self, step: usize) -> &'static [&'static str] {
        // In the alphabetical order of a `SamplerState`.
        match step {
            0 => &[],
            1 => &[CORRECTED, X0_PREVIOUS],
            _ => &[CORRECTED, X0_BEFORE, X0_PREVIOUS],
        }
    }
}

impl Sampler for UniPc {
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, _noise: Option<&Tensor>) -> Result<Tensor> {
        self.progress.check(velocity, sample, self.x0_previous.as_ref())?;
        // From the uncorrected sample; it is not recomputed after the correction.
        let x0 = predict_x0(sample, self.progress.sigma(0), velocity)?;
        let corrected = self.correct(&x0)?.unwrap_or_else(|| sample.clone());
        let next = self.predict(&corrected, &x0)?;
        self.corrected_previous = Some(corrected);
        self.x0_before = self.x0_previous.replace(x0);
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
            .with(CORRECTED, self.corrected_previous.as_ref())
            .with(X0_PREVIOUS, self.x0_previous.as_ref())
            .with(X0_BEFORE, self.x0_before.as_ref())
    }

    fn restore(&mut self, mut state: SamplerState) -> Result<()> {
        state.check(self.kind, self.progress.steps(), self.history_names(state.step))?;
        self.corrected_previous = state.take(CORRECTED);
        self.x0_previous = state.take(X0_PREVIOUS);
        self.x0_before = state.take(X0_BEFORE);
        self.progress.step = state.step;
        Ok(())
    }
}

/// Scalars of the interval from `sigma` to `sigma_next`.
struct Step {
    sigma_ratio: f32,
    log_snr: f32,
    /// Log-SNR difference over the interval.
    h: f32,
    /// `e^-h - 1`, the paper's h phi_1 and, for bh2, also its B(h).
    e: f32,
    /// `alpha_next (e^-h - 1)`.
    factor: f32,
}

impl Step {
    fn new(sigma: f32, sigma_next: f32) -> Self {
        let log_snr_start = log_snr(sigma);
        let h = log_snr(sigma_next) - log_snr_start;
        let e = exp_m1(-h);
        Self { sigma_ratio: sigma_next / sigma, log_snr: log_snr_start, h, e, factor: alpha(sigma_next) * e }
    }

    /// The exact solution for a constant data prediction.
    fn first_order(&self, sample: &Tensor, x0: &Tensor) -> Result<Tensor> {
        Ok((scale(self.sigma_ratio, sample)? - scale(self.factor, x0)?)?)
    }

    /// Position of an earlier sigma in units of this interval; negative.
    fn ratio(&self, sigma_earlier: f32) -> f32 {
        (log_snr(sigma_earlier) - self.log_snr) / self.h
    }

    /// Right-hand side `k! h phi_{k+1}(h) / B(h)` of the order conditions, k = 1 or 2.
    fn b(&self, k: usize) -> f32 {
        let h = -self.h;
        let phi_2 = self.e / h - 1.0;
        if k == 1 { phi_2 / self.e } else { (phi_2 / h - 0.5) * 2.0 / self.e }
    }
}

/// Solves `c0 + c1 = b1`, `r c0 + c1 = b2` by elimination with row exchange.
///
/// Reciprocals and fused multiply-adds follow LAPACK's `sgesv` as torch ships it, which makes the
/// coefficients equal to the reference's bit for bit.
fn solve_2x2(r: f32, b1: f32, b2: f32) -> (f32, f32) {
    if r.abs() > 1.0 {
        let factor = 1.0 / r;
        let c1 = (-factor).mul_add(b2, b1) * (1.0 / (1.0 - factor));
        ((b2 - c1) * factor, c1)
    } else {
        let c1 = (-r).mul_add(b1, b2) * (1.0 / (1.0 - r));
        (b1 - c1, c1)
    }
}
