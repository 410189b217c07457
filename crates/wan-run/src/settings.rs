//! The parameters of a job as they are typed or stand in a defaults file, and how the two merge.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use wan_models::nearest_name;
use wan_pipeline::{BlocksToSwap, NodeOptions};

use crate::error::{SEED, WHOLE};
use crate::scheduler_name::SchedulerName;

/// The parameters of a job. Every one may be left out; keys of a defaults file are the option names.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// What should happen in the video.
    #[arg(long, short, value_name = "TEXT", help_heading = "Job")]
    pub prompt: Option<String>,
    /// What should not appear.
    #[arg(long, short, value_name = "TEXT", help_heading = "Job")]
    pub negative_prompt: Option<String>,
    /// Model by name, or a .toml file that describes one [default: WAN_RUN_MODEL, else wan2.1-i2v-14b-480p-fp8].
    #[arg(long, short, value_name = "NAME", help_heading = "Job")]
    pub model: Option<String>,
    /// Folder with model files, flat or in ComfyUI's layout [default: WAN_RUN_MODELS_DIR, else models].
    #[arg(long, value_name = "DIR", help_heading = "Job")]
    #[serde(serialize_with = "optional_path_as_text")]
    pub models_dir: Option<PathBuf>,
    /// ComfyUI's list of further folders [default: the one beside the models folder].
    #[arg(long, value_name = "FILE.yaml", help_heading = "Job")]
    #[serde(serialize_with = "optional_path_as_text")]
    pub extra_model_paths: Option<PathBuf>,
    /// LoRA file to add, FILE[:STRENGTH][:blocks=LIST], such as a.safetensors:0.8:blocks=0-19; may be repeated.
    /// The models folder and its loras folder are searched too. `none` drops the LoRAs of the defaults.
    #[arg(long, value_name = "FILE[:STRENGTH]", help_heading = "Job")]
    pub lora: Option<Vec<String>>,
    /// Device: auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE", help_heading = "Job")]
    pub device: Option<String>,
    /// DiT blocks kept in main memory while a GPU computes: auto (as few as possible) or a number [default: auto].
    #[arg(long, value_name = "N", help_heading = "Job", allow_negative_numbers = true)]
    pub blocks_to_swap: Option<BlocksToSwap>,
    /// GPU memory the job may use, such as 12GB or 11.5GiB [default: what is free].
    #[arg(long, value_name = "SIZE", help_heading = "Job")]
    pub max_vram: Option<String>,
    /// Main memory the job may allocate, such as 16GB [default: what is free].
    #[arg(long, value_name = "SIZE", help_heading = "Job")]
    pub max_ram: Option<String>,
    /// Matrix products on a GPU: bf16, or fp8 (rounds activations to FP8 too: faster, slightly different) [default: bf16].
    #[arg(long, value_parser = ["bf16", "fp8"], value_name = "HOW", help_heading = "Job")]
    pub precision: Option<String>,
    /// Self-attention on a GPU: auto (the fastest exact one), exact, cudnn or sage (8-bit) [default: auto].
    #[arg(long, value_parser = ["auto", "exact", "cudnn", "sage"], value_name = "WHICH", help_heading = "Job")]
    pub attention: Option<String>,
    /// Fastest settings for a GPU: --precision fp8 --attention sage, unless those are given.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Job")]
    pub fast: Option<bool>,
    /// Width in pixels [default: the model's, 832 or 1280]. With an image only width x height counts and the image's
    /// aspect ratio is kept, unless --no-adjust-resolution is given.
    #[arg(long, value_name = "PIXELS", help_heading = "Job", allow_negative_numbers = true)]
    pub width: Option<usize>,
    /// Height in pixels [default: the model's, 480 or 720].
    #[arg(long, value_name = "PIXELS", help_heading = "Job", allow_negative_numbers = true)]
    pub height: Option<usize>,
    /// Number of frames, 4k+1 [default: the model's, usually 81].
    #[arg(long, value_name = "N", help_heading = "Job", allow_negative_numbers = true)]
    pub frames: Option<usize>,
    /// Use exactly --width and --height, stretching the image, instead of keeping its aspect ratio.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Job")]
    pub no_adjust_resolution: Option<bool>,
    /// How transparency in the image is replaced [default: drop].
    #[arg(long, value_parser = ["drop", "white", "black"], value_name = "HOW", help_heading = "Job")]
    pub alpha: Option<String>,

    /// Denoising steps; 20 to 30 are usual [default: the model's, usually 20].
    #[arg(long, value_name = "N", help_heading = "Sampling", allow_negative_numbers = true)]
    pub steps: Option<usize>,
    /// Guidance scale; 1 ignores the negative prompt and halves the time [default: the model's, usually 6].
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    pub cfg: Option<f64>,
    /// Flow shift; higher spends more steps on coarse motion [default: the model's, usually 5].
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    pub shift: Option<f64>,
    /// Seed of the noise [default: random, printed].
    #[arg(long, value_name = "N", help_heading = "Sampling", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    #[arg(long, help = SchedulerName::help(), value_parser = SchedulerName, hide_possible_values = true, value_name = "NAME",
        help_heading = "Sampling")]
    pub scheduler: Option<String>,
    /// Share of the noise schedule that is run, above 0 and at most 1 [default: 1].
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    pub denoise_strength: Option<f64>,
    /// RIFLEx frequency index, for videos longer than the model was trained on; 0 is off, 6 is usual [default: 0].
    #[arg(long, value_name = "N", help_heading = "Sampling", allow_negative_numbers = true)]
    pub riflex_freq_index: Option<usize>,
    /// Noise added to the input image; more gives more motion [default: 0].
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    pub noise_aug_strength: Option<f64>,
    /// Factor on the conditioning frames [default: 1].
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    pub latent_strength: Option<f64>,
    /// Factor on the image embeddings [default: 1].
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    pub clip_embed_strength: Option<f64>,

    /// Share of the steps that use guidance, such as 0:0.5 for the first half; the others run with --cfg 1 [default: 0:1].
    #[arg(long, value_name = "START:END", help_heading = "Shortcuts", allow_hyphen_values = true)]
    pub guidance_interval: Option<String>,
    /// TeaCache: skip steps that differ little from the one before, up to this threshold; 0 is off, 0.13 to 0.26 are
    /// usual [default: 0].
    #[arg(long, value_name = "THRESHOLD", help_heading = "Shortcuts", allow_negative_numbers = true)]
    pub teacache: Option<f64>,
    /// How the difference between steps is measured: e, e0 (the first five steps always run), or raw (for models
    /// without published coefficients; use a threshold about a tenth as large) [default: e].
    #[arg(long, value_parser = ["e", "e0", "raw"], value_name = "MODE", help_heading = "Shortcuts")]
    pub teacache_mode: Option<String>,
    /// Step (counted from 0) that always runs; only later ones may be skipped [default: 0; e0: 4; raw: 1].
    #[arg(long, value_name = "STEP", help_heading = "Shortcuts", allow_negative_numbers = true)]
    pub teacache_start: Option<usize>,
    /// Last step (counted from 0) that may be skipped [default: the last; e: the one before it].
    #[arg(long, value_name = "STEP", help_heading = "Shortcuts", allow_negative_numbers = true)]
    pub teacache_end: Option<usize>,

    /// Denoise a long text-to-video in overlapping windows, laid out this way: uniform_standard, static_standard or none
    /// [default: none].
    #[arg(long, value_parser = ["uniform_standard", "static_standard", "none"], value_name = "NAME", help_heading = "Context windows")]
    pub context_schedule: Option<String>,
    /// Frames per window [default: 81].
    #[arg(long, value_name = "N", help_heading = "Context windows", allow_negative_numbers = true)]
    pub context_frames: Option<usize>,
    /// With uniform_standard, 8 or more adds windows that skip frames [default: 4].
    #[arg(long, value_name = "N", help_heading = "Context windows", allow_negative_numbers = true)]
    pub context_stride: Option<usize>,
    /// Frames that neighbouring windows share [default: 16].
    #[arg(long, value_name = "N", help_heading = "Context windows", allow_negative_numbers = true)]
    pub context_overlap: Option<usize>,
    /// Start later windows from the first one's noise, reordered [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Context windows")]
    pub context_freenoise: Option<bool>,

    /// Decode in tiles: auto (when memory is short), on or off [default: auto].
    #[arg(long, value_parser = ["auto", "on", "off"], value_name = "WHEN", help_heading = "Decoding")]
    pub vae_tiling: Option<String>,
    /// Tile height in pixels [default: 272].
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    pub tile_height: Option<usize>,
    /// Tile width in pixels [default: 272].
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    pub tile_width: Option<usize>,
    /// Vertical step between tiles in pixels [default: 144].
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    pub tile_stride_height: Option<usize>,
    /// Horizontal step between tiles in pixels [default: 128].
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    pub tile_stride_width: Option<usize>,
    /// Pixel range: clamp, or minmax (stretch the contrast over the whole video) [default: clamp].
    #[arg(long, value_parser = ["clamp", "minmax"], value_name = "HOW", help_heading = "Decoding")]
    pub output_range: Option<String>,

    /// mp4 (H.264), webp, gif, png (a folder of frames) or rgb (raw bytes) [default: from the extension of --output,
    /// otherwise mp4].
    #[arg(long, value_parser = ["mp4", "webp", "gif", "png", "rgb"], value_name = "NAME", help_heading = "Video")]
    pub format: Option<String>,
    /// Name prefix when --output is not given [default: wan-run].
    #[arg(long, value_name = "PREFIX", help_heading = "Video")]
    pub output_prefix: Option<String>,
    /// Frames per second [default: the model's, usually 16].
    #[arg(long, value_name = "N", help_heading = "Video", allow_negative_numbers = true)]
    pub fps: Option<f64>,
    /// x264 quality, 0 (lossless) to 51 [default: 19].
    #[arg(long, value_name = "N", help_heading = "Video", allow_negative_numbers = true)]
    pub crf: Option<u8>,
    /// Pixel format of mp4 [default: yuv420p].
    #[arg(long, value_parser = ["yuv420p", "yuv420p10le"], value_name = "NAME", help_heading = "Video")]
    pub pix_fmt: Option<String>,
    /// Play forwards, then backwards.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Video")]
    pub pingpong: Option<bool>,
    /// Make a video that ends where it began: the image is also its last frame, but is shown only once. Needs a
    /// first-and-last-frame model (FLF2V).
    #[arg(long = "loop", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Video")]
    #[serde(rename = "loop")]
    pub looped: Option<bool>,
    /// Repeat the video this many more times; 0 means without end for gif and webp, which players repeat [default: 0].
    #[arg(long, value_name = "N", help_heading = "Video", allow_negative_numbers = true)]
    pub loop_count: Option<u32>,
    /// Do not store prompt, seed and parameters in the video.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Video")]
    pub no_metadata: Option<bool>,
    /// What only nodes of a graph ask for; no option.
    #[arg(skip)]
    #[serde(skip)]
    pub nodes: Option<NodeOptions>,
    /// Whether `loop_count` of a webp counts all plays, as a graph's does; no option.
    #[arg(skip)]
    pub counts_plays: Option<bool>,
}

