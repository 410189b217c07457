//! The ops' formulas, written in the plainest way: on f64 they are what results are measured against, and rounded
//! after every operation they show what an eager framework loses in the same dtype.

mod attention;
mod conv3d;
mod format;
mod matrix;
mod norm;
mod pointwise;

pub use attention::{AttentionInputs, attention};
pub use conv3d::conv3d;
pub use format::{Format, round_row_to_e4m3};
pub use matrix::{Matrix, linear};
pub use norm::{channel_rms_norm, layer_norm, rms_norm, rope};
pub use pointwise::{activation, add_gated};

#[cfg(test)]
mod tests;
