//! Videos of the embedded model, through the public pipeline.

use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use wan_core::progress::{CancelToken, Event, Observer};
use wan_media::RgbImage;
use wan_models::{Places, Registry};
use wan_pipeline::{GuidanceInterval, LoraChoice, Pipeline, Request, TeaCache};
use wan_sampler::{ComfySampler, ComfyScheduler, KSampler, SchedulerKind};

use super::pairs::Pair;
use crate::support::repo_path;

/// How a video is made, where it differs from the model's defaults.
#[derive(Clone, Copy)]
pub struct Settings {
    pub steps: usize,
    pub cfg: f64,
    pub negative: &'static str,
    pub guidance_interval: GuidanceInterval,
    pub teacache: Option<TeaCache>,
    pub scheduler: SchedulerKind,
    /// A LoRA, as a path in the repository.
    pub lora: Option<&'static str>,
}

pub const DEFAULTS: Settings = Settings {
    steps: 10,
    cfg: 6.0,
    negative: "",
    guidance_interval: GuidanceInterval { start: 0.0, end: 1.0 },
    teacache: None,
    scheduler: SchedulerKind::DpmPp2M,
    lora: None,
};

const EULER_SIMPLE: SchedulerKind =
    SchedulerKind::KSampler(KSampler { sampler: ComfySampler::Euler, scheduler: ComfyScheduler::Simple });

/// What distilled LoRAs are for (docs/lora.md), without one; on the sigmas that the embedded model's own was distilled for.
pub const FOUR_STEPS: Settings = Settings { steps: 4, cfg: 1.0, scheduler: EULER_SIMPLE, ..DEFAULTS };

/// The same with the one that was distilled from the embedded model.
pub const FOUR_STEPS_DISTILLED: Settings =
    Settings { lora: Some("models/tiny/four-steps.safetensors"), ..FOUR_STEPS };

/// What a job made.
pub struct Made {
    pub frames: Vec<RgbImage>,
    pub latents: Tensor,
    /// How many times the model ran.
    pub passes: usize,
}

/// One job after the other on the embedded model.
pub struct Maker {
    pipeline: Pipeline,
}

impl Maker {
    pub fn new() -> Self {
        let registry = Registry::builtin().unwrap();
        let model = registry.find("tiny").unwrap();
        let files = registry.resolve(&model, &Places::default()).unwrap();
        Self { pipeline: Pipeline::open(files, Device::Cpu, DType::F32).unwrap() }
    }

    /// The video that begins with the image of `pair` and does what `prompt` says.
    pub fn make(&self, pair: &Pair, prompt: &str, settings: Settings) -> Made {
        let image = pair.scene.image();
        let request = Request {
            prompt: prompt.into(),
            negative_prompt: settings.negative.into(),
            width: pair.scene.width,
            height: pair.scene.height,
            steps: settings.steps,
            cfg: settings.cfg,
            guidance_interval: settings.guidance_interval,
            teacache: settings.teacache,
            scheduler: settings.scheduler,
            loras: settings.lora.map(lora).into_iter().collect(),
            seed: 7,
            ..Request::with_defaults(&self.pipeline.model().defaults).unwrap()
        };
        let plan = self.pipeline.plan(request, Some(&image)).unwrap();
        let mut frames = Vec::new();
        let mut keep = |bytes: &[u8]| {
            frames.push(RgbImage::new(image.width(), image.height(), bytes.to_vec()).expect("a whole frame"));
            Ok(())
        };
        let all = if settings.cfg == 1.0 { settings.steps } else { 2 * settings.steps };
        let passes = Passes(Mutex::new(all));
        let latents =
            self.pipeline.generate(plan, Some(&image), &mut keep, &passes, &CancelToken::new()).unwrap();
        Made { frames, latents, passes: passes.0.into_inner().unwrap() }
    }

    /// The videos that each pair's own prompt makes.
    pub fn videos(&self, pairs: &[Pair], settings: Settings) -> Vec<Vec<RgbImage>> {
        pairs.iter().map(|pair| self.make(pair, &pair.prompt, settings).frames).collect()
    }
}

fn lora(path: &str) -> LoraChoice {
    LoraChoice { path: repo_path(path), strength: 1.0, blocks: None }
}

/// Counts the model's passes where some are left out.
struct Passes(Mutex<usize>);

impl Observer for Passes {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Passes { per_step } = event {
            *self.0.lock().unwrap() = per_step.iter().sum();
        }
    }
}
