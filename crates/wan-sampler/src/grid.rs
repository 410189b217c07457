//! Sigma grids: which noise levels a run of N steps visits.
//!
//! The flow shift is `S_s(u) = s u / (1 + (s - 1) u)`. Grids are computed in f64 with the operation
//! order of the references, because a last-bit difference can change a truncated timestep.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::simple_grid::simple_grid;
use crate::{Result, SamplerError, SchedulerKind};

/// Which sigma grid a schedule uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigmaGrid {
    /// The shift applied once. `dpm++`, `dpm++_sde` and `unipc`: `S_s(linspace(sigma_max, 0, N + 1))`
    /// with `sigma_max = S_s(0.999)`; `euler`: `S_s(linspace(1, S_s(0.001), N))`, the flow-match Euler
    /// scheduler of diffusers. Those that end in `/simple`: ComfyUI's scheduler `simple`; they have no other grid.
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

/// The grid of `steps` steps for a scheduler.
///
/// Errors: `GridUnavailable` where the scheduler has no such grid.
pub(crate) fn grid_values(
    scheduler: SchedulerKind,
    grid: SigmaGrid,
    steps: usize,
    flow_shift: f64,
) -> Result<GridValues> {
    use SchedulerKind::{DpmPp2M, DpmPpSde, Euler, UniPc};
    let once = |u: f64| shift(flow_shift, u);
    Ok(match (scheduler, grid) {
        (DpmPp2M | DpmPpSde | UniPc, SigmaGrid::Default) => {
            let top = f64::from(largest_training_sigma(flow_shift));
            truncated(linspace(top, 0.0, steps).map(once))
        }
        (UniPc, SigmaGrid::Original) => {
            let top = f64::from(largest_training_sigma(1.0));
            truncated(linspace(top, 0.0, steps).map(once))
        }
        (DpmPp2M | DpmPpSde, SigmaGrid::Original) => truncated(linspace(1.0, 0.0, steps).map(once)),
        (DpmPp2M | DpmPpSde, SigmaGrid::Twice) => truncated(linspace(1.0, 0.0, steps).map(once).map(once)),
        (Euler, SigmaGrid::Default) => euler_default(steps, flow_shift),
        (Euler, SigmaGrid::Twice) => {
            // The Euler scheduler takes the shifted sigmas as f32 and shifts them in f32.
            scaled(linspace(1.0, 0.0, steps).map(|u| shift_f32(flow_shift, once(u) as f32)))
        }
        (kind, SigmaGrid::Default) if kind.is_simple() => simple_grid(kind, steps, flow_shift),
        _ => return Err(SamplerError::GridUnavailable { scheduler, grid }),
    })
}

/// diffusers' own grid: both ends of the training range belong to it.
fn euler_default(steps: usize, flow_shift: f64) -> GridValues {
    let end = |u: f32| f64::from(shift_f32(flow_shift, u)) * TRAIN_STEPS;
    let (first, last) = (end(1.0), end(1.0 / TRAIN_STEPS as f32));
    let times = (0..steps).map(|i| match i {
        0 => first,
        _ if i == steps - 1 => last,
        _ => i as f64 * ((last - first) / (steps - 1) as f64) + first,
    });
    scaled(times.map(|t| shift(flow_shift, t / TRAIN_STEPS) as f32))
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

/// `numpy.linspace(from, to, steps + 1)` without its last value, bit for bit.
fn linspace(from: f64, to: f64, steps: usize) -> impl Iterator<Item = f64> {
    let step = (to - from) / steps as f64;
    (0..steps).map(move |i| i as f64 * step + from)
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
