use candle_core::cuda_backend::CudaStorage;
use candle_core::{CustomOp1, Layout, Result, Shape, bail};
use wan_cuda::ops::{self, MOST_CHANNELS};

use super::ChannelNorm;
use crate::cuda::{Input, Output, Side, float, function, launch};

pub(super) fn forward(
    op: &ChannelNorm<'_>,
    x: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let channels = layout.dims().last().copied().unwrap_or(1);
    if channels > MOST_CHANNELS {
        bail!("{}: found {channels} channels on cuda, expected at most {MOST_CHANNELS}", op.name());
    }
    let (input, gamma) = (Input::new(x, layout)?, Side::new("channel_rms_norm", op.gamma)?);
    let output = Output::new(input.device(), layout.shape(), input.dtype())?;
    let float = float(op.name(), input.dtype())?;
    let places = [input.ptr(), gamma.ptr(), output.ptr()];
    let voxels = layout.shape().elem_count() / channels.max(1);
    launch(input.device(), &ops::channel_norm(float, places, voxels, channels, function(op.activation)))?;
    Ok(output.finish())
}
