//! Opening an NVIDIA GPU.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use candle_core::Device;
use candle_core::cuda_backend::cudarc::cublaslt::sys::cublasLtGetCudartVersion;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUmemPool_attribute as PoolAttribute, CUresult, cuDriverGetVersion,
};
use candle_core::cuda_backend::cudarc::driver::{DriverError, result};

use super::GpuInfo;

/// The GPU of this ordinal, the same device every time: kernels, weights and scratch belong to it.
///
/// Errors: why it cannot be used, and what to do.
pub(super) fn open(ordinal: usize) -> Result<Device, String> {
    static OPEN: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&ordinal) {
        return Ok(device.clone());
    }
    check_driver()?;
    check_gpu(ordinal)?;
    let device = Device::new_cuda_with_stream(ordinal).map_err(|e| format!("cannot be opened: {e}"))?;
    prepare(&device).map_err(|e| format!("memory pool: {}", describe(e)))?;
    open.insert(ordinal, device.clone());
    Ok(device)
}

/// Bytes free on a GPU, as its driver counts them: what the pool keeps for later is not free.
pub(super) fn free_bytes(device: &Device) -> Option<u64> {
    memory(device).map(|(free, _)| free)
}

/// Bytes free and in all.
fn memory(device: &Device) -> Option<(u64, u64)> {
    let Device::Cuda(cuda) = device else { return None };
    cuda.cuda_stream().context().bind_to_thread().ok()?;
    let (free, total) = result::mem_get_info().ok()?;
    Some((free as u64, total as u64))
}

pub(super) fn info(device: &Device) -> Option<GpuInfo> {
    let (free_bytes, total_bytes) = memory(device)?;
    let Device::Cuda(cuda) = device else { return None };
    let name = result::device::get_name(cuda.cuda_stream().context().cu_device()).ok()?;
    Some(GpuInfo { name, total_bytes, free_bytes })
}

/// The libraries, and a driver as new as the CUDA libraries' major version.
fn check_driver() -> Result<(), String> {
    match wan_cuda_libs::missing() {
        Some(library) if library.starts_with("libcuda.so") => {
            return Err("this machine has no NVIDIA driver: install it, or use --device cpu".into());
        }
        Some(library) => {
            return Err(format!(
                "{library} not found: install the CUDA libraries, or name their folder in LD_LIBRARY_PATH"
            ));
        }
        None => {}
    }
    result::init().map_err(describe)?;
    let mut driver = 0;
    // SAFETY: writes one integer.
    #[allow(unsafe_code)]
    unsafe { cuDriverGetVersion(&raw mut driver) }.result().map_err(describe)?;
    // SAFETY: takes no arguments.
    #[allow(unsafe_code)]
    let libraries = unsafe { cublasLtGetCudartVersion() } as i32;
    let version = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
    if driver / 1000 < libraries / 1000 {
        return Err(format!(
            "the driver is for CUDA {}, the CUDA libraries of this program are {}: update the NVIDIA driver",
            version(driver),
            version(libraries)
        ));
    }
    Ok(())
}

/// A GPU of this ordinal, of compute capability 8.0 or later, with memory pools.
fn check_gpu(ordinal: usize) -> Result<(), String> {
    let count = usize::try_from(result::device::get_count().map_err(describe)?).unwrap_or(0);
    if count == 0 {
        return Err("the driver finds no NVIDIA GPU in this machine: use --device cpu".into());
    }
    if ordinal >= count {
        return Err(format!("found {count} GPUs, expected a number below that"));
    }
    let gpu = result::device::get(ordinal as i32).map_err(describe)?;
    let attribute = |a| {
        // SAFETY: the device was just handed out by the driver.
        #[allow(unsafe_code)]
        unsafe { result::device::get_attribute(gpu, a) }.map_err(describe)
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    if major < 8 {
        let name = result::device::get_name(gpu).map_err(describe)?;
        return Err(format!(
            "{name} has compute capability {major}.{minor}, expected 8.0 or later (RTX 30 series, A100): use --device cpu"
        ));
    }
    if attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? == 0 {
        let name = result::device::get_name(gpu).map_err(describe)?;
        return Err(format!(
            "{name} has no memory pools, as a part of a GPU that a hypervisor hands out may have none: use a whole GPU, or \
             --device cpu"
        ));
    }
    Ok(())
}

/// Sets up the device before its first allocation: one compute stream whose order is enough (candle's events for
/// every tensor are switched off), and a pool that keeps freed memory instead of giving it back at every
/// synchronisation.
fn prepare(device: &Device) -> Result<(), DriverError> {
    let Device::Cuda(cuda) = device else { return Ok(()) };
    // SAFETY: all of candle's tensors are used on the device's own stream; copies on other streams are ordered with
    // events by whoever starts them.
    #[allow(unsafe_code)]
    unsafe {
        cuda.disable_event_tracking();
    }
    let stream = cuda.cuda_stream();
    let mut keep = u64::MAX;
    // SAFETY: the device is open, and the attribute is a 64-bit number.
    #[allow(unsafe_code)]
    unsafe {
        let pool = result::device::get_default_mem_pool(stream.context().cu_device())?;
        let threshold = PoolAttribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, threshold, (&raw mut keep).cast::<c_void>())
    }
}

/// The driver's answer in words.
fn describe(error: DriverError) -> String {
    match error.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => {
            "the driver finds no NVIDIA GPU in this machine: use --device cpu".into()
        }
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "the CUDA driver's stub was found instead of the driver: install the NVIDIA driver".into()
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "the NVIDIA driver's library and kernel module differ in version: reboot, or reinstall the driver"
                .into()
        }
        _ => format!("{error}"),
    }
}
