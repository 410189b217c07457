//! Matrix product with a stored weight.

mod cpu;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use wan_core::{Delta, Error, Loader, Result, Stored};

use crate::Activation;
use crate::activation::{activate, activate_reference};

/// A linear layer over a weight that keeps its stored dtype and place (a mapped file on the CPU).
///
/// Models never ask how the matrix is stored; FP8, bf16 and f32 differ only here.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Stored,
    bias: Option<Tensor>,
    deltas: Vec<Delta>,
}

impl Linear {
    /// Takes `weight` `[outputs, inputs]` and `bias` `[outputs]` from the loader.
    pub fn load(loader: &Loader, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = loader.stored("weight", &[outputs, inputs])?;
        Self::new(weight, Some(loader.tensor("bias", &[outputs])?)).with_deltas(loader.deltas("weight"))
    }

    /// Takes `weight` `[outputs, inputs]` alone.
    pub fn load_without_bias(loader: &Loader, inputs: usize, outputs: usize) -> Result<Self> {
        Self::new(loader.stored("weight", &[outputs, inputs])?, None).with_deltas(loader.deltas("weight"))
    }

    /// A layer from its parts: `weight` `[outputs, inputs]`, `bias` `[outputs]` f32.
    pub fn new(weight: Stored, bias: Option<Tensor>) -> Self {
        Self { weight, bias, deltas: Vec::new() }
    }

    /// The layer with changes of its weight, each computed as a branch beside it: the weight is neither copied nor
    /// rounded again. Axes of length 1 do not count: a convolution's kernel may stand for its matrix.
    ///
    /// Errors: [`Error::Shape`] for a change that does not fit the weight.
    pub fn with_deltas(mut self, deltas: Vec<Delta>) -> Result<Self> {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        for delta in deltas {
            self.deltas.push(match delta {
                Delta::LowRank { down, up, scale } => {
                    let rank = down.shape().first().copied().unwrap_or(0);
                    let (down, up) = (down.reshape(&[rank, inputs])?, up.reshape(&[outputs, rank])?);
                    Delta::LowRank { down, up, scale }
                }
                Delta::Full { diff, scale } => Delta::Full { diff: diff.reshape(&[outputs, inputs])?, scale },
            });
        }
        Ok(self)
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
        if !self.deltas.is_empty() && !x.device().is_cpu() {
            return self.branch_by_branch(x, activation);
        }
        Ok(x.apply_op1_no_bwd(&LinearOp { layer: self, activation })?)
    }

    /// The layer with one product per branch, for devices whose product knows no branches; what is between the
    /// products has x's dtype.
    fn branch_by_branch(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let mut y = Self::new(self.weight.clone(), self.bias.clone()).forward(x)?;
        for delta in &self.deltas {
            let (branch, scale) = match delta {
                Delta::LowRank { down, up, scale } => {
                    let hidden = Self::new(down.clone(), None).forward(x)?;
                    (Self::new(up.clone(), None).forward(&hidden)?, scale)
                }
                Delta::Full { diff, scale } => (Self::new(diff.clone(), None).forward(x)?, scale),
            };
            y = (y + (branch * f64::from(*scale))?)?;
        }
        activate(&y, activation)
    }

    /// The formula in plain tensor operations, on a widened copy of the weight with its changes merged; `x`: `[rows, inputs]`.
    pub fn reference(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let mut weight = self.weight.to_f32_tensor(x.device())?;
        for delta in &self.deltas {
            let (change, scale) = match delta {
                Delta::LowRank { down, up, scale } => {
                    (up.to_f32_tensor(x.device())?.matmul(&down.to_f32_tensor(x.device())?)?, scale)
                }
                Delta::Full { diff, scale } => (diff.to_f32_tensor(x.device())?, scale),
            };
            weight = (weight + (change * f64::from(*scale))?)?;
        }
        let weight = weight.to_dtype(x.dtype())?;
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
