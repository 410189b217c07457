//! Layer normalisation, alone and behind a residual sum.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Device, Layout, Shape, Tensor};
pub use reference::{gated_residual_reference, layer_norm_reference};
use wan_core::{Error, Result};

use crate::{RowFormat, Rows, Sums};

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
    Ok(x.apply_op1_no_bwd(&LayerNorm { eps, affine })?)
}

/// [`layer_norm`] of a residual stream `x` `[L, dim]`, as rows of `format`.
///
/// Errors: [`Error::Shape`]; [`Error::Invalid`] on a device without this op.
pub fn layer_norm_rows(x: &Tensor, eps: f32, affine: Affine<'_>, format: RowFormat) -> Result<Rows> {
    Ok(StreamNorm { x, addition: None, eps, affine, format }.run()?.1)
}

/// `x' = x + gate y` and `layer_norm(x')`, read and written once.
///
/// - `x`: residual stream `[L, dim]` f32; `y`: `[L, dim]`, what a block's part adds, or its [`Sums`]; `gate`: `[dim]` f32 or 1
/// - returns `x'` in x's dtype and the normalised rows in `format`, both `[L, dim]`; what is normalised is the sum
///   before it is rounded to x's dtype
///
/// Errors: [`Error::Shape`]; [`Error::Invalid`] on a device without this op.
pub fn residual_layer_norm(
    x: &Tensor,
    y: impl Into<Sums>,
    gate: Option<&Tensor>,
    eps: f32,
    affine: Affine<'_>,
    format: RowFormat,
) -> Result<(Tensor, Rows)> {
    StreamNorm { x, addition: Some((&y.into(), gate)), eps, affine, format }.run()
}

/// The norm of a residual stream, behind what is added to it.
struct StreamNorm<'a> {
    x: &'a Tensor,
    /// Summand and its gate.
    addition: Option<(&'a Sums, Option<&'a Tensor>)>,
    eps: f32,
    affine: Affine<'a>,
    format: RowFormat,
}

impl StreamNorm<'_> {
    /// The sum, which is `x` itself where nothing is added, and its normalised rows.
    fn run(&self) -> Result<(Tensor, Rows)> {
        self.x.dims2()?;
        if let Some((y, gate)) = self.addition {
            check_residual(self.x, y.bare(), gate)?;
        }
        check_affine(self.x, self.affine)?;
        match self.x.device() {
            Device::Cpu => Ok(cpu::stream_norm(self)?),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Ok(cuda::stream_norm(self)?),
            other => {
                let found = format!("{:?}", other.location());
                Err(Error::invalid("device of a residual stream's norm", found, "cpu or cuda"))
            }
        }
    }
}

/// `x + gate y`: `x`, `y` `[L, dim]`, `y` also as [`Sums`], `gate` `[dim]` f32 (absent: 1).
///
/// Errors: [`Error::Shape`].
pub fn gated_residual(x: &Tensor, y: impl Into<Sums>, gate: Option<&Tensor>) -> Result<Tensor> {
    let y = &y.into();
    check_residual(x, y.bare(), gate)?;
    match x.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => Ok(cuda::gated_residual(x, y, gate)?),
        _ => Ok(x.apply_op2_no_bwd(y.bare(), &GatedResidual { y, gate })?),
    }
}

struct LayerNorm<'a> {
    eps: f32,
    affine: Affine<'a>,
}

impl CustomOp1 for LayerNorm<'_> {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::layer_norm(self, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::layer_norm(self, storage, layout)
    }
}

struct GatedResidual<'a> {
    /// What the second input stands for.
    y: &'a Sums,
    gate: Option<&'a Tensor>,
}

impl CustomOp2 for GatedResidual<'_> {
    fn name(&self) -> &'static str {
        "gated_residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::gated_residual(self, (x, x_layout), (y, y_layout))
    }
}

fn check_residual(x: &Tensor, y: &Tensor, gate: Option<&Tensor>) -> Result<()> {
    if x.dims() != y.dims() {
        return Err(Error::shape("residual", y.dims(), format!("{:?}", x.dims())));
    }
    let dim = x.dim(D::Minus1)?;
    match gate {
        Some(gate) if gate.dims() != [dim] => {
            Err(Error::shape("gate of the residual", gate.dims(), format!("[{dim}]")))
        }
        _ => Ok(()),
    }
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
