use candle_core::Device;
use wan_core::Result;

/// Ops that have kernels for one kind of GPU alone: Hopper (H100, H200).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKernels {
    /// Attention, exact and in 8 bits.
    Attention,
    /// Convolution.
    Conv3d,
}

impl SpecialKernels {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Attention, Self::Conv3d];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Conv3d => "conv3d",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// Leaves out the kernels for one kind of GPU alone of these ops, on GPUs that are opened from now on: to tell whether they
/// are at fault, and to go on without them. Portable ones do the same, more slowly. Nothing in a build for the CPU.
pub fn use_portable_kernels(ops: &[SpecialKernels]) {
    #[cfg(feature = "cuda")]
    for op in ops {
        wan_cuda::gpu::use_portable_kernels(op.name());
    }
    let _ = ops;
}

/// The ops of which `device` has kernels of its own that are not left out; none on the CPU. No kernel is loaded for this:
/// they can still be left out.
///
/// Errors: a GPU that cannot be used.
pub fn special_kernels(device: &Device) -> Result<Vec<SpecialKernels>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let capability = wan_cuda::gpu::capability_of(device).map_err(candle_core::Error::from)?;
        let ops = wan_cuda::gpu::special_ops(capability);
        return Ok(SpecialKernels::ALL.into_iter().filter(|op| ops.contains(op.name())).collect());
    }
    let _ = device;
    Ok(Vec::new())
}

/// What the results of such kernels depend on, in words: the kernels, the GPU and its driver. `None` on the CPU.
pub fn special_kernels_on(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let machine = wan_cuda::gpu::machine(device);
        return Some(format!("{machine}, kernels {}", wan_cuda::gpu::KERNELS_DIGEST));
    }
    let _ = device;
    None
}
