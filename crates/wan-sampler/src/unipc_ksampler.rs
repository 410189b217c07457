//! ComfyUI's `uni_pc`: UniPC (Zhao et al., 2023) of order 3 with B(h) = h ("bh1"), data prediction.
//!
//! It is written for variance-preserving samples `x / sqrt(1 + sigma^2)`, so it steps in the logarithm of
//! sigma; here the samples stay as they are and the square roots cancel. As in [`crate::UniPc`] a step first
//! corrects the sample with the data prediction just obtained at it, which is not computed anew afterwards. The
//! last sigma is 0.001 instead of 0, and the last sample is divided by 1 - 0.001.
//! Source: ComfyUI `comfy/extra_samplers/uni_pc.py`.

use candle_core::Tensor;

use crate::sampler::{Progress, predict_x0};
use crate::{Result, Sampler, SamplerState, SchedulerKind};

/// What the solver takes the last sigma for.
const LAST_SIGMA: f32 = 0.001;

const CORRECTED: &str = "corrected_previous";
/// Data predictions of the last steps, the newest first; in the alphabetical order of a [`SamplerState`].
const X0: [&str; 3] = ["x0_1_previous", "x0_2_before", "x0_3_before"];

/// The solver; it keeps up to three data predictions and the last corrected sample.
#[derive(Debug, Clone)]
pub struct UniPcKSampler {
    kind: SchedulerKind,
    progress: Progress,
    marginals: Vec<Marginal>,
    /// Data predictions of the steps taken, the newest first.
    x0s: Vec<Tensor>,
    /// The corrected sample that the previous step's predictor started from.
    corrected_previous: Option<Tensor>,
}

impl UniPcKSampler {
    /// A solver for the given sigmas, one more than steps, strictly decreasing to 0. `kind` is the name it goes by.
    pub(crate) fn new(kind: SchedulerKind, sigmas: Vec<f32>) -> Self {
        let marginals = sigmas.iter().map(|sigma| Marginal::of(*sigma)).collect();
        Self { kind, progress: Progress::new(sigmas), marginals, x0s: Vec::new(), corrected_previous: None }
    }

    /// The first sigma whose log-SNR is that of the next one: a step divides by the difference.
    pub(crate) fn unresolved(sigmas: &[f32]) -> Option<usize> {
        let at = |i: usize| Marginal::of(sigmas[i]).log_snr;
        (0..sigmas.len() - 1).find(|&i| at(i) == at(i + 1))
    }

    /// Order of the way to sigma `to`: 1 at both ends, and below 3 in runs of less than four steps.
    ///
    /// ComfyUI's order is 0 in a run of one step, which then returns its noise; here it is 1.
    fn order(&self, to: usize) -> usize {
        let steps = self.progress.steps();
        3.min(steps - 1).max(1).min(to).min(steps + 1 - to)
    }

    /// The way from sigma `to - 1` to sigma `to`.
    fn interval(&self, to: usize) -> Interval {
        let at = &self.marginals;
        let h = at[to].log_snr - at[to - 1].log_snr;
        let earlier = (2..=self.order(to)).map(|back| (at[to - back].log_snr - at[to - 1].log_snr) / h);
        Interval { sigma_ratio: at[to].sigma / at[to - 1].sigma, h, earlier: earlier.collect() }
    }

    /// UniC: the sample at the current sigma, with the data prediction `x0` obtained at it taken into account. `None` in the
    /// first step, where there is nothing to correct.
    fn correct(&self, x0: &Tensor) -> Result<Option<Tensor>> {
        let Some(start) = &self.corrected_previous else { return Ok(None) };
        let interval = self.interval(self.progress.step);
        let weights = interval.corrector();
        let (newest, earlier) = weights.split_last().expect("an order of at least 1");
        let change = interval.earlier_change(&self.x0s, earlier)?;
        let change = add(change, scaled(*newest, &(x0 - &self.x0s[0])?)?)?;
        Ok(Some(interval.arrive(start, &self.x0s[0], Some(change))?))
    }

    /// UniP: the sample at the next sigma. `x0s` are the data predictions, the current one first.
    fn predict(&self, corrected: &Tensor, x0s: &[Tensor]) -> Result<Tensor> {
        let interval = self.interval(self.progress.step + 1);
        let change = interval.earlier_change(x0s, &interval.predictor())?;
        interval.arrive(corrected, &x0s[0], change)
    }

    fn history_names(step: usize) -> Vec<&'static str> {
        let corrected = (step > 0).then_some(CORRECTED);
        corrected.into_iter().chain(X0.into_iter().take(step)).collect()
    }
}

impl Sampler for UniPcKSampler {
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, _noise: Option<&Tensor>) -> Result<Tensor> {
        self.progress.check(velocity, sample, self.x0s.first())?;
        let x0 = predict_x0(sample, self.progress.sigma(0), velocity)?;
        let corrected = self.correct(&x0)?.unwrap_or_else(|| sample.clone());
        let x0s: Vec<Tensor> = [x0].into_iter().chain(self.x0s.iter().cloned()).take(X0.len()).collect();
        let mut next = self.predict(&corrected, &x0s)?;
        if self.progress.is_last() {
            next = (next / f64::from(1.0 - LAST_SIGMA))?;
        }
        self.corrected_previous = Some(corrected);
        self.x0s = x0s;
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
        let state = SamplerState::new(self.kind(), self.progress.step)
            .with(CORRECTED, self.corrected_previous.as_ref());
        X0.iter().zip(&self.x0s).fold(state, |state, (name, x0)| state.with(name, Some(x0)))
    }

    fn restore(&mut self, mut state: SamplerState) -> Result<()> {
        state.check(self.kind(), self.progress.steps(), &Self::history_names(state.step))?;
        self.corrected_previous = state.take(CORRECTED);
        self.x0s = X0.iter().filter_map(|name| state.take(name)).collect();
        self.progress.step = state.step;
        Ok(())
    }
}

