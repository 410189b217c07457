use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Activation, Affine, Linear, attention, gated_residual, layer_norm};

use crate::Config;

/// Added to the variance in every norm.
const EPS: f32 = 1e-5;

/// Layer norm with weight and bias; statistics in f32.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    pub(crate) fn load(loader: &Loader, dim: usize) -> Result<Self> {
        Ok(Self { weight: loader.tensor("weight", &[dim])?, bias: loader.tensor("bias", &[dim])? })
    }

    /// `x`: `[N, dim]`; returns the same shape and dtype.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, EPS, Affine::Weights { weight: &self.weight, bias: &self.bias })
    }
}

/// One pre-norm block: `x += proj(attention(norm1(x)))`, `x += mlp(norm2(x))`, with the exact (erf) GELU.
///
/// Source: Wan2.1 `wan/modules/clip.py`, `AttentionBlock` and `SelfAttention`.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    norm1: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    norm2: Norm,
    mlp_0: Linear,
    mlp_2: Linear,
    num_heads: usize,
}

impl Block {
    pub(crate) fn load(loader: &Loader, config: &Config) -> Result<Self> {
        let (dim, attn) = (config.dim, loader.pp("attn"));
        Ok(Self {
            norm1: Norm::load(&loader.pp("norm1"), dim)?,
            q: Linear::load(&attn.pp("q"), dim, dim)?,
            k: Linear::load(&attn.pp("k"), dim, dim)?,
            v: Linear::load(&attn.pp("v"), dim, dim)?,
            proj: Linear::load(&attn.pp("proj"), dim, dim)?,
            norm2: Norm::load(&loader.pp("norm2"), dim)?,
            mlp_0: Linear::load(&loader.pp("mlp.0"), dim, config.mlp_dim)?,
            mlp_2: Linear::load(&loader.pp("mlp.2"), config.mlp_dim, dim)?,
            num_heads: config.num_heads,
        })
    }

    /// `x`: `[N, dim]`, the class token first; returns the same shape and dtype.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = gated_residual(x, &self.attention(&self.norm1.forward(x)?)?, None)?;
        let inner = self.mlp_0.forward_act(&self.norm2.forward(&x)?, Activation::GeluErf)?; // [N, mlp_dim]
        gated_residual(&x, &self.mlp_2.forward(&inner)?, None) // [N, dim]
    }

    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (n, dim) = x.dims2()?;
        let head_dim = dim / self.num_heads;
        let heads = |t: Tensor| t.reshape((n, self.num_heads, head_dim));
        let q = heads(self.q.forward(x)?)?; // [N, heads, D]
        let k = heads(self.k.forward(x)?)?;
        let v = heads(self.v.forward(x)?)?;
        let scale = 1.0 / (head_dim as f32).sqrt();
        self.proj.forward(&attention(&q, &k, &v, scale, None)?.reshape((n, dim))?) // [N, dim]
    }
}
