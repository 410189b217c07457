//! Wan2.1 diffusion transformer (DiT) for image-to-video and text-to-video.
//!
//! ```text
//! latents, condition ─ patchify ─┐
//! timestep ─ time embedding ─────┼─ blocks (self-attention, cross-attention, feed-forward) ─ head ─ unpatchify ─ velocity
//! text, image ─ Context ─────────┘
//! ```
//!
//! [`Dit::open`] maps the weights, [`Dit::context`] prepares a prompt once, [`Dit::rope`] a latent size once, and
//! [`Dit::forward`] computes one velocity. [`Dit::forward_lockstep`] computes those of several prompts (CFG) block
//! by block, so that a block is visited once per step. [`Dit::open_with_loras`] opens it with LoRA files.
//! [`Dit::forward_reusing`] computes it without the blocks, from what they added in an earlier step.
//!
//! What is easily got wrong here:
//! - input channels: 16 noisy latent, then 4 mask, then 16 image latent;
//! - the patch weight orders a patch (channel, row, column), the head's output (row, column, channel);
//! - RoPE turns adjacent pairs; time takes what height and width, `2 (d / 6)` reals each, leave over;
//! - the time embedding has its cosines first;
//! - query and key are normalised over all channels before the split into heads;
//! - the modulation's order is shift, scale, gate, for self-attention and then for the feed-forward;
//!   cross-attention has neither modulation nor gate;
//! - the head is modulated by the time embedding itself, not by its projection;
//! - all `text_len` text rows are attended to, the zero padding included;
//! - image and text tokens have a softmax each; the sums are added before the one output projection;
//! - the image embedding has the erf GELU and eps 1e-5, everything else the tanh GELU and eps 1e-6;
//! - `norm3` (affine, before cross-attention) is called `norm2` by diffusers.
//!
//! Precision: the residual stream, modulation, statistics of norms, time embedding, patch embedding and head are
//! f32; the inside of the blocks and the text and image embeddings have the dtype given to [`Dit::open`].
//!
//! Source: Wan2.1 `wan/modules/model.py`; "Wan: Open and Advanced Large-Scale Video Generative Models"
//! (arXiv 2503.20314).

mod block;
mod config;
mod context;
mod cross_attention;
mod device_memory;
mod ffn;
mod head;
mod image_embed;
mod lora;
mod memory;
mod model;
mod names;
mod patch;
mod residual;
mod rope;
mod self_attention;
mod text_embed;
mod time_embed;
mod weight_sizes;

pub use config::{DitConfig, ModelType};
pub use context::{Context, KeyCache};
pub use device_memory::{DeviceMemoryEstimate, estimate_device_memory, swapped_blocks};
pub use lora::{BlockSelection, Lora, LoraReport};
pub use memory::{MemoryEstimate, MemoryJob, estimate_memory};
pub use model::{BlockResiduals, Dit, DitInput, TimeSignal};
pub use names::DIALECTS;
pub use rope::RopeTable;
pub use wan_ops::{AttentionChoice, Numerics, Precision, SWAP_SLOTS};
pub use weight_sizes::{BlockSize, DitWeightSizes};
