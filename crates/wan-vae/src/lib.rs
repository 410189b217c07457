//! Wan VAE: causal 3-D encoder and decoder, streamed by latent frame, whole or tiled.
//!
//! Video `[1, 3, T, H, W]` in [-1, 1] and latents `[1, z, F, h, w]` in normalised units, T = 4(F-1)+1, H = 8h,
//! W = 8w. Inside, tensors are `[T, H, W, C]`, channels last.
//!
//! Every convolution over time sees the present and the past only, and carries the two frames it must remember in
//! an explicit cache; so a video can be processed chunk by chunk, a latent frame each (or, where they are small, a few), with
//! the same result as at once and in memory that does not depend on its length.
//!
//! Source: Wan2.1 `wan/modules/vae.py`.

mod cache;
mod causal_conv;
mod config;
mod decoder;
mod encoder;
mod layers;
mod memory;
mod mid_attention;
mod names;
mod res_block;
mod resample;
#[cfg(test)]
mod tests;
mod tile_outer;
mod tiling;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wan_core::{Loader, Result, WeightSet};

pub use config::{LATENT_MEAN, LATENT_STD, VaeConfig};
pub use decoder::{DecodeStream, VaeDecoder};
pub use encoder::{EncodeStream, VaeEncoder};
pub use memory::MemoryEstimate;
pub use names::{DIALECTS, canonical};
pub use tiling::Tiling;

/// Both halves of a Wan VAE. They share nothing: take out the one that is needed and drop the other.
#[derive(Debug)]
pub struct Vae {
    /// Hyper-parameters.
    pub config: VaeConfig,
    /// Video to latents.
    pub encoder: VaeEncoder,
    /// Latents to video.
    pub decoder: VaeDecoder,
}

impl Vae {
    /// Opens the weights, in any of [`DIALECTS`], for a device; activations are in `dtype` (f32, bf16 or f16).
    ///
    /// The configuration comes from `config`, else from the weights' header, else from their shapes. The large
    /// weights stay where they are stored until they are used.
    ///
    /// Errors: [`Error::Weights`](wan_core::Error::Weights) for an unknown naming, and for all missing,
    /// unexpected and misshapen tensors together; [`Error::Invalid`](wan_core::Error::Invalid) for the
    /// configuration.
    pub fn open(weights: &WeightSet, config: Option<&Path>, device: &Device, dtype: DType) -> Result<Self> {
        let weights = canonical(weights)?;
        let config = VaeConfig::read(config, &weights)?;
        Loader::load(weights, device, |loader| {
            Ok(Self {
                encoder: VaeEncoder::load(loader, &config, dtype)?,
                decoder: VaeDecoder::load(loader, &config, dtype)?,
                config,
            })
        })
    }

    /// [`VaeEncoder::encode`] of the whole picture.
    pub fn encode(&self, video: &Tensor) -> Result<Tensor> {
        self.encoder.encode(video, None)
    }

    /// [`VaeEncoder::encode_chunks`] of the whole picture.
    pub fn encode_chunks(
        &self,
        latent_frames: usize,
        chunk: impl FnMut(usize) -> Result<Tensor>,
        done: impl FnMut(usize) -> Result<()>,
    ) -> Result<Tensor> {
        self.encoder.encode_chunks(latent_frames, None, chunk, done)
    }

    /// [`VaeDecoder::decode`].
    pub fn decode(&self, latents: &Tensor, tiling: Option<&Tiling>) -> Result<Tensor> {
        self.decoder.decode(latents, tiling)
    }

    /// [`VaeDecoder::decode_stream`].
    pub fn decode_stream(
        &self,
        latents: &Tensor,
        tiling: Option<&Tiling>,
        together: usize,
        sink: &mut dyn FnMut(Tensor) -> Result<()>,
    ) -> Result<()> {
        self.decoder.decode_stream(latents, tiling, together, sink)
    }
}
