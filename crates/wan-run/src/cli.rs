//! What was typed. What it means is decided in `options.rs`.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::{Deserialize, Serialize, Serializer};

use crate::probe::ProbeArgs;
use crate::serve::ServeArgs;

/// Turns one image and a prompt into a video with Wan2.1, in one process, without Python.
///
/// Without a subcommand, a video is generated:
///
///   wan-run --model tiny --image photo.png --prompt "a red balloon rises"
#[derive(Debug, Parser)]
#[command(name = "wan-run", version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(args_override_self = true)]
pub struct Cli {
    /// What to do; `generate` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `generate`.
    #[command(flatten)]
    pub generate: GenerateArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a video (the default).
    #[command(arg_required_else_help = true)]
    Generate(Box<GenerateArgs>),
    /// Serve the web page and ComfyUI's API.
    Serve(Box<ServeArgs>),
    /// Run one component alone, tensors in, tensors out.
    Probe(Box<ProbeArgs>),
    /// Show devices, memory, models, and what a job with these options will take.
    Info(Box<InfoArgs>),
    /// List, fetch, check, inspect, convert and remove models.
    Models {
        /// What to do.
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Write the embedded sample image to a file.
    Sample {
        /// File to write (PNG).
        output: PathBuf,
        /// Replace an existing file.
        #[arg(long)]
        overwrite: bool,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page (roff).
    Man,
}

/// Subcommands of `models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Show all models and LoRAs and which are here.
    List(PlacesArgs),
    /// Fetch what is missing of models or LoRAs into the Hugging Face cache.
    ///
    /// An interrupted pull goes on where it stopped. HF_ENDPOINT names a mirror, HF_TOKEN a token, HF_HOME or
    /// HF_HUB_CACHE the cache, HF_HUB_OFFLINE=1 forbids the network.
    Pull {
        /// Names, or .toml files with descriptions.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Do not use the network; fail if something is missing.
        #[arg(long)]
        offline: bool,
        /// Print nothing but errors.
        #[arg(long, short)]
        quiet: bool,
        /// Where to look.
        #[command(flatten)]
        places: PlacesArgs,
    },
    /// Read the files of models or LoRAs and check lengths and SHA-256.
    Verify {
        /// Names, or .toml files with descriptions.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Where to look.
        #[command(flatten)]
        places: PlacesArgs,
    },
    /// Print where the files of a model or LoRA are.
    Path {
        /// Name, or a .toml file with a description.
        name: String,
        /// Where to look.
        #[command(flatten)]
        places: PlacesArgs,
    },
    /// Remove the files of models or LoRAs from the Hugging Face cache; other folders are left alone.
    Remove {
        /// Names, or .toml files with descriptions.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Also remove files that another complete model needs.
        #[arg(long)]
        shared: bool,
        /// Where to look.
        #[command(flatten)]
        places: PlacesArgs,
    },
    /// Say what a checkpoint is: component, layout, dtypes, parameters, configuration.
    Inspect(crate::inspect::InspectArgs),
    /// Rewrite a checkpoint with FP8 or bf16 matrices.
    Convert(crate::inspect::ConvertArgs),
}

/// Where model files are looked for, beside the Hugging Face cache.
#[derive(Debug, Clone, Default, Args)]
pub struct PlacesArgs {
    /// Folder with model files, flat or in ComfyUI's layout [default: models].
    #[arg(long, value_name = "DIR", env = "WAN_RUN_MODELS_DIR")]
    pub models_dir: Option<PathBuf>,
    /// ComfyUI's list of further folders [default: the one beside the models folder].
    #[arg(long, value_name = "FILE.yaml")]
    pub extra_model_paths: Option<PathBuf>,
    /// Defaults file instead of the user's own.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
}

/// Options of `info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Input image, for a job whose size follows it.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Defaults file instead of the user's own.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// The job.
    #[command(flatten)]
    pub settings: Settings,
}

