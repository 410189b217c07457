//! What the model attends to besides the video: a prompt and an image, prepared once per job.

use candle_core::Tensor;
use wan_core::Result;

use crate::block::Block;

/// Whether a [`Context`] keeps the keys and values that every block computes from it. They do not depend on the
/// timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyCache {
    /// Computed once and kept: `2 * num_layers * dim` values per token of text and image, which for the 14B model
    /// in bf16 is 420 MB per prompt and 210 MB per image.
    #[default]
    Keep,
    /// Computed at every forward: only the embedded tokens are kept.
    Recompute,
}

/// A prompt and, for i2v, an image, as one [`Dit`](crate::Dit) sees them. Contexts made together share what they
/// have of the image.
#[derive(Debug, Clone)]
pub struct Context {
    /// `[text_len, dim]` compute dtype.
    pub(crate) text: Tensor,
    /// `[N, dim]` compute dtype.
    pub(crate) image: Option<Tensor>,
    /// One per block, if kept.
    pub(crate) keys: Option<Vec<BlockKeys>>,
}

/// What one block attends to.
#[derive(Debug, Clone)]
pub(crate) struct BlockKeys {
    pub(crate) text: KeyValue,
    pub(crate) image: Option<KeyValue>,
}

/// Keys and values of one source, each `[S, heads, D]` compute dtype.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

impl Context {
    /// The keys and values of block `index`, kept or computed now.
    pub(crate) fn block_keys(&self, index: usize, block: &Block) -> Result<BlockKeys> {
        match &self.keys {
            Some(keys) => Ok(keys[index].clone()),
            None => Ok(BlockKeys {
                text: block.cross_attention().text_keys(&self.text)?,
                image: block.cross_attention().image_keys(self.image.as_ref())?,
            }),
        }
    }
}
