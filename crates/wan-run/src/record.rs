//! What a video says about how it was made.

use std::path::Path;

use serde::{Deserialize, Serialize};
use wan_media::{Alpha, FrameRate, VideoOptions};
use wan_pipeline::Request;

use crate::error::{Failure, Outcome};
use crate::options::Options;
use crate::settings::Settings;

/// What a video says about how it was made; latents say the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Version of the program.
    pub version: String,
    /// Model name.
    pub model: String,
    /// File name of the input image, without its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// File name of the end image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_image: Option<String>,
    /// What replaced transparency, unless it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<String>,
    /// File name of the video that it continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
    /// Whether the end image is the first one again.
    #[serde(default, rename = "loop", skip_serializing_if = "std::ops::Not::not")]
    pub looped: bool,
    /// What was asked.
    #[serde(flatten)]
    pub request: Request,
    /// Frames per second.
    pub fps: String,
    /// x264 quality.
    pub crf: u8,
    /// Pixel format.
    pub pix_fmt: String,
    /// Played back and forth.
    pub pingpong: bool,
    /// Repetitions.
    pub loop_count: u32,
    /// Whether a webp's are all plays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counts_plays: bool,
}

impl Record {
    /// What a video made with `options` says, the names of its images aside.
    pub fn new(options: &Options) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            model: options.model.name.clone(),
            image: None,
            end_image: None,
            alpha: match options.alpha {
                Alpha::Drop => None,
                Alpha::White => Some("white".into()),
                Alpha::Black => Some("black".into()),
            },
            extends: None,
            looped: options.looped,
            request: options.request.clone(),
            fps: options.video.fps.to_string(),
            crf: options.video.crf,
            pix_fmt: options.video.pixel_format.to_string(),
            pingpong: options.video.pingpong,
            loop_count: options.video.loop_count,
            counts_plays: options.video.counts_plays,
        }
    }

    /// Reads what `file` says.
    ///
    /// Errors: exit 1 for what is no record, or that of another version.
    pub fn parse(text: &str, file: &Path) -> Outcome<Self> {
        serde_json::from_str(text)
            .map_err(|e| Failure::run(format!("{}: unreadable wan-run parameters: {e}", file.display())))
    }

    /// The same of a video that is stored as `video` says.
    pub fn stored_as(self, video: &VideoOptions) -> Self {
        Self {
            fps: video.fps.to_string(),
            crf: video.crf,
            pix_fmt: video.pixel_format.to_string(),
            pingpong: video.pingpong,
            loop_count: video.loop_count,
            counts_plays: video.counts_plays,
            ..self
        }
    }

    /// The settings that make this video again.
    pub fn settings(self) -> Outcome<Settings> {
        let fps = self.fps.parse::<FrameRate>()?;
        Ok(Settings {
            model: Some(self.model),
            alpha: Some(self.alpha.unwrap_or_else(|| "drop".into())),
            looped: Some(self.looped),
            fps: Some(fps.as_f64()),
            crf: Some(self.crf),
            pix_fmt: Some(self.pix_fmt),
            pingpong: Some(self.pingpong),
            loop_count: Some(self.loop_count),
            counts_plays: Some(self.counts_plays),
            ..of_request(self.request)
        })
    }
}

/// The settings that ask for `r`.
pub fn of_request(r: Request) -> Settings {
    let name = |v: serde_json::Result<serde_json::Value>| v.ok().and_then(|v| v.as_str().map(str::to_string));
    Settings {
        prompt: Some(r.prompt),
        negative_prompt: Some(r.negative_prompt),
        lora: Some(r.loras.iter().map(ToString::to_string).collect()),
        width: Some(r.width),
        height: Some(r.height),
        frames: Some(r.frames),
        no_adjust_resolution: Some(!r.adjust_resolution),
        steps: Some(r.steps),
        cfg: Some(r.cfg),
        shift: Some(r.shift),
        seed: Some(r.seed),
        scheduler: Some(r.scheduler.to_string()),
        denoise_strength: Some(r.denoise_strength),
        riflex_freq_index: Some(r.riflex_freq_index),
        noise_aug_strength: Some(r.noise_aug_strength),
        latent_strength: Some(r.latent_strength),
        clip_embed_strength: Some(r.clip_embed_strength),
        blocks_to_swap: Some(r.blocks_to_swap),
        nodes: Some(r.nodes),
        precision: Some(r.precision.to_string()),
        attention: Some(r.attention.to_string()),
        vae_tiling: name(serde_json::to_value(r.vae_tiling)),
        tile_height: Some(r.tile.tile_height),
        tile_width: Some(r.tile.tile_width),
        tile_stride_height: Some(r.tile.stride_height),
        tile_stride_width: Some(r.tile.stride_width),
        output_range: name(serde_json::to_value(r.output_range)),
        guidance_interval: Some(r.guidance_interval.to_string()),
        teacache: Some(r.teacache.map_or(0.0, |t| t.threshold)),
        teacache_mode: r.teacache.map(|t| t.mode.to_string()),
        teacache_start: r.teacache.and_then(|t| t.start),
        teacache_end: r.teacache.and_then(|t| t.end),
        context_schedule: Some(r.context.map_or_else(|| "none".into(), |c| c.schedule.to_string())),
        context_frames: r.context.map(|c| c.frames),
        context_stride: r.context.map(|c| c.stride),
        context_overlap: r.context.map(|c| c.overlap),
        context_freenoise: r.context.map(|c| c.freenoise),
        ..Settings::default()
    }
}
