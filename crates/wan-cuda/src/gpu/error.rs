use candle_core::cuda_backend::cudarc::cublaslt::result::CublasError;
use candle_core::cuda_backend::cudarc::driver::DriverError;

/// Why a kernel does not run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GpuError {
    /// The GPU is too old.
    #[error("gpu: found compute capability {}.{}, expected 8.0 or later (RTX 30 series, A100)", found.0, found.1)]
    Capability {
        /// Its (major, minor).
        found: (u32, u32),
    },
    /// The build has no kernels for it.
    #[error(
        "gpu: found compute capability {}.{}, expected what this program was built for ({built}): build it with \
         WAN_RUN_CUDA_ARCHS={}{}, or without that variable for all",
        found.0, found.1, found.0, found.1
    )]
    Unbuilt {
        /// Its (major, minor).
        found: (u32, u32),
        /// What there are images for.
        built: String,
    },
    /// No image of this GPU has the kernel.
    #[error("kernel {kernel}: not built for compute capability {}.{}", capability.0, capability.1)]
    Kernel {
        /// Its name.
        kernel: &'static str,
        /// The GPU's (major, minor).
        capability: (u32, u32),
    },
    /// The driver's answer.
    #[error("{what}: {source}")]
    Driver {
        /// What was asked for: a kernel, a file of kernels.
        what: String,
        /// The answer.
        source: DriverError,
    },
    /// The system gives no more memory that a GPU can read by itself.
    #[error("pinned main memory: {bytes} bytes refused ({answer}): swap fewer blocks, or free main memory")]
    Pinned {
        /// What was asked for.
        bytes: usize,
        /// The driver's answer; it is about main memory, whatever it says.
        answer: DriverError,
    },
    /// cublasLt's answer.
    #[error("{what}: {source}")]
    Blas {
        /// The product.
        what: String,
        /// The answer.
        source: CublasError,
    },
}

impl GpuError {
    /// Names what the driver refused.
    pub(crate) fn driver(what: &str) -> impl Fn(DriverError) -> Self + use<'_> {
        move |source| Self::Driver { what: what.into(), source }
    }

    /// Names what cublasLt refused.
    pub(crate) fn blas(what: &str) -> impl Fn(CublasError) -> Self + use<'_> {
        move |source| Self::Blas { what: what.into(), source }
    }
}

impl From<GpuError> for candle_core::Error {
    fn from(error: GpuError) -> Self {
        Self::Cuda(Box::new(error)) // with its type: what is out of memory is told from the rest
    }
}
