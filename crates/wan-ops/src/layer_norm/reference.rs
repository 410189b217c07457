use candle_core::{D, DType, Tensor};
use wan_core::Result;

use super::Affine;

/// [`layer_norm`](super::layer_norm) in plain tensor operations.
pub fn layer_norm_reference(x: &Tensor, eps: f32, affine: Affine<'_>) -> Result<Tensor> {
    let x32 = x.to_dtype(DType::F32)?;
    let centred = x32.broadcast_sub(&x32.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?;
    let y = match affine {
        Affine::None => normed,
        Affine::Weights { weight, bias } => normed.broadcast_mul(weight)?.broadcast_add(bias)?,
        Affine::Modulation { shift, scale } => normed.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift)?,
    };
    Ok(y.to_dtype(x.dtype())?)
}

/// [`gated_residual`](super::gated_residual) in plain tensor operations.
pub fn gated_residual_reference(x: &Tensor, y: &Tensor, gate: Option<&Tensor>) -> Result<Tensor> {
    let (x32, y32) = (x.to_dtype(DType::F32)?, y.to_dtype(DType::F32)?);
    let sum = match gate {
        Some(gate) => x32.broadcast_add(&y32.broadcast_mul(gate)?)?,
        None => (x32 + y32)?,
    };
    Ok(sum.to_dtype(x.dtype())?)
}
