//! What is taken from the device's memory pool.

use candle_core::cuda_backend::cudarc::driver::result::{self, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute as Attribute;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemoryPool;

use super::{Gpu, GpuError};

/// Bytes of the pool that all tensors, weights and scratch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolMemory {
    /// In use.
    pub used: u64,
    /// The most that was in use since [`Gpu::forget_peak`].
    pub peak: u64,
    /// The most that the pool has held since then, what it keeps for later included: what other programs see.
    pub reserved_peak: u64,
}

impl Gpu {
    /// What the pool has handed out. Freed memory counts until the stream has passed its freeing.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn pool_memory(&self) -> Result<PoolMemory, GpuError> {
        self.device().cuda_stream().synchronize().map_err(GpuError::driver("memory pool"))?;
        let read = |attribute| -> Result<u64, GpuError> {
            let mut bytes = 0u64;
            // SAFETY: the pool is the device's default one, and the attribute is a 64-bit number.
            #[allow(unsafe_code)]
            unsafe { mem_pool::get_attribute(self.pool()?, attribute, (&raw mut bytes).cast()) }
                .map_err(GpuError::driver("memory pool"))?;
            Ok(bytes)
        };
        Ok(PoolMemory {
            used: read(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            peak: read(Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
            reserved_peak: read(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
        })
    }

    /// Begins a new peak at what is in use now.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn forget_peak(&self) -> Result<(), GpuError> {
        let fail = GpuError::driver("memory pool");
        self.device().cuda_stream().synchronize().map_err(&fail)?;
        for attribute in
            [Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH]
        {
            let mut zero = 0u64;
            // SAFETY: as above; 0 is the only value that the driver takes, and means a reset.
            #[allow(unsafe_code)]
            unsafe { mem_pool::set_attribute(self.pool()?, attribute, (&raw mut zero).cast()) }
                .map_err(&fail)?;
        }
        Ok(())
    }

    fn pool(&self) -> Result<CUmemoryPool, GpuError> {
        let device = self.device().cuda_stream().context().cu_device();
        // SAFETY: the device is open.
        #[allow(unsafe_code)]
        unsafe { result::device::get_default_mem_pool(device) }.map_err(GpuError::driver("memory pool"))
    }
}
