//! The launches, one file for each op: pure functions from addresses and sizes to a [`Launch`](crate::Launch).
//!
//! Addresses must be valid for what the function's documentation says is read and written there when the launch
//! runs. Tensors are contiguous and row-major unless said otherwise.

mod activation;
mod attention;
mod attention_sm90;
mod channel_norm;
mod conv3d;
mod conv3d_sm90;
mod dequantise;
mod layer_norm;
mod residual;
mod rms_norm;
mod rows;
mod sage;
mod sums;

pub use activation::{Function, activate, activate_quantise};
pub use attention::{AttentionPlaces, AttentionShape, LARGEST_HEAD, TokenRows, attention, attention_mma};
pub use attention_sm90::{KeySource, attention_sm90, attention_sm90_scratch};
pub use channel_norm::{MOST_CHANNELS, channel_norm};
pub use conv3d::{ConvGeometry, ConvPlaces, conv3d};
pub use conv3d_sm90::{ConvTiles, conv3d_sm90, conv3d_sm90_fits};
pub use dequantise::{Blocks, Storage, dequantise};
pub use layer_norm::{Affine, layer_norm};
pub use residual::{Addition, Normed, gated_residual, residual_layer_norm};
pub use rms_norm::{Rotation, rms_norm};
pub use rows::LONGEST_ROW;
pub use sage::{SAGE_HEAD, Sage, SageKernel, SagePlaces, SageQueries};
pub use sums::Sums;
