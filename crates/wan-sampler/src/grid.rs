//! Sigma grids: which noise levels a run of N steps visits.
//!
//! The flow shift is `S_s(u) = s u / (1 + (s - 1) u)`. Grids are computed in f64 with the operation
//! order of the references, because a last-bit difference can change a truncated timestep.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::beta_spacing::beta_spaced;
use crate::distill_grid::distill_grid;
use crate::linspace::{TorchLinspace, numpy_linspace as linspace};
use crate::{Result, SamplerError, SchedulerKind};

/// Which sigma grid a schedule uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigmaGrid {
    /// The shift applied once; the schedulers not named at the other grids have this one alone.
    ///
    /// - `dpm++`, `dpm++_sde`, `unipc`: `S_s(linspace(sigma_max, 0, N + 1))` with `sigma_max = S_s(0.999)`
    /// - `euler`, `lcm`: `S_s(linspace(1, S_s(0.001), N))`, the flow-match Euler scheduler of diffusers
    /// - those that end in `/beta`: the same spaced anew between its first and its last sigma above 0
    /// - `deis`: `S_s(linspace(0.999, 0, N + 1))`, diffusers' flow sigmas
    /// - `res_multistep`: `S_s` of N entries, equally far apart, of `linspace(1, 0.003 / 1.002, 1000)`
    /// - `flowmatch_distill`: `S_s` of 0.999, 0.75, 0.5 and 0.25
    /// - ComfyUI's own `SAMPLER/SCHEDULER`: the sigmas of that scheduler (`ksampler_sigmas.rs`), whatever becomes of the shift
    #[default]
    Default,
    /// The original Wan2.1 program. `dpm++`, `dpm++_sde`: `S_s(linspace(1, 0, N + 1))`; `unipc`: as the
    /// default, with `sigma_max = 0.999`. It offers no `euler`.
    Original,
    /// The shift applied twice, as an early revision of the ComfyUI wrapper did: shift 5 acts as 25.
    /// `dpm++`, `dpm++_sde`, `euler`: `S_s(S_s(linspace(1, 0, N + 1)))`. Not for `unipc`.
    Twice,
}

impl SigmaGrid {
    /// All grids.
    pub const ALL: [Self; 3] = [Self::Default, Self::Original, Self::Twice];

    /// The grid's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Original => "original",
            Self::Twice => "twice",
        }
    }
}

impl fmt::Display for SigmaGrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SigmaGrid {
    type Err = SamplerError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|grid| grid.name() == name)
            .ok_or_else(|| SamplerError::UnknownGrid { found: name.to_owned() })
    }
}

/// A whole grid: `steps + 1` sigmas, the last one 0, and `steps` timesteps.
pub(crate) struct GridValues {
    pub(crate) sigmas: Vec<f32>,
    pub(crate) timesteps: Vec<f32>,
}

/// Training timesteps of the model; its time is `1000 sigma`.
pub(crate) const TRAIN_STEPS: f64 = 1000.0;

/// The grid of `steps` steps for a scheduler of the wrapper.
///
/// Errors: `GridUnavailable` where the scheduler has no such grid, `FixedSteps` where it has none of this length.
pub(crate) fn grid_values(
    scheduler: SchedulerKind,
    grid: SigmaGrid,
    steps: usize,
    flow_shift: f64,
) -> Result<GridValues> {
    use SchedulerKind::{
        Deis, DpmPp2M, DpmPp2MBeta, DpmPpSde, DpmPpSdeBeta, Euler, EulerBeta, FlowMatchDistill, Lcm, LcmBeta,
        ResMultistep, UniPc, UniPcBeta,
    };
    let once = |u: f64| shift(flow_shift, u);
    Ok(match (scheduler, grid) {
        (DpmPp2M | DpmPpSde | UniPc, SigmaGrid::Default) => truncated(wan_sigmas(steps, flow_shift)),
        (DpmPp2MBeta | DpmPpSdeBeta | UniPcBeta, SigmaGrid::Default) => {
            truncated(beta_spaced(wan_sigmas(steps, flow_shift)))
        }
        (UniPc, SigmaGrid::Original) => {
            let top = f64::from(largest_training_sigma(1.0));
            truncated(linspace(top, 0.0, steps).map(once))
        }
        (DpmPp2M | DpmPpSde, SigmaGrid::Original) => truncated(linspace(1.0, 0.0, steps).map(once)),
        (DpmPp2M | DpmPpSde, SigmaGrid::Twice) => truncated(linspace(1.0, 0.0, steps).map(once).map(once)),
        (Euler | Lcm, SigmaGrid::Default) => scaled(euler_sigmas(steps, flow_shift).map(|u| u as f32)),
        (EulerBeta | LcmBeta, SigmaGrid::Default) => {
            scaled(beta_spaced(euler_sigmas(steps, flow_shift)).map(|u| u as f32))
        }
        (Deis, SigmaGrid::Default) => truncated(deis_sigmas(steps).map(once)),
        (ResMultistep, SigmaGrid::Default) => scaled(res_sigmas(steps).map(|u| shift_f32(flow_shift, u))),
        (FlowMatchDistill, SigmaGrid::Default) => distill_grid(steps, flow_shift)?,
        (Euler, SigmaGrid::Twice) => {
            // The Euler scheduler takes the shifted sigmas as f32 and shifts them in f32.
            scaled(linspace(1.0, 0.0, steps).map(|u| shift_f32(flow_shift, once(u) as f32)))
        }
        _ => return Err(SamplerError::GridUnavailable { scheduler, grid }),
    })
}

