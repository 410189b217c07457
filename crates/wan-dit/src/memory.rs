use candle_core::DType;
use wan_core::WeightSet;

use crate::config::{DitConfig, ModelType};
use crate::context::KeyCache;
use crate::ffn::FeedForward;

/// What a forward has to hold besides the weights.
#[derive(Debug, Clone, Copy)]
pub struct MemoryJob {
    /// Video tokens `L`, see `LatentSize::tokens`.
    pub tokens: usize,
    /// Image tokens (257 for CLIP ViT-H/14); 0 for t2v.
    pub image_tokens: usize,
    /// Contexts run in lockstep: 2 with CFG, else 1.
    pub contexts: usize,
    /// Dtype of the activations inside the blocks.
    pub dtype: DType,
    /// What the contexts keep.
    pub cache: KeyCache,
}

/// Bytes a DiT takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights as stored, by dtype, largest first. On the CPU they are mapped: page cache, not allocations.
    pub weights_bytes: Vec<(DType, u64)>,
    /// Embedded text and image, and the keys and values kept of them.
    pub context_bytes: u64,
    /// Highest sum of tensors alive at one time within a forward, the ops' own scratch not counted.
    pub activation_bytes: u64,
}

impl MemoryEstimate {
    /// Everything together.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.iter().map(|(_, bytes)| bytes).sum::<u64>()
            + self.context_bytes
            + self.activation_bytes
    }
}

/// What `job` will take on the DiT of `weights`, told from headers and shapes alone.
pub fn estimate_memory(weights: &WeightSet, config: &DitConfig, job: &MemoryJob) -> MemoryEstimate {
    let mut weights_bytes: Vec<(DType, u64)> = Vec::new();
    for stored in weights.iter() {
        let bytes = stored.bytes().len() as u64;
        match weights_bytes.iter_mut().find(|(dtype, _)| *dtype == stored.dtype()) {
            Some((_, sum)) => *sum += bytes,
            None => weights_bytes.push((stored.dtype(), bytes)),
        }
    }
    weights_bytes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    MemoryEstimate {
        weights_bytes,
        context_bytes: context_bytes(config, job),
        activation_bytes: activation_bytes(config, job),
    }
}

fn context_bytes(config: &DitConfig, job: &MemoryJob) -> u64 {
    let image = match config.model_type {
        ModelType::I2v => job.image_tokens,
        ModelType::T2v => 0,
    };
    let rows = job.contexts * config.text_len + image; // the image is shared
    let copies = match job.cache {
        KeyCache::Keep => 1 + 2 * config.num_layers,
        KeyCache::Recompute => 3, // one block's keys and values at a time
    };
    (rows * config.dim * copies * job.dtype.size_in_bytes()) as u64
}

fn activation_bytes(config: &DitConfig, job: &MemoryJob) -> u64 {
    let (wide, narrow) = (DType::F32.size_in_bytes(), job.dtype.size_in_bytes());
    let row = job.tokens * config.dim;
    let cast = if job.dtype == DType::F32 { 0 } else { row * narrow };
    // Each context's stream and what its last part adds to it.
    let streams = job.contexts * row * (wide + narrow);
    // The norm's output, then query, key and value, one of them before and after its norm.
    let self_attention = row * wide + cast + 4 * row * narrow;
    let feed_forward =
        row * wide + cast + row * narrow + FeedForward::hidden_values(job.tokens, config.ffn_dim) * narrow;
    let rope = job.tokens * config.head_dim() * wide;
    (streams + self_attention.max(feed_forward) + rope) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use wan_core::Stored;

    fn i2v_14b() -> DitConfig {
        DitConfig {
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
            eps: 1e-6,
        }
    }

    #[test]
    fn the_14b_model_at_480p() {
        let job = MemoryJob {
            tokens: 32760,
            image_tokens: 257,
            contexts: 2,
            dtype: DType::BF16,
            cache: KeyCache::Keep,
        };
        let none = WeightSet::from_tensors("none", []);
        let kept = estimate_memory(&none, &i2v_14b(), &job);
        // 2 x 512 + 257 rows; 2 x 5120 bf16 values of each in 40 blocks, and the embedding.
        assert_eq!(kept.context_bytes, 1281 * 5120 * 81 * 2);
        let recomputed = estimate_memory(&none, &i2v_14b(), &MemoryJob { cache: KeyCache::Recompute, ..job });
        assert_eq!(recomputed.context_bytes, 1281 * 5120 * 3 * 2);
        // A row of [L, dim] is 335 MB in bf16: streams 2 x 3 of them, attention 7, positions 17 MB.
        assert_eq!(kept.activation_bytes, 32760 * 5120 * 2 * 13 + 32760 * 128 * 4);
        let one = estimate_memory(&none, &i2v_14b(), &MemoryJob { contexts: 1, ..job });
        assert_eq!(kept.activation_bytes - one.activation_bytes, 32760 * 5120 * 6);
    }

    #[test]
    fn weights_are_counted_as_stored() {
        let tensor = |name: &str, n: usize| {
            Stored::from_tensor(name, &Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap()).unwrap()
        };
        let half =
            Stored::new("h", DType::BF16, vec![50], wan_core::weights::Bytes::new(vec![0u8; 100])).unwrap();
        let set = WeightSet::from_tensors("set", [half, tensor("a", 3), tensor("b", 40)]);
        let job = MemoryJob {
            tokens: 1,
            image_tokens: 0,
            contexts: 1,
            dtype: DType::F32,
            cache: KeyCache::Recompute,
        };
        let estimate = estimate_memory(&set, &i2v_14b(), &job);
        assert_eq!(estimate.weights_bytes, [(DType::F32, 172), (DType::BF16, 100)]);
        assert_eq!(estimate.total_bytes(), 272 + estimate.context_bytes + estimate.activation_bytes);
    }
}
