use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::Linear;

use crate::Config;

/// Self-attention with a relative-position bias and **without** the usual `1 / sqrt(head_dim)`.
///
/// Source: Wan2.1 `wan/modules/t5.py`, `T5Attention`.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    num_heads: usize,
}

impl Attention {
    pub(crate) fn load(loader: &Loader, config: &Config) -> Result<Self> {
        let (dim, dim_attn) = (config.dim, config.dim_attn);
        Ok(Self {
            q: Linear::load_without_bias(&loader.pp("q"), dim, dim_attn)?,
            k: Linear::load_without_bias(&loader.pp("k"), dim, dim_attn)?,
            v: Linear::load_without_bias(&loader.pp("v"), dim, dim_attn)?,
            o: Linear::load_without_bias(&loader.pp("o"), dim_attn, dim)?,
            num_heads: config.num_heads,
        })
    }

    /// Its layers.
    pub(crate) fn layers(&self) -> [&Linear; 4] {
        [&self.q, &self.k, &self.v, &self.o]
    }

    /// - `x`: `[L, dim]`, normalised, compute dtype
    /// - `bias`: `[heads, L, L]` f32
    /// - returns `[L, dim]`, x's dtype
    pub(crate) fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (l, _) = x.dims2()?;
        let dim_attn = self.q.outputs();
        let heads = |t: Tensor| t.reshape((l, self.num_heads, dim_attn / self.num_heads));
        let q = heads(self.q.forward(x)?)?; // [L, heads, D]
        let k = heads(self.k.forward(x)?)?;
        let v = heads(self.v.forward(x)?)?;
        let mixed = wan_ops::attention(&q, &k, &v, 1.0, Some(bias))?; // [L, heads, D]
        self.o.forward(&mixed.reshape((l, dim_attn))?) // [L, dim]
    }
}
