use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Activation, Linear, channel_rms_norm};

use crate::cache::{Cache, Slots};
use crate::causal_conv::CausalConv;

/// `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))))))`.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `ResidualBlock`.
#[derive(Debug)]
pub(crate) struct ResBlock {
    norm1: Tensor,
    conv1: CausalConv,
    norm2: Tensor,
    conv2: CausalConv,
    /// A 1x1x1 convolution, where the number of channels changes.
    shortcut: Option<Linear>,
}

impl ResBlock {
    pub fn load(loader: &Loader, slots: &mut Slots, inputs: usize, outputs: usize) -> Result<Self> {
        let residual = loader.pp("residual");
        Ok(Self {
            norm1: residual.pp(0).tensor("gamma", &[inputs])?,
            conv1: CausalConv::load(&residual.pp(2), slots, inputs, outputs, [3, 3, 3])?,
            norm2: residual.pp(3).tensor("gamma", &[outputs])?,
            conv2: CausalConv::load(&residual.pp(6), slots, outputs, outputs, [3, 3, 3])?,
            shortcut: if inputs == outputs {
                None
            } else {
                Some(Linear::load(&loader.pp("shortcut"), inputs, outputs)?)
            },
        })
    }

    /// `[T, H, W, inputs]` to `[T, H, W, outputs]`. At most three activations live at a time.
    pub fn forward(&self, x: Tensor, cache: &mut Cache) -> Result<Tensor> {
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&x)?,
            None => x.clone(),
        };
        let a = channel_rms_norm(&x, &self.norm1, Activation::Silu)?;
        drop(x);
        let y = self.conv1.forward(&a, cache, None)?;
        drop(a);
        let b = channel_rms_norm(&y, &self.norm2, Activation::Silu)?;
        drop(y);
        self.conv2.forward(&b, cache, Some(&residual))
    }
}
