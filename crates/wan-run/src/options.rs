//! What the typed options mean: flags over a video's parameters over the user's defaults over the model's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytesize::ByteSize;
use candle_core::Device;
use wan_core::device::DeviceChoice;
use wan_media::{Alpha, FrameRate, OutputFormat, PixelFormat, VideoOptions};
use wan_models::{ModelDescription, Places, Registry};
use wan_pipeline::{
    ContextWindows, LoraChoice, MemoryLimits, Numerics, OutputRange, PipelineError, Request, TeaCache,
    TeaCacheMode, TilingChoice, keep_tuning,
};

use crate::error::{Failure, Outcome};
use crate::kernels;
use crate::settings::Settings;

/// Model taken where none is named.
const DEFAULT_MODEL: &str = "wan2.1-i2v-14b-480p-fp8";

/// Folder of models where none is named.
pub const DEFAULT_MODELS_DIR: &str = "models";

/// A job as it will run, before the image is read.
pub struct Options {
    /// What to make.
    pub request: Request,
    /// The model.
    pub model: ModelDescription,
    /// Folder with model files.
    pub models_dir: PathBuf,
    /// ComfyUI's list of further folders, if one is named.
    pub extra_model_paths: Option<PathBuf>,
    /// Where it runs.
    pub device: DeviceChoice,
    /// How much memory it may use.
    pub limits: MemoryLimits,
    /// How the video is stored, metadata aside.
    pub video: VideoOptions,
    /// Start of the names of outputs that are not named.
    pub output_prefix: String,
    /// What replaces transparency.
    pub alpha: Alpha,
    /// Whether parameters are stored in the video.
    pub metadata: bool,
    /// Whether the video ends before its last frame, which is the first one again.
    pub looped: bool,
    /// Whether the seed was chosen here.
    pub seed_is_random: bool,
}

impl Options {
    /// Where model files are looked for.
    ///
    /// Errors: exit 2 if ComfyUI's list of folders cannot be read.
    pub fn places(&self) -> Outcome<Places> {
        crate::hub::places(&self.models_dir, self.extra_model_paths.as_deref())
    }

    /// Opens the device, and says with `note` what the user should know about it. What it learns about itself it keeps
    /// in the user's cache folder.
    ///
    /// Errors: a device that cannot be used.
    pub fn open_device(&self, note: impl Fn(&str)) -> Outcome<Device> {
        let opened = self.device.open()?;
        kernels::settle(&opened.device, self.device, &note)?;
        let kept = match dirs::cache_dir() {
            Some(cache) => keep_tuning(&opened.device, &cache.join("wan-run"))?,
            None => None,
        };
        opened.note.iter().chain(&kept).for_each(|line| note(line));
        Ok(opened.device)
    }
}

/// The user's defaults: `WAN_RUN_MODEL` and `WAN_RUN_MODELS_DIR` over a defaults file.
///
/// Errors: as [`defaults_file`].
pub fn user_defaults(named: Option<&Path>) -> Outcome<Settings> {
    Ok(environment().or(defaults_file(named)?))
}

/// An environment variable that has a value: an empty one is as good as none.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The settings of environment variables.
pub fn environment() -> Settings {
    Settings {
        model: variable("WAN_RUN_MODEL").map(|name| name.to_string_lossy().into_owned()),
        models_dir: variable("WAN_RUN_MODELS_DIR").map(PathBuf::from),
        ..Settings::default()
    }
}

/// Reads a defaults file: `named`, else `$XDG_CONFIG_HOME/wan-run/config.toml` or
/// `$HOME/.config/wan-run/config.toml` if there is one.
///
/// Errors: exit 2 if the file cannot be read, or has a key that is no option.
fn defaults_file(named: Option<&Path>) -> Outcome<Settings> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => {
            let folder = variable("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
            match folder.map(|f| f.join("wan-run/config.toml")).filter(|p| p.is_file()) {
                Some(path) => path,
                None => return Ok(Settings::default()),
            }
        }
    };
    let wrong = |reason: &dyn std::fmt::Display| {
        Failure::usage(format!("defaults file {}: {reason}", path.display()))
    };
    let text = std::fs::read_to_string(&path).map_err(|e| wrong(&e))?;
    let table: toml::Table = toml::from_str(&text).map_err(|e| wrong(&e.message()))?;
    let one = |key: String, value: toml::Value| {
        toml::Table::from_iter([(key, value)]).try_into::<Settings>().map_err(|e| e.message().to_string())
    };
    Settings::of_entries(table, one, &[]).map_err(|reason| wrong(&reason))
}

