//! The sigmas and timesteps of one denoising run.

use candle_core::Tensor;

use crate::grid::{TRAIN_STEPS, grid_values};
use crate::ksampler_grid::{KSamplerGrid, ksampler_grid};
use crate::sampler::require_f32;
use crate::{
    ComfySampler, Deis, DpmPp2M, DpmPpSde, Euler, KSampler, Lcm, ResMultistep, Result, Sampler, SamplerError,
    SchedulerKind, SigmaGrid, UniPc, UniPcKSampler,
};

/// Longest grid that is accepted; a tiny denoise strength would otherwise ask for a huge one.
const MAX_GRID_STEPS: usize = 100_000;

/// Sigmas and timesteps of the steps that are really run.
///
/// Below denoise strength 1 the grid is made for `M = int(steps / strength)` steps and only its last
/// `K = int(M strength) + 1` are run, one more than asked for where `M strength` is whole: the meaning
/// the ComfyUI wrapper gives to `denoise_strength`. ComfyUI's own solvers run the last `steps` of the same grid,
/// as its `denoise` does; at strength 1 all of it, which for `ddim_uniform` and `beta` may be more or fewer. Everything here
/// is of those K steps. Where two neighbouring integer timesteps coincide, the position in the grid decides, not the integer.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    kind: SchedulerKind,
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
    grid_steps: usize,
    noise_scale: f32,
}

impl Schedule {
    /// A schedule on the scheduler's default grid.
    ///
    /// - `steps`: steps asked for, at least 1
    /// - `shift`: flow shift, above 0; 1 leaves the grid linear
    /// - `denoise_strength`: in (0, 1]; 1 runs the whole grid
    ///
    /// Errors: `Steps`, `Shift`, `DenoiseStrength` for values out of range (NaN included);
    /// `DegenerateGrid` where two sigmas coincide in f32 and the solver would divide 0 by 0; `GridUnusable` where the solver
    /// cannot take them for another reason; `FixedSteps` where the scheduler knows one number of steps alone.
    pub fn new(kind: SchedulerKind, steps: usize, shift: f64, denoise_strength: f64) -> Result<Self> {
        Self::with_grid(kind, SigmaGrid::Default, steps, shift, denoise_strength)
    }

    /// [`Self::new`] on a chosen grid.
    ///
    /// Errors: as there, and `GridUnavailable` where the scheduler has no such grid.
    pub fn with_grid(
        kind: SchedulerKind,
        grid: SigmaGrid,
        steps: usize,
        shift: f64,
        denoise_strength: f64,
    ) -> Result<Self> {
        // The solvers' scalars are f32, so the shift has to be a positive number there as well.
        if !(shift.is_finite() && (shift as f32).is_finite() && shift as f32 > 0.0) {
            return Err(SamplerError::Shift { found: shift });
        }
        if !(denoise_strength > 0.0 && denoise_strength <= 1.0) {
            return Err(SamplerError::DenoiseStrength { found: denoise_strength });
        }
        let grid_steps = steps as f64 / denoise_strength;
        if steps == 0 || grid_steps >= (MAX_GRID_STEPS + 1) as f64 {
            // A float-to-integer cast saturates.
            return Err(SamplerError::Steps { found: grid_steps as u64, max: MAX_GRID_STEPS });
        }
        if let SchedulerKind::KSampler(pair) = kind {
            return match grid {
                SigmaGrid::Default => Self::ksampler(pair, steps, shift, denoise_strength),
                _ => Err(SamplerError::GridUnavailable { scheduler: kind, grid }),
            };
        }
        let grid_steps = grid_steps as usize;
        let run = match denoise_strength {
            1.0 => grid_steps,
            share => ((grid_steps as f64 * share) as usize + 1).min(grid_steps),
        };
        let values = grid_values(kind, grid, grid_steps, shift)?;
        let start = grid_steps - run;
        let sigmas = values.sigmas[start..].to_vec();
        check_decreasing(kind, &sigmas, start, grid_steps, shift)?;
        let timesteps = values.timesteps[start..].to_vec();
        Ok(Self { kind, sigmas, timesteps, grid_steps, noise_scale: 1.0 })
    }

    fn ksampler(pair: KSampler, steps: usize, shift: f64, denoise: f64) -> Result<Self> {
        let kind = SchedulerKind::KSampler(pair);
        let KSamplerGrid { sigmas, grid_steps, noise_scale } = ksampler_grid(pair, steps, shift, denoise)?;
        let run = sigmas.len() - 1;
        check_decreasing(kind, &sigmas, grid_steps - run, grid_steps, shift)?;
        let timesteps = sigmas[..run].iter().map(|sigma| sigma * TRAIN_STEPS as f32).collect();
        Ok(Self { kind, sigmas, timesteps, grid_steps, noise_scale })
    }

