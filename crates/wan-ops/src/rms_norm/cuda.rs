use candle_core::cuda_backend::CudaStorage;
use candle_core::{Layout, Result, Shape};
use wan_cuda::ops::{self, Rotation};

use super::RmsNorm;
use crate::cuda::{Input, Output, Side, check_row, float, launch};
use crate::sums::cuda::Pending;

/// Normalises the rows of `x`; with `rope`, rotates them too.
pub(super) fn rms_norm(
    op: &RmsNorm<'_>,
    (x, layout): (&CudaStorage, &Layout),
    rope: Option<(&CudaStorage, &Layout)>,
) -> Result<(CudaStorage, Shape)> {
    const OP: &str = "rms_norm";
    let dim = layout.dims().last().copied().unwrap_or(1);
    check_row(OP, dim)?;
    let shape = [layout.shape().elem_count() / dim.max(1), dim];
    let (input, weight) = (Input::new(x, layout)?, Side::new(OP, op.weight)?);
    let table = rope.map(|(rope, layout)| Input::new(rope, layout)).transpose()?;
    let rotation =
        rope.zip(table.as_ref()).map(|((_, l), t)| Rotation { table: t.ptr(), head: 2 * l.dims()[1] });
    let output = Output::new(input.device(), layout.shape(), input.dtype())?;
    let pending = Pending::new(OP, op.x)?;
    let sums = pending.of(float(OP, input.dtype())?, input.ptr());
    let places = [weight.ptr(), output.ptr()];
    launch(input.device(), &ops::rms_norm(sums, places, rotation, shape, op.eps))?;
    Ok(output.finish())
}
