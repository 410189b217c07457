use std::path::Path;

use serde::{Deserialize, Serialize};
use wan_core::{Error, Result, WeightSet, WeightsError};

use crate::names::canonical;

/// What a DiT generates from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    /// Image-to-video: a condition (mask and image latent) and image tokens beside the text.
    I2v,
    /// Text-to-video.
    T2v,
}

impl std::fmt::Display for ModelType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::I2v => "i2v",
            Self::T2v => "t2v",
        })
    }
}

/// Hyper-parameters of a DiT.
///
/// Source: Wan2.1 `wan/configs/wan_i2v_14B.py`, `wan_t2v_14B.py`, `wan_t2v_1_3B.py`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DitConfig {
    /// What it generates from.
    pub model_type: ModelType,
    /// Channels of a token (14B: 5120).
    pub dim: usize,
    /// Channels inside the feed-forward (14B: 13824).
    pub ffn_dim: usize,
    /// Length of the sinusoidal time embedding (256); even.
    pub freq_dim: usize,
    /// Channels in: latent and condition (i2v 36, t2v 16).
    pub in_dim: usize,
    /// Channels out: those of the latent (16).
    pub out_dim: usize,
    /// Attention heads (14B: 40); `dim / num_heads` is even.
    pub num_heads: usize,
    /// Blocks (14B: 40).
    pub num_layers: usize,
    /// Channels of a text embedding (4096).
    pub text_dim: usize,
    /// Text rows attended to, padding included (512).
    pub text_len: usize,
    /// Channels of an image embedding (1280); absent for t2v.
    pub image_dim: Option<usize>,
    /// Positions of image tokens (514, those of two images), in models that make the video between two images; absent
    /// in others. Read off the weights, whatever the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_positions: Option<usize>,
    /// Floor of the norms' variance (1e-6); the image embedding has its own.
    pub eps: f32,
}

impl DitConfig {
    /// The published image-to-video models of 14B parameters, 480P and 720P alike.
    pub const I2V_14B: Self = Self {
        model_type: ModelType::I2v,
        dim: 5120,
        ffn_dim: 13824,
        freq_dim: 256,
        in_dim: 36,
        out_dim: 16,
        num_heads: 40,
        num_layers: 40,
        text_dim: 4096,
        text_len: 512,
        image_dim: Some(1280),
        image_positions: None,
        eps: 1e-6,
    };
}

/// The documented keys; what is absent comes from the tensors' shapes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct RawConfig {
    model_type: Option<ModelType>,
    dim: Option<usize>,
    ffn_dim: Option<usize>,
    freq_dim: Option<usize>,
    in_dim: Option<usize>,
    out_dim: Option<usize>,
    num_heads: Option<usize>,
    num_layers: Option<usize>,
    text_dim: Option<usize>,
    text_len: Option<usize>,
    image_dim: Option<usize>,
    eps: Option<f32>,
}

/// Head dimension of every published model, for files that do not tell.
const HEAD_DIM: usize = 128;
/// Rows of text of every published model.
const TEXT_LEN: usize = 512;
/// eps of every published model.
const EPS: f32 = 1e-6;
/// Values of a patch of 1x2x2 per channel.
pub(crate) const PATCH_VALUES: usize = 4;
/// No size of a model is above this; a larger one is a damaged configuration.
const LARGEST: usize = 1 << 20;
/// Nor has any so many blocks: the tensors of each that is missing would be named.
pub(crate) const MOST_BLOCKS: usize = 1024;

impl DitConfig {
    /// Reads the configuration of `weights` (any supported naming) from `file`, else from the header's `config`
    /// entry; what is absent there comes from the tensors' shapes. Reads no tensor data.
    ///
    /// Errors: `WeightsError::UnknownNaming`; [`Error::Invalid`] naming the key and what it contradicts;
    /// `WeightsError::Tensors` if the tensor that would tell is missing.
    pub fn read(weights: &WeightSet, file: Option<&Path>) -> Result<Self> {
        Self::from_canonical(&canonical(weights)?, file)
    }

