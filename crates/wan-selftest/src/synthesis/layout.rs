//! Names, dtypes and shapes of checkpoints.

use std::collections::HashMap;
use std::io::Read;

use candle_core::DType;
use flate2::read::GzDecoder;
use serde_json::Value;
use wan_core::{Error, Result, WeightSet};

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Original Wan2.1 name.
    pub name: String,
    /// Stored dtype.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size_in_bytes()
    }

    /// Rows and their length: a vector is one row.
    pub fn rows(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [rows, rest @ ..] if !rest.is_empty() => (*rows, rest.iter().product()),
            _ => (1, self.elements()),
        }
    }
}

/// The tensors of one component, by name, and its header's metadata.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Sorted by name.
    pub tensors: Vec<TensorSpec>,
    /// Metadata of the header.
    pub metadata: HashMap<String, String>,
}

macro_rules! published {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/layouts/", $name, ".json.gz"))
    };
}

/// Headers of published checkpoints: those that the model `wan2.1-i2v-14b-480p-fp8` consists of.
static DIT: &[u8] = published!("kijai_Wan2_1-I2V-14B-480P_fp8_e4m3fn");
static TEXT_ENCODER: &[u8] = published!("kijai_umt5-xxl-enc-bf16");
static IMAGE_ENCODER: &[u8] = published!("kijai_open-clip-xlm-roberta-large-vit-huge-14_visual_fp16");
static VAE: &[u8] = published!("kijai_Wan2_1_VAE_bf16");

impl Layout {
    /// The 14B image-to-video DiT with FP8 matrices.
    ///
    /// Errors: none but for a damaged program; likewise below.
    pub fn dit() -> Result<Self> {
        Self::read(DIT)
    }

    /// UMT5-XXL in bf16.
    pub fn text_encoder() -> Result<Self> {
        Self::read(TEXT_ENCODER)
    }

    /// CLIP ViT-H/14 in f16.
    pub fn image_encoder() -> Result<Self> {
        Self::read(IMAGE_ENCODER)
    }

    /// The VAE in bf16.
    pub fn vae() -> Result<Self> {
        Self::read(VAE)
    }

    /// The layout of opened weights.
    pub fn of(weights: &WeightSet) -> Self {
        let spec = |t: &wan_core::Stored| TensorSpec {
            name: t.name().to_string(),
            dtype: t.dtype(),
            shape: t.shape().to_vec(),
        };
        Self { tensors: weights.iter().map(spec).collect(), metadata: weights.metadata().clone() }
    }

    /// The first `count` blocks only, of a component that has them.
    #[must_use]
    pub fn with_blocks(mut self, count: usize) -> Self {
        self.tensors.retain(|t| block_of(&t.name).is_none_or(|block| block < count));
        self
    }

    fn read(gzip: &[u8]) -> Result<Self> {
        let damaged = |reason: String| Error::invalid("embedded layout", reason, "names, dtypes and shapes");
        let mut text = String::new();
        GzDecoder::new(gzip).read_to_string(&mut text).map_err(|e| damaged(e.to_string()))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        let tensors = json["tensors"].as_object().ok_or_else(|| damaged("no tensors".into()))?;
        let mut tensors: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, entry)| {
                let (dtype, shape): (String, Vec<usize>) =
                    serde_json::from_value(entry.clone()).map_err(|e| damaged(format!("{name}: {e}")))?;
                Ok(TensorSpec { name: name.clone(), dtype: dtype_of(&dtype, name)?, shape })
            })
            .collect::<Result<_>>()?;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { tensors, metadata: HashMap::new() })
    }
}

fn dtype_of(name: &str, tensor: &str) -> Result<DType> {
    Ok(match name {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F8_E4M3" => DType::F8E4M3,
        other => {
            let what = format!("dtype of {tensor}");
            return Err(Error::invalid(what, other, "F32, F16, BF16 or F8_E4M3"));
        }
    })
}

/// The block that a tensor belongs to.
fn block_of(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("blocks.").or_else(|| name.strip_prefix("visual.transformer."))?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_layouts_are_whole() {
        let bytes = |l: &Layout| l.tensors.iter().map(TensorSpec::bytes).sum::<usize>();
        let dit = Layout::dit().unwrap();
        assert!((16_990_000_000..16_994_000_000).contains(&bytes(&dit)), "{}", bytes(&dit));
        let one = dit.clone().with_blocks(1);
        assert_eq!(bytes(&dit) - bytes(&one), 39 * (bytes(&one) - bytes(&dit.with_blocks(0))));
        assert!((11_360_000_000..11_362_000_000).contains(&bytes(&Layout::text_encoder().unwrap())));
        assert_eq!(Layout::image_encoder().unwrap().with_blocks(2).tensors.len(), 33);
        assert!((253_000_000..254_000_000).contains(&bytes(&Layout::vae().unwrap())));
    }
}
