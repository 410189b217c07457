use candle_core::DType;
use wan_ops::Numerics;

use crate::config::{DitConfig, ModelType};
use crate::context::KeyCache;
use crate::ffn::FeedForward;

/// Most bytes that attention packs keys and values into (64 MiB) and collects heads in (half of it).
const ATTENTION_SCRATCH: u64 = 96 << 20;

/// Most bytes that a linear layer packs its weight into at a time.
const LINEAR_SCRATCH: u64 = 4 << 20;

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
    /// Whether what the blocks add is kept for later steps (`BlockResiduals`).
    pub keeps_residuals: bool,
    /// How a GPU multiplies; it changes nothing on the CPU.
    pub numerics: Numerics,
}

/// Bytes a DiT allocates on the CPU, where its weights are mapped and cost none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Embedded text and image, and the keys and values kept of them.
    pub context_bytes: u64,
    /// What the blocks added in an earlier step, where it is kept.
    pub residual_bytes: u64,
    /// Highest sum of tensors alive at one time within a forward.
    pub activation_bytes: u64,
    /// What the ops allocate inside at that time: packed keys and values, heads, packed weights.
    pub scratch_bytes: u64,
}

impl MemoryJob {
    /// Bytes of what the blocks of an earlier step added, with activations in `dtype`.
    pub(crate) fn residual_bytes(&self, config: &DitConfig, dtype: DType) -> u64 {
        let kept = if self.keeps_residuals { self.contexts } else { 0 };
        (kept * self.tokens * config.dim * dtype.size_in_bytes()) as u64
    }
}

impl MemoryEstimate {
    /// Everything together.
    pub fn total_bytes(&self) -> u64 {
        self.context_bytes + self.residual_bytes + self.activation_bytes + self.scratch_bytes
    }
}

/// What `job` will take on the CPU, told from sizes alone. For a GPU see
/// [`estimate_device_memory`](crate::estimate_device_memory).
pub fn estimate_memory(config: &DitConfig, job: &MemoryJob) -> MemoryEstimate {
    MemoryEstimate {
        context_bytes: context_bytes(config, job),
        residual_bytes: job.residual_bytes(config, job.dtype),
        activation_bytes: activation_bytes(config, job),
        scratch_bytes: scratch_bytes(config, job),
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
        row * wide + cast + FeedForward::result_values(job.tokens, config.dim, config.ffn_dim) * narrow;
    let rope = job.tokens * config.head_dim() * wide;
    (streams + self_attention.max(feed_forward) + rope) as u64
}

fn scratch_bytes(config: &DitConfig, job: &MemoryJob) -> u64 {
    let row = (job.tokens * config.dim * DType::F32.size_in_bytes()) as u64;
    // Attention widens what is not f32.
    let widened = if job.dtype == DType::F32 { 0 } else { 3 * row };
    // Packed keys and values, of the video or of the text, and the heads' results.
    let packed = 2 * (job.tokens.max(config.text_len) * config.dim * DType::F32.size_in_bytes()) as u64;
    let weight = (config.dim * config.ffn_dim * DType::F32.size_in_bytes()) as u64;
    widened + (packed + row).min(ATTENTION_SCRATCH) + weight.min(LINEAR_SCRATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_14b_model_at_480p() {
        let job = MemoryJob {
            tokens: 32760,
            image_tokens: 257,
            contexts: 2,
            dtype: DType::BF16,
            cache: KeyCache::Keep,
            keeps_residuals: false,
            numerics: Numerics::default(),
        };
        let kept = estimate_memory(&DitConfig::I2V_14B, &job);
        // 2 x 512 + 257 rows; 2 x 5120 bf16 values of each in 40 blocks, and the embedding.
        assert_eq!(kept.context_bytes, 1281 * 5120 * 81 * 2);
        let recomputed =
            estimate_memory(&DitConfig::I2V_14B, &MemoryJob { cache: KeyCache::Recompute, ..job });
        assert_eq!(recomputed.context_bytes, 1281 * 5120 * 3 * 2);
        // A row of [L, dim] is 335 MB in bf16: streams 2 x 3 of them, attention 7, positions 17 MB.
        assert_eq!(kept.activation_bytes, 32760 * 5120 * 2 * 13 + 32760 * 128 * 4);
        let one = estimate_memory(&DitConfig::I2V_14B, &MemoryJob { contexts: 1, ..job });
        assert_eq!(kept.activation_bytes - one.activation_bytes, 32760 * 5120 * 6);
        let reusing = estimate_memory(&DitConfig::I2V_14B, &MemoryJob { keeps_residuals: true, ..job });
        assert_eq!(reusing.total_bytes() - kept.total_bytes(), 2 * 32760 * 5120 * 2);
    }

    #[test]
    fn scratch_is_bounded_and_small_for_small_jobs() {
        let job = |tokens, dtype| MemoryJob {
            tokens,
            image_tokens: 257,
            contexts: 2,
            dtype,
            cache: KeyCache::Keep,
            keeps_residuals: false,
            numerics: Numerics::default(),
        };
        let scratch = |tokens, dtype| estimate_memory(&DitConfig::I2V_14B, &job(tokens, dtype)).scratch_bytes;
        assert_eq!(scratch(100, DType::F32), (2 * 512 + 100) * 5120 * 4 + LINEAR_SCRATCH);
        assert_eq!(scratch(32760, DType::F32), ATTENTION_SCRATCH + LINEAR_SCRATCH);
        assert_eq!(scratch(32760, DType::BF16) - scratch(32760, DType::F32), 3 * 32760 * 5120 * 4);
    }
}