/// Serialises a path as text, approximately where it is not Unicode: better than no file at all.
pub fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// As [`path_as_text`].
pub fn optional_path_as_text<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.serialize_some(&path.to_string_lossy()),
        None => serializer.serialize_none(),
    }
}

/// What a reader says of the value of `key`, without the names of Rust's types.
pub fn expectation(key: &str, reason: &str) -> String {
    let said = reason.strip_prefix("invalid type: ").or_else(|| reason.strip_prefix("invalid value: "));
    let Some((found, expected)) = said.and_then(|said| said.split_once(", expected ")) else {
        return format!("{key}: {reason}");
    };
    let found = found.replace("integer `", "").replace("floating point `", "").replace('`', "");
    let expected = match expected.split_whitespace().next() {
        Some("u64") if key == "seed" => SEED,
        Some("usize" | "u64" | "u32" | "u8") => WHOLE,
        Some("f64") => "a number",
        Some("path") => "a file's name",
        _ => expected,
    };
    format!("{key}: found {}, expected {expected}", found.trim())
}

impl Settings {
    /// The settings of a file's entries, each read by `one`. `others`: keys that are not settings, for suggestions.
    ///
    /// Errors: what is wrong with the first entry that is, with its key.
    pub fn of_entries<V>(
        entries: impl IntoIterator<Item = (String, V)>,
        one: impl Fn(String, V) -> Result<Self, String>,
        others: &[&str],
    ) -> Result<Self, String> {
        let command = Self::augment_args(clap::Command::new(""));
        let mut keys: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        keys.extend(others);
        let mut all = Self::default();
        for (key, value) in entries {
            if !keys.contains(&key.as_str()) {
                let near = nearest_name(&key, keys.iter().copied());
                let near = near.map(|key| format!(" (did you mean `{key}`?)")).unwrap_or_default();
                return Err(format!("unknown key `{key}`{near}; keys are option names"));
            }
            all = all.or(one(key.clone(), value).map_err(|reason| expectation(&key, &reason))?);
        }
        Ok(all)
    }

