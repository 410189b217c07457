use std::path::{Path, PathBuf};

use wan_core::weights::Bytes;
use wan_core::{Result, WeightSet};

use crate::description::{FileEntry, LatentRgb, ModelDescription};
use crate::{ModelsError, embedded};

/// A part of a model that has a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Diffusion transformer.
    Dit,
    /// VAE.
    Vae,
    /// UMT5 encoder.
    TextEncoder,
    /// CLIP vision encoder.
    ImageEncoder,
    /// Tokenizer of the text encoder.
    Tokenizer,
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In the program.
    Embedded {
        /// Name for messages.
        label: String,
        /// Contents.
        bytes: &'static [u8],
    },
    /// On disk.
    File(PathBuf),
}

impl Source {
    /// Opens the tensors; reads headers only.
    ///
    /// Errors: as [`WeightSet::open`].
    pub fn weights(&self) -> Result<WeightSet> {
        match self {
            Self::Embedded { label, bytes } => WeightSet::from_bytes(label.clone(), Bytes::new(*bytes)),
            Self::File(path) => WeightSet::open(path),
        }
    }

    /// The whole contents; for small files.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Embedded { bytes, .. } => Ok(bytes.to_vec()),
            Self::File(path) => std::fs::read(path).map_err(|e| wan_core::Error::io(path, e)),
        }
    }

    /// Length in bytes; 0 if the file is gone.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Embedded { bytes, .. } => bytes.len() as u64,
            Self::File(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
        }
    }
}

/// A model whose files were all found.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// Its description.
    pub description: ModelDescription,
    /// Diffusion transformer.
    pub dit: Source,
    /// VAE.
    pub vae: Source,
    /// UMT5 encoder.
    pub text_encoder: Source,
    /// CLIP vision encoder; absent for text-to-video.
    pub image_encoder: Option<Source>,
    /// Tokenizer of the text encoder.
    pub tokenizer: Source,
    /// Latent-to-RGB factors for previews.
    pub latent_rgb: Option<LatentRgb>,
}

/// All model descriptions this program knows.
#[derive(Debug, Clone)]
pub struct Registry {
    models: Vec<ModelDescription>,
}

impl Registry {
    /// The descriptions in the program.
    ///
    /// Errors: [`ModelsError::Description`] if one does not parse (a test holds that none does).
    pub fn builtin() -> Result<Self, ModelsError> {
        let models =
            embedded::descriptions().map(|(label, bytes)| parse(label, bytes)).collect::<Result<_, _>>()?;
        Ok(Self { models })
    }

    /// All models.
    pub fn models(&self) -> &[ModelDescription] {
        &self.models
    }

    /// The model of this name, or the one a `.toml` file of the user's describes.
    ///
    /// Errors: [`ModelsError::Unknown`] with the nearest name; [`ModelsError::Description`].
    pub fn find(&self, name: &str) -> Result<ModelDescription, ModelsError> {
        if let Some(model) = self.models.iter().find(|m| m.name == name) {
            return Ok(model.clone());
        }
        if name.ends_with(".toml") {
            let bytes = std::fs::read(name).map_err(|e| description_error(name, e))?;
            return parse(name, &bytes);
        }
        let nearest = self
            .models
            .iter()
            .map(|m| (strsim::jaro_winkler(&m.name, name), &m.name))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, n)| n.clone());
        let known = self.models.iter().map(|m| m.name.clone()).collect();
        Err(ModelsError::Unknown { name: name.to_string(), nearest, known })
    }

    /// Finds a model's files: in the program, or below `models_dir` as `NAME/FILE`, `FILE`, or in ComfyUI's
    /// folders (`FOLDER/FILE`, `FOLDER/SUBFOLDER/FILE`).
    ///
    /// Errors: [`ModelsError::FilesMissing`] naming all that are missing.
    pub fn resolve(&self, model: &ModelDescription, models_dir: &Path) -> Result<ModelFiles, ModelsError> {
        let mut missing = Vec::new();
        let mut find = |entry: &FileEntry| {
            let found = locate(&model.name, entry, models_dir);
            if found.is_none() {
                missing.push(entry.clone());
            }
            // A stand-in until all missing files are known; never returned.
            found.unwrap_or_else(|| Source::File(PathBuf::new()))
        };
        let files = &model.files;
        let resolved = ModelFiles {
            description: model.clone(),
            dit: find(&files.dit),
            vae: find(&files.vae),
            text_encoder: find(&files.text_encoder),
            image_encoder: files.image_encoder.as_ref().map(&mut find),
            tokenizer: find(&files.tokenizer),
            latent_rgb: latent_rgb(model)?,
        };
        if missing.is_empty() {
            return Ok(resolved);
        }
        let mut sources: Vec<String> = missing.iter().filter_map(|e| e.repo.clone()).collect();
        sources.sort();
        sources.dedup();
        Err(ModelsError::FilesMissing {
            model: model.name.clone(),
            missing: missing.iter().map(|e| e.path.clone()).collect(),
            folder: models_dir.to_path_buf(),
            sources: sources.iter().map(|r| format!("the files of {r} on Hugging Face")).collect(),
        })
    }

    /// The sample image that comes with the program, as PNG.
    pub fn sample_image() -> &'static [u8] {
        embedded::file("tiny/sample.png").unwrap_or_default()
    }
}

