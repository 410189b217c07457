use std::error::Error;

use candle_core::cuda_backend::CudaError;
use candle_core::cuda_backend::cudarc::cublas::{result::CublasError, sys::cublasStatus_t as BlasStatus};
use candle_core::cuda_backend::cudarc::cublaslt::result::CublasError as CublasLtError;
use candle_core::cuda_backend::cudarc::cublaslt::sys::cublasStatus_t as BlasLtStatus;
use candle_core::cuda_backend::cudarc::driver::DriverError;
use candle_core::cuda_backend::cudarc::driver::sys::CUresult;

/// Whether an error, or one that it was caused by, is the answer of a GPU whose memory is used up.
pub(crate) fn out_of_memory(error: &(dyn Error + 'static)) -> bool {
    is_answer(error) || error.source().is_some_and(out_of_memory)
}

fn is_answer(error: &(dyn Error + 'static)) -> bool {
    let driver = |error: &DriverError| error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    let blas = |error: &CublasError| error.0 == BlasStatus::CUBLAS_STATUS_ALLOC_FAILED;
    if let Some(error) = error.downcast_ref::<CudaError>() {
        // Candle's error is transparent: what it wraps is not its source.
        return match error {
            CudaError::Cuda(error) | CudaError::Load { cuda: error, .. } => driver(error),
            CudaError::Cublas(error) => blas(error),
            _ => false,
        };
    }
    if let Some(error) = error.downcast_ref::<CublasLtError>() {
        return error.0 == BlasLtStatus::CUBLAS_STATUS_ALLOC_FAILED;
    }
    error.downcast_ref().is_some_and(driver) || error.downcast_ref().is_some_and(blas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("a kernel")]
    struct Caused<E: Error + 'static>(#[source] E);

    fn engine_error(error: impl Error + Send + Sync + 'static) -> crate::Error {
        candle_core::Error::Cuda(Box::new(error)).context("an op").into()
    }

    #[test]
    fn full_memory_is_told_from_other_failures() {
        let full = DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let broken = DriverError(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        let blas = CublasError(BlasStatus::CUBLAS_STATUS_ALLOC_FAILED);
        let other_blas = CublasError(BlasStatus::CUBLAS_STATUS_INVALID_VALUE);
        let blas_lt = CublasLtError(BlasLtStatus::CUBLAS_STATUS_ALLOC_FAILED);
        let other_blas_lt = CublasLtError(BlasLtStatus::CUBLAS_STATUS_NOT_SUPPORTED);
        let is_full = |error| matches!(error, crate::Error::OutOfMemory(_));
        assert!(is_full(engine_error(full)));
        assert!(is_full(engine_error(Caused(full))));
        assert!(is_full(engine_error(CudaError::Cuda(full))));
        assert!(is_full(engine_error(blas)) && is_full(engine_error(CudaError::Cublas(blas))));
        assert!(is_full(engine_error(Caused(blas_lt))));
        assert!(!is_full(engine_error(broken)) && !is_full(engine_error(Caused(broken))));
        assert!(!is_full(engine_error(CudaError::Cuda(broken))));
        assert!(!is_full(engine_error(other_blas)) && !is_full(engine_error(Caused(other_blas_lt))));
        assert!(!is_full(candle_core::Error::msg("CUDA_ERROR_OUT_OF_MEMORY").into()));
    }
}
