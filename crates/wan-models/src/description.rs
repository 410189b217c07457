use serde::{Deserialize, Serialize};

/// What a model is conditioned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    /// Image and text to video.
    I2v,
    /// Text to video.
    T2v,
}

/// One model: its files and the defaults of a job on it. The form of `models/*.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelDescription {
    /// Name for `--model`.
    pub name: String,
    /// One line for lists.
    pub summary: String,
    /// What it is conditioned on.
    pub model_type: ModelType,
    /// Licence of the weights.
    pub license: String,
    /// File with the latent-to-RGB factors, below the models folder of the repository.
    pub latent_rgb: Option<String>,
    /// Its files.
    pub files: ModelFileSet,
    /// Defaults of a job.
    pub defaults: Defaults,
}

/// The files of a model, one per component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFileSet {
    /// Diffusion transformer.
    pub dit: FileEntry,
    /// VAE.
    pub vae: FileEntry,
    /// UMT5 encoder.
    pub text_encoder: FileEntry,
    /// CLIP vision encoder; image-to-video models only.
    pub image_encoder: Option<FileEntry>,
    /// `tokenizer.json` of the text encoder.
    pub tokenizer: FileEntry,
}

/// Where one file comes from and how it is recognised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path in the repository, or below the models folder.
    pub path: String,
    /// Hugging Face repository.
    pub repo: Option<String>,
    /// Folder in which ComfyUI keeps files of this kind.
    pub folder: Option<String>,
    /// Length in bytes, where known.
    pub bytes: Option<u64>,
    /// SHA-256 in lower-case hex, where known.
    pub sha256: Option<String>,
    /// The file is part of the program.
    #[serde(default)]
    pub embedded: bool,
}

/// Values a job takes where the user names none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Frames, 4k+1.
    pub frames: usize,
    /// Frames per second.
    pub fps: u32,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale.
    pub cfg: f64,
    /// Flow shift.
    pub shift: f64,
    /// Scheduler name.
    pub scheduler: String,
}

/// Affine map from 16 latent channels to RGB in [0, 1], for previews: `rgb = latents · factors + bias`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatentRgb {
    /// 16 rows of (red, green, blue).
    pub factors: Vec<[f32; 3]>,
    /// Added to every pixel.
    #[serde(default)]
    pub bias: [f32; 3],
}