/// Sigma and log-SNR as ComfyUI computes them, by way of the variance-preserving alpha in f32, whose rounding makes
/// 0.00098 of 0.001.
#[derive(Debug, Clone, Copy)]
struct Marginal {
    sigma: f64,
    log_snr: f64,
}

impl Marginal {
    /// At a sigma of the grid.
    fn of(sigma: f32) -> Self {
        Self::new(if sigma == 0.0 { LAST_SIGMA } else { sigma })
    }

    fn new(sigma: f32) -> Self {
        let ln = |x: f32| f64::from(x).ln() as f32;
        let log_alpha = 0.5 * ln(1.0 / (sigma * sigma + 1.0));
        let variance = 1.0 - f64::from(2.0 * log_alpha).exp() as f32;
        let alpha = f64::from(log_alpha).exp() as f32;
        Self {
            sigma: f64::from(variance.sqrt()) / f64::from(alpha),
            log_snr: f64::from(log_alpha - 0.5 * ln(variance)),
        }
    }
}

/// The way from one sigma to the next.
struct Interval {
    sigma_ratio: f64,
    /// Log-SNR difference.
    h: f64,
    /// Positions of the sigmas before its start, in units of `h`; negative, the nearest first. One less than the order.
    earlier: Vec<f64>,
}

impl Interval {
    /// Weights of the differences of the earlier data predictions.
    fn predictor(&self) -> Vec<f64> {
        match self.earlier.as_slice() {
            // The solution of the order conditions would be close to it.
            [_] => vec![0.5],
            earlier => solve(earlier, &self.order_conditions(earlier.len())),
        }
    }

    /// Weights of the same differences and, last, of that of the data prediction at the end.
    fn corrector(&self) -> Vec<f64> {
        match self.earlier.as_slice() {
            [] => vec![0.5],
            earlier => {
                let positions = [earlier, &[1.0]].concat();
                solve(&positions, &self.order_conditions(positions.len()))
            }
        }
    }

    /// Right-hand sides `k! h phi_{k+1}(h) / B(h)`, k = 1 to `order`. In f64: they are differences of nearly equal numbers.
    fn order_conditions(&self, order: usize) -> Vec<f64> {
        let h = -self.h;
        let mut phi = h.exp_m1() / h - 1.0;
        let mut factorial = 1.0;
        let conditions = (1..=order).map(|k| {
            let condition = phi * factorial / h;
            factorial *= (k + 1) as f64;
            phi = phi / h - 1.0 / factorial;
            condition
        });
        conditions.collect()
    }

    /// `sum_k weight_k (x0_k - x0_0) / position_k`.
    fn earlier_change(&self, x0s: &[Tensor], weights: &[f64]) -> Result<Option<Tensor>> {
        let mut change = None;
        for ((x0, position), weight) in x0s.iter().skip(1).zip(&self.earlier).zip(weights) {
            change = Some(add(change, scaled(weight / position, &(x0 - &x0s[0])?)?)?);
        }
        Ok(change)
    }

    /// The sample at the end: the exact solution for the constant data prediction `x0`, and what its change adds.
    fn arrive(&self, start: &Tensor, x0: &Tensor, change: Option<Tensor>) -> Result<Tensor> {
        let exact = (scaled(self.sigma_ratio, start)? - scaled((-self.h).exp_m1(), x0)?)?;
        // B(h) is -h.
        match change {
            Some(change) => Ok((exact + scaled(self.h, &change)?)?),
            None => Ok(exact),
        }
    }
}

/// The weights `w` with `sum_j positions_j^i w_j = right_i` for i from 0: the transposed Vandermonde system, by Lagrange's
/// polynomials.
fn solve(positions: &[f64], right: &[f64]) -> Vec<f64> {
    let weight = |j| lagrange(positions, j).iter().zip(right).map(|(c, b)| c * b).sum();
    (0..positions.len()).map(weight).collect()
}

/// Coefficients, the constant first, of the polynomial that is 1 at position `j` and 0 at the others.
fn lagrange(positions: &[f64], j: usize) -> Vec<f64> {
    let others = positions.iter().enumerate().filter(|(k, _)| *k != j);
    others.fold(vec![1.0], |polynomial, (_, other)| {
        let times_x = [&[0.0], polynomial.as_slice()].concat();
        let same = [polynomial.as_slice(), &[0.0]].concat();
        times_x.iter().zip(same).map(|(up, same)| (up - other * same) / (positions[j] - other)).collect()
    })
}

fn add(sum: Option<Tensor>, next: Tensor) -> Result<Tensor> {
    match sum {
        Some(sum) => Ok((sum + next)?),
        None => Ok(next),
    }
}

/// `factor * tensor`; the factor is rounded to f32 where the product is taken.
fn scaled(factor: f64, tensor: &Tensor) -> Result<Tensor> {
    Ok((tensor * factor)?)
}
