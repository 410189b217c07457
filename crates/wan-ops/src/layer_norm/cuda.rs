use candle_core::cuda_backend::CudaStorage;
use candle_core::{CustomOp1, Layout, Result, Shape};
use wan_cuda::ops;

use super::{Affine, LayerNorm};
use crate::cuda::{Input, Output, Side, float, launch};

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
