//! The sigmas of ComfyUI's schedulers, for the flow model with its shift.
//!
//! In f32 and f64 where ComfyUI has them, and in its order of operations. Powers, exponentials and tangents of f32 values go
//! through f64 and are rounded once; torch's may be off by one ulp.
//! Sources: ComfyUI `comfy/samplers.py` (SCHEDULER_HANDLERS), `comfy/k_diffusion/sampling.py` (get_sigmas_karras,
//! get_sigmas_exponential), `comfy/model_sampling.py` (ModelSamplingDiscreteFlow).

use crate::ComfyScheduler;
use crate::beta_spacing::quantile;
use crate::grid::{TRAIN_STEPS, shift_f32};
use crate::linspace::{TorchLinspace, numpy_linspace};

/// Sigmas in the model's table, that of the smallest noise first.
const TABLE_LEN: usize = 1000;

/// Up to here a sigma counts as 0.
const ZERO: f64 = 1e-5;

/// All sigmas of a run of `steps` steps, from the largest to the one it ends at.
///
/// `ddim_uniform` and `beta` may have more or fewer. Not every grid can be run: that of one step of `kl_optimal` is not a
/// number, and at shifts near 0 those of `ddim_uniform` and `normal` end above 0.
pub(crate) fn ksampler_sigmas(scheduler: ComfyScheduler, steps: usize, flow_shift: f64) -> Vec<f32> {
    let flow = Flow { shift: flow_shift };
    match scheduler {
        ComfyScheduler::Simple => to_zero(flow.simple(steps)),
        ComfyScheduler::SgmUniform => to_zero(flow.uniform(steps + 1).take(steps)),
        ComfyScheduler::Karras => to_zero(flow.karras(steps)),
        ComfyScheduler::Exponential => to_zero(flow.exponential(steps)),
        ComfyScheduler::DdimUniform => flow.ddim_uniform(steps),
        ComfyScheduler::Beta => to_zero(flow.beta(steps).into_iter()),
        ComfyScheduler::Normal => flow.normal(steps),
        ComfyScheduler::LinearQuadratic => flow.linear_quadratic(steps),
        ComfyScheduler::KlOptimal => to_zero(flow.kl_optimal(steps)),
    }
}

fn to_zero(sigmas: impl Iterator<Item = f32>) -> Vec<f32> {
    sigmas.chain([0.0]).collect()
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    shift: f64,
}

impl Flow {
    /// An entry of the model's table.
    fn table(self, index: usize) -> f32 {
        self.at_time((index + 1) as f32 / TABLE_LEN as f32 * TRAIN_STEPS as f32)
    }

    fn at_time(self, time: f32) -> f32 {
        shift_f32(self.shift, time / TRAIN_STEPS as f32)
    }

    fn min(self) -> f32 {
        self.table(0)
    }

    fn max(self) -> f32 {
        self.table(TABLE_LEN - 1)
    }

    /// Entries 1000, 1000 - 1000/N, 1000 - 2000/N, ... of the table, fractions rounded up.
    fn simple(self, steps: usize) -> impl Iterator<Item = f32> {
        let stride = TABLE_LEN as f64 / steps as f64;
        (0..steps).map(move |i| self.table(TABLE_LEN - 1 - (i as f64 * stride) as usize))
    }

    /// Equally far apart in time, both ends included. The model's sigmas are shifted already and are taken for times.
    fn uniform(self, len: usize) -> impl Iterator<Item = f32> {
        let (first, last) = (self.max() * TRAIN_STEPS as f32, self.min() * TRAIN_STEPS as f32);
        TorchLinspace::new(first, last, len).values().map(move |time| self.at_time(time))
    }

    fn normal(self, steps: usize) -> Vec<f32> {
        let last = self.at_time(self.min() * TRAIN_STEPS as f32);
        match f64::from(last) <= ZERO {
            true => self.uniform(steps + 1).collect(),
            false => to_zero(self.uniform(steps)),
        }
    }

    /// Karras et al., 2022, arXiv 2206.00364, equation 5.
    fn karras(self, steps: usize) -> impl Iterator<Item = f32> {
        const RHO: f64 = 7.0;
        let root = |sigma: f32| f64::from(sigma).powf(1.0 / RHO);
        let (first, last) = (root(self.max()), root(self.min()));
        let ramp = TorchLinspace::new(0.0, 1.0, steps).values();
        ramp.map(move |u| first as f32 + u * (last - first) as f32).map(|x| f64::from(x).powf(RHO) as f32)
    }

    fn exponential(self, steps: usize) -> impl Iterator<Item = f32> {
        let ln = |sigma: f32| f64::from(sigma).ln() as f32;
        TorchLinspace::new(ln(self.max()), ln(self.min()), steps).values().map(|x| f64::from(x).exp() as f32)
    }

    /// Entries 2, 2 + S, 2 + 2S, ... of the table with S = floor(1000 / N), the largest first.
    fn ddim_uniform(self, steps: usize) -> Vec<f32> {
        let is_zero = f64::from(self.table(1)) <= ZERO;
        let stride = (TABLE_LEN / (steps + usize::from(is_zero))).max(1);
        let rising: Vec<f32> = (1..TABLE_LEN).step_by(stride).map(|index| self.table(index)).collect();
        let falling = rising.into_iter().rev();
        if is_zero { falling.collect() } else { to_zero(falling) }
    }

    /// Lee et al., 2024, arXiv 2407.12173: entries of the table at quantiles of a beta distribution.
    fn beta(self, steps: usize) -> Vec<f32> {
        let entry = |share: f64| (quantile(1.0 - share) * (TABLE_LEN - 1) as f64).round_ties_even() as usize;
        let mut entries: Vec<usize> = numpy_linspace(0.0, 1.0, steps).map(entry).collect();
        entries.dedup();
        entries.into_iter().map(|index| self.table(index)).collect()
    }

    /// Genmo's schedule for Mochi: a line to 1 - 0.025, then the parabola that leaves it at the same slope and ends at 0.
    fn linear_quadratic(self, steps: usize) -> Vec<f32> {
        const LINE: f64 = 0.025;
        let whole = |n: usize| n as f64;
        let linear = steps / 2;
        let quadratic = steps - linear;
        let squared = whole(quadratic * quadratic);
        let short = whole(linear) - LINE * whole(steps);
        let a = short / whole(linear * quadratic * quadratic);
        let b = LINE / whole(linear) - 2.0 * short / squared;
        let c = a * whole(linear * linear);
        let falling = (0..=steps).map(|i| match i {
            0 => 1.0,
            _ if i == steps => 0.0,
            _ if i < linear => 1.0 - whole(i) * LINE / whole(linear),
            _ => 1.0 - (a * whole(i * i) + b * whole(i) + c),
        });
        falling.map(|sigma| sigma as f32 * self.max()).collect()
    }

    fn kl_optimal(self, steps: usize) -> impl Iterator<Item = f32> {
        let angle = |sigma: f32| f64::from(sigma).atan() as f32;
        let (first, last) = (angle(self.max()), angle(self.min()));
        let shares = (0..steps).map(move |i| i as f32 / (steps as f32 - 1.0));
        shares.map(move |u| u * last + (1.0 - u) * first).map(|x| f64::from(x).tan() as f32)
    }
}
