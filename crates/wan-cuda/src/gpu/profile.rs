//! Where the time of a computation goes, launch by launch.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::timer::Timer;
use super::{Gpu, GpuError};

/// Timers of the launches since recording began; `None` while nothing is recorded.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Option<Vec<(&'static str, Timer)>>>);

/// What the launches of one kernel took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// Its name; `gemm` and `cudnn` stand for those libraries' kernels.
    pub kernel: &'static str,
    /// Number of launches.
    pub launches: usize,
    /// Milliseconds of all of them.
    pub milliseconds: f64,
}

impl Gpu {
    /// Times every launch of `run`, products and cuDNN included: milliseconds for each kernel, the longest first. What
    /// candle launches itself is not seen, nor are copies.
    ///
    /// Errors: [`GpuError::Driver`] for the timers. What `run` returns is returned.
    pub fn profile<T>(&self, run: impl FnOnce() -> T) -> Result<(T, Vec<KernelTime>), GpuError> {
        *self.profile.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        let answer = run();
        let recorded = self.profile.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut sums = BTreeMap::<&'static str, (usize, f64)>::new();
        for (kernel, timer) in recorded.unwrap_or_default() {
            let sum = sums.entry(kernel).or_default();
            *sum = (sum.0 + 1, sum.1 + timer.milliseconds()?);
        }
        let time = |(kernel, (launches, milliseconds))| KernelTime { kernel, launches, milliseconds };
        let mut times: Vec<KernelTime> = sums.into_iter().map(time).collect();
        times.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
        Ok((answer, times))
    }

    /// Puts something on the stream, between the marks of a timer where times are recorded.
    pub(super) fn timed<T, E: From<GpuError>>(
        &self,
        kernel: &'static str,
        launch: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let recording = self.profile.0.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !recording {
            return launch();
        }
        let timer = Timer::new(self)?;
        timer.start(self)?;
        let answer = launch()?;
        timer.stop(self)?;
        if let Some(recorded) = self.profile.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            recorded.push((kernel, timer));
        }
        Ok(answer)
    }
}
