use candle_core::{D, DType, Tensor};
use wan_core::Result;

/// [`rms_norm`](super::rms_norm) in plain tensor operations.
pub fn rms_norm_reference(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let x32 = x.to_dtype(DType::F32)?;
    let mean = x32.sqr()?.mean_keepdim(D::Minus1)?;
    let y = x32.broadcast_div(&(mean + f64::from(eps))?.sqrt()?)?.broadcast_mul(weight)?;
    Ok(y.to_dtype(x.dtype())?)
}

/// The rotation of [`rms_norm_rope`](super::rms_norm_rope) in plain tensor operations: `x` `[L, dim]`, `rope` `[L, D/2, 2]`.
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
