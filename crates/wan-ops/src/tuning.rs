use std::path::Path;

use candle_core::Device;
use wan_core::Result;

/// Keeps the choice of matrix-product algorithms, which takes some milliseconds for each new shape, in `folder`: one file
/// for each GPU, driver and library. Nothing on the CPU.
///
/// Returns what the user should know: why a file that is there is not used.
///
/// Errors: a GPU that cannot be used.
pub fn keep_tuning(device: &Device, folder: &Path) -> Result<Option<String>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
        return Ok(gpu.keep_tuning(folder).err().map(|error| error.to_string()));
    }
    let _ = (device, folder);
    Ok(None)
}