/// Options of `generate`.
#[derive(Debug, Default, Args)]
pub struct GenerateArgs {
    /// Input image: JPEG, PNG, WebP, GIF (first frame), BMP or TIFF.
    #[arg(long, short, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Video to write; without it, the first free PREFIX_NNNNN.EXT is taken. Its extension decides the format.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing output.
    #[arg(long)]
    pub overwrite: bool,
    /// Take all parameters from a video that wan-run made; other options override them.
    #[arg(long, value_name = "FILE")]
    pub from_video: Option<PathBuf>,
    /// Take all parameters from a ComfyUI workflow in API or UI format; other options override them. Its image is
    /// looked for beside it.
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["from_video", "resume", "from_latents"])]
    pub workflow: Option<PathBuf>,
    /// What the workflow does with its image.
    #[arg(skip)]
    pub image_input: Option<wan_workflow::ImageInput>,
    /// Defaults file instead of the user's own ($XDG_CONFIG_HOME/wan-run/config.toml).
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Initial noise from a safetensors file (tensor `noise`, 16 x F x h x w) instead of the seed's.
    #[arg(long, value_name = "FILE")]
    pub noise: Option<PathBuf>,
    /// Also write the final latents (safetensors).
    #[arg(long, value_name = "FILE")]
    pub save_latents: Option<PathBuf>,
    /// Decode latents written with --save-latents; nothing is denoised.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["resume", "noise", "image", "save_latents", "preview"])]
    pub from_latents: Option<PathBuf>,
    /// Go on with a job that was stopped.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["noise", "image", "from_video", "config"])]
    pub resume: Option<PathBuf>,
    /// Also write one PNG with frames from the whole video.
    #[arg(long, value_name = "FILE.png")]
    pub contact_sheet: Option<PathBuf>,
    /// Keep a PNG with a rough look at the video, renewed after each step.
    #[arg(long, value_name = "FILE.png")]
    pub preview: Option<PathBuf>,
    /// Print nothing but errors and the path of the video.
    #[arg(long, short)]
    pub quiet: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t)]
    pub progress: ProgressMode,
    /// Everything that can also stand in a defaults file.
    #[command(flatten)]
    pub settings: Settings,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// One JSON object a line on standard output.
    Json,
    /// None.
    None,
}

