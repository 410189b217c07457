use std::fmt;
use std::path::{Component as PathPart, Path, PathBuf};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::hub::{RemoteFile, is_sha256};

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
    /// The user's file that this was read from; `None` for a model of the program's own.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// One line for lists.
    pub summary: String,
    /// What it is conditioned on.
    pub model_type: ModelType,
    /// Licence of the weights.
    pub license: String,
    /// File with the latent-to-RGB factors: one of the program's own, or beside the description.
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

impl ModelFileSet {
    /// All files, each with its key.
    pub fn entries(&self) -> Vec<(&'static str, &FileEntry)> {
        let mut entries = vec![("dit", &self.dit), ("vae", &self.vae), ("text_encoder", &self.text_encoder)];
        entries.extend(self.image_encoder.as_ref().map(|e| ("image_encoder", e)));
        entries.push(("tokenizer", &self.tokenizer));
        entries
    }
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
    /// Names under which other precisions of the same weights are published; a job takes one of these where the file
    /// itself is not there, and workflows that name one mean this model. Of transformer and text encoder only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The file is part of the program.
    #[serde(default)]
    pub embedded: bool,
    /// The shards, if `path` is the index of a sharded set; in the same repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<FilePart>,
}

/// One shard of a sharded set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Path in the repository.
    pub path: String,
    /// Length in bytes, where known.
    pub bytes: Option<u64>,
    /// SHA-256 in lower-case hex, where known.
    pub sha256: Option<String>,
}

/// The length of files whose descriptions may not all tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownSize {
    /// Sum of the lengths that are known.
    pub bytes: u64,
    /// Whether all of them are.
    pub complete: bool,
}

impl std::iter::Sum for KnownSize {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self { bytes: 0, complete: true }, |sum, one| Self {
            bytes: sum.bytes.saturating_add(one.bytes),
            complete: sum.complete && one.complete,
        })
    }
}

impl fmt::Display for KnownSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = ByteSize::b(self.bytes).display().iec().to_string();
        match self {
            Self { complete: true, .. } => f.pad(&known),
            Self { bytes: 0, .. } => f.pad("size unknown"),
            _ => f.pad(&format!("at least {known}")),
        }
    }
}

impl FileEntry {
    /// The names of files that are this one or another precision of it, without folders; its own first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.path.rsplit('/').next().unwrap_or_default();
        std::iter::once(own).chain(self.also.iter().map(String::as_str))
    }

    /// The files to fetch: this one, and its shards. Empty for an embedded file and one without a repository.
    pub fn remote_files(&self) -> Vec<RemoteFile> {
        let Some(repo) = self.repo.as_ref().filter(|_| !self.embedded) else { return Vec::new() };
        let file = |path: &str, bytes, sha256: &Option<String>| RemoteFile {
            repo: repo.clone(),
            path: path.to_string(),
            bytes,
            sha256: sha256.clone(),
        };
        let own = std::iter::once(file(&self.path, self.bytes, &self.sha256));
        own.chain(self.parts.iter().map(|p| file(&p.path, p.bytes, &p.sha256))).collect()
    }

    /// `REPO/PATH`, or the path alone, for messages.
    pub fn label(&self) -> String {
        match &self.repo {
            Some(repo) => format!("{repo}/{}", self.path),
            None => self.path.clone(),
        }
    }

    /// Length of all its files, where all are known.
    pub fn total_bytes(&self) -> Option<u64> {
        self.bytes
            .into_iter()
            .chain(self.parts.iter().filter_map(|p| p.bytes))
            .try_fold(0u64, u64::checked_add)
            .filter(|_| self.bytes.is_some() && self.parts.iter().all(|p| p.bytes.is_some()))
    }

    /// The length of all its files, as far as it is known; an embedded file takes nothing.
    pub fn known_size(&self) -> KnownSize {
        if self.embedded {
            return KnownSize { bytes: 0, complete: true };
        }
        let lengths = std::iter::once(self.bytes).chain(self.parts.iter().map(|p| p.bytes));
        lengths.map(|bytes| KnownSize { bytes: bytes.unwrap_or(0), complete: bytes.is_some() }).sum()
    }

    /// Checks what a typing error or an ill-meant description could get wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let parts = self.parts.iter().map(|part| &part.path);
        let paths = std::iter::once(&self.path).chain(parts).chain(&self.also);
        for path in paths {
            let plain = Path::new(path).components().all(|c| matches!(c, PathPart::Normal(_)));
            if path.is_empty() || !plain {
                return Err(format!("found path `{path}`, expected a relative path without `..`"));
            }
        }
        if let Some(repo) = &self.repo {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            let good = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed);
            if repo.split('/').count() != 2 || !repo.split('/').all(good) {
                return Err(format!("found repository `{repo}`, expected OWNER/NAME"));
            }
        }
        let hashes = self.sha256.iter().chain(self.parts.iter().filter_map(|p| p.sha256.as_ref()));
        match hashes.into_iter().find(|h| !is_sha256(h)) {
            Some(hash) => Err(format!("found sha256 `{hash}`, expected 64 lower-case hex digits")),
            None => Ok(()),
        }
    }
}

/// A LoRA: low-rank changes to the diffusion transformer of other models. The form of `models/lora/*.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraDescription {
    /// Name for `--lora`.
    pub name: String,
    /// The user's file that this was read from; `None` for a LoRA of the program's own.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// One line for lists.
    pub summary: String,
    /// What the models it was made for are conditioned on.
    pub model_type: ModelType,
    /// Licence of the weights.
    pub license: String,
    /// Its file.
    pub lora: FileEntry,
    /// Values of a job that it is made for.
    pub recipe: Recipe,
}

/// Values of a job that a LoRA is made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Factor on its change of the weights.
    pub strength: f64,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale.
    pub cfg: f64,
    /// Flow shift, where it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
    /// Scheduler name, where it was made for certain sigmas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
}

/// Anything that has a description.
#[derive(Debug, Clone, PartialEq)]
pub enum Description {
    /// A model.
    Model(Box<ModelDescription>),
    /// A LoRA.
    Lora(Box<LoraDescription>),
}

impl Description {
    /// Name on the command line.
    pub fn name(&self) -> &str {
        match self {
            Self::Model(m) => &m.name,
            Self::Lora(l) => &l.name,
        }
    }

    /// What the command line takes for it: its file if it is the user's, else its name.
    pub fn argument(&self) -> String {
        match self {
            Self::Model(m) => argument(&m.file, &m.name),
            Self::Lora(l) => argument(&l.file, &l.name),
        }
    }

    /// One line for lists.
    pub fn summary(&self) -> &str {
        match self {
            Self::Model(m) => &m.summary,
            Self::Lora(l) => &l.summary,
        }
    }

    /// Licence of the weights.
    pub fn license(&self) -> &str {
        match self {
            Self::Model(m) => &m.license,
            Self::Lora(l) => &l.license,
        }
    }

    /// Its files, each with the name of its part in the description.
    pub fn files(&self) -> Vec<(&'static str, &FileEntry)> {
        match self {
            Self::Model(m) => m.files.entries(),
            Self::Lora(l) => vec![("lora", &l.lora)],
        }
    }
}

/// What the command line takes for a description: the file it was read from, else its name.
pub(crate) fn argument(file: &Option<PathBuf>, name: &str) -> String {
    file.as_ref().map_or_else(|| name.to_string(), |f| f.display().to_string())
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