/// Settles every option that was left open.
///
/// Errors: exit 2 for names that are unknown and values that make no sense.
pub fn resolve(settings: Settings, registry: &Registry) -> Outcome<Options> {
    let s = settings;
    let model = registry.find(s.model.as_deref().unwrap_or(DEFAULT_MODEL))?;
    let mut request = Request::with_defaults(&model.defaults)?;
    let set = |target: &mut usize, value: Option<usize>| {
        if let Some(value) = value {
            *target = value;
        }
    };
    set(&mut request.width, s.width);
    set(&mut request.height, s.height);
    set(&mut request.frames, s.frames);
    set(&mut request.steps, s.steps);
    set(&mut request.riflex_freq_index, s.riflex_freq_index);
    set(&mut request.tile.tile_height, s.tile_height);
    set(&mut request.tile.tile_width, s.tile_width);
    set(&mut request.tile.stride_height, s.tile_stride_height);
    set(&mut request.tile.stride_width, s.tile_stride_width);
    let set = |target: &mut f64, value: Option<f64>| {
        if let Some(value) = value {
            *target = value;
        }
    };
    set(&mut request.cfg, s.cfg);
    set(&mut request.shift, s.shift);
    set(&mut request.denoise_strength, s.denoise_strength);
    set(&mut request.noise_aug_strength, s.noise_aug_strength);
    set(&mut request.latent_strength, s.latent_strength);
    set(&mut request.clip_embed_strength, s.clip_embed_strength);
    request.context = context_windows(&s)?;
    request.teacache = teacache(&s)?;
    if let Some(interval) = &s.guidance_interval {
        request.guidance_interval = interval.parse().map_err(PipelineError::from)?;
    }
    let video = video_options(&s, &model)?;
    request.prompt = s.prompt.unwrap_or_default();
    request.negative_prompt = s.negative_prompt.unwrap_or_default();
    request.adjust_resolution = !s.no_adjust_resolution.unwrap_or(false);
    if let Some(name) = &s.scheduler {
        request.scheduler = name.parse().map_err(Failure::usage)?;
    }
    let models_dir = s.models_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_MODELS_DIR));
    request.loras = loras(s.lora.unwrap_or_default(), &models_dir)?;
    request.blocks_to_swap = s.blocks_to_swap.unwrap_or_default();
    request.nodes = s.nodes.unwrap_or_default();
    let numerics = if s.fast.unwrap_or(false) { Numerics::FAST } else { Numerics::default() };
    request.precision = named(s.precision, numerics.precision)?;
    request.attention = named(s.attention, numerics.attention)?;
    request.vae_tiling = match s.vae_tiling.as_deref() {
        None | Some("auto") => TilingChoice::Auto,
        Some("on") => TilingChoice::On,
        Some("off") => TilingChoice::Off,
        Some(other) => return Err(PipelineError::request("vae-tiling", other, "auto, on or off").into()),
    };
    request.output_range = match s.output_range.as_deref() {
        None | Some("clamp") => OutputRange::Clamp,
        Some("minmax") => OutputRange::Minmax,
        Some(other) => return Err(PipelineError::request("output-range", other, "clamp or minmax").into()),
    };
    request.seed = match s.seed {
        Some(seed) => seed,
        None => random_seed(),
    };
    let alpha = match s.alpha.as_deref() {
        None | Some("drop") => Alpha::Drop,
        Some("white") => Alpha::White,
        Some("black") => Alpha::Black,
        Some(other) => return Err(PipelineError::request("alpha", other, "drop, white or black").into()),
    };
    Ok(Options {
        limits: MemoryLimits {
            vram: size("max-vram", s.max_vram.as_deref())?,
            ram: size("max-ram", s.max_ram.as_deref())?,
        },
        device: s.device.as_deref().unwrap_or("auto").parse().map_err(Failure::usage)?,
        models_dir,
        extra_model_paths: s.extra_model_paths,
        output_prefix: s.output_prefix.unwrap_or_else(|| crate::output::DEFAULT_PREFIX.into()),
        metadata: !s.no_metadata.unwrap_or(false),
        looped: s.looped.unwrap_or(false),
        seed_is_random: s.seed.is_none(),
        request,
        model,
        video,
        alpha,
    })
}

/// How a video of `model` is stored, metadata aside.
///
/// Errors: exit 2 for names that are unknown and a frame rate that is none.
pub fn video_options(s: &Settings, model: &ModelDescription) -> Outcome<VideoOptions> {
    Ok(VideoOptions {
        format: s.format.as_deref().unwrap_or("mp4").parse::<OutputFormat>()?,
        fps: match s.fps {
            Some(fps) => FrameRate::try_from(fps)?,
            None => FrameRate::new(model.defaults.fps, 1)?,
        },
        crf: s.crf.unwrap_or(19),
        pixel_format: s.pix_fmt.as_deref().unwrap_or("yuv420p").parse::<PixelFormat>()?,
        loop_count: s.loop_count.unwrap_or(0),
        counts_plays: s.counts_plays.unwrap_or(false),
        pingpong: s.pingpong.unwrap_or(false),
        ..VideoOptions::default()
    })
}

