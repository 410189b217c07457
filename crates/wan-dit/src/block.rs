use candle_core::{DType, Device, Tensor};
use wan_core::{Loader, Result};
use wan_ops::{Affine, Linear, Numerics};

use crate::config::DitConfig;
use crate::context::BlockKeys;
use crate::cross_attention::CrossAttention;
use crate::ffn::FeedForward;
use crate::residual::ResidualStream;
use crate::self_attention::SelfAttention;

/// One block: self-attention, cross-attention, feed-forward.
///
/// Its inside has the compute dtype; modulation, norms and the residual stream are f32.
///
/// Source: Wan2.1 `wan/modules/model.py`, WanAttentionBlock.
#[derive(Debug)]
pub(crate) struct Block {
    modulation: Tensor, // [6, dim]
    self_attn: SelfAttention,
    norm3: [Tensor; 2],
    cross_attn: CrossAttention,
    ffn: FeedForward,
    eps: f32,
    device: Device,
    dtype: DType,
}

/// How one timestep modulates one block.
pub(crate) struct Modulation {
    self_attn: PartModulation,
    ffn: PartModulation,
}

/// Modulation of one part of a block; each `[dim]` f32.
struct PartModulation {
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
}

impl PartModulation {
    fn affine(&self) -> Affine<'_> {
        Affine::Modulation { shift: &self.shift, scale: &self.scale }
    }
}

impl Block {
    /// Takes `modulation`, `norm3`, `self_attn`, `cross_attn` and `ffn`.
    pub(crate) fn load(loader: &Loader, config: &DitConfig, dtype: DType) -> Result<Self> {
        let dim = config.dim;
        Ok(Self {
            modulation: loader.tensor("modulation", &[1, 6, dim])?.reshape((6, dim))?,
            self_attn: SelfAttention::load(&loader.pp("self_attn"), config)?,
            norm3: [loader.tensor("norm3.weight", &[dim])?, loader.tensor("norm3.bias", &[dim])?],
            cross_attn: CrossAttention::load(&loader.pp("cross_attn"), config)?,
            ffn: FeedForward::load(&loader.pp("ffn"), config)?,
            eps: config.eps,
            device: loader.device().clone(),
            dtype,
        })
    }

    /// `time`: the projected time embedding, `[6, dim]` f32.
    pub(crate) fn modulation(&self, time: &Tensor) -> Result<Modulation> {
        let m = (&self.modulation + time)?;
        let part = |first: usize| -> Result<PartModulation> {
            Ok(PartModulation { shift: m.get(first)?, scale: m.get(first + 1)?, gate: m.get(first + 2)? })
        };
        Ok(Modulation { self_attn: part(0)?, ffn: part(3)? })
    }

    /// The first part: `x += gate SelfAttn(LN(x) (1 + scale) + shift)`. It does not see the context.
    pub(crate) fn self_attention(&self, x: &mut ResidualStream, m: &Modulation, rope: &Tensor) -> Result<()> {
        let format = self.self_attn.row_format(&self.device, self.dtype);
        let h = x.normalise(self.eps, m.self_attn.affine(), format)?;
        x.add(self.self_attn.forward(h, rope)?, Some(m.self_attn.gate.clone()));
        Ok(())
    }

    /// The second and third part: `x += CrossAttn(LN(x; norm3))`, then
    /// `x += gate FFN(LN(x) (1 + scale) + shift)`.
    pub(crate) fn cross_attention_ffn(
        &self,
        x: &mut ResidualStream,
        m: &Modulation,
        keys: &BlockKeys,
    ) -> Result<()> {
        let [weight, bias] = &self.norm3;
        let format = self.cross_attn.row_format(&self.device, self.dtype);
        let h = x.normalise(self.eps, Affine::Weights { weight, bias }, format)?;
        x.add(self.cross_attn.forward(h, keys)?, None);
        let format = self.ffn.row_format(&self.device, self.dtype);
        let h = x.normalise(self.eps, m.ffn.affine(), format)?;
        x.add(self.ffn.forward(&h, &self.device, self.dtype)?, Some(m.ffn.gate.clone()));
        Ok(())
    }

    /// The same, computed as `numerics` says.
    pub(crate) fn with_numerics(self, numerics: Numerics) -> Self {
        Self {
            self_attn: self.self_attn.with_numerics(numerics),
            cross_attn: self.cross_attn.with_precision(numerics.precision),
            ffn: self.ffn.with_precision(numerics.precision),
            ..self
        }
    }

    /// The layers that every forward uses, in the order of their use.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Linear> {
        let (own, cross, ffn) = (self.self_attn.layers(), self.cross_attn.layers(), self.ffn.layers());
        own.into_iter().chain(cross).chain(ffn)
    }

    /// The part that knows how to make keys and values.
    pub(crate) fn cross_attention(&self) -> &CrossAttention {
        &self.cross_attn
    }
}
