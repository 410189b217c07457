//! Matrix product with a stored weight.

mod cpu;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use wan_core::{Error, Loader, Result, Stored};

use crate::Activation;
use crate::activation::activate_reference;

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
        if x.dims().last() != Some(&self.inputs()) {
            return Err(Error::shape(self.weight.name(), x.dims(), format!("[..., {}]", self.inputs())));
        }
        if let Some(bias) = &self.bias
            && bias.dims() != [self.outputs()]
        {
            return Err(Error::shape(
                format!("bias of {}", self.weight.name()),
                bias.dims(),
                format!("[{}]", self.outputs()),
            ));
        }
        Ok(x.apply_op1_no_bwd(&LinearOp { layer: self, activation })?)
    }

    /// The formula in plain tensor operations, on a widened copy of the weight; `x`: `[rows, inputs]`.
    pub fn reference(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let weight = self.weight.to_f32_tensor(x.device())?.to_dtype(x.dtype())?;
        let y = x.matmul(&weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(&bias.to_dtype(x.dtype())?)?,
            None => y,
        };
        activate_reference(&y, activation)
    }
}

struct LinearOp<'a> {
    layer: &'a Linear,
    activation: Activation,
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::forward(self, storage, layout)
    }
}
