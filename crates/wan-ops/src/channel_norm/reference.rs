use candle_core::{D, DType, Tensor};
use wan_core::Result;

use crate::Activation;
use crate::activation::activate_reference;

/// [`channel_rms_norm`](super::channel_rms_norm) in plain tensor operations.
pub fn channel_rms_norm_reference(x: &Tensor, gamma: &Tensor, activation: Activation) -> Result<Tensor> {
    let x32 = x.to_dtype(DType::F32)?;
    let norm = x32.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    let root = (x.dim(D::Minus1)? as f64).sqrt();
    let y = (x32.broadcast_div(&norm)? * root)?.broadcast_mul(gamma)?;
    Ok(activate_reference(&y, activation)?.to_dtype(x.dtype())?)
}
