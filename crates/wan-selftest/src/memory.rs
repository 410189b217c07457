//! What the process has taken of a device and of main memory.

use candle_core::Device;
use wan_core::memory::anonymous_bytes;
use wan_pipeline::Result;

use crate::Check;

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

/// The most device memory since [`forget_peak`], that of tensors and that with what the allocator keeps besides; nothing on
/// the CPU.
///
/// Errors: the driver's.
pub(crate) fn device_peak(device: &Device) -> Result<Vec<Check>> {
    const PEAKS: [&str; 2] = ["peak, GB", "peak with what is kept, GB"];
    let peaks = device_memory(device)?.map(|m| PEAKS.into_iter().zip(m.1));
    Ok(peaks.into_iter().flatten().map(|(what, bytes)| Check::info(what, bytes as f64 / 1e9)).collect())
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

/// Bytes in use; their peak, and that with what the allocator keeps.
fn device_memory(device: &Device) -> Result<Option<(u64, [u64; 2])>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
        let pool = gpu.pool_memory().map_err(candle_core::Error::from)?;
        return Ok(Some((pool.used, [pool.peak, pool.reserved_peak])));
    }
    let _ = device;
    Ok(None)
}
