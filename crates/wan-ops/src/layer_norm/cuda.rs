use candle_core::cuda_backend::CudaStorage;
use candle_core::{CustomOp1, D, DType, Error, Layout, Result, Shape, Tensor};
use wan_cuda::ops::{self, Addition, Normed};

use super::{Affine, LayerNorm, StreamNorm};
use crate::cuda::{Input, Output, Side, check_row, float, launch, optional, with_tensor};
use crate::rows::cuda::Codes;
use crate::sums::cuda::Pending;
use crate::{RowFormat, Rows, Sums, rows};

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
    check_row(op.name(), dim)?;
    let rows = layout.shape().elem_count() / dim.max(1);
    let output = Output::new(input.device(), layout.shape(), input.dtype())?;
    let norm = ops::layer_norm(float, input.ptr(), output.ptr(), rows, dim, op.eps, sides.places());
    launch(input.device(), &norm)?;
    Ok(output.finish())
}

/// `y` as it can be added to the stream `x`: in its own dtype to f32, else in the stream's.
fn addend(x: &Tensor, y: &Sums) -> Result<Sums> {
    match (x.dtype(), y.dtype()) {
        (DType::F32, DType::F32 | DType::BF16 | DType::F16) => Ok(y.clone()),
        (stream, dtype) if stream == dtype => Ok(y.clone()),
        (stream, _) => Ok(y.finish()?.to_dtype(stream)?.into()),
    }
}

pub(super) fn gated_residual(x: &Tensor, y: &Sums, gate: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "gated_residual";
    let y = addend(x, y)?;
    let (pending, gate) = (Pending::new(OP, &y)?, Side::option(OP, gate)?);
    let shape = [x.elem_count() / x.dim(D::Minus1)?.max(1), x.dim(D::Minus1)?];
    with_tensor(OP, x, |stream| {
        with_tensor(OP, y.bare(), |y| {
            let sum = Output::new(stream.device(), x.shape(), stream.dtype())?;
            let y_at = pending.of(float(OP, y.dtype())?, y.ptr());
            let addition = Addition { y: y_at, gate: optional(gate.as_ref()), sum: sum.ptr() };
            let kernel = ops::gated_residual((float(OP, stream.dtype())?, stream.ptr()), addition, shape);
            launch(stream.device(), &kernel.ok_or_else(|| no_kernel(OP, stream, y))?)?;
            Ok(sum.into_tensor())
        })
    })
}

pub(super) fn stream_norm(norm: &StreamNorm<'_>) -> Result<(Tensor, Rows)> {
    const OP: &str = "residual_layer_norm";
    let (x, dim) = (norm.x, norm.x.dims2()?.1);
    check_row(OP, dim)?;
    let added = norm.addition.map(|(y, gate)| {
        let y = addend(x, y)?;
        let pending = Pending::new(OP, &y)?;
        Ok::<_, Error>((y, pending, Side::option(OP, gate)?))
    });
    let added = added.transpose()?;
    let written = written(x.dtype(), added.as_ref().map(|(y, ..)| y.dtype()), norm.format);
    let (sum, normed) = with_tensor(OP, x, |stream| match &added {
        None => Ok((x.clone(), launch_norm(norm, stream, None, written)?)),
        Some((y, pending, gate)) => with_tensor(OP, y.bare(), |y| {
            let sum = Output::new(stream.device(), x.shape(), stream.dtype())?;
            let y = pending.of(float(OP, y.dtype())?, y.ptr());
            let addition = Addition { y, gate: optional(gate.as_ref()), sum: sum.ptr() };
            let rows = launch_norm(norm, stream, Some(addition), written)?;
            Ok((sum.into_tensor(), rows))
        }),
    })?;
    let normed = match (normed, norm.format) {
        (Rows::Float(values), RowFormat::Float(dtype)) => Rows::Float(values.to_dtype(dtype)?),
        (Rows::Float(values), RowFormat::Quantised(dtype)) => {
            rows::cuda::quantise(&values.to_dtype(dtype)?)?.into()
        }
        (quantised, _) => quantised,
    };
    Ok((sum, normed))
}

/// The format in which the kernel writes: that asked for where there is a kernel, else a float that is then converted.
/// An f32 stream is normalised to FP8, f32 or the addend's dtype, to any if that is f32 too; a bf16 stream to FP8 or its
/// own dtype, an f16 stream to its own.
fn written(stream: DType, addend: Option<DType>, asked: RowFormat) -> RowFormat {
    let floats = [DType::F32, DType::BF16, DType::F16];
    let direct = match (stream, addend.unwrap_or(stream), asked) {
        (DType::F16, ..) => false,
        (_, _, RowFormat::Quantised(_)) => true,
        (DType::F32, DType::F32, RowFormat::Float(dtype)) => floats.contains(&dtype),
        (DType::F32, y, RowFormat::Float(dtype)) => [DType::F32, y].contains(&dtype),
        _ => false,
    };
    if direct { asked } else { RowFormat::Float(stream) }
}

fn launch_norm(
    norm: &StreamNorm<'_>,
    stream: &Input<'_>,
    addition: Option<Addition>,
    format: RowFormat,
) -> Result<Rows> {
    const OP: &str = "residual_layer_norm";
    let shape = norm.x.dims2()?;
    let sides = Sides::new(OP, norm.affine)?;
    let run = |normed| {
        let stream_at = (float(OP, stream.dtype())?, stream.ptr());
        let [rows, dim] = [shape.0, shape.1];
        let kernel =
            ops::residual_layer_norm(stream_at, addition, normed, sides.places(), [rows, dim], norm.eps);
        let none = || Error::Msg(format!("{OP}: no kernel writes {format:?} from {:?}", stream.dtype()));
        launch(stream.device(), &kernel.ok_or_else(none)?)
    };
    match format {
        RowFormat::Float(dtype) => {
            let normed = Output::new(stream.device(), shape, dtype)?;
            run(Normed::Float(float(OP, dtype)?, normed.ptr()))?;
            Ok(Rows::Float(normed.into_tensor()))
        }
        RowFormat::Quantised(dtype) => {
            let codes = Codes::new(stream.device(), shape)?;
            let [at, scale] = codes.places();
            run(Normed::Quantised { codes: at, scale })?;
            Ok(codes.finish(dtype).into())
        }
    }
}

fn no_kernel(op: &str, x: &Input<'_>, y: &Input<'_>) -> Error {
    Error::Msg(format!("{op}: no kernel adds {:?} to {:?}", y.dtype(), x.dtype()))
}