/// The wrapper's grid for the solvers of Wan2.1.
fn wan_sigmas(steps: usize, flow_shift: f64) -> impl Iterator<Item = f64> {
    let top = f64::from(largest_training_sigma(flow_shift));
    linspace(top, 0.0, steps).map(move |u| shift(flow_shift, u))
}

/// diffusers' own grid: both ends of the training range belong to it.
fn euler_sigmas(steps: usize, flow_shift: f64) -> impl Iterator<Item = f64> {
    let end = |u: f32| f64::from(shift_f32(flow_shift, u)) * TRAIN_STEPS;
    let (first, last) = (end(1.0), end(1.0 / TRAIN_STEPS as f32));
    let times = (0..steps).map(move |i| match i {
        0 => first,
        _ if i == steps - 1 => last,
        _ => i as f64 * ((last - first) / (steps - 1) as f64) + first,
    });
    times.map(move |t| shift(flow_shift, t / TRAIN_STEPS))
}

/// diffusers' flow sigmas before the shift: 1 less the reversed `linspace(1, 0.001, N + 1)`, whose first is left out.
fn deis_sigmas(steps: usize) -> impl Iterator<Item = f64> {
    let last = 1.0 / TRAIN_STEPS;
    let step = (last - 1.0) / steps as f64;
    (0..steps).map(move |i| match i {
        0 => 1.0 - last,
        _ => 1.0 - ((steps - i) as f64 * step + 1.0),
    })
}

/// Entries 0, 1000/N, 2000/N, ... of the table of `res_multistep` before the shift, halves rounded to even.
fn res_sigmas(steps: usize) -> impl Iterator<Item = f32> {
    let len = TRAIN_STEPS as usize;
    let table = TorchLinspace::new(1.0, (0.003 / 1.002) as f32, len);
    let stride = TRAIN_STEPS / steps as f64;
    (0..steps).map(move |i| table.value(((i as f64 * stride).round_ties_even() as usize).min(len - 1)))
}

/// Sigmas rounded to f32; timesteps are integers, truncated from the f64 sigmas.
fn truncated(sigmas: impl Iterator<Item = f64>) -> GridValues {
    let (mut sigmas, timesteps): (Vec<f32>, Vec<f32>) =
        sigmas.map(|sigma| (sigma as f32, (sigma * TRAIN_STEPS).trunc() as f32)).unzip();
    sigmas.push(0.0);
    GridValues { sigmas, timesteps }
}

/// Timesteps are the f32 product, fractions included.
pub(crate) fn scaled(sigmas: impl Iterator<Item = f32>) -> GridValues {
    let (mut sigmas, timesteps): (Vec<f32>, Vec<f32>) =
        sigmas.map(|sigma| (sigma, sigma * TRAIN_STEPS as f32)).unzip();
    sigmas.push(0.0);
    GridValues { sigmas, timesteps }
}

pub(crate) fn shift(s: f64, u: f64) -> f64 {
    s * u / (1.0 + (s - 1.0) * u)
}

pub(crate) fn shift_f32(s: f64, u: f32) -> f32 {
    // s and s - 1 are rounded one by one, as a Python scalar meets an f32 tensor.
    s as f32 * u / (1.0 + (s - 1.0) as f32 * u)
}

/// The largest sigma of the training grid `1 - linspace(1, 0.001, 1000)`, shifted in f32.
fn largest_training_sigma(flow_shift: f64) -> f32 {
    shift_f32(flow_shift, 0.999)
}
