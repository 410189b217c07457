use candle_core::DType;

use crate::config::DitConfig;
use crate::ffn::FeedForward;
use crate::memory::MemoryJob;
use crate::weight_sizes::{BlockSize, DitWeightSizes};
use wan_ops::{AttentionChoice, Precision, SWAP_SLOTS};

/// Workspace of the matrix library, tables of positions, statistics.
const WORKSPACE: u64 = 100 << 20;

/// Tokens that 8-bit attention rounds up to.
const SAGE_TILE: usize = 128;

/// Bytes a DiT takes where it computes on a GPU, with some of its blocks in host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemoryEstimate {
    /// Weights on the device while it denoises: what lies outside of the blocks, the blocks that stay, and the slots of
    /// those that do not.
    pub weights: u64,
    /// Keys and values of text and image in every block, bf16.
    pub keys: u64,
    /// What the blocks added in an earlier step, where it is kept, bf16.
    pub residuals: u64,
    /// Activations and workspace of a forward.
    pub activations: u64,
    /// Most bytes on the device while the keys are made, which is before the first forward.
    pub preparation: u64,
    /// Pinned host memory of the swapped blocks.
    pub host: u64,
}

impl DeviceMemoryEstimate {
    /// Most bytes on the device at one time.
    pub fn peak(&self) -> u64 {
        self.preparation.max(self.weights + self.keys + self.residuals + self.activations)
    }
}

/// What `job` will take on a GPU with `swapped` of the blocks in host memory (all, if there are fewer), told from sizes
/// alone.
///
/// The dtype of `job` is the host's and does not count; keys are always kept.
pub fn estimate_device_memory(
    weights: &DitWeightSizes,
    config: &DitConfig,
    job: &MemoryJob,
    swapped: usize,
) -> DeviceMemoryEstimate {
    let blocks = &weights.blocks;
    let moved = swapped_blocks(blocks.len(), swapped);
    let moved_blocks = || moved.iter().map(|index| &blocks[*index]);
    let sum = |of: fn(&BlockSize) -> u64| moved_blocks().map(of).sum::<u64>();
    let staying = blocks.iter().map(|b| b.recurring).sum::<u64>() - sum(|b| b.recurring);
    let slot = moved_blocks().map(|b| b.recurring).max().unwrap_or(0);
    let resident = weights.outside + staying + slot * moved.len().min(SWAP_SLOTS) as u64;
    let keys = key_bytes(config, job);
    // The next block's matrices arrive while one's are used.
    let once = 2 * blocks.iter().map(|b| b.once).max().unwrap_or(0);
    DeviceMemoryEstimate {
        weights: resident,
        keys,
        residuals: job.residual_bytes(config, DType::BF16),
        activations: activation_bytes(weights, config, job),
        preparation: resident + keys + once + WORKSPACE,
        host: sum(|b| b.recurring + b.once),
    }
}

/// Which of `blocks` lie in host memory if `swapped` do: spread evenly, so that each copy has the time of the resident
/// blocks between two of them.
pub fn swapped_blocks(blocks: usize, swapped: usize) -> Vec<usize> {
    let swapped = swapped.min(blocks);
    (0..blocks).filter(|i| (i + 1) * swapped / blocks > i * swapped / blocks).collect()
}

fn key_bytes(config: &DitConfig, job: &MemoryJob) -> u64 {
    let image = config.image_dim.map_or(0, |_| job.image_tokens);
    let rows = job.contexts * config.text_len + image; // the image is shared
    (2 * rows * config.dim * config.num_layers * 2) as u64
}

fn activation_bytes(weights: &DitWeightSizes, config: &DitConfig, job: &MemoryJob) -> u64 {
    let row = (job.tokens * config.dim) as u64; // of one byte a value
    let hidden = FeedForward::hidden_values(job.tokens, config.ffn_dim) as u64;
    let fp8 = job.numerics.precision == Precision::Fp8;
    // Each context's stream in f32, and what one context's last part adds to it while the others run.
    let streams = job.contexts as u64 * row * 4 + (job.contexts as u64).saturating_sub(1) * row * 2;
    // Query, key and value with the input they are made of or the attention's output; or a stream's sum, addend and norm.
    let attention = row * 8;
    // Its input, the chunks before, and the hidden rows: in bf16, and their codes.
    let feed_forward = row * 4 + hidden * if fp8 { 3 } else { 2 };
    // Codes of an input that a norm has not written so.
    let codes = if fp8 { row } else { 0 };
    let rope = (job.tokens * config.head_dim() * 4) as u64;
    streams + attention.max(feed_forward) + codes + scratch_bytes(weights, config, job) + rope + WORKSPACE
}

