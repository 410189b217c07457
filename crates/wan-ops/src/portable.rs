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
