//! What the process has taken of a device and of main memory.

use candle_core::Device;
use wan_core::memory::anonymous_bytes;
use wan_pipeline::Result;

/// Bytes in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// Main memory that the process allocated.
    pub host: u64,
    /// Device memory that tensors occupy.
    pub device: u64,
}

/// What is in use now.
///
/// Errors: the driver's.
pub(crate) fn used(device: &Device) -> Result<Used> {
    Ok(Used { host: anonymous_bytes().unwrap_or(0), device: device_memory(device)?.map_or(0, |m| m.0) })
}

/// The most device memory that tensors have occupied since [`forget_peak`], in bytes; nothing on the CPU.
///
/// Errors: the driver's.
pub(crate) fn device_peak(device: &Device) -> Result<Option<u64>> {
    Ok(device_memory(device)?.map(|m| m.1))
}

/// Begins a new peak.
///
/// Errors: the driver's.
pub(crate) fn forget_peak(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
        gpu.forget_peak().map_err(candle_core::Error::from)?;
    }
    let _ = device;
    Ok(())
}

/// Bytes in use and their peak.
fn device_memory(device: &Device) -> Result<Option<(u64, u64)>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
        let pool = gpu.pool_memory().map_err(candle_core::Error::from)?;
        return Ok(Some((pool.used, pool.peak)));
    }
    let _ = device;
    Ok(None)
}