/// The parameters of a job. Every one may be left out; keys of a defaults file are the option names.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// What the video shall show.
    #[arg(long, short, value_name = "TEXT", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What it shall not show.
    #[arg(long, short, value_name = "TEXT", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Model by name, or a .toml file that describes one [default: wan2.1-i2v-14b-480p-fp8].
    #[arg(long, short, value_name = "NAME", env = "WAN_RUN_MODEL", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Folder with model files, flat or in ComfyUI's layout [default: models].
    #[arg(long, value_name = "DIR", env = "WAN_RUN_MODELS_DIR", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_path_as_text")]
    pub models_dir: Option<PathBuf>,
    /// ComfyUI's list of further folders [default: the one beside the models folder].
    #[arg(long, value_name = "FILE.yaml", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_model_paths: Option<PathBuf>,
    /// LoRA file to add, FILE[:STRENGTH][:blocks=LIST], such as a.safetensors:0.8:blocks=0-19; may be repeated.
    /// Also looked for in the models folder and its loras. `none` takes away those of the defaults.
    #[arg(long, value_name = "FILE[:STRENGTH]", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Vec<String>>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Width in pixels; with an image, only the area counts unless --no-adjust-resolution.
    #[arg(long, value_name = "PIXELS", help_heading = "Job", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Height in pixels.
    #[arg(long, value_name = "PIXELS", help_heading = "Job", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Number of frames, 4k+1.
    #[arg(long, value_name = "N", help_heading = "Job", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Use exactly --width and --height (stretching the image), not the image's aspect ratio.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_adjust_resolution: Option<bool>,
    /// What replaces transparency in the image.
    #[arg(long, value_parser = ["drop", "white", "black"], value_name = "HOW", help_heading = "Job")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<String>,

    /// Denoising steps; 20 to 30 are usual.
    #[arg(long, value_name = "N", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Guidance scale; 1 ignores the negative prompt and halves the time.
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg: Option<f64>,
    /// Flow shift; higher spends more steps on coarse motion.
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
    /// Seed of the noise [default: random, printed].
    #[arg(long, value_name = "N", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Solver.
    #[arg(long, value_parser = ["dpm++", "dpm++_sde", "unipc", "euler"], value_name = "NAME", help_heading = "Sampling")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Part of the noise schedule that is run, above 0 and at most 1.
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denoise_strength: Option<f64>,
    /// RIFLEx: frequency index for videos beyond the trained length; 0 is off, 6 is usual.
    #[arg(long, value_name = "N", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub riflex_freq_index: Option<usize>,
    /// Noise added to the input image; more gives more motion.
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_aug_strength: Option<f64>,
    /// Factor on the conditioning frames.
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latent_strength: Option<f64>,
    /// Factor on the image embeddings.
    #[arg(long, value_name = "X", help_heading = "Sampling", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_embed_strength: Option<f64>,

    /// Decode in tiles: auto (if memory is short), on or off.
    #[arg(long, value_parser = ["auto", "on", "off"], value_name = "WHEN", help_heading = "Decoding")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_tiling: Option<String>,
    /// Tile height in pixels.
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile_height: Option<usize>,
    /// Tile width in pixels.
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile_width: Option<usize>,
    /// Distance of tiles downwards in pixels.
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile_stride_height: Option<usize>,
    /// Distance of tiles across in pixels.
    #[arg(long, value_name = "PIXELS", help_heading = "Decoding", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile_stride_width: Option<usize>,
    /// clamp, or minmax (stretch the contrast over the whole video).
    #[arg(long, value_parser = ["clamp", "minmax"], value_name = "HOW", help_heading = "Decoding")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_range: Option<String>,

    /// mp4 (H.264), webp, gif, png (a folder of frames) or rgb (bare bytes) [default: as --output ends, else mp4].
    #[arg(long, value_parser = ["mp4", "webp", "gif", "png", "rgb"], value_name = "NAME", help_heading = "Video")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Start of the name of outputs that are not named [default: wan-run].
    #[arg(long, value_name = "PREFIX", help_heading = "Video")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_prefix: Option<String>,
    /// Frames per second.
    #[arg(long, value_name = "N", help_heading = "Video", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// x264 quality, 0 (lossless) to 51.
    #[arg(long, value_name = "N", help_heading = "Video", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crf: Option<u8>,
    /// Pixel format of mp4.
    #[arg(long, value_parser = ["yuv420p", "yuv420p10le"], value_name = "NAME", help_heading = "Video")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pix_fmt: Option<String>,
    /// Forwards, then backwards.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Video")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pingpong: Option<bool>,
    /// Repeat the video this many more times.
    #[arg(long, value_name = "N", help_heading = "Video", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loop_count: Option<u32>,
    /// Do not store prompt, seed and parameters in the video.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Video")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_metadata: Option<bool>,
}

/// Serialises a path as text, approximately where it is not Unicode: better than no file at all.
pub fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn optional_path_as_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.serialize_some(&path.to_string_lossy()),
        None => serializer.serialize_none(),
    }
}

impl Settings {
    /// These settings, with what they leave out taken from `other`.
    pub fn or(self, other: Self) -> Self {
        // Every field is named: a new one that is forgotten here does not compile.
        macro_rules! first {
            ($($field:ident),+ $(,)?) => {
                Self { $($field: self.$field.or(other.$field)),+ }
            };
        }
        first!(
            prompt,
            negative_prompt,
            model,
            models_dir,
            extra_model_paths,
            lora,
            device,
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
            loop_count,
            no_metadata,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn generate_is_the_default() {
        let cli = Cli::parse_from(["wan-run", "--image", "a.png", "--cfg", "3", "--pingpong"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.generate.settings.cfg, Some(3.0));
        assert_eq!(cli.generate.settings.pingpong, Some(true));
        assert!(matches!(
            Cli::parse_from(["wan-run", "generate", "--image", "a.png"]).command,
            Some(Command::Generate(_))
        ));
    }

    #[test]
    fn settings_override_from_left_to_right() {
        let low = Settings { steps: Some(5), cfg: Some(2.0), ..Default::default() };
        let high = Settings { steps: Some(9), seed: Some(u64::MAX), ..Default::default() };
        let merged = high.or(low);
        assert_eq!((merged.steps, merged.cfg, merged.seed), (Some(9), Some(2.0), Some(u64::MAX)));
        let nan = Settings { cfg: Some(f64::NAN), ..Default::default() }.or(Settings::default());
        assert!(nan.cfg.is_some_and(f64::is_nan), "a bad value must reach the check");
        assert!(toml::from_str::<Settings>("step = 3").is_err());
    }
}
