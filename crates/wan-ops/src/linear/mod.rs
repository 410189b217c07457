//! Matrix product with a stored weight.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod few_rows;
#[cfg(feature = "cuda")]
mod place;
#[cfg(test)]
mod tests;

use std::iter;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};
use wan_core::{Delta, Error, Loader, Result, Stored};

#[cfg(feature = "cuda")]
use self::place::OnDevice;
#[cfg(feature = "cuda")]
pub use self::place::Place;
use crate::activation::{activate, activate_reference};
use crate::{Activation, Precision, RowFormat, Rows, Sums, quantise};

/// A linear layer over a weight that keeps its stored dtype, in a mapped file for the CPU and on the device for a GPU.
///
/// Models never ask how the matrix is stored; FP8, bf16 and f32 differ only here.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Stored,
    bias: Option<Tensor>,
    branches: Vec<Branch>,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))] // changes nothing on the CPU
    precision: Precision,
    #[cfg(feature = "cuda")]
    on_device: OnDevice,
}

/// A change of a layer's weight, computed beside it.
#[derive(Debug, Clone)]
enum Branch {
    /// `scale up(down(x))`.
    LowRank { down: Linear, up: Linear, scale: f32 },
    /// `scale diff(x)`.
    Full { diff: Linear, scale: f32 },
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
        Self {
            weight,
            bias,
            branches: Vec::new(),
            precision: Precision::default(),
            #[cfg(feature = "cuda")]
            on_device: OnDevice::default(),
        }
    }

    /// The layer multiplied as `precision` says, where its weight is FP8. It changes nothing on the CPU.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The matrix as stored: `[outputs, inputs]`.
    pub fn stored(&self) -> &Stored {
        &self.weight
    }

    /// Frees the matrix on a GPU, where it was uploaded to; the next use uploads it again. Nothing on the CPU.
    pub fn release(&self) {
        #[cfg(feature = "cuda")]
        self.set_place(Place::Mapped);
    }

    /// Says where the matrix now lies on the GPU; clones of the layer follow. Changes of the weight stay where they are.
    #[cfg(feature = "cuda")]
    pub fn set_place(&self, place: Place) {
        self.on_device.set_place(place);
    }

    /// The layer with changes of its weight, each computed as a branch beside it: the weight is neither copied nor
    /// rounded again. Axes of length 1 do not count: a convolution's kernel may stand for its matrix.
    ///
    /// Errors: [`Error::Shape`] for a change that does not fit the weight.
    pub fn with_deltas(mut self, deltas: Vec<Delta>) -> Result<Self> {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let layer = |weight: Stored, shape: [usize; 2]| -> Result<Linear> {
            Ok(Self::new(weight.reshape(&shape)?, None))
        };
        for delta in deltas {
            self.branches.push(match delta {
                Delta::LowRank { down, up, scale } => {
                    let rank = down.shape().first().copied().unwrap_or(0);
                    let (down, up) = (layer(down, [rank, inputs])?, layer(up, [outputs, rank])?);
                    Branch::LowRank { down, up, scale }
                }
                Delta::Full { diff, scale } => Branch::Full { diff: layer(diff, [outputs, inputs])?, scale },
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
        self.check(x)?;
        if !self.branches.is_empty() && !x.device().is_cpu() {
            return self.branch_by_branch(x, activation);
        }
        Ok(x.apply_op1_no_bwd(&LinearOp { layer: self, activation, branches: &self.branches })?)
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        if x.dims().last() != Some(&self.inputs()) {
            return Err(Error::shape(self.weight.name(), x.dims(), format!("[..., {}]", self.inputs())));
        }
        match &self.bias {
            Some(bias) if bias.dims() != [self.outputs()] => Err(Error::shape(
                format!("bias of {}", self.weight.name()),
                bias.dims(),
                format!("[{}]", self.outputs()),
            )),
            _ => Ok(()),
        }
    }

    /// The format in which the layer takes rows of activations of `dtype`: quantised where it multiplies in FP8, which
    /// it does on GPUs that can, with weights in FP8 and without changes beside them.
    pub fn row_format(&self, device: &Device, dtype: DType) -> RowFormat {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device
            && self.branches.is_empty()
            && cuda::multiplies_in_fp8(self, device, dtype)
        {
            return RowFormat::Quantised(dtype);
        }
        let _ = device;
        RowFormat::Float(dtype)
    }

    /// [`Linear::forward`] of rows in either format: `[L, inputs]` to `[L, outputs]`, in the dtype that they are in or
    /// stand for.
    ///
    /// Errors: [`Error::Shape`]; on a GPU, quantised rows where the layer does not multiply in FP8.
    pub fn forward_rows(&self, x: &Rows) -> Result<Tensor> {
        match x {
            Rows::Float(x) => self.forward(x),
            Rows::Quantised(rows) => {
                let format = RowFormat::Float(rows.dtype());
                self.forward_rows_act(x, Activation::Identity, format)?.into_values()
            }
        }
    }

    /// `act(x wᵀ + b)` of rows in either format, as rows of `format`: that of the layer that reads them.
    ///
    /// Errors: those of [`Linear::forward_rows`].
    pub fn forward_rows_act(&self, x: &Rows, activation: Activation, format: RowFormat) -> Result<Rows> {
        let values = match x {
            Rows::Float(x) => self.forward_act(x, activation)?,
            #[cfg(feature = "cuda")]
            Rows::Quantised(rows) if rows.codes().device().is_cuda() => {
                self.check(rows.codes())?;
                return Ok(cuda::forward_quantised(self, rows, activation, format)?);
            }
            Rows::Quantised(rows) => self.forward_act(&rows.values()?, activation)?,
        };
        Ok(match format {
            RowFormat::Float(dtype) => Rows::Float(values.to_dtype(dtype)?),
            RowFormat::Quantised(dtype) => quantise(&values.to_dtype(dtype)?)?.into(),
        })
    }

    /// [`Linear::forward_rows`] for an op that takes bare sums: where the product is in FP8, its scales and the bias are left
    /// to that op.
    ///
    /// Errors: those of [`Linear::forward_rows`].
    pub fn forward_sums(&self, x: &Rows) -> Result<Sums> {
        self.forward_parts(x.tensor().device(), (x.count()?, x.dtype()), iter::once(Ok(x.clone())))
    }

    /// [`Linear::forward_sums`] of rows that come in parts, `rows` in all on `device` for values of `dtype`.
    ///
    /// Errors: those of [`Linear::forward_rows`]; [`Error::Invalid`] for another number of rows.
    pub fn forward_parts(
        &self,
        device: &Device,
        (rows, dtype): (usize, DType),
        parts: impl Iterator<Item = Result<Rows>>,
    ) -> Result<Sums> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device
            && self.branches.is_empty()
        {
            let checked = parts.map(|part| part.and_then(|part| self.check(part.tensor()).map(|()| part)));
            return cuda::forward_parts(self, device, (rows, dtype), checked);
        }
        let _ = device;
        let values = parts.map(|part| self.forward_rows(&part?)).collect::<Result<Vec<_>>>()?;
        let values = match values.as_slice() {
            [one] => one.clone(),
            several => Tensor::cat(several, 0)?,
        };
        if values.dims() != [rows, self.outputs()] || values.dtype() != dtype {
            let found = format!("{:?} {}", values.dims(), values.dtype().as_str());
            let expected = format!("{:?} {}", [rows, self.outputs()], dtype.as_str());
            return Err(Error::invalid("parts of a product", found, expected));
        }
        Ok(values.into())
    }

    /// The layer with one product per branch, for devices whose product knows no branches; what is between the
    /// products has x's dtype.
    fn branch_by_branch(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let base = LinearOp { layer: self, activation: Activation::Identity, branches: &[] };
        let mut y = x.apply_op1_no_bwd(&base)?;
        for branch in &self.branches {
            let change = match branch {
                // Scaled where rows are short.
                Branch::LowRank { down, up, scale } => {
                    up.forward(&(down.forward(x)? * f64::from(*scale))?)?
                }
                Branch::Full { diff, scale } => (diff.forward(x)? * f64::from(*scale))?,
            };
            y = (y + change)?;
        }
        activate(&y, activation)
    }

    /// The formula in plain tensor operations, on a widened copy of the weight with its changes merged; `x`: `[rows, inputs]`.
    pub fn reference(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let mut weight = self.weight.to_f32_tensor(x.device())?;
        let widened = |layer: &Linear| layer.weight.to_f32_tensor(x.device());
        for branch in &self.branches {
            let (change, scale) = match branch {
                Branch::LowRank { down, up, scale } => (widened(up)?.matmul(&widened(down)?)?, scale),
                Branch::Full { diff, scale } => (widened(diff)?, scale),
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
    branches: &'a [Branch],
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        cpu::forward(self, storage, layout)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        cuda::forward(self, storage, layout)
    }
}
