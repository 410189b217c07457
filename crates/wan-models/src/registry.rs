use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wan_core::WeightSet;
use wan_core::weights::GGUF_VOCABULARY;

use crate::description::{Description, FileEntry, LatentRgb, LoraDescription, ModelDescription};
use crate::error::FilesMissing;
use crate::places::{Places, is_weights};
use crate::source::{ModelFiles, Source};
use crate::{ModelsError, embedded};

/// All descriptions this program knows.
#[derive(Debug, Clone)]
pub struct Registry {
    models: Vec<ModelDescription>,
    loras: Vec<LoraDescription>,
}

impl Registry {
    /// The descriptions in the program.
    ///
    /// Errors: [`ModelsError::Description`] if one does not parse (a test holds that none does).
    pub fn builtin() -> Result<Self, ModelsError> {
        let mut registry = Self { models: Vec::new(), loras: Vec::new() };
        for (label, bytes) in embedded::descriptions() {
            match description(label, bytes, None)? {
                Description::Model(model) => registry.models.push(*model),
                Description::Lora(lora) => registry.loras.push(*lora),
            }
        }
        Ok(registry)
    }

    /// All models.
    pub fn models(&self) -> &[ModelDescription] {
        &self.models
    }

    /// All LoRAs.
    pub fn loras(&self) -> &[LoraDescription] {
        &self.loras
    }

    /// All models, then all LoRAs.
    pub fn all(&self) -> Vec<Description> {
        let models = self.models.iter().cloned().map(|m| Description::Model(Box::new(m)));
        models.chain(self.loras.iter().cloned().map(|l| Description::Lora(Box::new(l)))).collect()
    }

    /// The model of this name, or the one a `.toml` file of the user's describes.
    ///
    /// Errors: [`ModelsError::Unknown`] with the nearest name; [`ModelsError::Description`].
    pub fn find(&self, name: &str) -> Result<ModelDescription, ModelsError> {
        let known = self.models.iter().map(|m| m.name.clone()).collect();
        match self.find_any(name) {
            Ok(Description::Model(model)) => Ok(*model),
            Ok(Description::Lora(lora)) => {
                Err(description_error(name, format!("found the LoRA {}, expected a model", lora.name)))
            }
            Err(ModelsError::Unknown { .. }) => Err(unknown(name, known)),
            Err(error) => Err(error),
        }
    }

    /// The LoRA of this name, or the one a `.toml` file of the user's describes.
    ///
    /// Errors: as [`Self::find`].
    pub fn find_lora(&self, name: &str) -> Result<LoraDescription, ModelsError> {
        let known = self.loras.iter().map(|l| l.name.clone()).collect();
        match self.find_any(name) {
            Ok(Description::Lora(lora)) => Ok(*lora),
            Ok(Description::Model(model)) => {
                Err(description_error(name, format!("found the model {}, expected a LoRA", model.name)))
            }
            Err(ModelsError::Unknown { .. }) => Err(unknown(name, known)),
            Err(error) => Err(error),
        }
    }

    /// The model or LoRA of this name, or what a `.toml` file of the user's describes.
    ///
    /// Errors: as [`Self::find`].
    pub fn find_any(&self, name: &str) -> Result<Description, ModelsError> {
        let all = self.all();
        if let Some(found) = all.iter().find(|d| d.name() == name) {
            return Ok(found.clone());
        }
        if name.ends_with(".toml") {
            let bytes = std::fs::read(name).map_err(|e| description_error(name, e))?;
            return description(name, &bytes, Some(PathBuf::from(name)));
        }
        Err(unknown(name, all.iter().map(|d| d.name().to_string()).collect()))
    }