    /// [`DitConfig::read`] of a set under original names.
    pub(crate) fn from_canonical(weights: &WeightSet, file: Option<&Path>) -> Result<Self> {
        let raw: RawConfig = wan_core::config::read(file, weights)?;
        let shapes = Shapes(weights);
        let out_dim = match raw.out_dim {
            Some(out_dim) => out_dim,
            None => shapes.axis("head.head.weight", 0)? / PATCH_VALUES,
        };
        let stored_in_dim = shapes.axis("patch_embedding.weight", 1)?;
        let looks_i2v = weights.names().any(|n| n.starts_with("img_emb.")) || stored_in_dim > out_dim;
        let model_type = raw.model_type.unwrap_or(if looks_i2v { ModelType::I2v } else { ModelType::T2v });
        let dim = shapes.or(raw.dim, "patch_embedding.weight", 0)?;
        let config = Self {
            model_type,
            dim,
            ffn_dim: shapes.or(raw.ffn_dim, "blocks.0.ffn.0.weight", 0)?,
            freq_dim: shapes.or(raw.freq_dim, "time_embedding.0.weight", 1)?,
            in_dim: raw.in_dim.unwrap_or(stored_in_dim),
            out_dim,
            num_heads: match raw.num_heads {
                Some(heads) => heads,
                None => default_heads(dim)?,
            },
            num_layers: raw.num_layers.unwrap_or_else(|| weights.count("blocks")),
            text_dim: shapes.or(raw.text_dim, "text_embedding.0.weight", 1)?,
            text_len: raw.text_len.unwrap_or(TEXT_LEN),
            image_dim: match model_type {
                ModelType::I2v => Some(shapes.or(raw.image_dim, "img_emb.proj.1.weight", 1)?),
                ModelType::T2v => None,
            },
            image_positions: match model_type {
                ModelType::I2v => weights.shape("img_emb.emb_pos").map(image_positions),
                ModelType::T2v => None,
            },
            eps: raw.eps.unwrap_or(EPS),
        };
        config.check()?;
        Ok(config)
    }

    /// Whether the model was made for the video between two images, of whose tokens it knows the positions.
    pub fn takes_end_image(&self) -> bool {
        self.image_positions.is_some()
    }

    /// Channels of one head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.num_heads
    }

    /// Channels of the condition beside the latent: 20 for i2v (4 mask, 16 image latent), 0 for t2v.
    pub fn condition_dim(&self) -> usize {
        self.in_dim - self.out_dim
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("dim", self.dim),
            ("ffn_dim", self.ffn_dim),
            ("freq_dim", self.freq_dim),
            ("in_dim", self.in_dim),
            ("out_dim", self.out_dim),
            ("num_heads", self.num_heads),
            ("num_layers", self.num_layers),
            ("text_dim", self.text_dim),
            ("text_len", self.text_len),
            ("image_dim", self.image_dim.unwrap_or(1)),
            ("image_positions", self.image_positions.unwrap_or(1)),
        ];
        if let Some((key, value)) = sizes.into_iter().find(|(_, v)| !(1..=LARGEST).contains(v)) {
            return Err(wrong(key, value, format!("1 to {LARGEST}")));
        }
        if self.num_layers > MOST_BLOCKS {
            return Err(wrong("num_layers", self.num_layers, format!("1 to {MOST_BLOCKS}")));
        }
        if !self.dim.is_multiple_of(self.num_heads) || !self.head_dim().is_multiple_of(2) {
            let expected =
                format!("a number of heads that splits dim {} into even head dimensions", self.dim);
            return Err(wrong("num_heads", self.num_heads, expected));
        }
        if !self.freq_dim.is_multiple_of(2) {
            return Err(wrong("freq_dim", self.freq_dim, "an even number".into()));
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return Err(wrong("eps", self.eps, "a positive number".into()));
        }
        match self.model_type {
            ModelType::I2v if self.in_dim <= self.out_dim => {
                Err(wrong("in_dim", self.in_dim, format!("above out_dim {} for an i2v model", self.out_dim)))
            }
            ModelType::T2v if self.in_dim != self.out_dim => {
                Err(wrong("in_dim", self.in_dim, format!("out_dim {} for a t2v model", self.out_dim)))
            }
            _ => Ok(()),
        }
    }
}

/// Rows of the table of positions, `[1, rows, image_dim]`; 0 for another shape, which no model has.
fn image_positions(shape: &[usize]) -> usize {
    match *shape {
        [1, rows, _] => rows,
        _ => 0,
    }
}

fn default_heads(dim: usize) -> Result<usize> {
    if dim == 0 || !dim.is_multiple_of(HEAD_DIM) {
        let expected = format!("a value, since dim {dim} is not a multiple of the usual head_dim {HEAD_DIM}");
        return Err(wrong("num_heads", "none", expected));
    }
    Ok(dim / HEAD_DIM)
}

fn wrong(key: &str, found: impl std::fmt::Display, expected: String) -> Error {
    Error::invalid(format!("dit config {key}"), found, expected)
}

/// Sizes read off the tensors.
struct Shapes<'a>(&'a WeightSet);

impl Shapes<'_> {
    fn or(&self, value: Option<usize>, name: &str, axis: usize) -> Result<usize> {
        value.map_or_else(|| self.axis(name, axis), Ok)
    }

    fn axis(&self, name: &str, axis: usize) -> Result<usize> {
        let Some(shape) = self.0.shape(name) else {
            return Err(WeightsError::Tensors {
                label: self.0.label().to_string(),
                missing: vec![name.to_string()],
                unexpected: Vec::new(),
                misshapen: Vec::new(),
            }
            .into());
        };
        shape.get(axis).copied().ok_or_else(|| {
            Error::shape(format!("tensor {name}"), shape, format!("at least {} axes", axis + 1))
        })
    }
}
