use candle_core::{D, DType, Tensor};
use wan_core::{Error, Result};

use crate::{Activation, activate};

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
    channel_rms_norm_reference(x, gamma, activation)
}

/// [`channel_rms_norm`] in plain tensor operations.
pub fn channel_rms_norm_reference(x: &Tensor, gamma: &Tensor, activation: Activation) -> Result<Tensor> {
    let x32 = x.to_dtype(DType::F32)?;
    let norm = x32.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    let root = (x.dim(D::Minus1)? as f64).sqrt();
    let y = (x32.broadcast_div(&norm)? * root)?.broadcast_mul(gamma)?;
    activate(&y.to_dtype(x.dtype())?, activation)
}
