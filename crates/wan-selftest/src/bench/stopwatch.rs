use std::time::Instant;

use candle_core::Device;
use wan_pipeline::Result;

/// Times of several runs, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Of all runs.
    pub median: f64,
    /// Shortest.
    pub min: f64,
    /// Longest.
    pub max: f64,
}

impl Times {
    fn of(mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        let (last, middle) = (runs.len().saturating_sub(1), runs.len() / 2);
        let at = |i: usize| runs.get(i).copied().unwrap_or(f64::NAN);
        let median =
            if runs.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 };
        Self { median, min: at(0), max: at(last) }
    }
}

/// Times by the clock of the device: a GPU's events, the CPU's clock.
pub struct Stopwatch<'a> {
    #[cfg(feature = "cuda")]
    gpu: Option<(std::sync::Arc<wan_cuda::gpu::Gpu>, wan_cuda::gpu::Timer)>,
    _device: &'a Device,
}

impl<'a> Stopwatch<'a> {
    /// Errors: the driver's.
    pub fn new(device: &'a Device) -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "cuda")]
            gpu: match device {
                Device::Cuda(device) => {
                    let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
                    let timer = wan_cuda::gpu::Timer::new(&gpu).map_err(candle_core::Error::from)?;
                    Some((gpu, timer))
                }
                _ => None,
            },
            _device: device,
        })
    }

    /// Times `runs` runs, each on its own, after `warm` runs that are not timed.
    ///
    /// Errors: those of `run`; the driver's.
    pub fn measure(&self, warm: usize, runs: usize, mut run: impl FnMut() -> Result<()>) -> Result<Times> {
        for _ in 0..warm {
            run()?;
        }
        let times = (0..runs.max(1)).map(|_| self.once(&mut run));
        Ok(Times::of(times.collect::<Result<_>>()?))
    }

    /// Milliseconds of one run.
    ///
    /// Errors: as of [`Self::measure`].
    pub fn once(&self, run: impl FnOnce() -> Result<()>) -> Result<f64> {
        #[cfg(feature = "cuda")]
        if let Some((gpu, timer)) = &self.gpu {
            timer.start(gpu).map_err(candle_core::Error::from)?;
            run()?;
            timer.stop(gpu).map_err(candle_core::Error::from)?;
            return Ok(timer.milliseconds().map_err(candle_core::Error::from)?);
        }
        let begun = Instant::now();
        run()?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let times = Times::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((times.median, times.min, times.max), (2.0, 1.0, 3.0));
        assert_eq!(Times::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
