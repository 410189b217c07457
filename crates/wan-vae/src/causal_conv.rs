use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Conv3d, ConvSpec};

use crate::cache::{Cache, Slot, Slots};

/// A convolution that sees the present frame and the `kernel[0] - 1` before it, across chunks.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `CausalConv3d` with its `feat_cache`.
#[derive(Debug)]
pub(crate) struct CausalConv {
    conv: Conv3d,
    slot: Slot,
}

impl CausalConv {
    pub fn load(
        loader: &Loader,
        slots: &mut Slots,
        inputs: usize,
        outputs: usize,
        kernel: [usize; 3],
    ) -> Result<Self> {
        Ok(Self {
            conv: Conv3d::load(loader, ConvSpec::causal(inputs, outputs, kernel))?,
            slot: slots.take(),
        })
    }

    /// `x`: `[T, H, W, inputs]`, `residual` and result: `[T, H, W, outputs]`. Frames before the video are zero.
    pub fn forward(&self, x: &Tensor, cache: &mut Cache, residual: Option<&Tensor>) -> Result<Tensor> {
        let y = self.conv.forward(x, cache.get(self.slot), residual)?;
        cache.push(self.slot, x, self.conv.spec().front)?;
        Ok(y)
    }
}