    /// The scheduler.
    pub fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// Noise levels in [0, 1], one more than steps, falling to a final 0.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// Times in [0, 1000] as the model receives them, one per step. Whole numbers for `dpm++`, `dpm++_sde` and
    /// `unipc`, with `/beta` or without, and for `deis`.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// Number of steps really run.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// Number of steps of the whole grid, those skipped at its start included.
    pub fn grid_steps(&self) -> usize {
        self.grid_steps
    }

    /// Index in the whole grid of the first step that is run; 0 at denoise strength 1.
    pub fn start_index(&self) -> usize {
        self.grid_steps - self.steps()
    }

    /// What the noise that a run starts from is multiplied by.
    ///
    /// ComfyUI's `KSampler` mixes `sigma noise + (1 - sigma) latents` at its first sigma, and the latents that a video starts
    /// from are 0. The wrapper takes the noise as it is.
    pub fn noise_scale(&self) -> f32 {
        self.noise_scale
    }

    /// A fresh solver for this schedule.
    pub fn sampler(&self) -> Box<dyn Sampler> {
        let sigmas = self.sigmas.clone();
        use SchedulerKind as Kind;
        match self.kind {
            Kind::DpmPp2M | Kind::DpmPp2MBeta => Box::new(DpmPp2M::new(self.kind, sigmas)),
            Kind::DpmPpSde | Kind::DpmPpSdeBeta => Box::new(DpmPpSde::new(self.kind, sigmas)),
            Kind::UniPc | Kind::UniPcBeta => Box::new(UniPc::new(self.kind, sigmas)),
            Kind::Euler | Kind::EulerBeta | Kind::FlowMatchDistill => Box::new(Euler::new(self.kind, sigmas)),
            Kind::Deis => Box::new(Deis::new(sigmas)),
            Kind::ResMultistep => Box::new(ResMultistep::new(self.kind, sigmas)),
            Kind::Lcm | Kind::LcmBeta => Box::new(Lcm::new(self.kind, sigmas)),
            Kind::KSampler(pair) => match pair.sampler {
                ComfySampler::Euler => Box::new(Euler::new(self.kind, sigmas)),
                ComfySampler::DpmPp2M => Box::new(DpmPp2M::new(self.kind, sigmas)),
                ComfySampler::DpmPpSde => Box::new(DpmPpSde::new(self.kind, sigmas)),
                ComfySampler::UniPc => Box::new(UniPcKSampler::new(self.kind, sigmas)),
                ComfySampler::Lcm => Box::new(Lcm::new(self.kind, sigmas)),
                ComfySampler::ResMultistep => Box::new(ResMultistep::new(self.kind, sigmas)),
            },
        }
    }

    /// Latents to start from where a video is to be changed rather than made:
    /// `noise t0 / 1000 + latents (1 - t0 / 1000)` with the first timestep `t0`.
    ///
    /// - `noise`, `latents`: f32 of one shape; returns the same
    ///
    /// Without latents a run starts from the noise alone, even below denoise strength 1.
    ///
    /// Errors: `DType` unless both are f32, `Shape` if they differ.
    /// Source: ComfyUI-WanVideoWrapper `nodes.py`, WanVideoSampler.
    pub fn mix_initial(&self, noise: &Tensor, latents: &Tensor) -> Result<Tensor> {
        require_f32("noise", noise, latents.dims())?;
        require_f32("latents", latents, latents.dims())?;
        let t0 = self.timesteps[0];
        let thousand = Tensor::new(1000_f32, noise.device())?;
        let noise = (noise * f64::from(t0))?.broadcast_div(&thousand)?;
        let latents = (latents * f64::from(1.0 - t0 / 1000.0))?;
        Ok((noise + latents)?)
    }
}

/// The multistep solvers divide by differences of log-SNR; those of one step do not and take equal sigmas.
fn check_decreasing(
    kind: SchedulerKind,
    sigmas: &[f32],
    start: usize,
    steps: usize,
    shift: f64,
) -> Result<()> {
    if kind.is_single_step() {
        return Ok(());
    }
    match sigmas.windows(2).position(|pair| pair[0] <= pair[1]) {
        None => Ok(()),
        Some(i) => Err(SamplerError::DegenerateGrid { index: start + i, sigma: sigmas[i], steps, shift }),
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
