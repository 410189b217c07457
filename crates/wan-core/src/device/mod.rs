//! The device a job runs on.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod out_of_memory;

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// A device as the user names it: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A GPU if this build and this machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of this ordinal.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| Error::invalid("device", format!("`{s}`"), "auto, cpu, cuda or cuda:N")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// An open device.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The device.
    pub device: Device,
    /// What the user should know: that a GPU which could have been used is not, and why.
    pub note: Option<String>,
}

impl DeviceChoice {
    /// Opens the device. A GPU is opened once in a process: later calls give the same device.
    ///
    /// Errors: [`Error::Device`] for `cuda`, with the reason: a build for the CPU only, no driver, no GPU, an old
    /// driver, an old GPU. `auto` falls back to the CPU instead, with a note where this build could use GPUs.
    pub fn open(self) -> Result<Opened> {
        let opened = |device| Opened { device, note: None };
        match self {
            Self::Cpu => Ok(opened(Device::Cpu)),
            Self::Cuda(ordinal) => match open_cuda(ordinal) {
                Ok(device) => Ok(opened(device)),
                Err(reason) => Err(Error::Device { device: self.to_string(), reason }),
            },
            Self::Auto if cfg!(feature = "cuda") => Ok(match open_cuda(0) {
                Ok(device) => opened(device),
                Err(reason) => Opened {
                    device: Device::Cpu,
                    note: Some(format!("computing on the CPU; no GPU: {reason}")),
                },
            }),
            Self::Auto => Ok(opened(Device::Cpu)),
        }
    }
}

#[cfg(feature = "cuda")]
use cuda::open as open_cuda;
#[cfg(feature = "cuda")]
pub(crate) use out_of_memory::out_of_memory;

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<Device, String> {
    Err("this build computes on the CPU only: build one for NVIDIA GPUs with `make build-cuda`, or use --device cpu"
        .into())
}

/// A GPU, as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its name: `NVIDIA H200`.
    pub name: String,
    /// Its memory.
    pub total_bytes: u64,
    /// What of that is free at present.
    pub free_bytes: u64,
}

/// What the driver says of a GPU; nothing for the CPU.
pub fn gpu_info(device: &Device) -> Option<GpuInfo> {
    #[cfg(feature = "cuda")]
    return cuda::info(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// Bytes that a GPU has free at present, where its driver tells; nothing for the CPU.
pub fn free_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    return cuda::free_bytes(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// Whether a device answers no more, as a GPU after an illegal access or a fault of its own: then every later call fails,
/// and only another process can use it. Waits for what it computes.
pub fn is_lost(device: &Device) -> bool {
    // Nothing is allocated for it: a GPU that is full is not lost. An error that was left behind earlier is told once.
    let answers = || device.synchronize().is_ok();
    device.is_cuda() && !answers() && !answers()
}

/// A tensor in main memory, all of it there: the driver may return from a copy into plain memory before it is done, and candle
/// does not wait. Of a view no more than itself is copied.
///
/// Errors: the driver's.
pub fn to_host(tensor: &Tensor) -> candle_core::Result<Tensor> {
    if tensor.device().is_cpu() {
        return Ok(tensor.clone());
    }
    let host = tensor.contiguous()?.to_device(&Device::Cpu)?;
    tensor.device().synchronize()?;
    Ok(host)
}

/// The dtype that activations have on a device: bf16 on GPUs, f32 on the CPU, which would emulate bf16.
pub fn compute_dtype(device: &Device) -> DType {
    if device.is_cpu() { DType::F32 } else { DType::BF16 }
}

/// A compute dtype as the user names it: `f32`, `bf16` or `f16`.
///
/// Errors: [`Error::Invalid`] for any other name.
pub fn parse_dtype(s: &str) -> Result<DType> {
    match s {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        "f16" => Ok(DType::F16),
        _ => Err(Error::invalid("dtype", format!("`{s}`"), "f32, bf16 or f16")),
    }
}
