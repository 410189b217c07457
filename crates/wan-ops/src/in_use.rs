use candle_core::Device;
use wan_core::Result;

use crate::Numerics;

/// What a GPU makes of `numerics`, in words for people: its name, how weights are multiplied and which attention the
/// DiT's self-attention uses for heads of `head_dim` channels. `None` on the CPU, where nothing is chosen.
///
/// `in_fp8`: whether any of the weights is multiplied in FP8.
///
/// Errors: a GPU that cannot be used.
pub fn numerics_in_use(
    device: &Device,
    numerics: Numerics,
    head_dim: usize,
    in_fp8: bool,
) -> Result<Option<String>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return gpu::in_use(device, numerics, head_dim, in_fp8).map(Some);
    }
    let _ = (device, numerics, head_dim, in_fp8);
    Ok(None)
}

/// Why cuDNN's attention cannot be used on a device; `None` where it can, and on the CPU, where another is used.
///
/// Errors: a GPU that cannot be used.
pub fn cudnn_missing(device: &Device) -> Result<Option<String>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
        return Ok(wan_cuda::gpu::Cudnn::of(&gpu).err().map(|error| error.to_string()));
    }
    let _ = device;
    Ok(None)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::cuda_backend::CudaDevice;
    use wan_core::Result;
    use wan_cuda::gpu::{Cudnn, Gemm, Gpu};
    use wan_cuda::ops::{SAGE_HEAD, SageKernel};

    use crate::attention::{cudnn_by_default, sage_kernel};
    use crate::{AttentionChoice, Numerics, Precision};

    pub(super) fn in_use(
        device: &CudaDevice,
        numerics: Numerics,
        head_dim: usize,
        in_fp8: bool,
    ) -> Result<String> {
        let gpu = Gpu::of(device).map_err(candle_core::Error::from)?;
        let name = device.cuda_stream().context().name().map_err(candle_core::Error::wrap)?;
        let fp8 = Gemm::fits_fp8(gpu.capability(), 16, 16);
        let precision = match numerics.precision {
            Precision::Bf16 => "bf16",
            Precision::Fp8 if in_fp8 => "fp8",
            Precision::Fp8 if fp8 => "bf16 (the weights are not in FP8 with one scale a matrix)",
            Precision::Fp8 => "bf16 (this GPU has no products in FP8)",
        };
        let attention = match numerics.attention {
            AttentionChoice::Exact => "exact",
            AttentionChoice::Cudnn => "cudnn",
            AttentionChoice::Auto if cudnn_by_default(&gpu) && Cudnn::of(&gpu).is_ok() => "cudnn",
            AttentionChoice::Auto => "exact",
            AttentionChoice::Sage if head_dim != SAGE_HEAD => {
                "exact (sage has no kernel for this model's heads)"
            }
            AttentionChoice::Sage => match sage_kernel(&gpu) {
                SageKernel::Hopper | SageKernel::Fp8 => "sage (scores in int8, values in FP8)",
                SageKernel::Half => {
                    "sage (scores in int8, values in f16: this GPU has no faster products for it)"
                }
            },
        };
        Ok(format!("{name}, precision {precision}, attention {attention}"))
    }
}
