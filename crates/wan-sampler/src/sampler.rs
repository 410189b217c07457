//! What all solvers have in common.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::{Result, SamplerError, SchedulerKind};

/// A solver in the middle of a run: takes the velocity at the current sigma, gives the next sample.
///
/// All tensors are f32 of one shape and on one device; the samples stay f32 through the run. Solvers
/// are deterministic: the same inputs give the same bytes.
pub trait Sampler: Send {
    /// Takes one step.
    ///
    /// - `velocity`: the (guided) model output at the current timestep
    /// - `sample`: the sample the model was given, which is what the last step returned
    /// - `noise`: standard normal noise where [`Self::needs_noise`], else ignored
    /// - returns the sample at the next sigma
    ///
    /// Errors: `Finished` after the last step, `NoiseMissing`, `Shape`, `DType`. The state is
    /// unchanged after an error.
    fn step(&mut self, velocity: &Tensor, sample: &Tensor, noise: Option<&Tensor>) -> Result<Tensor>;

    /// Which solver this is.
    fn kind(&self) -> SchedulerKind;

    /// Whether every step, the last one included, takes noise.
    fn needs_noise(&self) -> bool {
        self.kind().needs_noise()
    }

    /// Number of steps taken so far.
    fn steps_taken(&self) -> usize;

    /// Everything the remaining steps depend on, apart from the sample itself and the schedule.
    fn state(&self) -> SamplerState;

    /// Takes up a saved state. The schedule has to be the one the state was saved under.
    ///
    /// Errors: `State` if it belongs to another solver, lies past the schedule's end, or lacks a tensor.
    fn restore(&mut self, state: SamplerState) -> Result<()>;
}

/// A saved solver. The tensors' names are stable and fit for a safetensors file.
#[derive(Clone, Debug)]
pub struct SamplerState {
    /// The solver it belongs to.
    pub kind: SchedulerKind,
    /// Number of steps taken.
    pub step: usize,
    /// History tensors, f32 of the sample's shape; which ones depends on solver and step.
    pub history: BTreeMap<String, Tensor>,
}

impl SamplerState {
    pub(crate) fn new(kind: SchedulerKind, step: usize) -> Self {
        Self { kind, step, history: BTreeMap::new() }
    }

    pub(crate) fn with(mut self, name: &str, tensor: Option<&Tensor>) -> Self {
        if let Some(tensor) = tensor {
            self.history.insert(name.to_owned(), tensor.clone());
        }
        self
    }

    /// Errors unless the state is one of `kind` within `steps` and has exactly the named tensors.
    pub(crate) fn check(&self, kind: SchedulerKind, steps: usize, names: &[&str]) -> Result<()> {
        let fail = |detail: String| Err(SamplerError::State { detail });
        if self.kind != kind {
            return fail(format!("found one of {}, expected {kind}", self.kind));
        }
        if self.step > steps {
            return fail(format!("found step {}, expected at most {steps}", self.step));
        }
        if !self.history.keys().map(String::as_str).eq(names.iter().copied()) {
            let found: Vec<_> = self.history.keys().collect();
            return fail(format!("found tensors {found:?} at step {}, expected {names:?}", self.step));
        }
        let mut shape = None;
        for (name, tensor) in &self.history {
            if tensor.dtype() != DType::F32 || *shape.get_or_insert(tensor.dims()) != tensor.dims() {
                let (dtype, dims) = (tensor.dtype(), tensor.dims());
                return fail(format!("tensor {name} is {dtype:?} {dims:?}, expected F32 of one shape"));
            }
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Tensor> {
        self.history.remove(name)
    }
}

/// Sigmas of a run and the position in it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    sigmas: Vec<f32>,
    pub(crate) step: usize,
}

impl Progress {
    pub(crate) fn new(sigmas: Vec<f32>) -> Self {
        Self { sigmas, step: 0 }
    }

    pub(crate) fn steps(&self) -> usize {
        self.sigmas.len().saturating_sub(1)
    }

    pub(crate) fn is_first(&self) -> bool {
        self.step == 0
    }

    pub(crate) fn is_last(&self) -> bool {
        self.step + 1 == self.steps()
    }

    /// Sigma at the current step plus `offset`.
    pub(crate) fn sigma(&self, offset: isize) -> f32 {
        self.sigmas[self.step.strict_add_signed(offset)]
    }

    /// Checks one step's inputs. `history` is any tensor kept from an earlier step.
    pub(crate) fn check(&self, velocity: &Tensor, sample: &Tensor, history: Option<&Tensor>) -> Result<()> {
        if self.step >= self.steps() {
            return Err(SamplerError::Finished { steps: self.steps() });
        }
        let dims = history.unwrap_or(sample).dims();
        require_f32("sample", sample, dims)?;
        require_f32("velocity", velocity, dims)
    }
}

pub(crate) fn require_f32(name: &'static str, tensor: &Tensor, dims: &[usize]) -> Result<()> {
    if tensor.dtype() != DType::F32 {
        return Err(SamplerError::DType { name, found: tensor.dtype() });
    }
    if tensor.dims() != dims {
        return Err(SamplerError::Shape { name, found: tensor.dims().to_vec(), expected: dims.to_vec() });
    }
    Ok(())
}

/// `factor * tensor` with an f32 factor.
pub(crate) fn scale(factor: f32, tensor: &Tensor) -> Result<Tensor> {
    Ok((tensor * f64::from(factor))?)
}

/// `tensor / divisor`, a true division rather than the product with a rounded reciprocal.
pub(crate) fn divide(tensor: &Tensor, divisor: f32) -> Result<Tensor> {
    Ok(tensor.broadcast_div(&Tensor::new(divisor, tensor.device())?)?)
}

/// The data prediction `x0 = x - sigma v`.
pub(crate) fn predict_x0(sample: &Tensor, sigma: f32, velocity: &Tensor) -> Result<Tensor> {
    Ok((sample - scale(sigma, velocity)?)?)
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
