//! Products whose scales and bias are left to what reads them.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Tensor};
use wan_core::{Error, Result};

/// Rows `[L, dim]` of a matrix product, each value of which stands for `row_scale sum + bias`.
///
/// A GPU's product of FP8 codes gives bare sums. The op that reads them applies the rest, which saves a pass over them; a
/// product of floats is finished and has neither.
#[derive(Debug, Clone)]
pub struct Sums {
    sums: Tensor,
    row_scale: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Sums {
    /// - `sums`: `[L, dim]`
    /// - `row_scale`: `[L]` f32; absent: 1
    /// - `bias`: `[dim]` f32; absent: 0
    ///
    /// Errors: [`Error::Shape`].
    pub fn new(sums: Tensor, row_scale: Option<Tensor>, bias: Option<Tensor>) -> Result<Self> {
        let (rows, dim) = sums.dims2()?;
        for (what, part, expected) in [("row scales of sums", &row_scale, rows), ("bias of sums", &bias, dim)]
        {
            if let Some(part) = part
                && part.dims() != [expected]
            {
                return Err(Error::shape(what, part.dims(), format!("[{expected}]")));
            }
        }
        Ok(Self { sums, row_scale, bias })
    }

    /// The bare sums, `[L, dim]` or, of finished values, any shape.
    pub fn bare(&self) -> &Tensor {
        &self.sums
    }

    /// The dtype of the sums and of the values that they stand for.
    pub fn dtype(&self) -> DType {
        self.sums.dtype()
    }

    /// Whether nothing is left to apply.
    pub fn is_finished(&self) -> bool {
        self.row_scale.is_none() && self.bias.is_none()
    }

    /// The `count` rows from `start` on.
    ///
    /// Errors: rows that are not there.
    pub fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        let row_scale = self.row_scale.as_ref().map(|scale| scale.narrow(0, start, count)).transpose()?;
        Ok(Self { sums: self.sums.narrow(0, start, count)?, row_scale, bias: self.bias.clone() })
    }

    /// The values that the sums stand for, in a pass of its own.
    ///
    /// Errors: a device without this op.
    pub fn finish(&self) -> Result<Tensor> {
        if self.is_finished() {
            return Ok(self.sums.clone());
        }
        match self.sums.device() {
            Device::Cpu => Ok(cpu::finish(self)?),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Ok(cuda::finish(self)?),
            other => Err(Error::invalid("device of sums", format!("{:?}", other.location()), "cpu or cuda")),
        }
    }
}

impl From<Tensor> for Sums {
    /// Finished values.
    fn from(values: Tensor) -> Self {
        Self { sums: values, row_scale: None, bias: None }
    }
}

impl From<&Tensor> for Sums {
    /// Finished values.
    fn from(values: &Tensor) -> Self {
        values.clone().into()
    }
}

impl From<&Sums> for Sums {
    fn from(sums: &Sums) -> Self {
        sums.clone()
    }
}
