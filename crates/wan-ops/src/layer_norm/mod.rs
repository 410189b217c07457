use candle_core::{D, DType, Tensor};
use wan_core::{Error, Result};

/// What follows the normalisation in [`layer_norm`]. Every tensor is `[dim]` f32.
#[derive(Debug, Clone, Copy)]
pub enum Affine<'a> {
    /// Nothing.
    None,
    /// `n * weight + bias`.
    Weights {
        /// Factor.
        weight: &'a Tensor,
        /// Summand.
        bias: &'a Tensor,
    },
    /// `n * (1 + scale) + shift`, the DiT's modulation.
    Modulation {
        /// Summand.
        shift: &'a Tensor,
        /// Factor less one.
        scale: &'a Tensor,
    },
}

/// Layer normalisation over the last axis: `(x - mean) rsqrt(var + eps)`, then `affine`.
///
/// `x`: `[..., dim]`; result of the same shape and dtype, statistics in f32.
///
/// Errors: [`Error::Shape`] if a tensor of `affine` is not `[dim]`.
pub fn layer_norm(x: &Tensor, eps: f32, affine: Affine<'_>) -> Result<Tensor> {
    check_affine(x, affine)?;
    layer_norm_reference(x, eps, affine)
}

/// `x' = x + gate y` and `layer_norm(x')`, read and written once.
///
/// - `x`: residual stream `[L, dim]` f32; `y`: `[L, dim]`, what a block's part adds; `gate`: `[dim]` f32 or 1
/// - returns `(x', normalised)`, both `[L, dim]`
pub fn residual_layer_norm(
    x: &Tensor,
    y: &Tensor,
    gate: Option<&Tensor>,
    eps: f32,
    affine: Affine<'_>,
) -> Result<(Tensor, Tensor)> {
    let sum = gated_residual(x, y, gate)?;
    let normed = layer_norm(&sum, eps, affine)?;
    Ok((sum, normed))
}

/// `x + gate y`: `x`, `y` `[L, dim]`, `gate` `[dim]` f32 (absent: 1).
pub fn gated_residual(x: &Tensor, y: &Tensor, gate: Option<&Tensor>) -> Result<Tensor> {
    if x.dims() != y.dims() {
        return Err(Error::shape("residual", y.dims(), format!("{:?}", x.dims())));
    }
    let y = y.to_dtype(x.dtype())?;
    Ok(match gate {
        Some(gate) => x.broadcast_add(&y.broadcast_mul(&gate.to_dtype(x.dtype())?)?)?,
        None => (x + y)?,
    })
}

/// [`layer_norm`] in plain tensor operations.
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

fn check_affine(x: &Tensor, affine: Affine<'_>) -> Result<()> {
    let dim = x.dim(D::Minus1)?;
    let pair = match affine {
        Affine::None => return Ok(()),
        Affine::Weights { weight, bias } => [("layer norm weight", weight), ("layer norm bias", bias)],
        Affine::Modulation { shift, scale } => [("modulation shift", shift), ("modulation scale", scale)],
    };
    match pair.iter().find(|(_, t)| t.dims() != [dim]) {
        Some((what, t)) => Err(Error::shape(*what, t.dims(), format!("[{dim}]"))),
        None => Ok(()),
    }
}
