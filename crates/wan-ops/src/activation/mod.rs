//! Elementwise functions: as an op of their own and as the end of others.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use wan_core::Result;

/// Elementwise function applied at the end of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))`: UMT5's gate, the DiT's feed-forward and text embedding.
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt(2)))`: CLIP and the DiT's image embedding.
    GeluErf,
    /// `x / (1 + exp(-x))`: the VAE and the DiT's time embedding.
    Silu,
}

/// Applies `activation` to every value of `x`, any shape; dtype kept.
///
/// Errors: a dtype that is not a float.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(x.clone()),
        _ => Ok(x.apply_op1_no_bwd(&Activate { activation })?),
    }
}

/// [`activate`] in plain tensor operations.
pub fn activate_reference(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Identity => x.clone(),
        Activation::GeluTanh => x.gelu()?,
        Activation::GeluErf => x.gelu_erf()?,
        Activation::Silu => x.silu()?,
    })
}

struct Activate {
    activation: Activation,
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::forward(self, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::forward(self, storage, layout)
    }
}
