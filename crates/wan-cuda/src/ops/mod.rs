//! The launches, one file for each op: pure functions from addresses and sizes to a [`Launch`](crate::Launch).
//!
//! Addresses must be valid for what the function's documentation says is read and written there when the launch
//! runs. Tensors are contiguous and row-major unless said otherwise.

mod layer_norm;

pub use layer_norm::{Affine, layer_norm};
