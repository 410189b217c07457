use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};

use super::{Gpu, GpuError};
use crate::DevPtr;

/// Memory that is written and read by neighbouring launches of the device's stream; it grows to the largest request.
#[derive(Default)]
pub(super) struct Scratch(Mutex<Option<CudaSlice<u8>>>);

/// Scratch as long as this lives: nobody else's launches get it meanwhile.
pub struct ScratchGuard<'a> {
    start: DevPtr,
    _held: MutexGuard<'a, Option<CudaSlice<u8>>>,
}

impl ScratchGuard<'_> {
    /// Where it starts; aligned to 256.
    pub fn ptr(&self) -> DevPtr {
        self.start
    }
}

impl Gpu {
    /// Scratch of at least `bytes` for the launches put on the stream while the guard lives.
    ///
    /// Errors: [`GpuError::Driver`] where there is no memory.
    pub fn scratch(&self, bytes: usize) -> Result<ScratchGuard<'_>, GpuError> {
        let stream = self.device().cuda_stream();
        let mut held = self.scratch.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|memory| memory.len() < bytes) {
            // The old one goes first; it is freed behind the launches that use it.
            *held = None;
            // SAFETY: written before it is read, by the launches it is asked for.
            #[allow(unsafe_code)]
            let memory = unsafe { stream.alloc::<u8>(bytes) };
            *held = Some(memory.map_err(GpuError::driver("scratch for weights"))?);
        }
        let start = held.as_ref().map_or(DevPtr::NULL, |memory| DevPtr(memory.device_ptr(&stream).0));
        Ok(ScratchGuard { start, _held: held })
    }

    /// Gives the scratch back, until the next request.
    pub fn release_scratch(&self) {
        *self.scratch.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
