use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Activation, Linear};

use crate::Config;

/// Gated feed-forward `fc2(fc1(x) * gelu_tanh(gate(x)))`: the GELU is on the gate alone.
///
/// Source: Wan2.1 `wan/modules/t5.py`, `T5FeedForward`.
#[derive(Debug, Clone)]
pub(crate) struct FeedForward {
    gate: Linear,
    fc1: Linear,
    fc2: Linear,
}

impl FeedForward {
    pub(crate) fn load(loader: &Loader, config: &Config) -> Result<Self> {
        let (dim, dim_ffn) = (config.dim, config.dim_ffn);
        Ok(Self {
            gate: Linear::load_without_bias(&loader.pp("gate.0"), dim, dim_ffn)?,
            fc1: Linear::load_without_bias(&loader.pp("fc1"), dim, dim_ffn)?,
            fc2: Linear::load_without_bias(&loader.pp("fc2"), dim_ffn, dim)?,
        })
    }

    /// Its layers.
    pub(crate) fn layers(&self) -> [&Linear; 3] {
        [&self.gate, &self.fc1, &self.fc2]
    }

    /// `x`: `[L, dim]`, normalised; returns `[L, dim]` in x's dtype.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate = self.gate.forward_act(x, Activation::GeluTanh)?; // [L, dim_ffn]
        let inner = (self.fc1.forward(x)? * gate)?;
        self.fc2.forward(&inner) // [L, dim]
    }
}
