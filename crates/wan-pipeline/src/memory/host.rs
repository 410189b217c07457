//! Where the CPU computes. Weights are mapped from their files and cost no allocation, so swapping blocks would save
//! nothing and is left out.

use candle_core::DType;
use wan_core::progress::Stage;
use wan_dit::{KeyCache, MemoryJob, estimate_memory};
use wan_umt5::tokenizer::TEXT_LEN;

use super::plan::{DecodeMode, DecodeWay, MemoryItem, MemoryPlan};
use super::{Budget, ImageEncoderSizes, JobShape, ModelSizes, VaeSizes};
use crate::Result;

/// The program, its libraries, and what the allocator does not give back to the system: measured as 15 to 50 MB.
const PROCESS: u64 = 64 << 20;

/// x264 keeps the frames it looks ahead to, each with planes at half and fractional positions. Measured: bytes in all,
/// bytes per pixel of a frame, and the most frames (lookahead, B-frames and references).
const ENCODER: u64 = 4 << 20;
const ENCODER_PIXEL: u64 = 16;
const ENCODER_FRAMES: usize = 50;

/// Heap of a loaded tokenizer per byte of its file: the trie over all pieces and the parsed file beside it.
const TOKENIZER_HEAP: u64 = 12;

/// Copies of the image encoder's input while it is made: resized along one axis, along both, normalised, in patches.
const PIXEL_COPIES: u64 = 6;

/// Latent channels, f32, that denoising holds beside a forward: condition and input, and those of the sample, the
/// solver's history and its next step.
const DENOISE_CHANNELS: u64 = 20 + 36 + 4 * 16;

/// Latent channels, f32, of the step that a later one reuses.
const REUSED_CHANNELS: u64 = 16;

/// Latent channels, f32, of encoding the condition: the latents in parts and joined, and the condition.
const CONDITION_CHANNELS: u64 = 2 * 16 + 20;

pub(super) fn plan(sizes: &ModelSizes, job: &JobShape, budget: Budget) -> Result<MemoryPlan> {
    let dtype = sizes.dtype;
    let mut items = Vec::new();
    let mut item = |stage, weights_bytes, host_bytes| {
        let device = 0;
        let process_bytes = process_bytes(stage, job);
        items.push(MemoryItem {
            stage,
            weights_bytes,
            host_bytes,
            process_bytes,
            device_weights_bytes: device,
            device_working_bytes: device,
        });
    };
    let text = &sizes.text_encoder;
    item(Stage::EncodeText, text.stored, text_bytes(sizes, job.contexts));
    if let Some(image) = &sizes.image_encoder {
        item(Stage::EncodeImage, image.stored, image_bytes(image, dtype));
        item(Stage::EncodeCondition, sizes.vae.stored, condition_bytes(&sizes.vae, job, dtype)?);
    }
    let dit = &sizes.dit;
    let denoise = estimate_memory(&dit.config, &dit_job(sizes, job));
    let channels = DENOISE_CHANNELS + if job.keeps_residuals { REUSED_CHANNELS } else { 0 };
    let latents = channels * job.latent_plane_bytes();
    item(Stage::Denoise, dit.weights.stored + sizes.loras, denoise.total_bytes() + latents);
    let (way, decode_bytes) = decode(&sizes.vae, job, budget, dtype)?;
    item(Stage::Decode, sizes.vae.stored, decode_bytes);
    Ok(MemoryPlan {
        budget,
        items,
        blocks: dit.weights.blocks.len(),
        swapped_blocks: 0,
        text_layers_streamed: false,
        decode: way.mode,
        tiles: way.tiles,
        advice: Vec::new(),
        notes: Vec::new(),
    })
}

fn text_bytes(sizes: &ModelSizes, prompts: usize) -> u64 {
    let config = &sizes.text_encoder.config;
    let activations = config.activation_bytes(prompts, TEXT_LEN, sizes.dtype);
    activations + scratch(TEXT_LEN, config.dim_attn, config.dim_ffn) + tokenizer_heap(sizes)
}

