use std::path::PathBuf;

use wan_core::weights::Bytes;
use wan_core::{Result, WeightSet};

use crate::description::{LatentRgb, ModelDescription};

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
    /// A tensor of bytes inside a checkpoint, such as the tokenizer in ComfyUI's text encoders.
    Tensor {
        /// The checkpoint, as for [`WeightSet::open`].
        path: PathBuf,
        /// The tensor.
        name: String,
    },
}

impl Source {
    /// Opens the tensors; reads headers only.
    ///
    /// Errors: as [`WeightSet::open`].
    pub fn weights(&self) -> Result<WeightSet> {
        match self {
            Self::Embedded { label, bytes } => WeightSet::from_bytes(label.clone(), Bytes::new(*bytes)),
            Self::File(path) | Self::Tensor { path, .. } => WeightSet::open(path),
        }
    }

    /// The whole contents; for small files.
    ///
    /// Errors: [`wan_core::Error::Io`]; [`wan_core::Error::Invalid`] for a tensor that is gone.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Embedded { bytes, .. } => Ok(bytes.to_vec()),
            Self::File(path) => std::fs::read(path).map_err(|e| wan_core::Error::io(path, e)),
            Self::Tensor { path, name } => match WeightSet::open(path)?.get(name) {
                Some(tensor) => Ok(tensor.bytes().to_vec()),
                None => Err(wan_core::Error::invalid(
                    path.display().to_string(),
                    "other tensors than before",
                    format!("tensor {name}"),
                )),
            },
        }
    }

    /// Name without folders.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded { label, .. } => label.clone(),
            Self::File(path) | Self::Tensor { path, .. } => {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    /// Length in bytes; 0 if the file is gone.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Embedded { bytes, .. } => bytes.len() as u64,
            Self::File(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
            Self::Tensor { path, name } => WeightSet::open(path)
                .ok()
                .and_then(|set| set.get(name).map(|t| t.bytes().len() as u64))
                .unwrap_or(0),
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
