use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::{CU_MEMHOSTALLOC_WRITECOMBINED, CUresult};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, result};

use super::{Gpu, GpuError};

/// Main memory that the GPU reads by itself, at the full rate of its link and beside everything else.
///
/// It is write-combined: the host writes it once, from front to back, and never reads it.
pub struct Pinned {
    start: *mut u8,
    bytes: usize,
    context: Arc<CudaContext>,
}

// SAFETY: plain memory, changed only through `&mut`; the driver takes its address from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Pinned {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `bytes` bytes of any content.
    ///
    /// Errors: [`GpuError::Pinned`] where the system does not give them; [`GpuError::Driver`].
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self, GpuError> {
        let context = gpu.device().cuda_stream().context().clone();
        let fail = GpuError::driver("pinned main memory");
        context.bind_to_thread().map_err(&fail)?;
        // SAFETY: a context is bound to this thread.
        #[allow(unsafe_code)]
        let start = unsafe { result::malloc_host(bytes.max(1), CU_MEMHOSTALLOC_WRITECOMBINED) };
        let start = start.map_err(|answer| match answer.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY
            | CUresult::CUDA_ERROR_OPERATING_SYSTEM
            | CUresult::CUDA_ERROR_INVALID_VALUE => GpuError::Pinned { bytes, answer },
            // Left behind by something else, such as a kernel that failed.
            _ => fail(answer),
        })?;
        Ok(Self { start: start.cast(), bytes, context })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn start(&self) -> *const u8 {
        self.start
    }
}

impl AsMut<[u8]> for Pinned {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the driver handed out that many bytes, mapped and zeroed by the system or left by an earlier owner;
        // every bit pattern is a byte.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.start, self.bytes)
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Binding also tells, once, of an error that something else left behind.
        if self.context.bind_to_thread().or_else(|_| self.context.bind_to_thread()).is_ok() {
            // SAFETY: from `malloc_host`, once. A context that is gone took the memory with it.
            #[allow(unsafe_code)]
            let _ = unsafe { result::free_host(self.start.cast::<c_void>()) };
        }
    }
}
