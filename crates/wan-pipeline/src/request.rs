use serde::{Deserialize, Serialize};
use wan_core::Error;
use wan_dit::{AttentionChoice, Numerics, Precision};
use wan_models::Defaults;
use wan_sampler::{GuidanceInterval, Schedule, SchedulerKind};
use wan_vae::Tiling;

use crate::{BlocksToSwap, ContextWindows, LoraChoice, NodeOptions, PipelineError, Prompt, Result, TeaCache};

/// What is asked of the engine, up to and including the decoded frames. How they are stored is
/// [`wan_media::VideoOptions`]'s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What the video shall show.
    pub prompt: String,
    /// What it shall not show; without effect at guidance scale 1.
    pub negative_prompt: String,
    /// Width in pixels; with `adjust_resolution` only the area `width * height` counts.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Frames, rounded down to 4k+1.
    pub frames: usize,
    /// Denoising steps asked for.
    pub steps: usize,
    /// Guidance scale; 1 skips the negative prompt's pass.
    pub cfg: f64,
    /// The steps that are guided; in the others `cfg` is 1.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guidance_interval: GuidanceInterval,
    /// Steps that reuse what the DiT's blocks added in an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacache: Option<TeaCache>,
    /// Flow shift of the sigma grid.
    pub shift: f64,
    /// Seed of the initial noise; torch's CPU generator uses its low 32 bits.
    pub seed: u64,
    /// Solver, and with it the kind of sigma grid.
    pub scheduler: SchedulerKind,
    /// Matrix products with FP8 weights on a GPU.
    #[serde(default, with = "crate::by_name", skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Self-attention on a GPU.
    #[serde(default, with = "crate::by_name", skip_serializing_if = "is_default")]
    pub attention: AttentionChoice,
    /// Part of the sigma grid that is run, in (0, 1].
    pub denoise_strength: f64,
    /// RIFLEx frequency index for long videos; 0 is off.
    pub riflex_freq_index: usize,
    /// Standard deviation of noise added to the conditioning image.
    pub noise_aug_strength: f64,
    /// Factor on the conditioning frames.
    pub latent_strength: f64,
    /// Factor on the image embeddings.
    pub clip_embed_strength: f64,
    /// Whether the image's aspect ratio decides width and height.
    pub adjust_resolution: bool,
    /// Whether the VAE decodes in tiles.
    pub vae_tiling: TilingChoice,
    /// Tile sizes in pixels.
    pub tile: Tiling,
    /// How the decoder's values become brightness.
    pub output_range: OutputRange,
    /// Denoising in windows, for videos longer than the model's own length; text-to-video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextWindows>,
    /// LoRA files; their changes add up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraChoice>,
    /// DiT blocks in host memory, where a GPU computes.
    #[serde(default, skip_serializing_if = "BlocksToSwap::is_auto")]
    pub blocks_to_swap: BlocksToSwap,
    /// What only nodes of a graph ask for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nodes: NodeOptions,
}

/// When the VAE decodes in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TilingChoice {
    /// Only if the whole picture would not fit into the memory that is free.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How decoded values in [-1, 1] become brightness in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputRange {
    /// `(x + 1) / 2`.
    #[default]
    Clamp,
    /// Stretched so that the video's extremes become 0 and 1. Needs all frames at once.
    Minmax,
}

