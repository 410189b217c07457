//! What memory and the link to the host give.

#[cfg(feature = "cuda")]
use wan_pipeline::Result;

use super::Bench;
use crate::{Check, Runner};

const GROUP: &str = "copies";

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    let bytes = if bench.device().is_cuda() { 4 << 30 } else { 1 << 24 };
    runner.row(GROUP, "copy on the device", || {
        let values = bytes / 4;
        let source = crate::synthesis::normal(candle_core::DType::F32, &[values.min(1 << 24)], 1.0, 1)?;
        let source = source.to_device(bench.device())?.repeat(values.div_ceil(1 << 24))?;
        let times = bench.time(|| {
            source.copy()?;
            Ok(())
        })?;
        let moved = 2.0 * source.elem_count() as f64 * 4.0;
        let mut checks = Bench::figures(times, 0.0, bench.rates.map(|r| moved / r.memory));
        checks.push(Check::info("GB/s", moved / times.median / 1e6));
        Ok(checks)
    });
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = bench.device() {
        runner.row(GROUP, "host to device, pinned", || from_pinned(device));
        return;
    }
    runner.skip(GROUP, "host to device, pinned", "the device is the host");
}

/// One copy of a block's size from pinned memory.
#[cfg(feature = "cuda")]
fn from_pinned(device: &candle_core::CudaDevice) -> Result<Vec<Check>> {
    use std::time::Instant;

    use wan_cuda::gpu::{CopyStream, DeviceSlab, Gpu, Pinned};

    const BYTES: usize = 300 << 20;
    let engine = candle_core::Error::from;
    let gpu = Gpu::of(device).map_err(engine)?;
    let mut host = Pinned::new(&gpu, BYTES).map_err(engine)?;
    host.as_mut().fill(0x3c);
    let slab = DeviceSlab::new(&gpu, BYTES).map_err(engine)?;
    let stream = CopyStream::new(&gpu).map_err(engine)?;
    device.cuda_stream().synchronize().map_err(|e| candle_core::Error::Cuda(Box::new(e)))?;
    let mut seconds = Vec::new();
    for _ in 0..8 {
        let begun = Instant::now();
        // SAFETY: both live, unchanged, until the stream has finished below; they are of the same size.
        #[allow(unsafe_code)]
        unsafe { stream.copy(&host, BYTES, slab.ptr()) }.map_err(engine)?;
        stream.finish();
        seconds.push(begun.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    Ok(vec![Check::info("ms", median * 1e3), Check::info("GB/s", BYTES as f64 / median / 1e9)])
}
