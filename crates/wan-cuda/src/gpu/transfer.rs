//! Copies to the device beside its computations, and the events that order the two.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DevicePtr, result, sys};

use super::{Gpu, GpuError, Pinned};
use crate::DevPtr;

/// A mark in a stream that other streams, or the host, can wait for. Waiting for one that was never recorded ends at
/// once; recorded again, it stands for the later place.
pub struct Event(CudaEvent);

impl Event {
    /// An event that was not recorded.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let stream = gpu.device().cuda_stream();
        stream.context().new_event(None).map(Self).map_err(GpuError::driver("new event"))
    }

    /// Holds the host until the event has come.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.0.synchronize().map_err(GpuError::driver("wait for an event"))
    }
}

/// A stream for copies alone.
pub struct CopyStream(Arc<CudaStream>);

impl CopyStream {
    /// A new stream, ordered with no other.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let compute = gpu.device().cuda_stream();
        compute.context().new_stream().map(Self).map_err(GpuError::driver("new copy stream"))
    }

    /// Copies the first `bytes` bytes of `from` to `to`.
    ///
    /// Errors: [`GpuError::Driver`].
    ///
    /// # Panics
    /// If `from` is shorter.
    ///
    /// # Safety
    /// Both must be valid, and `from` unchanged, until the stream has passed the copy; `to` must have room.
    #[allow(unsafe_code)]
    pub unsafe fn copy(&self, from: &Pinned, bytes: usize, to: DevPtr) -> Result<(), GpuError> {
        assert!(bytes <= from.len(), "copy of {bytes} bytes from {}", from.len());
        if bytes == 0 {
            return Ok(());
        }
        let fail = GpuError::driver("copy to the device");
        self.0.context().bind_to_thread().map_err(&fail)?;
        // SAFETY: the slice is inside of `from`; the rest is the caller's promise.
        unsafe {
            let from = std::slice::from_raw_parts(from.start(), bytes);
            result::memcpy_htod_async(to.0 as sys::CUdeviceptr, from, self.0.cu_stream())
        }
        .map_err(fail)
    }

    /// Lets what follows on this stream wait for `event`.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn wait(&self, event: &Event) -> Result<(), GpuError> {
        self.0.wait(&event.0).map_err(GpuError::driver("wait on the copy stream"))
    }

    /// Records `event` behind what was put on this stream.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn record(&self, event: &Event) -> Result<(), GpuError> {
        event.0.record(&self.0).map_err(GpuError::driver("record on the copy stream"))
    }

    /// Holds the host until all copies are done. Where the driver reports an error nothing runs any more either.
    pub fn finish(&self) {
        // An error that was left behind earlier is told instead of waiting, once.
        let _ = self.0.synchronize().or_else(|_| self.0.synchronize());
    }
}

/// A piece of device memory for the weights of one part of a model. It is freed on the compute stream, behind what was
/// launched there.
pub struct DeviceSlab(Arc<CudaSlice<u8>>);

impl DeviceSlab {
    /// `bytes` bytes of any content. The allocation is an entry of the compute stream: other streams have to wait for it.
    ///
    /// Errors: [`GpuError::Driver`] where there is no room.
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self, GpuError> {
        let stream = gpu.device().cuda_stream();
        // SAFETY: its owner fills it before it is read.
        #[allow(unsafe_code)]
        let memory = unsafe { stream.alloc::<u8>(bytes.max(1)) };
        memory.map(|memory| Self(Arc::new(memory))).map_err(GpuError::driver("memory for weights"))
    }

    /// Where it starts, aligned to 256.
    pub fn ptr(&self) -> DevPtr {
        DevPtr(self.0.device_ptr(self.0.stream()).0)
    }

    /// The memory, which lives as long as anybody holds it.
    pub fn memory(&self) -> Arc<CudaSlice<u8>> {
        self.0.clone()
    }
}

impl Gpu {
    /// Lets what follows on the compute stream wait for `event`.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn wait(&self, event: &Event) -> Result<(), GpuError> {
        self.device().cuda_stream().wait(&event.0).map_err(GpuError::driver("wait on the compute stream"))
    }

    /// Records `event` behind what was put on the compute stream.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn record(&self, event: &Event) -> Result<(), GpuError> {
        let stream = self.device().cuda_stream();
        event.0.record(&stream).map_err(GpuError::driver("record on the compute stream"))
    }

    /// Waits for the compute stream, then gives scratch and all memory that the allocator keeps back to the driver.
    ///
    /// Errors: [`GpuError::Driver`].
    pub fn release_unused(&self) -> Result<(), GpuError> {
        let fail = GpuError::driver("give memory back");
        let stream = self.device().cuda_stream();
        self.release_scratch();
        stream.synchronize().map_err(&fail)?;
        // SAFETY: the device is open, and the pool is its default one.
        #[allow(unsafe_code)]
        unsafe {
            let pool = result::device::get_default_mem_pool(stream.context().cu_device()).map_err(&fail)?;
            result::mem_pool::trim_to(pool, 0).map_err(fail)
        }
    }
}
