//! Where a GPU computes: its own memory is the scarce one, and what does not fit there waits in main memory.

use candle_core::DType;
use wan_core::progress::Stage;
use wan_dit::{DeviceMemoryEstimate, SWAP_SLOTS, estimate_device_memory};
use wan_umt5::tokenizer::TEXT_LEN;

use super::host::{dit_job, process_bytes, tokenizer_heap};
use super::plan::{DecodeMode, DecodeWay, MemoryItem, MemoryPlan};
use super::{Budget, JobShape, ModelSizes, VaeSizes};
use crate::{BlocksToSwap, Result};

/// Context of the driver, code of the kernels and the libraries, on the device.
const CONTEXT: u64 = 800_000_000;

/// What driver and libraries allocate in main memory.
const HOST_RUNTIME: u64 = 600_000_000;

/// Buffers through which weights and frames are copied.
const STAGING: u64 = 64 << 20;

/// Workspace of the VAE's convolutions.
const CONV_WORKSPACE: u64 = 100 << 20;

/// Dtype of activations on a GPU.
const DTYPE: DType = DType::BF16;

pub(super) fn plan(sizes: &ModelSizes, job: &JobShape, budget: Budget) -> Result<MemoryPlan> {
    let usable = budget.device_to_choose_by();
    let (text, text_layers_streamed) = encode_text(sizes, job, usable);
    let mut items = vec![text];
    if let Some(image) = &sizes.image_encoder {
        items.push(item(
            Stage::EncodeImage,
            job,
            image.stored,
            image.stored,
            image.config.activation_bytes(DTYPE),
        ));
        items.push(encode_condition(sizes, job)?);
    }
    let (denoise, swapped_blocks, pinned) = denoise(sizes, job, usable);
    // It is filled while the encoders run.
    items.iter_mut().for_each(|encoder| encoder.host_bytes += pinned);
    items.push(denoise);
    let (way, decode_item) = decode(&sizes.vae, job, budget)?;
    items.push(decode_item);
    let blocks = sizes.dit.weights.blocks.len();
    Ok(MemoryPlan {
        budget,
        items,
        blocks,
        swapped_blocks,
        text_layers_streamed,
        decode: way.mode,
        tiles: way.tiles,
        advice: Vec::new(),
        notes: Vec::new(),
    })
}

fn item(
    stage: Stage,
    job: &JobShape,
    weights_bytes: u64,
    device_weights_bytes: u64,
    working: u64,
) -> MemoryItem {
    MemoryItem {
        stage,
        weights_bytes,
        host_bytes: STAGING,
        process_bytes: HOST_RUNTIME + process_bytes(stage, job),
        device_weights_bytes,
        device_working_bytes: CONTEXT + working,
    }
}

/// All layers at once if they fit, else each in its turn. The token table stays on the host.
fn encode_text(sizes: &ModelSizes, job: &JobShape, usable: u64) -> (MemoryItem, bool) {
    let text = &sizes.text_encoder;
    let with = |weights| {
        let item = item(
            Stage::EncodeText,
            job,
            text.stored,
            weights,
            text.config.activation_bytes(job.contexts, TEXT_LEN, DTYPE),
        );
        MemoryItem { host_bytes: item.host_bytes + tokenizer_heap(sizes), ..item }
    };
    let whole = with(text.on_device);
    if whole.device_bytes() <= usable {
        return (whole, false);
    }
    (with(text.layer * SWAP_SLOTS as u64), true)
}

fn encode_condition(sizes: &ModelSizes, job: &JobShape) -> Result<MemoryItem> {
    let (vae, latent) = (&sizes.vae, job.latent());
    let encode = vae.config.encode_memory(latent.height, latent.width, None, DTYPE)?;
    let working = encode.total() + CONV_WORKSPACE;
    Ok(item(Stage::EncodeCondition, job, vae.stored, vae.on_device, working))
}

/// The fewest blocks in host memory that fit, or as many as were asked for; and the bytes they take there.
fn denoise(sizes: &ModelSizes, job: &JobShape, usable: u64) -> (MemoryItem, usize, u64) {
    let (dit, forward) = (&sizes.dit, dit_job(sizes, job));
    let blocks = dit.weights.blocks.len();
    let estimate = |swapped| estimate_device_memory(&dit.weights, &dit.config, &forward, swapped);
    // Beside a product, its change and the sum of both.
    let changes = if sizes.loras > 0 { 4 * (forward.tokens * dit.config.dim) as u64 } else { 0 };
    let beside = CONTEXT + sizes.loras + changes;
    let swapped = match job.blocks_to_swap {
        BlocksToSwap::Count(count) => count.min(blocks),
        BlocksToSwap::Auto => (0..blocks).find(|n| estimate(*n).peak() + beside <= usable).unwrap_or(blocks),
    };
    let DeviceMemoryEstimate { weights, host, .. } = estimate(swapped);
    let weights = weights + sizes.loras;
    let working = estimate(swapped).peak() + beside - weights - CONTEXT;
    let item = item(Stage::Denoise, job, dit.weights.stored + sizes.loras, weights, working);
    (MemoryItem { host_bytes: item.host_bytes + host, ..item }, swapped, host)
}

/// The first that fits of whole, tiles in step, and tile after tile, with as many latent frames at a time as fit; the last
/// resort where none does.
pub(super) fn decode(vae: &VaeSizes, job: &JobShape, budget: Budget) -> Result<(DecodeWay, MemoryItem)> {
    let usable = budget.device_to_choose_by();
    let mut last = None;
    for &mode in DecodeMode::allowed_by(job.tiling) {
        let (estimate, kept) = (mode.estimate(vae, job, DTYPE)?, mode.waiting_bytes(job));
        for together in (1..=mode.most_together(vae, job)?).rev() {
            let working = estimate.together(together).total() + CONV_WORKSPACE;
            let item = item(Stage::Decode, job, vae.stored, vae.on_device, working);
            let item = MemoryItem { host_bytes: item.host_bytes + kept, ..item };
            let fits = item.device_bytes() <= usable;
            let choice = (DecodeWay { mode, tiles: estimate.tiles, together }, item);
            if fits {
                return Ok(choice);
            }
            last = Some(choice);
        }
    }
    last.ok_or_else(|| wan_core::Error::invalid("decode modes", 0, "at least one").into())
}
