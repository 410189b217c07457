//! What was typed. What it means is decided in `options.rs`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::kernels::TrialArgs;
use crate::probe::ProbeArgs;
use crate::selftest::{BenchArgs, SelftestArgs, SynthesizeArgs};
use crate::serve::ServeArgs;
use crate::settings::Settings;

/// Turns one image and a prompt into a video with Wan2.1, in one process, without Python.
///
/// Without a subcommand, a video is generated:
///
///   wan-run --model tiny --image photo.png --prompt "the red circle moves right"
#[derive(Debug, Parser)]
#[command(name = "wan-run", version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(args_override_self = true)]
pub struct Cli {
    /// What to do [default: generate].
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
    /// Show devices, memory, models, and what a job with these options would need.
    Info(Box<InfoArgs>),
    /// Check whether this machine can make videos and how to fix what it lacks; paste its output into bug reports.
    Doctor(Box<crate::doctor::DoctorArgs>),
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
    /// Check the engine on a device.
    #[command(hide = true)]
    Selftest(Box<SelftestArgs>),
    /// Time the engine on a device.
    #[command(hide = true)]
    Bench(Box<BenchArgs>),
    /// Write a model of true size with random weights.
    #[command(hide = true)]
    Synthesize(SynthesizeArgs),
    /// Try the kernels that are for one kind of GPU alone.
    #[command(hide = true)]
    Trial(TrialArgs),
}

/// Subcommands of `models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List all models and LoRAs, and which are on this machine.
    List(PlacesArgs),
    /// Download the missing files of models or LoRAs into the Hugging Face cache.
    ///
    /// An interrupted pull resumes where it stopped. HF_ENDPOINT sets a mirror, HF_TOKEN a token, HF_HOME or
    /// HF_HUB_CACHE the cache; HF_HUB_OFFLINE=1 forbids the network.
    Pull {
        /// Names, or .toml files with descriptions.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Do not use the network; fail if a file is missing.
        #[arg(long)]
        offline: bool,
        /// Print nothing but errors.
        #[arg(long, short)]
        quiet: bool,
        /// How to show progress.
        #[arg(long, value_enum, default_value_t)]
        progress: ProgressMode,
        /// Where to look.
        #[command(flatten)]
        places: PlacesArgs,
    },
    /// Read the files of models or LoRAs and check their lengths and SHA-256.
    Verify {
        /// Names, or .toml files with descriptions.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Where to look.
        #[command(flatten)]
        places: PlacesArgs,
    },
    /// Print the paths of a model's or LoRA's files.
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
        /// Also remove files that another complete model uses.
        #[arg(long)]
        shared: bool,
        /// Where to look.
        #[command(flatten)]
        places: PlacesArgs,
    },
    /// Describe a checkpoint: component, layout, dtypes, parameters, configuration.
    Inspect(crate::inspect::InspectArgs),
    /// Rewrite a checkpoint with FP8 or bf16 matrices.
    Convert(crate::inspect::ConvertArgs),
}

/// Where to look for model files, besides the Hugging Face cache.
#[derive(Debug, Clone, Default, Args)]
pub struct PlacesArgs {
    /// Folder with model files, flat or in ComfyUI's layout [default: WAN_RUN_MODELS_DIR, else models].
    #[arg(long, value_name = "DIR")]
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
    /// Input image, if the video's size should follow it.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Defaults file instead of the user's own.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// The job.
    #[command(flatten)]
    pub settings: Settings,
}

/// Options of `generate`.
#[derive(Debug, Clone, Default, Args)]
pub struct GenerateArgs {
    /// Input image: JPEG, PNG, WebP, GIF (first frame), BMP or TIFF.
    #[arg(long, short, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// The video's last frame; needs a first-and-last-frame model (FLF2V).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["resume", "from_latents", "looped"])]
    pub end_image: Option<PathBuf>,
    /// Video to write; the extension decides the format [default: the first free PREFIX_NNNNN.EXT].
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing output.
    #[arg(long)]
    pub overwrite: bool,
    /// Take all parameters from a video made by wan-run; other options override them.
    #[arg(long, value_name = "FILE")]
    pub from_video: Option<PathBuf>,
    /// Take all parameters from a ComfyUI workflow in API or UI format; other options override them.
    /// Images are looked up next to the workflow file. All its outputs are written, unless --output or --format asks for one.
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["from_video", "resume", "from_latents"])]
    pub workflow: Option<PathBuf>,
    /// What the workflow does with its image.
    #[arg(skip)]
    pub image_input: Option<wan_workflow::ImageInput>,
    /// What the workflow does with its end image.
    #[arg(skip)]
    pub end_image_input: Option<wan_workflow::ImageInput>,
    /// Further videos that the workflow makes of the frames.
    #[arg(skip)]
    pub further: Vec<crate::target::Further>,
    /// Whether the format is that of the workflow: a name that is given later says what its own is.
    #[arg(skip)]
    pub format_is_workflows: bool,
    /// Make N videos, each with the next seed; --output NAME.mp4 becomes NAME-0001.mp4 and so on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9999), conflicts_with_all = ["batch", "extend", "resume", "from_latents"])]
    pub count: Option<u32>,
    /// Number in the name of the first video of --count [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "count")]
    pub count_from: Option<u32>,
    /// Make a video from each line: a JSON object whose keys are option names, which override the options given here. A
    /// failing line is reported and the others go on; when run again, finished lines are skipped.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["output", "extend", "resume", "from_latents", "save_latents", "contact_sheet"])]
    pub batch: Option<PathBuf>,
    /// Digest of the line of a batch that this is.
    #[arg(skip)]
    pub batch_key: Option<String>,
    /// Continue a video from its last frame; the output contains both. Parameters stored in it are the defaults.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "end_image", "workflow", "from_video", "resume", "from_latents", "noise", "save_latents", "contact_sheet", "looped", "width", "height", "no_adjust_resolution"])]
    pub extend: Option<PathBuf>,
    /// How many times --extend continues the video, each time with the next seed [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "extend")]
    pub segments: Option<u32>,
    /// Defaults file instead of the user's own ($XDG_CONFIG_HOME/wan-run/config.toml).
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Take the initial noise from a safetensors file (tensor `noise`, 16 x F x h x w) instead of the seed.
    #[arg(long, value_name = "FILE")]
    pub noise: Option<PathBuf>,
    /// Also write the final latents (safetensors).
    #[arg(long, value_name = "FILE")]
    pub save_latents: Option<PathBuf>,
    /// Decode latents written with --save-latents, with the parameters stored in them; nothing is denoised.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["resume", "noise", "image", "save_latents", "preview"])]
    pub from_latents: Option<PathBuf>,
    /// Resume a stopped job.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["noise", "image", "from_video", "config"])]
    pub resume: Option<PathBuf>,
    /// Also write a PNG that shows frames from the whole video.
    #[arg(long, value_name = "FILE.png")]
    pub contact_sheet: Option<PathBuf>,
    /// Write a rough preview of the video as PNG, updated after each step; an earlier preview is replaced.
    #[arg(long, value_name = "FILE.png")]
    pub preview: Option<PathBuf>,
    /// Print nothing but errors and the path of the video.
    #[arg(long, short)]
    pub quiet: bool,
    /// How to show progress.
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
    /// One JSON object per line on standard output.
    Json,
    /// None.
    None,
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
}
