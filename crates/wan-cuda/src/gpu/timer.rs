//! Times on the device's own clock.

use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;

use super::{Gpu, GpuError};

/// Two marks in the compute stream, between which the device's clock counts.
pub struct Timer {
    start: CudaEvent,
    end: CudaEvent,
}

impl Timer {
    /// A timer that has not run.
    ///
    /// Errors: [`GpuError::Driver`]; likewise below.
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let stream = gpu.device().cuda_stream();
        let event =
            || stream.context().new_event(Some(CU_EVENT_DEFAULT)).map_err(GpuError::driver("new timer"));
        Ok(Self { start: event()?, end: event()? })
    }

    /// Marks the start, behind what was launched.
    pub fn start(&self, gpu: &Gpu) -> Result<(), GpuError> {
        self.start.record(&gpu.device().cuda_stream()).map_err(GpuError::driver("start of a timer"))
    }

    /// Marks the end, behind what was launched.
    pub fn stop(&self, gpu: &Gpu) -> Result<(), GpuError> {
        self.end.record(&gpu.device().cuda_stream()).map_err(GpuError::driver("end of a timer"))
    }

    /// Milliseconds between the two, once the device has passed the end.
    pub fn milliseconds(&self) -> Result<f64, GpuError> {
        let fail = GpuError::driver("read a timer");
        self.end.synchronize().map_err(&fail)?;
        self.start.elapsed_ms(&self.end).map(f64::from).map_err(fail)
    }
}
