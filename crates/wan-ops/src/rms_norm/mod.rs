//! RMS normalisation, alone and followed by rotary positions.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Layout, Shape, Tensor};
pub use reference::{rms_norm_reference, rope_reference};
use wan_core::{Error, Result};

use crate::Sums;

/// RMS normalisation over the last axis: `x rsqrt(mean(x²) + eps) weight`; no mean is subtracted.
///
/// `x`: `[..., dim]`, or a product's [`Sums`]; `weight`: `[dim]` f32; result of x's shape and dtype, statistics in f32.
pub fn rms_norm(x: impl Into<Sums>, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let x = &x.into();
    check_weight(x.bare(), weight)?;
    Ok(x.bare().apply_op1_no_bwd(&RmsNorm { x, weight, eps })?)
}

/// [`rms_norm`] over all `dim` channels, then, head by head, rotation of the adjacent pairs `(2j, 2j+1)`.
///
/// - `x`: `[L, dim]`, or a product's [`Sums`]; `weight`: `[dim]` f32
/// - `rope`: `[L, D/2, 2]` f32, (cos, sin), the same for all heads; `dim` is a multiple of `D`
/// - returns `[L, dim]`, x's dtype
///
/// Source: Wan2.1 `wan/modules/model.py`, `WanSelfAttention` (norm before the split into heads) and `rope_apply`.
pub fn rms_norm_rope(x: impl Into<Sums>, weight: &Tensor, eps: f32, rope: &Tensor) -> Result<Tensor> {
    let x = &x.into();
    check_weight(x.bare(), weight)?;
    let rope = &rope.to_dtype(DType::F32)?;
    let (l, dim) = x.bare().dims2()?;
    let (rows, half, two) = rope.dims3()?;
    if rows != l || two != 2 || half == 0 || dim % (2 * half) != 0 {
        return Err(Error::shape("rope table", rope.dims(), format!("[{l}, D/2, 2] with D dividing {dim}")));
    }
    Ok(x.bare().apply_op2_no_bwd(rope, &RmsNorm { x, weight, eps })?)
}

struct RmsNorm<'a> {
    /// What the main input stands for.
    x: &'a Sums,
    weight: &'a Tensor,
    eps: f32,
}

impl CustomOp1 for RmsNorm<'_> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::rms_norm(self, (storage, layout), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::rms_norm(self, (storage, layout), None)
    }
}

impl CustomOp2 for RmsNorm<'_> {
    fn name(&self) -> &'static str {
        "rms_norm_rope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        rope: &CpuStorage,
        rope_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::rms_norm(self, (x, x_layout), Some((rope, rope_layout)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        rope: &candle_core::CudaStorage,
        rope_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::rms_norm(self, (x, x_layout), Some((rope, rope_layout)))
    }
}

fn check_weight(x: &Tensor, weight: &Tensor) -> Result<()> {
    let dim = x.dim(D::Minus1)?;
    if weight.dims() == [dim] {
        Ok(())
    } else {
        Err(Error::shape("rms norm weight", weight.dims(), format!("[{dim}]")))
    }
}