fn locate(model: &str, entry: &FileEntry, models_dir: &Path) -> Option<Source> {
    if entry.embedded {
        let bytes = embedded::file(&entry.path)?;
        return Some(Source::Embedded { label: format!("{} (embedded)", entry.path), bytes });
    }
    let name = Path::new(&entry.path).file_name()?;
    let mut candidates =
        vec![models_dir.join(model).join(name), models_dir.join(&entry.path), models_dir.join(name)];
    if let Some(folder) = &entry.folder {
        let folder = models_dir.join(folder);
        candidates.push(folder.join(name));
        let below = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path());
        candidates.extend(below.filter(|p| p.is_dir()).map(|p| p.join(name)));
    }
    candidates.into_iter().find(|p| p.is_file()).map(Source::File)
}

fn latent_rgb(model: &ModelDescription) -> Result<Option<LatentRgb>, ModelsError> {
    let Some(path) = &model.latent_rgb else { return Ok(None) };
    let bytes = match embedded::file(path) {
        Some(bytes) => bytes.to_vec(),
        None => std::fs::read(path).map_err(|e| description_error(path, e))?,
    };
    parse(path, &bytes).map(Some)
}

fn parse<T: serde::de::DeserializeOwned>(label: &str, bytes: &[u8]) -> Result<T, ModelsError> {
    let text = std::str::from_utf8(bytes).map_err(|e| description_error(label, e))?;
    toml::from_str(text).map_err(|e| description_error(label, e.message()))
}

fn description_error(label: &str, reason: impl std::fmt::Display) -> ModelsError {
    ModelsError::Description { label: label.to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_parses_and_tiny_resolves_without_a_folder() {
        let registry = Registry::builtin().unwrap();
        assert!(registry.models().len() >= 2);
        for model in registry.models() {
            let rgb = latent_rgb(model).unwrap().expect("previews for every model");
            assert_eq!(rgb.factors.len(), 16, "{}", model.name);
        }
        let tiny = registry.find("tiny").unwrap();
        let files = registry.resolve(&tiny, Path::new("/nonexistent")).unwrap();
        for source in [&files.dit, &files.vae, &files.text_encoder, files.image_encoder.as_ref().unwrap()] {
            assert!(source.weights().unwrap().names().count() > 10);
        }
        assert!(Registry::sample_image().starts_with(b"\x89PNG"));
    }

    #[test]
    fn embedded_weights_are_aligned_for_f32() {
        let bytes = embedded::file("tiny/dit.safetensors").unwrap();
        assert_eq!(bytes.as_ptr().addr() % 64, 0);
    }

    #[test]
    fn a_misspelt_name_gets_a_suggestion() {
        let registry = Registry::builtin().unwrap();
        let error = registry.find("tinny").unwrap_err().to_string();
        assert!(error.contains("did you mean `tiny`"), "{error}");
        let error = registry.find("zzz").unwrap_err().to_string();
        assert!(!error.contains("did you mean") && error.contains("known: tiny, wan2.1"), "{error}");
    }

    #[test]
    fn files_are_found_in_a_comfyui_tree_and_missing_ones_are_all_named() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::builtin().unwrap();
        let model = registry.find("wan2.1-i2v-14b-480p-fp8").unwrap();
        let error = registry.resolve(&model, dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("umt5-xxl-enc-bf16.safetensors") && error.contains("tokenizer.json"),
            "{error}"
        );
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        };
        put("diffusion_models/Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors");
        put("vae/wan2.1/Wan2_1_VAE_bf16.safetensors");
        put("umt5-xxl-enc-bf16.safetensors");
        put("wan2.1-i2v-14b-480p-fp8/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors");
        put("text_encoders/tokenizer.json");
        let files = registry.resolve(&model, dir.path()).unwrap();
        assert!(
            matches!(&files.vae, Source::File(p) if p.ends_with("vae/wan2.1/Wan2_1_VAE_bf16.safetensors"))
        );
    }
}