/// What neighbouring launches use in turn, kept at its largest: a widened matrix, or 8-bit attention's copies of query, key
/// and value, the last of which has 16 bits on some GPUs. Where the GPU turns out to have no FP8, its weights are widened as
/// well.
///
/// Without cuDNN, exact attention on compute capability 9.0 brings keys and values together as well (0.67 GB at 832x480):
/// left to the part of the memory that no plan counts on, which on such GPUs is several GB.
fn scratch_bytes(weights: &DitWeightSizes, config: &DitConfig, job: &MemoryJob) -> u64 {
    let sage = match job.numerics.attention {
        AttentionChoice::Sage => {
            // Tiles are whole, and each token and chunk of tokens has some values beside.
            let tokens = job.tokens.next_multiple_of(SAGE_TILE) as u64;
            4 * tokens * config.dim as u64 + tokens * config.num_heads as u64 * 8
        }
        AttentionChoice::Auto | AttentionChoice::Exact | AttentionChoice::Cudnn => 0,
    };
    weights.dequantised.max(sage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::KeyCache;
    use wan_ops::Numerics;

    /// The 14B model as published in FP8: 298.9 MB a block and 104.9 MB for keys; 0.82 GB outside in f32.
    fn fp8_14b() -> (DitWeightSizes, DitConfig) {
        let block = BlockSize { recurring: 298_900_000, once: 104_900_000 };
        let dequantised = 13824 * 5120 * 2;
        let sizes = DitWeightSizes {
            stored: 16_990_000_000,
            blocks: vec![block; 40],
            outside: 820_000_000,
            dequantised,
        };
        (sizes, DitConfig::I2V_14B)
    }

    fn job(tokens: usize) -> MemoryJob {
        MemoryJob {
            tokens,
            image_tokens: 257,
            contexts: 2,
            dtype: DType::F32,
            cache: KeyCache::Keep,
            keeps_residuals: false,
            numerics: Numerics::default(),
        }
    }

    #[test]
    fn the_14b_model_at_480p() {
        let (sizes, config) = fp8_14b();
        let none = estimate_device_memory(&sizes, &config, &job(32760), 0);
        assert_eq!(none.weights, 820_000_000 + 40 * 298_900_000);
        assert_eq!(none.keys, 2 * 1281 * 5120 * 40 * 2); // 1.05 GB
        // Streams 2 x 671 MB, what waits 335; qkv 1006 and the attention's output 335; a matrix in bf16 142; positions
        // 17; workspace.
        let plain = 32760 * 5120 * (8 + 2 + 8) + 32760 * 128 * 4 + (100 << 20);
        assert_eq!(none.activations, plain + 13824 * 5120 * 2);
        assert_eq!(none.host, 0);
        let reusing = MemoryJob { keeps_residuals: true, ..job(32760) };
        let reusing = estimate_device_memory(&sizes, &config, &reusing, 0);
        assert_eq!(reusing.peak() - none.peak(), 2 * 32760 * 5120 * 2); // 0.67 GB
        let all = estimate_device_memory(&sizes, &config, &job(32760), 99);
        assert_eq!(all.weights, 820_000_000 + 3 * 298_900_000);
        assert_eq!(all.host, 40 * 403_800_000);
        assert!(all.peak() < 6_500_000_000 && none.peak() < 18_000_000_000);
    }

    /// Codes of an input 168 MB, q and k in 8 bits and v in 16 671 MB, which the widened matrix has room in.
    #[test]
    fn faster_numerics_take_more() {
        let (sizes, config) = fp8_14b();
        let activations = |numerics| {
            let job = MemoryJob { numerics, ..job(32760) };
            estimate_device_memory(&sizes, &config, &job, 0).activations
        };
        let plain = activations(Numerics::default());
        let fp8 = Numerics { precision: Precision::Fp8, ..Numerics::default() };
        assert_eq!(activations(fp8) - plain, 32760 * 5120);
        let scratch = 4 * 32768 * 5120 + 32768 * 40 * 8;
        assert_eq!(activations(Numerics::FAST) - activations(fp8), scratch - 13824 * 5120 * 2);
    }

    #[test]
    fn more_swapping_never_takes_more_once_the_slots_are_paid_for() {
        let (sizes, config) = fp8_14b();
        let peak = |n| estimate_device_memory(&sizes, &config, &job(21504), n).peak();
        assert_eq!(peak(1), peak(0));
        assert_eq!(peak(SWAP_SLOTS), peak(0));
        for n in SWAP_SLOTS..40 {
            assert!(peak(n + 1) < peak(n), "{n}");
        }
    }

    #[test]
    fn swapped_blocks_are_spread_evenly() {
        assert_eq!(swapped_blocks(40, 0), Vec::<usize>::new());
        assert_eq!(swapped_blocks(0, 3), Vec::<usize>::new());
        assert_eq!(swapped_blocks(40, 4), [9, 19, 29, 39]);
        assert_eq!(swapped_blocks(4, 9), [0, 1, 2, 3]);
        for n in 0..=40 {
            assert_eq!(swapped_blocks(40, n).len(), n);
        }
    }
}