    /// Those of them that say how a video is stored and called.
    pub fn video(self) -> Self {
        Self {
            format: self.format,
            output_prefix: self.output_prefix,
            fps: self.fps,
            crf: self.crf,
            pix_fmt: self.pix_fmt,
            pingpong: self.pingpong,
            loop_count: self.loop_count,
            counts_plays: self.counts_plays,
            no_metadata: self.no_metadata,
            ..Self::default()
        }
    }

    /// Those of them that say where a job runs, and not what it makes.
    pub fn place(self) -> Self {
        Self {
            device: self.device,
            blocks_to_swap: self.blocks_to_swap,
            max_vram: self.max_vram,
            max_ram: self.max_ram,
            models_dir: self.models_dir,
            extra_model_paths: self.extra_model_paths,
            ..Self::default()
        }
    }

    /// All but those of [`Self::place`].
    pub fn without_place(self) -> Self {
        Self {
            device: None,
            blocks_to_swap: None,
            max_vram: None,
            max_ram: None,
            models_dir: None,
            extra_model_paths: None,
            ..self
        }
    }

    /// What is set, by option name.
    pub fn entries(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(entries)) => entries.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => Map::new(),
        }
    }

    /// These settings, with what they leave out taken from `other`.
    pub fn or(self, other: Self) -> Self {
        // It says what the count means that it came with.
        let counts_plays = if self.loop_count.is_some() { self.counts_plays } else { other.counts_plays };
        // Every field is named: a new one that is forgotten here does not compile.
        macro_rules! first {
            ($($field:ident),+ $(,)?) => {
                Self { $($field: self.$field.or(other.$field)),+ }
            };
        }
        let first = first!(
            prompt,
            negative_prompt,
            model,
            models_dir,
            extra_model_paths,
            lora,
            device,
            blocks_to_swap,
            precision,
            attention,
            fast,
            max_vram,
            max_ram,
            width,
            height,
            frames,
            no_adjust_resolution,
            alpha,
            steps,
            cfg,
            shift,
            seed,
            scheduler,
            denoise_strength,
            riflex_freq_index,
            noise_aug_strength,
            latent_strength,
            clip_embed_strength,
            guidance_interval,
            teacache,
            teacache_mode,
            teacache_start,
            teacache_end,
            context_schedule,
            context_frames,
            context_stride,
            context_overlap,
            context_freenoise,
            vae_tiling,
            tile_height,
            tile_width,
            tile_stride_height,
            tile_stride_width,
            output_range,
            format,
            output_prefix,
            fps,
            crf,
            pix_fmt,
            pingpong,
            looped,
            loop_count,
            no_metadata,
            nodes,
            counts_plays,
        );
        Self { counts_plays, ..first }
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
