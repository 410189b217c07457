use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Activation, channel_rms_norm};

use crate::cache::{Cache, Slots};
use crate::causal_conv::CausalConv;
use crate::mid_attention::MidAttention;
use crate::res_block::ResBlock;
use crate::resample::{Downsample, Upsample};

/// One element of the encoder's or decoder's sequence; all take and give `[T, H, W, C]`.
#[derive(Debug)]
pub(crate) enum Layer {
    Conv(CausalConv),
    Residual(ResBlock),
    Attention(MidAttention),
    Down(Downsample),
    Up(Upsample),
    Head(Head),
}

impl Layer {
    /// One chunk. `x` is given away, so that it need not live longer than the layer needs it.
    pub fn forward(&self, x: Tensor, cache: &mut Cache) -> Result<Tensor> {
        match self {
            Self::Conv(layer) => layer.forward(&x, cache, None),
            Self::Residual(layer) => layer.forward(x, cache),
            Self::Attention(layer) => layer.forward(x),
            Self::Down(layer) => layer.forward(x, cache),
            Self::Up(layer) => layer.forward(x, cache),
            Self::Head(layer) => layer.forward(x, cache),
        }
    }
}

/// The last layer of encoder and decoder: `conv(silu(norm(x)))`.
#[derive(Debug)]
pub(crate) struct Head {
    norm: Tensor,
    conv: CausalConv,
}

impl Head {
    pub fn load(loader: &Loader, slots: &mut Slots, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            norm: loader.pp(0).tensor("gamma", &[inputs])?,
            conv: CausalConv::load(&loader.pp(2), slots, inputs, outputs, [3, 3, 3])?,
        })
    }

    fn forward(&self, x: Tensor, cache: &mut Cache) -> Result<Tensor> {
        let y = channel_rms_norm(&x, &self.norm, Activation::Silu)?;
        drop(x);
        self.conv.forward(&y, cache, None)
    }
}

/// The blocks at latent resolution: residual, attention, residual.
pub(crate) fn load_middle(loader: &Loader, slots: &mut Slots, channels: usize) -> Result<[Layer; 3]> {
    Ok([
        Layer::Residual(ResBlock::load(&loader.pp(0), slots, channels, channels)?),
        Layer::Attention(MidAttention::load(&loader.pp(1), channels)?),
        Layer::Residual(ResBlock::load(&loader.pp(2), slots, channels, channels)?),
    ])
}
