use candle_core::{D, DType, Tensor};
use wan_core::{Error, Result};

/// RMS normalisation over the last axis: `x rsqrt(mean(x²) + eps) weight`; no mean is subtracted.
///
/// `x`: `[..., dim]`, `weight`: `[dim]` f32; result of x's shape and dtype, statistics in f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    check_weight(x, weight)?;
    rms_norm_reference(x, weight, eps)
}

/// [`rms_norm`] over all `dim` channels, then, head by head, rotation of the adjacent pairs `(2j, 2j+1)`.
///
/// - `x`: `[L, dim]`; `weight`: `[dim]` f32
/// - `rope`: `[L, D/2, 2]` f32, (cos, sin), the same for all heads; `dim` is a multiple of `D`
/// - returns `[L, dim]`, x's dtype
///
/// Source: Wan2.1 `wan/modules/model.py`, `WanSelfAttention` (norm before the split into heads) and `rope_apply`.
pub fn rms_norm_rope(x: &Tensor, weight: &Tensor, eps: f32, rope: &Tensor) -> Result<Tensor> {
    check_weight(x, weight)?;
    let (l, dim) = x.dims2()?;
    let (rows, half, two) = rope.dims3()?;
    if rows != l || two != 2 || half == 0 || dim % (2 * half) != 0 {
        return Err(Error::shape("rope table", rope.dims(), format!("[{l}, D/2, 2] with D dividing {dim}")));
    }
    rope_reference(&rms_norm_reference(x, weight, eps)?, rope)
}

/// [`rms_norm`] in plain tensor operations.
pub fn rms_norm_reference(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let x32 = x.to_dtype(DType::F32)?;
    let mean = x32.sqr()?.mean_keepdim(D::Minus1)?;
    let y = x32.broadcast_div(&(mean + f64::from(eps))?.sqrt()?)?.broadcast_mul(weight)?;
    Ok(y.to_dtype(x.dtype())?)
}

/// The rotation of [`rms_norm_rope`] in plain tensor operations: `x` `[L, dim]`, `rope` `[L, D/2, 2]`.
pub fn rope_reference(x: &Tensor, rope: &Tensor) -> Result<Tensor> {
    let (l, dim) = x.dims2()?;
    let half = rope.dim(1)?;
    let pairs = x.to_dtype(DType::F32)?.reshape((l, dim / (2 * half), half, 2))?;
    let (re, im) = (pairs.narrow(3, 0, 1)?, pairs.narrow(3, 1, 1)?);
    let table = rope.reshape((l, 1, half, 2))?;
    let (cos, sin) = (table.narrow(3, 0, 1)?, table.narrow(3, 1, 1)?);
    let new_re = (re.broadcast_mul(&cos)? - im.broadcast_mul(&sin)?)?;
    let new_im = (re.broadcast_mul(&sin)? + im.broadcast_mul(&cos)?)?;
    Ok(Tensor::cat(&[new_re, new_im], 3)?.reshape((l, dim))?.to_dtype(x.dtype())?)
}

fn check_weight(x: &Tensor, weight: &Tensor) -> Result<()> {
    let dim = x.dim(D::Minus1)?;
    if weight.dims() == [dim] {
        Ok(())
    } else {
        Err(Error::shape("rms norm weight", weight.dims(), format!("[{dim}]")))
    }
}