    /// Finds a model's files: in the program, or in the places, in their order; where the transformer's is not there,
    /// another precision of it. The tokenizer is also found beside the text encoder, and last inside of it.
    ///
    /// Errors: [`ModelsError::FilesMissing`] naming all that are missing.
    pub fn resolve(&self, model: &ModelDescription, places: &Places) -> Result<ModelFiles, ModelsError> {
        let mut missing = Vec::new();
        let mut need = |entry: &FileEntry, found: Option<Source>| {
            if found.is_none() {
                missing.push(entry.clone());
            }
            // A stand-in until all missing files are known; never returned.
            found.unwrap_or_else(|| Source::File(PathBuf::new()))
        };
        let files = &model.files;
        let locate = |entry: &FileEntry| locate(&model.name, entry, places);
        let any_precision = |entry: &FileEntry| {
            locate(entry).or_else(|| places.find_other(&model.name, entry).map(Source::File))
        };
        let text_encoder = any_precision(&files.text_encoder);
        let tokenizer = locate(&files.tokenizer).or_else(|| match &text_encoder {
            Some(Source::File(path)) => tokenizer_with(path),
            _ => None,
        });
        let resolved = ModelFiles {
            description: model.clone(),
            dit: need(&files.dit, any_precision(&files.dit)),
            vae: need(&files.vae, locate(&files.vae)),
            text_encoder: need(&files.text_encoder, text_encoder),
            image_encoder: files.image_encoder.as_ref().map(|e| need(e, locate(e))),
            tokenizer: need(&files.tokenizer, tokenizer),
            latent_rgb: latent_rgb(model)?,
        };
        if missing.is_empty() {
            Ok(resolved)
        } else {
            Err(files_missing(&Description::Model(Box::new(model.clone())), &missing, places))
        }
    }

    /// Finds a LoRA's file.
    ///
    /// Errors: [`ModelsError::FilesMissing`].
    pub fn resolve_lora(&self, lora: &LoraDescription, places: &Places) -> Result<PathBuf, ModelsError> {
        match locate(&lora.name, &lora.lora, places) {
            Some(Source::File(path)) => Ok(path),
            _ => {
                let missing = std::slice::from_ref(&lora.lora);
                Err(files_missing(&Description::Lora(Box::new(lora.clone())), missing, places))
            }
        }
    }

    /// The weights of known models of one of ComfyUI's kinds (`vae`, `loras`, ...) that are in the places, the Hugging
    /// Face cache included: file name, and where it is. [`Places::list`] has those that nobody described.
    pub fn list(&self, kind: &str, places: &Places) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        let models =
            self.models.iter().flat_map(|m| m.files.entries().into_iter().map(|(_, e)| (&m.name, e)));
        let loras = self.loras.iter().map(|lora| (&lora.name, &lora.lora));
        for (owner, entry) in models.chain(loras) {
            let named = entry.folder.as_deref() == Some(kind) && is_weights(&entry.path);
            if named && let Some(Source::File(path)) = locate(owner, entry, places) {
                let name = entry.path.rsplit('/').next().unwrap_or_default();
                found.entry(name.to_owned()).or_insert(path);
            }
        }
        found
    }

    /// Where each file of a description is, in the order of [`Description::files`].
    pub fn locate_all(&self, what: &Description, places: &Places) -> Vec<Option<Source>> {
        let mut found: Vec<_> =
            what.files().iter().map(|(_, entry)| locate(what.name(), entry, places)).collect();
        if let Description::Model(_) = what {
            let keys: Vec<_> = what.files().iter().map(|(key, _)| *key).collect();
            let index = |key| keys.iter().position(|k| *k == key);
            if let (Some(text), Some(tokenizer)) = (index("text_encoder"), index("tokenizer"))
                && found[tokenizer].is_none()
                && let Some(Source::File(path)) = &found[text]
            {
                found[tokenizer] = tokenizer_with(path);
            }
        }
        found
    }

    /// The sample image that comes with the program, as PNG.
    pub fn sample_image() -> &'static [u8] {
        embedded::file("tiny/sample.png").unwrap_or_default()
    }

    /// What the embedded model can make of the sample image: the prompt and the negative prompt.
    pub fn sample_prompts() -> (&'static str, &'static str) {
        ("the red circle moves right", "static")
    }
}

/// Says that these files of a description are missing.
pub fn files_missing(what: &Description, missing: &[FileEntry], places: &Places) -> ModelsError {
    ModelsError::FilesMissing(Box::new(FilesMissing {
        kind: match what {
            Description::Model(_) => "model",
            Description::Lora(_) => "LoRA",
        },
        model: what.name().to_string(),
        pull: what.argument(),
        missing: missing.iter().map(FileEntry::label).collect(),
        total: what.files().len(),
        size: missing.iter().map(FileEntry::known_size).sum(),
        places: places.describe(),
    }))
}

