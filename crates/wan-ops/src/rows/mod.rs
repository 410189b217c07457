//! Rows of activations as matrix products take them: floats, or FP8 codes with a scale for each row.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

pub(crate) use cpu::{rounded, tensor};

use candle_core::{DType, Device, Tensor};
use wan_core::device::to_host;
use wan_core::{Error, Result};

/// How an op writes rows of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// In a float dtype.
    Float(DType),
    /// As [`QuantisedRows`] that stand for values of a dtype.
    Quantised(DType),
}

impl RowFormat {
    /// The dtype of the values, or of those that the codes stand for.
    pub fn dtype(self) -> DType {
        match self {
            Self::Float(dtype) | Self::Quantised(dtype) => dtype,
        }
    }

    /// The format of rows that several layers read: quantised where each of them takes it so.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Quantised(dtype), Self::Quantised(_)) => Self::Quantised(dtype),
            _ => Self::Float(self.dtype()),
        }
    }
}

/// Rows of activations, `[L, dim]`.
#[derive(Debug, Clone)]
pub enum Rows {
    /// Values of a float dtype.
    Float(Tensor),
    /// Codes and scales.
    Quantised(QuantisedRows),
}

/// Rows rounded to e4m3, each with the scale that maps its largest magnitude to the format's 448: a value is code times
/// scale. A row of zeros has scale 1.
#[derive(Debug, Clone)]
pub struct QuantisedRows {
    codes: Tensor,
    scales: Tensor,
    dtype: DType,
}

impl Rows {
    /// Number of rows.
    ///
    /// Errors: a tensor that is not `[L, dim]`.
    pub fn count(&self) -> Result<usize> {
        Ok(self.tensor().dims2()?.0)
    }

    /// The values, or the codes, `[L, dim]`.
    pub(crate) fn tensor(&self) -> &Tensor {
        match self {
            Self::Float(values) => values,
            Self::Quantised(rows) => &rows.codes,
        }
    }

    /// The dtype of the values, or of those that the codes stand for.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Float(values) => values.dtype(),
            Self::Quantised(rows) => rows.dtype,
        }
    }

    /// The `count` rows from `start` on.
    ///
    /// Errors: rows that are not there.
    pub fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        Ok(match self {
            Self::Float(values) => Self::Float(values.narrow(0, start, count)?),
            Self::Quantised(QuantisedRows { codes, scales, dtype }) => Self::Quantised(QuantisedRows {
                codes: codes.narrow(0, start, count)?,
                scales: scales.narrow(0, start, count)?,
                dtype: *dtype,
            }),
        })
    }

    /// The values, or those that the codes stand for.
    ///
    /// Errors: as [`QuantisedRows::values`].
    pub fn into_values(self) -> Result<Tensor> {
        match self {
            Self::Float(values) => Ok(values),
            Self::Quantised(rows) => rows.values(),
        }
    }
}

impl From<QuantisedRows> for Rows {
    fn from(rows: QuantisedRows) -> Self {
        Self::Quantised(rows)
    }
}

impl QuantisedRows {
    /// Rows from their parts: `codes` `[L, dim]` e4m3, `scales` `[L]` f32, standing for values of `dtype`.
    ///
    /// Errors: [`Error::Shape`]; [`Error::Invalid`] for other dtypes.
    pub fn new(codes: Tensor, scales: Tensor, dtype: DType) -> Result<Self> {
        let (rows, _) = codes.dims2()?;
        if scales.dims() != [rows] {
            return Err(Error::shape("scales of quantised rows", scales.dims(), format!("[{rows}]")));
        }
        for (what, found, expected) in [
            ("codes of quantised rows", codes.dtype(), DType::F8E4M3),
            ("scales of quantised rows", scales.dtype(), DType::F32),
        ] {
            if found != expected {
                return Err(Error::invalid(what, found.as_str(), expected.as_str()));
            }
        }
        Ok(Self { codes, scales, dtype })
    }

    /// `[L, dim]` e4m3.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// `[L]` f32.
    pub fn scales(&self) -> &Tensor {
        &self.scales
    }

    /// Dtype of the values that the codes stand for.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The values that the codes stand for, `[L, dim]` in their dtype; on the CPU.
    ///
    /// Errors: the device's.
    pub fn values(&self) -> Result<Tensor> {
        let (codes, scales) = (to_host(&self.codes)?, to_host(&self.scales)?);
        let column = scales.unsqueeze(1)?;
        Ok(codes.to_dtype(DType::F32)?.broadcast_mul(&column)?.to_dtype(self.dtype)?)
    }
}

/// Rounds rows to e4m3: `x` `[L, dim]`, any float dtype, which the codes then stand for.
///
/// Errors: a device without this op; a dtype that is not a float.
pub fn quantise(x: &Tensor) -> Result<QuantisedRows> {
    x.dims2()?;
    match x.device() {
        Device::Cpu => Ok(cpu::quantise(x)?),
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => Ok(cuda::quantise(x)?),
        other => Err(Error::invalid("device of quantise", format!("{:?}", other.location()), "cpu or cuda")),
    }
}
