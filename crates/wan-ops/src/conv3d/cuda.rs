use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use wan_cuda::DevPtr;
use wan_cuda::gpu::Gpu;
use wan_cuda::ops::{self, ConvGeometry, ConvPlaces};

use super::Convolution;
use super::weight::{packed_rows, packed_tiles};
use crate::cuda::{Input, Output, Side, float, launch, with_tensor};

/// A layer's weight as kernels read it.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    /// As that of compute capability 9.0 does.
    tiled: bool,
    values: Tensor,
}

pub(super) fn forward(
    op: &Convolution<'_>,
    x: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let (input, spec) = (Input::new(x, layout)?, &op.layer.spec);
    let dtype = input.dtype();
    let float = float(op.name(), dtype)?;
    let device = input.device();
    let [top, _, left, _] = spec.padding;
    let (frames, height, width, inputs) = layout.shape().dims4()?;
    let [out_frames, out_height, out_width, outputs] = op.out;
    let mut geometry = ConvGeometry {
        input: [frames, height, width],
        past: 0,
        inputs,
        outputs,
        kernel: spec.kernel,
        stride: spec.stride,
        front: [spec.front, top, left],
        upsample: spec.upsample,
        output: [out_frames, out_height, out_width],
    };
    let tiled = Gpu::of(device)?.has("conv3d_sm90_bf16") && ops::conv3d_sm90_fits(float, &geometry);
    let weight = packed(op, dtype, device, tiled)?;
    let bias = Side::new(op.name(), &op.layer.bias)?;
    let like_input = |t: Option<&Tensor>| t.map(|t| t.to_dtype(dtype)).transpose();
    let (history, residual) = (like_input(op.history)?, like_input(op.residual)?);
    let output = Output::new(device, op.out.as_slice(), dtype)?;
    with_tensor(op.name(), &weight, |weight| {
        with_optional(op.name(), history.as_ref(), |past, history| {
            with_optional(op.name(), residual.as_ref(), |_, residual| {
                geometry.past = past;
                let (x, y) = (input.ptr(), output.ptr());
                let places = ConvPlaces { x, history, weight: weight.ptr(), bias: bias.ptr(), residual, y };
                // The weight is made for one of the kernels.
                let kernel = match tiled {
                    true => ops::conv3d_sm90(float, &geometry, &places),
                    false => Some(ops::conv3d(float, &geometry, &places)),
                };
                match kernel {
                    Some(kernel) => launch(device, &kernel),
                    None => bail!(
                        "{}: found values that do not start at multiples of 16 bytes, expected those of whole rows",
                        op.name()
                    ),
                }
            })
        })
    })?;
    Ok(output.finish())
}

/// The layer's weight as the kernels read it, made at first use.
fn packed(op: &Convolution<'_>, dtype: DType, device: &CudaDevice, tiled: bool) -> Result<Tensor> {
    let kept = &op.layer.on_device;
    if let Some(weight) = kept.get()
        && weight.tiled == tiled
        && weight.values.dtype() == dtype
    {
        return Ok(weight.values.clone());
    }
    let pack = if tiled { packed_tiles } else { packed_rows };
    let values = pack(&op.layer.weight, dtype, &Device::Cuda(device.clone()))?;
    // Another one is there already: this one is made again each time.
    let _ = kept.set(Weight { tiled, values: values.clone() });
    Ok(values)
}

/// Calls `with` with the length of a tensor's first axis and where it starts; 0 and null for none.
fn with_optional<T>(
    op: &str,
    tensor: Option<&Tensor>,
    with: impl FnOnce(usize, DevPtr) -> Result<T>,
) -> Result<T> {
    match tensor {
        Some(tensor) => with_tensor(op, tensor, |input| with(tensor.dim(0)?, input.ptr())),
        None => with(0, DevPtr::NULL),
    }
}