/// The windows that the options ask for: any of them without a schedule is the default schedule's.
fn context_windows(s: &Settings) -> Outcome<Option<ContextWindows>> {
    let plain = ContextWindows::default();
    let asked = s.context_frames.is_some() || s.context_stride.is_some() || s.context_overlap.is_some();
    let schedule = match s.context_schedule.as_deref() {
        Some("none") => return Ok(None),
        None if !asked && s.context_freenoise.is_none() => return Ok(None),
        Some(name) => name.parse()?,
        None => plain.schedule,
    };
    Ok(Some(ContextWindows {
        schedule,
        frames: s.context_frames.unwrap_or(plain.frames),
        stride: s.context_stride.unwrap_or(plain.stride),
        overlap: s.context_overlap.unwrap_or(plain.overlap),
        freenoise: s.context_freenoise.unwrap_or(plain.freenoise),
    }))
}

/// TeaCache as the options ask for it; a threshold of 0 takes away that of the defaults.
///
/// Errors: exit 2 for its other options without a threshold.
fn teacache(s: &Settings) -> Outcome<Option<TeaCache>> {
    let Some(threshold) = s.teacache else {
        let asked = [
            ("teacache-mode", s.teacache_mode.is_some()),
            ("teacache-start", s.teacache_start.is_some()),
            ("teacache-end", s.teacache_end.is_some()),
        ];
        return match asked.iter().find(|(_, given)| *given) {
            Some((option, _)) => {
                Err(PipelineError::request("teacache", "none", format!("a threshold beside --{option}"))
                    .into())
            }
            None => Ok(None),
        };
    };
    let mode = s.teacache_mode.as_deref().map_or(Ok(TeaCacheMode::default()), str::parse)?;
    let options = TeaCache { threshold, mode, start: s.teacache_start, end: s.teacache_end };
    Ok((threshold != 0.0).then_some(options))
}

/// The value of this name, else `default`.
fn named<T: FromStr<Err = wan_core::Error>>(name: Option<String>, default: T) -> Outcome<T> {
    name.map_or(Ok(default), |name| name.parse().map_err(Failure::usage))
}

/// Reads a size of memory, in bytes.
///
/// Errors: exit 2 for what is no size, and for less than any job takes, such as a number without its unit.
fn size(option: &'static str, text: Option<&str>) -> Outcome<Option<u64>> {
    const LEAST: u64 = 1 << 20;
    let Some(text) = text else { return Ok(None) };
    match text.parse::<ByteSize>() {
        Ok(size) if size.as_u64() >= LEAST => Ok(Some(size.as_u64())),
        _ => {
            let expected = "a size of at least 1 MiB with its unit, such as 12GB, 11.5GiB or 800MB";
            Err(PipelineError::request(option, format!("`{text}`"), expected).into())
        }
    }
}

/// Reads the LoRA options. A path that leads to nothing is looked for in the models folder, flat or in ComfyUI's
/// layout.
fn loras(texts: Vec<String>, models_dir: &Path) -> Outcome<Vec<LoraChoice>> {
    if texts == ["none"] {
        return Ok(Vec::new());
    }
    let read = |text: &String| {
        let mut lora: LoraChoice = text.parse()?;
        if !lora.path.exists()
            && let Some(found) = lora_places(&lora.path, models_dir).into_iter().find(|p| p.exists())
        {
            lora.path = found;
        }
        Ok(lora)
    };
    texts.iter().map(read).collect()
}

/// Where a LoRA is looked for that is not where its path leads.
fn lora_places(lora: &Path, models_dir: &Path) -> [PathBuf; 2] {
    [models_dir.to_path_buf(), models_dir.join("loras")].map(|folder| folder.join(lora))
}

/// Checks that the LoRA files are there.
///
/// Errors: exit 1, with the places where the file was looked for.
pub fn check_loras(options: &Options) -> Outcome {
    let Some(lora) = options.request.loras.iter().find(|lora| !lora.path.exists()) else { return Ok(()) };
    let [flat, layout] = lora_places(&lora.path, &options.models_dir);
    let also = match lora.path.is_absolute() {
        true => String::new(),
        false => format!("; also looked for {} and {}", flat.display(), layout.display()),
    };
    Err(Failure::run(format!("LoRA {}: no such file{also}", lora.path.display())))
}

/// A seed that differs from run to run, small enough to be typed again.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds its hash maps from the system's randomness.
    RandomState::new().hash_one(0u8) >> 32
}
