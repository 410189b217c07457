//! Errors of schedules, solvers and the noise generator.

use crate::{SchedulerKind, SigmaGrid};

/// Result with [`SamplerError`].
pub type Result<T> = std::result::Result<T, SamplerError>;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The scheduler's name is none of the known ones.
    #[error("unknown scheduler '{found}', expected one of: {}", SchedulerKind::names())]
    UnknownScheduler {
        /// The name as given.
        found: String,
    },
    /// The sigma grid's name is none of the known ones.
    #[error("unknown sigma grid '{found}', expected one of: default, original, twice")]
    UnknownGrid {
        /// The name as given.
        found: String,
    },
    /// The number of steps is zero or makes an unreasonably long grid.
    #[error("steps is {found}, expected 1 to {max}")]
    Steps {
        /// Steps of the grid (after the division by the denoise strength).
        found: u64,
        /// The longest grid that is accepted.
        max: usize,
    },
    /// The flow shift is not a positive finite number.
    #[error("shift is {found}, expected a finite number above 0")]
    Shift {
        /// The value as given.
        found: f64,
    },
    /// The denoise strength lies outside (0, 1].
    #[error("denoise strength is {found}, expected a number above 0 and at most 1")]
    DenoiseStrength {
        /// The value as given.
        found: f64,
    },
    /// The guidance interval is none.
    #[error(
        "guidance-interval: found `{found}`, expected START:END, shares of the steps with 0 <= START < END <= 1"
    )]
    GuidanceInterval {
        /// The interval as given.
        found: String,
    },
    /// The scheduler has no such grid.
    #[error("scheduler {scheduler} has no sigma grid '{grid}', use 'default'")]
    GridUnavailable {
        /// The scheduler asked for.
        scheduler: SchedulerKind,
        /// The grid asked for.
        grid: SigmaGrid,
    },
    /// The scheduler has a grid of one length alone.
    #[error(
        "scheduler {scheduler} has a grid of {expected} steps, found {found} (steps / denoise strength); \
         use {expected} steps and a denoise strength of 1"
    )]
    FixedSteps {
        /// The scheduler asked for.
        scheduler: SchedulerKind,
        /// Steps of the grid asked for.
        found: usize,
        /// The steps it has.
        expected: usize,
    },
    /// Two neighbouring sigmas are equal in f32, so the solver's step would be 0/0.
    #[error(
        "sigmas {index} and {next} are both {sigma} at {steps} steps and shift {shift}, \
         expected strictly decreasing sigmas; use fewer steps or a shift nearer to 1",
        next = index + 1
    )]
    DegenerateGrid {
        /// Index of the first of the two.
        index: usize,
        /// Their common value.
        sigma: f32,
        /// Steps of the grid.
        steps: usize,
        /// Flow shift of the grid.
        shift: f64,
    },
    /// A grid of ComfyUI's own whose sigmas its sampler cannot take.
    #[error(
        "scheduler {scheduler} cannot run its sigmas of {steps} steps at shift {shift}: {reason}; \
         use another number of steps or another shift"
    )]
    GridUnusable {
        /// The scheduler asked for.
        scheduler: SchedulerKind,
        /// Steps of the grid.
        steps: usize,
        /// Flow shift of the grid.
        shift: f64,
        /// What is wrong with which sigma.
        reason: String,
    },
    /// [`crate::Sampler::step`] was called after the last step.
    #[error("all {steps} steps have been taken, expected no further one")]
    Finished {
        /// Steps of the schedule.
        steps: usize,
    },
    /// A tensor has the wrong shape.
    #[error("{name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor's name.
        name: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that was expected.
        expected: Vec<usize>,
    },
    /// A tensor has the wrong dtype.
    #[error("{name} is {found:?}, expected F32")]
    DType {
        /// The tensor's name.
        name: &'static str,
        /// Its dtype.
        found: candle_core::DType,
    },
    /// The solver needs noise and got none.
    #[error("scheduler {scheduler} needs noise in every step, found none")]
    NoiseMissing {
        /// The solver.
        scheduler: SchedulerKind,
    },
    /// A saved solver state does not fit this solver.
    #[error("sampler state: {detail}")]
    State {
        /// What was found and what was expected.
        detail: String,
    },
    /// A saved generator state is not one.
    #[error("generator state: {detail}")]
    RngState {
        /// What was found and what was expected.
        detail: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl SamplerError {
    /// Whether the options of a schedule were at fault, as against something that went wrong while it ran.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnknownScheduler { .. }
                | Self::UnknownGrid { .. }
                | Self::Steps { .. }
                | Self::Shift { .. }
                | Self::DenoiseStrength { .. }
                | Self::GuidanceInterval { .. }
                | Self::GridUnavailable { .. }
                | Self::FixedSteps { .. }
                | Self::DegenerateGrid { .. }
                | Self::GridUnusable { .. }
        )
    }
}
