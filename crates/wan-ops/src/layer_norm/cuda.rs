use candle_core::cuda_backend::CudaStorage;
use candle_core::{CustomOp1, D, DType, Error, Layout, Result, Shape, Tensor};
use wan_cuda::ops::{self, Addition, Normed};

use super::{Affine, LayerNorm};
use crate::cuda::{Input, Output, Side, check_row, float, launch, optional, with_tensor};

/// The tensors of an [`Affine`] on the device.
enum Sides {
    None,
    Weights { weight: Side, bias: Side },
    Modulation { shift: Side, scale: Side },
}

impl Sides {
    fn new(op: &str, affine: Affine<'_>) -> Result<Self> {
        let side = |tensor| Side::new(op, tensor);
        Ok(match affine {
            Affine::None => Self::None,
            Affine::Weights { weight, bias } => Self::Weights { weight: side(weight)?, bias: side(bias)? },
            Affine::Modulation { shift, scale } => {
                Self::Modulation { shift: side(shift)?, scale: side(scale)? }
            }
        })
    }

    fn places(&self) -> ops::Affine {
        match self {
            Self::None => ops::Affine::None,
            Self::Weights { weight, bias } => ops::Affine::Weights { weight: weight.ptr(), bias: bias.ptr() },
            Self::Modulation { shift, scale } => {
                ops::Affine::Modulation { shift: shift.ptr(), scale: scale.ptr() }
            }
        }
    }
}

pub(super) fn layer_norm(
    op: &LayerNorm<'_>,
    x: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let input = Input::new(x, layout)?;
    let float = float(op.name(), input.dtype())?;
    let sides = Sides::new(op.name(), op.affine)?;
    let dim = layout.dims().last().copied().unwrap_or(1);
    let rows = layout.shape().elem_count() / dim.max(1);
    let output = Output::new(input.device(), layout.shape(), input.dtype())?;
    let norm = ops::layer_norm(float, input.ptr(), output.ptr(), rows, dim, op.eps, sides.places());
    launch(input.device(), &norm)?;
    Ok(output.finish())
}

/// `y` as it can be added to the stream `x`: in its own dtype to f32, else in the stream's.
fn addend(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match (x.dtype(), y.dtype()) {
        (DType::F32, DType::F32 | DType::BF16 | DType::F16) => Ok(y.clone()),
        (stream, _) => y.to_dtype(stream),
    }
}

pub(super) fn gated_residual(x: &Tensor, y: &Tensor, gate: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "gated_residual";
    let y = addend(x, y)?;
    let gate = Side::option(OP, gate)?;
    let shape = [x.elem_count() / x.dim(D::Minus1)?.max(1), x.dim(D::Minus1)?];
    with_tensor(OP, x, |stream| {
        with_tensor(OP, &y, |y| {
            let sum = Output::new(stream.device(), x.shape(), stream.dtype())?;
            let addition = Addition {
                float: float(OP, y.dtype())?,
                y: y.ptr(),
                gate: optional(gate.as_ref()),
                sum: sum.ptr(),
            };
            let kernel = ops::gated_residual((float(OP, stream.dtype())?, stream.ptr()), addition, shape);
            launch(stream.device(), &kernel.ok_or_else(|| no_kernel(OP, stream, y))?)?;
            Ok(sum.into_tensor())
        })
    })
}

pub(super) fn residual_layer_norm(
    x: &Tensor,
    y: &Tensor,
    gate: Option<&Tensor>,
    eps: f32,
    affine: Affine<'_>,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    const OP: &str = "residual_layer_norm";
    let y = addend(x, y)?;
    let gate = Side::option(OP, gate)?;
    let sides = Sides::new(OP, affine)?;
    let dim = x.dim(D::Minus1)?;
    check_row(OP, dim)?;
    let shape = [x.elem_count() / dim.max(1), dim];
    // A 16-bit stream is normalised to its own dtype; an f32 one to f32 or the addend's, to any if that is f32 too.
    let direct = x.dtype() == DType::F32
        && (y.dtype() == DType::F32 || [DType::F32, y.dtype()].contains(&dtype))
        && [DType::F32, DType::BF16, DType::F16].contains(&dtype);
    let written = if direct { dtype } else { x.dtype() };
    let (sum, normed) = with_tensor(OP, x, |stream| {
        with_tensor(OP, &y, |y| {
            let sum = Output::new(stream.device(), x.shape(), stream.dtype())?;
            let normed = Output::new(stream.device(), x.shape(), written)?;
            let addition = Addition {
                float: float(OP, y.dtype())?,
                y: y.ptr(),
                gate: optional(gate.as_ref()),
                sum: sum.ptr(),
            };
            let rows = Normed::Float(float(OP, written)?, normed.ptr());
            let stream_at = (float(OP, stream.dtype())?, stream.ptr());
            let kernel =
                ops::residual_layer_norm(stream_at, Some(addition), rows, sides.places(), shape, eps);
            launch(stream.device(), &kernel.ok_or_else(|| no_kernel(OP, stream, y))?)?;
            Ok((sum.into_tensor(), normed.into_tensor()))
        })
    })?;
    Ok((sum, normed.to_dtype(dtype)?))
}

fn no_kernel(op: &str, x: &Input<'_>, y: &Input<'_>) -> Error {
    Error::Msg(format!("{op}: no kernel adds {:?} to {:?}", y.dtype(), x.dtype()))
}
