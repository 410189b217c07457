use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wan_core::{Error, Loader, Result, WeightSet};
use wan_ops::Linear;

use crate::Config;
use crate::block::{Block, Norm};
use crate::names::DIALECTS;

/// The vision tower up to its last but one block. Its matrices stay where they are stored.
///
/// Source: Wan2.1 `wan/modules/clip.py`, `VisionTransformer` with `use_31_block`. Golden: `clip`.
#[derive(Debug, Clone)]
pub struct ClipVision {
    config: Config,
    /// The patch convolution: its stride is its kernel, so it is a matrix over flattened patches.
    patch_embedding: Linear,
    cls_embedding: Tensor,
    pos_embedding: Tensor,
    pre_norm: Norm,
    blocks: Vec<Block>,
    dtype: DType,
    device: Device,
    weight_bytes: u64,
}

impl ClipVision {
    /// Builds the tower over `weights`, in any of the namings of [`DIALECTS`].
    ///
    /// - `config`: a JSON file with the keys `image_size`, `patch_size`, `dim`, `mlp_ratio`, `num_heads` and
    ///   `num_layers`; absent: the file's header, then the tensors' shapes
    /// - `dtype`: of activations: f32, bf16 or f16
    ///
    /// Errors: [`wan_core::WeightsError`] naming every missing, unexpected or misshapen tensor;
    /// [`Error::Invalid`] for a configuration or dtype that cannot be.
    pub fn open(weights: &WeightSet, config: Option<&Path>, device: &Device, dtype: DType) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
            return Err(Error::invalid("clip compute dtype", format!("{dtype:?}"), "f32, bf16 or f16"));
        }
        let (weights, _) = weights.canonical("clip vision tower", DIALECTS)?;
        let config = Config::read(config, &weights)?;
        let last = format!("visual.transformer.{}.", config.num_layers - 1);
        let used = weights.names().zip(weights.iter()).filter(|(name, _)| !name.starts_with(&last));
        let weight_bytes = used.map(|(_, stored)| stored.bytes().len() as u64).sum();
        Loader::load(weights, device, |loader| Self::load(&loader.pp("visual"), config, dtype, weight_bytes))
    }

    fn load(loader: &Loader, config: Config, dtype: DType, weight_bytes: u64) -> Result<Self> {
        let (dim, patch) = (config.dim, config.patch_size);
        let kernel = loader.stored("patch_embedding.weight", &[dim, 3, patch, patch])?;
        let transformer = loader.pp("transformer");
        let mut blocks = (0..config.num_layers)
            .map(|n| Block::load(&transformer.pp(n), &config))
            .collect::<Result<Vec<_>>>()?;
        blocks.pop(); // taken, so that it is checked, and never run
        Ok(Self {
            patch_embedding: Linear::new(kernel.reshape(&[dim, 3 * patch * patch])?, None),
            cls_embedding: loader.tensor("cls_embedding", &[1, dim])?,
            pos_embedding: loader.tensor("pos_embedding", &[config.tokens(), dim])?,
            pre_norm: Norm::load(&loader.pp("pre_norm"), dim)?,
            blocks,
            config,
            dtype,
            device: loader.device().clone(),
            weight_bytes,
        })
    }

    /// Hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of the weights in use, as stored: without the last block.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Encodes one image.
    ///
    /// - `pixel_values`: `[1, 3, S, S]` float, RGB, normalised (see [`crate::preprocess_rgb8`]); S is `image_size`
    /// - returns `[1, 1 + (S / patch_size)², dim]` f32: the residual stream after the last but one block, the
    ///   class token first, then patches row by row; neither normalised nor projected
    ///
    /// Errors: [`Error::Shape`].
    pub fn encode(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let side = self.config.image_size;
        if pixel_values.dims() != [1, 3, side, side] {
            return Err(Error::shape("pixel_values", pixel_values.dims(), format!("[1, 3, {side}, {side}]")));
        }
        let pixels = pixel_values.to_device(&self.device)?.to_dtype(self.dtype)?;
        let patches = self.patch_embedding.forward(&self.patchify(&pixels)?)?; // [grid², dim]
        let x = Tensor::cat(&[&self.cls_embedding.to_dtype(self.dtype)?, &patches], 0)?;
        let x = (x + self.pos_embedding.to_dtype(self.dtype)?)?; // [1 + grid², dim]
        let mut x = self.pre_norm.forward(&x)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x.to_dtype(DType::F32)?.unsqueeze(0)?)
    }

    /// `[1, 3, S, S]` to `[grid², 3 * patch²]`: one row for every patch, in the order of the kernel's axes.
    fn patchify(&self, pixels: &Tensor) -> Result<Tensor> {
        let (grid, patch) = (self.config.grid(), self.config.patch_size);
        let whole = pixels.narrow(2, 0, grid * patch)?.narrow(3, 0, grid * patch)?.contiguous()?;
        let patches = whole.reshape((3, grid, patch, grid, patch))?.permute((1, 3, 0, 2, 4))?;
        Ok(patches.contiguous()?.reshape((grid * grid, 3 * patch * patch))?)
    }
}