fn image_bytes(image: &ImageEncoderSizes, dtype: DType) -> u64 {
    let config = &image.config;
    let pixels = PIXEL_COPIES * (3 * config.image_size * config.image_size * 4) as u64;
    config.activation_bytes(dtype) + scratch(config.tokens(), config.dim, config.mlp_dim) + pixels
}

/// What attention and linear layers of an encoder allocate inside: packed keys, values and heads; a packed weight.
fn scratch(tokens: usize, dim: usize, hidden: usize) -> u64 {
    const LINEAR: usize = 4 << 20;
    (3 * tokens * dim * 4 + (dim * hidden * 4).min(LINEAR)) as u64
}

/// What the process holds beside a stage's own memory.
pub(super) fn process_bytes(stage: Stage, job: &JobShape) -> u64 {
    let encoder = match stage {
        Stage::Decode => ENCODER + ENCODER_PIXEL * (job.frames.min(ENCODER_FRAMES) + 2) as u64 * job.pixels(),
        _ => 0,
    };
    PROCESS + encoder
}

/// Heap of the tokenizer.
pub(super) fn tokenizer_heap(sizes: &ModelSizes) -> u64 {
    sizes.text_encoder.tokenizer * TOKENIZER_HEAP
}

/// What a forward has to hold, apart from weights.
pub(super) fn dit_job(sizes: &ModelSizes, job: &JobShape) -> MemoryJob {
    MemoryJob {
        tokens: job.tokens(),
        image_tokens: sizes.image_encoder.as_ref().map_or(0, |e| e.config.tokens() * job.images),
        contexts: job.contexts,
        dtype: sizes.dtype,
        cache: KeyCache::Keep,
        keeps_residuals: job.keeps_residuals,
        numerics: job.numerics,
    }
}

fn condition_bytes(vae: &VaeSizes, job: &JobShape, dtype: DType) -> Result<u64> {
    let latent = job.latent();
    let encode = vae.config.encode_memory(latent.height, latent.width, None, dtype)?;
    // A chunk with its copies and channels last, and the image on its way there.
    let pixels = 6 * chunk_bytes(vae, job);
    Ok(with_scratch(encode.total() + vae.encoder_widened)
        + pixels
        + CONDITION_CHANNELS * job.latent_plane_bytes())
}

/// With a twentieth for what the VAE's convolutions gather and pack.
fn with_scratch(bytes: u64) -> u64 {
    bytes + bytes / 20
}

/// Bytes of the frames that belong to one latent frame, f32.
fn chunk_bytes(vae: &VaeSizes, job: &JobShape) -> u64 {
    (vae.config.temporal_factor() * 3 * job.width * job.height * 4) as u64
}

/// How the VAE decodes on the CPU, in how many tiles, and the bytes it allocates: the plainest way that fits, else that
/// which takes least. Tiles in step are not always less than the whole: each keeps its own caches, and they overlap.
pub(super) fn decode(
    vae: &VaeSizes,
    job: &JobShape,
    budget: Budget,
    dtype: DType,
) -> Result<(DecodeWay, u64)> {
    let beside = chunk_bytes(vae, job) + 16 * job.latent_plane_bytes();
    let process = process_bytes(Stage::Decode, job);
    let mut least = None;
    for &mode in DecodeMode::allowed_by(job.tiling) {
        let estimate = mode.estimate(vae, job, dtype)?;
        let bytes = with_scratch(estimate.total() + vae.decoder_widened) + mode.waiting_bytes(job) + beside;
        let choice = (DecodeWay { mode, tiles: estimate.tiles, together: 1 }, bytes);
        if bytes + process <= budget.host_to_choose_by() {
            return Ok(choice);
        }
        if least.is_none_or(|(_, least)| bytes < least) {
            least = Some(choice);
        }
    }
    least.ok_or_else(|| wan_core::Error::invalid("decode modes", "none", "at least one").into())
}
