//! Context windows: a video longer than the model was trained on, denoised a window of latent frames at a time.
//!
//! In each step the velocity is computed window by window and blended where windows overlap; the solver then takes one
//! step on the whole. Every window begins at temporal position 0.
//!
//! Source: ComfyUI-WanVideoWrapper, `WanVideoContextOptions`, `WanVideoSampler` and `context_windows/context.py`, after
//! ComfyUI-AnimateDiff-Evolved; for the shuffled noise "FreeNoise" (arXiv 2310.15169).

mod blend;
mod noise;
mod schedule;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wan_core::geometry::{TEMPORAL_FACTOR, latent_frames};

use crate::{PipelineError, Result};

pub(crate) use blend::blended;
pub(crate) use noise::repeat_shuffled;

/// How windows lie over the video. As text: the reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowSchedule {
    /// The same windows in every step.
    StaticStandard,
    /// Windows that move from step to step, so that no seam stays in one place; with a stride also wider ones that skip
    /// frames.
    #[default]
    UniformStandard,
}

impl WindowSchedule {
    /// All schedules.
    pub const ALL: [Self; 2] = [Self::UniformStandard, Self::StaticStandard];

    /// The reference's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::StaticStandard => "static_standard",
            Self::UniformStandard => "uniform_standard",
        }
    }
}

impl fmt::Display for WindowSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WindowSchedule {
    type Err = PipelineError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            PipelineError::request(
                "context-schedule",
                format!("`{name}`"),
                Self::ALL.map(Self::name).join(" or "),
            )
        })
    }
}

/// Denoising in windows. All lengths are in frames of the video; four of them are one latent frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextWindows {
    /// How windows lie over the video.
    pub schedule: WindowSchedule,
    /// Frames of a window; a video that has no more is denoised as a whole.
    pub frames: usize,
    /// Up to which distance, in powers of two, a window of [`WindowSchedule::UniformStandard`] may skip frames: 4 skips
    /// none.
    pub stride: usize,
    /// Frames that two windows have in common.
    pub overlap: usize,
    /// Whether the noise of later windows is that of the first in another order.
    pub freenoise: bool,
}

impl Default for ContextWindows {
    /// The reference's defaults.
    fn default() -> Self {
        Self { schedule: WindowSchedule::default(), frames: 81, stride: 4, overlap: 16, freenoise: true }
    }
}

impl ContextWindows {
    /// Latent frames of a window.
    pub(crate) fn latent_frames(&self) -> usize {
        latent_frames(self.frames)
    }

    /// Latent frames that two windows have in common.
    pub(crate) fn latent_overlap(&self) -> usize {
        self.overlap / TEMPORAL_FACTOR
    }

    /// The windows of step `step` (from 0) over `frames` latent frames: numbers of frames, all windows equally long.
    pub(crate) fn of_step(&self, step: usize, frames: usize) -> Vec<Vec<usize>> {
        let (size, overlap) = (self.latent_frames(), self.latent_overlap());
        if frames <= size {
            return vec![(0..frames).collect()];
        }
        match self.schedule {
            WindowSchedule::StaticStandard => schedule::static_standard(frames, size, overlap),
            WindowSchedule::UniformStandard => {
                schedule::uniform_standard(step, frames, size, self.stride / TEMPORAL_FACTOR, overlap)
            }
        }
    }

    /// Errors: [`PipelineError::Request`] naming the field.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |field, found, expected: &str| Err(PipelineError::request(field, found, expected));
        if self.frames <= TEMPORAL_FACTOR {
            return refuse("context-frames", self.frames, "at least 5");
        }
        if !(TEMPORAL_FACTOR..=100).contains(&self.stride) {
            return refuse("context-stride", self.stride, "4 to 100");
        }
        if self.overlap < TEMPORAL_FACTOR || self.latent_overlap() >= self.latent_frames() {
            let expected = format!("at least 4, and less than the {} frames of a window", self.frames);
            return refuse("context-overlap", self.overlap, &expected);
        }
        Ok(())
    }
}