impl Request {
    /// A request with a model's defaults and empty prompts.
    ///
    /// Errors: if the description names an unknown scheduler.
    pub fn with_defaults(defaults: &Defaults) -> Result<Self> {
        Ok(Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            width: defaults.width,
            height: defaults.height,
            frames: defaults.frames,
            steps: defaults.steps,
            cfg: defaults.cfg,
            guidance_interval: GuidanceInterval::default(),
            teacache: None,
            shift: defaults.shift,
            seed: 0,
            scheduler: defaults.scheduler.parse()?,
            precision: Precision::default(),
            attention: AttentionChoice::default(),
            denoise_strength: 1.0,
            riflex_freq_index: 0,
            noise_aug_strength: 0.0,
            latent_strength: 1.0,
            clip_embed_strength: 1.0,
            adjust_resolution: true,
            vae_tiling: TilingChoice::Auto,
            tile: Tiling::default(),
            output_range: OutputRange::Clamp,
            context: None,
            loras: Vec::new(),
            blocks_to_swap: BlocksToSwap::Auto,
            nodes: NodeOptions::default(),
        })
    }

    /// The prompts that parts of the video follow, in order: those of the text with context windows, else only the first
    /// of them.
    pub fn prompts(&self) -> Vec<Prompt<'_>> {
        let mut prompts = self.written_prompts();
        prompts.truncate(if self.context.is_some() { usize::MAX } else { 1 });
        prompts
    }

    /// All prompts of the text, whether or not parts of the video follow them.
    pub(crate) fn written_prompts(&self) -> Vec<Prompt<'_>> {
        self.nodes.prompt_syntax.prompts(&self.prompt)
    }

    /// How the DiT computes on a GPU.
    pub fn numerics(&self) -> Numerics {
        Numerics { precision: self.precision, attention: self.attention }
    }

    /// The noise levels of its steps.
    pub(crate) fn schedule(&self) -> Result<Schedule> {
        Ok(Schedule::new(self.scheduler, self.steps, self.shift, self.denoise_strength)?)
    }

    /// Checks every value that can be judged by itself, and whether the scheduler has such a grid.
    ///
    /// Errors: [`PipelineError::Request`] naming the field, the value and what is allowed; [`PipelineError::Sampler`] of the
    /// grid.
    pub fn check(&self) -> Result<()> {
        let at_least_1 = [("frames", self.frames), ("steps", self.steps)];
        for (field, value) in at_least_1 {
            if value == 0 {
                return Err(PipelineError::request(field, value, "at least 1"));
            }
        }
        for (field, value) in [("width", self.width), ("height", self.height)] {
            if !(16..=16384).contains(&value) {
                return Err(PipelineError::request(field, value, "16 to 16384 pixels"));
            }
        }
        if self.frames > 10_001 {
            return Err(PipelineError::request("frames", self.frames, "at most 10001"));
        }
        for (field, value) in [("cfg", self.cfg), ("shift", self.shift)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(PipelineError::request(field, value, "a number above 0"));
            }
        }
        if !(self.denoise_strength > 0.0 && self.denoise_strength <= 1.0) {
            let expected = "a number above 0 and at most 1";
            return Err(PipelineError::request("denoise-strength", self.denoise_strength, expected));
        }
        self.schedule()?;
        if !(self.noise_aug_strength.is_finite() && self.noise_aug_strength >= 0.0) {
            return Err(PipelineError::request(
                "noise-aug-strength",
                self.noise_aug_strength,
                "a number, 0 or above",
            ));
        }
        for (field, value) in
            [("latent-strength", self.latent_strength), ("clip-embed-strength", self.clip_embed_strength)]
        {
            if !value.is_finite() {
                return Err(PipelineError::request(field, value, "a finite number"));
            }
        }
        self.nodes.check()?;
        if self.prompts().iter().any(|prompt| !prompt.weight.is_finite()) {
            let expected = "weights such as (text:1.3), with a number behind the colon";
            return Err(PipelineError::request("prompt", "a weight that is no number", expected));
        }
        self.guidance_interval.check()?;
        self.teacache.iter().try_for_each(TeaCache::check)?;
        if self.teacache.is_some() && self.context.is_some() {
            let expected = "none: windows move from step to step, and what one added fits no other";
            return Err(PipelineError::request("teacache", "context windows", expected));
        }
        self.context.iter().try_for_each(ContextWindows::check)?;
        self.loras.iter().try_for_each(LoraChoice::check)?;
        self.tile.check().map_err(|error| match error {
            // Named as the option.
            Error::Invalid { what, found, expected } => {
                PipelineError::Request { field: what.replace(' ', "-").into(), found, expected }
            }
            error => error.into(),
        })
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_kept_by_name_and_old_requests_have_the_defaults() {
        let model = wan_models::Registry::builtin().unwrap();
        let plain = Request::with_defaults(&model.find("tiny").unwrap().defaults).unwrap();
        let json = serde_json::to_value(&plain).unwrap();
        assert!(json.get("precision").is_none() && json.get("attention").is_none());
        let Numerics { precision, attention } = Numerics::FAST;
        let fast = Request { precision, attention, ..plain };
        let json = serde_json::to_value(&fast).unwrap();
        assert_eq!((json["precision"].as_str(), json["attention"].as_str()), (Some("fp8"), Some("sage")));
        let read: Request = serde_json::from_value(json.clone()).unwrap();
        assert_eq!((read.numerics(), &read), (Numerics::FAST, &fast));
        let mut wrong = json;
        wrong["precision"] = "f8".into();
        let error = serde_json::from_value::<Request>(wrong).unwrap_err().to_string();
        assert!(error.contains("precision: found `f8`, expected bf16 or fp8"), "{error}");
    }
}
