//! Fused tensor operations. Each is one unit: a public function with checked arguments, a plain-tensor
//! reference that states the formula, and a half for every device; tests hold the halves against the reference.
//!
//! | op | formula |
//! |---|---|
//! | [`Linear`] | `act(x wᵀ s + b)`, weight in f32, f16, bf16 or f8_e4m3 as stored |
//! | [`Embedding`] | `table[ids]` |
//! | [`attention`], [`self_attention`] | `softmax(scale q kᵀ + bias) v`, online softmax, memory linear in the sequence |
//! | [`self_attention_of_products`] | [`rms_norm_rope`] of queries and keys, then [`self_attention`] |
//! | [`attention_sum`] | the sum of two of them for one query |
//! | [`layer_norm`] | `(x - mean) rsqrt(var + eps)`, then affine or modulated |
//! | [`residual_layer_norm`] | `x' = x + gate y`, and `layer_norm(x')` in the same pass |
//! | [`quantise`] | rows in FP8 with a scale each; norms and products write [`Rows`] so where the next product reads them |
//! | [`gated_residual`] | `x + gate y` |
//! | [`rms_norm`], [`rms_norm_rope`] | `x rsqrt(mean(x²) + eps) w`, then rotation of adjacent pairs |
//! | [`channel_rms_norm`] | `act(x / max(|x|₂, 1e-12) sqrt(C) gamma)` |
//! | [`Conv3d`] | causal 3-D convolution, channels last, nearest upsampling and residual folded in |
//!
//! Activations are f32 on the CPU. Other float dtypes are accepted: they are widened, computed in f32 and
//! rounded once at the end, which is what the fused kernels of a GPU do.
//!
//! Work is shared out over rayon's global pool; results do not depend on the number of its threads.

mod activation;
mod attention;
mod channel_norm;
mod conv3d;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod embedding;
mod in_use;
mod layer_norm;
mod linear;
mod numerics;
mod portable;
mod residency;
mod rms_norm;
mod rows;
mod sums;
#[cfg(test)]
mod testing;
mod tuning;

pub use activation::{Activation, activate, activate_reference};
pub use attention::{
    QkNorm, attention, attention_reference, attention_sum, self_attention, self_attention_of_products,
};
pub use channel_norm::{channel_rms_norm, channel_rms_norm_reference};
pub use conv3d::{Conv3d, ConvSpec};
pub use embedding::Embedding;
pub use in_use::{cudnn_missing, numerics_in_use};
pub use layer_norm::{
    Affine, gated_residual, gated_residual_reference, layer_norm, layer_norm_reference, layer_norm_rows,
    residual_layer_norm,
};
pub use linear::Linear;
#[cfg(feature = "cuda")]
pub use linear::Place;
pub use numerics::{AttentionChoice, Numerics, Precision};
pub use portable::{SpecialKernels, special_kernels, special_kernels_on, use_portable_kernels};
pub use residency::{HostCopies, HostSide, Pass, Residency, SWAP_SLOTS, release_unused};
pub use rms_norm::{rms_norm, rms_norm_reference, rms_norm_rope, rope_reference};
pub use rows::{QuantisedRows, RowFormat, Rows, quantise};
pub use sums::Sums;
pub use tuning::keep_tuning;
