use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorage;
use candle_core::{CustomOp1, Layout, Result, Shape};
use wan_cuda::ops::{self, Sums};

use super::Activate;
use crate::cuda::{Input, Output, float, function, launch};

pub(super) fn forward(op: &Activate, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let float = float(op.name(), x.dtype())?;
    let input = Input::new(x, layout)?;
    let output = Output::new(input.device(), layout.shape(), input.dtype())?;
    let (plain, count) = (Sums::plain(float, input.ptr()), layout.shape().elem_count());
    launch(input.device(), &ops::activate(plain, output.ptr(), 1, count, function(op.activation)))?;
    Ok(output.finish())
}
