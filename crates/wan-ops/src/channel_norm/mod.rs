//! The VAE's normalisation over channels.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
pub use reference::channel_rms_norm_reference;
use wan_core::{Error, Result};

use crate::Activation;

/// The VAE's normalisation: `act(x / max(|x|₂, 1e-12) sqrt(C) gamma)` over the channels of each voxel.
///
/// `x`: `[..., C]` channels last, `gamma`: `[C]` f32; result of x's shape and dtype, sums in f32.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `RMS_norm`.
pub fn channel_rms_norm(x: &Tensor, gamma: &Tensor, activation: Activation) -> Result<Tensor> {
    let channels = x.dim(D::Minus1)?;
    if gamma.dims() != [channels] {
        return Err(Error::shape("channel norm gamma", gamma.dims(), format!("[{channels}]")));
    }
    Ok(x.apply_op1_no_bwd(&ChannelNorm { gamma, activation })?)
}

struct ChannelNorm<'a> {
    gamma: &'a Tensor,
    activation: Activation,
}

impl CustomOp1 for ChannelNorm<'_> {
    fn name(&self) -> &'static str {
        "channel_rms_norm"
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
