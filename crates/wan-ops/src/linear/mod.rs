use candle_core::Tensor;
use wan_core::{Error, Loader, Result, Stored};

use crate::{Activation, activate};

/// A linear layer over a weight that keeps its stored dtype and place (a mapped file on the CPU).
///
/// Models never ask how the matrix is stored; FP8, bf16 and f32 differ only here.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Stored,
    bias: Option<Tensor>,
}

impl Linear {
    /// Takes `weight` `[outputs, inputs]` and `bias` `[outputs]` from the loader.
    pub fn load(loader: &Loader, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            weight: loader.stored("weight", &[outputs, inputs])?,
            bias: Some(loader.tensor("bias", &[outputs])?),
        })
    }

    /// Takes `weight` `[outputs, inputs]` alone.
    pub fn load_without_bias(loader: &Loader, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self { weight: loader.stored("weight", &[outputs, inputs])?, bias: None })
    }

    /// A layer from its parts: `weight` `[outputs, inputs]`, `bias` `[outputs]` f32.
    pub fn new(weight: Stored, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Length of an input row.
    pub fn inputs(&self) -> usize {
        self.weight.shape()[1]
    }

    /// Length of an output row.
    pub fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// `x wᵀ + b`: `[..., inputs]` to `[..., outputs]`, in x's dtype; sums in f32.
    ///
    /// Errors: [`Error::Shape`] if the last axis is not `inputs`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_act(x, Activation::Identity)
    }

    /// `act(x wᵀ + b)`.
    pub fn forward_act(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.inputs() => *last = self.outputs(),
            _ => return Err(Error::shape(self.weight.name(), x.dims(), format!("[..., {}]", self.inputs()))),
        }
        let rows = x.elem_count() / self.inputs();
        let y = self.reference(&x.contiguous()?.reshape((rows, self.inputs()))?, activation)?;
        Ok(y.reshape(shape)?)
    }

    /// The formula in plain tensor operations, on a widened copy of the weight.
    pub fn reference(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let weight = self.weight.to_f32_tensor(x.device())?.to_dtype(x.dtype())?;
        let y = x.matmul(&weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(&bias.to_dtype(x.dtype())?)?,
            None => y,
        };
        activate(&y, activation)
    }
}
