use candle_core::cuda_backend::cudarc::cublaslt::result::CublasError;
use candle_core::cuda_backend::cudarc::cublaslt::sys::cublasStatus_t;
use candle_core::cuda_backend::cudarc::driver::DriverError;
use candle_core::cuda_backend::cudarc::driver::sys::CUresult;

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
         WAN_RUN_CUDA_ARCHS={}, or without that variable for all",
        found.0, found.1, architecture(*found)
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

/// What a build for a GPU of this capability is asked for by.
fn architecture((major, minor): (u32, u32)) -> String {
    match (major, minor) {
        (9, 0) => "90a".into(),
        (8, 0 | 6 | 9) | (10 | 12, 0) => format!("{major}{minor}"),
        _ => "ptx".into(),
    }
}

impl GpuError {
    /// Names what the driver refused.
    pub(crate) fn driver(what: &str) -> impl Fn(DriverError) -> Self + use<'_> {
        move |source| Self::Driver { what: what.into(), source }
    }

    /// Whether there was no room on the GPU.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Driver { source, .. } => source.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY,
            Self::Blas { source, .. } => source.0 == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED,
            _ => false,
        }
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
