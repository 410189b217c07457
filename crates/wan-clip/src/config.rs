use std::path::Path;

use candle_core::DType;
use serde::{Deserialize, Serialize};
use wan_core::{Error, Result, WeightSet, WeightsError};

/// Hyper-parameters. ViT-H/14: images of 224, patches of 14, dim 1280, 16 heads of 80, mlp 5120, 32 blocks
/// (Wan2.1 `wan/modules/clip.py`, `clip_xlm_roberta_vit_h_14`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Side of the square input image, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels. Rows and columns of the image that fill no whole patch are not looked at.
    pub patch_size: usize,
    /// Channels of the residual stream.
    pub dim: usize,
    /// Channels between the two matrices of a block's MLP: `dim` times `mlp_ratio`, rounded down.
    pub mlp_dim: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Blocks in the file, the last of which is not run.
    pub num_layers: usize,
}

/// Head dimension where only the shapes tell: ViT-H's.
const HEAD_DIM: usize = 80;

/// Largest size taken seriously: a slip in a configuration is an error, not an endless load.
const MAX_SIZE: usize = 1 << 15;

/// The keys as a file may state them; all optional.
#[derive(Debug, Default, Deserialize, Serialize)]
struct RawConfig {
    image_size: Option<usize>,
    patch_size: Option<usize>,
    dim: Option<usize>,
    mlp_ratio: Option<f64>,
    num_heads: Option<usize>,
    num_layers: Option<usize>,
}

impl Config {
    /// Reads `file`, else the header of `weights` (canonical names); what neither states comes from the shapes,
    /// with heads of 80.
    ///
    /// Errors: [`Error::Io`] and [`Error::Invalid`] from the file, [`WeightsError::Tensors`] if a tensor that
    /// tells a size is missing.
    pub fn read(file: Option<&Path>, weights: &WeightSet) -> Result<Self> {
        let raw: RawConfig = wan_core::config::read(file, weights)?;
        let patch = |axis| size(weights, "visual.patch_embedding.weight", axis);
        let dim = raw.dim.map_or_else(|| patch(0), Ok)?;
        let patch_size = raw.patch_size.map_or_else(|| patch(2), Ok)?;
        let config = Self {
            image_size: match raw.image_size {
                Some(side) => side,
                None => grid(weights)? * patch_size,
            },
            patch_size,
            dim,
            mlp_dim: match raw.mlp_ratio {
                Some(ratio) => (dim as f64 * ratio) as usize,
                None => size(weights, "visual.transformer.0.mlp.0.weight", 0)?,
            },
            num_heads: match raw.num_heads {
                None if !dim.is_multiple_of(HEAD_DIM) => {
                    let expected = "a multiple of 80, or `num_heads` stated by a config";
                    return Err(Error::invalid("clip config `dim`", dim, expected));
                }
                stated => stated.unwrap_or(dim / HEAD_DIM),
            },
            num_layers: raw.num_layers.unwrap_or_else(|| weights.count("visual.transformer")),
        };
        config.check()
    }

    fn check(self) -> Result<Self> {
        let sizes = [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("dim", self.dim),
            ("mlp_ratio` times `dim", self.mlp_dim),
            ("num_heads", self.num_heads),
            ("num_layers", self.num_layers),
        ];
        if let Some((key, found)) = sizes.iter().find(|(_, value)| !(1..=MAX_SIZE).contains(value)) {
            return Err(Error::invalid(format!("clip config `{key}`"), found, format!("1 to {MAX_SIZE}")));
        }
        if !self.dim.is_multiple_of(self.num_heads) {
            let expected = format!("a multiple of num_heads {}", self.num_heads);
            return Err(Error::invalid("clip config `dim`", self.dim, expected));
        }
        if self.image_size < self.patch_size {
            let expected = format!("at least patch_size {}", self.patch_size);
            return Err(Error::invalid("clip config `image_size`", self.image_size, expected));
        }
        Ok(self)
    }

    /// Patches along one side of the image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Rows of the output: the class embedding and one for every patch.
    pub fn tokens(&self) -> usize {
        1 + self.grid() * self.grid()
    }

    /// Bytes of activations at their largest while an image is encoded in `dtype`: the residual stream and one
    /// block's attention or MLP. Weights are not counted.
    pub fn activation_bytes(&self, dtype: DType) -> u64 {
        let rows = self.tokens() * dtype.size_in_bytes();
        let attention = 4 * self.dim;
        (rows * (2 * self.dim + attention.max(2 * self.mlp_dim))) as u64
    }
}

/// Patches along one side, from the position table: `[1, 1 + grid², dim]`, or without the first axis.
fn grid(weights: &WeightSet) -> Result<usize> {
    let name = "visual.pos_embedding";
    let shape = weights.shape(name).ok_or_else(|| missing(weights, name))?;
    let tokens = shape.iter().rev().nth(1).copied().unwrap_or(0);
    let grid = tokens.saturating_sub(1).isqrt();
    if grid == 0 || grid * grid + 1 != tokens {
        return Err(Error::shape(format!("tensor {name}"), shape, "[1, 1 + grid², dim] with a whole grid"));
    }
    Ok(grid)
}

/// Length of one axis of a tensor that the model cannot do without.
fn size(weights: &WeightSet, name: &str, axis: usize) -> Result<usize> {
    let shape = weights.shape(name).ok_or_else(|| missing(weights, name))?;
    shape
        .get(axis)
        .copied()
        .ok_or_else(|| Error::shape(format!("tensor {name}"), shape, format!("at least {} axes", axis + 1)))
}

fn missing(weights: &WeightSet, name: &str) -> Error {
    WeightsError::Tensors {
        label: weights.label().to_string(),
        missing: vec![name.to_string()],
        unexpected: vec![],
        misshapen: vec![],
    }
    .into()
}
