//! TeaCache: steps that differ little from the one before reuse what the DiT's blocks added there, and run none.
//!
//! How much two steps differ is told by an embedding of the time alone, so which steps reuse an earlier one is known
//! before the first: it does not depend on latents or prompts, is the same for prompt and negative prompt, and the same
//! after a resume.
//!
//! Source: "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model" (arXiv 2411.19108); its
//! TeaCache4Wan2.1, `teacache_generate.py`. Numbers of first and last step, and the distance without coefficients, as
//! ComfyUI-WanVideoWrapper's `WanVideoTeaCache` has them.

mod coefficients;
mod steps;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wan_dit::{Dit, DitConfig, TimeSignal};

use crate::{Models, PipelineError, Plan, Result};

use coefficients::Coefficients;

/// What tells two steps apart. As text: `e`, `e0` or `raw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeaCacheMode {
    /// The time embedding, under the published polynomial; the first step and the last always run.
    #[default]
    E,
    /// Its projection, under the published polynomial; the first five steps always run ("retention steps").
    E0,
    /// The projection's distance as it is, for models without a published polynomial.
    Raw,
}

impl TeaCacheMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::E, Self::E0, Self::Raw];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::E => "e",
            Self::E0 => "e0",
            Self::Raw => "raw",
        }
    }

    fn signal(self) -> TimeSignal {
        match self {
            Self::E => TimeSignal::Embedding,
            Self::E0 | Self::Raw => TimeSignal::Projection,
        }
    }

    /// The first step that is kept and the last that may reuse one, of `steps`, where the options name none.
    fn range(self, steps: usize) -> (usize, usize) {
        match self {
            Self::E => (0, steps.saturating_sub(2)),
            Self::E0 => (4, steps.saturating_sub(1)),
            // Of the wrapper's node.
            Self::Raw => (1, steps.saturating_sub(1)),
        }
    }
}

impl fmt::Display for TeaCacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TeaCacheMode {
    type Err = PipelineError;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| PipelineError::request("teacache-mode", format!("`{name}`"), "e, e0 or raw"))
    }
}

/// Options of TeaCache.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TeaCache {
    /// How far the distances of the steps since the last computed one may add up, in [0, 1]; 0 computes every step.
    pub threshold: f64,
    /// What is compared.
    #[serde(default)]
    pub mode: TeaCacheMode,
    /// Step, from 0, from which on it acts: this one is computed, the one behind it may be the first that is not. By
    /// default the mode's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<usize>,
    /// Last step, from 0, that may reuse an earlier one. By default the mode's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<usize>,
}

impl TeaCache {
    /// Errors: [`PipelineError::Request`] for a threshold outside of [0, 1].
    pub(crate) fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.threshold) {
            return Ok(());
        }
        Err(PipelineError::request("teacache", self.threshold, "a threshold of 0 to 1"))
    }

    /// The first step that is kept, and the last that may reuse one.
    fn range(&self, steps: usize) -> (usize, usize) {
        let (start, end) = self.mode.range(steps);
        (self.start.unwrap_or(start), self.end.unwrap_or(end))
    }
}

/// Checks that the plan's TeaCache knows the model.
///
/// Errors: [`PipelineError::Request`] for a model without published coefficients, unless none are wanted.
pub(crate) fn check_model(models: &Models, plan: &Plan) -> Result<()> {
    match plan.teacache() {
        Some(options) => polynomial(models, &models.dit_config()?, options.mode).map(drop),
        None => Ok(()),
    }
}

/// For each step of `plan`, whether it reuses what the blocks added in the step before it; all `false` without TeaCache.
///
/// Errors: as [`check_model`]; those of the time embedding.
pub(crate) fn reused_steps(models: &Models, dit: &Dit, plan: &Plan) -> Result<Vec<bool>> {
    let contexts = plan.contexts_per_step();
    let Some(options) = plan.teacache() else { return Ok(vec![false; contexts.len()]) };
    let polynomial = polynomial(models, dit.config(), options.mode)?;
    let timesteps = plan.schedule.timesteps().iter();
    let signals = timesteps.map(|t| Ok(dit.time_signal(*t, options.mode.signal())?));
    let distances = steps::distances(&signals.collect::<Result<Vec<_>>>()?, polynomial);
    Ok(steps::reused(&options, &distances, &contexts))
}

/// What makes of a distance of embeddings one of results; `None` in the raw mode.
fn polynomial(
    models: &Models,
    config: &DitConfig,
    mode: TeaCacheMode,
) -> Result<Option<&'static Coefficients>> {
    if mode == TeaCacheMode::Raw {
        return Ok(None);
    }
    let (file, described) = (models.dit_name(), &models.description().name);
    match coefficients::published(config, &[&file, described], mode) {
        Some(coefficients) => Ok(Some(coefficients)),
        None => {
            let expected = "one with published coefficients (1.3B or 14B; for images 14B with 480p or 720p in its name), \
                            or --teacache-mode raw with a threshold about a tenth as large";
            Err(PipelineError::request("teacache", format!("the model {described} ({file})"), expected))
        }
    }
}