fn locate(model: &str, entry: &FileEntry, places: &Places) -> Option<Source> {
    if entry.embedded {
        let bytes = embedded::file(&entry.path)?;
        return Some(Source::Embedded { label: format!("{} (embedded)", entry.path), bytes });
    }
    places.find(model, entry).map(Source::File)
}

/// The tokenizer beside a text encoder, or the one in it.
fn tokenizer_with(text_encoder: &Path) -> Option<Source> {
    tokenizer_beside(text_encoder).map(Source::File).or_else(|| tokenizer_inside(text_encoder))
}

/// ComfyUI's repackaged encoders hold the SentencePiece model as a tensor of bytes, behind the prefix if there is one;
/// llama.cpp's have the vocabulary among their metadata.
fn tokenizer_inside(text_encoder: &Path) -> Option<Source> {
    // What is wrong with a file that does not open, loading it will say.
    let weights = WeightSet::open(text_encoder).ok()?;
    let is_model = |name: &str| name == GGUF_VOCABULARY || name.rsplit('.').next() == Some("spiece_model");
    let name = weights.iter().find(|t| t.dtype_name() == "U8" && is_model(t.name()))?.name().to_string();
    Some(Source::Tensor { path: text_encoder.to_path_buf(), name })
}

/// The tokenizer in the text encoder's folder, or where the original and the diffusers repositories keep it.
fn tokenizer_beside(text_encoder: &Path) -> Option<PathBuf> {
    let folder = text_encoder.parent()?;
    let folders = [
        Some(folder.to_path_buf()),
        Some(folder.join("google/umt5-xxl")),
        folder.parent().map(|p| p.join("tokenizer")),
    ];
    let mut places = ["tokenizer.json", "spiece.model"]
        .into_iter()
        .flat_map(|name| folders.iter().flatten().map(move |f| f.join(name)));
    places.find(|p| p.is_file())
}

/// Of the `known` names, the one that was probably meant.
pub fn nearest_name<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::jaro_winkler(k, name), k))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, n)| n)
}

fn unknown(name: &str, known: Vec<String>) -> ModelsError {
    let nearest = nearest_name(name, known.iter().map(String::as_str)).map(str::to_string);
    ModelsError::Unknown { name: name.to_string(), nearest, known }
}

fn latent_rgb(model: &ModelDescription) -> Result<Option<LatentRgb>, ModelsError> {
    let Some(path) = &model.latent_rgb else { return Ok(None) };
    let bytes = match embedded::file(path) {
        Some(bytes) => bytes.to_vec(),
        None => {
            let folder = model.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
            std::fs::read(folder.join(path)).map_err(|e| description_error(path, e))?
        }
    };
    parse(path, &bytes).map(Some)
}

/// Reads a description, the user's if it has a file; one with a table `lora` describes a LoRA.
fn description(label: &str, bytes: &[u8], file: Option<PathBuf>) -> Result<Description, ModelsError> {
    let table: toml::Table = parse(label, bytes)?;
    let description = if table.contains_key("lora") {
        Description::Lora(Box::new(LoraDescription { file, ..parse(label, bytes)? }))
    } else {
        Description::Model(Box::new(ModelDescription { file, ..parse(label, bytes)? }))
    };
    for (key, entry) in description.files() {
        entry.check().map_err(|reason| description_error(label, format!("{key}: {reason}")))?;
    }
    Ok(description)
}

fn parse<T: serde::de::DeserializeOwned>(label: &str, bytes: &[u8]) -> Result<T, ModelsError> {
    let text = std::str::from_utf8(bytes).map_err(|e| description_error(label, e))?;
    toml::from_str(text).map_err(|e| description_error(label, e.message()))
}

fn description_error(label: &str, reason: impl std::fmt::Display) -> ModelsError {
    ModelsError::Description { label: label.to_string(), reason: reason.to_string() }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
