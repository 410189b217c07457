use candle_core::DType;
use wan_core::{Result, Stored, WeightSet};
use wan_dit::{DitConfig, DitWeightSizes};
use wan_vae::VaeConfig;

/// Sizes of a model's components, read off the headers of their files.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSizes {
    /// Dtype of activations where the CPU computes.
    pub dtype: DType,
    /// Text encoder.
    pub text_encoder: TextEncoderSizes,
    /// Image encoder; image-to-video only.
    pub image_encoder: Option<ImageEncoderSizes>,
    /// VAE.
    pub vae: VaeSizes,
    /// Diffusion transformer.
    pub dit: DitSizes,
    /// Bytes of the LoRA files' tensors.
    pub loras: u64,
}

/// A UMT5 encoder's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextEncoderSizes {
    /// Hyper-parameters.
    pub config: wan_umt5::Config,
    /// All tensors as stored.
    pub stored: u64,
    /// Everything but the token table, of which only the prompt's rows leave the host, on a GPU.
    pub on_device: u64,
    /// The largest layer on a GPU.
    pub layer: u64,
    /// The tokenizer's file.
    pub tokenizer: u64,
}

impl TextEncoderSizes {
    /// Reads `weights`, in any naming; `tokenizer` is the length of the tokenizer's file.
    ///
    /// Errors: an unknown naming, or a configuration that makes no sense.
    pub fn read(weights: &WeightSet, tokenizer: u64) -> Result<Self> {
        let (weights, _) = weights.canonical("umt5 encoder", wan_umt5::names::DIALECTS)?;
        let config = wan_umt5::Config::read(None, &weights)?;
        let mut layers = vec![0; config.num_layers];
        let mut on_device = 0;
        for (name, tensor) in weights.names().zip(weights.iter()) {
            if name == "token_embedding.weight" {
                continue;
            }
            let bytes = tensor.bytes().len() as u64;
            on_device += bytes;
            let number = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse().ok());
            if let Some(layer) = number.and_then(|n: usize| layers.get_mut(n)) {
                *layer += bytes;
            }
        }
        let layer = layers.into_iter().max().unwrap_or(0);
        Ok(Self { config, stored: stored_bytes(&weights), on_device, layer, tokenizer })
    }
}

/// A CLIP vision tower's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEncoderSizes {
    /// Hyper-parameters.
    pub config: wan_clip::Config,
    /// All tensors as stored, which is how they lie on a GPU.
    pub stored: u64,
}

impl ImageEncoderSizes {
    /// Reads `weights`, in any naming.
    ///
    /// Errors: an unknown naming, or a configuration that makes no sense.
    pub fn read(weights: &WeightSet) -> Result<Self> {
        let (weights, _) = weights.canonical("clip vision tower", wan_clip::names::DIALECTS)?;
        let config = wan_clip::Config::read(None, &weights)?;
        Ok(Self { config, stored: stored_bytes(&weights) })
    }
}

/// A VAE's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeSizes {
    /// Hyper-parameters.
    pub config: VaeConfig,
    /// All tensors as stored.
    pub stored: u64,
    /// The decoder in f32, as its convolutions keep their weights on the CPU.
    pub decoder_widened: u64,
    /// The encoder in f32.
    pub encoder_widened: u64,
    /// All tensors on a GPU, where convolutions keep their weights in bf16.
    pub on_device: u64,
}

impl VaeSizes {
    /// Reads `weights`, in any naming.
    ///
    /// Errors: an unknown naming, or a configuration that makes no sense.
    pub fn read(weights: &WeightSet) -> Result<Self> {
        let weights = wan_vae::canonical(weights)?;
        let config = VaeConfig::read(None, &weights)?;
        let widened = |decoder: bool| {
            let of_half =
                |name: &str| (name.starts_with("decoder.") || name.starts_with("conv2.")) == decoder;
            let tensors = weights.names().zip(weights.iter()).filter(|(name, _)| of_half(name));
            tensors.map(|(_, t)| (t.elements() * DType::F32.size_in_bytes()) as u64).sum()
        };
        Ok(Self {
            stored: stored_bytes(&weights),
            decoder_widened: widened(true),
            encoder_widened: widened(false),
            on_device: weights.iter().map(on_device).sum(),
            config,
        })
    }
}

/// Bytes of a tensor of the VAE on a GPU: kernels of convolutions have axes of their own, matrices and vectors do not.
fn on_device(tensor: &Stored) -> u64 {
    match tensor.shape().len() {
        0..=2 => tensor.bytes().len() as u64,
        _ => (tensor.elements() * DType::BF16.size_in_bytes()) as u64,
    }
}

/// A DiT's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct DitSizes {
    /// Hyper-parameters.
    pub config: DitConfig,
    /// Weights, block by block.
    pub weights: DitWeightSizes,
}

impl DitSizes {
    /// Reads `weights`, in any naming.
    ///
    /// Errors: an unknown naming, or a configuration that makes no sense.
    pub fn read(weights: &WeightSet) -> Result<Self> {
        Ok(Self { config: DitConfig::read(weights, None)?, weights: DitWeightSizes::read(weights)? })
    }
}

/// Bytes of all tensors as stored.
pub(crate) fn stored_bytes(weights: &WeightSet) -> u64 {
    weights.iter().map(|t: &Stored| t.bytes().len() as u64).sum()
}
