use std::path::Path;

use candle_core::DType;
use serde::{Deserialize, Serialize};
use wan_core::{Error, Result, WeightSet, WeightsError};

/// Hyper-parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Channels of the residual stream.
    pub dim: usize,
    /// Channels of queries, keys and values, all heads together.
    pub dim_attn: usize,
    /// Channels between the feed-forward's matrices.
    pub dim_ffn: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Rows of every block's relative-position table, both signs together.
    pub num_buckets: usize,
}

impl Config {
    /// UMT5-XXL, the encoder of every Wan2.1 model (Wan2.1 `wan/modules/t5.py`, `umt5_xxl`).
    pub const XXL: Self = Self {
        vocab_size: 256_384,
        dim: 4096,
        dim_attn: 4096,
        dim_ffn: 10240,
        num_heads: 64,
        num_layers: 24,
        num_buckets: 32,
    };
}

/// Largest size taken seriously: a slip in a configuration is an error, not an endless load.
const MAX_SIZE: usize = 1 << 20;
/// Most layers: the tensors of each that is missing would be named.
const MAX_LAYERS: usize = 1024;

/// The keys as a file may state them; all optional.
#[derive(Debug, Default, Deserialize, Serialize)]
struct RawConfig {
    vocab_size: Option<usize>,
    dim: Option<usize>,
    dim_attn: Option<usize>,
    dim_ffn: Option<usize>,
    num_heads: Option<usize>,
    num_layers: Option<usize>,
    num_buckets: Option<usize>,
}

impl Config {
    /// Reads `file`, else the header of `weights` (canonical names); what neither states comes from the shapes,
    /// the number of heads from the relative-position table.
    ///
    /// Errors: [`Error::Io`] and [`Error::Invalid`] from the file, [`WeightsError::Tensors`] if a tensor that
    /// tells a size is missing.
    pub fn read(file: Option<&Path>, weights: &WeightSet) -> Result<Self> {
        let raw: RawConfig = wan_core::config::read(file, weights)?;
        let or_size = |stated: Option<usize>, name: &str, axis: usize| match stated {
            Some(value) => Ok(value),
            None => size(weights, name, axis),
        };
        let config = Self {
            vocab_size: or_size(raw.vocab_size, "token_embedding.weight", 0)?,
            dim: or_size(raw.dim, "token_embedding.weight", 1)?,
            dim_attn: or_size(raw.dim_attn, "blocks.0.attn.q.weight", 0)?,
            dim_ffn: or_size(raw.dim_ffn, "blocks.0.ffn.fc1.weight", 0)?,
            num_heads: or_size(raw.num_heads, "blocks.0.pos_embedding.embedding.weight", 1)?,
            num_layers: raw.num_layers.unwrap_or_else(|| weights.count("blocks")),
            num_buckets: or_size(raw.num_buckets, "blocks.0.pos_embedding.embedding.weight", 0)?,
        };
        config.check()
    }

    fn check(self) -> Result<Self> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("dim", self.dim),
            ("dim_attn", self.dim_attn),
            ("dim_ffn", self.dim_ffn),
            ("num_heads", self.num_heads),
            ("num_layers", self.num_layers),
        ];
        if let Some((key, found)) = sizes.iter().find(|(_, value)| !(1..=MAX_SIZE).contains(value)) {
            return Err(Error::invalid(format!("umt5 config `{key}`"), found, format!("1 to {MAX_SIZE}")));
        }
        if self.num_layers > MAX_LAYERS {
            let expected = format!("1 to {MAX_LAYERS}");
            return Err(Error::invalid("umt5 config `num_layers`", self.num_layers, expected));
        }
        if !self.dim_attn.is_multiple_of(self.num_heads) {
            let expected = format!("a multiple of num_heads {}", self.num_heads);
            return Err(Error::invalid("umt5 config `dim_attn`", self.dim_attn, expected));
        }
        if !(4..512).contains(&self.num_buckets) {
            return Err(Error::invalid("umt5 config `num_buckets`", self.num_buckets, "4 to 511"));
        }
        Ok(self)
    }

    /// Channels of one head.
    pub fn head_dim(&self) -> usize {
        self.dim_attn / self.num_heads
    }

    /// Bytes of activations at their largest while `prompts` prompts of `tokens` ids are encoded in `dtype`: the residual
    /// streams and either one block's attention with its f32 bias or one block's feed-forward, of one prompt at a time.
    /// Weights are not counted.
    pub fn activation_bytes(&self, prompts: usize, tokens: usize, dtype: DType) -> u64 {
        let value = dtype.size_in_bytes();
        let stream = tokens * self.dim * value;
        let pairs = tokens * tokens * 4; // the bucket of every pair, u32
        let waiting = prompts.saturating_sub(1) * (stream + pairs);
        let bias = self.num_heads * tokens * tokens * 4 + pairs;
        let attention = bias + 4 * tokens * self.dim_attn * value;
        let ffn = 3 * tokens * self.dim_ffn * value;
        (waiting + 2 * stream + attention.max(ffn)) as u64
    }
}

/// Length of one axis of a tensor that the model cannot do without.
fn size(weights: &WeightSet, name: &str, axis: usize) -> Result<usize> {
    match weights.shape(name) {
        Some(shape) if axis < shape.len() => Ok(shape[axis]),
        Some(shape) => Err(Error::shape(format!("tensor {name}"), shape, "two axes")),
        None => Err(WeightsError::Tensors {
            label: weights.label().to_string(),
            missing: vec![name.to_string()],
            unexpected: vec![],
            misshapen: vec![],
        }
        .into()),
    }
}
