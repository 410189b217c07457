//! CLIP ViT-H/14 vision encoder: preprocessing and the first 31 blocks.
//!
//! Written on `wan-ops` and not on `candle-transformers`' CLIP: that one widens every weight when it loads,
//! knows one naming, and returns the pooled output only, while Wan conditions on the hidden state after the last
//! but one block.
//!
//! What is easily got wrong:
//! - the last block, the post norm and the projection are **not** run; the output is the raw residual stream;
//! - the GELU is the exact one (erf), the norms' eps is 1e-5;
//! - the patch convolution has no bias, and a norm (`pre_norm`) follows the position embedding;
//! - the image is cropped unless a graph asks to stretch it, resampled with an antialiased kernel of a = -0.5, and rounded to
//!   8 bits before it is normalised.

mod block;
mod config;
pub mod names;
mod preprocess;
mod vision;

pub use config::Config;
pub use preprocess::{ImageFit, MEAN, STD, preprocess_rgb_f32, preprocess_rgb8};
pub use vision::ClipVision;
